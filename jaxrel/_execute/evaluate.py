"""From a plan to values, with the rules' VJPs.

The plan is traced again. A step whose rule is the plain VJP is bound as it was; any other runs
inside a ``jax.custom_vjp`` whose backward pass is its rule. jit, vmap, grad of relevance, scan,
remat and sharding then come from JAX.

With a baseline every value that varies has a twin, its value there. Twins are computed beside, by
the same operations; they enter the rules, and get no multiplier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.primitives import OPAQUE
from .._plan.steps import Plan, Step
from ..rulesets.assign import Assignment, is_plain
from .control import CONTROL_FLOW
from .step import apply_rule, run_nodes, run_plain, scope
from .switches import settle_constants
from .taps import NO_TAPS, Probes, Taps, within
from .units import companioned, hand_on, hands_on, meet

Twins = Sequence[Any]
"""Values at the baseline; None for those that are the same there."""


def evaluate(
    plan: Plan,
    chosen: Assignment,
    arguments: Sequence[Any],
    companions: Mapping[int, Any] = MappingProxyType({}),
    taps: Taps = NO_TAPS,
    twins: Twins | None = None,
) -> list[Any]:
    """Runs ``plan`` on ``arguments`` and returns its outputs.

    Args:
      plan: what to do.
      chosen: the rule of each step, from :func:`jaxrel.rulesets.assign.assign`.
      arguments: values of the plan's inputs.
      companions: companions of inputs by value number; see :mod:`jaxrel._execute.units`.
      taps: what is read off on the way back, for audits; see :mod:`jaxrel._execute.taps`.
      twins: of the arguments, if relevance is against a baseline.
    """
    return evaluate_both(plan, chosen, arguments, companions, taps, twins)[0]


def evaluate_both(
    plan: Plan,
    chosen: Assignment,
    arguments: Sequence[Any],
    companions: Mapping[int, Any] = MappingProxyType({}),
    taps: Taps = NO_TAPS,
    twins: Twins | None = None,
) -> tuple[list[Any], list[Any]]:
    """Like :func:`evaluate`; returns outputs and their twins."""
    whole = plan.jaxpr is not None
    if whole and not taps.probes and twins is None and is_plain(plan, chosen):
        return _compat.run_jaxpr(plan.jaxpr, arguments), [None] * len(plan.outputs)
    env = {**plan.constants, **dict(zip(plan.inputs, arguments, strict=True))}
    there = _present(plan.inputs, twins or ())
    needed, beside = companioned(plan, chosen), dict(companions)
    for value in needed.intersection(plan.inputs).difference(beside):
        env[value], beside[value] = meet(env[value], there.get(value))
    for step in plan.steps:
        values = [env[value] for value in step.operands]
        others = [there.get(value) for value in step.operands]
        own = [beside[step.operands[k]] for k in step.live if step.operands[k] in beside]
        rule = chosen.get(id(step))
        values, own = taps.inputs(step, values, own, others, env)
        with scope(step):
            results, made = run_step(step, chosen, values, others, own, taps)
            results = taps.outputs(step, rule, values, list(results), made, env)
            wanted = not needed.isdisjoint(step.results)
            if wanted and hands_on(step, rule):
                handed = hand_on(step, values, own, run_nodes)
                beside.update(zip(step.results, taps.companions(step, handed), strict=True))
            elif wanted:
                for k, value in enumerate(step.results):
                    results[k], beside[value] = meet(results[k], made[k])
        env.update(zip(step.results, results, strict=True))
        there.update(_present(step.results, made))
    outputs = taps.ends(plan, [env[value] for value in plan.outputs], env)
    return outputs, [there.get(value) for value in plan.outputs]


def _present(numbers: Sequence[int], twins: Twins) -> dict[int, Any]:
    pairs = zip(numbers, twins, strict=False)
    return {value: twin for value, twin in pairs if twin is not None}


class _Bodies:
    """Executes nested plans with the rules, and taps, of the whole."""

    def __init__(self, chosen: Assignment, taps: Taps):
        self.chosen, self.taps, self.tapped = chosen, taps, bool(taps.probes)

    def probes(self, step: Step) -> Probes:
        return within(step, self.taps.probes)

    def __call__(
        self, plan: Plan, arguments: Sequence[Any], twins: Twins, probes: Probes | None = None
    ) -> tuple[list[Any], list[Any]]:
        taps = self.taps if probes is None else self.taps.having(probes)
        compared = None if all(twin is None for twin in twins) else twins
        return evaluate_both(plan, self.chosen, arguments, taps=taps, twins=compared)


def run_step(
    step: Step,
    chosen: Assignment,
    values: list[Any],
    twins: list[Any],
    companions: list[Any],
    taps: Taps,
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Runs one step with its rule; returns results and their twins."""
    with _compat.at_source(step.nodes[-1].eqn):
        if step.kind == "control" and id(step) not in chosen:
            return CONTROL_FLOW[step.variant](step, chosen, values, twins, _Bodies(chosen, taps))
        if step.kind == "constant" and step.nodes[0].name in OPAQUE:
            values = [stopped(v) for v in values]
            twins = [None if v is None else stopped(v) for v in twins]
        rule = chosen.get(id(step))
        compared = any(twin is not None for twin in twins) and bool(step.results)
        base = [v if twin is None else twin for v, twin in zip(values, twins, strict=True)]
        made: list[Any] = [None] * len(step.results)
        if compared:
            made = run_plain(step, base, chosen.shared, is_twin=True)
        if rule is None:
            results = run_plain(step, values, chosen.shared)
        else:
            # against another constant f is no longer what its plan says
            moved = any(t is not None for k, t in enumerate(twins) if k not in step.live)
            seen = dataclasses.replace(step, homogeneous=False) if moved else step
            reference = (base, made) if compared else None
            results = apply_rule(seen, rule, values, companions, reference, chosen.shared)
        return settle_constants(step, values, twins, results, made, run_nodes), made


def stopped(value: Any) -> Any:
    """``value`` as a constant: what an opaque call reads."""
    is_float = jnp.issubdtype(jnp.result_type(value), jnp.inexact)
    return lax.stop_gradient(value) if is_float else value
