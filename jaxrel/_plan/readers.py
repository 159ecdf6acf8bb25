"""Who reads a value, on the way to what is explained.

A callback that prints a value, an auxiliary output, a branch that leads nowhere: none of them is a
reader. Looking at a value must not change its explanation.
"""

from __future__ import annotations

from collections.abc import Sequence

from .known import Known
from .primitives import of


class Readers:
    """Readers of every value of a graph.

    Args:
      known: the graph.
      goals: values that are explained.
    """

    def __init__(self, known: Known, goals: Sequence[int]):
        """Indexes the graph from its end."""
        self.by_value: dict[int, list[int]] = {value: [-1] for value in goals}
        """Indices of nodes; -1: it is explained itself."""
        for index in range(len(known.nodes) - 1, -1, -1):
            node = known.nodes[index]
            row = of(node.name)
            reads = range(len(node.operands)) if not node.stands_in else (1,)
            stores = row.state and bool(known.live(node))
            if row.observes or not (stores or any(v in self.by_value for v in node.results)):
                continue
            for k in reads:
                self.by_value.setdefault(node.operands[k], []).append(index)

    def only(self, value: int) -> int | None:
        """The node that alone reads ``value``, once; None if there is none."""
        found = self.by_value.get(value, [])
        return found[0] if len(found) == 1 and found[0] >= 0 else None
