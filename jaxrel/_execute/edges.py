"""Edges of an attribution graph: what a place hands directly to another.

The rewritten function has one more result for each place, the value that passes there, and a place
hands nothing on. So the pullback of a multiplier at one of these begins there and ends at the next
places on the way back: it is linear in what begins, and the forward pass is run once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import RuleError
from .apart import carries_parts
from .books import implicit, rows, zeros
from .constants import constants
from .explanation import Explanation
from .places import Place
from .taps import sum_type
from .units import emits_unit


class Edges(NamedTuple):
    """The matrix of a graph; see :class:`jaxrel.Graph`."""

    value: Any
    relevance: jax.Array
    edges: jax.Array
    biases: jax.Array
    implicit: jax.Array


def edges(made: Explanation, axes: Sequence[int | None], twins: Any, chunk: int) -> Edges:
    """Nodes and edges of an explained call.

    Args:
      made: with its places.
      axes: for each place the axis of its relevance that tells its nodes apart; None: it is one.
      twins: the leaves at the baseline; None: 0.
      chunk: how many nodes' edges are computed at once.

    Raises:
      RuleError: rules whose relevance is no multiplier times a value.
    """
    _check(made)
    parts = _Parts(made.places.marked, axes)
    ones = jnp.ones_like
    first, pullback, _ = made.vjp(twins, {}, multiples=True)
    _, begun = pullback(ones(first))
    _, pullback, _ = made.vjp(twins, {})
    arguments, arrived = pullback(ones(first))
    relevance = parts.sums(arrived)
    given = jnp.stack([jnp.sum(r, dtype=relevance.dtype) for r in arguments] or [])
    relevance = jnp.concatenate([given.astype(relevance.dtype), relevance])

    blamed = {} if twins is not None else constants(made.plan, made.chosen, 1)
    account = rows(made.plan, made.chosen, blamed)
    held = dataclasses.replace(made, places=dataclasses.replace(made.places, direct=True))
    probes = zeros(made.plan, made.chosen, blamed) | made.places.probes()

    def run(leaves: list[Any], companions: dict[int, Any], probes: dict[Any, Any]):
        taps = held.taps(probes, blamed, ledger=True)
        value, _ = held.value(leaves, companions, twins, taps)
        return value, dict(taps.caught)

    (value, values), backward = jax.vjp(run, made.call.leaves, made.companions, probes)

    def of_node(j: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the j-th part hands on directly; the one after the last is the output."""
        start = jnp.where(j == parts.count, ones(value), 0)
        inner = {
            place.key: jnp.where(
                parts.ids(place) == j, begun[place.key].astype(values[place.key].dtype), 0
            )
            for place in made.places.marked
        }
        multipliers, units, read = backward((start, inner))
        found = made.combine(multipliers, units, twins)
        own = [jnp.sum(r, dtype=relevance.dtype) for r in found]
        column = jnp.concatenate([jnp.stack(own), parts.sums(read)] if own else [parts.sums(read)])
        bias = sum((jnp.sum(read[key]) for key in blamed), jnp.zeros((), relevance.dtype))
        left = sum(implicit(account, read).values(), jnp.zeros((), relevance.dtype))
        return column, bias.astype(relevance.dtype), left.astype(relevance.dtype)

    columns, biases, left = lax.map(of_node, jnp.arange(parts.count + 1), batch_size=chunk)
    inputs = len(arguments)
    none = jnp.zeros((inputs,), relevance.dtype)
    table = jnp.concatenate([jnp.zeros((inputs, inputs + parts.count)), columns]).T
    return Edges(
        jnp.sum(value),
        relevance,
        table,
        jnp.concatenate([none, biases]),
        jnp.concatenate([none, left]),
    )


def _check(made: Explanation) -> None:
    rules = [rule for rule in made.chosen.values() if rule is not None]
    if carries_parts(made.chosen) or any(map(emits_unit, rules)):
        raise RuleError(
            "graph: edges are multipliers times values; Flat, WSquare, ZBox and RevealCancel have "
            "relevance that is not. Choose other rules, rules | {First(): ...}, or "
            "deeplift_rescale."
        )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The places of a graph, cut into nodes that are numbered one after the other."""

    places: Sequence[Place]
    axes: Sequence[int | None]

    @property
    def sizes(self) -> list[int]:
        pairs = zip(self.places, self.axes, strict=True)
        return [1 if axis is None else place.shape[axis] for place, axis in pairs]

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def ids(self, place: Place) -> jax.Array:
        """For each element of a place the number of its node."""
        index = self.places.index(place)
        first, axis = sum(self.sizes[:index]), self.axes[index]
        if axis is None:
            return jnp.full(place.shape, first)
        return first + lax.broadcasted_iota(jnp.int32, place.shape, axis % len(place.shape))

    def sums(self, read: dict[Any, jax.Array]) -> jax.Array:
        """The relevance of each node."""
        found = []
        for place, axis in zip(self.places, self.axes, strict=True):
            r = read[place.key]
            r = r.astype(sum_type(r.dtype))
            rest = [k for k in range(r.ndim) if axis is None or k != axis % r.ndim]
            found.append(jnp.atleast_1d(r.sum(rest)))
        return jnp.concatenate(found)
