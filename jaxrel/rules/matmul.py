"""Rules for z = W x + b, the whole affine step: bias, running-average BatchNorm, scales."""

from __future__ import annotations

from typing import Any

import jax

from ..numerics import kept_share
from .base import Rule, View, rule


@rule("matmul", "sum", "linear")
class Normalized(Rule):
    """m_x = W^T (m z / (z + blip sgn z)).

    The rule of LRP (Bach et al. 2015; equation 6 of Samek et al. 2015): R_i = sum_j x_i w_ij R_j /
    (z_j + blip sgn z_j). With blip = 0 it is the gradient; at z = 0 too, where 0 / 0 is taken as 1.
    The bias is in z and absorbs its part.

    Attributes:
      blip: height of the jump at 0, in units of z.
    """

    blip: float | jax.Array = 1e-6

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """With the number 0 as blip."""
        return isinstance(self.blip, int | float) and self.blip == 0

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.vjp(m * kept_share(view.output, self.blip))


@rule("matmul", "sum", "linear")
class Epsilon(Rule):
    """LRP-epsilon, m_x = W^T (m z / S(z)): :class:`Normalized` by the field's usual name.

    Attributes:
      eps: the stabiliser, in units of z.
    """

    eps: float | jax.Array = 1e-6

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """With the number 0 as eps."""
        return isinstance(self.eps, int | float) and self.eps == 0

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.vjp(m * kept_share(view.output, self.eps))
