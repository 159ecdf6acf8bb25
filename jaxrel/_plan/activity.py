"""Facts about values, found in one pass from the inputs to the outputs.

Liveness ends where differentiation ends: at integers, comparisons, ``argmax``, ``stop_gradient``,
``floor``, ``sign``. *Dependence* goes on there: the condition of ``where(x > 0, x, 0)`` is not
live, yet it must be computed again when the function is evaluated at another x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .graph import Graph, Node, Path
from .primitives import (
    AFFINE,
    CONTROL,
    PARALLEL,
    REDUCE_MAX,
    STRUCTURAL,
    WINDOW_MAX,
    ZERO_DERIVATIVE,
)
from .steps import CONSTANT, Fact

Nest = Callable[[Node, Sequence[Fact]], tuple[tuple[Any, ...], Sequence[Fact]]]
"""Plans what a control node holds: operand facts -> (nested plans, result facts)."""

_ALWAYS_NONNEG = frozenset("abs square exp exp2 logistic sqrt rsqrt erfc cosh".split())
_KEEPS_NONNEG = (
    STRUCTURAL
    | REDUCE_MAX
    | WINDOW_MAX
    | frozenset(
        "add mul div select_n reduce_sum cumsum reduce_window_sum add_any min pow expm1 log1p "
        "tanh sinh asinh atan erf cbrt dot_general conv_general_dilated scatter-add clamp sort "
        "integer_pow".split()
    )
) - {"reduce_window_min"}


def activity(
    graph: Graph, inputs: Sequence[Fact], nest: Nest, names: Mapping[int, Path]
) -> tuple[dict[int, Fact], dict[int, tuple[Any, ...]]]:
    """Finds the facts of every value of ``graph``.

    Args:
      graph: the flat jaxpr.
      inputs: facts of its arguments.
      nest: called for each control node that reads a dependent value.
      names: paths of parameter leaves by ``id``.

    Returns:
      Facts by value number, and the nested plans by index of their node.
    """
    facts = {
        value: _constant(content)._replace(origin=names.get(id(content), ()))
        for value, content in graph.constants.items()
    }
    facts.update(zip(graph.inputs, inputs, strict=True))
    bodies: dict[int, tuple[Any, ...]] = {}
    for index, node in enumerate(graph.nodes):
        operands = [facts[value] for value in node.operands]
        if node.name in CONTROL and any(fact.depends for fact in operands):
            bodies[index], results = nest(node, operands)
        else:
            floats = [_is_float(graph.avals[value]) for value in node.operands]
            if node.name in PARALLEL and len(operands) == len(node.results):
                pairs = zip(operands, floats, strict=True)
                results = [_result(node, [fact], [is_float]) for fact, is_float in pairs]
            else:
                results = [_result(node, operands, floats)] * len(node.results)
        for value, fact in zip(node.results, results, strict=True):
            live = fact.live and _is_float(graph.avals[value])
            facts[value] = fact._replace(live=live, first=fact.first and live)
    return facts, bodies


def _is_float(aval: Any) -> bool:
    return jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.inexact)


def _result(node: Node, operands: Sequence[Fact], floats: Sequence[bool]) -> Fact:
    live = [fact for fact in operands if fact.live]
    depends = any(fact.depends for fact in operands)
    origins = [fact.origin for fact in operands if fact.origin]
    return Fact(
        live=bool(live) and not _has_zero_derivative(node),
        depends=depends,
        nonneg=_nonneg(node, operands, floats),
        first=bool(live)
        and all(fact.first for fact in live)
        and (node.name in STRUCTURAL or _is_constant_affine(node, operands)),
        origin=() if depends or not origins else origins[0],
    )


def _has_zero_derivative(node: Node) -> bool:
    if node.name == "sign":  # z / |z|
        return not jnp.issubdtype(node.eqn.invars[0].aval.dtype, jnp.complexfloating)
    return node.name in ZERO_DERIVATIVE


def _is_constant_affine(node: Node, operands: Sequence[Fact]) -> bool:
    """Tells whether a live value is scaled, shifted or masked by constants."""
    return node.name in AFFINE | {"select_n"} and sum(fact.depends for fact in operands) == 1


def _nonneg(node: Node, operands: Sequence[Fact], floats: Sequence[bool]) -> bool:
    if node.name == "max":
        return any(fact.nonneg for fact in operands)
    if node.name == "integer_pow" and node.eqn.params["y"] % 2 == 0:
        return True
    if node.name == "mul" and node.operands[0] == node.operands[-1]:
        return True
    if node.name in ("convert_element_type", "broadcast_in_dim", "clamp"):
        return operands[0].nonneg
    if node.name in _ALWAYS_NONNEG:
        return True
    values = [fact for fact, is_float in zip(operands, floats, strict=True) if is_float]
    return node.name in _KEEPS_NONNEG and bool(values) and all(fact.nonneg for fact in values)


def _constant(content: Any) -> Fact:
    """The sign of a literal is read off; larger constants may be tracers and are not looked at."""
    if np.ndim(content) == 0 and isinstance(content, int | float | np.generic | np.ndarray):
        return CONSTANT._replace(nonneg=bool(np.asarray(content) >= 0))
    return CONSTANT
