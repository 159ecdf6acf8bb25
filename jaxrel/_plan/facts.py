"""Facts about values, found in one pass from the inputs to the outputs.

Liveness ends where differentiation ends: at integers, comparisons, ``argmax``, ``stop_gradient``,
``floor``, ``sign``. *Dependence* goes on there: the condition of ``where(x > 0, x, 0)`` is not
live, yet it must be computed again when the function is evaluated at another x.

On the way other spellings of known things are entered as the usual ones; see
:mod:`jaxrel._plan.rewrite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .graph import PLACES, STARTS, Graph, Node, Path
from .known import Known
from .places import Marks
from .primitives import ALL, of
from .quotients import find_quotient, find_share
from .rewrite import rewritten
from .roles import role_of
from .steps import Fact, Role


class Nested(NamedTuple):
    """What a control node holds.

    Attributes:
      bodies: nested plans.
      results: facts of the node's results.
      inside: what is known of its body, if it is an elementwise function of one live value.
    """

    bodies: tuple[Any, ...]
    results: Sequence[Fact]
    inside: Known | None = None


Nest = Callable[[Node, Sequence[Fact]], Nested]
"""Plans what a control node holds."""


def find_facts(
    graph: Graph,
    inputs: Sequence[Fact],
    nest: Nest,
    names: Mapping[int, Path],
    discrete: bool = False,
    marks: Marks | None = None,
) -> tuple[Known, dict[int, tuple[Any, ...]]]:
    """Finds the facts of every value of ``graph``.

    Args:
      graph: the flat jaxpr; gets the nodes that were entered.
      inputs: facts of its arguments.
      nest: called for each control node that reads a dependent value.
      names: paths of parameter leaves by ``id``.
      discrete: see :class:`Known`.
      marks: places that are explained.

    Returns:
      What is known of the graph, and the nested plans by index of their node.
    """
    known = Known(graph, inputs, names, discrete, marks)
    bodies: dict[int, tuple[Any, ...]] = {}
    for original in graph.nodes:
        for node in rewritten(known, original) or [original]:
            for value in node.operands:
                if value not in known.facts:  # a constant of what was entered
                    known.constant(value, graph.constants[value])
            _enter(known, node, nest, bodies)
    graph.nodes = known.nodes
    return known, bodies


def _enter(known: Known, node: Node, nest: Nest, bodies: dict[int, tuple[Any, ...]]) -> None:
    operands = [known.facts[value] for value in node.operands]
    nested = None
    if of(node.name).control and (known.marks.starts or any(fact.depends for fact in operands)):
        nested = nest(node, operands)
        results = nested.results
    elif of(node.name).parallel and len(operands) == len(node.results):
        results = [_result(known, node, [k]) for k in range(len(operands))]
    elif node.stands_in:
        results = [_result(known, node, [1])]
    elif node.name in PLACES:
        results = [_place(node, operands[0])]
    else:
        results = [_result(known, node, range(len(operands)))] * len(node.results)
    live = [fact.live and known.is_float(v) for v, fact in zip(node.results, results, strict=True)]
    results = [
        fact._replace(live=flag, first=fact.first and flag, role=fact.role if flag else None)
        for fact, flag in zip(results, live, strict=True)
    ]
    index = known.enter(node, results, None if nested is None else nested.inside)
    if nested is not None:
        bodies[index] = tuple(nested.bodies)
    if len(results) == 1 and results[0].live and (nested is None or nested.inside is not None):
        (value,) = node.results
        role = _role(known, index)
        known.facts[value] = known.facts[value]._replace(role=role)


def _place(node: Node, fact: Fact) -> Fact:
    """A place is what it reads; where relevance starts it is an input."""
    if node.name != STARTS:
        return fact
    return fact._replace(live=True, depends=True, first=fact.first or not fact.live, origin=())


def _role(known: Known, index: int) -> Role | None:
    node = known.nodes[index]
    if node.name in PLACES:
        return known.facts[node.operands[0]].role
    quotient = find_quotient(known, index)
    share = None if quotient is None else find_share(known, quotient)
    if share is not None and known.facts[share.source].nonneg:
        return Role("weights", share.axes or None)
    if node.stands_in:
        return known.facts[node.operands[1]].role
    return role_of(known, index)


def _result(known: Known, node: Node, positions: Iterable[int]) -> Fact:
    values = [node.operands[k] for k in positions]
    operands = [known.facts[value] for value in values]
    live = [fact for fact in operands if fact.live]
    depends = any(fact.depends for fact in operands)
    origins = [fact.origin for fact in operands if fact.origin]
    row = of(node.name)
    return Fact(
        live=_is_live(known, node, bool(live)),
        depends=depends,
        nonneg=_is_nonneg(known, node, values),
        first=bool(live)
        and all(fact.first for fact in live)
        and (row.moves or node.stands_in or _is_prepared(known, node, operands)),
        origin=() if depends or not origins else origins[0],
        data=any(fact.data for fact in operands),
        made=all(fact.made for fact in operands)
        and not (row.draws or row.opaque or row.control or row.state),
    )


def _is_live(known: Known, node: Node, live: bool) -> bool:
    """Tells whether a result is live, by whether operands are."""
    row = of(node.name)
    if node.name == "sign" and not known.is_real(node.operands[0]):  # z / |z|
        return live
    if not known.discrete:
        return live and not row.dead
    if node.name == "convert_element_type" and not live:  # a mask, a count, as a float
        return known.live_above(node.operands[0]) is not None
    return live and not (row.dead and not row.unary)


def _is_prepared(known: Known, node: Node, operands: Sequence[Fact]) -> bool:
    """Tells whether a value is scaled, shifted, masked, or moved by a matrix of the program's own.

    That is what comes before the first layer: normalising, resizing, cutting into patches.
    """
    row = of(node.name)
    if sum(fact.depends for fact in operands) != 1:
        return False
    if row.contraction:
        return is_operator(known, node)
    linear = row.linear == (ALL,) or row.bilinear or (row.linear == (0,) and operands[0].depends)
    return row.elementwise and linear


def is_operator(known: Known, node: Node) -> bool:
    """Tells whether a contraction with a constant is no layer: it scales, or has no parameters.

    A matrix of literals and counting alone resizes, cuts, counts or masks; and without a
    contraction nothing is mixed.
    """
    constant = [v for v in node.operands if not known.facts[v].depends]
    if not constant or not of(node.name).contraction:
        return False
    return all(known.facts[v].made for v in constant) or is_contractionless(node)


def is_contractionless(node: Node) -> bool:
    """Tells whether a contraction is none, and mixes no elements: ``einsum("bd,d->bd")``."""
    return node.name == "dot_general" and not node.eqn.params["dimension_numbers"][0][0]


def _is_nonneg(known: Known, node: Node, values: Sequence[int]) -> bool:
    row, name = of(node.name), node.name
    facts = [known.facts[v] for v in values]
    if name == "integer_pow" and node.eqn.params["y"] % 2 == 0:
        return known.is_real(node.operands[0])
    if name == "mul" and node.operands[0] == node.operands[-1]:
        return known.is_real(node.operands[0])
    if row.sign == ">=0":
        return node.name == "abs" or known.is_real(node.operands[0])
    if row.sign == "first" or name in ("convert_element_type", "broadcast_in_dim"):
        return facts[0].nonneg
    floats = [fact for fact, v in zip(facts, values, strict=True) if known.is_float(v)]
    if row.sign == "any":
        return any(fact.nonneg for fact in facts)
    if row.sign != "keeps" or not floats or not all(fact.nonneg for fact in floats):
        return False
    fills = [node.eqn.params.get(name) for name in row.fills]
    return all(fill is None or fill >= 0 for fill in fills)
