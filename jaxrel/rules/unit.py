"""Rules for z = W x + b whose relevance is not proportional to x: what goes to the unit input.

For the layer that reads the input; exact at x = 0. See :class:`jaxrel.rules.Unit`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, Unit, rule
from .matmul import bias_of, shares
from .numerics import Eps, check_number
from .view import View


@rule("matmul")
class WSquare(Rule):
    """R_x = (W^2)^T (m z / S(sum_i W_i^2 + b^2)): by the weights alone (Montavon et al. 2017).

    Attributes:
      eps: the stabiliser, in units of W^2.
      bias: False leaves b^2 out.
    """

    eps: Eps = 1e-6
    bias: bool = True
    emits_unit = True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.affine is not None
        (x,), affine = view.inputs, view.affine()
        return Unit(None, affine.back(x, affine.weight**2, self.shares(view, m)))

    def shares(self, view: View, m: jax.Array) -> jax.Array:
        """The shares m z / S(sum_i W_i^2 + b^2)."""
        assert view.affine is not None
        affine = view.affine()
        z = affine.of_ones(affine.weight**2) + bias_of(view) ** 2 * float(self.bias)
        return shares(view, m, z, self.eps)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """The bias's part, b^2 m z / S(sum_i W_i^2 + b^2)."""
        return bias_of(view) ** 2 * float(self.bias) * self.shares(view, m)


@rule("matmul")
class Flat(Rule):
    """Everything that z reads gets the same: W := 1, b := 0 (Lapuschkin et al. 2019).

    Attributes:
      eps: the stabiliser, in units of a count.
    """

    eps: Eps = 1e-6
    emits_unit = True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.affine is not None
        (x,), affine = view.inputs, view.affine()
        ones = jnp.ones_like(affine.weight)
        return Unit(None, affine.back(x, ones, shares(view, m, affine.of_ones(ones), self.eps)))

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """Nothing."""
        return jnp.zeros_like(m)


@rule("matmul")
class ZBox(Rule):
    """For inputs within a box, low <= x <= high (Montavon et al. 2017): the z^B rule.

    D = W x - W+ low - W- high, s = m z / S(D); R_x = x W^T s - low W+^T s - high W-^T s. The bias
    cancels.

    The box is one for values: differences to a baseline have no such bounds.

    Attributes:
      low, high: the box, in units of the layer's input (after any normalisation); numbers, or
        arrays that broadcast to it.
      eps: the stabiliser.

    Raises:
      ValueError: low and high are numbers, and low > high.
    """

    low: float | jax.Array
    high: float | jax.Array
    eps: Eps = 1e-6
    emits_unit = True
    baseline = frozenset({False})

    def __post_init__(self):
        """Checks that there is a box."""
        super().__post_init__()
        if isinstance(self.low, int | float):
            check_number(self, "high", self.low, "the box is low <= x <= high")

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.affine is not None
        (x,), affine = view.inputs, view.affine()
        low, high = (_like(x, v) for v in (self.low, self.high))
        positive, negative = jnp.maximum(affine.weight, 0), jnp.minimum(affine.weight, 0)
        weights = [[positive], [negative]]
        (z,) = affine.sums([x - low, x - high], weights)  # contributions >= 0: nothing cancels
        of_low, of_high = affine.backs(x, weights, [shares(view, m, z, self.eps)])
        return Unit(of_low + of_high, -low * of_low - high * of_high)

    def to_bias(self, view: View, m: jax.Array) -> jax.Array:
        """Nothing: it cancels."""
        return jnp.zeros_like(m)


def _like(x: jax.Array, v: float | jax.Array) -> jax.Array:
    """``v`` in x's shape and dtype; made of x, so that it is sharded alike."""
    return jnp.zeros_like(x) + jnp.broadcast_to(v, x.shape).astype(x.dtype)
