"""What to compare with: references for ``relevance(..., baseline=...)`` in training.

All take a batch (N, H, W, C) and can be jitted. The last ones need masks (N, H, W, 1), 1 on the
object, and no pictures but the training's own.

    blank(x)                          one grey everywhere
    blur(x, sigma)                    the picture without its details
    noise(key, x, scale)              the picture and Gaussian noise
    mean(x)                           the mean picture of the batch
    x[another(key, labels)]           another example, of another class
    swap_background(key, x, masks)    the same object on another picture's background
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from ..rules.numerics import wide


def blank(x: jax.Array, value: float | jax.Array = 0.0) -> jax.Array:
    """One value everywhere.

    Args:
      x: (N, ...).
      value: broadcasts to x: a grey, or one for each channel.
    """
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)


def blur(x: jax.Array, sigma: float = 2.0) -> jax.Array:
    """A Gaussian blur that repeats the border.

    Args:
      x: (N, H, W, C).
      sigma: its standard deviation in pixels, positive.

    Raises:
      ValueError: x is no batch of pictures, or sigma is not positive.
    """
    _check_pictures("x", x)
    if sigma <= 0:
        raise ValueError(f"sigma: expected a positive number of pixels, got {sigma}.")
    seen = wide(x)
    rows, columns = (_gaussian(size, sigma).astype(seen.dtype) for size in x.shape[1:3])
    return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, seen).astype(x.dtype)


def _gaussian(size: int, sigma: float) -> jax.Array:
    """The matrix that blurs an axis of this size."""
    pixels = jnp.arange(size)
    reach = jnp.arange(-round(4 * sigma), round(4 * sigma) + 1)
    weights = jnp.exp(-((reach / sigma) ** 2) / 2)
    sources = jnp.clip(pixels[:, None] + reach[None], 0, size - 1)
    hits = sources[:, :, None] == pixels[None, None]
    return jnp.einsum("r,irh->ih", weights / weights.sum(), hits.astype(weights.dtype))


def noise(key: jax.Array, x: jax.Array, scale: float = 0.1) -> jax.Array:
    """The input and Gaussian noise.

    Args:
      key: a random key.
      x: (N, ...).
      scale: the noise's standard deviation, in units of x.
    """
    return x + scale * jax.random.normal(key, x.shape, x.dtype)


def mean(x: jax.Array) -> jax.Array:
    """The mean example, for each example.

    Args:
      x: (N, ...). The batch, or the whole training set, of which ``[:1]`` then fits every batch.
    """
    return jnp.broadcast_to(x.mean(0), x.shape)


def another(key: jax.Array, groups: jax.Array, pool: jax.Array | None = None) -> jax.Array:
    """Chooses for each example one of another group, uniformly: (N,) indices.

    Args:
      key: a random key.
      groups: (N,) integers, such as labels; to choose among all, give each a number of its own.
      pool: (M,) the groups of those to choose from; without, the batch itself. An example whose
        group is the only one gets any.
    """
    groups = _compat.whole(groups)
    others = groups if pool is None else _compat.whole(pool)
    scores = jax.random.uniform(key, (len(groups), len(others)))
    return jnp.argmax(scores + (groups[:, None] != others[None]), axis=1)


def fill_background(x: jax.Array, mask: jax.Array, how: str = "mirror") -> jax.Array:
    """Removes the object: what is under the mask is filled from the picture's own background.

    Args:
      x: (N, H, W, C).
      mask: (N, H, W, 1), 1 on the object.
      how: ``"mean"`` fills with the background's mean. ``"mirror"`` fills with what the mirrored
        picture has there, left to right, upside down or both, and with the mean where none of
        them has background: the texture stays a texture.

    Raises:
      ValueError: shapes that do not fit; ``how`` is something else.
    """
    _check_mask(x, mask)
    dtype, x, mask = x.dtype, wide(x), wide(mask)
    background = 1 - mask
    known = x * background
    average = known.sum((1, 2), keepdims=True) / (background.sum((1, 2), keepdims=True) + 1e-6)
    if how not in _FILLS:
        raise ValueError(f"how: expected one of {', '.join(map(repr, _FILLS))}, got {how!r}.")
    for axes in _FILLS[how]:
        missing = 1 - background
        known = known + missing * jnp.flip(x * (1 - mask), axes)
        background = background + missing * jnp.flip(1 - mask, axes)
    return (known + (1 - background) * average).astype(dtype)


_FILLS: dict[str, tuple[tuple[int, ...], ...]] = {"mean": (), "mirror": ((2,), (1,), (1, 2))}


def on_background(x: jax.Array, mask: jax.Array, background: jax.Array) -> jax.Array:
    """The object on a background: ``mask * x + (1 - mask) * background``.

    Args:
      x, mask: as for :func:`fill_background`.
      background: in the shape of x.
    """
    _check_mask(x, mask)
    return mask * x + (1 - mask) * background


def swap_background(
    key: jax.Array,
    x: jax.Array,
    mask: jax.Array,
    groups: jax.Array | None = None,
    fill: Callable[[jax.Array, jax.Array], jax.Array] = fill_background,
) -> jax.Array:
    """The same object on the background of another picture of the batch, its object removed.

    From masks alone: no picture without an object is needed. Against this reference the
    background's relevance is the whole change of the output.

    Args:
      key: a random key.
      x: (N, H, W, C).
      mask: (N, H, W, 1), 1 on the object.
      groups: (N,) integers; the background is one of another group (labels: of another class, which
        where backgrounds tell the class means another kind of background). Without: of any other
        picture.
      fill: how the other's object is removed.

    Raises:
      ValueError: shapes that do not fit.
    """
    _check_mask(x, mask)
    chosen = another(key, jnp.arange(len(x)) if groups is None else groups)
    return on_background(x, mask, _compat.rows(fill(x, mask), chosen))


def _check_pictures(name: str, x: Any) -> None:
    if jnp.ndim(x) != 4:
        raise ValueError(f"{name}: expected a batch of pictures (N, H, W, C), got {jnp.shape(x)}.")


def _check_mask(x: Any, mask: Any) -> None:
    _check_pictures("x", x)
    _check_pictures("mask", mask)
    if jnp.shape(mask)[:3] != jnp.shape(x)[:3] or jnp.shape(mask)[3] not in (1, jnp.shape(x)[3]):
        raise ValueError(
            f"mask: {jnp.shape(mask)} does not fit pictures {jnp.shape(x)}: "
            f"expected {(*jnp.shape(x)[:3], 1)}."
        )
