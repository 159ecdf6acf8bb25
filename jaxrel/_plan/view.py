"""A graph with its facts, and the questions that patterns ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .graph import Graph, Node
from .kinds import solve_operands
from .primitives import JOINABLE, SOLVES
from .steps import Fact

ROOT = -1
"""What stands before all inputs: the dominator of values with no other in common."""


class GraphView:
    """Producers, consumers, dominators and elementwise regions of a graph.

    Attributes:
      graph, facts: as given.
      elementwise_calls: indices of custom-derivative calls that are elementwise in one value.
      call_sizes: how many nodes that depend on an explained input each unfolded call has.
    """

    def __init__(self, graph: Graph, facts: dict[int, Fact], elementwise_calls: Collection[int]):
        """Indexes ``graph``; one pass."""
        self.graph, self.facts = graph, facts
        self.elementwise_calls = frozenset(elementwise_calls)
        self.producer = {
            value: index for index, node in enumerate(graph.nodes) for value in node.results
        }
        self.uses = Counter(value for node in graph.nodes for value in node.operands)
        self.uses.update(graph.outputs)
        self.consumer: dict[int, int] = {}
        for index, node in enumerate(graph.nodes):
            self.consumer.update(dict.fromkeys(node.operands, index))
        self.call_sizes = Counter(
            number
            for node in graph.nodes
            if any(facts[value].depends for value in node.results)
            for _, number, _ in node.calls
        )
        self.dependence_dominator = self._dominators("depends")
        self.live_dominator = self._dominators("live")

    def node(self, value: int) -> Node | None:
        """The node that made ``value``; None for inputs and constants."""
        index = self.producer.get(value)
        return None if index is None else self.graph.nodes[index]

    def live(self, node: Node) -> list[int]:
        """Positions of the live operands of ``node`` that its results depend on."""
        positions: Iterable[int] = range(len(node.operands))
        if node.name in SOLVES:
            positions = chain(*solve_operands(node.eqn))
        return [k for k in positions if self.facts[node.operands[k]].live]

    def shape(self, value: int) -> tuple[int, ...] | None:
        """Shape of ``value``; None for what has none (tokens, keys)."""
        return getattr(self.graph.avals[value], "shape", None)

    def literal(self, value: int) -> Any:
        """The number a value is known to be, looking through broadcasts and casts; else None.

        A number that an outer transformation traces is not known.
        """
        while value not in self.graph.constants:
            node = self.node(value)
            if node is None or node.name not in ("broadcast_in_dim", "convert_element_type"):
                return None
            value = node.operands[0]
        content = self.graph.constants[value]
        if _compat.is_tracer(content):
            return None
        is_number = not jnp.issubdtype(jnp.result_type(content), jax.dtypes.extended)  # no key
        return content if is_number and getattr(content, "shape", ()) == () else None

    def _dominators(self, relation: str) -> dict[int, tuple[int, int]]:
        """Immediate dominator and depth of each value in the graph of one relation.

        Values come in topological order, so one pass suffices (Cooper, Harvey and Kennedy 2001).
        """
        tree: dict[int, tuple[int, int]] = {ROOT: (ROOT, 0)}
        for value in self.graph.inputs:
            tree[value] = (ROOT, 1)
        for node in self.graph.nodes:
            above = [v for v in node.operands if getattr(self.facts[v], relation)]
            if not above:
                continue
            meet = common(tree, above)
            for value in node.results:
                tree[value] = (meet, tree[meet][1] + 1)
        return tree

    def common_ancestor(self, values: Iterable[int], relation: str) -> int:
        """The nearest value through which every path to ``values`` leads, or ``ROOT``."""
        tree = self.dependence_dominator if relation == "depends" else self.live_dominator
        return common(tree, [v for v in values if getattr(self.facts[v], relation)])

    def elementwise_region(self, end: int, start: int) -> tuple[int, ...] | None:
        """Nodes that compute the result of node ``end`` elementwise from the value ``start``.

        Values that do not depend on ``start`` are constants of the region; so are values that
        depend on it, but neither elementwise nor differentiably (a mask made by ``argmax``).

        Returns:
          Node indices in order, or None where there is no such region.
        """
        region: dict[int, bool] = {}
        inside = self._collect(end, start, region)
        return tuple(sorted(i for i, member in region.items() if member)) if inside else None

    def _collect(self, index: int, start: int, region: dict[int, bool]) -> bool:
        if index in region:
            return region[index]
        node = self.graph.nodes[index]
        region[index] = False
        if len(region) > 128 or len(node.results) != 1:
            return False
        if node.name not in JOINABLE and index not in self.elementwise_calls:
            return False
        before = set(region)
        for value in node.operands:
            fact = self.facts[value]
            if not fact.depends:
                continue
            fits = self.shape(value) == self.shape(node.results[0])
            if value == start and fits:
                continue
            maker = self.producer.get(value)
            inside = fits and maker is not None and self._collect(maker, start, region)
            if not inside and (fact.live or value == start):
                for added in set(region) - before:
                    region[added] = False
                return False
        region[index] = True
        return True


def common(tree: dict[int, tuple[int, int]], values: list[int]) -> int:
    """Nearest common ancestor of ``values`` in a dominator tree of (parent, depth)."""
    meet = values[0]
    for value in values[1:]:
        a, b = meet, value
        while a != b:
            if tree[a][1] >= tree[b][1]:
                a = tree[a][0]
            else:
                b = tree[b][0]
        meet = a
    return meet
