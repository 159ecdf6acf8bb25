"""Places: inner values that are explained, marked in a graph before anything is known of it.

A place is what a layer gives (``"Block_0/Dense_1"``), what it reads (``"Block_0/Dense_1:in"``), or
a value that the program gave a name (``jax.ad_checkpoint.checkpoint_name``). A node is put behind
it that hands on what it reads, and whoever read the value reads that node; of what a layer reads
only the layer itself does. To everything that is looked for in a graph the node is a border: so
what is explained is the function as it would be if it were split there.

What a layer gives is what others read of what was made within its scope. A layer that is called
again and again has a place for each call, ``"Dense_0#1"``; one that gives several values has a
place for each, ``"LSTM_0:1"``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .. import _compat
from .graph import HANDS_ON, PLACES, STARTS, Graph, Node
from .layers import modules, resolved
from .paths import Path, matches_path
from .primitives import of
from .steps import Fact

CUT = "|"
"""The name of what nothing passes."""


class Pattern(NamedTuple):
    """What is asked for.

    Attributes:
      text: as written.
      path: glob of a layer path, or a name.
      call: which call of the layer; None: any.
      reads: whether what the layer reads is meant.
      index: which of several values; None: any.
    """

    text: str
    path: str
    call: int | None
    reads: bool
    index: int | None

    @property
    def is_exact(self) -> bool:
        """Whether it is the name of one place, and no glob."""
        return not set(self.path) & set("*?[")

    def means(self, place: Pattern) -> bool:
        """Tells whether it matches a place, which is named by a pattern of its own."""
        named = fnmatch.fnmatchcase(place.path, self.path) and "/" not in place.path
        named = named or matches_path(self.path, tuple(place.path.split("/")))
        same = self.reads == place.reads and self.call in (None, place.call)
        return named and same and self.index in (None, place.index)


def pattern(text: str) -> Pattern:
    """Reads a place as it is written: ``"path"``, ``"path#call"``, ``"path:in"``, ``"path:1"``."""
    path, call, reads, index = _WRITTEN.fullmatch(text).groups()  # type: ignore[union-attr]
    return Pattern(
        text,
        path.strip("/"),
        None if call is None else int(call),
        bool(reads),
        None if index is None else int(index),
    )


_WRITTEN = re.compile(r"(.*?)(?:#(\d+))?(:in)?(?::(\d+))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Marks:
    """What is to be marked.

    Attributes:
      patterns: places asked for.
      starts: whether relevance starts there, since nothing else is explained.
      alone: patterns of places beside which nothing is to pass.
      data: ``id`` s of constants that are arguments, and no parameters; None: any may be.
      names: paths of parameter leaves by ``id``.
      seen: filled with the names of all places there are.
      modules: filled with the places of modules whose scopes do not tell them; see
        :mod:`jaxrel._plan.layers`.
    """

    patterns: tuple[Pattern, ...]
    starts: bool
    alone: tuple[Pattern, ...] = ()
    data: frozenset[int] | None = None
    names: Mapping[int, Path] = dataclasses.field(default_factory=dict)
    seen: dict[str, None] = dataclasses.field(default_factory=dict)
    modules: dict[Path, Path] = dataclasses.field(default_factory=dict)

    def among(self, constants: Iterable[Any], names: Mapping[int, Path]) -> Marks:
        """The same, of a program with these constants; it may hold none of the arguments itself."""
        data = (self.data or frozenset()).intersection(map(id, constants))
        return dataclasses.replace(self, data=data or None, names=names)

    def is_data(self, constant: Any) -> bool:
        """Tells whether a constant may be an argument."""
        return self.data is None or id(constant) in self.data

    def asks(self, path: str) -> bool:
        """Tells whether some pattern may mean a place of this path or name."""
        plain = _named(path, None, False, None)
        return any(
            p._replace(call=None, reads=False, index=None).means(plain) for p in self.patterns
        )

    def means(self, place: Pattern) -> bool:
        """Tells whether some pattern means this place."""
        return any(p.means(place) for p in self.patterns)


class Found(NamedTuple):
    """A value that may be a place: its name's parts, and who is to read the node instead."""

    name: Pattern
    value: int
    reads: Callable[[Node], bool]
    layer: Path


def mark(
    graph: Graph, marks: Marks, inputs: Sequence[Fact], goals: Sequence[int], around: Path
) -> None:
    """Puts nodes behind the places of a graph.

    Args:
      graph: flat.
      marks: what is wanted.
      inputs: facts of its inputs.
      goals: the values that are explained.
      around: path of the layer that the whole graph is of.
    """
    _Marker(graph, marks, inputs, goals, around).run()


