"""Rules for softmax, y = exp(u) / sum exp(u), and log-sum-exp, y = log sum exp(u)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, rule
from .numerics import check_number, divide, far, secant
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
        v, v0 = _log_shares(u, parts), _log_shares(u0, there())
        mean = secant(jnp.exp, v, v0, jnp.exp(v), jnp.exp(v0))
        total, broadcast, weights = _total(parts.total, mean)
        scale = divide(broadcast(total), weights)
        # what comes next has the same relative slopes at any scale of the exponentials
        mean = divide(mean, scale, otherwise=1)
        _, pullback = jax.vjp(parts.of, mean)
        sent = mean * pullback(m)[0]
        sent = scale * sent if parts.is_share else sent
        if parts.log_base is not None:
            return parts.log_base * sent
        log, log0 = _logarithm(u), _logarithm(u0)  # the input are exponentials: their own slope
        return divide(sent, secant(jnp.exp, log, log0, jnp.exp(log), jnp.exp(log0)))


def _total(total: Any, e: jax.Array):
    """The total of ``e``, the transpose of that map, and the weights of e in it."""
    out, pullback = jax.vjp(total, e)
    return out, lambda z: pullback(z)[0], pullback(jnp.ones_like(out))[0]


def _log_shares(u: jax.Array, parts: Exponentials) -> jax.Array:
    """Log shares, log exp(u) / total; finite: -inf (a mask) is the farthest logit there is."""
    u = _logarithm(u) if parts.log_base is None else parts.log_base * far(u)
    sums, broadcast, weights = _total(parts.total, jnp.exp(u))
    shares = u - divide(broadcast(jnp.log(jnp.where(sums > 0, sums, 1))), weights)
    return jnp.where(weights != 0, shares, math.log(jnp.finfo(u.dtype).tiny))


def _logarithm(e: jax.Array) -> jax.Array:
    """The logarithm of exponentials that may have become 0; finite."""
    tiny = float(jnp.finfo(e.dtype).tiny)
    return jnp.where(e > tiny, jnp.log(jnp.where(e > tiny, e, 1)), math.log(tiny))
