"""One trace for all equal steps.

A secant is sixty operations; a hundred tanh layers need not trace, differentiate and lower it a
hundred times. What equal steps do goes through one ``jax.jit``, and jax then does each of these
once. XLA inlines the call of what a rule computes; the operations of the step itself jax inlines
when it traces, so that nothing of the function that is explained changes.

Two steps are equal if nothing that a rule can see tells them apart but the values it is given:
their operations with all parameters, how these are wired, what is live, shapes and types, and the
rule with its hyper-parameters, of which arrays are arguments. Everything else that a trace depends
on (the types of the arguments, precision, meshes, 64 bits) is in the key of ``jax.jit``.

Some parameters can be told only by what they *are*: a call with a derivative of its own holds a
function, which may hold tracers. Steps with such a parameter are equal if they hold the same one,
and what they share lives as long as the explanation. The derivatives that jax itself declares hold
none, and are told by the body of the call and where it is written: relu called twice is the same.

Not shared are rules that are plain functions, or of a class made within a function: they may read
what is no argument. Nor are steps with effects.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import jax
import numpy as np

from .. import _compat
from .._plan.graph import Node
from .._plan.primitives import of
from .._plan.steps import Step
from ..rules import Rule

Compute = Callable[..., Any]
"""A function of arrays (and of pytrees with static parts) alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Like:
    """What equal steps with equal rules have in common.

    Attributes:
      key: what makes them equal.
      lasting: whether the key is made of values, and holds nothing of one trace.
    """

    key: Any
    lasting: bool


def alike(step: Step, rule: Any, own: dict[Any, Any]) -> Like | None:
    """What other steps must have in common with this one to share its trace; None: none can.

    Args:
      step: not one of control flow.
      rule: with its hyper-parameters; None: the plain VJP.
      own: what is shared within this explanation, and what was read of its steps and rules before.
    """
    memo = own.setdefault(_Memo, _Memo())
    one, other = memo.of(step, _read_step), memo.of(rule, _read_rule)
    if one is None or other is None:
        return None
    return Like((one.key, other.key), one.lasting and other.lasting)


class _Memo:
    """What was read of steps, rules and jaxprs, which it keeps, so that each has an ``id``."""

    def __init__(self):
        self.found: dict[int, tuple[Any, Any]] = {}

    def of(self, part: Any, read: Callable[[Any, _Reader], Any]) -> Any:
        """What ``read`` finds, or found before."""
        if id(part) not in self.found:
            self.found[id(part)] = part, read(part, _Reader(self))
        return self.found[id(part)][1]


def _read_step(step: Step, reader: _Reader) -> Like | None:
    has_effects = any(node.eqn.effects for node in step.nodes)
    return None if step.bodies or has_effects else reader.like(reader.step(step))


def _read_rule(rule: Any, reader: _Reader) -> Like | None:
    return reader.like(reader.rule(rule)) if _is_pure(rule) else None


def placeless(step: Step) -> Step:
    """The step without what tells where it stands, so that it can be kept."""
    nodes = tuple(dataclasses.replace(node, path=(), layer=(), calls=()) for node in step.nodes)
    return dataclasses.replace(step, nodes=nodes, path=(), origin=())


def shared(
    like: Like, name: str, make: Callable[[], Compute], own: dict[Any, Any], inline: bool
) -> Compute | None:
    """Returns ``make()`` jitted, or what was made for an equal step; None: not worth it yet.

    Args:
      like: what they have in common.
      name: what is made, for profiles.
      make: makes it, of what is in the key and of a step that is :func:`placeless`.
      own: what is shared within this explanation only, from the second of equal steps on: most
        have no second.
      inline: whether its operations become the caller's.
    """
    key = like.key, name, inline
    if like.lasting:
        return _kept.get(key) or _kept.add(key, _jitted(name, make(), inline))
    if key not in own:
        own[key] = None
        return None
    made = own[key] or _jitted(name, make(), inline)
    own[key] = made
    return made


def _jitted(name: str, compute: Compute, inline: bool) -> Compute:
    def run(*operands: Any) -> Any:
        return compute(*operands)

    run.__name__ = run.__qualname__ = name
    return jax.jit(run, inline=inline)


class _Recent:
    """What was used last, of several threads."""

    def __init__(self, size: int):
        self.size, self.lock = size, threading.Lock()
        self.made: OrderedDict[Any, Compute] = OrderedDict()

    def get(self, key: Any) -> Compute | None:
        with self.lock:
            found = self.made.get(key)
            if found is not None:
                self.made.move_to_end(key)
            return found

    def add(self, key: Any, made: Compute) -> Compute:
        with self.lock:
            made = self.made.setdefault(key, made)
            if len(self.made) > self.size:
                self.made.popitem(last=False)
            return made


_kept = _Recent(4096)


def _is_pure(rule: Any) -> bool:
    """Whether all that a rule computes with are its fields and its step."""
    if rule is None:
        return True
    return _is_lasting(type(rule)) and not any(map(callable, jax.tree.leaves(rule)))


@functools.lru_cache(256)
def _is_lasting(kind: type) -> bool:
    """Whether a rule is of a class that is no part of a function, and of ours the base."""
    local = any("<locals>" in base.__qualname__ for base in kind.__mro__)
    return issubclass(kind, Rule) and not local


