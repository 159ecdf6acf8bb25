"""Companions: where relevance flows that is not proportional to a value.

A rule such as ``Flat`` or ``ZBox`` sends relevance to pixels that are 0. No multiplier can say
that, R = x m being 0 there. So values between such a rule and the input get a companion of their
shape, which is worth 1 and enters nothing. Its cotangent is relevance itself, and R = x m + r.

Companions go where relevance can be handed on whole: through structural operations, scaling and
shifting (normalising a picture), nonlinearities, and maxima to the winner. They go into loops,
branches, checkpoints and calls, and through them. Where they end (a sum, a pool, another matmul, a
call with a derivative of its own), relevance becomes a multiplier again, m + r / z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.primitives import AFFINE, STRUCTURAL
from .._plan.steps import Plan, Step
from ..rules.numerics import difference, divide
from ..rulesets.assign import Assignment


def emits_unit(rule: Any) -> bool:
    """Tells whether a rule sends relevance that is not proportional to the value."""
    return getattr(rule, "emits_unit", False)


def companioned(plan: Plan, chosen: Assignment, wanted: Sequence[bool] = ()) -> frozenset[int]:
    """Value numbers of ``plan`` that need a companion: all between a unit rule and the inputs.

    Args:
      plan: any, of the whole or nested.
      chosen: the rule of each step.
      wanted: which of its outputs need one; empty: none.
    """
    found = {value for value, flag in zip(plan.outputs, wanted, strict=False) if flag}
    for step in reversed(plan.steps):
        rule, passed = chosen.get(id(step)), [value in found for value in step.results]
        if step.kind == "control" and id(step) not in chosen:
            units, _ = units_of_control(step, chosen, passed)
            found.update(step.operands[k] for k in step.live if units[k])
        elif emits_unit(rule) or (hands_on(step, rule) and any(passed)):
            found.update(step.operands[k] for k in step.live)
    return frozenset(found)


def units_of_control(
    step: Step, chosen: Assignment, wanted: Sequence[bool]
) -> tuple[list[bool], list[bool]]:
    """For each operand of a control step, and for each result, whether it needs a companion.

    Args:
      step: one that nested plans are executed for.
      chosen: the rule of each step.
      wanted: which results need one outside of it; more do where a loop hands them on to itself.
    """
    wanted = list(wanted)

    def inputs(body: Plan) -> list[bool]:
        needed = companioned(body, chosen, wanted)
        return [value in needed for value in body.inputs]

    if step.variant == "cond":
        branches = [inputs(body) for body in step.bodies]
        return [False, *(any(flags) for flags in zip(*branches, strict=True))], wanted
    if step.variant != "scan":
        return inputs(step.bodies[0]), wanted
    constants, carries = _compat.scan_arity(step.nodes[0].eqn.params)
    while True:  # each round can only add to what is needed, so this ends
        needed = inputs(step.bodies[0])
        carried = needed[constants : constants + carries]
        merged = [a or b for a, b in zip(wanted, carried, strict=False)]
        if merged == wanted[:carries]:
            needed[constants : constants + carries] = merged
            return needed, wanted
        wanted[:carries] = merged


def hands_on(step: Step, rule: Any) -> bool:
    """Tells whether relevance goes through ``step`` whole."""
    if step.kind == "place":
        return True
    if step.kind == "linear":
        return rule is None and step.nodes[0].name in _WHOLE and len(step.nodes) == 1
    return step.kind == "nonlinearity" or (step.kind == "maximum" and rule is None)


_WHOLE = STRUCTURAL | AFFINE | {"select_n", "dynamic_update_slice", "scatter"}
"""Linear operations that scale, shift, choose and move values, and add up none."""


def hand_on(step: Step, values: Sequence[Any], companions: Sequence[Any], run: Any) -> list[Any]:
    """Makes the companions of a step's results from those of its live operands.

    Args:
      step: one that hands on.
      values: values of all its operands.
      companions: of its live operands.
      run: the step as a function of its operands' values.
    """
    if step.kind == "nonlinearity":
        return list(companions)
    if step.kind == "linear" and step.nodes[0].name in AFFINE:
        shape = step.nodes[0].eqn.outvars[0].aval.shape
        return [jnp.broadcast_to(companions[0], shape)]
    if step.kind == "linear":
        replaced = list(values)
        for k, companion in zip(step.live, companions, strict=True):
            replaced[k] = companion
        return _compat.bind(step.nodes[0].eqn, replaced)

    def of_live(*live: Any) -> list[Any]:
        replaced = list(values)
        for k, value in zip(step.live, live, strict=True):
            replaced[k] = value
        return run(step, replaced)

    live = tuple(values[k] for k in step.live)
    return list(jax.jvp(of_live, live, tuple(companions))[1])


def meet(z: jax.Array, z0: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Returns z and a companion for it; what that gets as relevance r becomes r / z for z.

    Args:
      z: a value.
      z0: its twin at the baseline, if there is one: relevance becomes r / (z - z0).
    """
    return _meet(z, jnp.zeros_like(z) if z0 is None else z0)


@jax.custom_vjp
def _meet(z: jax.Array, z0: jax.Array) -> tuple[jax.Array, jax.Array]:
    del z0
    return z, jnp.zeros_like(z)


def _meet_forward(z: jax.Array, z0: jax.Array):
    return (z, jnp.zeros_like(z)), difference(z, z0)


def _meet_backward(distance: jax.Array, cotangents: tuple[jax.Array, jax.Array]):
    m, r = cotangents
    return m + divide(r, distance), None


_meet.defvjp(_meet_forward, _meet_backward)
