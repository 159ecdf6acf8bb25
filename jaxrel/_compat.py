"""The only file that knows jax versions.

Everything here hides a difference between the two ends of the supported range (jax 0.10.2 and
0.12.0.1), or an interface of jax that is public in neither ``jax`` nor ``jax.lax``:

* ``ClosedJaxpr`` and ``Jaxpr`` are one class since 0.11; ``remat2`` carries an open jaxpr before.
* ``scan`` says how many operands are constants and carries by ``ft_in`` since 0.11, by two integers
  before.
* Equations carry their context (mesh, compute type, metadata) in ``eqn.ctx``.

Primitives are told apart by *name*: many have no public handle, and an unknown or renamed one ends
in a loud :class:`jaxrel.errors.UnsupportedPrimitive`, never in a silent default.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import core as jax_core
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend import core as jex_core
from jax.extend import source_info_util
from jax.interpreters import ad

Jaxpr = Any
"""An open or closed jaxpr; :func:`open_jaxpr` tells them apart."""

JaxprEqn = jex_core.JaxprEqn
Literal = jex_core.Literal
Var = jex_core.Var


def open_jaxpr(jaxpr: Jaxpr) -> tuple[Any, Sequence[Any]]:
    """Returns the open jaxpr and its constants, whichever class ``jaxpr`` is of."""
    if isinstance(jaxpr, jex_core.ClosedJaxpr):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, ()


def is_jaxpr(value: Any) -> bool:
    """Tells whether a parameter is a jaxpr, open or closed."""
    return isinstance(value, jex_core.ClosedJaxpr | jex_core.Jaxpr)


def scan_arity(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many operands of a ``scan`` are constants and how many are carries."""
    if "ft_in" in params:
        constants, carries, _ = (len(part) for part in params["ft_in"].unpack())
        return constants, carries
    return params["num_consts"], params["num_carry"]


def scopes(eqn: JaxprEqn) -> tuple[str, ...]:
    """Returns the names of the ``named_scope`` s around an equation, outermost first.

    Transformations (``vmap``, ``jvp``) stand in the same stack and are left out.
    """
    stack = eqn.source_info.name_stack.stack
    return tuple(entry.name for entry in stack if type(entry).__name__ == "Scope")


# the user's line is the last one that is neither jax's nor ours
source_info_util.register_exclusion(str(pathlib.Path(__file__).parent))


def source_line(eqn: JaxprEqn) -> str:
    """Returns ``file:line (function)`` of the user's code that made an equation, or ``""``."""
    line = source_info_util.summarize(eqn.source_info)
    return line if ":" in line else ""


def call_name(jaxpr: Jaxpr) -> str:
    """Returns the name of the Python function that a call's jaxpr was traced from."""
    return open_jaxpr(jaxpr)[0].debug_info.func_name


def is_unspecified(sharding: Any) -> bool:
    """Tells whether a sharding parameter of ``jit`` leaves the choice to the compiler."""
    return sharding is None or type(sharding).__name__ == "UnspecifiedValue"


def bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Executes one equation on other operands, in its own context, and returns all results."""
    primitive = eqn.primitive
    if primitive.name == "pvary":
        return [_vary(operands[0], frozenset(eqn.params["axes"]) - _varying(operands[0]))]
    operands = _varying_together(eqn, operands)
    with eqn.ctx.manager:
        out = primitive.bind(*operands, **primitive.get_bind_params(eqn.params))
    return list(out) if primitive.multiple_results else [out]


def by_rows(values: Sequence[Any]) -> list[Any]:
    """The same values, in the memory of a CPU by rows.

    XLA lets the operands of an operation have the layout that its neighbours want, columns where
    they are LAPACK's, and its fft for CPUs then refuses them.
    """
    if jax.default_backend() != "cpu":
        return list(values)
    layouts = [Layout(major_to_minor=tuple(range(np.ndim(x)))) for x in values]
    return list(map(with_layout_constraint, values, layouts))


def _varying_together(eqn: JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Operands that vary over the mesh axes within ``shard_map`` that the equation's own did.

    Others in their places (zeros, ones, bounds of a rule) need not, and jax lets no two mix: each
    varies over what any other does, but for those of calls, and of sums over the mesh itself.
    """
    axes = [_axes_of(atom.aval) for atom in eqn.invars]
    if not _is_call(eqn) and not _names_axes(eqn):
        axes = [frozenset[str]().union(*axes, *map(_varying, operands))] * len(operands)
    if not any(axes):
        return operands
    return [_vary(x, over - _varying(x)) for x, over in zip(operands, axes, strict=True)]


def _is_call(eqn: JaxprEqn) -> bool:
    return any(map(is_jaxpr, jax.tree.leaves(eqn.params, is_leaf=is_jaxpr)))


def _names_axes(eqn: JaxprEqn) -> bool:
    axes = eqn.params.get("axis_name", eqn.params.get("axes", ()))
    return any(isinstance(name, str) for name in jax.tree.leaves(axes))


def _vary(x: Any, axes: frozenset[str]) -> Any:
    return jax.lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x


