"""Control flow, rebuilt around nested plans through jax's public functions.

Parameters of ``scan``, ``cond`` and the rest change between jax versions, so equations are never
bound again with other parameters. Where no step inside has a rule of its own, the equation runs as
it was: that keeps a user's custom derivative, and traces nothing twice.

With a baseline, loops carry the twins of what varies beside it, and branches return them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.functions import has_another_derivative
from .._plan.steps import Plan, Step
from .._plan.varying import cond_varying, scan_varying, varying
from ..rules.numerics import difference
from ..rulesets.assign import Assignment, is_plain
from .switches import settle
from .taps import Probes

Both = tuple[Sequence[Any], Sequence[Any]]
"""Results and their twins at the baseline, None for those that are the same there."""


class RunBody(Protocol):
    """Executes a nested plan.

    Attributes:
      tapped: the steps inside are audited, so they cannot run as they were.
    """

    tapped: bool

    def probes(self, step: Step) -> Probes:
        """Those of what is inside ``step``; a loop's with one row for each iteration."""
        ...

    def __call__(
        self,
        plan: Plan,
        arguments: Sequence[Any],
        twins: Sequence[Any],
        probes: Probes | None = None,
    ) -> Both:
        """Runs ``plan``; ``probes`` are those of this iteration of a loop, or of this shard."""
        ...


Rebuild = Callable[[Step, list[Any], list[Any], RunBody], Both]


def _unless_plain(rebuild: Rebuild, is_call: bool = False):
    def run(
        step: Step, chosen: Assignment, values: list[Any], twins: list[Any], run_body: RunBody
    ) -> Both:
        plain = all(is_plain(body, chosen) for body in step.bodies)
        plain = plain and not (step.variant == "cond" and twins[0] is not None)
        plain = plain and not has_another_derivative(step.nodes[0])
        plain = plain and all(body.jaxpr is not None for body in step.bodies)
        if plain and (is_call or not run_body.tapped):
            eqn = step.nodes[0].eqn
            none = all(twin is None for twin in twins)
            made = [None] * len(step.results) if none else _compat.bind(eqn, _fill(values, twins))
            return _compat.bind(eqn, values), made
        return rebuild(step, values, twins, run_body)

    return run


def _fill(values: Sequence[Any], twins: Sequence[Any]) -> list[Any]:
    return [v if twin is None else twin for v, twin in zip(values, twins, strict=True)]


def _chosen(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [value for value, flag in zip(values, flags, strict=True) if flag]


def _spread(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """The opposite of :func:`_chosen`: None where a flag is not set."""
    rest = iter(values)
    return [next(rest) if flag else None for flag in flags]


def _flags(twins: Sequence[Any]) -> list[bool]:
    return [twin is not None for twin in twins]


def _scan(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    params = step.nodes[0].eqn.params
    constants, carries = _compat.scan_arity(params)
    ends = constants + carries
    varies = scan_varying(step, _flags(twins))
    carried, stacked = varies[:carries], varies[carries:]
    over = _flags(twins[ends:])

    def body(carry: tuple[list[Any], list[Any]], x: tuple[list[Any], list[Any], Any]):
        arguments = [*values[:constants], *carry[0], *x[0]]
        inner = [*twins[:constants], *_spread(carry[1], carried), *_spread(x[1], over)]
        out, made = run_body(step.bodies[0], arguments, inner, x[2])
        made = _fill(out, made)
        carry = list(out[:carries]), _chosen(made[:carries], carried)
        return carry, (out[carries:], _chosen(made[carries:], stacked))

    start = list(values[constants:ends]), _chosen(_fill(values, twins)[constants:ends], carried)
    carry, ys = lax.scan(
        body,
        jax.tree.map(jnp.asarray, start),
        (values[ends:], _chosen(twins[ends:], over), run_body.probes(step)),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry[0], *ys[0]], _spread([*carry[1], *ys[1]], varies)


def _cond(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    index, *operands = values
    there, *inner = twins
    varies = cond_varying(step, _flags(twins))

    def branch(body: Plan) -> Callable[..., tuple[list[Any], list[Any]]]:
        def run(operands: list[Any], given: list[Any]):
            out, made = run_body(body, operands, _spread(given, _flags(inner)))
            return list(out), _chosen(_fill(out, made), varies)

        return run

    given = _chosen(inner, _flags(inner))
    out, made = lax.switch(index, [branch(body) for body in step.bodies], operands, given)
    made = _spread(made, varies)
    if there is None:
        return out, made
    plain = [lambda *args, body=body: _compat.run_jaxpr(body.jaxpr, args) for body in step.bodies]
    other = lax.switch(there, plain, *_fill(operands, inner))
    jumps = [difference(a, b) if _is_float(a) else None for a, b in zip(made, other, strict=True)]
    live = [(values[k], _fill(values, twins)[k]) for k in step.live if k > 0]
    return settle(out, live, jumps), other


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _remat(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    params = step.nodes[0].eqn.params

    def run(values: list[Any], given: list[Any]):
        return _call(step, values, _spread(given, _flags(twins)), run_body)

    checkpointed = jax.checkpoint(run, prevent_cse=params["prevent_cse"], policy=params["policy"])
    return checkpointed(values, _chosen(twins, _flags(twins)))


def _call(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    return run_body(step.bodies[0], values, twins)


def _jit(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    """Only calls with explicit shardings come here; others are unfolded by the plan."""
    params = step.nodes[0].eqn.params
    given, made = _flags(twins), _made(step, twins)

    def run(values: list[Any], given_twins: list[Any]):
        out, all_made = run_body(step.bodies[0], values, _spread(given_twins, given))
        return list(out), _chosen(_fill(out, all_made), made)

    def shardings(name: str, flags: Sequence[bool]):
        whole = [None if _compat.is_unspecified(s) else s for s in params[name]]
        return whole, _chosen(whole, flags)

    jitted = jax.jit(
        run,
        in_shardings=shardings("in_shardings", given),
        out_shardings=shardings("out_shardings", made),
    )
    out, chosen = jitted(values, _chosen(twins, given))
    return out, _spread(chosen, made)


def _made(step: Step, twins: Sequence[Any]) -> list[bool]:
    """Which results of a call vary."""
    return varying(step.bodies[0], _flags(twins))


def _shard_map(step: Step, values: list[Any], twins: list[Any], run_body: RunBody) -> Both:
    given, made = _flags(twins), _made(step, twins)
    probes = run_body.probes(step)

    def body(values: list[Any], twins: list[Any], probes: Probes) -> tuple[Any, ...]:
        out, all_made = run_body(step.bodies[0], values, _spread(twins, given), probes)
        return (*out, *_chosen(_fill(out, all_made), made))

    params = dict(step.nodes[0].eqn.params)
    specs = list(params["in_specs"])
    params["in_specs"] = specs, _chosen(specs, given), jax.sharding.PartitionSpec()
    params["out_specs"] = (*params["out_specs"], *_chosen(params["out_specs"], made))
    out = _compat.shard_map(body, params)(list(values), _chosen(twins, given), probes)
    return out[: len(made)], _spread(out[len(made) :], made)


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