class _Marker:
    def __init__(
        self,
        graph: Graph,
        marks: Marks,
        inputs: Sequence[Fact],
        goals: Sequence[int],
        around: Path,
    ):
        self.graph, self.marks, self.around = graph, marks, around
        facts = dict(zip(graph.inputs, inputs, strict=True))
        self.depends = {v for v, fact in facts.items() if fact.depends}
        if marks.starts:
            self.depends |= {v for v, fact in facts.items() if fact.data}
            self.depends |= {v for v, c in graph.constants.items() if marks.is_data(c)}
        moved = set(graph.constants) if marks.data is None else set()
        self.beside = {v for v, fact in facts.items() if fact.depends and not fact.live}
        self.useful = set(goals)
        for node in graph.nodes:
            if not self.depends.isdisjoint(node.operands):
                self.depends.update(node.results)
            if len(node.operands) == 1 and _is_moving(node) and node.operands[0] in moved:
                moved.update(node.results)
        self.depends -= moved
        for node in reversed(graph.nodes):
            if not self.useful.isdisjoint(node.results):
                self.useful.update(node.operands)

    def run(self) -> None:
        self.marks.modules.update(modules(self._origins()))
        self.graph.nodes = [
            dataclasses.replace(node, layer=resolved(node.layer, self.marks.modules))
            for node in self.graph.nodes
        ]
        self._put(self._labelled())
        layers = self._layers()
        for layer in sorted(layers, key=len, reverse=True):
            self._put(self._results(layer))
        for layer in sorted(layers, key=len):
            self._put(self._reads(layer))
        if self.beside and self.marks.starts:
            self._put_starts()
        for wanted in self.marks.alone:
            self._cut_beside(wanted)

    def _origins(self) -> Iterator[tuple[Path, Path]]:
        """Scopes, and the layers of the parameters that are read there."""
        constants = self.graph.constants.items()
        origin = {v: path for v, c in constants if (path := self.marks.names.get(id(c), ()))}
        for node in self.graph.nodes:
            found = [origin[v] for v in node.operands if v in origin]
            if len(node.operands) == 1 and _is_moving(node) and found:
                origin.update(dict.fromkeys(node.results, found[0]))
            yield from ((node.layer, path) for path in found)

    def _layers(self) -> list[Path]:
        """The layers whose scopes were opened in this graph, as far as they are asked for."""
        found: dict[Path, None] = {}
        for node in self.graph.nodes:
            for end in range(1, len(node.layer) + 1):
                if node.layer[:end] != self.around[:end]:
                    found[node.layer[:end]] = None
        self.marks.seen.update(("/".join(layer), None) for layer in found)
        return [layer for layer in found if self.marks.asks("/".join(layer))]

    def _labelled(self) -> Iterator[Found]:
        """What the program has named; also where nobody reads the named one."""
        labels = self.graph.labels
        written = (tuple(str(node.eqn.params["name"]).split("/")) for node in labels)
        names = ["/".join(resolved(name, self.marks.modules)) for name in written]
        self.marks.seen.update(dict.fromkeys(names))
        for k, (name, node) in enumerate(zip(names, labels, strict=True)):
            (value,) = node.operands
            if self.marks.asks(name) and self._counts(value):
                call = names[:k].count(name) if names.count(name) > 1 else None
                yield Found(_named(name, call, False, None), value, lambda _: True, node.layer)

    def _results(self, layer: Path) -> Iterator[Found]:
        """What others read of what was made in a layer."""
        runs, nodes = self._runs(layer), self.graph.nodes
        for number, (inside, made) in enumerate(runs):
            read = {v for node in nodes if node.results not in inside for v in node.operands}
            read.update(self.graph.outputs)
            values = [v for v in made if v in read and self._counts(v)]
            others = functools.partial(_is_outside, inside)
            yield from self._found(layer, number, len(runs), False, values, others)

    def _reads(self, layer: Path) -> Iterator[Found]:
        """What a layer reads of others: no parameters."""
        runs, nodes = self._runs(layer), self.graph.nodes
        for number, (inside, made) in enumerate(runs):
            mine = (node for node in nodes if node.results in inside)
            read = dict.fromkeys(v for node in mine for v in node.operands)
            values = [v for v in read if v not in made and self._counts(v)]
            own = functools.partial(_is_inside, inside)
            yield from self._found(layer, number, len(runs), True, values, own)

    def _found(
        self,
        layer: Path,
        number: int,
        calls: int,
        reads: bool,
        values: list[int],
        readers: Callable[[Node], bool],
    ) -> Iterator[Found]:
        call = number if calls > 1 else None
        for k, value in enumerate(values):
            index = k if len(values) > 1 else None
            yield Found(_named("/".join(layer), call, reads, index), value, readers, layer[:-1])

    def _runs(self, layer: Path) -> list[tuple[set[tuple[int, ...]], dict[int, None]]]:
        """For each call of a layer its nodes, by their results, and what they make in order.

        A call's nodes follow each other.
        """
        runs: list[tuple[set[tuple[int, ...]], dict[int, None]]] = []
        within = False
        for node in self.graph.nodes:
            if node.layer[: len(layer)] == layer:
                if not within:
                    runs.append((set(), {}))
                runs[-1][0].add(node.results)
                runs[-1][1].update(dict.fromkeys(node.results))
                within = True
            elif node.name not in PLACES:
                within = False
        return runs

    def _counts(self, value: int) -> bool:
        """Tells whether a value may be explained: a float between what is given and the goals."""
        aval = self.graph.avals[value]
        is_float = jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.inexact)
        return is_float and value in self.depends and value in self.useful

    def _put(self, found: Iterable[Found]) -> None:
        for place in list(found):
            self.marks.seen[place.name.text] = None
            if self.marks.means(place.name):
                self._insert(place.name.text, place.value, place.reads, place.layer)

    def _put_starts(self) -> None:
        """What is made of integers that differ at the baseline: embeddings of tokens."""
        started: set[int] = set()
        for node in list(self.graph.nodes):
            above = self.beside.intersection(node.operands)
            if above and started.isdisjoint(node.operands):
                for value in node.results:
                    dtype = getattr(self.graph.avals[value], "dtype", jnp.int32)
                    if not jnp.issubdtype(dtype, jnp.inexact):
                        self.beside.add(value)
                    else:
                        started.add(self._insert("", value, lambda _: True, node.layer))
            elif not started.isdisjoint(node.operands):
                started.update(node.results)

    def _cut_beside(self, wanted: Pattern) -> None:
        """Cuts all ways from what comes before some places that lead past them."""
        nodes = self.graph.nodes
        there = [n for n in nodes if n.name in PLACES and wanted.means(pattern(_label(n)))]
        before = {v for node in there for v in node.operands}
        after = {node.results for node in there}
        for node in reversed(nodes):
            if not before.isdisjoint(node.results):
                before.update(node.operands)
                after.add(node.results)
        past = {
            v for n in nodes if n.results not in after for v in n.operands if v in before
        }.union(before.intersection(self.graph.outputs))
        for value in past & self.depends if there else ():
            self._insert(CUT, value, functools.partial(_is_outside, after), ())

    def _insert(self, name: str, value: int, reads: Callable[[Node], bool], layer: Path) -> int:
        """Puts a node behind ``value``, or in front of those that are to read it."""
        graph, nodes = self.graph, self.graph.nodes
        aval = graph.avals[value]
        new = graph.flattener.number(aval)
        maker = next((k for k, node in enumerate(nodes) if value in node.results), -1)
        readers = [k for k, node in enumerate(nodes) if value in node.operands and reads(node)]
        calls = nodes[maker].calls if maker >= 0 else ()
        node = Node(
            _compat.named_identity(aval, name),
            STARTS if self.marks.starts else HANDS_ON,
            (value,),
            (new,),
            layer,
            layer,
            calls,
        )
        for k in readers:
            self._read(k, value, new)
        if reads(node):  # all but some nodes: the outputs too
            graph.outputs = tuple(new if v == value else v for v in graph.outputs)
        nodes.insert(maker + 1, node)
        for group in (self.depends, self.useful):
            group.update({new} if value in group else ())
        return new

    def _read(self, index: int, value: int, new: int) -> None:
        """Makes a node, and the calls around it, read ``new`` instead of ``value``."""
        graph, node = self.graph, self.graph.nodes[index]
        operands = tuple(new if v == value else v for v in node.operands)
        changed = dataclasses.replace(node, operands=operands)
        graph.nodes[index] = changed
        for call in node.calls:
            if call.number in graph.calls:
                known, reads, results = graph.calls[call.number]
                reads = tuple(new if v == value else v for v in reads)
                graph.calls[call.number] = known, reads, results


def _label(node: Node) -> str:
    return str(node.eqn.params["name"])


def _is_inside(inside: set[tuple[int, ...]], node: Node) -> bool:
    return node.results in inside


def _is_outside(inside: set[tuple[int, ...]], node: Node) -> bool:
    return node.results not in inside


def _is_moving(node: Node) -> bool:
    row = of(node.name)
    return row.moves or row.identity


def _named(path: str, call: int | None, reads: bool, index: int | None) -> Pattern:
    text = path + ("" if call is None else f"#{call}") + (":in" if reads else "")
    return Pattern(text + ("" if index is None else f":{index}"), path, call, reads, index)
