"""Masks that are not to be trusted to the pixel: how far an object surely reaches.

A mask that is a little too wide hands the object's surroundings to the object: the reference keeps
them, the penalty leaves them alone, and a network may decide by them. One that is too narrow costs
little. So a loose mask is eroded, each time by another number of pixels, before it makes a
reference and a penalty:

    sure = erode_at_random(key, masks, 1, 3)
    reference = swap_background(key, images, sure, labels)
    loss(params, images, labels, sure, baseline=reference)

How far masks may be off has to be declared, or chosen by validation pictures with the same kind of
masks.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .references import _check_pictures


def erode(mask: jax.Array, radius: int) -> jax.Array:
    """Takes a border of this many pixels from objects, diagonally too.

    A pixel keeps the least value of the square around it. Objects that the edge of the picture cuts
    off are not eroded from there.

    Args:
      mask: (N, H, W, 1), 1 on the object.
      radius: in pixels, 0 or more; the square has 2 radius + 1 to a side.

    Returns:
      In the shape and dtype of ``mask``.

    Raises:
      ValueError: ``mask`` is no batch of pictures, or ``radius`` is negative.
    """
    return _around(lax.min, mask, radius)


def dilate(mask: jax.Array, radius: int) -> jax.Array:
    """Adds a border of this many pixels to objects: the greatest value of the square around.

    Args:
      mask, radius: as for :func:`erode`.

    Raises:
      ValueError: as :func:`erode`.
    """
    return _around(lax.max, mask, radius)


def erode_at_random(key: jax.Array, mask: jax.Array, low: int, high: int) -> jax.Array:
    """Erodes each mask by a radius of its own, from ``low`` to ``high`` pixels.

    An object that would vanish keeps what it has at the last radius where there is some.

    Args:
      key: a random key.
      mask: (N, H, W, 1), 1 on the object.
      low, high: the least and the greatest radius, all equally likely; 0 leaves a mask as it is,
        and less than that dilates it.

    Returns:
      In the shape and dtype of ``mask``.

    Raises:
      ValueError: ``mask`` is no batch of pictures, or ``low`` is greater than ``high``.
    """
    _check_pictures("mask", mask)
    if _whole("low", low) > _whole("high", high):
        raise ValueError(f"low: {low} pixels are more than high, {high}.")
    radii = range(low, high + 1)
    kept = jnp.stack([erode(mask, r) if r >= 0 else dilate(mask, -r) for r in radii])
    drawn = jax.random.randint(key, mask.shape[:1], 0, len(radii))
    left = (kept > 0).any((2, 3, 4)).sum(0)  # how many radii leave anything, they are nested
    chosen = jnp.clip(drawn, 0, jnp.maximum(left - 1, 0))
    return jnp.take_along_axis(kept, chosen[None, :, None, None, None], 0)[0]


def _around(pick: Callable, mask: jax.Array, radius: int) -> jax.Array:
    """The least or greatest value of the square around every pixel."""
    _check_pictures("mask", mask)
    if _whole("radius", radius) < 0:
        raise ValueError(f"radius: expected 0 pixels or more, got {radius}.")
    padding = ((0, 0), (radius, radius), (radius, radius), (0, 0))
    padded, size = jnp.pad(mask, padding, "edge"), 2 * radius + 1
    rows = functools.reduce(pick, (padded[:, k : k + mask.shape[1]] for k in range(size)))
    return functools.reduce(pick, (rows[:, :, k : k + mask.shape[2]] for k in range(size)))


def _whole(name: str, radius: int) -> int:
    try:
        return operator.index(radius)
    except TypeError:
        raise ValueError(f"{name}: expected a whole number of pixels, got {radius!r}.") from None
