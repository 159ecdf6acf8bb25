"""Rules for y = f(x), an elementwise function of one live value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, rule
from .numerics import check_number, factor, homogeneous_secant, secant
from .softmax import LogMean, from_uniform, of_uniform
from .view import View


@rule("nonlinearity", "softmax")
class Slope(Rule):
    """m_x = m (f(x) - f(0)) / x, and f'(0) at x = 0.

    In relevance form this is *ignore*: R_x = R_y for f(0) = 0, else f(0) m is the bias's. Where f
    has a pole at 0 (log, 1/x), f(0) is taken as 0; where f' has one (sqrt), m_x is 0 at 0.

    With a baseline m_x = m (f(x) - f(x0)) / (x - x0), the mean of f' between the two where they are
    close: the Rescale rule of DeepLIFT (Shrikumar et al. 2017, equation 10). It is complete.

    Of a softmax the origin is what the logits make of nothing, u0 = 0 under the same mask (what has
    a share below 1e-38): uniform shares, or of log-sum-exp the logarithm of their number, which are
    f(0), a bias. Between the two, or between the logits and the baseline's, it is ``LogMean``. So
    attention conserves: sum(R) + sum(biases) = f(x).
    """

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """On relu, leaky relu, abs: f(x) / x = f'(x) for homogeneous f (Euler)."""
        return homogeneous

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if view.exponentials is not None:
            return from_uniform(view, m) if view.baseline is None else LogMean()(view, m)
        (x,) = view.inputs
        if view.baseline is not None:
            (x0,), y0 = view.baseline.inputs, view.baseline.output
            slope = homogeneous_secant if view.homogeneous else secant
            return m * slope(view.function, x, x0, view.output, y0)
        if view.factor is not None:
            return m * factor(view.factor, x)
        origin = jnp.zeros_like(x)
        f0 = view.function(origin)
        f0 = jnp.where(jnp.isfinite(f0), f0, 0)
        return m * secant(view.function, x, origin, view.output, f0)

    def to_bias(self, view: View, m: Any) -> jax.Array:
        """f(0) m; of a softmax the uniform shares'."""
        return super().to_bias(view, m) if view.exponentials is None else of_uniform(view, m)

    def slopes(self, view: View, p: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the two parts of x - x0 are multiplied by, where they are carried apart.

        Here both by the slope; see :mod:`jaxrel._execute.apart`.

        Args:
          view: the step, with a baseline.
          p, n: x - x0 = p + n; what increased x, and what decreased it.
        """
        del p, n
        slope = self(view, jnp.ones_like(view.output))
        return slope, slope


@rule("nonlinearity")
class Rescale(Slope):
    """:class:`Slope` with a baseline, by DeepLIFT's name; there is none without."""

    baseline = frozenset({True})

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """Never."""
        return False


@rule("nonlinearity")
class RevealCancel(Rescale):
    """DeepLIFT's second rule: positive and negative differences each have their own effect.

    With p and n the parts of x - x0 (:mod:`jaxrel._execute.apart`),

        dy+ = (f(x0 + p) - f(x0)) / 2 + (f(x) - f(x0 + n)) / 2,      m_p = m+ dy+ / p

    and dy- alike with p and n exchanged: the mean of the effects that a part has alone and beside
    the other (Shrikumar et al. 2017, section 3.5.3). Where one part is 0 it is :class:`Rescale`.

    It is that too where one part alone would leave the domain of f (sqrt, log), or cross a pole at
    0 (1/x), or take f so far (exp) that of the two effects nothing but rounding errors would be
    left once they have cancelled.
    """

    carries_parts = True

    def slopes(self, view: View, p: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``dy+ / p`` and ``dy- / n``; see :meth:`Slope.slopes`."""
        assert view.baseline is not None
        (x,), y, f = view.inputs, view.output, view.function
        (x0,), y0 = view.baseline.inputs, view.baseline.output
        slope = homogeneous_secant if view.homogeneous else secant
        within = _is_within(view, p, n)

        def mean(part: jax.Array, other: jax.Array) -> jax.Array:
            alone = jnp.where(within, x0 + part, x)
            without = jnp.where(within, x0 + other, x0)
            first = slope(f, alone, x0, f(alone), y0)
            return first / 2 + slope(f, x, without, y, f(without)) / 2

        return mean(p, n), mean(n, p)


def _is_within(view: View, p: jax.Array, n: jax.Array) -> jax.Array:
    """Whether f is as tame at x0 + p and x0 + n as between x0 and x."""
    assert view.baseline is not None
    (x0,), f = view.baseline.inputs, view.function
    tops = jnp.abs(f(x0 + p)) + jnp.abs(f(x0 + n))
    size = jnp.abs(p) + jnp.abs(n) + jnp.abs(view.output) + jnp.abs(view.baseline.output)
    near = tops * float(jnp.finfo(x0.dtype).eps) ** 0.5 <= 1 + size  # not so where tops is nan
    same_side = ((x0 + p > 0) == (x0 > 0)) & ((x0 + n > 0) == (x0 > 0))
    return near & (same_side | jnp.isfinite(f(jnp.zeros_like(x0))))


@rule("nonlinearity")
class Ignore(Rule):
    """m_x = m: the nonlinearity is passed as if it were the identity (straight through)."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return m.astype(view.inputs[0].dtype)


@rule("nonlinearity")
class Repeat(Rule):
    """m_x = f(m): the nonlinearity once more, on the way back.

    The deconvolution method (Zeiler and Fergus 2014); the only rule not linear in m. The paper has
    nothing but relu in mind.

    Attributes:
      homogeneous: True repeats f only where f(c x) = c f(x) for every c > 0 (relu, leaky relu), and
        is the gradient of any other.
    """

    homogeneous: bool = False

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """Where it is not to be repeated."""
        return self.homogeneous and not homogeneous

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if self.is_gradient(view.homogeneous, view.variant):
            return view.vjp(m)
        return view.function(m.astype(view.inputs[0].dtype))


@rule("nonlinearity")
class GuidedRelu(Rule):
    """m_x = max(f'(x) m, 0): guided backpropagation (Springenberg et al. 2015).

    For relu that is [x > 0] max(m, 0), in whatever way it is written; through a sigmoid it is
    p (1 - p) times what comes to it. Elementwise functions that follow each other, exp(-relu(x)),
    are one f; and -min(-x, 0) is relu.
    """

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (sent,) = view.vjp(m)
        if view.begins == 0:
            return sent
        return jnp.maximum(sent, 0) if view.begins > 0 else jnp.minimum(sent, 0)


@rule("nonlinearity")
class BetaSmooth(Rule):
    """m_x = m sigmoid(beta x): relu as if it were softplus (Dombrowski et al. 2019).

    Attributes:
      beta: sharpness, in units of 1 / x.
    """

    beta: float | jax.Array = 10.0

    def __post_init__(self):
        """Checks the sign of beta."""
        super().__post_init__()
        check_number(self, "beta", 0, "below 0 it passes what relu stops")

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,) = view.inputs
        return m * jax.nn.sigmoid(jnp.asarray(self.beta, x.dtype) * x)
