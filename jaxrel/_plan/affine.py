"""A matmul together with the constant affine operations that follow it: one map z = W x + b.

The bias add, running-average BatchNorm, per-channel scales and casts all belong to the same affine
map, so nothing has to be folded by hand before a rule looks at z, or at W and b. So does the sum
over the shards that a contraction was split over.

Scales must be foldable into the weights: numbers, or constants that vary only along the dimensions
that come from the weights (channels). Anything else ends the step, and is a linear step after it.
And a value that something else reads, on its way to what is explained, is not the map's own: the
map ends there. Observers and what is not explained do not count.
"""

from __future__ import annotations

import math

from .facts import is_contractionless, is_operator
from .functions import is_linear_in
from .graph import Node
from .known import Known
from .primitives import ALL, of
from .readers import Readers
from .steps import Group

Channels = list[bool] | None
"""For each dimension whether it is one of the weights' own; None: no longer known."""


def find_affine(known: Known, readers: Readers, taken: set[int], fold: bool) -> dict[int, Group]:
    """Finds each matmul with one live operand and what follows it, by the index of the last node.

    The chain goes on while the value has a single reader that is affine in it, and ends with its
    last arithmetic operation; or with a name that somebody gave to z, so that a checkpoint that
    saves this name saves what the rule reads.

    Args:
      known: the graph.
      readers: who reads what.
      taken: nodes that belong to other groups.
      fold: False: nothing but one bias add belongs to a matmul.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(known.nodes):
        live = known.live(node)
        if not of(node.name).contraction or len(live) != 1 or is_operator(known, node):
            continue
        chain = _chain(known, readers, index, taken, fold, _channels(known, node, 1 - live[0]))
        entry = (node.operands[live[0]],)
        groups[chain[-1]] = Group("matmul", tuple(chain), entry, of(node.name).contraction)
    return groups


def _chain(
    known: Known, readers: Readers, index: int, taken: set[int], fold: bool, channels: Channels
) -> list[int]:
    chain, ends, additions = [index], 1, 0
    while (following := _next(known, readers, chain[-1], taken)) is not None:
        value, node = known.nodes[chain[-1]].results[0], known.nodes[following]
        channels, fits = _after(known, node, value, channels)
        if not fits:
            break
        chain.append(following)
        if is_arithmetic(node):
            additions += 1
            if not fold and (node.name != "add" or additions > 1):
                break
            ends = len(chain)
        elif of(node.name).over_mesh or of(node.name).labels:
            ends = len(chain)
    return chain[:ends]


def is_arithmetic(node: Node) -> bool:
    """Tells whether a node adds to a value or scales it."""
    row = of(node.name)
    return is_contractionless(node) or (
        row.elementwise and row.signed and not row.moves and node.name != "select_n"
    )


def _next(known: Known, readers: Readers, index: int, taken: set[int]) -> int | None:
    """The only reader of a node's result, if it may belong to the same affine map."""
    following = readers.only(known.nodes[index].results[0])
    if following is None or following in taken:
        return None
    node = known.nodes[following]
    row = of(node.name)
    fits = row.moves or row.over_mesh or is_arithmetic(node)
    constant = sum(known.facts[v].depends for v in node.operands) == 1
    if not (fits and constant and len(node.results) == 1):
        return None
    # no complex scale folds into real weights
    made, given = node.results[0], known.nodes[index].results[0]
    return following if known.is_real(made) == known.is_real(given) else None


def _channels(known: Known, node: Node, weights: int) -> Channels:
    """For each dimension of a matmul's result whether it is one of the weights' own."""
    rank = len(known.shape(node.results[0]) or ())
    own = [False] * rank
    if node.name == "conv_general_dilated" and weights == 1:
        own[node.eqn.params["dimension_numbers"].out_spec[1]] = True
    elif node.name == "dot_general":
        contracted, batch = node.eqn.params["dimension_numbers"]
        shared = len(batch[0])
        free = [
            len(known.shape(value) or ()) - shared - len(contracted[k])
            for k, value in enumerate(node.operands)
        ]
        first = shared if weights == 0 else shared + free[0]
        for k in (*range(shared), *range(first, first + free[weights])):
            own[k] = True
    return own


