"""A matmul together with the constant affine operations that follow it: one map z = W x + b.

The bias add, running-average BatchNorm, per-channel scales and casts all belong to the same affine
map, so nothing has to be folded by hand before a rule looks at z, or at W and b.

Scales must be foldable into the weights: numbers, or constants that vary only along the dimensions
that come from the weights (channels). Anything else ends the step, and is a linear step after it.
"""

from __future__ import annotations

import math

from .graph import Node
from .primitives import AFFINE, MATMUL
from .steps import Group
from .view import GraphView

_SAME_SHAPE = frozenset("convert_element_type copy copy_p reduce_precision".split())
_RESHAPES = frozenset("reshape squeeze expand_dims broadcast_in_dim".split())


def find_affine(view: GraphView, taken: set[int], fold: bool = True) -> dict[int, Group]:
    """Finds each matmul with one live operand and what follows it, by the index of the last node.

    The chain goes on while the value has a single consumer that is affine in it, and ends with its
    last arithmetic operation.

    Args:
      view: the graph.
      taken: nodes that belong to other groups.
      fold: False: nothing but one bias add belongs to a matmul.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        live = view.live(node)
        if node.name not in MATMUL or len(live) != 1:
            continue
        channels: list[bool] | None = _channels(view, node, 1 - live[0])
        chain, arithmetic = [index], 1
        while (following := _next(view, chain[-1], taken)) is not None:
            value = view.graph.nodes[chain[-1]].results[0]
            channels, fits = _after(view, view.graph.nodes[following], value, channels)
            if not fits:
                break
            chain.append(following)
            name = view.graph.nodes[following].name
            if name in AFFINE:
                if not fold and (name != "add" or arithmetic > 1):
                    break
                arithmetic = len(chain)
        chain = chain[:arithmetic]
        entry = (node.operands[live[0]],)
        groups[chain[-1]] = Group("matmul", tuple(chain), entry, MATMUL[node.name])
    return groups


def _next(view: GraphView, index: int, taken: set[int]) -> int | None:
    """The only consumer of a node, if it may belong to the same affine map."""
    value = view.graph.nodes[index].results[0]
    if view.uses[value] != 1 or value not in view.consumer:
        return None
    following = view.consumer[value]
    node = view.graph.nodes[following]
    known = node.name in AFFINE | _SAME_SHAPE | _RESHAPES or node.name == "transpose"
    constant = sum(view.facts[v].depends for v in node.operands) == 1
    return following if known and constant and following not in taken else None


def _channels(view: GraphView, node: Node, weights: int) -> list[bool]:
    """For each dimension of a matmul's result whether it is one of the weights' own."""
    rank = len(view.shape(node.results[0]) or ())
    own = [False] * rank
    if node.name == "conv_general_dilated" and weights == 1:
        own[node.eqn.params["dimension_numbers"].out_spec[1]] = True
    elif node.name == "dot_general":
        contracted, batch = node.eqn.params["dimension_numbers"]
        shared = len(batch[0])
        free = [
            len(view.shape(value) or ()) - shared - len(contracted[k])
            for k, value in enumerate(node.operands)
        ]
        first = shared if weights == 0 else shared + free[0]
        for k in (*range(shared), *range(first, first + free[weights])):
            own[k] = True
    return own


def _after(
    view: GraphView, node: Node, value: int, channels: list[bool] | None
) -> tuple[list[bool] | None, bool]:
    """Follows the channel dimensions through a node; tells whether the node fits in the map."""
    if node.name in _SAME_SHAPE or node.name == "neg":
        return channels, channels is not None or node.name != "neg"
    if node.name in ("add", "sub"):
        return channels, view.shape(value) == view.shape(node.results[0])
    if node.name == "transpose":
        permutation = node.eqn.params["permutation"]
        return None if channels is None else [channels[k] for k in permutation], True
    if node.name in _RESHAPES:
        return None, True
    if channels is None or (node.name == "div" and node.operands[1] == value):
        return channels, False
    scale = node.operands[1 if node.operands[0] == value else 0]
    shape = view.shape(scale) or ()
    along = all(size == 1 or own for size, own in zip(shape, channels, strict=False))
    return channels, math.prod(shape) == 1 or (len(shape) == len(channels) and along)


def find_scales(view: GraphView, taken: set[int]) -> dict[int, Group]:
    """Finds runs of arithmetic with constants outside of matmuls: a BatchNorm on its own.

    Args:
      view: the graph.
      taken: nodes that belong to other groups.
    """
    groups: dict[int, Group] = {}
    seen = set(taken)
    for index, node in enumerate(view.graph.nodes):
        dependent = [v for v in node.operands if view.facts[v].depends]
        if index in seen or not _is_scaling(node, dependent) or not view.live(node):
            continue
        chain = [index]
        while (following := _next(view, chain[-1], seen)) is not None:
            node = view.graph.nodes[following]
            value = view.graph.nodes[chain[-1]].results[0]
            if not _is_scaling(node, [value]):
                break
            chain.append(following)
        seen.update(chain)
        groups[chain[-1]] = Group("linear", tuple(chain), (dependent[0],), "affine")
    return groups


def _is_scaling(node: Node, dependent: list[int]) -> bool:
    if len(dependent) != 1 or node.name not in AFFINE:
        return False
    return node.name != "div" or node.operands[0] == dependent[0]


def find_pools(view: GraphView, taken: set[int]) -> dict[int, Group]:
    """Finds averages: a sum over an axis or a window and the constant division that follows it.

    Args:
      view: the graph.
      taken: nodes that belong to other groups.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        if node.name not in ("reduce_sum", "reduce_window_sum") or not view.live(node):
            continue
        following = _next(view, index, taken)
        value = node.results[0]
        if following is None:
            continue
        after = view.graph.nodes[following]
        divides = after.name == "div" and after.operands[0] == value
        if divides or after.name == "mul":
            entry = (node.operands[view.live(node)[0]],)
            groups[following] = Group("linear", (index, following), entry, "pool")
    return groups
