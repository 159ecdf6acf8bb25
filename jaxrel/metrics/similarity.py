"""How alike two explanations are, example by example: (N, ...) and (N, ...) to (N,)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ..rules.numerics import divide
from . import borders


def pearson(a: jax.Array, b: jax.Array) -> jax.Array:
    """Pearson's correlation over everything but the examples: cov(a, b) / sqrt(var a var b).

    Differentiable. 0 where one of them is the same everywhere (nothing goes with nothing; scipy
    has NaN).

    Args:
      a, b: (N, ...), of one shape; any unit.

    Returns:
      (N,), from -1 to 1, in float32 at least.

    Raises:
      ValueError: shapes differ, or there is nothing.

    Example:
      >>> pearson(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[1.0, 0.0, -1.0]]))
      Array([-1.], dtype=float32)
    """
    a, b = _pair(a, b)
    return _pearson(a, b)


def spearman(a: jax.Array, b: jax.Array) -> jax.Array:
    """Spearman's correlation: Pearson's of the ranks; values that tie have their mean rank.

    Args:
      a, b: as for :func:`pearson`.

    Returns:
      (N,), from -1 to 1; 0 where one of them is the same everywhere, NaN where one has NaN.

    Raises:
      ValueError: as :func:`pearson`.
    """
    a, b = _pair(a, b)
    return borders.poisoned(_pearson(ranks(a), ranks(b)), a, b)


def ssim(
    a: jax.Array, b: jax.Array, window: int = 7, k1: float = 0.01, k2: float = 0.03
) -> jax.Array:
    """Structural similarity (Wang et al. 2004, eq. 13), the mean over windows that fit.

    (2 ma mb + c1)(2 cab + c2) / ((ma^2 + mb^2 + c1)(va + vb + c2)) of the means, the variances and
    the covariance (n - 1 below) in a window of equal weights, c = (k range)^2 with the range of
    both together. As scikit-image computes it by default.

    Args:
      a, b: (N, H, W, C), the mean over the channels is taken; (N, H, W); (N, M) is a line.
      window: its width along each axis, in pixels.
      k1, k2: constants.

    Returns:
      (N,), from -1 to 1; 1 where all is the same number.

    Raises:
      ValueError: shapes differ, or are narrower than a window.
    """
    a, b = borders.relevances("a", a), borders.relevances("b", b)
    borders.same_shape("a", a, "b", b)
    axes = range(1, min(a.ndim, 3))
    if any(a.shape[axis] < window for axis in axes):
        raise ValueError(f"ssim: a window of {window} does not fit {a.shape}.")
    shape = tuple(window if axis in axes else 1 for axis in range(a.ndim))
    samples = window ** len(axes)

    def mean(x: jax.Array) -> jax.Array:
        total = lax.reduce_window(x, 0.0, lax.add, shape, (1,) * a.ndim, "valid")
        return total / samples

    centre = (mean(a), mean(b))
    unbiased = samples / (samples - 1)
    variance = [unbiased * (mean(x * x) - m * m) for x, m in zip((a, b), centre, strict=True)]
    covariance = unbiased * (mean(a * b) - centre[0] * centre[1])
    both = jnp.concatenate([borders.flat(a), borders.flat(b)], axis=1)
    extent = (both.max(1) - both.min(1)).reshape(-1, *(1 for _ in a.shape[1:]))
    c1, c2 = (k1 * extent) ** 2, (k2 * extent) ** 2
    means = divide(2 * centre[0] * centre[1] + c1, centre[0] ** 2 + centre[1] ** 2 + c1, 1.0)
    spreads = divide(2 * covariance + c2, variance[0] + variance[1] + c2, 1.0)
    return borders.flat(means * spreads).mean(1)


def ranks(a: jax.Array) -> jax.Array:
    """Ranks from 1 along the last axis of (N, M), the mean rank where values tie."""
    order = jnp.argsort(a, axis=1)
    ordered = jnp.take_along_axis(a, order, axis=1)
    places = jnp.zeros_like(order) + jnp.arange(a.shape[1], dtype=order.dtype)
    steps = ordered[:, 1:] != ordered[:, :-1]
    first = jnp.pad(steps, ((0, 0), (1, 0)), constant_values=True)
    last = jnp.pad(steps, ((0, 0), (0, 1)), constant_values=True)
    start = lax.cummax(jnp.where(first, places, 0), axis=1)
    end = lax.cummin(jnp.where(last, places, a.shape[1]), axis=1, reverse=True)
    mean = (start + end).astype(a.dtype) / 2 + 1
    return jnp.take_along_axis(mean, jnp.argsort(order, axis=1), axis=1)


def _pair(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = borders.relevances("a", a), borders.relevances("b", b)
    borders.same_shape("a", a, "b", b)
    return borders.flat(a), borders.flat(b)


def _pearson(a: jax.Array, b: jax.Array) -> jax.Array:
    a, b = _centred(a), _centred(b)
    squares = (a * a).sum(1) * (b * b).sum(1)
    nothing = squares == 0
    return jnp.where(nothing, 0, (a * b).sum(1) / jnp.sqrt(jnp.where(nothing, 1, squares)))


def _centred(x: jax.Array) -> jax.Array:
    """Deviations from the mean, of size 1 so that squares stay finite; 0 of what is constant."""
    same = x.max(1, keepdims=True) == x.min(1, keepdims=True)
    x = jnp.where(same, 0, x - x.mean(1, keepdims=True))
    return divide(x, lax.stop_gradient(jnp.abs(x).max(1, keepdims=True)))
