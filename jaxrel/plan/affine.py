"""A matmul together with the constant affine operations that follow it: one map z = W x + b.

The bias add, running-average BatchNorm, per-channel scales, casts and reshapes between them all
belong to the same affine map, so nothing has to be folded by hand before a rule looks at z.
"""

from __future__ import annotations

from .primitives import AFFINE, MATMUL
from .steps import Group
from .view import GraphView

_SHAPE_ONLY = frozenset(
    "reshape squeeze expand_dims transpose broadcast_in_dim convert_element_type copy copy_p "
    "reduce_precision".split()
)


def find_affine(view: GraphView, taken: set[int]) -> dict[int, Group]:
    """Finds each matmul with one live operand and what follows it, by the index of the last node.

    The chain goes on while the value has a single consumer that is affine in it, and ends with its
    last arithmetic operation.

    Args:
      view: the graph.
      taken: nodes that belong to other groups.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        live = view.live(node)
        if node.name not in MATMUL or len(live) != 1:
            continue
        chain, arithmetic = [index], 1
        while (following := _next(view, chain[-1], taken)) is not None:
            chain.append(following)
            if view.graph.nodes[following].name in AFFINE:
                arithmetic = len(chain)
        chain = chain[:arithmetic]
        entry = (node.operands[live[0]],)
        groups[chain[-1]] = Group("matmul", tuple(chain), entry, MATMUL[node.name])
    return groups


def _next(view: GraphView, index: int, taken: set[int]) -> int | None:
    value = view.graph.nodes[index].results[0]
    if view.uses[value] != 1 or value not in view.consumer:
        return None
    following = view.consumer[value]
    node = view.graph.nodes[following]
    affine = node.name in AFFINE and len(view.live(node)) == 1 and not _divides(node, value)
    affine = affine or node.name in _SHAPE_ONLY
    return following if affine and following not in taken else None


def _divides(node, value: int) -> bool:
    return node.name == "div" and node.operands[1] == value
