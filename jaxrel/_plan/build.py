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

from .. import _compat
from . import paths
from .activity import activity
from .affine import find_affine, find_pools, find_scales
from .graph import Call, Graph, Node, Path, flatten
from .joins import find_joins, is_homogeneous
from .kinds import kind_of
from .naming import names_of
from .nested import is_elementwise_call, plan_bodies
from .patterns import find_normalization, find_products, find_softmax
from .primitives import STATE
from .steps import Fact, Group, Plan, Step
from .view import GraphView


def build_plan(
    jaxpr: Any,
    inputs: Sequence[Fact],
    path: Path = (),
    calls: tuple[Call, ...] = (),
    names: Mapping[int, Path] = MappingProxyType({}),
    explained: int | None = None,
    fold: bool = True,
    parts: bool = False,
) -> tuple[Plan, list[Fact]]:
    """Reads a jaxpr into a plan.

    Args:
      jaxpr: open or closed.
      inputs: facts of its arguments.
      path: raw scope names around it.
      calls: names of the calls around it.
      names: paths of parameter leaves by ``id``, to name layers without scopes.
      explained: how many of its first results are explained; None: all.
      fold: whether constant affine operations after a matmul belong to it.
      parts: whether normalizations, and softmaxes whose denominator has a constant, are taken
        apart.

    Returns:
      The plan and the facts of its results.
    """
    graph = flatten(jaxpr, path, calls)
    elementwise: set[int] = set()
    index_of = {id(node): index for index, node in enumerate(graph.nodes)}

    def nest(node: Node, operands: Sequence[Fact]):
        build = functools.partial(build_plan, names=names, fold=fold, parts=parts)
        plans, results = plan_bodies(node, operands, build)
        if is_elementwise_call(node, operands, plans):
            elementwise.add(index_of[id(node)])
        return plans, results

    facts, bodies = activity(graph, inputs, nest, names)
    view = GraphView(graph, facts, elementwise)
    goals = graph.outputs[:explained]
    groups = _find_groups(view, goals, fold, parts)
    steps = [_step(view, group, bodies.get(i, ())) for i, group in _used(view, groups, goals)]
    outputs = [facts[value] for value in graph.outputs]
    plan = Plan(
        steps=tuple(steps),
        inputs=graph.inputs,
        outputs=graph.outputs,
        constants=graph.constants,
        live_inputs=tuple(fact.live for fact in inputs),
        live_outputs=tuple(fact.live for fact in outputs),
        avals=graph.avals,
        jaxpr=jaxpr,
    )
    return plan, outputs


def _find_groups(
    view: GraphView, goals: Sequence[int], fold: bool, parts: bool
) -> dict[int, Group]:
    joins = find_joins(view)
    softmaxes = find_softmax(view, parts)
    products = find_products(view, softmaxes, joins)
    normalizations = {} if parts else find_normalization(view)
    groups = {**products, **joins, **softmaxes, **normalizations}
    # what comes after a matmul belongs to it unless it is part of a group that is really used
    used = [group for _, group in _used(view, groups, goals) if len(group.nodes) > 1]
    taken = {index for group in used for index in group.nodes}
    affine = find_affine(view, taken, fold)
    later = {**find_pools(view, taken), **affine}
    if not fold:
        taken.update(index for group in later.values() for index in group.nodes)
        later |= find_scales(view, taken)
    return {**later, **groups}


def _used(
    view: GraphView, groups: dict[int, Group], goals: Sequence[int]
) -> list[tuple[int, Group]]:
    """The groups to execute, by the index of their last node and in order.

    Found from the last node to the first: a group's last node stands for the whole group, and nodes
    whose values nobody else needs vanish into it.
    """
    nodes = view.graph.nodes
    needed = set(view.graph.outputs)
    explained = {value for value in goals if view.facts[value].live}
    used = []
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if needed.isdisjoint(node.results) and not node.eqn.effects:
            continue
        stores = node.name in STATE and view.live(node)  # what reads it may be out of sight
        if explained.isdisjoint(node.results) and not stores:  # nothing but a stop_gradient follows
            group = Group("constant", (index,))
        else:
            group = groups.get(index) or _single(view, index)
        operands, live = _operands(view, group, [nodes[k] for k in group.nodes])
        needed.update(operands)
        if group.kind != "constant":
            explained.update(operands[k] for k in live)
        used.append((index, group))
    return used[::-1]


def _single(view: GraphView, index: int) -> Group:
    node = view.graph.nodes[index]
    live = view.live(node)
    if index in view.elementwise_calls:
        (start,) = {node.operands[k] for k in live}
        body = _is_homogeneous_call(view, index)
        return Group("nonlinearity", (index,), (start,), homogeneous=body)
    kind, variant = kind_of(node, live)
    homogeneous = kind == "nonlinearity" and is_homogeneous(view, (index,), node.operands[live[0]])
    return Group(kind, (index,), (), variant, homogeneous)


def _is_homogeneous_call(view: GraphView, index: int) -> bool:
    """Homogeneity of a custom-derivative call such as relu, read off its body."""
    node = view.graph.nodes[index]
    inputs = [view.facts[value] for value in node.operands]
    graph = flatten(_compat.call_jaxpr(node.eqn))
    facts, _ = activity(graph, inputs, lambda _, operands: ((), [operands[0]]), {})
    inner = GraphView(graph, facts, ())
    (start,) = (value for value in graph.inputs if facts[value].live)
    return is_homogeneous(inner, tuple(range(len(graph.nodes))), start)


def _step(view: GraphView, group: Group, bodies: tuple[Plan, ...]) -> Step:
    nodes = tuple(view.graph.nodes[index] for index in group.nodes)
    last = nodes[-1]
    operands, live = _operands(view, group, nodes)
    live_values = [operands[k] for k in live]
    names, operation = names_of(view, nodes)
    return Step(
        kind=group.kind,
        variant=group.variant,
        operation=operation,
        names=names,
        path=_path(view, group, nodes, operands),
        nodes=nodes,
        operands=operands,
        live=live,
        results=last.results,
        first=group.kind == "matmul" and all(view.facts[v].first for v in live_values),
        nonneg=tuple(view.facts[v].nonneg for v in live_values),
        homogeneous=group.homogeneous,
        linear_read=group.linear_read,
        bodies=bodies if group.kind == "control" else (),
        shapes=(_shapes(view.graph, live_values), _shapes(view.graph, last.results)),
    )


def _operands(view: GraphView, group: Group, nodes: Sequence[Node]):
    """Value numbers a step reads and which of them are live.

    A node on its own has the operands of its equation, in their order. A group has each value once:
    as a function of x, ``x * x`` has one operand.
    """
    if not group.live:
        return nodes[0].operands, tuple(view.live(nodes[0]))
    made = {value for node in nodes for value in node.results}
    outside = dict.fromkeys(v for node in nodes for v in node.operands if v not in made)
    constants = [v for v in outside if v not in group.live]
    return (*group.live, *constants), tuple(range(len(group.live)))


def _path(view: GraphView, group: Group, nodes: tuple[Node, ...], operands) -> Path:
    """Layer path by the modules' scopes, else by the parameter leaf that feeds the step."""
    scoped = paths.normalise(nodes[0].path)
    if group.kind == "matmul":
        origins = [view.facts[v].origin for v in operands if view.facts[v].origin]
        return paths.prefer(scoped, origins)
    return scoped


def _shapes(graph: Graph, values) -> tuple[str, ...]:
    return tuple(graph.avals[value].str_short(short_dtypes=True) for value in values)
