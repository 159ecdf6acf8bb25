"""Rules for y = max_i a_i: over two values, an axis, a window, or a running maximum.

Each rule here is a function from the stack of candidates ``(k, *shape)`` to factors of the same
shape, m_i = factor_i m; a minimum is min a = -max -a. Padding is -inf and gets factor 0. With
``Gradient`` the winner takes all, and ties are split as JAX's own VJP splits them. ``sort`` and
``top_k`` hand on every value whole, so every rule is the gradient there.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import divide
from .base import Rule, View, rule


class MaximumRule(Rule):
    """A rule given by its factors."""

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """For ``sort`` and ``top_k``."""
        return variant == "selection"

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.candidates is not None
        a, pullback = jax.vjp(view.candidates, *view.inputs)
        wide = jnp.promote_types(a.dtype, jnp.float32)  # shares of 16-bit values overflow
        sign = -1 if view.minimum else 1
        factors = self.factors(sign * a.astype(wide), sign * view.output.astype(wide))
        return pullback((factors * m).astype(a.dtype))

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """m_i / m for candidates ``a`` of shape (k, *shape) and their maximum ``y`` (*shape)."""
        raise TypeError(f"{type(self).__name__} is abstract")


def _ratio(y: jax.Array, a: jax.Array) -> jax.Array:
    """Quotients y / a_i of candidates <= 0: in [0, 1]; the winner's is 1, padding's 0."""
    return jnp.where(a == y, 1, divide(y, a))


@rule("maximum")
class Radial(MaximumRule):
    """Shares by size, with 0 as a special point.

    Some a > 0: a_i gets the share a_i+ / sum_j a_j+ of the relevance. All negative: the share
    (1/|a_i|) / sum_j 1/|a_j|. So shares are >= 0 and sum to 1, a negative value contributes nothing
    to a positive maximum, the only positive one gets all, and shares are constant along rays. The
    source text describes the rule by these properties (its formula was an image and is lost); this
    is our reading.
    """

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        positive = jnp.maximum(a, 0)
        above = jnp.where(a > 0, divide(y, positive.sum(0)), 0)
        ratio = _ratio(jnp.minimum(y, 0), jnp.minimum(a, 0))
        below = ratio * ratio / ratio.sum(0)
        return jnp.where(y > 0, above, below)


@rule("maximum")
class Shapley(MaximumRule):
    """The Shapley value of each candidate in the game max(0, ...) with absent players at 0.

    With the positive values sorted, p_1 <= ... <= p_k and p_0 = 0, the share of p_j is sum over
    l <= j of (p_l - p_{l-1}) / (k - l + 1), over p_k. Negatives get 0; all negative: 1/n each.
    """

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        positive = jnp.maximum(a, 0)
        order = jnp.argsort(positive, axis=0)
        ascending = jnp.take_along_axis(positive, order, 0)
        steps = jnp.diff(ascending, axis=0, prepend=0)
        left = jnp.arange(len(a), 0, -1, dtype=a.dtype).reshape(-1, *(1 for _ in y.shape))
        worth = jnp.take_along_axis(jnp.cumsum(steps / left, 0), jnp.argsort(order, axis=0), 0)
        # share y / a_i with share = worth / y
        return jnp.where(y > 0, divide(worth, positive), _uniform(a, y))


def _uniform(a: jax.Array, y: jax.Array) -> jax.Array:
    """Factors that give every candidate the same share of a maximum <= 0."""
    present = jnp.isfinite(a)
    return present * _ratio(jnp.minimum(y, 0), jnp.minimum(a, 0)) / present.sum(0)


@rule("maximum")
class SoftmaxLimit(MaximumRule):
    """Through (1/beta) log mean_i exp(beta a_i), each of its parts by ``Slope`` against 0.

    With e_i = exp(beta a_i) and M their mean, exp gives (e_i - 1) / (beta a_i), log (which is at
    M = 1 where all a_i are 0) log M / (M - 1). The relevance of the soft maximum is conserved,
    which is at most log(n) / beta below the maximum's. beta = inf in closed form: the winner (ties
    share); all negative: 1/n each.

    Attributes:
      beta: hardness, in units of 1 / a.
    """

    beta: float | jax.Array = float("inf")

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        ties = (a == y).astype(a.dtype)
        limit = jnp.where(y > 0, ties / ties.sum(0), _uniform(a, y))
        if isinstance(self.beta, float) and self.beta == float("inf"):
            return limit
        beta = jnp.asarray(self.beta, a.dtype)  # it may be traced, and inf then as well
        # So far out the limit is exact to rounding: of two values one is negligible, or they tie.
        hard = jnp.isinf(beta) | (jnp.abs(beta * y) > float(jnp.finfo(a.dtype).eps) ** -2)
        return jnp.where(hard, limit, _soft(a, y, jnp.where(hard, 0, beta)))


def _soft(a: jax.Array, y: jax.Array, beta: jax.Array) -> jax.Array:
    """Factors through the soft maximum, where beta y is no larger than 1 / eps^2."""
    largest, present = float(jnp.finfo(a.dtype).max), jnp.isfinite(a)
    a = jnp.where(present, a, y)
    u, top, n = jnp.clip(beta * a, -largest, largest), beta * y, present.sum(0)
    # A difference of products would be rounded in units of top, which may be anything.
    gap = jnp.maximum(jnp.where(a > y, 0, a - y), -largest)
    below = jnp.clip(beta * gap, -largest, largest)
    shift = jnp.where(top > 0, top, 0)  # sums are in units of exp(shift)
    excess = jnp.where(
        jnp.abs(u) < 1,
        jnp.expm1(_within(u, 1)) * jnp.exp(-shift),
        jnp.exp(jnp.where(top > 0, below, u)) - jnp.exp(-shift),
    )
    mean_excess = (present * excess).sum(0) / n
    mean = (present * jnp.exp(below)).sum(0) / n
    unit = jnp.exp(jnp.minimum(shift, 40))
    small = mean_excess * unit  # M - 1, where that can be small
    log_mean = jnp.where(jnp.abs(small) < 0.5, jnp.log1p(_within(small, 0.5)), top + jnp.log(mean))
    near = float(jnp.finfo(a.dtype).eps) ** 0.25
    s, v, flat = _within(small, near), _within(u, near), jnp.abs(u) < near
    log_slope = _quotient(
        log_mean, mean_excess, jnp.abs(small) < near, unit * (1 - s / 2 + s * s / 3)
    )
    exp_slope = _quotient(
        excess / jnp.where(flat, 1, beta), a, flat, jnp.exp(-shift) * (1 + v / 2 + v * v / 6)
    )
    return present * log_slope * exp_slope / n


def _within(x: jax.Array, bound: float) -> jax.Array:
    """The values x of magnitude below a bound, 0 for others: harmless where it is not used."""
    return jnp.where(jnp.abs(x) < bound, x, 0)


def _quotient(a: jax.Array, b: jax.Array, near: jax.Array, series: jax.Array) -> jax.Array:
    """A quotient a / b, and its series where ``near``."""
    return jnp.where(near, series, a / jnp.where(near, 1, b))


@rule("maximum")
class AbsoluteValue(MaximumRule):
    """Through max(a, b) = (a + b) / 2 + |a - b| / 2, the absolute value by ``Slope``.

    A window is reduced pairwise in its own order. Without a baseline this is the gradient, but for
    ties, which it splits in halves.
    """

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""

        def pairwise(candidates: jax.Array) -> jax.Array:
            top = candidates[0]
            for other in candidates[1:]:
                half = (1 + jnp.sign(lax.stop_gradient(top - other))) / 2  # slope of |d|, 0 at 0
                top = half * top + (1 - half) * other
            return top

        present = jnp.isfinite(a)
        finite = jnp.where(present, a, jnp.minimum(y, 0) - 1)
        _, pullback = jax.vjp(pairwise, finite)
        return present * pullback(jnp.ones_like(y))[0]
