"""What a rule leaves unexplained, shared out so that relevance adds up to f(x) - f(x0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from . import numerics
from .numerics import difference, finite


def completed(
    found: Sequence[jax.Array],
    x: Sequence[jax.Array],
    x0: Sequence[jax.Array],
    y: Any,
    y0: Any,
    m: Any,
    examples: int,
) -> tuple[jax.Array, ...]:
    """Adds what is missing for sum((x - x0) m_x) = sum((y - y0) m): the least change that does.

    It is missing * (x - x0) / |x - x0|^2, faded out where x - x0 is so small that the quotient
    would be rounding errors.

    Args:
      found: multipliers of ``x``.
      x, x0: inputs.
      y, y0: outputs; an array, or a tuple of which those that are no floats have no part in it.
      m: multipliers of ``y``.
      examples: leading axes along which the step is independent.
    """

    def total(a: jax.Array) -> jax.Array:
        return a.real.sum(tuple(range(examples, a.ndim)))

    outputs = zip(*map(jax.tree.leaves, (y, y0, m)), strict=True)
    floats = [(_difference(b, b0), w) for b, b0, w in outputs if w.dtype != jax.dtypes.float0]
    steps = [_difference(a, a0) for a, a0 in zip(x, x0, strict=True)]
    arrived = sum((total(d * w) for d, w in floats), start=jnp.asarray(0.0))
    sent = sum(
        (total(d * part) for d, part in zip(steps, found, strict=True)), start=jnp.asarray(0.0)
    )
    square = sum((total(d * d.conj()) for d in steps), start=jnp.asarray(0.0))
    share = finite((arrived - sent) * _reciprocal(square))
    return tuple(
        part + d.conj() * share.reshape(share.shape + (1,) * (d.ndim - examples))
        for part, d in zip(found, steps, strict=True)
    )


def _reciprocal(square: jax.Array) -> jax.Array:
    """1 / q, but for q << sqrt(eps), where it falls to 0 as q / eps."""
    eps = float(jnp.finfo(square.dtype).eps)
    small, large = jnp.minimum(square, 1), jnp.maximum(square, 1)
    return jnp.where(square > 1, 1 / (large + eps / large), small / (small * small + eps))


def _difference(x: jax.Array, x0: jax.Array) -> jax.Array:
    return difference(x.astype(wide(x)), x0.astype(wide(x)))


def wide(x: jax.Array) -> Any:
    """The dtype to add up in: float32 at least."""
    return numerics.wide(x).dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.float32
