"""The values a maximum is taken of, as a linear map from its operands.

Rules for the maximum are written on a stack ``(k, *output.shape)``; the VJP of the map that makes
it sends their factors home, so that overlapping and padded windows need no further thought.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .rules.base import Selection


def candidates(name: str, params: dict[str, Any]) -> Callable[..., jax.Array]:
    """Returns the map from the operands of a maximum to the stack of its candidates.

    Args:
      name: primitive: ``max``, ``min``, ``reduce_max``, ``cummax``, ``reduce_window_max`` ...
      params: the primitive's parameters.
    """
    fill = -jnp.inf if name.endswith("max") else jnp.inf
    if name in ("max", "min"):
        return lambda a, b: jnp.stack(jnp.broadcast_arrays(a, b))
    if name in ("reduce_max", "reduce_min"):
        axes = params["axes"]
        return lambda a: _leading(a, axes)
    if name in ("cummax", "cummin"):
        axis, reverse = params["axis"], params["reverse"]
        return lambda a: _running(a, axis, reverse, fill)
    return lambda a: _windows(a, params, fill)


def selection_of(eqn: Any) -> Selection | None:
    """How a ``sort`` or ``top_k`` orders; None for others, which are approximate."""
    rank = eqn.invars[0].aval.ndim
    if eqn.primitive.name == "sort":
        return Selection(eqn.params["dimension"] % rank, descending=False)
    if eqn.primitive.name == "top_k":
        return Selection(eqn.params.get("axis", -1) % rank, descending=True)
    return None


def _leading(a: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    moved = jnp.moveaxis(a, axes, range(len(axes)))
    return moved.reshape(-1, *moved.shape[len(axes) :])


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


def _windows(a: jax.Array, params: dict[str, Any], fill: float) -> jax.Array:
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
