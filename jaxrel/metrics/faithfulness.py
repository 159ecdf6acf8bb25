"""Faithfulness: does what is relevant matter? Sums of relevance against changes of the answer.

All have the form: choose sets of parts, replace one set at a time, and compare what the function
loses with the relevance that was there. They differ in the sets:

    faithfulness_correlation   random sets of one size                  Pearson
    sensitivity_n              random sets of n parts, for several n    Pearson
    faithfulness_estimate      each part alone (or some, by order)      Pearson
    idsds                      each cell alone                          Spearman
    surrogate                  each cell alone, differentiable          Pearson
    monotonicity               what is left when the rest is gone       never falls
    monotonicity_correlation   each alone, replaced by chance           Spearman
    infidelity                 any perturbation                         squared difference
    sufficiency                none: equal relevance, equal answer

Arguments that recur (fun, x, relevance, replacement, patch, chunk) are those of
:func:`~jaxrel.metrics.pixel_flipping`. A correlation is 0 where one side is the same everywhere. An
example whose relevance has a NaN gets NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._call.averages import count
from ..rules.numerics import divide
from . import borders
from .borders import Function
from .parts import Parts, Patch, Replacement, taken_apart
from .sets import Members, without_sets
from .similarity import pearson


def faithfulness_correlation(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    size: int | None = None,
    runs: int | None = None,
    key: jax.Array | None = None,
    subsets: jax.Array | None = None,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Faithfulness correlation (Bhatt, Weller, Moura 2020, definition 3).

    Pearson's correlation over random sets S of ``size`` parts of sum_S R and f(x) - f(x without S).

    Args:
      fun, x, relevance, replacement, patch, chunk: as for :func:`pixel_flipping`.
      size: of the sets.
      runs: how many sets, drawn anew for each example; None: 100.
      key: a random key.
      subsets: instead of the three (runs, N, size) the parts' numbers.

    Returns:
      (N,), from -1 to 1.

    Raises:
      ValueError: as :func:`pixel_flipping`; a size that does not fit; neither key nor subsets.
      TypeError: as :func:`pixel_flipping`.
    """
    borders.exactly_one("faithfulness_correlation", key=key, subsets=subsets)
    given = taken_apart(x, relevance, patch)
    if subsets is not None:
        shape = (None, len(given.x), None)
        subsets = borders.with_shape("subsets", subsets, shape, "(runs, N, size)")
        members = _numbered(subsets, given.parts.count)
        runs = len(subsets)
    else:
        size = _size("faithfulness_correlation", size, given.parts)
        runs = count("faithfulness_correlation", 2, runs=100 if runs is None else runs)
        members = _drawn(key, given.sums.shape, [size] * runs)
    said, lost = without_sets(fun, given, members, runs, replacement, chunk)
    return borders.poisoned(pearson(said, lost), given.relevance)


