"""A plan run step by step on numbers, for those who look at every step.

Control flow is unrolled: of a loop the first and the last iteration are walked (those between run
as they are), of branches the one that is taken. Nothing is rewritten; what a visitor returns for a
step is what the steps after it read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.steps import Plan, Step

Env = dict[int, Any]
"""Values by number."""


class Visitor(Protocol):
    """What is done at each step."""

    def step(self, plan: Plan, step: Step, env: Env) -> Sequence[Any]:
        """Runs a step that is no control flow; ``env`` holds all values made before it."""
        ...

    def control(self, step: Step, values: list[Any]) -> Sequence[Any] | None:
        """Runs a control step as a whole; None: it is walked."""
        ...


def walk(plan: Plan, arguments: Sequence[Any], visitor: Visitor) -> list[Any]:
    """Runs ``plan`` on ``arguments``, each step by ``visitor``; returns its outputs."""
    env = {**plan.constants, **dict(zip(plan.inputs, arguments, strict=True))}
    for step in plan.steps:
        if step.kind == "control":
            values = [env[value] for value in step.operands]
            results = visitor.control(step, values)
            results = _enter(step, values, visitor) if results is None else results
        else:
            results = visitor.step(plan, step, env)
        env.update(zip(step.results, results, strict=True))
    return [env[value] for value in plan.outputs]


def live_values(plan: Plan) -> set[int]:
    """Numbers of the values that depend differentiably on an explained input."""
    found = {v for v, live in zip(plan.inputs, plan.live_inputs, strict=True) if live}
    for step in plan.steps:
        if step.kind == "control":
            flags = zip(*(body.live_outputs for body in step.bodies), strict=True)
            found.update(v for v, f in zip(step.results, flags, strict=True) if any(f))
        elif step.kind != "constant":
            found.update(step.results)
    return found


def _enter(step: Step, values: list[Any], visitor: Visitor) -> Sequence[Any]:
    if step.variant == "scan":
        return _scan(step, values, visitor)
    if step.variant == "cond":
        index, *operands = values
        if _compat.is_tracer(index):  # within shard_map: no number to look at
            return _compat.bind(step.nodes[0].eqn, values)
        last = len(step.bodies) - 1
        return walk(step.bodies[min(max(int(index), 0), last)], operands, visitor)
    return walk(step.bodies[0], values, visitor)


def _scan(step: Step, values: list[Any], visitor: Visitor) -> Sequence[Any]:
    (body,), params = step.bodies, step.nodes[0].eqn.params
    constants, carries = _compat.scan_arity(params)
    before, carry = values[:constants], values[constants : constants + carries]
    xs, length = values[constants + carries :], params["length"]
    if length == 0:
        return _compat.bind(step.nodes[0].eqn, values)
    if params["reverse"]:
        xs = [jnp.flip(x, 0) for x in xs]

    def between(carry: list[Any], x: list[Any]):
        out = _compat.run_jaxpr(body.jaxpr, [*before, *carry, *x])
        return out[:carries], out[carries:]

    stacked, spans = [], {(0, 1), (length - 1, length)}
    spans |= {(1, length - 1)} if length > 2 else set()
    for start, end in sorted(spans):
        if end - start > 1:
            carry = list(map(jnp.asarray, carry))
            carry, ys = lax.scan(between, carry, [x[start:end] for x in xs])
        else:
            out = walk(body, [*before, *carry, *(x[start] for x in xs)], visitor)
            carry, ys = out[:carries], [jnp.asarray(y)[None] for y in out[carries:]]
        stacked.append(ys)
    ys = [jnp.concatenate(parts) for parts in zip(*stacked, strict=True)]
    return [*carry, *([jnp.flip(y, 0) for y in ys] if params["reverse"] else ys)]
