"""The kind of a step of one node: a table look-up and a count of live operands."""

from __future__ import annotations

from typing import Any

from .graph import Node
from .primitives import (
    CONTROL,
    DECOMPOSITIONS,
    ELEMENTWISE,
    LINEAR,
    LINEAR_IN_ONE,
    MATMUL,
    MAXIMUM,
    POLYNOMIAL,
    SCATTER_MAX,
    SELECTION,
    SOLVES,
    SPARSE,
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
    if name == "mul" or name in SPARSE:
        return ("product", "") if both else ("linear", "")
    if name in SUM:
        return ("sum", "") if both else ("linear", "")
    if name == "div":
        return ({0: "linear", 1: "nonlinearity"}[live[0]] if not both else "quotient"), ""
    if name in LINEAR:
        return "linear", ""
    if name in SOLVES:
        _, rhs = solve_operands(node.eqn)
        return ("linear", "") if live[0] in rhs else ("other", "solve")
    if name == "linear_call":
        params = node.eqn.params
        residuals = params["num_callee_consts"] + params["num_res"]
        return ("linear" if live[0] >= residuals else "other"), ""
    if (name == "scatter-mul" and not both) or (name == "spsolve" and live == [3]):
        return "linear", ""
    if name == "polynomial" and 0 not in live:
        return "linear", ""
    if name in MAXIMUM:
        variant = "selection" if name in SELECTION else ""
        return "maximum", "scatter" if name in SCATTER_MAX else variant
    if name in ("max", "min"):
        return ("maximum" if both else "nonlinearity"), ""
    if name in UNARY or name == "sign" or (name in ELEMENTWISE and not both):
        return "nonlinearity", ""
    for variant, names in _VARIANTS.items():
        if name in names:
            return "other", variant
    return "other", ""


_VARIANTS = {
    "elementwise": ELEMENTWISE,
    "polynomial": POLYNOMIAL,
    "decomposition": DECOMPOSITIONS,
}


def solve_operands(eqn: Any) -> tuple[range, range]:
    """Positions of the operands that make A, and of those that make b, in A y = b.

    The other operands of ``custom_linear_solve`` help to find y (a factorisation of A, say); the
    result does not depend on them.
    """
    if eqn.primitive.name in LINEAR_IN_ONE:
        b = LINEAR_IN_ONE[eqn.primitive.name]
        return range(b), range(b, b + 1)
    lengths = eqn.params["const_lengths"]
    return range(lengths.matvec), range(sum(lengths), len(eqn.invars))
