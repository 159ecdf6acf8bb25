"""Control flow, rebuilt around nested plans through jax's public functions.

Parameters of ``scan``, ``cond`` and the rest change between jax versions, so equations are never
bound again with other parameters. Where there is nothing to add inside, the equation runs as it
was: that keeps a user's custom derivative, and traces nothing twice.

What goes in and comes out are bundles: values with all that travels with them, whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from .. import _compat
from .._plan.functions import has_another_derivative
from .._plan.primitives import of
from .._plan.steps import Plan, Step
from .._plan.varying import cond_varying, scan_varying
from ..rules.numerics import difference
from ..rulesets.assign import Assignment, is_plain
from .bundle import Bundle, fitted, is_float
from .places import by_device, of_device
from .switches import settle
from .taps import Key, Probes, Taps
from .units import units_of_control


class Run(Protocol):
    """Executes nested plans: :class:`jaxrel._execute.evaluate.Interpreter`."""

    @property
    def chosen(self) -> Assignment:
        """The rule of each step."""
        ...

    @property
    def taps(self) -> Taps:
        """What is read off."""
        ...

    @property
    def apart(self) -> bool:
        """Whether differences are carried in parts."""
        ...

    def probes(self, step: Step) -> Probes:
        """Those of what is inside ``step``; a loop's with one row for each iteration."""
        ...

    def degrees(self, step: Step) -> dict[int, Any]:
        """Degrees of factors inside a loop, with one row for each of its iterations."""
        ...

    def having(self, probes: Probes, iterated: Mapping[int, Any] = ...) -> Run:
        """The same inside ``step``, with its probes: of one iteration of a loop, or one shard."""
        ...

    def run(self, plan: Plan, given: Sequence[Bundle], wanted: Sequence[bool]) -> list[Bundle]:
        """Runs ``plan``; outputs that are wanted have companions, as far as they are live."""
        ...


Branch = Callable[[list[Bundle]], tuple[list[Bundle], dict[Key, Any]]]
Rebuild = Callable[[Step, list[Bundle], Sequence[bool], Run], list[Bundle]]


def is_entered(step: Step, given: Sequence[Bundle], wanted: Sequence[bool], run: Run) -> bool:
    """Tells whether a step is control flow whose nested plans are executed.

    Not so where a rule is for the call as a whole; where all inside is plain and it is a function
    of jax's with a derivative of its own, or nothing travels with its operands; and where the
    baseline takes another branch, which has other parts.
    """
    if step.kind != "control" or id(step) in run.chosen:
        return False
    if run.apart and step.variant == "cond" and given[0].varies:
        return False
    (node,) = step.nodes
    if any(body.jaxpr is None for body in step.bodies):  # steps of a checkpoint
        return True
    plain = all(is_plain(body, run.chosen) for body in step.bodies)
    if not plain or has_another_derivative(node):
        return True
    if of(node.name).own_derivative:
        return False
    return any(wanted) or bool(run.taps.probes) or any(bundle.varies for bundle in given)


def _varies(given: Sequence[Bundle]) -> list[bool]:
    return [bundle.varies for bundle in given]


def _all_fitted(
    given: Sequence[Bundle], varies: Sequence[bool], units: Sequence[bool], run: Run
) -> list[Bundle]:
    triples = zip(given, varies, units, strict=True)
    return [fitted(bundle, flag, unit, run.apart) for bundle, flag, unit in triples]


