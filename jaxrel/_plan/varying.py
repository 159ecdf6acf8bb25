"""Which values differ from their twins at a baseline, before anything runs.

A value varies if it is made of one that does, live or not: the condition of ``where(x > 0, x, 0)``
has another value at the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import _compat
from .steps import Plan, Step


def varying(plan: Plan, inputs: Sequence[bool]) -> list[bool]:
    """For each output of ``plan`` whether it varies, its inputs varying as told."""
    found = {value for value, varies in zip(plan.inputs, inputs, strict=True) if varies}
    for step in plan.steps:
        varies = [value in found for value in step.operands]
        if any(varies):
            results = zip(step.results, _results(step, varies), strict=True)
            found.update(value for value, varies in results if varies)
    return [value in found for value in plan.outputs]


def _results(step: Step, operands: Sequence[bool]) -> Sequence[bool]:
    if not step.bodies:
        return [True] * len(step.results)
    if step.variant == "scan":
        return scan_varying(step, operands)
    if step.variant == "cond":
        return cond_varying(step, operands)
    return varying(step.bodies[0], operands)


def scan_varying(step: Step, operands: Sequence[bool]) -> list[bool]:
    """For each result of a scan whether it varies: a carry does if it does in any iteration."""
    constants, carries = _compat.scan_arity(step.nodes[0].eqn.params)
    carry = list(operands[constants : constants + carries])
    while True:  # each round can only add to what varies, so this ends
        inputs = [*operands[:constants], *carry, *operands[constants + carries :]]
        results = varying(step.bodies[0], inputs)
        merged = [a or b for a, b in zip(carry, results, strict=False)]
        if merged == carry:
            return [*carry, *results[carries:]]
        carry = merged


def cond_varying(step: Step, operands: Sequence[bool]) -> list[bool]:
    """For each result of a branch whether it varies: all, if another branch may be taken."""
    if operands[0]:
        return [True] * len(step.results)
    branches = (varying(body, operands[1:]) for body in step.bodies)
    return [any(results) for results in zip(*branches, strict=True)]
