"""Monotonicity: the more relevant a part, the more it does.

Arguments that recur are those of :func:`~jaxrel.metrics.pixel_flipping`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._call.averages import count
from . import borders
from .borders import Function
from .parts import Patch, Replacement, replaced, taken_apart
from .similarity import spearman


def monotonicity(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    per_step: int = 1,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Monotonicity (Arya et al. 2019): giving parts back, least relevant first, f never falls.

    Args:
      fun, x, relevance, patch, chunk: as for :func:`pixel_flipping`.
      per_step: how many parts come back at once.
      replacement: what there is at the beginning.

    Returns:
      (N,), the share of steps at which f does not fall: 1 is monotone.

    Raises:
      ValueError: as :func:`pixel_flipping`; there is one step only.
      TypeError: as :func:`pixel_flipping`.
    """
    x, relevance, parts, sums = taken_apart(x, relevance, patch)
    step = parts.order(sums, ascending=True) // count("monotonicity", per_step=per_step)
    steps = -(-parts.count // per_step)
    if steps < 2:
        raise ValueError(f"monotonicity: one step of {per_step} gives all {parts.count} parts.")

    def answer(k: jax.Array) -> jax.Array:
        return borders.values(fun, replaced(x, parts.spread(step > k), replacement))

    curve = borders.mapped(answer, jnp.arange(steps), chunk).T
    return borders.poisoned((jnp.diff(curve, axis=1) >= 0).mean(1), relevance, curve)


def monotonicity_correlation(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    per_step: int = 1,
    samples: int | None = None,
    key: jax.Array | None = None,
    draws: jax.Array | None = None,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Monotonicity as a correlation (Nguyen and Martinez 2020, section 4.1).

    Spearman's correlation over parts of their relevance and v = mean over draws u of
    (f(x with that part at u) - f(x))^2 / f(x)^2, how uncertain f is without it. The divisor is 1
    where abs(f) < 1e-5. The paper takes ``abs(relevance)``.

    Args:
      fun, x, relevance, patch, chunk: as for :func:`pixel_flipping`.
      per_step: how many parts, in ascending order, make one of what is compared.
      samples: how many draws for each; None: 10.
      key: a random key: u is uniform from 0 to 1.
      draws: instead (groups, samples, N) numbers, in x's units.

    Returns:
      (N,), from -1 to 1.

    Raises:
      ValueError: as :func:`pixel_flipping`; neither key nor draws.
      TypeError: as :func:`pixel_flipping`.
    """
    borders.exactly_one("monotonicity_correlation", key=key, draws=draws)
    x, relevance, parts, sums = taken_apart(x, relevance, patch)
    group = parts.order(sums, ascending=True) // count("monotonicity", per_step=per_step)
    groups = -(-parts.count // per_step)
    if key is not None:
        number = count("monotonicity_correlation", samples=10 if samples is None else samples)
        draws = jax.random.uniform(key, (groups, number, len(x)))
    shape = (groups, None, len(x))
    draws = borders.with_shape("draws", draws, shape, "(groups, samples, N)")

    def answer(which: tuple[jax.Array, jax.Array]) -> jax.Array:
        k, u = which
        value = u.reshape(-1, *(1 for _ in x.shape[1:]))
        return borders.values(fun, replaced(x, parts.spread(group == k), value))

    numbers = jnp.repeat(jnp.arange(groups), draws.shape[1])
    numbers = jnp.concatenate([jnp.array([-1]), numbers])
    by_draw = draws.reshape(-1, len(x))
    by_draw = jnp.concatenate([by_draw[:1], by_draw])
    found = borders.mapped(answer, (numbers, by_draw), chunk)
    whole = found[0]
    scale = jnp.where(jnp.abs(whole) < 1e-5, 1, whole)
    moved = ((found[1:] - whole) / scale) ** 2
    uncertain = moved.reshape(draws.shape).mean(1).T
    inside = jax.vmap(lambda s, g: jax.ops.segment_sum(s, g, groups))(sums, group)
    return borders.poisoned(spearman(inside, uncertain), relevance)
