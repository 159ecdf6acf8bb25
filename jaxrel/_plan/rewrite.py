"""Other spellings of the same value, explained by the usual one.

Some programs compute a value in an order in which what is known of it is out of sight:

* attention that is normalised after the product with the values, (sum_k e_k v_k) / sum_k e_k, which
  is sum_k (e_k / sum e) v_k (Rabe and Staats 2021);
* the exponential of a logarithm of shares, exp(u - log sum exp(u)), which is exp(u) / sum exp(u);
* a value scaled by a statistic that has been multiplied by a live scale before,
  x * (rsqrt(v) * scale), which is (x * rsqrt(v)) * scale.

* a constant that meets a smaller live value, ``c / s`` with a scalar s, which is a function of s
  broadcast to c's shape.

There the usual spelling is entered beside, and a last node *stands in* for it: it has the value as
the program computes it, bit for bit, and hands all that it gets to the other. What nobody reads of
the usual spelling is never computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import _compat
from .graph import Node
from .kinds import kind_of
from .known import Known
from .primitives import of
from .quotients import Quotient, find_quotient, is_normalization
from .readings import index_root, read, read_from


@jax.custom_vjp
def stand_in(value: jax.Array, usual: jax.Array) -> jax.Array:
    """Returns ``value``; ``usual``, which is equal to it, gets its multiplier."""
    del usual
    return value


stand_in.defvjp(lambda value, usual: (value, None), lambda _, m: (None, m))


def rewritten(known: Known, node: Node) -> list[Node] | None:
    """Nodes to enter in place of ``node``; None: it stays as it is.

    Args:
      known: the graph up to the node.
      node: not yet entered.
    """
    live = [k for k, v in enumerate(node.operands) if known.facts[v].live]
    if len(live) == 1 and of(node.name).exponential:
        return _by_logarithm(known, node)
    if len(live) == 1 and of(node.name).elementwise:
        return _broadcast(known, node, live[0])
    if node.name not in ("div", "mul") or len(live) != 2 or len(node.results) != 1:
        return None
    if known.graph.avals[node.results[0]].dtype != known.graph.avals[node.operands[0]].dtype:
        return None
    return _deferred(known, node) or _live_scale(known, node)


def _broadcast(known: Known, node: Node, live: int) -> list[Node] | None:
    """A function of a live value that is broadcast: that of the value broadcast before."""
    value, graph = node.operands[live], known.graph
    shape, wanted = known.shape(value), known.shape(node.results[0])
    if shape == wanted or kind_of(node, [live])[0] != "nonlinearity":
        return None
    assert shape is not None and wanted is not None
    axes = range(len(wanted) - len(shape), len(wanted))
    jaxpr = _compat.trace_on(lambda x: lax.broadcast_in_dim(x, wanted, axes), [graph.avals[value]])
    nodes, (larger,) = graph.splice(jaxpr, [value], node.path, node.calls)
    operands = tuple(larger if k == live else v for k, v in enumerate(node.operands))
    return [*nodes, dataclasses.replace(node, operands=operands)]


def _spliced(
    known: Known, node: Node, usual: Callable[..., Any], operands: Sequence[int]
) -> list[Node] | None:
    """The nodes of ``usual(*operands)``, those of ``node``, and what stands in for it."""
    graph = known.graph
    avals = [graph.avals[v] for v in operands]
    jaxpr = _compat.trace_on(usual, avals)
    result = graph.avals[node.results[0]]
    nodes, (other,) = graph.splice(jaxpr, operands, node.path, node.calls)
    if graph.avals[other].shape != result.shape or graph.avals[other].dtype != result.dtype:
        return None
    (value,) = (graph.flattener.number(result),)
    last = _compat.trace_on(stand_in, [result, result])
    (eqn,) = _compat.open_jaxpr(last)[0].eqns
    original = dataclasses.replace(node, results=(value,))
    end = dataclasses.replace(
        node, eqn=eqn, name="stand_in", operands=(value, other), stands_in=True
    )
    return [*nodes, original, end]


def _deferred(known: Known, node: Node) -> list[Node] | None:
    quotient = _quotient_of(known, node)
    if quotient is None or quotient.power != 1:
        return None
    below = read(known, quotient.denominator, sums=True)
    above = read(known, quotient.numerator, sums=False)
    product = known.node(above.source)
    if below.total is None or product is None or product.name != "dot_general" or above.factors:
        return None
    if len(known.live(product)) != 2:
        return None
    contracted, batch = product.eqn.params["dimension_numbers"]
    for side in (0, 1):
        labels = _side_labels(known, product, side, above.labels, above.rank)
        weights = read_from(known, product.operands[side], labels, sums=False)
        if weights.source != below.source or not _is_exponential(known, weights.source):
            continue
        if below.placed(below.factors) != weights.placed(weights.factors):
            continue
        places = {label: k for k, label in enumerate(weights.labels) if label is not None}
        of_total = {k: label for k, label in enumerate(below.labels)}
        inner = {k for label, k in places.items() if label >= above.rank}
        if below.summed() != inner or below.groups or below.meshes:
            continue
        if any(of_total[k] != label for label, k in places.items() if label < above.rank):
            continue
        rank = len(known.shape(product.operands[side]) or ())
        moves = [known.nodes[k] for k in sorted(above.path)]
        order = [label if label is not None and label < above.rank else None for label in labels]
        usual = _usual_attention(product, side, order, rank, moves, above.source)
        return _spliced(known, node, usual, (*product.operands, quotient.denominator))
    return None


def _quotient_of(known: Known, node: Node) -> Quotient | None:
    """The quotient that a node not yet entered ends; only the plain one."""
    if node.name == "div":
        return Quotient((), node.operands[0], node.operands[1], 1.0, node.operands[1])
    return None


def _is_exponential(known: Known, value: int) -> bool:
    maker = known.node(value)
    return maker is not None and of(maker.name).exponential is not None


def _side_labels(known: Known, product: Node, side: int, labels: Sequence[Any], rank: int):
    """Labels of one operand of a product, by those of its result; contracted ones are new."""
    contracted, batch = product.eqn.params["dimension_numbers"]
    size = len(known.shape(product.operands[side]) or ())
    free = [k for k in range(size) if k not in contracted[side] and k not in batch[side]]
    start = len(batch[0])
    if side == 1:
        start = len(labels) - len(free)
    found: list[Any] = [None] * size
    for k, dim in enumerate(batch[side]):
        found[dim] = labels[k]
    for k, dim in enumerate(free):
        found[dim] = labels[start + k]
    for k, dim in enumerate(contracted[side]):
        found[dim] = rank + k
    return found


def _usual_attention(
    product: Node, side: int, order: Sequence[Any], rank: int, moves: Sequence[Node], source: int
) -> Callable[..., Any]:
    """Returns (e / total) times v, moved as the program moves e times v."""

    def usual(a: Any, b: Any, total: Any) -> Any:
        operands = [a, b]
        kept = [k for k in order if k is not None]
        arranged = total[tuple(slice(None) if k in kept else 0 for k in range(total.ndim))]
        arranged = jnp.transpose(arranged, [sorted(kept).index(k) for k in kept])
        arranged = jnp.expand_dims(arranged, [k for k, label in enumerate(order) if label is None])
        operands[side] = operands[side] / arranged
        (y,) = _compat.bind(product.eqn, operands)
        for node in moves:
            (y,) = _compat.bind(node.eqn, [y])
        return y

    return usual


def _by_logarithm(known: Known, node: Node) -> list[Node] | None:
    difference = known.node(node.operands[0])
    if difference is None or difference.name != "sub" or len(known.live(difference)) != 2:
        return None
    u, subtracted = difference.operands
    reading = read(known, subtracted, sums=False)
    log, shift = known.node(reading.source), None
    if log is not None and log.name == "add" and len(known.live(log)) == 1:  # max + log sum
        (k,) = known.live(log)
        shift, log = log.operands[1 - k], known.node(log.operands[k])
    if log is None or of(log.name).logarithm != of(node.name).exponential:
        return None
    below = read_from(known, log.operands[0], reading.labels, sums=True)
    source = known.node(below.source)
    if below.total is None or below.factors or below.after or below.groups or below.guarded:
        return None
    if source is None or source.name != node.name or not _is_shifted(known, source, u, shift):
        return None
    if any(label not in (k, None) and label < reading.rank for k, label in enumerate(below.labels)):
        return None
    moves = [known.nodes[k] for k in sorted(reading.path)]

    def usual(e: Any, total: Any) -> Any:
        for move in moves:
            (total,) = _compat.bind(move.eqn, [total])
        return e / total

    return _spliced(known, node, usual, (below.source, log.operands[0]))


def _is_shifted(known: Known, exponential: Node, u: int, shift: int | None) -> bool:
    """Tells whether exponentials are those of u, or of u minus what is added to their logarithm."""
    logits = exponential.operands[0]
    if shift is None:
        return logits == u
    node = known.node(logits)
    if node is None or node.name != "sub" or node.operands[0] != u:
        return False
    return index_root(known, node.operands[1]) == index_root(known, shift)


def _live_scale(known: Known, node: Node) -> list[Node] | None:
    """A value times (r * scale), where r is what normalizes it: the product of x * r and scale."""
    if node.name != "mul":
        return None
    for k in (0, 1):
        value, other = node.operands[k], node.operands[1 - k]
        reading = read(known, other, sums=False)
        product = known.node(reading.source)
        if product is None or product.name != "mul" or len(known.live(product)) != 2:
            continue
        if any(len(known.nodes[i].operands) != 1 for i in reading.path):
            continue
        inner = find_quotient(known, known.producer[reading.source])
        if inner is None or is_normalization(known, inner):
            continue
        if not is_normalization(known, inner._replace(numerator=value)):
            continue
        for j in (0, 1):
            if product.operands[j] != inner.divisor:
                continue
            moves = [known.nodes[i] for i in sorted(reading.path)]
            operands = (value, product.operands[j], product.operands[1 - j])
            return _spliced(known, node, _usual_scale(product, moves), operands)
    return None


def _usual_scale(product: Node, moves: Sequence[Node]) -> Callable[..., Any]:
    """Returns (x * r) * scale, both moved as the program moves their product."""
    shape = product.eqn.outvars[0].aval.shape

    def moved(part: Any) -> Any:
        part = jnp.broadcast_to(part, shape)
        for node in moves:
            (part,) = _compat.bind(node.eqn, [part])
        return part

    def usual(x: Any, r: Any, scale: Any) -> Any:
        return (x * moved(r)) * moved(scale)

    return usual
