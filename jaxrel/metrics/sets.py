"""Sets of parts, replaced one set at a time: what relevance says of each, and what is lost."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from . import borders
from .borders import Function
from .parts import Given, Parts, Replacement, replaced

Members = Callable[[jax.Array], jax.Array]
"""From the number of a set, 0 the first, to which parts are in it, (1 or N, P) booleans."""


def without_sets(
    fun: Function, given: Given, members: Members, sets: int, replacement: Replacement, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """The relevance of some sets, and what the function loses without each, both (N, sets).

    In one loop, f(x) included: memory is that of ``chunk`` sets, and the program holds the function
    once.
    """
    x, _, parts, sums = given

    def answer(k: jax.Array) -> tuple[jax.Array, jax.Array]:
        gone = members(jnp.maximum(k, 0)) & (k >= 0)
        gone = gone | jnp.zeros_like(sums, bool)
        value = borders.values(fun, replaced(x, parts.spread(gone), replacement))
        return jnp.where(gone, sums, 0).sum(1), value

    said, found = borders.mapped(answer, jnp.arange(-1, sets), chunk)
    return said[1:].T, (found[:1] - found[1:]).T


def every_part_alone(
    fun: Function, x: jax.Array, parts: Parts, replacement: Replacement, chunk: int
) -> jax.Array:
    """What the function loses without each part, (N, P)."""
    numbers = jnp.arange(parts.count)
    nothing = jnp.zeros_like(borders.flat(x)[:, :1], jnp.float32) + jnp.zeros(parts.count)
    given = Given(x, x, parts, nothing)
    one = lambda k: (numbers == k)[None]  # noqa: E731
    return without_sets(fun, given, one, parts.count, replacement, chunk)[1]
