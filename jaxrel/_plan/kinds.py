"""The kind of a step of one node: its row in the table, and a count of live operands."""

from __future__ import annotations

from typing import Any

from .graph import Node
from .primitives import ALL, of


def kind_of(node: Node, live: list[int]) -> tuple[str, str]:
    """Returns kind and variant of a node with these live operand positions (at least one)."""
    name, row, both = node.name, of(node.name), len(live) > 1
    if row.control:
        return "control", name
    if row.bilinear:
        if both:
            return "product", ""
        return ("matmul", row.contraction) if row.contraction else ("linear", "")
    if row.elementwise and row.linear == (ALL,) and row.parity == 0 and not row.moves:
        return ("sum" if both and name != "select_n" else "linear"), ""
    if name == "div":
        return ({0: "linear", 1: "nonlinearity"}[live[0]] if not both else "quotient"), ""
    if row.linear == (ALL,):
        return "linear", ""
    if row.solves is not None:
        _, rhs = solve_operands(node.eqn)
        return ("linear", "") if live[0] in rhs else ("other", "solve")
    if name == "linear_call":
        params = node.eqn.params
        residuals = params["num_callee_consts"] + params["num_res"]
        return ("linear" if live[0] >= residuals else "other"), ""
    if (name == "scatter-mul" and not both) or (name == "polynomial" and 0 not in live):
        return "linear", ""
    if row.linear and set(live) <= set(row.linear):
        return "linear", ""
    if row.picks is not None:
        return "maximum", row.picks
    if name in ("max", "min"):
        return ("maximum" if both else "nonlinearity"), ""
    if row.unary or (row.elementwise and not both):
        return "nonlinearity", ""
    if row.elementwise:
        return "other", "elementwise"
    if row.factors:
        return "other", "polynomial"
    return "other", "decomposition" if row.decomposes else ""


def solve_operands(eqn: Any) -> tuple[range, range]:
    """Positions of the operands that make A, and of those that make b, in A y = b.

    The other operands of ``custom_linear_solve`` help to find y (a factorisation of A, say); the
    result does not depend on them.
    """
    b = of(eqn.primitive.name).solves
    if b != ALL:
        assert b is not None
        return range(b), range(b, b + 1)
    lengths = eqn.params["const_lengths"]
    return range(lengths.matvec), range(sum(lengths), len(eqn.invars))
