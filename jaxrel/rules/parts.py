"""Rules for z = W x + b that treat positive and negative parts apart.

Written with p = W+ x+ + W- x- + b+ and n = W- x+ + W+ x- + b-, so z = p + n: one more forward pass
finds both. A step in 16 bits has rounded its z, in which a small n is lost, so there n is summed as
well. Where x >= 0 is known (after relu), the halves with x- are not computed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, rule
from .matmul import bias_of, shares
from .numerics import Eps, check_number, divide, kept_share, sign
from .view import Affine, View

_FAVOURS = "it says how much one sign is favoured"


@rule("matmul")
class Gamma(Rule):
    """m_x = W'^T (m z / S(W' x + b')), W' = W + gamma W+, b' = b + gamma b+ (Montavon et al. 2019).

    For x >= 0; on inputs of both signs :class:`GeneralizedGamma` is meant.

    Attributes:
      gamma: how much positive weights are favoured; 0 is LRP-0.
      eps: the stabiliser.
      bias: True: as above. False: b' = 0. ``"plain"``: b' = b (Captum's GammaRule).

    Raises:
      ValueError: gamma is a negative number.
    """

    gamma: float | jax.Array = 0.25
    eps: Eps = 1e-6
    bias: bool | str = True

    def __post_init__(self):
        """Checks that gamma favours."""
        super().__post_init__()
        check_number(self, "gamma", 0, _FAVOURS)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,), affine = view.inputs, _affine(view)
        return affine.back(x, self.changed_weight(view), self.shares(view, m))

    def shares(self, view: View, m: jax.Array) -> jax.Array:
        """The shares m z / S(W' x + b')."""
        (x,), affine = view.inputs, _affine(view)
        z = affine.linear(x, self.changed_weight(view)) + self.changed_bias(view)
        return shares(view, m, z, self.eps)

    def changed_weight(self, view: View) -> jax.Array:
        """The weights W'."""
        weight = _affine(view).weight
        return weight + self.gamma * jnp.maximum(weight, 0)

    def changed_bias(self, view: View) -> jax.Array | float:
        """The bias b'."""
        if self.bias is False or _affine(view).bias is None:
            return 0.0
        more = self.gamma * jnp.maximum(bias_of(view), 0) if self.bias is True else 0
        return bias_of(view) + more

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b' m z / S(W' x + b')."""
        return self.changed_bias(view) * self.shares(view, m)


@rule("matmul")
class GeneralizedGamma(Rule):
    """Gamma for inputs and outputs of both signs (Andeol et al. 2021; Zennit's Gamma).

    Positive z is shared by z + gamma p, negative z by z + gamma n: P = [z > 0] m z /
    S(z + gamma p), N = [z < 0] m z / S(z + gamma n). With Wp = W + gamma W+, Wn = W + gamma W-,
    m_x = Wp^T P + Wn^T N where x >= 0, and with Wp and Wn exchanged where x < 0.

    Attributes:
      gamma: how much contributions of z's own sign are favoured.
      eps: the stabiliser. With the bias a denominator is no smaller than z, and 0 will do.
      bias: False leaves b out of the denominators.

    Raises:
      ValueError: gamma is a negative number.
    """

    gamma: float | jax.Array = 0.25
    eps: Eps = 1e-6
    bias: bool = True

    def __post_init__(self):
        """Checks that gamma favours, without which a denominator could become 0."""
        super().__post_init__()
        check_number(self, "gamma", 0, _FAVOURS)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        weight = _affine(view).weight
        wp = weight + self.gamma * jnp.maximum(weight, 0)
        wn = weight + self.gamma * jnp.minimum(weight, 0)
        return back_by_sign(view, wp, wn, *self.shares(view, m))

    def shares(self, view: View, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The shares P and N."""
        z, (p, n) = view.output, parts(view, self.bias)
        own = z if self.bias or _affine(view).bias is None else p + n
        sp = jnp.where(z > 0, shares(view, m, own + self.gamma * p, self.eps), 0)
        sn = jnp.where(z < 0, shares(view, m, own + self.gamma * n, self.eps), 0)
        return sp, sn

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, (b + gamma b+) P + (b + gamma b-) N."""
        b, (sp, sn) = bias_of(view) * float(self.bias), self.shares(view, m)
        return b * (sp + sn) + self.gamma * (jnp.maximum(b, 0) * sp + jnp.minimum(b, 0) * sn)


@rule("matmul")
class AlphaBeta(Rule):
    """Positive contributions get alpha, negative ones -beta: sa = m z / S(p), sb = m z / S(n).

    m_x = alpha W+^T sa - beta W-^T sb where x >= 0, and with W+ and W- exchanged where x < 0
    (Bach et al. 2015, equation 60). A unit with no negative part hands on alpha times what it got.

    Attributes:
      alpha, beta: alpha - beta = 1 conserves.
      eps: the stabiliser.
      bias: False leaves b out of the denominators.

    Raises:
      ValueError: alpha and beta are numbers, and do not conserve; or negative.
    """

    alpha: float | jax.Array = 2.0
    beta: float | jax.Array = 1.0
    eps: Eps = 1e-6
    bias: bool = True

    def __post_init__(self):
        """Checks that numbers conserve."""
        super().__post_init__()
        check_number(self, "beta", 0, "negative contributions get -beta")
        numbers = [v for v in (self.alpha, self.beta) if isinstance(v, int | float)]
        if len(numbers) == 2 and abs(numbers[0] - numbers[1] - 1) > 1e-6:
            raise ValueError(
                f"AlphaBeta: alpha - beta = 1 conserves relevance, as alpha=2, beta=1 does; got "
                f"alpha={self.alpha}, beta={self.beta}."
            )

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        weight = _affine(view).weight
        positive, negative = jnp.maximum(weight, 0), jnp.minimum(weight, 0)
        return back_by_sign(view, positive, negative, *self.shares(view, m))

    def shares(self, view: View, m: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The shares alpha sa and -beta sb; None for the latter with the number 0 as beta."""
        p, n = parts(view, self.bias)
        sa = self.alpha * shares(view, m, p, self.eps)
        if isinstance(self.beta, int | float) and self.beta == 0:
            return sa, None
        return sa, -self.beta * shares(view, m, n, self.eps)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, alpha b+ sa - beta b- sb."""
        b, (sa, sb) = bias_of(view) * float(self.bias), self.shares(view, m)
        return jnp.maximum(b, 0) * sa + (0 if sb is None else jnp.minimum(b, 0) * sb)


@rule("matmul")
class ZPlus(Rule):
    """Positive contributions only: ``AlphaBeta(1, 0)`` (Montavon et al. 2017).

    Attributes:
      eps: the stabiliser.
      bias: False leaves b out of the denominators.
    """

    eps: Eps = 1e-6
    bias: bool = True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return AlphaBeta(1.0, 0.0, self.eps, self.bias)(view, m)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b+ m z / S(p)."""
        return AlphaBeta(1.0, 0.0, self.eps, self.bias).to_bias(view, m)


@rule("matmul")
class PositiveWeights(Rule):
    """m_x = W+^T (m z / S(W+ x + b)): the inputs are not split, the bias stays as it is.

    The z-plus rule as Captum's ``Alpha1_Beta0_Rule`` has it; :class:`ZPlus` for x >= 0, b >= 0.

    Attributes:
      eps: the stabiliser.
      bias: False leaves b out of the denominators.
    """

    eps: Eps = 1e-9
    bias: bool = True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,), affine = view.inputs, _affine(view)
        return affine.back(x, jnp.maximum(affine.weight, 0), self.shares(view, m))

    def shares(self, view: View, m: jax.Array) -> jax.Array:
        """The shares m z / S(W+ x + b)."""
        (x,), affine = view.inputs, _affine(view)
        z = affine.linear(x, jnp.maximum(affine.weight, 0)) + bias_of(view) * float(self.bias)
        return shares(view, m, z, self.eps)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b m z / S(W+ x + b)."""
        return bias_of(view) * float(self.bias) * self.shares(view, m)


@rule("matmul")
class Absolute(Rule):
    """absLRP (Vukadin et al. 2024): what arrives goes by how large a contribution is beside |z|.

    R_x = 2 (x W)+ (R_z / (|z| + eps)), summed over outputs: a unit of which little is left of much
    hands on more than it got, in proportion, and only what is positive counts, as for ``ZPlus``,
    which makes every unit hand on what it got. So each example is scaled as a whole:
    sum(R_x) = sum(R_z). z has its bias, which gets nothing. The sign of z does not count: from
    relevance that is positive all that comes is positive.

    The paper's map is contrastive: that of the logit explained minus that of all others, each
    beginning with relevance (not multipliers) that adds up to 1.

    Attributes:
      eps: the stabiliser, in units of z.
      normalize: False: nothing is scaled, and the bias gets 2 b+ R_z / (|z| + eps).
      examples: how many leading dimensions of x and z tell examples apart; 0 under ``vmap`` over
        them. Where there are no other dimensions all is one example.
    """

    eps: float | jax.Array = 1e-9
    normalize: bool = True
    examples: int = 1

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        (x,), weight = view.inputs, _affine(view).weight
        positive, negative = jnp.maximum(weight, 0), jnp.minimum(weight, 0)
        sent = back_by_sign(view, positive, negative, self.shares(view, m), None)
        if not self.normalize:
            return sent
        scale = divide(self._total(view.output * m), self._total(x * sent))
        return sent * scale.reshape(scale.shape + (1,) * (x.ndim - scale.ndim))

    def shares(self, view: View, m: jax.Array) -> jax.Array:
        """The shares 2 R_z / (|z| + eps)."""
        return 2 * m * kept_share(view.output, self.eps) * sign(view.output)

    def _total(self, relevance: jax.Array) -> jax.Array:
        """The sum over each example."""
        return relevance.sum(tuple(range(self.examples, relevance.ndim)) or None)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """Nothing, or where nothing is scaled the bias's part."""
        if self.normalize:
            return jnp.zeros_like(m)
        return jnp.maximum(bias_of(view), 0) * self.shares(view, m)


def parts(view: View, bias: bool) -> tuple[jax.Array, jax.Array]:
    """Returns p and n; without their biases if ``bias`` is False."""
    (x,), affine = view.inputs, _affine(view)
    positive, negative = jnp.maximum(affine.weight, 0), jnp.minimum(affine.weight, 0)
    known = (bias or affine.bias is None) and not view.rounded  # z, to all its digits
    xs, weights = [x], [[positive, negative]]
    if not view.nonneg[0]:
        xs, weights = [jnp.maximum(x, 0), jnp.minimum(x, 0)], [*weights, [negative, positive]]
    p, *n = affine.sums(xs, [row[:1] for row in weights] if known else weights)
    b = affine.bias if bias else None
    p = p if b is None else p + jnp.maximum(b, 0)
    if known:
        return p, jnp.minimum(view.output - p, 0)  # rounding must not make n positive
    return p, n[0] if b is None else n[0] + jnp.minimum(b, 0)


def back_by_sign(
    view: View, wa: jax.Array, wb: jax.Array, sa: jax.Array, sb: jax.Array | None
) -> jax.Array:
    """Wa^T sa + wb^T sb where x >= 0, wb^T sa + wa^T sb where x < 0; without ``sb`` if None."""
    (x,), affine = view.inputs, _affine(view)
    rows = [[wa, wb]] if view.nonneg[0] else [[wa, wb], [wb, wa]]
    s = [sa] if sb is None else [sa, sb]
    found = affine.backs(x, [row[: len(s)] for row in rows], s)
    return found[0] if view.nonneg[0] else jnp.where(x >= 0, *found)


def _affine(view: View) -> Affine:
    assert view.affine is not None
    return view.affine()
