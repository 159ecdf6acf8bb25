"""The degree of every live value as a polynomial in what is explained, by which products split.

What is explained is of degree 1, and so is a place where relevance starts. A product has the sum of
its factors' degrees. Whatever else hands on relevance keeps the degree: linear operations, slopes,
norms, softmax; but f(c x) = c^k f(x), k > 0, takes it k times (x^2 is x x, and a root of that x).
What a rule takes for a constant, and what does not depend on the input, is of degree 0.

A sum of values of unlike degrees, as in a residual network, has none. It keeps the larger, and so
does what is concatenated: one degree for all elements.

In a loop the degree of a carry may grow from one iteration to the next. The loop is followed
iteration by iteration, so that it is split as if it were unrolled: where that changes, the rule has
degrees for each. After 32 iterations with no change no more is expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .. import _compat
from .._plan.primitives import of
from .._plan.steps import Plan, Step
from ..rules import ByDegree

Chosen = Mapping[int, Any]
Degree = int | Fraction
Found = dict[int, Any]
"""By ``id`` of a product, degrees of its factors: a tuple of the smallest numbers of that ratio,
or what they are of the whole, an array of shape (*iterations of the loops around, factors)."""

_ENOUGH = 32


def is_open(rule: Any) -> bool:
    """Tells whether a rule is to be told degrees."""
    return isinstance(rule, ByDegree) and not rule.degrees


def degrees(plan: Plan, chosen: Chosen) -> Found:
    """Finds the degrees of the factors of all products whose rule asks for them.

    Args:
      plan: the whole plan.
      chosen: its rules, which say what hands on relevance.
    """
    found: Found = {}
    _of_plan(plan, [int(live) for live in plan.live_inputs], chosen, found)
    return found


def _of_plan(plan: Plan, given: Sequence[Degree], chosen: Chosen, found: Found) -> list[Degree]:
    """Degrees of the outputs of a plan; enters in ``found`` what it holds."""
    known: dict[int, Degree] = dict(zip(plan.inputs, given, strict=True))
    for step in plan.steps:
        if step.kind != "constant":
            own = [known.get(value, 0) for value in step.operands]
            known.update(zip(step.results, _of_step(step, own, chosen, found), strict=True))
    return [known.get(value, 0) for value in plan.outputs]


def _of_step(step: Step, own: list[Degree], chosen: Chosen, found: Found) -> Sequence[Degree]:
    if step.kind == "place":
        return [max(own[k] for k in step.live) if step.live else 1] * len(step.results)
    if step.kind == "control" and id(step) not in chosen:
        return _of_control(step, own, chosen, found)
    if of(step.nodes[0].name).parallel and len(own) == len(step.results):
        return [degree if k in step.live else 0 for k, degree in enumerate(own)]
    rule = chosen.get(id(step))
    ask = getattr(rule, "reached", None)
    reached = ask(step.kind, step.variant, len(step.live)) if ask else range(len(step.live))
    live = [own[step.live[k]] for k in reached]
    if is_open(rule):
        found[id(step)] = _ratio(live)
    return [_made(step, live)] * len(step.results)


def _made(step: Step, live: Sequence[Degree]) -> Degree:
    """The degree of what a step makes of values of these."""
    if step.kind == "product" or (step.variant == "polynomial" and len(live) > 1):
        return sum(live)
    largest = max(live, default=0)
    if step.kind == "nonlinearity":
        return power(step) * largest
    return _factors(step) * largest if step.variant == "polynomial" else largest


def factors_of(parts: Sequence[Step], values: Sequence[int]) -> tuple[int, ...]:
    """Of which degree the last of some products and linear steps is in each of some values."""
    degrees: list[Degree] = []
    for value in values:
        known: dict[int, Degree] = {value: 1}
        for step in parts:
            live = [known.get(step.operands[k], 0) for k in step.live]
            known.update((v, _made(step, live)) for v in step.results)
        degrees.append(known[parts[-1].results[0]])
    return tuple(map(int, degrees))


def _factors(step: Step) -> int:
    """How many elements of one value are multiplied, at most."""
    (node,) = step.nodes
    shape, params = node.eqn.invars[0].aval.shape, node.eqn.params
    axes = params["axes"] if "axes" in params else [params["axis"]] if "axis" in params else []
    return math.prod(shape[k] for k in axes)


def power(step: Step) -> Degree:
    """The k of f(c x) = c^k f(x), if the operations of f show that and it is above 0; else 1."""
    powers: dict[int, Degree] = {step.operands[k]: 1 for k in step.live}
    for node in step.nodes:
        inside = [powers[v] for v in node.operands if v in powers]
        if not inside:
            continue
        row, alone = of(node.name), len(inside) == len(node.operands)
        if node.name == "integer_pow":
            found = node.eqn.params["y"] * inside[0]
        elif row.unary and row.degree is not None:
            found = Fraction(row.degree).limit_denominator(6) * inside[0]
        elif row.bilinear:
            found = sum(inside)
        elif (row.linear and alone and len({*inside}) == 1) or row.linear == (0,):
            found = inside[0]
        else:
            return 1
        powers.update((v, found) for v in node.results)
    found = powers.get(step.results[0], 1)
    return found if found > 0 else 1


def _of_control(step: Step, own: list[Degree], chosen: Chosen, found: Found) -> list[Degree]:
    if step.variant == "scan":
        return _of_scan(step, own, chosen, found)
    given = own[1:] if step.variant == "cond" else own
    made = [_of_plan(body, given, chosen, found) for body in step.bodies]
    return [max(ends) for ends in zip(*made, strict=True)]


def _of_scan(step: Step, own: list[Degree], chosen: Chosen, found: Found) -> list[Degree]:
    params = step.nodes[0].eqn.params
    constants, carries = _compat.scan_arity(params)
    ends = constants + carries
    carry, stacked, length = own[constants:ends], [], params["length"]
    rounds: list[Found] = []
    for _ in range(length):
        inside: Found = {}
        given = [*own[:constants], *carry, *own[ends:]]
        before, (*out,) = carry, _of_plan(step.bodies[0], given, chosen, inside)
        carry, ys = out[:carries], out[carries:]
        stacked = [max(pair) for pair in zip(stacked, ys, strict=True)] if stacked else ys
        rounds.append(inside)
        if carry == before or _settled(rounds):
            break
    for key in rounds[-1] if rounds else ():
        rows = [one[key] for one in rounds]
        rows += [rows[-1]] * (length - len(rows))
        found[key] = _joined(rows[::-1] if params["reverse"] else rows)
    return [*carry, *(stacked or [0] * (len(step.results) - carries))]


def _settled(rounds: Sequence[Found]) -> bool:
    """Tells whether nothing has changed for long; arrays, of loops inside, may."""
    last = rounds[-_ENOUGH:]
    if len(last) < _ENOUGH or not all(isinstance(v, tuple) for v in last[-1].values()):
        return False
    return all(one == last[-1] for one in last)


def _joined(rows: Sequence[Any]) -> Any:
    """The degrees of all iterations, as one if they are the same."""
    if all(isinstance(row, tuple) and row == rows[0] for row in rows):
        return rows[0]
    arrays = [np.array([float(d / sum(r)) for d in r]) if isinstance(r, tuple) else r for r in rows]
    shape = np.broadcast_shapes(*(row.shape for row in arrays))
    return np.stack([np.broadcast_to(row, shape) for row in arrays])


def _ratio(live: Sequence[Degree]) -> tuple[int, ...]:
    """The smallest whole numbers of the same ratio; ones if all are 0."""
    parts = [Fraction(degree) for degree in live]
    if not any(parts):
        return (1,) * len(parts)
    whole = math.lcm(*(part.denominator for part in parts))
    numbers = [int(part * whole) for part in parts]
    return tuple(number // math.gcd(*numbers) for number in numbers)
