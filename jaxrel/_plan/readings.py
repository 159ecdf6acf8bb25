"""A value read back: what it is the sum of, along which dimensions, under which masks.

A pattern such as softmax says that two values are *the same numbers*, in the same places. So as one
walks back from a value, through what only moves, masks, scales and adds up, it is kept in mind
which dimension is which:

    total[b, 0] = sum_k mask[k] e[b, k]     source e, dims (0, None), summed {1}, factors {mask[1]}

Every dimension of the value where the walk begins gets a label, and every dimension that is summed
over a new one; each operation backwards tells which of its operand's dimensions has which label.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from .graph import Node
from .known import Known
from .primitives import of

Label = int | None
"""None: of length 1, or a dimension along which nothing varies."""


@dataclasses.dataclass
class Reading:
    """What a value is, told by another one.

    Attributes:
      source: the value where the walk ended.
      labels: for each dimension of the source its label; those below ``rank`` are dimensions of the
        value that was read.
      rank: how many dimensions that has.
      factors: what the elements are multiplied by, masks or scales, before they are summed: a
        constant and its labels.
      after: the same after the sum.
      meshes: named axes that are summed over.
      groups: a number for each group of elements that are summed (a segment), as the indices that
        tell it and the label of the dimension they stand for.
      total: the value of the complete sum; None: nothing is summed.
      guarded: a constant is added to the sum, or it has a least value.
      path: indices of the nodes passed.
    """

    source: int
    labels: tuple[Label, ...]
    rank: int
    factors: set[Any] = dataclasses.field(default_factory=set)
    after: set[Any] = dataclasses.field(default_factory=set)
    meshes: tuple[Any, ...] = ()
    groups: tuple[int, Label] | None = None
    total: int | None = None
    guarded: bool = False
    path: list[int] = dataclasses.field(default_factory=list)

    def dims(self) -> dict[int, int]:
        """For each dimension of the value that was read the source's, where it has one."""
        pairs = enumerate(self.labels)
        return {label: k for k, label in pairs if label is not None and label < self.rank}

    def summed(self) -> frozenset[int]:
        """Dimensions of the source that are summed over."""
        pairs = enumerate(self.labels)
        return frozenset(k for k, label in pairs if label is not None and label >= self.rank)

    def placed(self, factors: set[Any]) -> set[Any]:
        """Factors by the dimensions of the source that they vary along."""
        places = {label: k for k, label in enumerate(self.labels)}
        return {(value, tuple(places.get(label) for label in labels)) for value, labels in factors}


def read(known: Known, value: int, sums: bool) -> Reading:
    """Reads a value back through moves, masks, scales and, if asked, sums."""
    return read_from(known, value, tuple(range(len(known.shape(value) or ()))), sums)


def read_from(known: Known, value: int, labels: Sequence[Label], sums: bool) -> Reading:
    """Like :func:`read`, with labels for the value's dimensions."""
    rank = len(labels)
    reading = Reading(value, tuple(labels), rank)
    fresh = itertools.count(rank)
    while True:
        index = known.producer.get(reading.source)
        if index is None or len(known.nodes[index].results) != 1:
            return reading
        node = known.nodes[index]
        live = known.live(node)
        if len(live) != 1 and not (sums and node.name.startswith("scatter-add")):
            return reading
        step = _STEPS.get(node.name) or (_same if known.is_same(node) else None)
        if step is None or not live:
            return reading
        labels = step(known, node, live[0], reading, fresh, sums)
        if labels is None:
            return reading
        reading.path.append(index)
        reading.source, reading.labels = node.operands[live[0]], tuple(labels)