_VALUES = (
    np.dtype,
    jax.sharding.AbstractMesh,
    jax.sharding.Mesh,
    jax.sharding.PartitionSpec,
    jax.sharding.Sharding,
)
"""Types, beside those of Python, whose objects are told by what they say."""

_FOR_PEOPLE = frozenset("operation names path origin shapes first".split())
"""Fields of a step that no rule sees."""

_IN_WIRING = frozenset("nodes operands results shares".split())

_TOLD_BY = tuple(
    name
    for name in (field.name for field in dataclasses.fields(Step))
    if name not in _FOR_PEOPLE | _IN_WIRING
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Identity:
    """What is equal to nothing but itself."""

    content: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.content is other.content

    def __hash__(self) -> int:
        return id(self.content)


class _Told:
    """A key whose hash, which takes a walk through all of it, is known."""

    def __init__(self, content: Any):
        """Raises `TypeError` if something in it has no hash."""
        self.content, self.hash = content, hash(content)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, _Told) and self.content == other.content

    def __hash__(self) -> int:
        return self.hash


class _Reader:
    """Makes keys of what steps are made of.

    Attributes:
      memo: what was read before.
      lasting: whether the keys made so far are values, and hold nothing of one trace.
    """

    def __init__(self, memo: _Memo):
        self.memo = memo
        self.lasting = True

    def like(self, key: Any) -> Like | None:
        """What is told by ``key``, the last that is made; None: it cannot be compared."""
        try:
            return Like(_Told(key), self.lasting)
        except TypeError:  # a parameter that is an array, say
            return None

    def key(self, value: Any) -> Any:
        """What makes ``value`` equal to others; 0, 0.0, -0.0 and False are not."""
        kind = type(value)
        if value is None or kind in (bool, int, str) or isinstance(value, Enum | type):
            return kind, value
        if kind in (float, complex) or isinstance(value, np.generic):
            return kind, repr(value)
        if isinstance(value, tuple | list):
            return kind, tuple(map(self.key, value))
        if isinstance(value, frozenset):
            return kind, frozenset(map(self.key, value))
        if isinstance(value, dict):
            return kind, tuple((name, self.key(value[name])) for name in sorted(value))
        if dataclasses.is_dataclass(value):
            return kind, tuple(self.key(getattr(value, f.name)) for f in dataclasses.fields(value))
        if _compat.is_jaxpr(value):
            return self.jaxpr(value)
        if isinstance(value, _VALUES):
            return kind, value
        if _compat.is_unspecified(value):
            return kind
        self.lasting = False
        return _Identity(value)

    def jaxpr(self, jaxpr: Any) -> Any:
        """Two jaxprs are equal if they are but for the names of their variables."""
        key, lasting = self.memo.of(jaxpr, lambda part, inner: (inner.body(part), inner.lasting))
        self.lasting &= lasting
        return key

    def body(self, jaxpr: Any) -> Any:
        """The same, made anew."""
        inner, consts = _compat.open_jaxpr(jaxpr)
        numbers: dict[Any, int] = {}

        def number(atom: Any) -> Any:
            if isinstance(atom, _compat.Literal):
                return self.key(np.asarray(atom.val)[()]), atom.aval
            return numbers.setdefault(atom, len(numbers)), atom.aval

        if consts or inner.constvars:
            self.lasting = False
            return _Identity(jaxpr)
        start = tuple(map(number, inner.invars))
        eqns = tuple(
            (self.equation(eqn), *(tuple(map(number, part)) for part in (eqn.invars, eqn.outvars)))
            for eqn in inner.eqns
        )
        return start, eqns, tuple(map(number, inner.outvars))

    def equation(self, eqn: Any) -> Any:
        """The operation with its parameters, and the context it is executed in.

        Of a call whose derivative is jax's own that is its body, and where it is written.
        """
        if of(eqn.primitive.name).own_derivative and _compat.is_of_jax(eqn):
            body = _compat.call_jaxpr(eqn)
            return eqn.primitive, self.jaxpr(body), _compat.written_at(body), eqn.ctx
        params = tuple((name, self.key(part)) for name, part in sorted(eqn.params.items()))
        return eqn.primitive, params, eqn.ctx

    def step(self, step: Step) -> Any:
        """The step, its values numbered in the order in which they appear."""
        numbers: dict[int, int] = {}

        def renumber(values: Sequence[int]) -> tuple[int, ...]:
            return tuple(numbers.setdefault(value, len(numbers)) for value in values)

        operands = renumber(step.operands)
        nodes = tuple((self.node(n), renumber(n.operands), renumber(n.results)) for n in step.nodes)
        shares = step.shares
        if shares is not None:
            guarded = None if shares.guarded is None else numbers.get(shares.guarded)
            shares = shares._replace(total=numbers[shares.total], guarded=guarded)
        wiring = operands, nodes, renumber(step.results), shares
        return wiring, tuple(self.key(getattr(step, name)) for name in _TOLD_BY)

    def node(self, node: Node) -> Any:
        """The operation, and shapes and types of what it reads and makes."""
        eqn = node.eqn
        return self.equation(eqn), tuple(var.aval for var in (*eqn.invars, *eqn.outvars))

    def rule(self, rule: Any) -> Any:
        """The rule, a place in the list of arguments for each array."""
        leaves, structure = jax.tree.flatten(rule)
        return structure, tuple(None if hasattr(v, "dtype") else self.key(v) for v in leaves)
