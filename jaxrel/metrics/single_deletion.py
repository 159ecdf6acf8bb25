"""Faithfulness by single deletions: what is lost when one part alone is replaced.

Arguments that recur (fun, x, relevance, replacement, patch, chunk) are those of
:func:`~jaxrel.metrics.pixel_flipping`. A correlation is 0 where one side is the same everywhere. An
example whose relevance has a NaN gets NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from .._call.averages import count
from . import borders
from .borders import Function
from .parts import Patch, Replacement, grid, parts_of, taken_apart
from .sets import every_part_alone, without_sets
from .similarity import pearson, spearman


def part_sums(relevance: jax.Array, patch: Patch = None) -> jax.Array:
    """The relevance of each part, summed with its sign.

    Args:
      relevance: (N, ...), in the shape of the input (channels included, so that patches are found).
      patch: what a part is; see :mod:`jaxrel.metrics.parts`.

    Returns:
      (N, P), in the relevance's unit, in float32 at least; differentiable.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance = borders.relevances("relevance", relevance)
    return parts_of(relevance, relevance.shape, patch).sums(relevance)


def part_drops(
    fun: Function,
    x: jax.Array,
    *,
    patch: Patch = None,
    replacement: Replacement = 0.0,
    chunk: int = 1,
) -> jax.Array:
    """What the function loses when one part is replaced: f(x) - f(x without part p).

    The occlusion of Zeiler and Fergus 2014. It takes P + 1 forward passes in one loop; judge many
    explanations by one call.

    Args:
      fun, x, replacement, chunk: as for :func:`pixel_flipping`.
      patch: what a part is; None: each element of x.

    Returns:
      (N, P), in units of f.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    x = borders.batch("x", x)
    return every_part_alone(fun, x, parts_of(x, x.shape, patch), replacement, chunk)


def idsds(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    cells: int | Sequence[int] = 4,
    patch: Patch = None,
    replacement: Replacement = 0.0,
    chunk: int = 1,
) -> jax.Array:
    """In-domain single-deletion score (Hesse, Schaub-Meyer, Roth 2024).

    Spearman's correlation over the cells of a grid between the relevance of a cell, summed with its
    sign over pixels and channels, and f(x) - f(x with that cell replaced). In-domain if the network
    was trained with single cells replaced in the same way (the paper: one of 4 x 4 set to 0, with
    probability 1/2), and f is the label's logit.

    Args:
      fun, relevance, replacement, chunk: as for :func:`pixel_flipping`.
      x: (N, H, W, C), or with ``patch`` anything.
      cells: along each axis.
      patch: other parts, in place of cells.

    Returns:
      (N,), from -1 to 1; the score is the mean.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    x = borders.batch("x", x)
    given = taken_apart(x, relevance, _cells(x, cells) if patch is None else patch)
    lost = every_part_alone(fun, x, given.parts, replacement, chunk)
    return spearman(given.sums, lost)


def surrogate(relevance: jax.Array, drops: jax.Array, patch: Patch = None) -> jax.Array:
    """A differentiable stand-in for :func:`idsds`: Pearson's correlation of sums and drops.

    To train hyper-parameters of rules by ``jax.grad`` through the relevance: maximise its mean.

    Args:
      relevance: (N, ...), in the shape of the input.
      drops: (N, P), of :func:`part_drops` with the same ``patch``; a constant of the training.
      patch: what a part is, such as ``grid((28, 28), 4)``.

    Returns:
      (N,), from -1 to 1; 0, with a gradient of 0, where one of them is the same everywhere.

    Raises:
      ValueError: shapes that do not fit.
    """
    return pearson(part_sums(relevance, patch), jax.lax.stop_gradient(drops))


def faithfulness_estimate(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    per_step: int = 1,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Faithfulness estimate (Alvarez-Melis and Jaakkola 2018, section 5).

    Pearson's correlation over parts of their relevance and f(x) - f(x without that part alone).

    Args:
      fun, x, relevance, replacement, patch, chunk: as for :func:`pixel_flipping`.
      per_step: how many parts, in descending order of relevance, make one of what is compared.

    Returns:
      (N,), from -1 to 1.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    given = taken_apart(x, relevance, patch)
    group = given.parts.order(given.sums) // count("faithfulness_estimate", per_step=per_step)
    groups = -(-given.parts.count // per_step)
    said, lost = without_sets(fun, given, lambda k: group == k, groups, replacement, chunk)
    return borders.poisoned(pearson(said, lost), given.relevance)


def _cells(x: jax.Array, cells: int | Sequence[int]) -> np.ndarray:
    """The grid of cells of pictures, or of other inputs along all axes but the last of three."""
    return grid(x.shape[1 : max(2, x.ndim - 1)], cells)
