"""Rules for softmax, y = exp(u) / sum exp(u), and log-sum-exp, y = log sum exp(u)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, rule, total
from .numerics import check_number, divide, far, finite
from .view import Exponentials, View


@rule("softmax")
class Tempered(Rule):
    """m_u = s (m - sum s m), s = softmax(u / T): the gradient's, with weights of a temperature.

    Of GIM (Edin et al. 2025, arXiv 2505.17630), against self-repair: where several logits say the
    same, none of them alone changes much, and the gradient sees none. It is the plain VJP at u / T,
    without the factor 1 / T of the derivative of softmax(u / T); with T = 1 the gradient. Of
    log-sum-exp it is s m. Weights that are shared out again (masked, then over their sum) have no
    logits in that step, and get its gradient.

    It conserves nothing. With a baseline it is the same, at x alone.

    Attributes:
      temperature: T > 0.
    """

    temperature: float | jax.Array = 2.0

    def __post_init__(self):
        """Checks that logits can be divided by it."""
        super().__post_init__()
        check_number(self, "temperature", 1e-6, "logits are divided by it")

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """With the number 1 as temperature."""
        return isinstance(self.temperature, int | float) and self.temperature == 1

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.exponentials is not None
        if view.exponentials().log_base is None:
            return view.vjp(m)
        (u,) = view.inputs
        _, pullback = jax.vjp(view.function, far(u) / jnp.asarray(self.temperature, u.dtype))
        return pullback(m)


@rule("softmax")
class LogMean(Rule):
    """With a baseline: the Jacobian of softmax with logarithmic means for probabilities.

    With p and p0 the shares at u and u0, and L_k = (p_k - p0_k) / (log p_k - log p0_k),

        log-sum-exp:  m_k = w_k m,                      w = L / sum L
        softmax:      m_k = L_k m_k - w_k sum_i L_i m_i

    Exact, since sum_k L_k (log p_k - log p0_k) = sum (p_k - p0_k) = 0 makes w the weights with
    which log-sum-exp changes by sum_k w_k (u_k - u0_k) (Sato 1976 and Vartia 1976, for index
    numbers), and y_k - y0_k = L_k (log p_k - log p0_k). Symmetric in u and u0, and where they meet
    the gradient. The weights sum to 1, so a number added to all u changes nothing, as it should
    be: the maximum that is subtracted before gets nothing, live or not. By parts (exp, sum,
    quotient, each by its own rule) that is lost.
    """

    baseline = frozenset({True})

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.exponentials is not None
        assert view.baseline is not None
        parts, there = view.exponentials(), view.baseline.exponentials
        assert there is not None
        (u,), (u0,) = view.inputs, view.baseline.inputs
        return _between(parts, there(), u, u0, m)


def from_uniform(view: View, m: jax.Array) -> jax.Array:
    """:class:`LogMean` between the logits and u0 = 0, what is masked staying so: for ``Slope``."""
    assert view.exponentials is not None
    parts, (u,) = view.exponentials(), view.inputs
    return _between(parts, parts, u, _uniform(u, parts), m)


def of_uniform(view: View, m: jax.Array) -> jax.Array:
    """What :func:`from_uniform` leaves to the bias: uniform shares (the logarithm of a count) m."""
    assert view.exponentials is not None
    parts, (u,) = view.exponentials(), view.inputs
    if parts.log_base is None:  # exponentials are worth something where shares are uniform
        return total(view.output, m) - total(u, from_uniform(view, m))
    return finite(view.function(_uniform(u, parts))) * m


def _uniform(u: jax.Array, parts: Exponentials) -> jax.Array:
    """Logits 0, or equal exponentials, but where the share is nothing: masks of whatever depth.

    Shares that are shared out again are compared with what that other softmax makes of logits 0, so
    that both together are one.
    """
    masked = _log_shares(u, parts) <= _NOTHING
    if parts.log_base is not None:
        return jnp.where(masked, u, 0)
    if parts.along:
        there = (u > jnp.finfo(u.dtype).tiny).sum(parts.along, keepdims=True, dtype=u.dtype)
        return jnp.where(masked, u, divide(jnp.ones_like(u), there, otherwise=1))
    counts, broadcast, weights = _total(parts.total, jnp.ones_like(u))
    return jnp.where(masked, u, divide(weights, broadcast(counts), otherwise=1))


_NOTHING = math.log(jnp.finfo(jnp.float32).tiny)
"""The logarithm of a share that counts as masked, the same in all types."""


def _between(
    parts: Exponentials, there: Exponentials, u: jax.Array, u0: jax.Array, m: jax.Array
) -> jax.Array:
    """The multiplier of the logits, or exponentials, u compared with u0.

    A constant c in the total (softmax "off by one") has a share of its own, which changes and has a
    logarithmic mean, L_c. The exponentials L c / L_c give it that weight.
    """
    v, v0 = _log_shares(u, parts), _log_shares(u0, there)
    mean = _log_mean(v, v0)
    sums, broadcast, weights = _total(parts.whole, mean)
    scale = sums
    if parts.guarded is not None:
        (c, share), (_, share0) = _constant(u, parts), _constant(u0, there)
        own = jnp.where(c > 0, _log_mean(share, share0), 0)
        sums = jax.jvp(parts.whole, (mean,), (mean,))[1] + own
        scale = jnp.where(c > 0, divide(own, c), sums)

    def spread(rows: jax.Array) -> jax.Array:
        return divide(broadcast(rows), weights)

    # what comes next has the same relative slopes at any scale of the exponentials
    scaled = divide(mean, spread(scale), otherwise=1)
    _, pullback = jax.vjp(parts.of, scaled)
    sent = scaled * pullback(m)[0]
    sent = spread(sums) * sent if parts.is_share else sent
    if parts.log_base is not None:
        return parts.log_base * sent
    return divide(sent, _log_mean(_logarithm(u), _logarithm(u0)))  # their own slope


def _constant(u: jax.Array, parts: Exponentials) -> tuple[jax.Array, jax.Array]:
    """What the total has beside exponentials, and the logarithm of its share."""
    e = _exponentials(u, parts)
    whole, sums = jax.jvp(parts.whole, (e,), (e,))
    c = whole - sums
    c = jnp.where(c > 4 * float(jnp.finfo(c.dtype).eps) * whole, c, 0)
    return c, _logarithm(divide(c, whole))


def _exponentials(u: jax.Array, parts: Exponentials) -> jax.Array:
    return u if parts.log_base is None else jnp.exp(parts.log_base * far(u))


def _log_mean(v: jax.Array, v0: jax.Array) -> jax.Array:
    """(exp v - exp v0) / (v - v0), in whatever distance; v and v0 are finite."""
    d = v - v0
    near = jnp.abs(d) < 0.5
    h = jnp.where(near, d, 0) ** 2 / 4
    sinhc = 1 + h / 6 * (1 + h / 20 * (1 + h / 42 * (1 + h / 72 * (1 + h / 110))))
    apart = jnp.abs(jnp.where(near, 1, d))
    top = jnp.where(near, (v + v0) / 2, jnp.maximum(v, v0))
    return jnp.exp(top) * jnp.where(near, sinhc, -jnp.expm1(-apart) / apart)


def _total(total: Callable[[jax.Array], jax.Array], e: jax.Array):
    """The total of ``e``, the transpose of that map, and the weights of e in it."""
    out, pullback = jax.vjp(total, e)
    return out, lambda z: pullback(z)[0], pullback(jnp.ones_like(out))[0]


def _log_shares(u: jax.Array, parts: Exponentials) -> jax.Array:
    """Log shares, log exp(u) / total; finite: -inf (a mask) is the farthest logit there is."""
    u = _logarithm(u) if parts.log_base is None else parts.log_base * far(u)
    sums, broadcast, weights = _total(parts.whole, jnp.exp(u))
    shares = u - divide(broadcast(jnp.log(jnp.where(sums > 0, sums, 1))), weights)
    return jnp.where(weights != 0, shares, math.log(jnp.finfo(u.dtype).tiny))


def _logarithm(e: jax.Array) -> jax.Array:
    """The logarithm of exponentials that may have become 0; finite."""
    tiny = float(jnp.finfo(e.dtype).tiny)
    return jnp.where(e > tiny, jnp.log(jnp.where(e > tiny, e, 1)), math.log(tiny))
