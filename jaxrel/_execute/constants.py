"""Every additive constant of a plan, found before anything runs.

A step is a function of its live operands; what its rule leaves to its constants is theirs together,
``to_bias`` in :mod:`jaxrel.rules`. Here they are told apart:

* where the step is jointly linear in live and constant operands (or hands on one or the other, as a
  maximum does), each constant operand is one, of its own shape;
* what is left belongs to no one operand: f(0) of a nonlinearity, the fill value of a gather. It is
  one number, so that the account of a step always closes;
* what is constant outside of a loop, branch or call and live inside, the other way round, and a
  result that is constant, is one as a whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._plan.graph import Node
from .._plan.primitives import ALL, of
from .._plan.steps import Plan, Step
from ..rules import Rule
from ..rulesets.assign import Assignment
from .taps import Key
from .wide import bind

_JOINTLY = frozenset({"matmul", "linear", "sum", "maximum"})
_GIVING = _JOINTLY | {"nonlinearity", "other", "control"}
"""Kinds of steps whose constants have a part in what they make."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """An additive constant.

    Attributes:
      path: of its layer.
      operation: what it enters by.
      source: number of its value before it was broadcast; None: what no one operand makes.
      nodes: operations from the source to the operand, last first.
      operand: number of the value that meets a live one.
      shape: its own.
      dtype: its own; that of the real part of a complex one.
      loops: lengths of the loops around it, outermost first.
      entry: position in its step of the operation that adds it; others may scale by it.
    """

    path: str
    operation: str
    source: int | None
    nodes: tuple[Node, ...]
    operand: int | None
    shape: tuple[int, ...]
    dtype: Any
    loops: tuple[int, ...]
    entry: int | None = None

    def place(self, c: Any) -> Any:
        """The operand, made of the source's value ``c``, in float32 at least."""
        for node in reversed(self.nodes):
            (c,) = bind(node.eqn, [c])
        return c


def constants(plan: Plan, chosen: Assignment, goals: int) -> dict[Key, Constant]:
    """Finds every additive constant of a plan, nested ones included.

    Args:
      plan: the plan.
      chosen: the rules.
      goals: how many of its first outputs are explained.

    Returns:
      Constants by what they enter, in order of execution.
    """
    found = list(_of_plan(plan, chosen, ()))
    sources = _Sources(plan)
    for k in range(goals):
        if not plan.live_outputs[k]:
            value = sources.constant(plan.outputs[k], "", "output", ())
            found.append((Key(id(plan), "output", k), value))
    return {key: c for key, c in found if c is not None}


