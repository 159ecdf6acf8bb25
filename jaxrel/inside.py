"""Inside a function: the values at places, the graph of what they hand on, its linear map at x."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._call.arguments import Arguments, check_function
from ._call.averages import count
from ._execute.edges import edges
from ._execute.evaluate import evaluate
from ._execute.explanation import explain, trace
from ._execute.inside import read_inside
from ._execute.places import Marked, places
from ._execute.pullback import Asked, pull
from ._show.tables import Sheet
from .api import Rules, default_rules
from .errors import shown
from .rulesets.assign import Assignment
from .rulesets.presets import preset


def capture(fun: Callable[..., Any], at: str | Sequence[str]) -> Callable[..., Any]:
    """Returns a function that also returns the values at places.

    Args:
      fun: any function that JAX can trace.
      at: places as for :func:`jaxrel.relevance`.

    Returns:
      A function with the signature of ``fun`` that returns ``(value, captured)``: what ``fun``
      returns, and an array for one place given by its name, else a dictionary from names to arrays,
      in their own shapes and dtypes; inside a scan with one row for each iteration in front.

    Raises:
      TypeError: ``at`` is no place.
      ValueError: there is no such place.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def fun(x):
      ...     with jax.named_scope("hidden"):
      ...         h = jnp.sin(x)
      ...     return h * 2
      >>> value, hidden = capture(fun, "hidden")(jnp.zeros(2))
      >>> hidden
      Array([0., 0.], dtype=float32)
    """
    check_function("capture", fun)
    inside = read_inside(at, None, False)
    if not inside:
        raise TypeError(f"capture: expected a place or a sequence of places, got {shown(at)}.")

    @functools.wraps(fun)
    def captured(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = Arguments(fun, args, kwargs, ())
        marks = inside.marks(call)
        plan, output = trace(call, marks=marks)
        found = inside.find(places(plan), marks.seen)
        taps = Marked(found.marked_by(found.probes()))
        out = evaluate(plan, Assignment(), [], taps=taps)
        return output.restore(out), found.named(taps.caught)

    return captured


def linear_map(
    fun: Callable[..., Any],
    rules: Rules = "cp_lrp",
    argnums: int | Sequence[int] = 0,
    *,
    chunk: int = 1,
) -> Callable[..., tuple[Any, Any]]:
    """Returns a function for the linear map that a network is at its input: f(x) = W x + c.

    A row of W is the multiplier of one output. With rules that take gates, weights of attention and
    scales of norms for constants, and nonlinearities for slopes through 0 (``"cp_lrp"``), c is what
    the constants make, and 0 without any.

    Args:
      fun, rules, argnums: as for :func:`relevance`.
      chunk: how many rows are computed at once, by one forward pass for all.

    Returns:
      A function with the signature of ``fun`` that returns ``(W, c)``: what ``jax.jacobian`` gives,
      in its tree and shapes (those of the output, then those of x), and c = f(x) - W x in the
      output's shape.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
      RuleError: relevance of the first layer's rule is no multiple of x.
    """
    check_function("linear_map", fun)
    asked, rows = Asked(preset(default_rules(rules))), count("linear_map", chunk=chunk)

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = Arguments(fun, args, kwargs, argnums)
        out, pullback = pull(call, asked, multiples=True)

        def row(k: jax.Array) -> list[Any]:
            one = (jnp.arange(out.size) == k).astype(out.dtype)
            return jax.tree.leaves(pullback(one.reshape(out.shape)).arguments)

        found = lax.map(row, jnp.arange(out.size), batch_size=rows)
        found = [w.reshape(*out.shape, *w.shape[1:]) for w in found]
        made = [_times(w, x) for w, x in zip(found, call.leaves, strict=True)]
        return call.select(call.restore(found)), out - sum(made)

    return mapped


def _times(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tensordot(w, x, x.ndim, precision=lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class Graph:
    """What places of a function hand to each other on the way back from its value.

    Nodes are the explained arguments and then the places (or their parts), in the order of
    execution. For every node, and for the output, what it hands on adds up:

        relevance[j] = edges[:, j].sum() + biases[j] + implicit[j]

    Attributes:
      names: of the nodes.
      value: f(x), or f(x) - f(x0) against a baseline; summed where it is an array.
      relevance: of each node, (nodes,).
      edges: what a node (column; the last one is the output) hands directly to another (row),
        (nodes, nodes + 1).
      biases: what of it goes to additive constants on the way, (nodes + 1,).
      implicit: what of it rules destroy (negative: create), and stabilisers take, (nodes + 1,).
    """

    names: tuple[str, ...]
    value: jax.Array
    relevance: jax.Array
    edges: jax.Array
    biases: jax.Array
    implicit: jax.Array

    def influence(self) -> jax.Array:
        """How much each node has to do with the output, along all ways, (nodes,).

        With the magnitudes of what a node is made of (edges and biases) normalised to 1, N, it is
        the output's row of N + N^2 + ... (Ameisen et al. 2025).
        """
        magnitude = jnp.abs(self.edges)
        made = magnitude.sum(0) + jnp.abs(self.biases) + jnp.abs(self.implicit)
        shares = magnitude / jnp.where(made == 0, 1, made)
        within, start = shares[:, :-1], shares[:, -1]
        found = step = start
        for _ in range(len(self.names)):  # there are no circles, so no way is longer
            step = within @ step
            found = found + step
        return found

    def prune(self, share: float = 0.8) -> Graph:
        """The graph of the nodes that make up ``share`` of all influence; not under ``jax.jit``.

        Args:
          share: between 0 and 1.

        Raises:
          ValueError: it is not.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"prune: share is between 0 and 1, got {share!r}.")
        found = np.asarray(self.influence())
        order = np.argsort(-found, kind="stable")
        before = np.cumsum(found[order]) - found[order]
        kept = np.sort(order[before < share * found.sum()])
        columns = np.append(kept, len(self.names))
        return Graph(
            tuple(self.names[k] for k in kept),
            self.value,
            self.relevance[kept],
            self.edges[kept][:, columns],
            self.biases[columns],
            self.implicit[columns],
        )

    def __str__(self) -> str:
        """A line for each node, with what it gets, mostly."""
        return self._sheet().text()

    def _repr_html_(self) -> str:
        """The same as a table in a notebook."""
        return self._sheet().html()

    def _sheet(self) -> Sheet:
        targets = (*self.names, "output")
        rows = [("output", f"{float(self.value):.4g}", "")]
        for name, value, row in zip(
            self.names, self.relevance, np.asarray(self.edges), strict=True
        ):
            largest = [j for j in np.argsort(-np.abs(row), kind="stable")[:3] if row[j]]
            ways = ", ".join(f"{row[j]:.4g} from {targets[j]}" for j in largest)
            rows.append((name, f"{float(value):.4g}", ways))
        return Sheet(("node", "relevance", "directly"), rows)


