"""Products of products as one step of n factors, for what compares to a baseline.

Between two points the shares of a product of two depend on how they are joined. Of (x y) z the
first product is no line where x and y go along one, so its ends do not tell enough: with each
product on its own, at the midpoints, equal programs have unlike relevance. So a product of products
is one step with those, and with the linear operations between: a multilinear function of its
outermost factors, whose gradient on the line between the two points is a polynomial, and is
integrated exactly.

Joined are products whose rule is ``ByDegree``, products along an axis whose rule is the path
integral, squares and higher powers whose rule is the slope, and between them linear operations and
layers that get the gradient; not sums of two live values. What stands inside of a loop, a branch or
a checkpoint is not joined with what is outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .._plan.steps import Plan, Step
from ..rules import ByDegree, PathIntegral, Slope
from .assign import Assignment
from .degrees import factors_of, power

_MOST = 64
"""Steps in one."""


def joined(plan: Plan, chosen: Assignment) -> tuple[Plan, Assignment]:
    """Joins the products of a plan, nested ones each for itself.

    Args:
      plan: the plan.
      chosen: its rules, with a baseline.

    Returns:
      The plan and its rules; those given, if there is nothing to join.
    """
    if not any(map(_is_by_degree, chosen.values())):
        return plan, chosen
    rules = Assignment()
    rules.update(chosen)
    rules.shared = chosen.shared
    made = _joined(plan, rules)
    return (plan, chosen) if made is plan else (made, rules)


def _is_by_degree(rule: Any) -> bool:
    return isinstance(rule, ByDegree) and not rule.degrees


def _joined(plan: Plan, rules: Assignment) -> Plan:
    trees = _Trees(plan, rules)
    needed, steps = set(plan.outputs), []
    inside: set[int] = set()
    for step in reversed(plan.steps):
        if id(step) in inside and needed.isdisjoint(step.results):
            rules.pop(id(step))  # its id may become another's
            continue
        tree = trees.below(step) if trees.multiplies(step) else []
        if tree:
            inside.update(map(id, tree))
            rules.pop(id(step))
            step = _together(plan, [*tree, step], rules)
        elif step.bodies:
            step = _with_bodies(step, [_joined(body, rules) for body in step.bodies], rules)
        needed.update(step.operands)
        steps.append(step)
    steps.reverse()
    changed = [id(step) for step in steps] != [id(step) for step in plan.steps]
    return dataclasses.replace(plan, steps=tuple(steps)) if changed else plan


def _with_bodies(step: Step, bodies: Sequence[Plan], rules: Assignment) -> Step:
    if all(new is old for new, old in zip(bodies, step.bodies, strict=True)):
        return step
    new = dataclasses.replace(step, bodies=tuple(bodies))
    if id(step) in rules:
        rules[id(new)] = rules.pop(id(step))
    return new


class _Trees:
    """The products, and what is linear between them, that a product is made of."""

    def __init__(self, plan: Plan, rules: Mapping[int, Any]):
        self.rules = rules
        self.order = {id(step): k for k, step in enumerate(plan.steps)}
        self.makers = {v: step for step in plan.steps for v in step.results}
        self.known: dict[int, bool] = {}

    def multiplies(self, step: Step) -> bool:
        """Tells whether a step is a product, or a power, that can be joined with others."""
        rule = self.rules.get(id(step))
        if step.kind == "product":
            return _is_by_degree(rule)
        if step.kind == "nonlinearity":
            return isinstance(rule, Slope) and power(step) in range(2, _MOST)
        return step.variant == "polynomial" and isinstance(rule, PathIntegral)

    def joins(self, step: Step) -> bool:
        """Tells whether a step can stand between two products."""
        linear = step.kind in ("linear", "matmul") and bool(step.live)
        plain = id(step) in self.rules and self.rules[id(step)] is None
        return linear and plain and len(step.results) == 1 and not step.nodes[-1].stands_in

    def holds(self, value: int) -> bool:
        """Tells whether a value is made by a product, and by what is linear after it."""
        if value not in self.known:
            step = self.makers.get(value)
            self.known[value] = step is not None and (
                self.multiplies(step)
                or (self.joins(step) and any(self.holds(step.operands[k]) for k in step.live))
            )
        return self.known[value]

    def below(self, step: Step) -> list[Step]:
        """The steps that are joined with a product, in order; none if there are too many."""
        found: dict[int, Step] = {}
        stack = [step]
        while stack and len(found) < _MOST:
            one = stack.pop()
            for value in (one.operands[k] for k in one.live):
                if self.holds(value) and id(maker := self.makers[value]) not in found:
                    found[id(maker)] = maker
                    stack.append(maker)
        whole = sorted(found.values(), key=lambda one: self.order[id(one)])
        return [] if stack else whole


def _together(plan: Plan, parts: Sequence[Step], rules: Assignment) -> Step:
    """Steps as one, whose rule knows of which degree it is in each of its factors."""
    made = {v for step in parts for v in step.results}
    live = dict.fromkeys(
        v for step in parts for k in step.live if (v := step.operands[k]) not in made
    )
    others = dict.fromkeys(v for step in parts for v in step.operands if v not in made | {*live})
    last = parts[-1]
    step = dataclasses.replace(
        last,
        kind="product",
        variant="",
        operation="+".join(dict.fromkeys(step.operation for step in parts)),
        nodes=tuple(node for step in parts for node in step.nodes),
        operands=(*live, *others),
        live=tuple(range(len(live))),
        nonneg=(False,) * len(live),
        shapes=(tuple(plan.avals[v].str_short(short_dtypes=True) for v in live), last.shapes[1]),
    )
    rules[id(step)] = ByDegree(factors_of(parts, list(live)))
    return step
