"""Better masks from weak ones, by what pixels look like: before training, on the host.

Two facts are used, and nothing is trained. *A mask that lies wrong says less*: what it says of the
pixels it says by way of the object, so that the mutual information of brightness and mask is
largest where the mask lies right (the data-processing inequality, Cover and Thomas 2006, 2.8). And
*a box has two kinds of pixels*: those outside of it are background, those inside background and
object, in a share that the brightnesses tell which the object never has (mixture proportion
estimation: Blanchard, Lee, Scott, "Semi-Supervised Novelty Detection", JMLR 2010).

    masks = register(images, masks).correct(masks)      # shifted, too wide, too narrow: all alike
    masks = register_each(images, masks, labels)        # shifted, each by its own
    masks = in_boxes(images, boxes, labels) > 0.7       # where it is all but sure

Both need pictures whose objects differ from their surroundings in brightness or colour.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .references import _check_pictures
from .tolerance import dilate, erode


class Registration(NamedTuple):
    """By how much all masks of a set are off.

    Attributes:
      down, right: how far they are to be moved, in pixels.
      eroded: how many pixels are to be taken from their borders; added where it is negative.
      information: (widths, downs, rights), in nats per pixel: what each correction's masks say of
        the brightness of pixels; its middle is that of the masks as they are.
    """

    down: int
    right: int
    eroded: int
    information: np.ndarray

    def correct(self, masks: Any) -> np.ndarray:
        """``masks`` (N, H, W, 1), moved and eroded; what comes in over the edge is 0."""
        return _moved(_widened(np.asarray(masks), self.eroded), self.down, self.right)


def register(
    images: Any, masks: Any, *, shift: int = 4, width: int = 4, levels: int = 64
) -> Registration:
    """Finds the error that all masks share: the correction after which they say most.

    Every move by up to ``shift`` pixels down and right is tried with every erosion or dilation by
    up to ``width``. Of equal ones the smallest is taken. Errors of single masks stay.

    Args:
      images: (N, H, W, C), real.
      masks: (N, H, W, 1), more than 0.5 on the object.
      shift, width: the largest errors, in pixels.
      levels: of brightness, or of all channels together.

    Raises:
      ValueError: they are no batches of pictures of one size, the pictures are not larger than
        twice the shift, ``shift`` or ``width`` is negative, there is but one level, or no picture.
    """
    codes, object_at = _codes(images, levels), _inside("masks", images, masks)
    _check_errors("register", object_at, shift, width)
    within = slice(shift, -shift or None)
    codes, steps = codes[:, within, within].ravel(), range(-shift, shift + 1)
    found = np.zeros((2 * width + 1, len(steps), len(steps)))
    for k, eroded in enumerate(range(-width, width + 1)):
        wide = _widened(object_at, eroded)
        for i, down in enumerate(steps):
            for j, right in enumerate(steps):
                moved = _moved(wide, down, right)[:, within, within, 0]
                found[k, i, j] = _information(codes, moved.ravel())
    sizes = np.abs(np.indices(found.shape) - np.array([width, shift, shift])[:, None, None, None])
    least = np.argsort(sizes.sum(0), axis=None, kind="stable")
    best = least[np.argmax(found.ravel()[least])]
    k, i, j = np.unravel_index(best, found.shape)
    return Registration(int(i) - shift, int(j) - shift, int(k) - width, found)


def register_each(
    images: Any,
    masks: Any,
    groups: Any = None,
    *,
    shift: int = 4,
    levels: int = 64,
    rounds: int = 3,
) -> np.ndarray:
    """Moves each mask to where its pixels look most like the object's.

    How much a brightness speaks for the object is log p(v | object) - log p(v | background),
    counted on all masks as they are, and then as they were moved. A mask goes where its pixels
    together say most, and stays where nothing tells.

    Args:
      images, masks, levels: as for :func:`register`.
      groups: as for :func:`in_boxes`.
      shift: how far a mask may be off, in pixels down and right.
      rounds: how often is counted.

    Returns:
      The moved masks, (N, H, W, 1) in their dtype; what comes in over the edge is 0.

    Raises:
      ValueError: as :func:`register` and :func:`in_boxes`.
    """
    codes, groups = _codes(images, levels), _groups("register_each", images, groups)
    _check_errors("register_each", _inside("masks", images, masks), shift)
    masks = np.asarray(masks)
    steps = sorted(range(-shift, shift + 1), key=abs)
    ways = sorted(((i, j) for i in steps for j in steps), key=lambda way: sum(map(abs, way)))
    found = masks
    for _ in range(rounds):
        speaks = _speaks(codes, found[..., 0] > 0.5, groups)[..., None]
        said = [(speaks * (_moved(masks, *way) > 0.5)).sum((1, 2, 3)) for way in ways]
        best = np.argmax(said, 0)
        found = np.concatenate(
            [_moved(m[None], *ways[k]) for m, k in zip(masks, best, strict=True)]
        )
    return found


def _speaks(codes: np.ndarray, object_at: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How much each pixel's brightness speaks for the object, in nats, (N, H, W)."""
    found = np.zeros(codes.shape)
    for group in np.unique(groups):
        own = groups == group
        on, off = (_shares(codes, codes[own][part]) for part in (object_at[own], ~object_at[own]))
        found[own] = np.log(on / off)[codes[own]]
    return found


