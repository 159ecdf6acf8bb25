"""Elementwise functions of one live value that are written as several operations.

A *join* is a node where paths that split from one value meet again: ``x * sigmoid(x)``,
``where(x > 0, x, a * expm1(x))``, gelu. If everything between the nearest common ancestor and the
meeting point is elementwise, the whole is one nonlinearity. A *chain* is the same without a split,
and is only taken for one function where its last part is singular at 0 and would make no sense
alone: ``1 / (1 + exp(-x))``, ``log(1 + exp(x))``.
"""

from __future__ import annotations

import math
from typing import Literal

from .graph import Node
from .primitives import ACTIVATIONS, SINGULAR_AT_ZERO
from .steps import Group
from .view import ROOT, GraphView

_LINEAR_IN_JOIN = frozenset(
    "add sub neg convert_element_type copy copy_p add_any reduce_precision name".split()
)


def find_joins(view: GraphView) -> dict[int, Group]:
    """Finds the nonlinearities made of several nodes, by the index of their last node.

    Joins within joins are found too; the one that ends last and holds the others is used.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        dependent = [v for v in node.operands if view.facts[v].depends]
        if not any(view.facts[v].live for v in node.results):
            continue
        if len(dependent) >= 2:
            group = _join(view, index, dependent)
        elif _is_singular(view, node) and dependent:
            group = _chain(view, index, dependent[0])
        else:
            group = None
        if group is not None:
            groups[index] = group
    return {**_activations(view), **groups}


def _activations(view: GraphView) -> dict[int, Group]:
    """Calls of known activation functions that are elementwise in one live value."""
    groups: dict[int, Group] = {}
    for call, operands, results in view.graph.calls.values():
        if call.name not in ACTIVATIONS or len(results) != 1 or results[0] not in view.producer:
            continue
        dependent = {v for v in operands if view.facts[v].depends}
        if len(dependent) != 1 or not view.facts[results[0]].live:
            continue
        (start,), index = dependent, view.producer[results[0]]
        region = view.elementwise_region(index, start)
        if region is not None and view.facts[start].live:
            groups[index] = _nonlinearity(view, region, start)
    return groups


def _join(view: GraphView, index: int, dependent: list[int]) -> Group | None:
    for relation in ("depends", "live"):
        start = view.common_ancestor(dependent, relation) if dependent else ROOT
        if start == ROOT or not view.facts[start].live:
            continue
        region = view.elementwise_region(index, start)
        if region is not None:
            return None if _is_linear(view, region, start) else _nonlinearity(view, region, start)
        dependent = [v for v in dependent if view.facts[v].live]
    return None


def _is_singular(view: GraphView, node: Node) -> bool:
    """Tells whether a function of one live value has a pole at 0 (or is half of a softplus)."""
    if node.name in SINGULAR_AT_ZERO:
        return True
    if node.name == "integer_pow":
        return node.eqn.params["y"] < 0
    return node.name == "div" and view.live(node) == [1]


def _has_numbers_only(view: GraphView, region: tuple[int, ...]) -> bool:
    """Tells whether the constants of a region are single numbers: a bias belongs to its layer."""
    values = {v for index in region for v in view.graph.nodes[index].operands}
    constants = (v for v in values if not view.facts[v].depends)
    return all(math.prod(view.shape(v) or ()) == 1 for v in constants)


def _chain(view: GraphView, index: int, value: int) -> Group | None:
    """The longest elementwise region that ends in node ``index``, if it has more than one node."""
    best: tuple[tuple[int, ...], int] | None = None
    tree = view.dependence_dominator
    while value != ROOT and view.facts[value].live:
        region = view.elementwise_region(index, value)
        if region is None or not _has_numbers_only(view, region):
            break
        best = (region, value)
        value = tree[value][0]
    if best is None or len(best[0]) == 1:
        return None
    return _nonlinearity(view, *best)


def _is_linear(view: GraphView, region: tuple[int, ...], start: int) -> bool:
    """Tells whether every node of a join is linear: ``a x + b x`` is no nonlinearity."""
    inside = {start, *(view.graph.nodes[index].results[0] for index in region)}
    for index in region:
        node = view.graph.nodes[index]
        dependent = [v for v in node.operands if v in inside]
        scaling = node.name in ("mul", "select_n") and len(dependent) == 1
        scaling = scaling or (node.name == "div" and dependent == [node.operands[0]])
        if not (scaling or node.name in _LINEAR_IN_JOIN):
            return False
    return True


def _nonlinearity(view: GraphView, region: tuple[int, ...], start: int) -> Group:
    homogeneous = is_homogeneous(view, region, start)
    factor = None if homogeneous else _linear_read(view, region, start)
    return Group("nonlinearity", region, (start,), homogeneous=homogeneous, linear_read=factor)


def _linear_read(view: GraphView, region: tuple[int, ...], start: int) -> tuple[int, int] | None:
    """Finds a place where f reads x and is linear in what it reads there: f(x) = x g(x).

    gelu, silu, mish, hard_swish are all of this form. With 1 read in this place f gives
    g(x) = f(x) / x without a division, at x = 0 too.

    Returns:
      Position of the node within the region, and of the operand within the node.
    """
    index = region[-1]
    while True:
        node = view.graph.nodes[index]
        if node.name not in _SCALES:
            return None
        reads = range(1 if node.name != "mul" else 2)
        for k in reads:
            if node.operands[k] == start:
                return region.index(index), k
        inside = [view.producer.get(node.operands[k], -1) for k in reads]
        # at most one factor of a product leads on to a linear read in any activation we know
        following = [i for i in inside if i in region and _leads_to(view, i, start)]
        if not following:
            return None
        index = following[0]


_SCALES = frozenset("mul div neg convert_element_type copy copy_p".split())


def _leads_to(view: GraphView, index: int, start: int) -> bool:
    """Tells whether scaling operations alone lead from node ``index`` back to ``start``."""
    node = view.graph.nodes[index]
    if node.name not in _SCALES:
        return False
    reads = node.operands if node.name == "mul" else node.operands[:1]
    makers = (view.producer.get(value) for value in reads)
    return start in reads or any(i is not None and _leads_to(view, i, start) for i in makers)


def is_homogeneous(view: GraphView, region: tuple[int, ...], start: int) -> bool:
    """Tells whether a region is positively homogeneous: f(cx) = c f(x) for every c > 0.

    Then f(x) / x = f'(x) wherever x != 0 (Euler), and the slope rule is the gradient. Each value is
    told by what becomes of it when x is scaled.
    """
    found: dict[int, Scaling] = {start: "scales"}
    for index in region:
        node = view.graph.nodes[index]
        if index in view.elementwise_calls:
            return False
        found[node.results[0]] = _scaling(
            node, [_of_operand(view, v, found) for v in node.operands]
        )
    return found[view.graph.nodes[region[-1]].results[0]] == "scales"


Scaling = Literal["scales", "stays", "zero"] | None
"""Degree 1, degree 0 (signs, comparisons with 0, constants), 0 itself (of any degree), or none."""


def _scaling(node: Node, operands: list[Scaling]) -> Scaling:
    def all_scale(values: list[Scaling]) -> bool:
        return "scales" in values and set(values) <= {"scales", "zero"}

    match node.name:
        case "abs" | "neg" | "convert_element_type" | "copy" | "copy_p" | "name":
            return operands[0]
        case "max" | "min" | "add" | "sub" | "add_any":
            return "scales" if all_scale(operands) else None
        case "mul":
            return "scales" if sorted(map(str, operands)) == ["scales", "stays"] else None
        case "div":
            return "scales" if operands == ["scales", "stays"] else None
        case "select_n":
            return "scales" if operands[0] == "stays" and all_scale(operands[1:]) else None
        case "gt" | "ge" | "lt" | "le" | "eq" | "ne" | "sign":
            return "stays" if all_scale(operands) else None
        case _:
            return None


def _of_operand(view: GraphView, value: int, found: dict[int, Scaling]) -> Scaling:
    if value in found:
        return found[value]
    content = view.literal(value)
    return "zero" if content is not None and content == 0 else "stays"