def _axes_of(aval: Any) -> frozenset[str]:
    axis_type = getattr(aval, "manual_axis_type", None)
    return frozenset(getattr(axis_type, "varying", ()))


def _varying(x: Any) -> frozenset[str]:
    """The mesh axes that a value varies over within ``shard_map``."""
    return _axes_of(jax.typeof(x))


def vary_like(x: Any, *others: Any) -> Any:
    """Returns ``x`` as a value that varies over all mesh axes that any of ``others`` varies over.

    What is sent back to it is summed over them.
    """
    return _vary(x, frozenset[str]().union(*map(_varying, others)) - _varying(x))


def vary_over(x: Any, axes: Sequence[str]) -> Any:
    """Returns ``x`` as a value that varies over these mesh axes."""
    return _vary(x, frozenset(axes) - _varying(x))


def strong(x: Any) -> Any:
    """``x`` without the weak type that a Python number gives; in value the same."""
    is_weak = getattr(jax.typeof(x), "weak_type", False)
    return jax.lax.convert_element_type(x, jax.numpy.result_type(x)) if is_weak else x


def cotangent(m: Any, x: Any) -> Any:
    """``m`` as a cotangent of ``x``: sharded alike, varying over the same mesh axes.

    Where within ``shard_map`` x is the same on all devices, each sends its part.
    """
    over, like = _varying(m), _varying(x)
    m = _vary(jax.lax.psum(m, tuple(over - like)) if over - like else m, like - over)
    aval = jax.typeof(x)
    if is_explicit(aval) and jax.typeof(m).sharding != aval.sharding:
        return jax.sharding.reshard(m, aval.sharding)
    return m


@contextlib.contextmanager
def at_source(eqn: JaxprEqn) -> Iterator[None]:
    """Blames what is traced inside on the user's line that made ``eqn``."""
    with source_info_util.user_context(eqn.source_info.traceback):
        yield


def is_differentiable(primitive: Any) -> bool:
    """Tells whether jax has any derivative of a primitive, a derivative of zero included."""
    return any(primitive in table for table in (ad.primitive_jvps, ad.primitive_transposes))


def is_transposable(primitive: Any) -> bool:
    """Tells whether jax can transpose a primitive by itself."""
    return primitive in ad.primitive_transposes


def has_derivative(eqn: JaxprEqn) -> bool:
    """Tells whether an equation can be differentiated, by trying: a call may refuse."""
    aval: list[Any] = [atom.aval for atom in eqn.invars]
    floats = [k for k, a in enumerate(aval) if jax.numpy.issubdtype(a.dtype, jax.numpy.inexact)]

    def derivative(*operands: Any) -> Any:
        def run(*live: Any) -> Any:
            replaced = dict(zip(floats, live, strict=True))
            return bind(eqn, [replaced.get(k, v) for k, v in enumerate(operands)])

        out, pullback = jax.vjp(run, *(operands[k] for k in floats))
        return pullback([zeros(jax.typeof(z)) for z in out])

    try:
        jax.eval_shape(derivative, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in aval))
    except Exception:  # whatever its author raises
        return False
    return True


def is_tracer(value: Any) -> bool:
    """Tells whether a value is known only to an outer transformation."""
    return isinstance(value, jax_core.Tracer)


def is_staged() -> bool:
    """Tells whether what is computed becomes part of a program, and is not executed at once.

    It is asked of every step, and answered once for each trace.
    """
    state = jex_core.get_opaque_trace_state()
    trace, staged = _last_asked[0]
    if trace != state:
        staged = is_tracer(jax.numpy.asarray(np.float32(0)))
        _last_asked[0] = state, staged  # at once: other threads ask too
    return staged


_last_asked: list[tuple[Any, bool]] = [(None, False)]


def instantiate(cotangent: Any) -> Any:
    """Returns a symbolic zero as an array of zeros, anything else as it is."""
    if isinstance(cotangent, SymbolicZero):
        aval: Any = cotangent.aval
        if aval.dtype == jax.dtypes.float0:
            return np.zeros(aval.shape, aval.dtype)
        return zeros(aval)
    return cotangent


def run_jaxpr(jaxpr: Jaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Executes a jaxpr as it is."""
    inner, consts = open_jaxpr(jaxpr)
    return jax_core.eval_jaxpr(inner, consts, *arguments)


def shard_map(fun: Any, params: dict[str, Any]) -> Any:
    """Wraps ``fun`` as the ``shard_map`` equation with these parameters did its body."""
    return jax.shard_map(
        fun,
        mesh=params["mesh"],
        in_specs=tuple(params["in_specs"]),
        out_specs=tuple(params["out_specs"]),
        axis_names=frozenset(params["newly_manual_axes"]),
        check_vma=params["check_vma"],
    )


def device_axes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The axes of the mesh that a ``shard_map`` runs over."""
    manual = eqn.params["newly_manual_axes"]
    return tuple(name for name in eqn.params["mesh"].axis_names if name in manual)


def repeats(eqn: JaxprEqn) -> tuple[int, ...]:
    """How often what an equation holds is executed: iterations of a loop, devices of a mesh."""
    if eqn.primitive.name == "scan":
        return (eqn.params["length"],)
    if eqn.primitive.name == "shard_map":
        return tuple(eqn.params["mesh"].shape[name] for name in device_axes(eqn))
    return ()


_CALL_JAXPR = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "composite": "jaxpr",
    "jit": "jaxpr",
    "remat_opt": "fwd_jaxpr",
    "xla_metadata_call": "jaxpr",
}


