"""Control flow, rebuilt around nested plans through jax's public functions.

Parameters of ``scan``, ``cond`` and the rest change between jax versions, so equations are never
bound again with other parameters. Where no step inside has a rule of its own, the equation runs as
it was: that keeps a user's custom derivative, and traces nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from . import _compat
from .assign import Assignment, is_plain
from .plan.steps import Plan, Step


class RunBody(Protocol):
    """Executes a nested plan.

    Attributes:
      tapped: the steps inside are audited, so they cannot run as they were.
    """

    tapped: bool

    def __call__(self, plan: Plan, arguments: Sequence[Any], index: Any = None) -> list[Any]:
        """Runs ``plan``; ``index`` counts the iterations of a loop, for audits."""
        ...


def _unless_plain(rebuild: Callable[[Step, list[Any], RunBody], Sequence[Any]], is_call=False):
    def run(step: Step, chosen: Assignment, values: list[Any], run_body: RunBody) -> Sequence[Any]:
        plain = all(is_plain(body, chosen) for body in step.bodies)
        if plain and (is_call or not run_body.tapped):
            return _compat.bind(step.nodes[0].eqn, values)
        return rebuild(step, values, run_body)

    return run


def _scan(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    params = step.nodes[0].eqn.params
    constants, carries = _compat.scan_arity(params)
    before = values[:constants]
    carry, xs = values[constants : constants + carries], values[constants + carries :]

    def body(carry: list[Any], x: tuple[list[Any], Any]):
        out = run_body(step.bodies[0], [*before, *carry, *x[0]], x[1])
        return out[:carries], out[carries:]

    count = jnp.arange(params["length"]) if run_body.tapped else None
    carry, ys = lax.scan(
        body,
        list(carry),
        (list(xs), count),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys]


def _cond(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    index, *operands = values
    branches = [lambda *args, body=body: run_body(body, args) for body in step.bodies]
    return lax.switch(index, branches, *operands)


def _remat(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    params = step.nodes[0].eqn.params
    checkpointed = jax.checkpoint(
        lambda *args: run_body(step.bodies[0], args),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return checkpointed(*values)


def _call(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    return run_body(step.bodies[0], values)


def _jit(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    """Only calls with explicit shardings come here; others are unfolded by the plan."""
    params = step.nodes[0].eqn.params
    shardings = [
        tuple(None if _compat.is_unspecified(s) else s for s in params[name])
        for name in ("in_shardings", "out_shardings")
    ]
    jitted = jax.jit(
        lambda *args: tuple(run_body(step.bodies[0], args)),
        in_shardings=shardings[0],
        out_shardings=shardings[1],
    )
    return jitted(*values)


def _shard_map(step: Step, values: list[Any], run_body: RunBody) -> Sequence[Any]:
    def body(*args: Any) -> tuple[Any, ...]:
        return tuple(run_body(step.bodies[0], args))

    return _compat.shard_map(body, step.nodes[0].eqn.params)(*values)


CONTROL_FLOW = {
    "scan": _unless_plain(_scan),
    "cond": _unless_plain(_cond),
    "remat2": _unless_plain(_remat),
    "jit": _unless_plain(_jit),
    "shard_map": _unless_plain(_shard_map),
    "custom_jvp_call": _unless_plain(_call, is_call=True),
    "custom_vjp_call": _unless_plain(_call, is_call=True),
    "custom_vmap_call": _unless_plain(_call, is_call=True),
    "composite": _unless_plain(_call, is_call=True),
    "remat_opt": _unless_plain(_call, is_call=True),
    "xla_metadata_call": _unless_plain(_call, is_call=True),
}
