"""What metrics are given, checked where it comes in; messages name what is wrong and how it is.

All of them take batches: N examples in front. Checks look at shapes and dtypes alone, so that they
work on tracers; what values do (NaN, ties, nothing to compare) is said in the docstrings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from .._call.averages import count
from .._call.checked import checked
from .._call.progress import teller
from ..rules.numerics import wide

Function = Callable[[jax.Array], jax.Array]


def batch(name: str, x: Any) -> jax.Array:
    """``x`` as an array with at least one example, and something of each.

    Raises:
      TypeError: it is a function.
      ValueError: it has no axis beside that of the examples, or no element.
    """
    if callable(x):
        raise TypeError(f"{name}: expected an array, (N, ...), got {type(x).__name__}.")
    x = jnp.asarray(x)
    said = f"{name}: expected examples in front, (N, ...) with N > 0, got shape {x.shape}."
    checked(said, chex.assert_rank, x, set(range(2, 33)))
    for axis in range(x.ndim):
        checked(said, chex.assert_axis_dimension_gt, x, axis, 0)
    return x


def relevances(name: str, relevance: Any) -> jax.Array:
    """A relevance as floats to compute with, in float32 at least.

    Raises:
      ValueError: as :func:`batch`.
      TypeError: it is complex.
    """
    relevance = batch(name, relevance)
    said = f"{name}: expected real numbers, got {relevance.dtype}."
    checked(said, chex.assert_equal, jnp.iscomplexobj(relevance), False, error=TypeError)
    floats = jnp.issubdtype(relevance.dtype, jnp.floating)
    return wide(relevance) if floats else relevance.astype(jnp.float32)


def features(x: jax.Array, relevance: Any) -> jax.Array:
    """A relevance in a shape that begins ``x.shape``: each of its elements is a feature of ``x``.

    Raises:
      ValueError: there is no such shape.
    """
    relevance = relevances("relevance", relevance)
    shape = relevance.shape
    while shape[-1] == 1 and len(shape) > 2 and shape != x.shape[: len(shape)]:
        shape = shape[:-1]  # summed over channels, which were kept as an axis
    said = (
        f"relevance: expected that of x, {x.shape}, or that without last axes (or 1 there) summed "
        f"over, got shape {relevance.shape}."
    )
    checked(said, chex.assert_equal, shape, x.shape[: len(shape)])
    return relevance.reshape(shape)


def same_shape(first: str, a: jax.Array, second: str, b: jax.Array) -> None:
    """Checks that two arrays have one shape.

    Raises:
      ValueError: they have not.
    """
    checked(f"{first} {a.shape} and {second} {b.shape} differ.", chex.assert_equal_shape, [a, b])


def with_shape(name: str, x: Any, shape: Sequence[int | None], means: str) -> jax.Array:
    """``x`` as an array of this shape.

    Args:
      name: of the argument.
      x: what was given.
      shape: None: any size.
      means: what its axes are.

    Raises:
      ValueError: it has another.
    """
    x = jnp.asarray(x)
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    said = f"{name}: expected {expected}, {means}, got shape {x.shape}."
    checked(said, chex.assert_shape, x, tuple(shape))
    return x


def broadcast(name: str, value: Any, x: jax.Array, what: str = "x") -> jax.Array:
    """``value`` in the shape of x.

    Raises:
      ValueError: it does not broadcast to it.
    """
    value = jnp.asarray(value)
    said = f"{name}: {value.shape} does not broadcast to {what}, {x.shape}."
    checked(said, chex.assert_is_broadcastable, value.shape, x.shape)
    return jnp.broadcast_to(value, x.shape)


def function(name: str, fun: Any, call: str) -> None:
    """Checks that something can be called.

    Raises:
      TypeError: it cannot.
    """
    if not callable(fun):
        raise TypeError(f"{name}: expected a function, called as {call}, got {type(fun).__name__}.")


def values(fun: Function, x: jax.Array) -> jax.Array:
    """``fun(x)``, (N,), in float32 at least.

    Raises:
      ValueError: it is not one number for each example.
    """
    function("fun", fun, "fun(x)")
    found = jnp.asarray(fun(x))
    said = (
        f"fun: expected one number for each of the {len(x)} examples, shape ({len(x)},), got "
        f"{found.shape}. Choose a class: lambda x: logits(x)[:, 3]."
    )
    checked(said, chex.assert_shape, found, (len(x),))
    return wide(found) if jnp.issubdtype(found.dtype, jnp.floating) else found.astype(jnp.float32)


def explained(explain: Callable[..., jax.Array], x: jax.Array, *more: Any) -> jax.Array:
    """``explain(x)`` with everything but the examples in one axis, (N, M).

    Raises:
      ValueError: it does not have x's examples.
    """
    function("explain", explain, "explain(x)")
    found = relevances("explain", explain(x, *more))
    said = f"explain: expected {len(x)} examples as in x, got shape {found.shape}."
    checked(said, chex.assert_axis_dimension, found, 0, len(x))
    return flat(found)


def flat(x: jax.Array) -> jax.Array:
    """``x`` with everything but the examples in one axis."""
    return x.reshape(len(x), -1)


def exactly_one(name: str, **given: Any) -> None:
    """Checks that one of the arguments is given, and not another.

    Raises:
      ValueError: none, or more.
    """
    there = [what for what, value in given.items() if value is not None]
    if len(there) != 1:
        raise ValueError(f"{name}: give one of {' and '.join(given)}, got {there or 'none'}.")


def mapped(fun: Callable[[Any], Any], over: Any, chunk: int) -> Any:
    """``fun`` of each row of ``over``, ``chunk`` of them at once; rows in front.

    Raises:
      TypeError, ValueError: ``chunk`` is no positive integer.
    """
    chunk = count("metrics", chunk=chunk)
    places = jnp.arange(len(jax.tree.leaves(over)[0]))
    tell = teller("metrics", len(places))

    def told(row: tuple[jax.Array, Any]) -> Any:
        place, given = row
        result = fun(given)
        tell(1, place)
        return result

    return lax.map(told, (places, over), batch_size=None if chunk == 1 else chunk)


def poisoned(result: jax.Array, *by: jax.Array) -> jax.Array:
    """``result``, (N, ...), and NaN for examples that have a NaN in any of ``by``.

    A comparison does not hand NaN on, and an explanation with NaN is not to have a score.
    """
    bad = functools.reduce(jnp.logical_or, [jnp.isnan(flat(b)).any(1) for b in by])
    return jnp.where(bad.reshape(-1, *(1 for _ in result.shape[1:])), jnp.nan, result)