def _scan(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    params = step.nodes[0].eqn.params
    constants, carries = _compat.scan_arity(params)
    ends = constants + carries
    varies = scan_varying(step, _varies(given))
    units, wanted = units_of_control(step, run.chosen, wanted)
    begun = [*_varies(given[:constants]), *varies[:carries], *_varies(given[ends:])]
    given = _all_fitted(given, begun, units, run)

    def body(carry: list[Bundle], x: tuple[list[Bundle], Probes, dict[int, Any]]):
        inner = [*given[:constants], *carry, *x[0]]
        within = run.having(*x[1:])
        out = _all_fitted(within.run(step.bodies[0], inner, wanted), varies, wanted, run)
        return out[:carries], (out[carries:], within.taps.caught)

    start = jax.tree.map(jnp.asarray, given[constants:ends])
    carry, (ys, caught) = lax.scan(
        body,
        start,
        (given[ends:], run.probes(step), run.degrees(step)),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    run.taps.caught.update(caught)
    return [*carry, *ys]


def _cond(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    index, *operands = given
    varies = cond_varying(step, _varies(given))
    units, _ = units_of_control(step, run.chosen, wanted)
    operands = _all_fitted(operands, _varies(operands), units[1:], run)

    def branch(body: Plan) -> Branch:
        def taken(inner: list[Bundle]) -> tuple[list[Bundle], dict[Key, Any]]:
            within = run.having(run.probes(step))
            out = _all_fitted(within.run(body, inner, wanted), varies, wanted, run)
            return out, within.taps.caught

        return taken

    # jax transposes two branches to two trees where an operand has a weak type
    operands = jax.tree.map(_compat.strong, operands)
    branches = _alike([branch(body) for body in step.bodies], operands, bool(run.probes(step)))
    out, caught = lax.switch(index.value, branches, operands)
    run.taps.caught.update(caught)
    if not index.varies:
        return out
    plain = [lambda *args, body=body: _compat.run_jaxpr(body.jaxpr, args) for body in step.bodies]
    other = lax.switch(index.twin, plain, *(bundle.origin for bundle in operands))
    jumps = [
        difference(b.twin, z0) if is_float(z0) else None for b, z0 in zip(out, other, strict=False)
    ]
    live = [(given[k].value, given[k].origin) for k in step.live if k > 0]
    settled = settle([bundle.value for bundle in out], live, jumps)
    triples = zip(out, settled, other, strict=True)
    return [bundle._replace(value=z, twin=z0) for bundle, z, z0 in triples]


def _alike(branches: list[Branch], operands: list[Bundle], catch: bool) -> list[Branch]:
    """Branches that hand out the same places: zeros for those of another one."""
    if not catch:
        return branches
    shapes: dict[Key, Any] = {}
    for branch in branches:
        shapes |= jax.eval_shape(branch, operands)[1]

    def filled(branch: Branch) -> Branch:
        def taken(inner: list[Bundle]) -> tuple[list[Bundle], dict[Key, Any]]:
            out, caught = branch(inner)
            others = {k: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items() if k not in caught}
            return out, caught | others

        return taken

    return [filled(branch) for branch in branches]


def _entered(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run):
    """The operands of a call, and what it does with them, for jax to wrap once more.

    That gives its results, and the values of places inside.
    """
    units, _ = units_of_control(step, run.chosen, wanted)
    given = _all_fitted(given, _varies(given), units, run)

    def body(inner: list[Bundle], probes: Probes) -> tuple[list[Bundle], dict[Key, Any]]:
        within = run.having(probes)
        return within.run(step.bodies[0], inner, wanted), within.taps.caught

    return given, body


def _handed(run: Run, results: tuple[Sequence[Bundle], dict[Key, Any]]) -> list[Bundle]:
    """The results of a call, and places handed on."""
    run.taps.caught.update(results[1])
    return list(results[0])


def _call(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    given, body = _entered(step, given, wanted, run)
    return _handed(run, body(given, run.probes(step)))


def _remat(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    params = step.nodes[0].eqn.params
    given, body = _entered(step, given, wanted, run)
    kept = jax.checkpoint(body, prevent_cse=params["prevent_cse"], policy=params["policy"])
    return _handed(run, kept(given, run.probes(step)))


def _jit(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    """Only calls with explicit shardings come here; others are unfolded by the plan."""
    params = step.nodes[0].eqn.params
    given, body = _entered(step, given, wanted, run)

    def shardings(name: str) -> list[Any]:
        return [None if _compat.is_unspecified(s) else s for s in params[name]]

    jitted = jax.jit(
        body,
        in_shardings=(shardings("in_shardings"), None),
        out_shardings=(shardings("out_shardings"), None),
    )
    return _handed(run, jitted(given, run.probes(step)))


def _shard_map(step: Step, given: list[Bundle], wanted: Sequence[bool], run: Run) -> list[Bundle]:
    """Probes go in beside the operands: each device adds its share to what they get."""
    params = dict(step.nodes[0].eqn.params)
    given, body = _entered(step, given, wanted, run)
    axes = _compat.device_axes(step.nodes[0].eqn)
    params["in_specs"] = [*params["in_specs"]], PartitionSpec()
    params["out_specs"] = tuple(params["out_specs"]), PartitionSpec(*axes)

    def mapped(inner: list[Bundle], probes: Probes) -> tuple[tuple[Bundle, ...], Any]:
        out, caught = body(inner, of_device(probes, axes))
        return tuple(out), {key: by_device(value, axes) for key, value in caught.items()}

    return _handed(run, _compat.shard_map(mapped, params)(given, run.probes(step)))


CONTROL_FLOW: dict[str, Rebuild] = {
    "scan": _scan,
    "cond": _cond,
    "remat2": _remat,
    "jit": _jit,
    "shard_map": _shard_map,
    "custom_jvp_call": _call,
    "custom_vjp_call": _call,
    "custom_vmap_call": _call,
    "composite": _call,
    "remat_opt": _call,
    "xla_metadata_call": _call,
}
