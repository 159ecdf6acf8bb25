"""Along which axes a step treats its elements independently: examples, positions, channels.

What is said of one node is said of its dimension numbers: axis a of an operand goes to axis b of
the result if elements of the result at index i of b read elements of the operand at index i of a,
and no others. Where nothing is known an axis goes nowhere, which is always safe: it is then taken
to be mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .graph import Node
from .primitives import of
from .steps import Step

Axes = tuple[int | None, ...]
"""For each axis of an operand the axis of the result that it goes to; None: it is mixed."""


def independent_axes(step: Step, k: int) -> Axes:
    """Where each axis of operand ``k`` of a step goes in its first result."""
    start = step.operands[k]
    found: dict[int, Axes] = {}
    for node in step.nodes:
        ways = []
        for position, value in enumerate(node.operands):
            if value == start or value in found:
                rank = len(_shape(node.eqn.invars[position]))
                before = found.get(value, tuple(range(rank)))
                ways.append(_then(before, _axes(node, position)))
        if ways:
            found.update(dict.fromkeys(node.results, _all_of(ways)))
    rank = max((len(_shape(v)) for n in step.nodes for v, i in _read(n) if i == start), default=0)
    return found.get(step.results[0], (None,) * rank)


def _read(node: Node):
    return zip(node.eqn.invars, node.operands, strict=True)


def _then(first: Axes, second: Axes) -> Axes:
    return tuple(None if b is None else second[b] for b in first)


def _all_of(ways: list[Axes]) -> Axes:
    """What is said by all of several ways to the same value."""
    return tuple(axes[0] if len(set(axes)) == 1 else None for axes in zip(*ways, strict=True))


def _shape(atom: Any) -> tuple[int, ...]:
    return getattr(atom.aval, "shape", ())


def _axes(node: Node, position: int) -> Axes:
    """Where the axes of one operand of a node go."""
    operand, result = _shape(node.eqn.invars[position]), _shape(node.eqn.outvars[0])
    if node.name in _BY_NUMBERS:
        return _BY_NUMBERS[node.name](node.eqn, position)
    if operand == result and _each_alone(node.name):
        return tuple(range(len(operand)))
    if not operand:
        return ()
    return (None,) * len(operand)


def _each_alone(name: str) -> bool:
    """Tells whether elements are treated one by one; of calls those are asked that are one step."""
    row = of(name)
    return row.elementwise or row.identity or row.own_derivative


def _dot(eqn: Any, position: int) -> Axes:
    contracted, batch = eqn.params["dimension_numbers"]
    sizes = [len(_shape(atom)) for atom in eqn.invars]
    free = [
        [a for a in range(size) if a not in (*contracted[k], *batch[k])]
        for k, size in enumerate(sizes)
    ]
    shift = len(batch[0]) + (len(free[0]) if position else 0)
    goes = {a: b for b, a in enumerate(batch[position])}
    goes |= {a: b + shift for b, a in enumerate(free[position])}
    return tuple(goes.get(a) for a in range(sizes[position]))


def _conv(eqn: Any, position: int) -> Axes:
    numbers = eqn.params["dimension_numbers"]
    goes = {}
    if position == 0 and eqn.params["batch_group_count"] == 1:
        goes = {numbers.lhs_spec[0]: numbers.out_spec[0]}
    if position == 1 and eqn.params["batch_group_count"] == 1:
        goes = {numbers.rhs_spec[0]: numbers.out_spec[1]}
    return tuple(goes.get(a) for a in range(len(_shape(eqn.invars[position]))))


def _reduction(eqn: Any, position: int) -> Axes:
    rank = len(_shape(eqn.invars[position]))
    kept = [a for a in range(rank) if a not in eqn.params["axes"]]
    return tuple(kept.index(a) if a in kept else None for a in range(rank))


def _running(eqn: Any, position: int) -> Axes:
    rank = len(_shape(eqn.invars[position]))
    return tuple(None if a == eqn.params["axis"] else a for a in range(rank))


def _broadcast(eqn: Any, position: int) -> Axes:
    operand, result = _shape(eqn.invars[position]), _shape(eqn.outvars[0])
    if position:
        return (None,) * len(operand)
    placed = eqn.params["broadcast_dimensions"]
    return tuple(b if operand[a] == result[b] else None for a, b in enumerate(placed))


def _reshape(eqn: Any, position: int) -> Axes:
    """Axes before and behind all that is taken together or apart."""
    del position
    operand, result = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if eqn.params["dimensions"] is not None:
        return (None,) * len(operand)
    goes: list[int | None] = [None] * len(operand)
    pairs = list(zip(operand, result, strict=False))
    for a, (m, n) in enumerate(pairs):
        if m != n:
            break
        goes[a] = a
    for back, (m, n) in enumerate(zip(operand[::-1], result[::-1], strict=False), 1):
        if m != n or goes[len(operand) - back] is not None:
            break
        goes[len(operand) - back] = len(result) - back
    return tuple(goes)


def _transpose(eqn: Any, position: int) -> Axes:
    del position
    return tuple(eqn.params["permutation"].index(a) for a in range(len(eqn.params["permutation"])))


def _squeeze(eqn: Any, position: int) -> Axes:
    del position
    rank = len(_shape(eqn.invars[0]))
    kept = [a for a in range(rank) if a not in eqn.params["dimensions"]]
    return tuple(kept.index(a) if a in kept else None for a in range(rank))


def _moved(untouched: Callable[[Any, int], Any]) -> Callable[[Any, int], Axes]:
    """Of operations that move elements along some axes of a result of the same rank."""

    def axes(eqn: Any, position: int) -> Axes:
        operand, result = _shape(eqn.invars[position]), _shape(eqn.outvars[0])
        if len(operand) != len(result):
            return (None,) * len(operand)
        same = [
            m == n and untouched(eqn, a)
            for a, (m, n) in enumerate(zip(operand, result, strict=False))
        ]
        return tuple(a if flag else None for a, flag in enumerate(same))

    return axes


def _gather(eqn: Any, position: int) -> Axes:
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    operand, result = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if position:
        return (None,) * len(_shape(eqn.invars[1]))
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window = [a for a in range(len(operand)) if a not in gone]
    goes: dict[int, int] = dict(zip(window, numbers.offset_dims, strict=True))
    goes = {a: b for a, b in goes.items() if sizes[a] == operand[a]}
    batch = [b for b in range(len(result)) if b not in numbers.offset_dims]
    pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    goes |= {a: batch[b] for a, b in pairs}
    return tuple(goes.get(a) for a in range(len(operand)))


def _scatter(eqn: Any, position: int) -> Axes:
    numbers = eqn.params["dimension_numbers"]
    operand, updates = _shape(eqn.invars[0]), _shape(eqn.invars[2])
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [a for a in range(len(operand)) if a not in gone]
    whole = {
        b: a
        for a, b in zip(window, numbers.update_window_dims, strict=True)
        if updates[b] == operand[a]
    }
    batch = [b for b in range(len(updates)) if b not in numbers.update_window_dims]
    pairs = zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    whole |= {batch[b]: a for a, b in pairs}
    if position == 0:
        return tuple(a if a in whole.values() else None for a in range(len(operand)))
    if position == 2:
        return tuple(whole.get(b) for b in range(len(updates)))
    return (None,) * len(_shape(eqn.invars[1]))


_BY_NUMBERS: dict[str, Callable[[Any, int], Axes]] = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "gather": _gather,
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], _running),
    **dict.fromkeys(
        "reduce_sum reduce_max reduce_min reduce_prod argmax argmin reduce_or".split(), _reduction
    ),
    **dict.fromkeys(
        "scatter scatter-add scatter-sub scatter-mul scatter-min scatter-max".split(), _scatter
    ),
    "concatenate": _moved(lambda eqn, a: a != eqn.params["dimension"]),
    "pad": _moved(lambda eqn, a: tuple(eqn.params["padding_config"][a]) == (0, 0, 0)),
    "rev": _moved(lambda eqn, a: a not in eqn.params["dimensions"]),
    "sort": _moved(lambda eqn, a: a != eqn.params["dimension"]),
    **dict.fromkeys(["slice", "dynamic_slice"], _moved(lambda eqn, a: True)),
    "dynamic_update_slice": _moved(
        lambda eqn, a: _shape(eqn.invars[1])[a] == _shape(eqn.invars[0])[a]
    ),
}
