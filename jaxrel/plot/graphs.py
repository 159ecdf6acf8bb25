"""An attribution graph, drawn: what places of a function hand to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .colors import color, hexadecimal, ink
from .drawing import given_or_free, real_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["graph"]


class Graph(Protocol):
    """What :func:`graph` draws; see :class:`jaxrel.Graph`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def value(self) -> Any: ...
    @property
    def relevance(self) -> Any: ...
    @property
    def edges(self) -> Any: ...


def graph(graph: Graph, axes: Axes | None = None, *, share: float = 0.95) -> Axes:
    """Draws nodes in layers, from the arguments below to the output on top, and what they hand on.

    An edge is as wide as the magnitude of what is handed on; red hands on positive relevance, blue
    negative. A node has the colour of its relevance, which stands under its name.

    Args:
      graph: what :func:`jaxrel.graph` returns; prune it if it has many nodes.
      axes: where to draw; None: free axes.
      share: of all magnitude that edges carry, how much is drawn: the largest edges first.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: it is no graph.
      ValueError: a number is NaN or infinite; ``share`` is not between 0 and 1.
    """
    if not hasattr(graph, "edges"):
        raise TypeError(
            "graph: expected what jaxrel.graph(fun, rules, nodes)(x) returns, got "
            f"{type(graph).__name__}."
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share!r}.")
    edges = real_numbers("edges", graph.edges)
    values = np.append(real_numbers("relevance", graph.relevance), float(graph.value))
    axes = given_or_free(axes)
    places = _places(edges)
    axes.plot(*zip(*places, strict=True), linestyle="")  # so that nothing is drawn over
    limit = float(np.abs(edges).max(initial=0)) or 1.0
    for source, target in _largest(edges, share):
        amount = edges[source, target]
        axes.annotate(
            "",
            places[source],
            places[target],
            arrowprops={
                "arrowstyle": "-|>",
                "linewidth": 0.5 + 4 * abs(amount) / limit,
                "color": hexadecimal(color(0.75 * np.sign(amount))),
                "shrinkA": 14,
                "shrinkB": 14,
            },
        )
    strongest = float(np.abs(values).max(initial=0)) or 1.0
    for name, (x, y), value in zip((*graph.names, "output"), places, values, strict=True):
        ground = color(value / strongest)
        axes.text(
            x,
            y,
            f"{name}\n{value:.3g}",
            ha="center",
            va="center",
            size="x-small",
            color=hexadecimal(ink(ground)),
            parse_math=False,
            bbox={"boxstyle": "round", "facecolor": hexadecimal(ground), "edgecolor": "0.5"},
        )
    heights = [y for _, y in places]
    axes.set_xlim(-0.6, 0.6)
    axes.set_ylim(-0.5, max(heights, default=0) + 0.5)
    axes.set_axis_off()
    return axes


def _largest(edges: np.ndarray, share: float) -> list[tuple[int, int]]:
    """The largest edges, which carry ``share`` of all magnitude."""
    flat = np.abs(edges).ravel()
    order = np.argsort(-flat, kind="stable")
    carried = np.cumsum(flat[order]) - flat[order]
    kept = order[(carried < share * flat.sum()) & (flat[order] > 0)]
    return [(int(k) // edges.shape[1], int(k) % edges.shape[1]) for k in kept]


def _places(edges: np.ndarray) -> list[tuple[float, float]]:
    """Where nodes stand, the output last: one line above all that they are made of."""
    count = edges.shape[1]
    height = [0] * count
    for target in range(count):  # nodes are in the order of execution
        below = np.flatnonzero(edges[:, target])
        height[target] = max((height[k] + 1 for k in below if k < target), default=0)
    height[-1] = max(height[:-1], default=0) + 1
    rows = [[k for k in range(count) if height[k] == line] for line in range(height[-1] + 1)]
    places = {}
    for line, row in enumerate(rows):
        for k, node in enumerate(row):
            places[node] = ((k + 0.5) / len(row) - 0.5, float(line))
    return [places[k] for k in range(count)]
