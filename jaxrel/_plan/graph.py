"""A jaxpr as a flat graph of numbered values.

Jaxprs nest: ``jax.nn.silu`` is a ``jit`` call, ``jnp.where`` another inside it, and one and the
same inner jaxpr object may be called many times. Patterns such as gelu or softmax cross these
borders, so ``jit`` is unfolded: every call makes fresh value numbers, and a node remembers the
calls it stood in (their names are what ``RuleSet | {"silu": ...}`` matches). So is ``checkpoint``;
see :mod:`jaxrel._plan.checkpoints`. Loops, branches, custom derivatives and calls with explicit
shardings stay whole; they become nested plans.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import _compat
from .paths import Path, normalise
from .primitives import CONTROL, OPAQUE, of

HANDS_ON, STARTS = PLACES = ("place", "start")
"""Names of nodes that mark a place; see :mod:`jaxrel._plan.places`. The second is where relevance
starts, whether what it reads is explained or not."""


class Call(NamedTuple):
    """A call around an equation.

    Attributes:
      name: of the function.
      number: different for each call of a graph; -1 for calls around the whole graph.
      eqn: the call.
    """

    name: str
    number: int
    eqn: Any

    @property
    def is_checkpoint(self) -> bool:
        """Tells whether it is a ``jax.checkpoint``."""
        return self.number >= 0 and self.eqn.primitive.name == "remat2"


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One equation with its values numbered.

    Attributes:
      eqn: the equation, to be bound again on other values.
      name: the primitive's name.
      operands: value numbers read, literals and constants included.
      results: value numbers made.
      path: raw scope names from the outside in.
      layer: the layer path that they make.
      calls: the unfolded calls around the equation, outermost first.
      stands_in: it has the value of its first operand, and is explained as the second, the same
        value computed in another way; see :mod:`jaxrel._plan.rewrite`.
    """

    eqn: Any
    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    path: Path
    layer: Path
    calls: tuple[Call, ...]
    stands_in: bool = False

    @property
    def source(self) -> str:
        """``file:line (function)`` of the user's code, that of a call where it has none itself."""
        eqns = (self.eqn, *(call.eqn for call in reversed(self.calls)))
        return next(filter(None, map(_compat.source_line, eqns)), "")


@dataclasses.dataclass(slots=True)
class Graph:
    """The nodes of a jaxpr in order of execution.

    Attributes:
      nodes: without those that nothing needs.
      inputs: value numbers of the jaxpr's arguments.
      outputs: value numbers of its results.
      constants: values of literals and closed-over constants by number.
      literals: which of them are literals.
      avals: shape and dtype of each value number.
      calls: number, operands and results of each unfolded call, by number.
      labels: nodes that give a value a name, needed or not.
      flattener: what numbers values.
    """

    nodes: list[Node]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, Any]
    literals: set[int]
    avals: dict[int, Any]
    calls: dict[int, tuple[Call, tuple[int, ...], tuple[int, ...]]]
    labels: list[Node] = dataclasses.field(default_factory=list)
    flattener: Any = None

    def splice(
        self, jaxpr: Any, inputs: Sequence[int], path: Path, calls: tuple[Call, ...]
    ) -> tuple[list[Node], list[int]]:
        """Numbers the values of another jaxpr, whose inputs are values of this graph.

        Returns:
          Its nodes, which are not entered, and the numbers of its results.
        """
        kept, self.nodes = self.nodes, []
        self.flattener.made = {}  # what is equal may come later
        inner, consts = _compat.open_jaxpr(jaxpr)
        results = self.flattener.walk(inner, consts, inputs, path, calls)
        nodes, self.nodes = self.nodes, kept
        return nodes, results


def flatten(
    jaxpr: Any,
    path: Path = (),
    calls: tuple[Call, ...] = (),
    roots: frozenset[str] = frozenset(),
    through: frozenset[int] = frozenset(),
    same: Sequence[int] = (),
) -> Graph:
    """Numbers the values of ``jaxpr``, unfolds its ``jit`` calls, and drops dead nodes.

    Args:
      jaxpr: open or closed.
      path: scope names around the whole.
      calls: calls around the whole.
      roots: names of scopes that stand for whole models.
      through: ``id`` s of equations that are seen through: they give what they read.
      same: for each argument the position of the first that is the same value; empty: all differ.
    """
    graph = Graph([], (), (), {}, set(), {}, {})
    graph.flattener = _Flattener(graph, roots, through)
    graph.flattener.run(jaxpr, path, calls, same)
    graph.labels = [node for node in graph.nodes if of(node.name).labels]
    graph.nodes = list(_needed(graph))
    return graph


