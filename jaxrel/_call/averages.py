"""Sums and means over points, some of them at once: what ``jaxrel.around`` is made of.

``chunk`` points are computed at once by ``vmap`` and the chunks one after another by ``scan``, so
that memory is that of one chunk. Each is computed anew when the sum is differentiated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .progress import teller

METHODS = ("gauss_legendre", "left", "right", "middle", "trapezoid")
"""Names of quadratures."""


def wide(x: Any) -> Any:
    """The dtype to compute and to sum in: float32 at least."""
    dtype = jnp.result_type(x)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def total(name: str, fun: Callable[[jax.Array], Any], count: int, chunk: int) -> Any:
    """Returns the sum of ``fun(k)`` over 0 <= k < count, trees of arrays; ``name`` 's progress."""
    indices = jnp.arange(count, dtype=jnp.int32)
    if count == 1:
        return fun(indices[0])
    if chunk >= count:
        return jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(fun)(indices))
    # jit: traced once, however often it is used below
    fun = jax.jit(jax.checkpoint(fun, prevent_cse=False))
    tell = teller(name, count)

    def of_chunk(indices: jax.Array) -> Any:
        if len(indices) == 1:
            return fun(indices[0])
        return jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(fun)(indices))

    def add(sums: Any, indices: jax.Array) -> tuple[Any, None]:
        sums = jax.tree.map(jnp.add, sums, of_chunk(indices))
        tell(len(indices), indices[0])
        return sums, None

    whole = count - count % chunk
    sums = jax.tree.map(_compat.zeros, jax.eval_shape(fun, indices[0]))
    sums, _ = jax.lax.scan(add, sums, indices[:whole].reshape(-1, chunk))
    return sums if whole == count else add(sums, indices[whole:])[0]


def mean(name: str, fun: Callable[[jax.Array], Any], count: int, chunk: int) -> Any:
    """Returns the mean of ``fun(k)`` over 0 <= k < count, trees of floats, in their dtypes.

    Raises:
      TypeError: in ``name`` 's name, results are not floats.
    """
    dtypes: Any = None

    def share(k: jax.Array) -> Any:
        nonlocal dtypes
        found = jax.tree.map(jnp.asarray, fun(k))
        dtypes = jax.tree.map(lambda leaf: leaf.dtype, found)
        for dtype in jax.tree.leaves(dtypes):
            if not jnp.issubdtype(dtype, jnp.floating):
                raise TypeError(f"{name}: the function returned dtype {dtype}; only floats do.")
        return jax.tree.map(lambda leaf: leaf.astype(wide(leaf)) / count, found)

    sums = total(name, share, count, chunk)
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), sums, dtypes)


def quadrature(name: str, steps: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes in [0, 1] and weights that add up to 1.

    Raises:
      TypeError, ValueError: in ``name`` 's name, there is no such method or too few steps.
    """
    if method not in METHODS:
        raise ValueError(f"{name}: no method {method!r}; there are {', '.join(METHODS)}.")
    steps = count(name, 2 if method == "trapezoid" else 1, steps=steps)
    equal = np.full(steps, 1 / steps)
    match method:
        case "left":
            return np.arange(steps) / steps, equal
        case "right":
            return np.arange(1, steps + 1) / steps, equal
        case "middle":
            return (np.arange(steps) + 0.5) / steps, equal
        case "trapezoid":
            weights = np.full(steps, 1 / (steps - 1))
            weights[[0, -1]] /= 2
            return np.linspace(0, 1, steps), weights
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def count(name: str, at_least: int = 1, **given: Any) -> int:
    """Checks a number of points, such as ``n=3``.

    Raises:
      TypeError, ValueError: in ``name`` 's name, it is no integer or too small.
    """
    [(what, value)] = given.items()
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {what} must be an int, got {value!r}.") from None
    if found < at_least:
        raise ValueError(f"{name}: {what} must be at least {at_least}, got {found}.")
    return found
