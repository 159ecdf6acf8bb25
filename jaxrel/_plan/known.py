"""A graph as far as it has been read: who makes a value, and what is known of it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .elementwise import Tree, cone
from .graph import PLACES, Graph, Node
from .kinds import solve_operands
from .places import Marks
from .primitives import of
from .steps import Fact


class Known:
    """What is known of the values of a graph; grows node by node.

    Attributes:
      graph: the graph.
      nodes: those entered so far, in order.
      facts: by value number.
      producer: index of the node that makes a value.
      insides: what is known inside of calls that are elementwise functions of one live value, by
        index.
      infinite: constants that are infinite somewhere, as the program itself says.
      discrete: whether what is discrete counts by its value: rounding, signs, masks are live.
      marks: places that are explained.
      by_dependence, by_liveness: dominators by elementwise operations; see :class:`Tree`.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[Fact],
        names: Any,
        discrete: bool = False,
        marks: Marks | None = None,
    ):
        """Knows constants and inputs."""
        self.graph, self.discrete = graph, discrete
        self.marks = marks or Marks((), False)
        self.nodes: list[Node] = []
        self.facts: dict[int, Fact] = {}
        self.producer: dict[int, int] = {}
        self.insides: dict[int, Known] = {}
        self.infinite: set[int] = set()
        self.by_dependence, self.by_liveness = Tree(), Tree()
        self.names = names
        self._call_sizes: Counter[int] | None = None
        for value, content in graph.constants.items():
            self.constant(value, content)
        for value, fact in zip(graph.inputs, inputs, strict=True):
            self.facts[value] = fact
            self.by_dependence.root(value)
            self.by_liveness.root(value)

    def constant(self, value: int, content: Any) -> None:
        """Enters a constant. Larger ones may be tracers and are not looked at."""
        number = np.ndim(content) == 0 and isinstance(
            content, int | float | np.generic | np.ndarray
        )
        number = number and not np.iscomplexobj(content)
        if number and np.isinf(np.asarray(content, float)):
            self.infinite.add(value)
        self.facts[value] = Fact(
            nonneg=number and bool(np.asarray(content) >= 0),
            made=value in self.graph.literals,
            origin=self.names.get(id(content), ()),
            data=self.marks.starts and self.marks.is_data(content),
        )

    def enter(self, node: Node, results: Sequence[Fact], inside: Known | None = None) -> int:
        """Enters the next node and what is known of its results; returns its index.

        Args:
          node: the node.
          results: facts.
          inside: of a call that is an elementwise function what is known of its body.
        """
        index = len(self.nodes)
        self.nodes.append(node)
        if inside is not None:
            self.insides[index] = inside
        spreads = of(node.name).linear or of(node.name).bilinear
        for value, fact in zip(node.results, results, strict=True):
            self.facts[value] = fact
            self.producer[value] = index
            if spreads and not fact.depends and not self.infinite.isdisjoint(node.operands):
                self.infinite.add(value)
        for tree, relation in ((self.by_dependence, "depends"), (self.by_liveness, "live")):
            above = [v for v in node.operands if getattr(self.facts[v], relation)]
            if above and self.is_elementwise(index, above):
                tree.grow(node.results[0], above)
            else:
                for value in node.results:
                    tree.root(value)
        return index

    def is_elementwise(self, index: int, operands: Iterable[int]) -> bool:
        """Tells whether node ``index`` is elementwise in ``operands``, none of them broadcast."""
        node = self.nodes[index]
        row = of(node.name)
        known = row.elementwise or row.identity or index in self.insides
        if not known or len(node.results) != 1:
            return False
        shape = self.shape(node.results[0])
        return all(self.shape(value) == shape for value in operands)

    @functools.cached_property
    def mixes_layouts(self) -> bool:
        """Whether some of the graph is computed on rows in memory, and some on columns."""
        return {"rows", "columns"} <= {of(node.name).laid_out for node in self.graph.nodes}

    def node(self, value: int) -> Node | None:
        """The node that made ``value``; None for inputs and constants."""
        index = self.producer.get(value)
        return None if index is None else self.nodes[index]

    def call_size(self, number: int) -> int:
        """How many nodes that depend on an explained input an unfolded call has."""
        if self._call_sizes is None:
            self._call_sizes = Counter(
                number
                for node in self.nodes
                if node.name not in PLACES
                and any(self.facts[value].depends for value in node.results)
                for _, number, _ in node.calls
            )
        return self._call_sizes[number]

    def live(self, node: Node) -> list[int]:
        """Positions of the live operands of ``node`` that its results depend on."""
        positions: Iterable[int] = range(len(node.operands))
        row = of(node.name)
        if row.solves is not None:
            positions = chain(*solve_operands(node.eqn))
        if node.stands_in:
            positions = (1,)
        return [k for k in positions if self.facts[node.operands[k]].live]

    def shape(self, value: int) -> tuple[int, ...] | None:
        """Shape of ``value``; None for what has none (tokens, keys)."""
        return getattr(self.graph.avals[value], "shape", None)

    def shapes(self, values: Iterable[int]) -> tuple[str, ...]:
        """Shapes and dtypes for people: ``f32[2,8]``."""
        return tuple(self.graph.avals[v].str_short(short_dtypes=True) for v in values)

    def size(self, value: int) -> int:
        """How many elements ``value`` has."""
        return math.prod(self.shape(value) or ())

    def is_float(self, value: int) -> bool:
        """Tells whether ``value`` is of floating point numbers, real or complex."""
        return jnp.issubdtype(getattr(self.graph.avals[value], "dtype", jnp.int32), jnp.inexact)

    def literal(self, value: int) -> Any:
        """The number that all elements of a value are known to be, else None.

        Only what the program itself says is known: a number that is closed over may be traced by an
        outer transformation, now or the next time.
        """
        while value not in self.graph.constants:
            node = self.node(value)
            if node is None or len(node.operands) != 1 or not of(node.name).moves:
                return None
            if of(node.name).fills:
                return None
            value = node.operands[0]
        content = self.graph.constants[value]
        if _compat.is_tracer(content) or isinstance(content, jax.Array) or np.ndim(content) != 0:
            return None
        return content

    def is_real(self, value: int) -> bool:
        """Tells whether ``value`` is of real numbers."""
        return not jnp.issubdtype(self.graph.avals[value].dtype, jnp.complexfloating)

    def live_above(self, value: int) -> int | None:
        """The nearest live value of which ``value`` is an elementwise function."""
        found: int | None = value
        while found is not None and not self.facts[found].live:
            found = self.by_dependence.parent(found) if found in self.by_dependence.places else None
        return found

    def is_same(self, node: Node) -> bool:
        """Tells whether a node gives what it reads, value for value."""
        row = of(node.name)
        if not row.identity or row.parallel and len(node.operands) > 1:
            return False
        if node.name != "convert_element_type":
            return True
        return all(self.is_float(value) for value in (*node.operands, *node.results))

    # ---------------------------------------------------------------------- elementwise functions

    def region(self, end: int, start: int) -> tuple[int, ...] | None:
        """Nodes that make the result of node ``end`` of the value ``start``, element by element.

        Values that are no elementwise function of ``start`` are constants of the region (a mask
        made by ``argmax``).
        """
        (value,) = self.nodes[end].results
        if self.by_dependence.is_large(value, start) or self.by_liveness.is_large(value, start):
            return None
        return cone(end, start, self.producer, _Inside(self, start))

    def meeting(self, index: int) -> int | None:
        """The value where the paths that meet in node ``index`` have split, if they have."""
        node = self.nodes[index]
        dependent = [v for v in node.operands if self.facts[v].depends]
        if len(dependent) < 2:
            return None
        live = [v for v in dependent if self.facts[v].live]
        for tree, operands in ((self.by_dependence, dependent), (self.by_liveness, live)):
            if operands and self.is_elementwise(index, operands):
                start = tree.common(operands)
                if start is not None and self.facts[start].live:
                    return start
        return None


class _Inside:
    """For a node the operands that are elementwise functions of a value, without that itself."""

    def __init__(self, known: Known, start: int):
        self.known, self.start = known, start

    def __call__(self, index: int) -> list[int]:
        known, start = self.known, self.start
        return [
            value
            for value in dict.fromkeys(known.nodes[index].operands)
            if value != start
            and known.facts[value].depends
            and (
                known.by_dependence.is_below(value, start)
                or known.by_liveness.is_below(value, start)
            )
        ]