def sensitivity_n(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    sizes: Sequence[int],
    key: jax.Array,
    runs: int = 100,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Sensitivity-n (Ancona et al. 2018, section 3.2).

    For each n Pearson's correlation over random sets of n parts of the sum of their relevance and
    f(x) - f(x without them): 1 if and only if the relevance satisfies sensitivity-n.

    Args:
      fun, x, relevance, replacement, patch, chunk: as for :func:`pixel_flipping`.
      sizes: the n; the paper takes them about evenly on a logarithmic scale, to 0.8 P.
      key: a random key.
      runs: how many sets for each n, drawn anew for each example.

    Returns:
      (N, len(sizes)), from -1 to 1.

    Raises:
      ValueError, TypeError: as :func:`faithfulness_correlation`.
    """
    given = taken_apart(x, relevance, patch)
    runs = count("sensitivity_n", 2, runs=runs)
    sizes = [_size("sensitivity_n", n, given.parts) for n in sizes]
    members = _drawn(key, given.sums.shape, [n for n in sizes for _ in range(runs)])
    both = without_sets(fun, given, members, runs * len(sizes), replacement, chunk)
    said, lost = (each.reshape(len(each), len(sizes), runs) for each in both)
    found = jax.vmap(pearson, in_axes=1, out_axes=1)(said, lost)
    return borders.poisoned(found, given.relevance)


def infidelity(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    changes: jax.Array,
    *,
    weights: jax.Array | None = None,
    normalize: bool = False,
    chunk: int = 1,
) -> jax.Array:
    """Infidelity (Yeh et al. 2019, definition 2.1): low is good.

    Mean over perturbations I of (beta sum(w R) - (f(x) - f(x - I)))^2, with w = I.

    Args:
      fun, x, chunk: as for :func:`pixel_flipping`; x are floats.
      relevance: in x's shape. With w = I a gradient or multiplier, per unit of x.
      changes: (draws, N, ...), the I: ``sigma * jax.random.normal(key, (50, *x.shape))``, or
        ``mask * (x - x0)`` for noisy baselines and masks.
      weights: (draws, N, ...), the w of a relevance that has x in it already (R = (x - x0) m): the
        mask, I / (x - x0).
      normalize: beta = mean(a d) / mean(a^2) over the draws (a the sums, d the changes of f), the
        best scale of this explanation; otherwise 1.

    Returns:
      (N,), in squared units of f; differentiable by the relevance.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    x = borders.batch("x", x)
    relevance = borders.relevances("relevance", relevance)
    borders.same_shape("relevance", relevance, "x", x)
    shape, means = (None, *x.shape), "(draws, *x.shape)"
    changes = borders.with_shape("changes", changes, shape, means)
    weights = changes if weights is None else borders.with_shape("weights", weights, shape, means)
    borders.same_shape("weights", weights, "changes", changes)
    none = jnp.zeros_like(changes[:1])

    def answer(which: jax.Array) -> jax.Array:
        return borders.values(fun, (x - which).astype(x.dtype))

    found = borders.mapped(answer, jnp.concatenate([none, changes]), chunk)
    lost = found[:1] - found[1:]
    said = borders.flat(relevance)[None] * weights.reshape(len(weights), len(x), -1)
    said = said.sum(-1)
    if normalize:
        said = divide((said * lost).mean(0), (said**2).mean(0)) * said
    return ((said - lost) ** 2).mean(0)


def sufficiency(
    relevance: jax.Array, predicted: jax.Array, *, threshold: float = 0.6, scaled: bool = True
) -> jax.Array:
    """Sufficiency (Dasgupta, Frost, Moshkovitz 2022, definition 3): equal relevance, equal answer.

    For each example the share, among those whose relevance is near (distance over the largest
    distance in the batch at most ``threshold``), of the same prediction. It depends on the batch.

    Args:
      relevance: (N, ...).
      predicted: (N,), the predicted classes.
      threshold: from 0 to 1.
      scaled: each squared difference is divided by the variance over the batch (n - 1/2 below) of
        that element; one that is the same everywhere says nothing.

    Returns:
      (N,), from 0 to 1; 0 where nothing is near.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance = _compat.whole(borders.flat(borders.relevances("relevance", relevance)))
    shape = (len(relevance),)
    predicted = borders.with_shape("predicted", predicted, shape, "a class for each example")
    apart = (relevance[:, None] - relevance[None]) ** 2
    if scaled:  # the variance over the rows [a; a], as scipy's cdist has it
        rows = jnp.concatenate([relevance, relevance])
        apart = divide(apart, rows.var(0, ddof=1)[None, None])
    distance = jnp.sqrt(apart.sum(-1))
    near = divide(distance, distance.max()) <= threshold
    near &= ~jnp.eye(len(relevance), dtype=bool)
    same = (near & (predicted[:, None] == predicted[None])).sum(1)
    share = divide(same.astype(relevance.dtype), near.sum(1).astype(relevance.dtype))
    return borders.poisoned(share, relevance)


def _drawn(key: Any, shape: Sequence[int], sizes: Sequence[int]) -> Members:
    """Random sets of these sizes, others for each example."""
    every = jnp.asarray(sizes)

    def members(k: jax.Array) -> jax.Array:
        scores = jax.random.uniform(jax.random.fold_in(key, k), tuple(shape))
        return jnp.argsort(jnp.argsort(scores, axis=1), axis=1) < every[k]

    return members


def _numbered(subsets: jax.Array, parts: int) -> Members:
    """Sets that are given by the numbers of their parts."""

    def members(k: jax.Array) -> jax.Array:
        none = jnp.zeros((subsets.shape[1], parts), bool)
        return jax.vmap(lambda row, ids: row.at[ids].set(True))(none, subsets[k])

    return members


def _size(name: str, size: int | None, parts: Parts) -> int:
    size = count(name, size=size)
    if size > parts.count:
        raise ValueError(f"{name}: sets of {size}, but there are {parts.count} parts.")
    return size
