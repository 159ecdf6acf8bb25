"""Values on several devices: mesh axes within ``shard_map``, Explicit meshes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from .traces import is_staged, is_tracer


def vary(x: Any, axes: frozenset[str]) -> Any:
    """``x`` as a value that varies over these mesh axes, none of which it does vary over."""
    return jax.lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x


def axes_of(aval: Any) -> frozenset[str]:
    """The mesh axes that a value of this type varies over within ``shard_map``."""
    axis_type = getattr(aval, "manual_axis_type", None)
    return frozenset(getattr(axis_type, "varying", ()))


def varying(x: Any) -> frozenset[str]:
    """The mesh axes that a value varies over within ``shard_map``."""
    return axes_of(jax.typeof(x))


def vary_like(x: Any, *others: Any) -> Any:
    """Returns ``x`` as a value that varies over all mesh axes that any of ``others`` varies over.

    What is sent back to it is summed over them.
    """
    return vary(x, frozenset[str]().union(*map(varying, others)) - varying(x))


def vary_over(x: Any, axes: Sequence[str]) -> Any:
    """Returns ``x`` as a value that varies over these mesh axes."""
    return vary(x, frozenset(axes) - varying(x))


def cotangent(m: Any, x: Any) -> Any:
    """``m`` as a cotangent of ``x``: sharded alike, varying over the same mesh axes.

    Where within ``shard_map`` x is the same on all devices, each sends its part.
    """
    over, like = varying(m), varying(x)
    m = vary(jax.lax.psum(m, tuple(over - like)) if over - like else m, like - over)
    aval = jax.typeof(x)
    if is_explicit(aval) and jax.typeof(m).sharding != aval.sharding:
        return jax.sharding.reshard(m, aval.sharding)
    return m


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


def zeros(aval: Any) -> jax.Array:
    """Returns zeros like a value of this type: its sharding, and its mesh axes in ``shard_map``."""
    sharding = aval.sharding if is_explicit(aval) else None
    return vary(jax.numpy.zeros(aval.shape, aval.dtype, device=sharding), axes_of(aval))


def zeros_behind(rows: Sequence[int], aval: Any, dtype: Any) -> jax.Array:
    """Returns zeros of a dtype for rows of values of this type, sharded alike."""
    sharding = None
    if is_explicit(aval) and not axes_of(aval):
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