class _Sources:
    """Where constants of a plan come from."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.makers = {v: step for step in plan.steps if not step.live for v in step.results}

    def constant(
        self, value: int, path: str, operation: str, loops: tuple[int, ...]
    ) -> Constant | None:
        """The constant that ``value`` is; None if it is no float, or known to be 0."""
        operand = value
        ways: list[tuple[int, tuple[Node, ...]]] = [(value, ())]
        while value in self.makers and _is_reshaping(self.makers[value]):
            node = self.makers[value].nodes[0]
            (value,) = node.operands
            ways.append((value, (*ways[-1][1], node)))
        # a parameter's shape, not that of a row cut out of one: as few dimensions as there are
        value, nodes = min(ways[::-1], key=lambda way: len(self.plan.avals[way[0]].shape))
        aval = self.plan.avals[value]
        content = self.plan.constants.get(value)
        if isinstance(content, int | float | np.generic | np.ndarray) and not np.any(content):
            return None
        if not jnp.issubdtype(aval.dtype, jnp.inexact):
            return None
        dtype = jnp.finfo(aval.dtype).dtype
        return Constant(path, operation, value, nodes, operand, aval.shape, dtype, loops)


def _is_reshaping(step: Step) -> bool:
    return (
        len(step.nodes) == 1
        and len(step.operands) == 1
        and len(step.results) == 1
        and _keeps(step.nodes[0])
        and jnp.issubdtype(step.nodes[0].eqn.invars[0].aval.dtype, jnp.inexact)
    )


def _keeps(node: Node) -> bool:
    """Tells whether all of a constant goes through a node, and it is still the same one."""
    size = max(math.prod(node.eqn.invars[0].aval.shape), 1)
    row = of(node.name)
    whole = row.moves and not row.fills and not row.over_mesh
    return whole and math.prod(node.eqn.outvars[0].aval.shape) >= size


def _of_plan(
    plan: Plan, chosen: Assignment, loops: tuple[int, ...]
) -> Iterator[tuple[Key, Constant | None]]:
    sources, shifts = _Sources(plan), _shifts(plan)
    for step in plan.steps:
        if step.kind == "constant" or id(step) in shifts:
            continue
        if step.bodies and id(step) not in chosen:
            yield from _of_control(step, sources, chosen, loops)
        else:
            yield from _of_step(step, chosen.get(id(step)), sources, loops)


def _shifts(plan: Plan) -> set[int]:
    """The steps, by ``id``, that take from all logits of a softmax their own maximum.

    Nothing comes of that. A constant that is not made of the input (distances, a mask) is one.
    """
    shares = (step for step in plan.steps if step.kind == "softmax" and not _is_log(step))
    logits = {step.operands[step.live[0]] for step in shares}
    depends = {v for v, live in zip(plan.inputs, plan.live_inputs, strict=True) if live}
    found = set()
    for step in plan.steps:
        dependent = depends.intersection(step.operands)
        if dependent:
            depends.update(step.results)
        if step.operation == "sub" and step.results[0] in logits and len(dependent) == 2:
            found.add(id(step))
    return found


def _is_log(step: Step) -> bool:
    return step.nodes[-1].name == "log"


def _of_step(
    step: Step, rule: Any, sources: _Sources, loops: tuple[int, ...]
) -> Iterator[tuple[Key, Constant | None]]:
    """The constants of one step, and what it has beside them."""
    own = getattr(type(rule), "to_bias", Rule.to_bias) is not Rule.to_bias
    if not (step.kind in _GIVING or own) or is_parallel(step) or step.nodes[-1].stands_in:
        return
    added, rest = [], not _is_zero_at_zero(step)
    if step.kind in _JOINTLY:
        added, rest = _added(step)
        if len(step.results) > 1 or (step.kind == "maximum" and rule is not None):
            added, rest = [], rest or bool(added)
    for k, (entry, value) in enumerate(added):
        path = _path(step, step.nodes[entry])
        found = sources.constant(value, path, step.operation, loops)
        yield Key(id(step), "step", k), found and dataclasses.replace(found, entry=entry)
    if rest:
        floats = [v for v in step.nodes[-1].eqn.outvars if _is_inexact(v.aval)]
        dtype = jnp.finfo(floats[0].aval.dtype).dtype if floats else jnp.float32
        found = Constant(step.location, step.operation, None, (), None, (), dtype, loops)
        yield Key(id(step), "rest"), found


def _of_control(step: Step, sources: _Sources, chosen: Assignment, loops: tuple[int, ...]):
    """What is constant outside and live inside, and what is constant in one branch alone."""
    is_scan = step.variant == "scan"
    inner = (*loops, step.nodes[0].eqn.params["length"]) if is_scan else loops
    shift = int(step.variant == "cond")
    lives = [any(live) for live in zip(*(b.live_outputs for b in step.bodies), strict=True)]
    if is_scan:
        first, count = _compat.scan_arity(step.nodes[0].eqn.params)
        carried = step.bodies[0].live_inputs[first : first + count]
        lives = [a or b for a, b in zip(lives, (*carried, *lives[count:]), strict=True)]
    for body in step.bodies:
        for k, live in enumerate(body.live_inputs):
            if live and k + shift not in step.live:
                value = step.operands[k + shift]
                key = Key(id(step), "operand", k + shift)
                yield key, sources.constant(value, step.location, step.operation, loops)
        within = _Sources(body)
        for k, live in enumerate(lives):
            if live and not body.live_outputs[k]:
                found = within.constant(body.outputs[k], step.location, step.operation, inner)
                yield Key(id(body), "output", k), found
        yield from _of_plan(body, chosen, inner)


def _added(step: Step) -> tuple[list[tuple[int, int]], bool]:
    """Positions of nodes that add a constant, its value number, and whether they add more."""
    inside = {step.operands[k] for k in step.live}
    made = {v for node in step.nodes for v in node.results}
    added: list[tuple[int, int]] = []
    rest = False
    for position, node in enumerate(step.nodes):
        if inside.isdisjoint(node.operands):
            continue
        others = [
            v
            for v, atom in zip(node.operands, node.eqn.invars, strict=True)
            if v not in inside and _is_inexact(atom.aval)
        ]
        joint = node.operands if _is_joint(node) else ()
        others = list(dict.fromkeys(v for v in others if v in joint or not _scales(node)))
        added += [(position, v) for v in others if v in joint and v not in made]
        rest |= _has_fill(node) or any(v in made or v not in joint for v in others)
        inside.update(node.results)
    return added, rest


def _is_joint(node: Node) -> bool:
    """Tells whether operands enter side by side: f(a, c) is linear, or a selection, in both."""
    row = of(node.name)
    return row.linear == (ALL,) or row.picks in ("scatter", "selection")


def _scales(node: Node) -> bool:
    """Tells whether a node is linear in its live operand alone: 0 where that is 0."""
    row = of(node.name)
    return bool(row.bilinear or row.factors or row.solves is not None or row.linear)


def _has_fill(node: Node) -> bool:
    """Tells whether a parameter of a node is an additive constant."""
    fills = (node.eqn.params.get(name) for name in of(node.name).fills)
    return any(fill is not None and fill != 0 and bool(np.isfinite(fill)) for fill in fills)


def _is_inexact(aval: Any) -> bool:
    return jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.inexact)


def is_parallel(step: Step) -> bool:
    """Tells whether each result of a step is made of the operand in its place, and of no other."""
    return of(step.nodes[0].name).parallel and len(step.operands) == len(step.results)


def _path(step: Step, node: Node) -> str:
    """The layer a constant belongs to: a BatchNorm's own, where it follows a convolution."""
    own, first = node.layer, step.nodes[0].layer
    return "/".join(own) if own != first else step.location


def _is_zero_at_zero(step: Step) -> bool:
    known = len(step.nodes) == 1 and of(step.nodes[0].name).zero == 0
    return step.homogeneous or step.linear_read is not None or known