jax.tree_util.register_dataclass(
    Graph,
    data_fields=["value", "relevance", "edges", "biases", "implicit"],
    meta_fields=["names"],
)


def graph(
    fun: Callable[..., Any],
    rules: Rules = None,
    nodes: str | Sequence[str] | Mapping[str, int | None] = "**",
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    chunk: int = 1,
) -> Callable[..., Graph]:
    """Returns a function that draws up the attribution graph of a call.

    Args:
      fun, rules, argnums, baseline: as for :func:`jaxrel.relevance`; ``argnums=()``: of places
        alone. With a baseline (a corrupted input) edges are those of edge attribution patching.
      nodes: places, or a mapping from places to the axis of their value (in front of which are the
        rows of loops) by which one is cut into nodes: heads, channels, positions; None: it is not.
      chunk: how many nodes' edges are computed at once.

    Returns:
      A function with the signature of ``fun`` that returns a :class:`Graph`; it can be jitted.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`jaxrel.relevance`.
      RuleError: rules whose relevance is no multiplier times a value.
    """
    check_function("graph", fun)
    chunk = count("graph", chunk=chunk)
    axes = nodes if isinstance(nodes, Mapping) else dict.fromkeys(_listed(nodes))
    inside = read_inside(list(axes), None, False)
    asked = Asked(preset(default_rules(rules, baseline)), baseline=baseline, inside=inside)

    @functools.wraps(fun)
    def graphed(*args: Any, **kwargs: Any) -> Graph:
        call, own = asked.call(fun, args, kwargs, argnums)
        made = explain(call, own.rules, False, own.baseline, inside)
        twins = None if made.baseline is None else made.baseline.at(0)
        if made.baseline is not None and made.baseline.many is not None:
            raise ValueError("graph: expected one reference, got many.")
        cut = [inside.axis(place, axes) for place in made.places.marked]
        found = edges(made, cut, twins, chunk)
        value = found.value
        if twins is not None:
            value = value - jnp.sum(evaluate(made.plan, Assignment(), twins)[0])
        names = (*call.names(), *_names(made.places.marked, cut))
        return Graph(names, value, *found[1:])

    return graphed


def _listed(nodes: Any) -> Any:
    return [nodes] if isinstance(nodes, str) else nodes


def _names(marked: Any, cut: Sequence[int | None]) -> list[str]:
    return [
        name
        for place, axis in zip(marked, cut, strict=True)
        for name in (
            [place.name]
            if axis is None
            else [f"{place.name}[{k}]" for k in range(place.shape[axis])]
        )
    ]
