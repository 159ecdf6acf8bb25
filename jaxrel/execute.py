"""From a plan to values, with the rules' VJPs.

The plan is traced again. A step whose rule is the plain VJP is bound as it was; any other runs
inside a ``jax.custom_vjp`` whose backward pass is its rule. jit, vmap, grad of relevance, scan,
remat and sharding then come from JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jax import lax

from . import _compat
from .apply import apply_rule, run_nodes, scope
from .assign import Assignment, is_plain
from .control import CONTROL_FLOW
from .plan.primitives import OPAQUE
from .plan.steps import Plan, Step
from .taps import NO_TAPS, Tapped
from .units import companioned, hand_on, hands_on, meet


def evaluate(
    plan: Plan,
    chosen: Assignment,
    arguments: Sequence[Any],
    companions: Mapping[int, Any] = MappingProxyType({}),
    taps: Tapped = NO_TAPS,
) -> list[Any]:
    """Runs ``plan`` on ``arguments`` and returns its outputs.

    Args:
      plan: what to do.
      chosen: the rule of each step, from :func:`jaxrel.assign.assign`.
      arguments: values of the plan's inputs.
      companions: companions of inputs by value number; see :mod:`jaxrel.units`.
      taps: what is read off on the way back, for audits; see :mod:`jaxrel.taps`.
    """
    if not taps.probes and is_plain(plan, chosen):
        return _compat.run_jaxpr(plan.jaxpr, arguments)
    env = {**plan.constants, **dict(zip(plan.inputs, arguments, strict=True))}
    needed, beside = companioned(plan, chosen), dict(companions)
    for value in needed.intersection(plan.inputs).difference(beside):
        env[value], beside[value] = meet(env[value])
    for step in plan.steps:
        values = [env[value] for value in step.operands]
        own = [beside[step.operands[k]] for k in step.live if step.operands[k] in beside]
        rule = chosen.get(id(step))
        values, own = taps.inputs(step, values, own)
        with scope(step):
            results = list(_run(step, chosen, values, own, taps))
            results = taps.outputs(step, rule, values, results)
            wanted = not needed.isdisjoint(step.results)
            if wanted and hands_on(step, rule):
                made = hand_on(step, values, own, run_nodes)
                beside.update(zip(step.results, taps.companions(step, made), strict=True))
            elif wanted:
                for k, value in enumerate(step.results):
                    results[k], beside[value] = meet(results[k])
        env.update(zip(step.results, results, strict=True))
    return [env[value] for value in plan.outputs]


class _Bodies:
    """Executes nested plans with the rules, and taps, of the whole."""

    def __init__(self, chosen: Assignment, taps: Tapped):
        self.chosen, self.taps, self.tapped = chosen, taps, bool(taps.probes)

    def __call__(self, plan: Plan, arguments: Sequence[Any], index: Any = None) -> list[Any]:
        taps = self.taps if index is None else self.taps.at(index)
        return evaluate(plan, self.chosen, arguments, taps=taps)


def _run(
    step: Step, chosen: Assignment, values: list[Any], companions: list[Any], taps: Tapped
) -> Sequence[Any]:
    with _compat.at_source(step.nodes[-1].eqn):
        if step.kind == "control" and id(step) not in chosen:
            return CONTROL_FLOW[step.variant](step, chosen, values, _Bodies(chosen, taps))
        if step.kind == "constant" and step.nodes[0].name in OPAQUE:
            values = [lax.stop_gradient(v) if _is_float(v) else v for v in values]
        rule = chosen.get(id(step))
        if rule is None:
            return run_nodes(step, values)
        return apply_rule(step, rule, values, companions)


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)
