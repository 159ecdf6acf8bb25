"""The values a maximum is taken of, as a linear map from its operands.

Rules for the maximum are written on a stack ``(k, *output.shape)``; the VJP of the map that makes
it sends their factors home, so that overlapping and padded windows need no further thought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._plan.primitives import SCATTER_MAX
from ..rules.view import Selection
from .wide import bind, run_jaxpr


def candidates(eqn: Any, values: Sequence[Any], live: Sequence[int]) -> Callable[..., jax.Array]:
    """Returns the map from the live operands of a maximum to the stack of its candidates.

    Args:
      eqn: of ``max``, ``min``, ``reduce_max``, ``cummax``, ``reduce_window_max``, ``scatter-max``
        or their minima.
      values: of its operands.
      live: positions of those that are live.
    """
    name, params = eqn.primitive.name, eqn.params
    fill = -jnp.inf if name.endswith("max") else jnp.inf
    if name in ("max", "min"):
        return lambda a, b: jnp.stack(jnp.broadcast_arrays(a, b))
    if name in SCATTER_MAX:
        return lambda *inputs: _scattered(eqn, values, dict(zip(live, inputs, strict=True)), fill)
    if name in ("reduce_max", "reduce_min"):
        axes = params["axes"]
        return lambda a: _leading(a, axes)
    if name in ("cummax", "cummin"):
        axis, reverse = params["axis"], params["reverse"]
        return lambda a: _running(a, axis, reverse, fill)
    return lambda a: _windows(a, params, fill)


def selection_of(eqn: Any) -> Selection:
    """How a ``sort``, ``top_k`` or ``approx_top_k`` orders."""
    rank, params = eqn.invars[0].aval.ndim, eqn.params
    floats = [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.invars]
    if eqn.primitive.name == "sort":
        return Selection(params["dimension"] % rank, descending=False, exact=sum(floats) == 1)
    if eqn.primitive.name == "top_k":
        return Selection(params.get("axis", -1) % rank, descending=True, exact=True)
    return Selection(params["reduction_dimension"] % rank, params["is_max_k"], exact=False)


def reduced_windows(eqn: Any, operands: Sequence[jax.Array]) -> list[jax.Array]:
    """What a ``reduce_window`` of any operation gives, made of what jax can transpose.

    jax differentiates it forwards only. Here the operation runs over the places of the window.
    """
    inputs, identities = operands[: len(operands) // 2], operands[len(operands) // 2 :]
    stacks = [_windows(a, eqn.params, one) for a, one in zip(inputs, identities, strict=True)]

    def combine(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        jaxpr, consts = eqn.params["jaxpr"], eqn.params["consts"]
        scalars = jax.vmap(lambda *s: run_jaxpr(jaxpr, s, consts))
        out = scalars(*(jnp.ravel(part) for part in (*a, *b)))
        return [flat.reshape(like.shape) for flat, like in zip(out, b, strict=True)]

    first = [stack[0] for stack in stacks]
    ones = [jnp.broadcast_to(one, a.shape) for one, a in zip(identities, first, strict=True)]
    start = combine(ones, first)
    out, _ = lax.scan(lambda a, b: (combine(a, b), None), start, [s[1:] for s in stacks])
    return out


def _leading(a: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    moved = jnp.moveaxis(a, axes, range(len(axes)))
    return moved.reshape(-1, *moved.shape[len(axes) :])


def _scattered(eqn: Any, values: Sequence[Any], inputs: dict[int, Any], fill: float) -> jax.Array:
    """The operand, and of the updates of each element the one that wins.

    As ``x.at[i].max(u)`` allows any number of updates of one element, those that lose among
    themselves are no candidates.
    """
    operand, indices, updates = (inputs.get(k, v) for k, v in enumerate(values))
    (best,) = bind(eqn, [jnp.full_like(operand, fill), indices, updates])
    return jnp.stack([operand, best])


def _running(a: jax.Array, axis: int, reverse: bool, fill: float) -> jax.Array:
    """The window of a running maximum is the whole axis, padded on one side."""
    size = a.shape[axis]
    window = [size if k == axis else 1 for k in range(a.ndim)]
    beside = (0, size - 1) if reverse else (size - 1, 0)
    params = {
        "window_dimensions": window,
        "window_strides": [1] * a.ndim,
        "padding": [beside if k == axis else (0, 0) for k in range(a.ndim)],
        "base_dilation": [1] * a.ndim,
        "window_dilation": [1] * a.ndim,
    }
    return _windows(a, params, fill)


def _windows(a: jax.Array, params: dict[str, Any], fill: float | jax.Array) -> jax.Array:
    """One strided slice of the padded array for each place in the window."""
    config = [(lo, hi, base - 1) for (lo, hi), base in zip(
        params["padding"], params["base_dilation"], strict=True
    )]  # fmt: skip
    padded = lax.pad(a, jnp.asarray(fill, a.dtype), config)
    strides, dilation = params["window_strides"], params["window_dilation"]
    window = params["window_dimensions"]
    spans = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    counts = [(n - span) // s + 1 for n, span, s in zip(padded.shape, spans, strides, strict=True)]

    def place(offsets: tuple[int, ...]) -> jax.Array:
        start = [o * d for o, d in zip(offsets, dilation, strict=True)]
        stop = [b + (n - 1) * s + 1 for b, n, s in zip(start, counts, strides, strict=True)]
        return lax.slice(padded, start, stop, strides)

    return jnp.stack([place(offsets) for offsets in product(*map(range, window))])
