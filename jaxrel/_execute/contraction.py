"""The contraction of an affine step, of several operands at once and of ones.

Rules that tell signs apart need sums of products, x+ W+ + x- W-, and several of them. Where the
contracted axis is sharded, each product costs an all-reduce. One contraction over the axis and over
the pairs gives the sum, and costs one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .wide import bind


def stacked(eqn: Any, live: int) -> Any:
    """The sum of products of a dot product's operands, as a function of two stacks of them.

    Args:
      eqn: the contraction.
      live: position of x among its operands.

    Returns:
      ``(xs, weights) -> sum_r contraction(x_r, weight_r)``, or None where it is no dot product.
    """
    if eqn.primitive.name != "dot_general":
        return None
    (contracted, batch) = eqn.params["dimension_numbers"]
    numbers = tuple((0, *(k + 1 for k in side)) for side in contracted)
    shared = tuple(tuple(k + 1 for k in side) for side in batch)
    both = eqn.replace(params=eqn.params | {"dimension_numbers": (numbers, shared)})

    def contract(xs: jax.Array, weights: jax.Array) -> jax.Array:
        return bind(both, [xs, weights] if live == 0 else [weights, xs])[0]

    return contract


def one_example(eqn: Any, live: int, x: jax.Array) -> jax.Array:
    """Ones in the place of x, one example of them where that is enough.

    Where the axes of x that are its own (the batch, tokens) have the same weights, the result is
    the same along them. The ones depend on x as far as XLA can see: it would otherwise compute the
    contraction when it compiles, by a slow interpreter, if weights are constants.
    """
    shape = [1 if k in _own_axes(eqn, live, x.ndim) else n for k, n in enumerate(x.shape)]
    return lax.optimization_barrier((jnp.ones(shape, x.dtype), x))[0]


def _own_axes(eqn: Any, live: int, rank: int) -> set[int]:
    """Axes of x that every weight meets alike."""
    numbers = eqn.params.get("dimension_numbers")
    if eqn.primitive.name == "dot_general":
        contracted, batch = numbers
        return set(range(rank)).difference(contracted[live], batch[live])
    if eqn.primitive.name == "conv_general_dilated" and live == 0:
        return {numbers.lhs_spec[0]} if eqn.params["batch_group_count"] == 1 else set()
    return set()
