"""Rules for z = W x + b that leave the weights as they are.

z is the whole affine step: bias, running-average BatchNorm, scales. ``bias=False`` leaves b out of
the denominators, so that it takes no relevance.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, Unit, rule
from .numerics import Eps, divide, kept_share, stabilize
from .view import View


@rule("matmul", "sum", "linear")
class Epsilon(Rule):
    """LRP-epsilon, m_x = W^T (m z / S(z)).

    The rule of Bach et al. 2015 (equation 6 of Samek et al. 2015): R_i = sum_j x_i w_ij R_j /
    S(z_j). The bias is in z and takes its part; what the stabiliser adds to z is lost. With eps = 0
    it is the gradient (LRP-0); at z = 0 too, where 0 / 0 is taken as 1.

    Attributes:
      eps: the stabiliser: a number in units of z, or a :class:`~jaxrel.Stabilizer`.
      bias: whether b is in the denominator.
    """

    eps: Eps = 1e-6
    bias: bool = True

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """With the number 0 as eps."""
        return self.bias and isinstance(self.eps, int | float) and self.eps == 0

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if isinstance(view.output, tuple):  # split and unstack hand on every value whole
            return view.vjp(m)
        affine = None if self.bias or view.affine is None else view.affine()
        if affine is None or affine.bias is None:
            return view.vjp(m * kept_share(view.output, self.eps))
        (x,), weight = view.inputs, affine.weight
        own = affine.linear(x, weight)  # z - b would have lost its digits where b is large
        return affine.back(x, weight, shares(view, m, own, self.eps))

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b m z / S(z)."""
        share = kept_share(view.output, self.eps) if self.bias else 0
        return super().to_bias(view, m) * share


@rule("matmul", "sum", "linear")
class Normalized(Rule):
    """m_x = W^T (m z / (z + blip sgn z)): :class:`Epsilon` in the words of the source text.

    Attributes:
      blip: height of the jump at 0, in units of z.
    """

    blip: float | jax.Array = 1e-6

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """With the number 0 as blip."""
        return Epsilon(self.blip).is_gradient(homogeneous, variant)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return Epsilon(self.blip)(view, m)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b m z / (z + blip sgn z)."""
        return Epsilon(self.blip).to_bias(view, m)


@rule("matmul", "sum", "linear", "maximum")
class Norm(Rule):
    """m_x = J^T (m z / S(z)): shares in proportion to what each part contributes to z.

    :class:`Epsilon` by the name it has on average pools and residual sums.

    Attributes:
      eps: the stabiliser.
    """

    eps: Eps = 1e-6

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """For ``sort`` and ``top_k``, which hand on every value whole."""
        return variant == "selection"

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return Epsilon(self.eps)(view, m)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b m z / S(z)."""
        return Epsilon(self.eps).to_bias(view, m)


@rule("matmul", "linear", "nonlinearity")
class Pass(Rule):
    """R_x = R_z: relevance is handed on as it is; z has the shape of x.

    On a nonlinearity m_x = m f(x) / x, so that R is unchanged also where f(0) != 0 (sigmoid): what
    Zennit and LXT do. ``Slope`` is the same where f(0) = 0.
    """

    emits_unit = True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return Unit(None, m * view.change)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """Nothing."""
        return jnp.zeros_like(m)


def shares(view: View, m: jax.Array, z: jax.Array, eps: Eps) -> jax.Array:
    """Relevance that arrives over another denominator z', m z / S(z').

    Where z' = 0 nothing contributes, and there is nobody to hand it to.
    """
    return jnp.where(z == 0, 0, divide(m * view.output, stabilize(z, eps)))


def bias_of(view: View) -> jax.Array:
    """The bias b of a matmul, in z's shape."""
    assert view.affine is not None
    bias = view.affine().bias
    return jnp.zeros_like(view.output) if bias is None else bias
