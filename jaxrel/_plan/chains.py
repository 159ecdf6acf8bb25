"""Chains of elementwise functions: what a rule that rectifies has to see as a whole.

``exp(-relu(z))`` is one activation written as two, and ``-min(-z, 0)`` is relu. Most rules need not
know: slopes multiply along a chain, and a minus sign before comes back after it. But what stops
negative multipliers must do so once for each chain, where it begins, and in the sign of its value:
a minus sign before the chain is the layer's own, unless another stands after it.
"""

from __future__ import annotations

from .functions import is_linear, is_linear_in
from .graph import Node
from .known import Known
from .primitives import of
from .readers import Readers


def beginning(known: Known, readers: Readers, start: int, end: int) -> int:
    """Where a nonlinearity stands in a chain of elementwise functions.

    Args:
      known: the graph.
      readers: who reads what.
      start, end: the values that it reads and makes.

    Returns:
      1: at its beginning. -1: likewise, and the chain is mirrored: -f(-x). 0: another comes before.
    """
    sign = 1
    while (above := known.by_dependence.parent(start)) is not None and known.facts[above].live:
        nodes = known.region(known.producer[start], above)
        if nodes is None:
            break
        if len(nodes) == 1:
            affine = _coefficient(known, known.nodes[nodes[0]], above)
        else:
            affine = 0 if is_linear(known, nodes, above) else None
        if affine is None:
            return 0
        if affine == 0:  # a layer of its own
            break
        sign, start = sign * affine, above
    return -1 if sign < 0 and _sign_after(known, readers, end) < 0 else 1


def _sign_after(known: Known, readers: Readers, value: int) -> int:
    """The sign with which the result of a chain is handed on, from one of its values."""
    sign = 1
    while True:
        found = readers.by_value.get(value, [])
        nodes = [known.nodes[index] for index in found if index >= 0]
        if not any(known.by_dependence.is_below(node.results[0], value) for node in nodes):
            return sign
        if len(found) > 1:
            return 1
        affine = _coefficient(known, nodes[0], value)
        if affine == 0:
            return sign
        sign = 1 if affine is None else sign * affine
        (value,) = nodes[0].results


def _coefficient(known: Known, node: Node, value: int) -> int | None:
    """The sign of the factor of a value in an affine node; 0: not known; None: it is not affine."""
    row = of(node.name)
    positions = [k for k, v in enumerate(node.operands) if v == value]
    others = [v for v in node.operands if v != value]
    if any(known.facts[v].depends for v in others) or not is_linear_in(known, node, positions):
        return None
    if row.bilinear or node.name == "div":
        scale = known.literal(others[0])
        return 0 if scale is None or scale != scale or not scale else (1 if scale > 0 else -1)
    if row.identity or row.signed:
        return -1 if positions[0] in row.negated else 1
    return 0
