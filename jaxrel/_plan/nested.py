"""Plans of what control flow holds: bodies of loops, branches, checkpoints, custom derivatives.

A function with a derivative of its own (``custom_jvp``, ``custom_vjp``) is what its body is: its
books close by value, whatever slope its author declares. It is

* one nonlinearity, if it is elementwise in one live value, an identity included;
* entered, if its body is differentiable where the author says the call is;
* entered with the discrete counting by its value (rounding, signs, masks), if it is not;
* one step of kind ``other`` with the derivative that it declares, if that leads nowhere either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import _compat
from .facts import Nested
from .graph import Call, Node
from .known import Known
from .primitives import of
from .roles import moved
from .steps import Fact, Plan


class Built(NamedTuple):
    """A plan, the facts of its results, and what it was made of."""

    plan: Plan
    results: list[Fact]
    known: Known


Build = Callable[..., Built]


def plan_bodies(
    node: Node, operands: Sequence[Fact], build: Build, elementwise: dict[Any, Nested]
) -> Nested:
    """Plans the jaxprs of a control node.

    Args:
      node: a ``scan``, ``cond``, ``remat2``, ``shard_map`` or call.
      operands: facts of its operands.
      build: :func:`jaxrel._plan.build.build_plan`.
      elementwise: see there; one jaxpr called in many places is read once.
    """
    if node.name == "scan":
        return _scan(node, operands, build)
    if node.name == "cond":
        return _cond(node, operands, build)
    jaxpr = node.eqn.params[of(node.name).body]
    same = tuple(node.operands.index(v) for v in node.operands)  # a function of x and x is one of x
    key = id(jaxpr), of(node.name).own_derivative, tuple(operands), same
    if key in elementwise:
        return elementwise[key]
    calls = node.calls
    if name := _compat.custom_call_name(node.eqn):
        calls = (*calls, Call(name, -1, node.eqn))
    if not of(node.name).own_derivative:
        built = build(jaxpr, operands, node.path, calls)
        return Nested((built.plan,), built.results)
    build = functools.partial(build, same=same)
    built = build(jaxpr, operands, node.path, calls)
    if _is_elementwise(built, operands):
        (result,) = built.results
        found = Nested((built.plan,), [result._replace(live=True)], built.known)
        return elementwise.setdefault(key, found)
    if _compat.is_of_jax(node.eqn) or _is_live(built):
        return Nested((built.plan,), built.results)
    counted = build(jaxpr, operands, node.path, calls, discrete=True)
    results = [fact._replace(live=fact.depends) for fact in counted.results]
    return Nested((counted.plan,) if _is_live(counted) else (), results)


def _is_live(built: Built) -> bool:
    """Tells whether all floats that depend on the input are live."""
    pairs = zip(built.known.graph.outputs, built.results, strict=True)
    return all(fact.live or not fact.depends for v, fact in pairs if built.known.is_float(v))


def _is_elementwise(built: Built, operands: Sequence[Fact]) -> bool:
    """Tells whether a call is an elementwise function of one live value, and float as that is."""
    known = built.known
    depends = {v: f for v, f in zip(known.graph.inputs, operands, strict=True) if f.depends}
    if len(depends) != 1 or len(built.results) != 1:
        return False
    (start,), (end,) = depends, known.graph.outputs
    if not depends[start].live:
        return False
    same = known.shape(start) == known.shape(end) and known.is_float(end)
    return same and known.facts[end].depends and known.by_dependence.is_below(end, start)


def _scan(node: Node, operands: Sequence[Fact], build: Build) -> Nested:
    """A carry is live, or of unknown sign, if it is so in any iteration: a fixpoint."""
    constants, carries = _compat.scan_arity(node.eqn.params)
    before = operands[:constants]
    after = [fact._replace(role=moved(fact.role, -1)) for fact in operands[constants + carries :]]
    carry = list(operands[constants : constants + carries])
    while True:  # each round can only add liveness or take away knowledge, so this ends
        facts = [*before, *carry, *after]
        built = build(node.eqn.params["jaxpr"], facts, node.path, node.calls)
        merged = [merge(a, b) for a, b in zip(carry, built.results, strict=False)]
        if merged == carry:
            stacked = built.results[carries:]
            stacked = [fact._replace(role=moved(fact.role, 1)) for fact in stacked]
            return Nested((built.plan,), [*carry, *stacked])
        carry = merged


def _cond(node: Node, operands: Sequence[Fact], build: Build) -> Nested:
    index, *facts = operands
    branches = node.eqn.params["branches"]
    built = [build(b, facts, node.path, node.calls) for b in branches]
    merged = list(built[0].results)
    for other in built[1:]:
        merged = [merge(a, b) for a, b in zip(merged, other.results, strict=True)]
    merged = [fact._replace(depends=fact.depends or index.depends) for fact in merged]
    return Nested(tuple(b.plan for b in built), merged)


def merge(a: Fact, b: Fact) -> Fact:
    """What is known of a value that is one or the other."""
    return Fact(
        live=a.live or b.live,
        depends=a.depends or b.depends,
        nonneg=a.nonneg and b.nonneg,
        first=a.first and b.first,
        origin=a.origin if a.origin == b.origin else (),
        made=a.made and b.made,
        role=a.role if a.role == b.role else None,
        data=a.data or b.data,
    )
