"""Elementwise functions of one value: where their paths split, and where they meet again.

A *join* is a node where paths that split from one value meet: ``x * sigmoid(x)``,
``where(x > 0, x, a * expm1(x))``, gelu. If everything between the nearest common ancestor and the
meeting point is elementwise, the whole is one function of that ancestor.

The ancestor is found by dominators. Values come in topological order, so a tree of immediate
dominators grows as they come (Cooper, Harvey and Kennedy 2001), in which every edge is an
elementwise operation by construction: what is made in any other way is a root. Ancestors are looked
up by jump pointers (Myers 1983), so a walk takes as many steps as its length has digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

LARGEST = 128
"""More nodes than this are no activation function anybody has written."""


class _Place(NamedTuple):
    parent: int
    depth: int
    jump: int
    least: int
    """At least so many operations lie between the parent and the value."""


class Tree:
    """Immediate dominators by elementwise operations.

    Every value has a place; those made in another way are roots, whose parent is themselves.
    """

    def __init__(self):
        """Empty."""
        self.places: dict[int, _Place] = {}

    def root(self, value: int) -> None:
        """Enters a value that no elementwise operation makes."""
        self.places[value] = _Place(value, 0, value, 0)

    def grow(self, value: int, operands: Sequence[int]) -> None:
        """Enters a value made elementwise of ``operands``."""
        meet = self.common(operands)
        if meet is None:
            self.root(value)
            return
        above = self.places[meet]
        further = self.places[above.jump]
        even = above.depth - further.depth == further.depth - self.places[further.jump].depth
        jump = further.jump if even else meet
        beside = (self.places[v] for v in operands if v != meet)
        least = 1 + max((place.least for place in beside if place.parent == meet), default=0)
        self.places[value] = _Place(meet, above.depth + 1, jump, least)

    def common(self, values: Sequence[int]) -> int | None:
        """The nearest value of which all ``values`` are elementwise functions, if there is one."""
        meet = values[0]
        for value in values[1:]:
            found = self._meet(meet, value)
            if found is None:
                return None
            meet = found
        return meet

    def is_large(self, value: int, above: int) -> bool:
        """Tells whether more lies between two values than is looked at."""
        place = self.places[value]
        return place.parent == above and place.least > LARGEST

    def parent(self, value: int) -> int | None:
        """The next value above; None for a root."""
        parent = self.places[value].parent
        return None if parent == value else parent

    def is_below(self, value: int, above: int) -> bool:
        """Tells whether ``value`` is an elementwise function of ``above``, or that itself."""
        if value not in self.places or above not in self.places:
            return False
        return self._lift(value, self.places[above].depth) == above

    def _lift(self, value: int, depth: int) -> int:
        places = self.places
        while places[value].depth > depth:
            jump = places[value].jump
            value = jump if places[jump].depth >= depth else places[value].parent
        return value

    def _meet(self, a: int, b: int) -> int | None:
        places = self.places
        depth = min(places[a].depth, places[b].depth)
        a, b = self._lift(a, depth), self._lift(b, depth)
        while a != b:
            if places[a].depth == 0:
                return None
            over_a, over_b = places[a].jump, places[b].jump
            a, b = (places[a].parent, places[b].parent) if over_a == over_b else (over_a, over_b)
        return a


def cone(
    end: int, start: int, producer: dict[int, int], operands: Callable[[int], Iterable[int]]
) -> tuple[int, ...] | None:
    """Nodes on the ways from the value ``start`` to node ``end``, in order.

    Args:
      end: a node.
      start: a value.
      producer: nodes by the values they make.
      operands: for each node the operands that are not constants of the function.

    Returns:
      Indices of nodes; None if there are more than :data:`LARGEST`.
    """
    found, stack = {end}, [end]
    while stack:
        for value in operands(stack.pop()):
            index = producer.get(value)
            if value != start and index is not None and index not in found:
                found.add(index)
                stack.append(index)
        if len(found) > LARGEST:
            return None
    return tuple(sorted(found))