class _Flattener:
    def __init__(self, graph: Graph, roots: frozenset[str], through: frozenset[int]):
        self.graph, self.roots, self.through = graph, roots, through
        self.values = itertools.count()
        self.call_numbers = itertools.count()
        self.made: dict[Any, list[int]] = {}
        self.literals: dict[Any, int] = {}

    def run(self, jaxpr: Any, path: Path, calls: tuple, same: Sequence[int]) -> None:
        inner, consts = _compat.open_jaxpr(jaxpr)
        inputs = [self.number(var.aval) for var in inner.invars]
        inputs = [inputs[k] for k in same or range(len(inputs))]
        self.graph.inputs = tuple(inputs)
        self.graph.outputs = tuple(self.walk(inner, consts, inputs, path, calls))

    def number(self, aval: Any) -> int:
        value = next(self.values)
        self.graph.avals[value] = aval
        return value

    def constant(self, content: Any, aval: Any) -> int:
        value = self.number(aval)
        self.graph.constants[value] = content
        return value

    def node(self, eqn: Any, operands: tuple[int, ...], path: Path, calls: tuple) -> list[int]:
        """Appends a node; of two equal equations (``exp(x) / exp(x).sum()``) there is one."""
        key = _key(eqn, operands)
        if key is not None and key in self.made:
            return self.made[key]
        results = [self.number(var.aval) for var in eqn.outvars]
        layer = normalise(path, self.roots)
        node = Node(eqn, eqn.primitive.name, operands, tuple(results), path, layer, calls)
        self.graph.nodes.append(node)
        if key is not None:
            self.made[key] = results
        return results

    def literal(self, content: Any, aval: Any) -> int:
        """Numbers a literal; equal scalars are one value."""
        if isinstance(content, jax.Array):  # it may be a tracer
            key = aval, id(content)
        else:  # by its bytes: 0.0 and -0.0 are two
            key = (aval, np.asarray(content).tobytes()) if np.ndim(content) == 0 else None
        if key is None or key not in self.literals:
            value = self.constant(content, aval)
            if not isinstance(content, jax.Array):  # else a parameter that happens to be a scalar
                self.graph.literals.add(value)
            if key is not None:
                self.literals[key] = value
            return value
        return self.literals[key]

    def walk(self, jaxpr: Any, consts: Sequence, inputs: Sequence[int], path: Path, calls: tuple):
        env: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, content in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.constant(content, var.aval)

        def read(atom: Any) -> int:
            if isinstance(atom, _compat.Literal):
                return self.literal(atom.val, atom.aval)
            return env[atom]

        for eqn in jaxpr.eqns:
            operands = tuple(read(atom) for atom in eqn.invars)
            where = path + _marked(_compat.scopes(eqn), calls)
            if _unfolds(eqn):
                body, body_consts = _compat.open_jaxpr(eqn.params[of(eqn.primitive.name).body])
                call = Call(str(eqn.params.get("name", "")), next(self.call_numbers), eqn)
                results = self.walk(body, body_consts, operands, where, (*calls, call))
                self.graph.calls[call.number] = (call, operands, tuple(results))
            elif id(eqn) in self.through:
                results = list(operands)
            else:
                results = self.node(eqn, operands, where, calls)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _marked(scopes: Path, calls: tuple[Call, ...]) -> Path:
    """Scopes of modules of unknown place told apart: ``jit`` may have traced one for many calls."""
    if not calls or not any(name.startswith("?") for name in scopes):
        return scopes
    number = calls[-1].number
    return tuple(f"{name}@{number}" if name.startswith("?") else name for name in scopes)


def _key(eqn: Any, operands: tuple[int, ...]) -> Any:
    """What makes two equations equal; None for those that are never merged."""
    if eqn.effects or eqn.primitive.name in CONTROL | OPAQUE:
        return None
    try:
        key = (eqn.primitive, operands, tuple(sorted(eqn.params.items())))
        hash(key)
    except TypeError:
        return None
    return key


def _unfolds(eqn: Any) -> bool:
    if eqn.primitive.name in ("closed_call", "remat2"):
        return True
    if eqn.primitive.name != "jit":
        return False
    shardings = (*eqn.params["in_shardings"], *eqn.params["out_shardings"])
    return all(_compat.is_unspecified(sharding) for sharding in shardings)


def _needed(graph: Graph) -> Iterator[Node]:
    """The nodes that the outputs or a side effect depend on.

    Consumers are counted to find patterns, so code that computes something and drops it must not
    count.
    """
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.eqn.effects or not needed.isdisjoint(node.results):
            needed.update(node.operands)
            kept.append(node)
    return reversed(kept)
