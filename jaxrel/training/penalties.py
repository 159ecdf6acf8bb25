"""What is wrong with a relevance, given a mask of where it should be: one number for each example.

A penalty takes a relevance R of shape (N, ...) and a mask that broadcasts to it, 1 where relevance
belongs (the object) and 0 outside (the background); in between, a pixel counts for both. It
returns (N,): sums are over everything but the leading axis, channels included, before any absolute
value is taken of them. :func:`~jaxrel.training.relevance_loss` averages over the examples.

| penalty | formula, o = outside = 1 - mask | unit |
|---|---|---|
| ``outside_share`` | sum abs(o R) / sum abs(R) | none, 0 to 1 |
| ``energy`` | sum (o R)^2 / sum R^2 | none, 0 to 1 |
| ``outside_absolute`` | sum abs(o R) | the value's |
| ``outside_absolute_squared`` | (sum abs(o R))^2 | its square |
| ``outside_sum_absolute`` | abs(sum o R) | the value's |
| ``outside_sum_squared`` | (sum o R)^2 | its square |
| ``right_reasons`` | sum (o m)^2, of the multiplier m | (value / input)^2 |
| ``ranked_background`` | - log(1 - p / (p + scale)), p: pooled abs(o R), relative | nats |
| ``in_range_foreground`` | squared distance of sum abs(mask R) from a range, relative | none |
| ``isnet`` | the sum of the last two | |

Those with a denominator do not change when R is scaled, so that a network cannot satisfy them by
smaller logits; the others can be satisfied that way, and compete with the task loss. An example
without any relevance has no share outside. All is computed, and returned, in float32 at least:
sums over a picture leave the range of 16 bits. The sums
without an absolute value let positive and negative background relevance cancel. Without a
reference that is a way out; against a reference that differs by the background alone it is the
point: the sum is then the change of the output (see :mod:`jaxrel.training`).
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from .._call.checked import checked
from ..rules.numerics import divide, wide


def outside_share(relevance: jax.Array, mask: Any) -> jax.Array:
    """The share of absolute relevance that lies outside: (N,), from 0 to 1.

    Args:
      relevance: (N, ...), of any unit.
      mask: broadcasts to it, 1 inside.

    Example:
      >>> import jax.numpy as jnp
      >>> outside_share(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 0.0]]))
      Array([0.25], dtype=float32)
    """
    relevance = _relative(relevance)
    outside = _outside(relevance, mask)
    return divide(_sum(jnp.abs(outside)), _sum(jnp.abs(relevance)))


def in_mask_share(relevance: jax.Array, mask: Any) -> jax.Array:
    """The share of absolute relevance that lies inside, ``1 - outside_share``: the usual metric.

    Args:
      relevance, mask: as for :func:`outside_share`.
    """
    return 1 - outside_share(relevance, mask)


def energy(relevance: jax.Array, mask: Any) -> jax.Array:
    """The share of squared relevance that lies outside: few large values weigh more.

    Args:
      relevance, mask: as for :func:`outside_share`.
    """
    relevance = _relative(relevance)
    outside = _outside(relevance, mask)
    return divide(_sum(outside**2), _sum(relevance**2))


def outside_absolute(relevance: jax.Array, mask: Any) -> jax.Array:
    """The sum of absolute relevance outside, in units of the explained value.

    Args:
      relevance, mask: as for :func:`outside_share`.
    """
    return _sum(jnp.abs(_outside(relevance, mask)))


def outside_absolute_squared(relevance: jax.Array, mask: Any) -> jax.Array:
    """The square of :func:`outside_absolute`.

    Args:
      relevance, mask: as for :func:`outside_share`.
    """
    return outside_absolute(relevance, mask) ** 2


def outside_sum_absolute(relevance: jax.Array, mask: Any) -> jax.Array:
    """The absolute value of the outside's total relevance, in units of the explained value.

    Args:
      relevance, mask: as for :func:`outside_share`; best against a reference.
    """
    return jnp.abs(_sum(_outside(relevance, mask)))


def outside_sum_squared(relevance: jax.Array, mask: Any) -> jax.Array:
    """The square of the outside's total relevance.

    Against a reference that differs outside alone, and by complete rules, this is
    (f(x) - f(x0))^2.

    Args:
      relevance, mask: as for :func:`outside_share`; best against a reference.
    """
    return _sum(_outside(relevance, mask)) ** 2


def right_reasons(multiplier: jax.Array, mask: Any) -> jax.Array:
    """Right for the right reasons: the sum of squared gradients outside (Ross et al. 2017).

    Of the gradients of logits: those of log-probabilities, which the paper takes, vanish together
    with the loss where the network is sure, and for two classes at p = 0.5 too when summed over
    the classes. The paper sums over the examples of a batch, here the loss averages.

    Args:
      multiplier: (N, ...), the gradient, not multiplied by the input:
        ``relevance_loss(..., rules="gradient", of="multiplier")``.
      mask: as for :func:`outside_share`.
    """
    return _sum(_outside(multiplier, mask) ** 2)


def ranked_background(
    relevance: jax.Array, mask: Any, decay: float = 0.99, scale: float = 1.0
) -> jax.Array:
    """ISNet's background loss (Bassi et al. 2024): the strongest background relevance, pooled.

    H = abs(R) over its mean inside the mask. Its values outside are ranked and averaged with
    weights decay^rank (global weighted ranked pooling); p of that is squashed to
    p / (p + scale), and the penalty is the cross-entropy of that with 0.

    Args:
      relevance, mask: as for :func:`outside_share`.
      decay: 1 averages, 0 takes the maximum.
      scale: the p, in means of the foreground, that is squashed to one half.
    """
    strength = jnp.abs(_relative(relevance))
    mask = _checked(strength, mask)
    mean = divide(_sum(strength * mask), _sum(mask))
    flat = (strength * (1 - mask)).reshape(len(strength), -1)
    ranked = -jnp.sort(-flat, axis=1) / (mean + _FAINT)[:, None]
    weights = jnp.asarray(decay, ranked.dtype) ** jnp.arange(ranked.shape[1], dtype=ranked.dtype)
    pooled = ranked @ (weights / weights.sum())
    return jnp.log1p(pooled / scale)  # = - log(1 - p / (p + scale))


def in_range_foreground(
    relevance: jax.Array, mask: Any, low: float = 1.0, high: float = 25.0
) -> jax.Array:
    """ISNet's foreground loss: absolute relevance inside is to stay in a range.

    With a = sum abs(mask R): ((low - a)+ / low)^2 + ((a - high)+ / high)^2. Against networks that
    lower their background relevance by lowering all of it.

    Args:
      relevance, mask: as for :func:`outside_share`.
      low, high: the range, in units of the explained value.
    """
    relevance = wide(relevance)
    amount = _sum(jnp.abs(relevance * _checked(relevance, mask)))
    return (jax.nn.relu(low - amount) / low) ** 2 + (jax.nn.relu(amount - high) / high) ** 2


def isnet(relevance: jax.Array, mask: Any) -> jax.Array:
    """``ranked_background + in_range_foreground``, with their defaults.

    Args:
      relevance, mask: as for :func:`outside_share`.
    """
    return ranked_background(relevance, mask) + in_range_foreground(relevance, mask)


def outside_sum(relevance: jax.Array, mask: Any) -> jax.Array:
    """The outside's total relevance, with its sign."""
    return _sum(_outside(relevance, mask))


