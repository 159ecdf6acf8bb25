"""From a jaxpr to a plan: flatten, find facts, find groups, order the steps.

The order is found backwards: a group's last node stands for the whole group, and nodes whose values
nobody else needs vanish into it. A value inside a group that something outside reads too is
computed once more by a step of its own; XLA makes one of the two.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .affine import find_affine, find_pools, find_scales
from .chains import beginning
from .checkpoints import checkpointed
from .facts import Nested, find_facts, is_operator
from .functions import (
    find_activations,
    find_function,
    has_another_derivative,
    is_homogeneous,
    nonlinearity,
)
from .graph import PLACES, Call, Node, Path, flatten
from .kinds import kind_of
from .known import Known
from .naming import names_of
from .nested import Built, plan_bodies
from .paths import normalise
from .places import Marks, mark
from .primitives import of
from .quotients import find_log_total, find_quotient, find_share, find_softmax, is_normalization
from .readers import Readers
from .roles import is_weights
from .steps import Fact, Group, Plan, Step


def build_plan(
    jaxpr: Any,
    inputs: Sequence[Fact],
    path: Path = (),
    calls: tuple[Call, ...] = (),
    names: Mapping[int, Path] = MappingProxyType({}),
    roots: frozenset[str] = frozenset(),
    explained: int | None = None,
    fold: bool = True,
    parts: bool = False,
    discrete: bool = False,
    elementwise: dict[Any, Nested] | None = None,
    through: frozenset[int] = frozenset(),
    same: Sequence[int] = (),
    marks: Marks | None = None,
) -> Built:
    """Reads a jaxpr into a plan.

    Args:
      jaxpr: open or closed.
      inputs: facts of its arguments.
      path: raw scope names around it.
      calls: names of the calls around it.
      names: paths of parameter leaves by ``id``, to name layers without scopes.
      roots: names of scopes that stand for whole models.
      explained: how many of its first results are explained; None: all.
      fold: whether constant affine operations after a matmul belong to it.
      parts: whether softmaxes whose denominator has a constant are taken apart.
      discrete: whether rounding, signs and masks count by their value.
      elementwise: calls found to be functions of one value, by what is called and on what.
      through: ``id`` s of equations that are seen through; see :mod:`jaxrel._plan.stopped`.
      same: for each argument the position of the first that is the same value; empty: all differ.
      marks: places that are to be explained; None: none.

    Returns:
      The plan, the facts of its results, and what is known of the graph.
    """
    graph = flatten(jaxpr, path, calls, roots, through, same)
    if marks is not None:
        mark(graph, marks, inputs, graph.outputs[:explained], normalise(path, roots))
    # a place belongs to one call, so two calls of one function are two
    alone = discrete or marks is not None
    seen = {} if alone or elementwise is None else elementwise
    build = functools.partial(
        build_plan,
        names=names,
        roots=roots,
        fold=fold,
        parts=parts,
        elementwise=seen,
        through=through,
        marks=marks,
    )
    if discrete:
        build = functools.partial(build, discrete=True)

    known, bodies = find_facts(
        graph,
        inputs,
        lambda node, facts: plan_bodies(node, facts, build, seen),
        names,
        discrete,
        marks,
    )
    groups = _Groups(known, graph.outputs[:explained], bodies, fold, parts)
    steps = [_step(groups, group, bodies.get(i, ())) for i, group in groups.used()]
    outputs = [known.facts[value] for value in graph.outputs]
    plan = Plan(
        steps=tuple(checkpointed(known, steps, graph.outputs)),
        inputs=graph.inputs,
        outputs=graph.outputs,
        constants=graph.constants,
        live_inputs=tuple(fact.live for fact in inputs),
        live_outputs=tuple(fact.live for fact in outputs),
        avals=graph.avals,
        jaxpr=jaxpr,
    )
    return Built(plan, outputs, known)


class _Groups:
    """The groups of a graph's nodes; what is of several nodes is looked for where it is needed."""

    def __init__(
        self,
        known: Known,
        goals: Sequence[int],
        bodies: Mapping[int, tuple[Plan, ...]],
        fold: bool,
        parts: bool,
    ):
        self.known, self.goals, self.bodies, self.parts = known, goals, bodies, parts
        self.readers = readers = Readers(known, [v for v in goals if known.facts[v].live])
        self.activations = find_activations(known)
        self.found: dict[int, Group | None] = {}
        self.later: dict[int, Group] = {}
        # what comes after a matmul belongs to it unless it is part of a group that is really used
        used = [group for _, group in self.used() if len(group.nodes) > 1]
        taken = {index for group in used for index in group.nodes}
        affine = find_affine(known, readers, taken, fold)
        self.later = {**find_pools(known, readers, taken), **affine}
        if not fold:
            taken.update(index for group in self.later.values() for index in group.nodes)
            self.later |= find_scales(known, readers, taken)

    def used(self) -> list[tuple[int, Group]]:
        """The groups to execute, by the index of their last node and in order.

        Found from the last node to the first: a group's last node stands for the whole group, and
        nodes whose values nobody else needs vanish into it.
        """
        known = self.known
        needed = set(known.graph.outputs)
        explained = {value for value in self.goals if known.facts[value].live}
        used = []
        for index in range(len(known.nodes) - 1, -1, -1):
            node = known.nodes[index]
            if needed.isdisjoint(node.results) and not node.eqn.effects:
                continue
            stores = of(node.name).state and known.live(node)  # what reads it may be out of sight
            if explained.isdisjoint(node.results) and not stores:
                group = Group("constant", (index,))  # nothing but a stop_gradient follows
            else:
                group = self.of(index)
            operands, live = _operands(known, group, [known.nodes[k] for k in group.nodes])
            needed.update(operands)
            if group.kind != "constant":
                explained.update(operands[k] for k in live)
            used.append((index, group))
        return used[::-1]

    def of(self, index: int) -> Group:
        """The group that ends in a node."""
        if self.known.nodes[index].name in PLACES:
            return Group("place", (index,))
        if index not in self.found:
            self.found[index] = self._several(index)
        return self.found[index] or self.later.get(index) or self._single(index)

    def _several(self, index: int) -> Group | None:
        """What is more than an operation: a softmax, a function, a quotient, attention."""
        known = self.known
        quotient = find_quotient(known, index)
        share = None if quotient is None else find_share(known, quotient)
        softmax = None if share is None else find_softmax(known, share, self.parts)
        softmax = softmax or find_log_total(known, index)
        if softmax is not None and not (self.parts and self._is_guarded(softmax)):
            return softmax
        function = find_function(known, index) or self.activations.get(index)
        if function is not None:
            return function
        if quotient is not None:
            normalizes = is_normalization(known, quotient)
            return Group(
                "normalization" if normalizes else "quotient",
                quotient.nodes,
                (quotient.numerator, quotient.denominator),
                "scale" if normalizes else "",
                power=quotient.power,
            )
        return self._product(index)

    def _is_guarded(self, group: Group) -> bool:
        return any(self.known.nodes[k].name == "add" for k in group.nodes)

    def _product(self, index: int) -> Group | None:
        """A product with its two sides told: weights or a gate first, the value second.

        Operand order means nothing in a jaxpr (einsum may emit ``dot_general(value, weights)``).
        """
        known, node = self.known, self.known.nodes[index]
        live = known.live(node)
        if not of(node.name).bilinear or len(live) != 2 or node.name.startswith("bc"):
            return None
        sides = [node.operands[k] for k in live]
        roles = [known.facts[v].role for v in sides]
        contracted: list[Any] = [None, None]
        if node.name == "dot_general":
            contracted = list(node.eqn.params["dimension_numbers"][0])
            contracted = [c or None for c in contracted]
        for variant, first in (
            ("attention", [is_weights(r, c) for r, c in zip(roles, contracted, strict=True)]),
            ("gate", [r is not None and r.name == "sigmoid" for r in roles]),
            ("gate", [r is not None and r.name == "nonlinear" for r in roles]),
        ):
            if sum(first) == 1:
                ordered = sides if first[0] else sides[::-1]
                return Group("product", (index,), tuple(ordered), variant)
        return None

    def _single(self, index: int) -> Group:
        known, node = self.known, self.known.nodes[index]
        live = known.live(node)
        if node.stands_in:
            return Group("linear", (index,))
        if index in known.insides:
            return nonlinearity(known, (index,), node.operands[live[0]])
        if of(node.name).own_derivative and not self.bodies.get(index, (None,)):
            return Group("other", (index,), by_value=has_another_derivative(node))
        kind, variant = kind_of(node, live)
        if kind == "matmul" and is_operator(known, node):
            return Group("linear", (index,))
        homogeneous = kind == "nonlinearity" and known.is_elementwise(
            index, [node.operands[k] for k in live]
        )
        homogeneous = homogeneous and is_homogeneous(known, (index,), node.operands[live[0]])
        return Group(kind, (index,), (), variant, homogeneous)


