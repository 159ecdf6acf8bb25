"""Localisation: does relevance lie where the object is? No function is called.

A mask has 1 inside and 0 outside and broadcasts to the relevance; what ranks takes all that is not
0 for inside. Sum channels before (``relevance.sum(-1)``) for the question to be one of pixels.
Whether negative relevance counts is the caller's choice: ``relevance``, ``abs(relevance)`` or
``jax.nn.relu(relevance)``. An example with an empty mask, or with a NaN, has no score: NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._call.averages import count
from . import borders
from .similarity import ranks


def pointing_game(relevance: jax.Array, mask: Any) -> jax.Array:
    """Whether the maximum lies inside (Zhang et al. 2016, section 4.2).

    Args:
      relevance: (N, ...), any unit.
      mask: broadcasts to it, 1 inside.

    Returns:
      (N,), 1 or 0; of several maxima one inside is enough.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> pointing_game(jnp.array([[3.0, -4.0, 1.0]]), jnp.array([[1, 0, 0]]))
      Array([1.], dtype=float32)
    """
    relevance, mask = _flat(relevance, mask)
    largest = relevance == relevance.max(1, keepdims=True)
    return _scored((largest & (mask != 0)).any(1), relevance, mask)


def relevance_mass_accuracy(relevance: jax.Array, mask: Any) -> jax.Array:
    """The share of relevance inside: sum_mask R / sum R (Arras, Osman, Samek 2022, eq. 1).

    Args:
      relevance, mask: as for :func:`pointing_game`. With both signs it may leave 0 to 1.

    Returns:
      (N,); differentiable. NaN or infinite where all relevance is 0.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance, mask = _flat(relevance, mask)
    return _scored((relevance * mask).sum(1) / relevance.sum(1), relevance, mask)


def relevance_rank_accuracy(relevance: jax.Array, mask: Any) -> jax.Array:
    """The share of the K largest that lie inside, K the mask's size (Arras et al. 2022, eq. 2).

    Args:
      relevance, mask: as for :func:`pointing_game`; ties go by position.

    Returns:
      (N,), from 0 to 1.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance, mask = _flat(relevance, mask)
    inside = mask != 0
    size = inside.sum(1)
    return _scored(_largest_inside(relevance, inside, size), relevance, mask)


def top_k_intersection(
    relevance: jax.Array, mask: Any, k: int, *, concept_influence: bool = False
) -> jax.Array:
    """The share of the k largest that lie inside (Theiner, Müller-Budack, Ewerth 2022).

    Args:
      relevance, mask: as for :func:`pointing_game`; ties go by position.
      k: how many, at most as many as there are.
      concept_influence: times size / mask size: how much more than by chance.

    Returns:
      (N,), from 0 to 1, or to size / mask size.

    Raises:
      ValueError: shapes that do not fit, or k.
    """
    relevance, mask = _flat(relevance, mask)
    k, inside = count("top_k_intersection", k=k), mask != 0
    if k > relevance.shape[1]:
        raise ValueError(f"top_k_intersection: k is {k}, but there are {relevance.shape[1]}.")
    share = _largest_inside(relevance, inside, jnp.full(len(relevance), k))
    if concept_influence:
        share = share * relevance.shape[1] / inside.sum(1)
    return _scored(share, relevance, mask)


def auc(relevance: jax.Array, mask: Any) -> jax.Array:
    """The area under the ROC curve of relevance as a detector of the mask (Fawcett 2006).

    The probability that relevance inside is larger than outside, ties counting one half.

    Args:
      relevance, mask: as for :func:`pointing_game`.

    Returns:
      (N,), from 0 to 1, 0.5 by chance; NaN where all is inside.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance, mask = _flat(relevance, mask)
    inside = (mask != 0).astype(relevance.dtype)
    within = inside.sum(1)
    rank = (ranks(relevance) - 1) / relevance.shape[1]  # of size 1: sums of ranks leave float32
    larger = (rank * inside).sum(1) * relevance.shape[1] - within * (within - 1) / 2
    return _scored(larger / (within * (relevance.shape[1] - within)), relevance, mask)


def attribution_localisation(
    relevance: jax.Array, mask: Any, *, weighted: bool = False
) -> jax.Array:
    """The share of positive relevance inside, mu (Kohlbrenner et al. 2020, eq. 10 and 11).

    Args:
      relevance, mask: as for :func:`pointing_game`.
      weighted: mu_w, times size / mask size: small objects are harder.

    Returns:
      (N,), from 0 to 1, or to size / mask size; 0 where nothing is positive.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance, mask = _flat(relevance, mask)
    positive = jax.nn.relu(relevance)
    total = positive.sum(1)
    share = (positive * mask).sum(1) / jnp.where(total == 0, 1, total)
    if weighted:
        share = share * relevance.shape[1] / mask.sum(1)
    return _scored(share, relevance, mask)


def _largest_inside(relevance: jax.Array, inside: jax.Array, number: jax.Array) -> jax.Array:
    """The share of the largest, so many of each example, that lie inside.

    By sorting, to which -0 and 0 tie; to ``lax.top_k`` they do not.
    """
    place = jnp.argsort(jnp.argsort(-relevance, axis=1, stable=True), axis=1)
    hits = ((place < number[:, None]) & inside).sum(1)
    return hits.astype(relevance.dtype) / number


def _flat(relevance: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """Relevance and mask in one axis beside the examples'."""
    relevance = borders.relevances("relevance", relevance)
    mask = borders.broadcast("mask", mask, relevance, "the relevance")
    return borders.flat(relevance), borders.flat(mask.astype(relevance.dtype))


def _scored(score: jax.Array, relevance: jax.Array, mask: jax.Array) -> jax.Array:
    """The score, NaN where there is none."""
    score = jnp.where((mask != 0).any(1), score.astype(relevance.dtype), jnp.nan)
    return borders.poisoned(score, relevance, mask)