_FAINT = 1e-12
"""A foreground without relevance has this much of the largest, so that the background's ratio to it
is finite."""


def _relative(relevance: jax.Array) -> jax.Array:
    """Relevance over the largest magnitude of its example; 0 stays 0.

    The magnitude is a constant to derivatives: what is made of the result does not depend on it.
    """
    relevance = wide(relevance)
    magnitude = jnp.abs(jax.lax.stop_gradient(relevance))
    return divide(
        relevance, magnitude.max(tuple(range(1, relevance.ndim)), keepdims=True, initial=0)
    )


def _outside(relevance: jax.Array, mask: Any) -> jax.Array:
    relevance = wide(relevance)
    return relevance * (1 - _checked(relevance, mask))


def _checked(relevance: jax.Array, mask: Any) -> jax.Array:
    """The mask in the relevance's shape and dtype."""
    mask = jnp.asarray(mask)
    said = f"relevance: expected a leading axis of examples, got {relevance.shape}."
    checked(said, chex.assert_rank, relevance, set(range(2, 33)))
    said = (
        f"mask: {mask.shape} does not broadcast to the relevance, {relevance.shape}; "
        "give it as many axes, 1 where it is the same along an axis."
    )
    checked(said, chex.assert_equal_rank, [mask, relevance])
    checked(said, chex.assert_is_broadcastable, mask.shape, relevance.shape)
    return jnp.broadcast_to(mask.astype(relevance.dtype), relevance.shape)


def _sum(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(1, x.ndim)))