def _after(known: Known, node: Node, value: int, channels: Channels) -> tuple[Channels, bool]:
    """Follows the channel dimensions through a node; tells whether the node fits in the map."""
    row = of(node.name)
    same_shape = known.shape(value) == known.shape(node.results[0])
    if row.over_mesh:
        return _over_mesh(node, channels)
    if known.is_same(node):
        return channels, True
    if node.name == "transpose":
        permutation = node.eqn.params["permutation"]
        return None if channels is None else [channels[k] for k in permutation], True
    if row.moves:
        return None, row.reshapes
    position = node.operands.index(value)
    if row.linear == (ALL,) and len(node.operands) > 1:  # a bias; a mask of logits is none
        masks = known.infinite.intersection(node.operands)
        return channels, same_shape and not masks
    if channels is None or not is_linear_in(known, node, [position]):
        return channels, False
    if len(node.operands) == 1:
        return channels, True
    if is_contractionless(node):
        return _scaled_by_contraction(known, node, position, channels)
    scale = node.operands[1 - position]
    shape = known.shape(scale) or ()
    along = all(size == 1 or own for size, own in zip(shape, channels, strict=False))
    fits = math.prod(shape) == 1 or (len(shape) == len(channels) and along)
    return channels, fits and same_shape


def _over_mesh(node: Node, channels: Channels) -> tuple[Channels, bool]:
    """A sum over devices, or a row of what they have: of another length along one dimension.

    A device has no weights for what others have along it, so no scale fits there.
    """
    params = node.eqn.params
    dimension = params.get("all_gather_dimension", params.get("scatter_dimension"))
    if channels is None or dimension is None:
        return channels, dimension is not None or "axes" in params
    changed = list(channels)
    if params["tiled"]:
        changed[dimension] = False
    elif "all_gather_dimension" in params:
        changed.insert(dimension, False)
    else:
        del changed[dimension]
    return changed, True


def _scaled_by_contraction(known: Known, node: Node, position: int, channels: list[bool]):
    """A scale written as an einsum: it must run along channels; it may change their order."""
    _, batch = node.eqn.params["dimension_numbers"]
    own = batch[position]
    rank = len(known.shape(node.operands[position]) or ())
    if len(known.shape(node.operands[1 - position]) or ()) != len(own):
        return channels, False
    order = [*own, *(k for k in range(rank) if k not in own)]
    return [channels[k] for k in order], all(channels[k] for k in own)


def find_scales(known: Known, readers: Readers, taken: set[int]) -> dict[int, Group]:
    """Finds runs of arithmetic with constants outside of matmuls: a BatchNorm on its own.

    Args:
      known: the graph.
      readers: who reads what.
      taken: nodes that belong to other groups.
    """
    groups: dict[int, Group] = {}
    seen = set(taken)
    for index, node in enumerate(known.nodes):
        dependent = [v for v in node.operands if known.facts[v].depends]
        if index in seen or not _is_scaling(known, node, dependent) or not known.live(node):
            continue
        chain = [index]
        while (following := _next(known, readers, chain[-1], seen)) is not None:
            value = known.nodes[chain[-1]].results[0]
            if not _is_scaling(known, known.nodes[following], [value]):
                break
            chain.append(following)
        seen.update(chain)
        groups[chain[-1]] = Group("linear", tuple(chain), (dependent[0],), "affine")
    return groups


def _is_scaling(known: Known, node: Node, dependent: list[int]) -> bool:
    if len(dependent) != 1 or not is_arithmetic(node) or is_contractionless(node):
        return False
    return is_linear_in(known, node, [node.operands.index(dependent[0])])


def find_pools(known: Known, readers: Readers, taken: set[int]) -> dict[int, Group]:
    """Finds averages: a sum over an axis or a window and the constant division that follows it.

    Args:
      known: the graph.
      readers: who reads what.
      taken: nodes that belong to other groups.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(known.nodes):
        if node.name not in ("reduce_sum", "reduce_window_sum") or not known.live(node):
            continue
        chain = [index]
        while (following := _next(known, readers, chain[-1], taken)) is not None:
            after, value = known.nodes[following], known.nodes[chain[-1]].results[0]
            chain.append(following)
            if after.name == "mul" or (after.name == "div" and after.operands[0] == value):
                entry = (node.operands[known.live(node)[0]],)
                groups[following] = Group("linear", tuple(chain), entry, "pool")
                break
            whole = of(after.name).moves and known.size(value) == known.size(after.results[0])
            if not (whole or of(after.name).over_mesh):
                break
    return groups