def call_jaxpr(eqn: JaxprEqn) -> Jaxpr:
    """Returns the jaxpr that a call equation holds."""
    return eqn.params[_CALL_JAXPR[eqn.primitive.name]]


def custom_call_name(eqn: JaxprEqn) -> str:
    """Returns the Python name of a call's function (``"relu"``), ``""`` for other equations."""
    if eqn.primitive.name not in _CALL_JAXPR:
        return ""
    return str(eqn.params.get("name") or call_name(call_jaxpr(eqn)))


def type_of(fun: Any, *operands: Any) -> Any:
    """Returns the abstract value of ``fun(*operands)``, mesh axes over which it varies included."""
    return open_jaxpr(jax.make_jaxpr(fun)(*operands))[0].outvars[0].aval


_OF_JAX = str(pathlib.Path(str(jax.__file__)).parent)


def is_of_jax(eqn: JaxprEqn) -> bool:
    """Tells whether the function of a call is one of jax's own."""
    return _OF_JAX in written_at(call_jaxpr(eqn))


def written_at(jaxpr: Jaxpr) -> str:
    """Returns ``name at file:line`` of the Python function that a call's jaxpr was traced from."""
    return str(open_jaxpr(jaxpr)[0].debug_info.func_src_info)


def trace_on(fun: Any, avals: Sequence[Any]) -> Jaxpr:
    """Traces ``fun`` to a jaxpr on values of these shapes and dtypes.

    Which mesh axes they vary over within ``shard_map`` shows when an equation is bound.
    """
    shapes = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False))
        for a in avals
    ]
    return jax.make_jaxpr(fun)(*shapes)


def named_identity(aval: Any, name: str) -> JaxprEqn:
    """Returns an equation that gives what it reads, a value of this type, by a name."""
    jaxpr = jax.make_jaxpr(lambda x: checkpoint_name(x, name))(np.float32(0))
    (eqn,) = jaxpr.jaxpr.eqns
    return eqn.replace(invars=[Var(aval)], outvars=[Var(aval)])


def zeros(aval: Any) -> jax.Array:
    """Returns zeros like a value of this type: its sharding, and its mesh axes in ``shard_map``."""
    sharding = aval.sharding if is_explicit(aval) else None
    return _vary(jax.numpy.zeros(aval.shape, aval.dtype, device=sharding), _axes_of(aval))


def zeros_behind(rows: Sequence[int], aval: Any, dtype: Any) -> jax.Array:
    """Returns zeros of a dtype for rows of values of this type, sharded alike."""
    sharding = None
    if is_explicit(aval) and not _axes_of(aval):
        spec = jax.sharding.PartitionSpec(*(None for _ in rows), *aval.sharding.spec)
        sharding = jax.sharding.NamedSharding(aval.sharding.mesh, spec)
    return jax.numpy.zeros((*rows, *aval.shape), dtype, device=sharding)


def under_mesh(values: Iterable[Any]) -> Any:
    """The context of the mesh that some values are sharded over explicitly, if none is set."""
    sharded = [v for v in values if isinstance(v, jax.Array) and is_explicit(jax.typeof(v))]
    if not sharded or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    concrete: list[Any] = [v for v in sharded if not is_tracer(v)]
    if concrete and not is_staged():
        return jax.set_mesh(concrete[0].sharding.mesh)
    return jax.sharding.use_abstract_mesh(jax.typeof(sharded[0]).sharding.mesh)


def is_explicit(aval: Any) -> bool:
    """Tells whether the type of a value says how it is sharded: a mesh with Explicit axes."""
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return jax.sharding.AxisType.Explicit in (getattr(mesh, "axis_types", None) or ())


def whole(x: Any) -> Any:
    """``x`` on every device, where the mesh has Explicit axes; anything else as it is."""
    aval = jax.typeof(x)
    if not is_explicit(aval):
        return x
    return jax.sharding.reshard(x, aval.sharding.update(spec=jax.sharding.PartitionSpec()))


def rows(x: Any, indices: Any) -> Any:
    """``x[indices]`` along the first axis, sharded as x is."""
    aval = jax.typeof(x)
    if not is_explicit(aval):
        return x[indices]
    return x.at[indices].get(out_sharding=aval.sharding)


def microbatches(x: Any, steps: int) -> Any:
    """Splits the first axis in ``steps``, which come in front.

    Where it is sharded by an Explicit mesh, each takes a part of every shard: nothing is sent.
    """
    each = x.shape[0] // steps
    if is_explicit(jax.typeof(x)):
        return jax.numpy.moveaxis(x.reshape(each, steps, *x.shape[1:]), 1, 0)
    return x.reshape(steps, each, *x.shape[1:])
