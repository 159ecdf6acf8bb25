"""Axioms: what an explanation has to satisfy, measured by how far it does not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..rules.numerics import divide
from . import borders
from .borders import Function
from .parts import Patch, Replacement, taken_apart
from .sets import every_part_alone


def completeness(
    fun: Function, x: jax.Array, relevance: jax.Array, baseline: Any = None
) -> jax.Array:
    """What is missing for completeness: sum R - (f(x) - f(x0)) (Sundararajan et al. 2017, axiom 1).

    Args:
      fun: from x to (N,), the value that was explained.
      x: (N, ...).
      relevance: (N, ...), with biases or without: whatever is to add up.
      baseline: broadcasts to x; None: sum R - f(x), conservation.

    Returns:
      (N,), in units of f, 0 if it is complete; differentiable.

    Raises:
      ValueError: shapes that do not fit.
      TypeError: ``fun`` is no function.
    """
    x = borders.batch("x", x)
    relevance = borders.relevances("relevance", relevance)
    value = borders.values(fun, x)
    if baseline is not None:
        value = value - borders.values(fun, borders.broadcast("baseline", baseline, x))
    total = borders.flat(relevance).sum(1)
    borders.same_shape("the sums of relevance", total, "the values", value)
    return total - value


def non_sensitivity(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    threshold: float = 1e-5,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """How many parts have relevance but do nothing, or the reverse (Nguyen and Martinez 2020, 4.2).

    The number of parts where exactly one of abs(R) < threshold and
    abs(f(x without it) - f(x)) < threshold holds.

    Args:
      fun, x, relevance, replacement, patch, chunk: as for :func:`pixel_flipping`.
      threshold: of relevance and of f.

    Returns:
      (N,), a number of parts: low is good.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    x, relevance, parts, sums = taken_apart(x, relevance, patch)
    drops = every_part_alone(fun, x, parts, replacement, chunk)
    idle = jnp.abs(drops) < threshold
    wrong = (jnp.abs(sums) < threshold) != idle
    return borders.poisoned(wrong.sum(1).astype(sums.dtype), relevance, drops)


def input_invariance(
    explain: Function, shifted: Function, x: jax.Array, shift: float | jax.Array
) -> jax.Array:
    """How much relevance changes with a shift that the network takes back (Kindermans et al. 2019).

    max abs(R'(x + s) - R(x)) / max abs(R(x)), R' of a network with f'(x + s) = f(x): its first bias
    is b - W s. Multipliers satisfy it, relevance x m does only against a baseline that is shifted
    too.

    Args:
      explain: from x to relevance; any callable.
      shifted: the same explanation of the other network.
      x: (N, ...), floats.
      shift: s, broadcasts to x.

    Returns:
      (N,), 0 if it is invariant.

    Raises:
      ValueError: shapes that do not fit.
      TypeError: one of them is no function.
    """
    x = borders.batch("x", x)
    moved = x + borders.broadcast("shift", shift, x)
    return _difference(borders.explained(explain, x), borders.explained(shifted, moved))


def implementation_invariance(explain: Function, another: Function, x: jax.Array) -> jax.Array:
    """How much relevance differs between two programs of one function (Sundararajan et al. 2017).

    max abs(R'(x) - R(x)) / max abs(R(x)).

    Args:
      explain, another: from x to relevance; any callables.
      x: (N, ...).

    Returns:
      (N,), 0 if it is invariant.

    Raises:
      ValueError: shapes that do not fit.
      TypeError: one of them is no function.
    """
    x = borders.batch("x", x)
    return _difference(borders.explained(explain, x), borders.explained(another, x))


def _difference(a: jax.Array, b: jax.Array) -> jax.Array:
    borders.same_shape("the first relevance", a, "the second", b)
    largest = jnp.abs(b - a).max(1)
    return jnp.where(largest == 0, 0, divide(largest, jnp.abs(a).max(1), otherwise=jnp.inf))
