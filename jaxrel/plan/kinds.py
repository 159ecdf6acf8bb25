"""The kind of a step of one node: a table look-up and a count of live operands."""

from __future__ import annotations

from .graph import Node
from .primitives import (
    CONTROL,
    ELEMENTWISE,
    LINEAR,
    LINEAR_IN_ONE,
    MATMUL,
    MAXIMUM,
    SELECTION,
    SUM,
    UNARY,
)


def kind_of(node: Node, live: list[int]) -> tuple[str, str]:
    """Returns kind and variant of a node with these live operand positions (at least one)."""
    name, both = node.name, len(live) > 1
    if name in CONTROL:
        return "control", name
    if name in MATMUL:
        return ("product", "") if both else ("matmul", MATMUL[name])
    if name == "mul":
        return ("product", "") if both else ("linear", "")
    if name in SUM:
        return ("sum", "") if both else ("linear", "")
    if name == "div":
        return ({0: "linear", 1: "nonlinearity"}[live[0]] if not both else "quotient"), ""
    if name in LINEAR:
        return "linear", ""
    if name in LINEAR_IN_ONE:
        return ("linear", "") if live == [LINEAR_IN_ONE[name]] else ("other", "")
    if name == "custom_linear_solve":
        matrices = sum(node.eqn.params["const_lengths"])
        return ("linear", "") if live[0] >= matrices else ("other", "")
    if name in MAXIMUM:
        return "maximum", "selection" if name in SELECTION else ""
    if name in ("max", "min"):
        return ("maximum" if both else "nonlinearity"), ""
    if name in UNARY or (name in ELEMENTWISE and not both):
        return "nonlinearity", ""
    return "other", ""