def _step(groups: _Groups, group: Group, bodies: tuple[Plan, ...]) -> Step:
    known = groups.known
    nodes = tuple(known.nodes[index] for index in group.nodes)
    last = nodes[-1]
    operands, live = _operands(known, group, nodes)
    live_values = [operands[k] for k in live]
    names, operation = names_of(known, group, nodes)
    return Step(
        kind=group.kind,
        variant=group.variant,
        operation=operation,
        names=names,
        path=nodes[0].layer,
        origin=() if group.kind == "control" else _origin(known, operands),
        nodes=nodes,
        operands=operands,
        live=live,
        results=last.results,
        first=group.kind == "matmul" and all(known.facts[v].first for v in live_values),
        nonneg=tuple(known.facts[v].nonneg for v in live_values),
        homogeneous=group.homogeneous,
        linear_read=group.linear_read,
        power=group.power,
        shares=group.shares,
        by_value=group.by_value,
        begins=beginning(known, groups.readers, live_values[0], last.results[0])
        if group.kind == "nonlinearity"
        else 1,
        by_rows=known.mixes_layouts and any(of(node.name).laid_out == "rows" for node in nodes),
        bodies=bodies if group.kind == "control" else (),
        shapes=(known.shapes(live_values), known.shapes(last.results)),
    )


def _origin(known: Known, operands: Sequence[int]) -> Path:
    """Path of the first parameter leaf among operands that has a name."""
    return next((origin for v in operands if (origin := known.facts[v].origin)), ())


def _operands(known: Known, group: Group, nodes: Sequence[Node]):
    """Value numbers a step reads and which of them are live.

    A node on its own has the operands of its equation, in their order. A group has each value once:
    as a function of x, ``x * x`` has one operand.
    """
    if not group.live:
        return nodes[0].operands, tuple(known.live(nodes[0]))
    made = {value for node in nodes for value in node.results}
    outside = dict.fromkeys(v for node in nodes for v in node.operands if v not in made)
    constants = [v for v in outside if v not in group.live]
    return (*group.live, *constants), tuple(range(len(group.live)))
