"""Which rule each step of a plan gets, decided before anything runs.

Everything that cannot be explained raises here, by name and place, and a match that matches nothing
is named in a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _compat
from .._plan.functions import has_another_derivative
from .._plan.primitives import CONTROL, ELEMENTWISE, OPAQUE, WITHOUT_DERIVATIVE
from .._plan.steps import UNRULED, Plan, Step
from ..errors import UnusedMatchWarning, warn
from ..rules import ByDegree, RuleFunction
from . import hints
from .degrees import degrees, is_open
from .matching import specificity
from .refusals import unsuited, unsupported
from .ruleset import RuleSet, describe


class Assignment(dict[int, RuleFunction | None]):
    """Rule by ``id`` of the step; None: the plain VJP.

    Attributes:
      shared: what equal steps share as long as these rules are in use.
      iterated: degrees of factors that change from one iteration of a loop to the next, by ``id``
        of the step; see :mod:`jaxrel.rulesets.degrees`.
    """

    def __init__(self):
        super().__init__()
        self.shared: dict[Any, Any] = {}
        self.iterated: dict[int, np.ndarray] = {}


def assign(
    plan: Plan, rules: RuleSet, compared: bool = False, explained: int | None = None
) -> Assignment:
    """Chooses the rule of every step of ``plan``, nested plans included.

    Args:
      plan: the plan.
      rules: the rule set.
      compared: whether relevance is against a baseline.
      explained: how many of its first outputs are explained; None: all.

    Returns:
      Rules by ``id(step)``; None where the rule is the plain VJP on its step, or where nothing
      arrives, so that the step can be executed as it is. A control step is among them where an
      override names it, a custom derivative call given a rule as a whole, or where its author's
      derivative is asked for.

    Raises:
      UnsupportedPrimitive: a live step has no rule.
      RuleError: a rule has no formula with a baseline, or none without.
    """
    chosen = Assignment()
    used: set[int | None] = set()
    _choose(plan, rules, compared, chosen, used)
    _warn_of_unused(plan, rules, used)
    asks = not compared and any(map(is_open, chosen.values()))
    found = degrees(plan, chosen) if asks else {}
    chosen.update({step: ByDegree(pair) for step, pair in found.items() if isinstance(pair, tuple)})
    chosen.iterated.update({step: v for step, v in found.items() if not isinstance(v, tuple)})
    reach(plan, chosen, [k < (explained or len(plan.outputs)) for k in range(len(plan.outputs))])
    return chosen


def _choose(
    plan: Plan, rules: RuleSet, compared: bool, chosen: Assignment, used: set[int | None]
) -> None:
    for step in plan.steps:
        if step.kind in UNRULED:
            continue
        rule, override = rules.choose(step)
        if step.kind == "control" and override is None:
            for body in step.bodies:
                _choose(body, rules, compared, chosen, used)
            declared = has_another_derivative(step.nodes[0])
            if declared and all(is_plain(body, chosen) for body in step.bodies):
                plain_rule = is_gradient(rules.nonlinearity, step)
                chosen.update({id(step): None} if plain_rule else {})
            continue
        used.add(override)
        plain = is_gradient(rule, step, compared)  # jax says itself what it cannot differentiate
        if rule is None or (override is None and not plain and not _has_derivative(step)):
            raise unsupported(step, _has_derivative(step))
        if compared not in getattr(rule, "baseline", (True, False)):
            raise unsuited(rule, step, compared)
        chosen[id(step)] = None if plain else rule


def is_gradient(rule: Any, step: Step, compared: bool = False) -> bool:
    """Tells whether ``rule`` is the plain VJP on ``step``.

    With a baseline what is homogeneous, or hands on every value whole, is no special case.
    """
    ask = getattr(rule, "is_gradient", None)
    if ask is None:
        return False
    selects = step.variant == "selection"
    return ask(step.homogeneous and not compared, "" if compared and selects else step.variant)


def is_plain(plan: Plan, chosen: Assignment) -> bool:
    """Tells whether every step of ``plan`` gets the plain VJP, so that it can run as it was."""
    for step in plan.steps:
        if chosen.get(id(step)) is not None:
            return False
        if id(step) in chosen:
            continue
        # an author's derivative is not that of the body, which is what is explained
        if step.kind == "control" and has_another_derivative(step.nodes[0]):
            return False
        if not all(is_plain(body, chosen) for body in step.bodies):
            return False
    return True


def reach(plan: Plan, chosen: Assignment, outputs: Sequence[bool], mark: bool = True) -> list[bool]:
    """Finds what multipliers reach, and takes the rules away from what they do not.

    Args:
      plan: the plan.
      chosen: the rules; None is entered for steps that get nothing.
      outputs: for each output of the plan whether it gets anything.
      mark: False: the rules are left alone.

    Returns:
      For each input of the plan whether it gets anything.
    """
    reached = {v for v, gets in zip(plan.outputs, outputs, strict=True) if gets}
    for step in reversed(plan.steps):
        if step.kind == "constant":
            continue
        gets = [value in reached for value in step.results]
        if step.kind == "control" and id(step) not in chosen:
            inside = _reach_inside(step, chosen, gets, mark)
            reached.update(v for v, hit in zip(step.operands, inside, strict=True) if hit)
        elif any(gets):
            ask = getattr(chosen.get(id(step)), "reached", None)
            places = range(len(step.live))
            places = ask(step.kind, step.variant, len(step.live)) if ask else places
            reached.update(step.operands[step.live[k]] for k in places)
        elif mark:
            chosen[id(step)] = None
    return [value in reached for value in plan.inputs]


def _reach_inside(step: Step, chosen: Assignment, gets: list[bool], mark: bool) -> Sequence[bool]:
    """For each operand of a control step whether it gets anything from its results."""
    if step.variant == "cond":
        inside = [reach(body, chosen, gets, mark) for body in step.bodies]
        return [False, *(any(hits) for hits in zip(*inside, strict=True))]
    if step.variant != "scan":
        return reach(step.bodies[0], chosen, gets, mark)
    constants, carries = _compat.scan_arity(step.nodes[0].eqn.params)
    while True:  # what a carry gets in one iteration it gets in the one before
        inside = reach(step.bodies[0], chosen, gets, mark=False)
        carried = inside[constants : constants + carries]
        merged = [a or b for a, b in zip(gets, carried, strict=False)]
        if merged == gets[:carries]:
            break
        gets = [*merged, *gets[carries:]]
    return reach(step.bodies[0], chosen, gets, mark)


def _has_derivative(step: Step) -> bool:
    """Tells whether jax can differentiate a step in its live operands."""
    inside = {step.operands[k] for k in step.live}
    for node in step.nodes:
        missing = {node.operands[k] for k in WITHOUT_DERIVATIVE.get(node.name, ())}
        if missing & inside or (step.kind == "other" and node.name in OPAQUE):
            return False
        alone = len(step.nodes) == 1 and step.kind != "linear" and node.name not in CONTROL
        if (alone or node.name in ELEMENTWISE) and not _compat.is_differentiable(
            node.eqn.primitive
        ):
            return False
        inside.update(node.results)
    return True


def _warn_of_unused(plan: Plan, rules: RuleSet, used: set[int | None]) -> None:
    for index, (match, rule) in enumerate(rules.overrides):
        if index in used or index < rules.optional:
            continue
        hit = [step for step in plan.walk() if specificity(match, step)]
        domain = getattr(rule, "kinds", None)
        suited = [step for step in hit if not domain or step.kind in domain]
        end = "."
        if not hit:
            why = "matches no step of this function"
            steps = list(plan.walk())
            names = sorted({name for step in steps for name in step.names})
            end = hints.for_unused(match, names, sorted({step.location for step in steps}))
        elif not suited:
            kinds = ", ".join(sorted({step.kind for step in hit}))
            why = f"matches only steps of kind {kinds}, for which the rule has no formula"
        else:
            why = "is overridden by other matches wherever it applies"
        warn(
            f"rules: {str(match)!r} -> {describe(rule)} {why}; summary(fun, rules)(*args) "
            f"shows the steps and their names{end}",
            UnusedMatchWarning,
        )
