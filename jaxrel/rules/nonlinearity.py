"""Rules for y = f(x), an elementwise function of one live value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..numerics import homogeneous_secant, secant
from .base import Rule, View, rule


@rule("nonlinearity")
class Slope(Rule):
    """m_x = m (f(x) - f(0)) / x, and f'(0) at x = 0.

    In relevance form this is *ignore*: R_x = R_y for f(0) = 0, else f(0) m is the bias's. Where f
    has a pole at 0 (log, 1/x), f(0) is taken as 0.

    With a baseline m_x = m (f(x) - f(x0)) / (x - x0), the mean of f' between the two where they are
    close: the Rescale rule of DeepLIFT (Shrikumar et al. 2017, equation 10). It is complete.
    """

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """On relu, leaky relu, abs: f(x) / x = f'(x) for homogeneous f (Euler)."""
        return homogeneous

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,) = view.inputs
        if view.baseline is not None:
            (x0,), y0 = view.baseline.inputs, view.baseline.output
            slope = homogeneous_secant if view.homogeneous else secant
            return m * slope(view.function, x, x0, view.output, y0)
        if view.factor is not None:
            return m * view.factor()
        origin = jnp.zeros_like(x)
        f0 = view.function(origin)
        f0 = jnp.where(jnp.isfinite(f0), f0, 0)
        return m * secant(view.function, x, origin, view.output, f0)


@rule("nonlinearity")
class Rescale(Slope):
    """:class:`Slope` with a baseline, by DeepLIFT's name; there is none without."""

    baseline = frozenset({True})

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """Never."""
        return False


@rule("nonlinearity")
class RevealCancel(Rule):
    """DeepLIFT's second rule: positive and negative differences each have their own effect.

    With p and n the parts of x - x0 (:mod:`jaxrel.apart`),

        dy+ = (f(x0 + p) - f(x0)) / 2 + (f(x0 + p + n) - f(x0 + n)) / 2,      m_p = m+ dy+ / p

    and dy- alike with p and n exchanged: the mean of the effects that a part has alone and beside
    the other (Shrikumar et al. 2017, section 3.5.3). Where one part is 0 it is :class:`Rescale`.
    """

    baseline = frozenset({True})
    carries_parts = True

    def parts(self, view: View, p: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two parts of the output's difference, dy+ and dy-."""
        start, up, down, both = _corners(view, p, n)
        return (up - start + both - down) / 2, (down - start + both - up) / 2

    def multipliers(
        self, view: View, p: jax.Array, n: jax.Array, up: jax.Array, down: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Multipliers of p and n, from those of dy+ and dy-."""
        assert view.baseline is not None
        (x0,), f = view.baseline.inputs, view.function
        slope = homogeneous_secant if view.homogeneous else secant
        start, high, low, both = _corners(view, p, n)
        alone = slope(f, x0 + p, x0, high, start), slope(f, x0 + n, x0, low, start)
        beside = slope(f, x0 + p + n, x0 + n, both, low), slope(f, x0 + p + n, x0 + p, both, high)
        return up * (alone[0] + beside[0]) / 2, down * (alone[1] + beside[1]) / 2

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`; of a difference that is seen whole."""
        return Rescale()(view, m)


def _corners(view: View, p: jax.Array, n: jax.Array) -> tuple[jax.Array, ...]:
    """The function f at x0, x0 + p, x0 + n and x0 + p + n."""
    assert view.baseline is not None
    (x0,), f = view.baseline.inputs, view.function
    return view.baseline.output, f(x0 + p), f(x0 + n), f(x0 + p + n)


@rule("nonlinearity")
class Ignore(Rule):
    """m_x = m: the nonlinearity is passed as if it were the identity (straight through)."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return m.astype(view.inputs[0].dtype)


@rule("nonlinearity")
class Repeat(Rule):
    """m_x = f(m): the nonlinearity once more, on the way back.

    The deconvolution method (Zeiler and Fergus 2014); the only rule not linear in m.
    """

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.function(m.astype(view.inputs[0].dtype))


@rule("nonlinearity")
class GuidedRelu(Rule):
    """m_x = [x > 0] max(m, 0): guided backpropagation (Springenberg et al. 2015)."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,) = view.inputs
        return jnp.where(x > 0, jnp.maximum(m, 0), 0).astype(x.dtype)


@rule("nonlinearity")
class BetaSmooth(Rule):
    """m_x = m sigmoid(beta x): relu as if it were softplus (Dombrowski et al. 2019).

    Attributes:
      beta: sharpness, in units of 1 / x.
    """

    beta: float | jax.Array = 10.0

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,) = view.inputs
        return m * jax.nn.sigmoid(jnp.asarray(self.beta, x.dtype) * x)
