"""Parts of an input that are replaced together: pixels, patches, cells, segments.

The argument ``patch`` of the metrics says what a part is:

    None            each element of the relevance: (N, H, W, C) a channel of a pixel, (N, H, W) or
                    (N, H, W, 1) for pictures with channels a pixel
    7               patches of 7 x 7 pixels with all their channels; of tokens (N, T, D) 7 tokens;
                    of features (N, F) 7 features: all axes but the examples' and the last of three
    (7, 14)         patches along the first axes after the examples', whole along the others
    integers        (1 or N, H, W), numbers of segments from 0, known when the function is traced

Patches are numbered row by row. Where they do not divide an axis the grid is centred, and the first
and last of them are cut. A part's relevance is its sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._call.averages import count
from .._call.checked import checked
from . import borders

Patch = int | Sequence[int] | np.ndarray | jax.Array | None
Replacement = float | jax.Array | np.ndarray | Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Parts:
    """How features are put together to parts.

    Attributes:
      shape: of the features, (N, ...), that of the relevance.
      ids: (1 or N, features) the number of each feature's part; None: each is one.
      count: P, how many parts there are.
    """

    shape: tuple[int, ...]
    ids: np.ndarray | None
    count: int

    def sums(self, relevance: jax.Array) -> jax.Array:
        """The relevance of each part, (N, P); differentiable."""
        flat = borders.flat(relevance)
        if self.ids is None:
            return flat

        def add(values: jax.Array, ids: Any) -> jax.Array:
            return jax.ops.segment_sum(values, ids, self.count)

        shared = len(self.ids) == 1
        with _compat.under_mesh([flat]):
            if shared:
                return jax.vmap(add, in_axes=(0, None))(flat, jnp.asarray(self.ids[0]))
            return jax.vmap(add)(flat, self._along(flat))

    def order(self, scores: jax.Array, ascending: bool = False) -> jax.Array:
        """The place of each part in the order of its score, (N, P) integers from 0.

        Ties go by number, whichever the direction; parts that an example does not have come last.
        """
        keys = scores if ascending else -scores
        if self.ids is not None:
            sizes = np.stack([np.bincount(row, minlength=self.count) for row in self.ids])
            keys = jnp.where(sizes == 0, jnp.inf, keys)
        return jnp.argsort(jnp.argsort(keys, axis=1, stable=True), axis=1)

    def _along(self, examples: jax.Array) -> jax.Array:
        """The numbers, (N, features); the examples are sharded as these are."""
        return jnp.asarray(self.ids) + jnp.zeros_like(examples[:, :1], jnp.int32)

    def spread(self, of_parts: jax.Array) -> jax.Array:
        """For each feature what belongs to its part, (N, ...) of (N, P)."""
        if self.ids is not None:
            of_parts = jnp.take_along_axis(of_parts, self._along(of_parts), axis=1)
        return of_parts.reshape(len(of_parts), *self.shape[1:])


def parts_of(x: jax.Array, features: Sequence[int], patch: Patch) -> Parts:
    """The parts of inputs.

    Args:
      x: (N, ...), the inputs.
      features: the shape of their features; see :func:`jaxrel.metrics.borders.features`.
      patch: as said above.

    Raises:
      ValueError: patches that do not fit.
      TypeError: what is no patch.
    """
    features = tuple(features)
    if patch is None:
        return Parts(features, None, int(np.prod(features[1:])))
    if isinstance(patch, int | np.integer | Sequence):
        ids = _patches(x.shape, patch)[None]
    else:
        ids = _segments(x, patch)
    if ids.ndim > len(features):
        raise ValueError(
            f"patch: parts along {ids.ndim - 1} axes need a relevance with as many, got {features}."
        )
    whole = ids.reshape(ids.shape + (1,) * (len(features) - ids.ndim))
    whole = np.broadcast_to(whole, (len(whole), *features[1:]))
    return Parts(features, whole.reshape(len(whole), -1), int(ids.max()) + 1)


def grid(shape: Sequence[int], cells: int | Sequence[int]) -> np.ndarray:
    """Cells of equal size for the argument ``patch``, (1, H, W) integers.

    Args:
      shape: (H, W) of the pictures, or of as many axes as they have.
      cells: how many along each axis, or all; where they do not divide it sizes differ by one.

    Raises:
      ValueError: more cells than pixels.

    Example:
      >>> grid((2, 4), (1, 2))
      array([[[0, 0, 1, 1],
              [0, 0, 1, 1]]], dtype=int32)
    """
    shape = tuple(shape)
    counts = _along(cells, len(shape), "cells")
    for size, number in zip(shape, counts, strict=True):
        if number > size:
            raise ValueError(f"cells: {number} do not fit an axis of {size}.")
    along = [np.arange(size) * number // size for size, number in zip(shape, counts, strict=True)]
    return _numbered(along)[None]


def replaced(x: jax.Array, gone: jax.Array, replacement: Replacement) -> jax.Array:
    """``x`` where features are not gone, their replacement where they are; in x's dtype.

    Args:
      x: (N, ...).
      gone: boolean, in a shape that begins x's.
      replacement: broadcasts to x; or a function of x and of ``gone`` in x's shape.

    Raises:
      ValueError: it does not broadcast.
    """
    gone = jnp.broadcast_to(gone.reshape(gone.shape + (1,) * (x.ndim - gone.ndim)), x.shape)
    value = replacement(x, gone) if callable(replacement) else replacement
    borders.broadcast("replacement", value, x)
    return jnp.where(gone, jnp.zeros_like(x) + jnp.asarray(value).astype(x.dtype), x)


class Given(NamedTuple):
    """What is judged.

    Attributes:
      x: (N, ...), the inputs.
      relevance: in a shape that begins x's.
      parts: P of them.
      sums: (N, P), their relevance.
    """

    x: jax.Array
    relevance: jax.Array
    parts: Parts
    sums: jax.Array


def taken_apart(x: jax.Array, relevance: jax.Array, patch: Patch) -> Given:
    """Inputs and their relevance, checked and in parts."""
    x = borders.batch("x", x)
    relevance = borders.features(x, relevance)
    parts = parts_of(x, relevance.shape, patch)
    return Given(x, relevance, parts, parts.sums(relevance))


def _along(given: Any, axes: int, name: str) -> tuple[int, ...]:
    """One number for each of some axes."""
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * axes
    if len(numbers) > axes:
        raise ValueError(f"{name}: {given} for {axes} axes.")
    return tuple(count(name, **{name: n}) for n in numbers)


def _patches(shape: Sequence[int], patch: int | Sequence[int]) -> np.ndarray:
    """The number of each position's patch."""
    axes = len(shape) - 1 if isinstance(patch, Sequence) else max(1, len(shape) - 2)
    along = []
    for size, width in zip(shape[1:], _along(patch, axes, "patch"), strict=False):
        before = -size % width // 2
        along.append((np.arange(size) + before) // width)
    return _numbered(along)


def _numbered(along: Sequence[np.ndarray]) -> np.ndarray:
    """One number for each tuple of numbers along axes, row by row."""
    counts = [int(ids.max()) + 1 for ids in along]
    places = np.meshgrid(*along, indexing="ij")
    return np.ravel_multi_index([p.astype(np.int32) for p in places], counts).astype(np.int32)


def _segments(x: jax.Array, patch: Any) -> np.ndarray:
    """Segments as given."""
    if _compat.is_tracer(patch):
        raise TypeError(
            "patch: segments must be known when the function is traced; close over them as a "
            "numpy array instead of handing them to the compiled function."
        )
    ids = np.asarray(patch)
    if not np.issubdtype(ids.dtype, np.integer) or ids.size == 0 or ids.min() < 0:
        raise TypeError(
            "patch: expected an int, ints, or an array of segment numbers from 0, got "
            f"{ids.dtype} of shape {ids.shape}."
        )
    said = (
        f"patch: segments {ids.shape} do not fit x {x.shape}; expected (1 or N, ...) with the "
        "first axes of x."
    )
    fits = ids.shape[:1] in ((1,), (len(x),)) and ids.shape[1:] == x.shape[1 : ids.ndim]
    checked(said, chex.assert_equal, ids.ndim > 1 and fits, True)
    return ids.astype(np.int32)
