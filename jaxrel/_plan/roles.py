"""What a value is to a product it will meet: weights, a gate, or neither.

Weights are shares of something (attention), or linear combinations of shares, masked or scaled;
they stay weights until the dimension along which they add up is summed over. A gate is an
elementwise nonlinear function of something; moving and scaling does not change that, a layer does.
"""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Node
from .known import Known
from .primitives import of
from .steps import Role

_SIGMOIDS = ("sigmoid", "hard_sigmoid")


def role_of(known: Known, index: int) -> Role | None:
    """The role of the result of a node of one result, by those of its live operands."""
    node = known.nodes[index]
    live = known.live(node)
    operands = [node.operands[k] for k in live]
    roles = [known.facts[v].role for v in operands]
    row = of(node.name)
    if known.meeting(index) is not None:
        whole = len(live) == sum(known.facts[v].depends for v in node.operands)
        same = next((r for r in roles if r is not None), None)
        return same if whole and row.linear else _function(node)
    if len(live) == 1 and (row.linear or row.identity or row.bilinear):
        return _carried(known, node, live[0], roles[0])
    if row.linear and roles and all(r is not None and r.name == "weights" for r in roles):
        return Role("weights", _common([r.axes for r in roles if r is not None]))
    alone = len(set(operands)) == 1 and known.is_elementwise(index, operands)
    return _function(node) if alone else None


def _function(node: Node) -> Role:
    sigmoid = node.name == "logistic" or any(call.name in _SIGMOIDS for call in node.calls)
    return Role("sigmoid" if sigmoid else "nonlinear")


def _common(axes: Sequence[frozenset[int] | None]) -> frozenset[int] | None:
    told = [a for a in axes if a is not None]
    return frozenset.intersection(*told) if told else None


def _carried(known: Known, node: Node, live: int, role: Role | None) -> Role | None:
    """The role after a linear operation with constants."""
    row = of(node.name)
    if role is None:
        return None
    if node.name == "dot_general":
        return _contracted(known, node, live, role)
    if row.contraction or (row.bilinear and not row.elementwise):
        return None
    if row.sums:
        if role.name != "weights" or row.over_mesh or role.axes is None:
            return None
        axes = node.eqn.params["axes"]
        left = [k for k in range(len(known.shape(node.operands[live]) or ())) if k not in axes]
        return _weights(left.index(k) for k in role.axes if k in left)
    if not (row.moves or row.elementwise):
        return None
    if role.axes is None:
        return role
    if node.name == "transpose":
        permutation = node.eqn.params["permutation"]
        return _weights(permutation.index(k) for k in role.axes)
    if node.name == "broadcast_in_dim":
        places = node.eqn.params["broadcast_dimensions"]
        return _weights(places[k] for k in role.axes)
    before, after = known.shape(node.operands[live]), known.shape(node.results[0])
    if before == after or row.elementwise:
        return role
    if row.reshapes:
        places = _reshaped(before or (), after or ())
        return _weights(place for k in role.axes for place in places.get(k, ()))
    return Role(role.name, role.axes if len(before or ()) == len(after or ()) else None)


def _weights(axes) -> Role | None:
    axes = frozenset(axes)
    return Role("weights", axes) if axes else None


def _contracted(known: Known, node: Node, live: int, role: Role) -> Role | None:
    """After a contraction with a constant; without one it is a scale."""
    contracted, batch = node.eqn.params["dimension_numbers"]
    own, own_batch = contracted[live], batch[live]
    if not own and role.name != "weights":
        return role
    if role.name != "weights" or (role.axes is None and own):
        return None
    if role.axes is None:
        return role
    rank = len(known.shape(node.operands[live]) or ())
    free = [k for k in range(rank) if k not in own and k not in own_batch]
    result = len(known.shape(node.results[0]) or ())
    start = len(own_batch) if live == 0 else result - len(free)
    places = {dim: k for k, dim in enumerate(own_batch)}
    places |= {dim: start + k for k, dim in enumerate(free)}
    return _weights(places[k] for k in role.axes if k in places)


def _reshaped(before: Sequence[int], after: Sequence[int]) -> dict[int, list[int]]:
    """For each dimension those that it becomes part of; groups of equal size side by side."""
    places: dict[int, list[int]] = {}
    i = j = 0
    while i < len(before) or j < len(after):
        first_i, first_j = i, j
        a = b = 1
        while True:
            if i < len(before) and (a <= b or j >= len(after)):
                a, i = a * before[i], i + 1
            elif j < len(after):
                b, j = b * after[j], j + 1
            if a == b or (i >= len(before) and j >= len(after)):
                break
        for k in range(first_i, i):
            places[k] = list(range(first_j, j))
    return places


def moved(role: Role | None, by: int) -> Role | None:
    """The role where leading dimensions were added, or taken away."""
    if role is None or role.axes is None or not by:
        return role
    return _weights(k + by for k in role.axes if k + by >= 0)


def is_weights(role: Role | None, contracted: Sequence[int] | None) -> bool:
    """Tells whether a value is weights of what it meets.

    Args:
      role: of the value.
      contracted: its dimensions that are summed over; None: it meets element by element.
    """
    if role is None or role.name != "weights":
        return False
    return contracted is None or role.axes is None or bool(role.axes.intersection(contracted))