def _same(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del known, node, live, fresh, sums
    return reading.labels


def _absolute(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """What is >= 0 anyway."""
    del live, fresh, sums
    return reading.labels if known.facts[node.operands[0]].nonneg else None


def _transpose(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del known, live, fresh, sums
    labels: list[Label] = [None] * len(reading.labels)
    for k, source in enumerate(node.eqn.params["permutation"]):
        labels[source] = reading.labels[k]
    return labels


def _broadcast(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del live, fresh, sums
    before, after = known.shape(node.operands[0]), known.shape(node.results[0])
    places = node.eqn.params["broadcast_dimensions"]
    assert before is not None and after is not None
    pairs = zip(places, before, strict=True)
    return [reading.labels[k] if size == after[k] else None for k, size in pairs]


def _reshape(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """Only dimensions of length 1 may come and go."""
    del live, fresh, sums
    before, after = known.shape(node.operands[0]), known.shape(node.results[0])
    assert before is not None and after is not None
    long = [label for label, size in zip(reading.labels, after, strict=True) if size != 1]
    if [n for n in before if n != 1] != [n for n in after if n != 1]:
        return None
    rest = iter(long)
    return [None if size == 1 else next(rest) for size in before]


def _reduce_sum(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del live
    if not sums:
        return None
    axes = node.eqn.params["axes"]
    rest = iter(reading.labels)
    rank = len(known.shape(node.operands[0]) or ())
    reading.total = node.results[0] if reading.total is None else reading.total
    return [next(fresh) if k in axes else next(rest) for k in range(rank)]


def _psum(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del known, live, fresh
    if not sums or node.eqn.params.get("axis_index_groups") is not None:
        return None
    reading.total = node.results[0] if reading.total is None else reading.total
    reading.meshes += tuple(node.eqn.params["axes"])
    return reading.labels


def _scale(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """A product with a constant, or a quotient by one."""
    del fresh
    if node.name == "div" and live != 0:
        return None
    other = node.operands[1 - live]
    before, after = known.shape(node.operands[live]) or (), known.shape(node.results[0]) or ()
    if known.facts[other].depends or (len(before) != len(after)):
        return None
    _factor(known, reading, (node.name, other), other, reading.labels, sums)
    sizes = zip(reading.labels, before, after, strict=True)
    return [label if n == size else None for label, n, size in sizes]


def _negated(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del node, live, fresh
    _factor(known, reading, ("neg", -1), None, (), sums)
    return reading.labels


def _masked(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """A selection between a value and 0."""
    del fresh
    condition, *cases = node.operands
    others = [v for k, v in enumerate(cases, 1) if k != live]
    if known.facts[condition].depends or any(known.literal(v) != 0 for v in others):
        return None
    if known.shape(condition) != known.shape(node.results[0]):
        return None
    _factor(known, reading, (f"case {live}", condition), condition, reading.labels, sums)
    return reading.labels


def _factor(
    known: Known, reading: Reading, factor: Any, value: int | None, labels: Any, sums: bool
) -> None:
    shape = () if value is None else known.shape(value) or ()
    along = labels[len(labels) - len(shape) :] if len(shape) == len(labels) else ()
    used = tuple(label for label, n in zip(along, shape, strict=False) if n != 1)
    late = sums and reading.total is None
    (reading.after if late else reading.factors).add((factor, used))


def _contraction(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """A product with a constant: of ones, it is a sum; without a contraction, a scale."""
    (contracted, batch) = node.eqn.params["dimension_numbers"]
    other = node.operands[1 - live]
    if known.facts[other].depends:
        return None
    rank = len(known.shape(node.operands[live]) or ())
    own, own_batch = contracted[live], batch[live]
    free = [k for k in range(rank) if k not in own and k not in own_batch]
    start = len(own_batch)
    if live == 1:
        other_rank = len(known.shape(other) or ())
        start = other_rank - len(contracted[0])
    labels: list[Label] = [None] * rank
    for k, dim in enumerate(own_batch):
        labels[dim] = reading.labels[k]
    for k, dim in enumerate(free):
        labels[dim] = reading.labels[start + k]
    if not own:
        along = {o: labels[d] for o, d in zip(batch[1 - live], own_batch, strict=True)}
        if len(known.shape(other) or ()) != len(along):
            return None
        used = tuple(along[k] for k in sorted(along))
        late = sums and reading.total is None
        (reading.after if late else reading.factors).add((("dot", other), used))
        return labels
    if not sums or known.literal(other) != 1:
        return None
    for dim in own:
        labels[dim] = next(fresh)
    reading.total = node.results[0] if reading.total is None else reading.total
    return labels


def _guard(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """A constant added to a sum, or its least value, that keeps it away from 0."""
    del fresh
    if not sums or reading.total is not None or known.facts[node.operands[1 - live]].depends:
        return None
    if known.shape(node.operands[live]) != known.shape(node.results[0]):
        return None
    reading.guarded = True
    return reading.labels


def _gather(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    """Sums of groups, each handed to its members: ``segment_sum(e, i, n)[i]``."""
    del fresh
    numbers = node.eqn.params["dimension_numbers"]
    if not sums or live != 0 or reading.total is not None or numbers.operand_batching_dims:
        return None
    if numbers.collapsed_slice_dims != (0,) or numbers.start_index_map != (0,):
        return None
    if known.facts[node.operands[1]].depends:
        return None
    batch = [k for k in range(len(reading.labels)) if k not in numbers.offset_dims]
    if len(batch) != 1 or batch[0] != 0:
        return None
    reading.groups = (index_root(known, node.operands[1]), reading.labels[0])
    return (None, *reading.labels[1:])


def _scatter_add(known: Known, node: Node, live: int, reading: Reading, fresh: Any, sums: bool):
    del fresh
    numbers = node.eqn.params["dimension_numbers"]
    if not sums or live != 2 or reading.groups is None or reading.total is not None:
        return None
    operand, indices, _ = node.operands
    if known.literal(operand) != 0 or known.facts[indices].depends:
        return None
    if numbers.inserted_window_dims != (0,) or numbers.scatter_dims_to_operand_dims != (0,):
        return None
    root, label = reading.groups
    if index_root(known, indices) != root or numbers.operand_batching_dims:
        return None
    reading.total = node.results[0]
    return (label, *reading.labels[1:])


def index_root(known: Known, value: int) -> int:
    """Where indices come from, before negative ones are counted from the end and shapes fit."""
    while (node := known.node(value)) is not None:
        moved = of(node.name).moves or node.name == "select_n"
        if not moved:
            return value
        cases = node.operands[1:] if node.name == "select_n" else node.operands[:1]
        value = min(cases, key=lambda v: known.producer.get(v, -1))
    return value


_STEPS = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "reduce_sum": _reduce_sum,
    "psum": _psum,
    "psum_invariant": _psum,
    "psum2": _psum,
    "mul": _scale,
    "div": _scale,
    "neg": _negated,
    "abs": _absolute,
    "select_n": _masked,
    "dot_general": _contraction,
    "add": _guard,
    "max": _guard,
    "gather": _gather,
    "scatter-add": _scatter_add,
}
"""How an operation is read backwards: labels of its result -> labels of its live operand.

Not a list of what is allowed to occur: each of these says what the operation means for dimensions,
and gives up where it cannot.
"""
