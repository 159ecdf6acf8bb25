"""What stands in the place of a part that is taken away: the argument ``replacement``.

A number or an array that broadcasts to x, in x's units, is itself one. Those drawn at random are
drawn once, by an explicit key, before anything is taken away; to average over draws use ``vmap``
over keys. Which is best is a question of what the network has seen (Hooker et al. 2019, Hesse et
al. 2024): 0 for one that was trained with parts set to 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ..rules.numerics import wide
from ..training.references import blur as blur
from ..training.references import noise as noise
from . import borders


def mean(x: jax.Array) -> jax.Array:
    """Each example's own mean: of pictures by channel, (N, 1, 1, C); of features (N, F) of all.

    (:func:`jaxrel.training.mean` is the mean example.)

    Args:
      x: (N, ...), floats; channels last where there are three axes or more.

    Raises:
      ValueError: it is no batch.
    """
    x = borders.batch("x", x)
    return wide(x).mean(_positions(x), keepdims=True).astype(x.dtype)


def uniform(
    key: jax.Array,
    x: jax.Array,
    low: float | jax.Array | None = None,
    high: float | jax.Array | None = None,
) -> jax.Array:
    """Uniform noise in the place of everything, as in Samek et al. 2015.

    Args:
      key: a random key.
      x: (N, ...), floats.
      low, high: the range, in x's units, broadcasting to x; None: each example's own, by channel.

    Returns:
      In x's shape and dtype.

    Raises:
      ValueError: shapes that do not fit.
    """
    x = borders.batch("x", x)
    axes = _positions(x)
    low = x.min(axes, keepdims=True) if low is None else borders.broadcast("low", low, x)
    high = x.max(axes, keepdims=True) if high is None else borders.broadcast("high", high, x)
    drawn = jax.random.uniform(key, x.shape, wide(x).dtype)
    return (low + (high - low) * drawn).astype(x.dtype)


def neighbours(x: jax.Array, gone: jax.Array) -> jax.Array:
    """ROAD's noisy linear imputation, without its noise (Rong et al. 2022, section 4.2).

    Each missing pixel is the weighted mean of those around it inside the picture, 1/6 beside and
    1/12 diagonally, all missing ones together: a linear system, solved by conjugate gradients (of
    its symmetric form; it is positive definite while anything is left).

    Args:
      x: (N, H, W, C), floats; not sharded over a mesh with Explicit axes.
      gone: (N, H, W, C), boolean: what is missing.

    Returns:
      In x's shape: what fits in, where it is missing; the picture's mean where nothing is left.

    Raises:
      ValueError: x is no batch of pictures.
    """
    if x.ndim != 4:
        raise ValueError(f"neighbours: expected pictures (N, H, W, C), got shape {x.shape}.")
    seen = wide(x)
    middle, nothing = mean(seen), gone.all((1, 2), keepdims=True)
    solved = jax.vmap(_harmonic)(seen[:, None], (gone & ~nothing)[:, None], middle[:, None])[:, 0]
    return jnp.where(nothing, middle, solved).astype(x.dtype)


def _harmonic(x: jax.Array, gone: jax.Array, start: jax.Array) -> jax.Array:
    """What is missing of one picture, from a first guess."""
    weight = _around(jnp.ones((1, *x.shape[1:3], 1), x.dtype))

    def left(found: jax.Array) -> jax.Array:
        found = jnp.where(gone, found, 0)
        return jnp.where(gone, weight * found - _around(found), 0)

    known = jnp.where(gone, _around(jnp.where(gone, 0, x)), 0)
    precision = float(jnp.finfo(x.dtype).eps) ** 0.75
    return jax.scipy.sparse.linalg.cg(
        left, known, jnp.where(gone, start, 0), tol=precision, maxiter=1000
    )[0]


def _around(x: jax.Array) -> jax.Array:
    """The weighted sum over each pixel's eight neighbours inside the picture."""

    def both_sides(x: jax.Array, axis: int) -> jax.Array:
        return _moved(x, 1, axis) + _moved(x, -1, axis)

    rows = both_sides(x, 1)
    return (rows + both_sides(x, 2)) / 6 + both_sides(rows, 2) / 12


def _moved(x: jax.Array, step: int, axis: int) -> jax.Array:
    """``x`` moved by one pixel, 0 coming in."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (step, -step, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _positions(x: jax.Array) -> tuple[int, ...]:
    """All axes but that of the examples and of channels."""
    return tuple(range(1, x.ndim if x.ndim == 2 else x.ndim - 1))
