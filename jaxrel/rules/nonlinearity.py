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