def in_boxes(images: Any, boxes: Any, groups: Any = None, *, levels: int = 64) -> np.ndarray:
    """The probability of every pixel to be the object's, where only boxes around them are known.

    With p(v) the shares of brightnesses outside and inside of boxes, p_in = s p_out + (1 - s)
    p_object: a pixel inside is the object's with probability 1 - s p_out(v) / p_in(v). The share
    s of background in the boxes is the least ratio p_in / p_out on a tenth of the background.

    Args:
      images: (N, H, W, C), real.
      boxes: (N, H, W, 1), more than 0.5 inside.
      groups: (N,) labels of pictures with backgrounds and objects of one kind, each group by
        itself; None: all are of one.
      levels: of brightness, or of all channels together.

    Returns:
      (N, H, W, 1) float32 in [0, 1], 0 outside of boxes.

    Raises:
      ValueError: they are no batches of pictures of one size, there are not as many groups as
        pictures, there is but one level, or no picture.
    """
    codes, inside = _codes(images, levels), _inside("boxes", images, boxes)[..., 0]
    groups = _groups("in_boxes", images, groups)
    found = np.zeros(codes.shape, np.float32)
    for group in np.unique(groups):
        own = groups == group
        outside, within = (_shares(codes, codes[own][part]) for part in (~inside[own], inside[own]))
        ratio = outside / within
        rarest = np.argsort(-ratio)
        share = 1 / ratio[rarest][np.searchsorted(np.cumsum(outside[rarest]), _BACKGROUND)]
        likely = np.clip(1 - share * ratio, 0, 1)
        found[own] = np.where(inside[own], likely[codes[own]], 0)
    return found[..., None]


_BACKGROUND = 0.1
"""What part of the background has brightnesses that objects do not have."""


def _codes(images: Any, levels: int) -> np.ndarray:
    """(N, H, W) numbers of levels, as many pixels in each of a channel's."""
    _check_pictures("images", images)
    images = np.asarray(images)
    if not images.size:
        raise ValueError(f"images: expected one at least, with pixels, got {images.shape}.")
    if levels < 2:
        raise ValueError(f"levels: expected 2 or more, got {levels}.")
    each = max(round(levels ** (1 / images.shape[-1])), 2)
    codes = np.zeros(images.shape[:-1], int)
    for channel in np.moveaxis(images, -1, 0):
        borders = np.quantile(channel, np.linspace(0, 1, each + 1)[1:-1])
        codes = codes * each + np.searchsorted(borders, channel)
    return np.unique(codes, return_inverse=True)[1].reshape(codes.shape)


def _shares(codes: np.ndarray, some: np.ndarray) -> np.ndarray:
    """The share of each code among some, none of them 0."""
    counts = np.bincount(some, minlength=codes.max(initial=0) + 1) + 1
    return counts / counts.sum()


def _groups(name: str, images: Any, groups: Any) -> np.ndarray:
    groups = np.zeros(len(images), int) if groups is None else np.asarray(groups)
    if groups.shape != (len(images),):
        raise ValueError(f"{name}: expected {len(images)} groups, got shape {groups.shape}.")
    return groups


def _inside(name: str, images: Any, masks: Any) -> np.ndarray:
    _check_pictures(name, masks)
    if masks.shape != (*images.shape[:3], 1):
        raise ValueError(f"{name}: expected {(*images.shape[:3], 1)}, got {masks.shape}.")
    return np.asarray(masks) > 0.5


def _check_errors(name: str, masks: np.ndarray, shift: int, width: int = 0) -> None:
    if min(shift, width) < 0 or 2 * shift >= min(masks.shape[1:3]):
        raise ValueError(
            f"{name}: expected 0 <= shift < half of the pictures' sides and width >= 0, got "
            f"shift {shift}, width {width} for pictures {masks.shape[1:3]}."
        )


def _widened(masks: np.ndarray, eroded: int) -> np.ndarray:
    change = erode if eroded >= 0 else dilate
    numbers = change(jnp.asarray(masks, jnp.float32), abs(eroded))
    return np.asarray(numbers).astype(masks.dtype)


def _moved(masks: np.ndarray, down: int, right: int) -> np.ndarray:
    moved = np.zeros_like(masks)
    to = tuple(slice(max(k, 0), min(k, 0) or None) for k in (down, right))
    by = tuple(slice(max(-k, 0), min(-k, 0) or None) for k in (down, right))
    moved[:, *to] = masks[:, *by]
    return moved


def _information(codes: np.ndarray, object_at: np.ndarray) -> float:
    """The mutual information of codes and a mask, in nats."""
    of_code = np.bincount(codes)
    on = np.bincount(codes[object_at], minlength=len(of_code))
    joint = np.stack([on, of_code - on]) / len(codes)
    independent = joint.sum(0) * joint.sum(1, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / independent[there])).sum())
