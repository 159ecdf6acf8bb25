"""Circuits: do the edges that an explanation ranks first carry the answer?

    graph = jaxrel.graph(fun, "slope", nodes, baseline=corrupted)(x)
    run = patch_edges(fun, nodes, x, corrupted)             real interventions, no relevance
    curve = circuit_curve(run, graph.edges)
    cpr(curve), cmd(curve)

A circuit keeps the k edges with the largest scores and gives all the others what they carry in a
corrupted run. Any scores do, and any ``run`` from which edges are kept to a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._execute.patched import patched
from . import borders

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of edges that are kept, as the Mechanistic Interpretability Benchmark has them."""

Run = Callable[[jax.Array], jax.Array]


def circuit_curve(
    run: Run,
    scores: jax.Array,
    *,
    among: jax.Array | None = None,
    fractions: Sequence[float] = FRACTIONS,
    absolute: bool = True,
    chunk: int = 1,
) -> jax.Array:
    """How much of the answer circuits of growing size give back (Mueller et al. 2025, eq. 1).

    f(k) = (m(k) - m(none)) / (m(all) - m(none)), m(k) the metric with the first k edges kept.

    Args:
      run: from kept edges, booleans in the shape of the scores, to the metric: a number, or one for
        each example (the benchmark takes the mean over them before the quotient).
      scores: of edges, (edges,) or a matrix; ties go by position.
      among: booleans, which edges there are; the others are always kept. None: all are.
      fractions: of the edges that there are, rounded down.
      absolute: whether edges are ranked by the magnitude of their scores.
      chunk: how many circuits are run at once.

    Returns:
      (fractions, ...): 1 is all of the answer, 0 none; not bounded by them. NaN where the corrupted
      run has the same metric.

    Raises:
      ValueError: shapes that do not fit; fractions that are not between 0 and 1.
      TypeError: ``run`` is no function.
    """
    borders.function("run", run, "run(kept)")
    scores = jnp.asarray(scores)
    shares = np.asarray(fractions, float)
    if shares.ndim != 1 or not np.all((shares >= 0) & (shares <= 1)):
        raise ValueError(f"fractions: expected numbers between 0 and 1, got {fractions!r}.")
    there = borders.broadcast("among", True if among is None else among, scores, "the scores")
    keys = jnp.where(there, -jnp.abs(scores) if absolute else -scores, jnp.inf).ravel()
    place = jnp.argsort(jnp.argsort(keys, stable=True)).reshape(scores.shape)
    total = there.sum()
    sizes = jnp.floor(jnp.asarray(shares) * total + 1e-4).astype(jnp.int32)
    sizes = jnp.concatenate([jnp.array([0]), total[None].astype(jnp.int32), sizes])
    found = borders.mapped(lambda k: jnp.asarray(run(~there | (place < k))), sizes, chunk)
    none, every = found[0], found[1]
    return (found[2:] - none) / (every - none)


def cpr(curve: jax.Array, fractions: Sequence[float] = FRACTIONS) -> jax.Array:
    """Circuit performance ratio: the area under f(k), by trapezoids (Mueller et al. 2025).

    Args:
      curve: (fractions, ...), of :func:`circuit_curve`.
      fractions: the same, ascending.

    Returns:
      (...): high is good.

    Raises:
      ValueError: sizes differ.
    """
    return _area(curve, fractions)


def cmd(curve: jax.Array, fractions: Sequence[float] = FRACTIONS) -> jax.Array:
    """Circuit-model distance: the area under abs(1 - f(k)), by trapezoids (Mueller et al. 2025).

    Args:
      curve, fractions: as for :func:`cpr`.

    Returns:
      (...): low is good, 0 if the circuit always does what the whole does.

    Raises:
      ValueError: sizes differ.
    """
    return _area(jnp.abs(1 - jnp.asarray(curve)), fractions)


def patch_edges(
    fun: Callable[[Any], Any],
    nodes: str | Sequence[str] | Mapping[str, int | None],
    x: Any,
    corrupted: Any,
) -> Run:
    """The function with edges between its nodes cut: real interventions, one edge at a time.

    Nodes are those of :func:`jaxrel.graph`, x first if it is of floats, then places by the order
    of execution. What node j reads of node i is what i has in this run if the edge is kept, and
    what it has in the corrupted run if not (path patching; Goldowsky-Dill et al. 2023).
    Everything that is no node is computed from what it reads.

    Args:
      fun: of one argument, any function that JAX can trace.
      nodes: as for :func:`jaxrel.graph`: places, or a mapping to the axis that cuts them.
      x: an array. Of integers (tokens) it is no node, and is never corrupted itself.
      corrupted: in its shape.

    Returns:
      ``run(kept)`` from booleans (nodes, nodes + 1), from node (row) to node (column; the last one
      is the output), to ``fun``'s value. It can be jitted; it takes a forward pass for each node.

    Raises:
      ValueError: no such place; one in a loop; shapes that do not fit.
    """
    x, corrupted = jnp.asarray(x), jnp.asarray(corrupted)
    borders.same_shape("x", x, "corrupted", corrupted)
    axes = nodes if isinstance(nodes, Mapping) else dict.fromkeys(_listed(nodes))
    has_input = bool(jnp.issubdtype(x.dtype, jnp.floating))
    forward = patched(fun, x, axes, has_input)
    ids, size = _numbered(forward.places, forward.axes, int(has_input))
    _, there = forward([corrupted], {})

    def run(kept: jax.Array) -> jax.Array:
        kept = borders.with_shape("kept", kept, (size, size + 1), "(nodes, nodes + 1)")
        known: dict[Any, jax.Array] = {}

        def reads(column: jax.Array) -> tuple[list[jax.Array], dict[Any, jax.Array]]:
            """What something reads of all nodes before it, by its column of ``kept``."""
            mixed = {
                key: jnp.where(column[ids[key]], value, there[key]) for key, value in known.items()
            }
            own = jnp.where(column[0], x, corrupted) if has_input else x
            return [own], mixed

        for place in forward.places:
            own = ids[place.key]

            def one(number: jax.Array, key: Any = place.key, own: Any = own) -> jax.Array:
                _, caught = forward(*reads(kept[:, number]))
                return jnp.where(own == number, caught[key], 0)

            found = jax.vmap(one)(jnp.asarray(own.ravel())).sum(0)
            known[place.key] = found.astype(there[place.key].dtype)
        return forward(*reads(kept[:, -1]))[0]

    return run


def _numbered(places: Sequence[Any], axes: Sequence[int | None], first: int):
    """For each place, by key, the nodes of its elements, and how many nodes there are in all."""
    ids: dict[Any, np.ndarray] = {}
    for place, axis in zip(places, axes, strict=True):
        shape = [1] * len(place.shape)
        if axis is not None:
            shape[axis] = place.shape[axis]
        ids[place.key] = first + np.arange(int(np.prod(shape))).reshape(shape)
        first += int(np.prod(shape))
    return ids, first


def _listed(nodes: str | Sequence[str]) -> Sequence[str]:
    return [nodes] if isinstance(nodes, str) else nodes


def _area(curve: jax.Array, fractions: Sequence[float]) -> jax.Array:
    curve, at = jnp.asarray(curve), jnp.asarray(fractions)
    borders.same_shape(
        "the curve's first axis", curve[(slice(None), *[0] * (curve.ndim - 1))], "fractions", at
    )
    widths = jnp.diff(at).reshape(-1, *(1 for _ in curve.shape[1:]))
    return (widths * (curve[1:] + curve[:-1]) / 2).sum(0)
