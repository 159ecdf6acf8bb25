"""Quotients, however they are written, and which of them are shares of a sum or normalizations.

    a / b        a * (1 / b)        a * b ** -1        a * rsqrt(v)

are all a / v^power, one step with the live operands (a, v). What is claimed beyond that:

* a *share*: b is the sum of the very numbers a, along the dimensions where it is constant, under
  the same mask. Of exponentials this is a softmax; of anything that is >= 0 it is a mean's weights.
* a *normalization*: b is a root of sums of what a is made of, of the same degree: scaling the value
  they are both made of changes nothing (but for what keeps b from 0).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .known import Known
from .primitives import of
from .readings import Reading, read
from .steps import Group, Shares


class Quotient(NamedTuple):
    """The quotient a / v^power.

    Attributes:
      nodes: indices of what is divided by and of the division, in order.
      numerator: a.
      denominator: v.
      power: see above.
      divisor: the value that is broadcast to a's shape and meets it: v^power or its reciprocal.
    """

    nodes: tuple[int, ...]
    numerator: int
    denominator: int
    power: float
    divisor: int


def find_quotient(known: Known, index: int) -> Quotient | None:
    """The quotient of two live values that ends in node ``index``, if there is one."""
    node = known.nodes[index]
    live = known.live(node)
    if node.name not in ("div", "mul") or len(live) != 2:
        return None
    a, b = node.operands
    if node.name == "div":
        return Quotient((index,), a, b, 1.0, b)
    for value, other in ((a, b), (b, a)):
        found = _reciprocal(known, other)
        if found is not None and _reciprocal(known, value) is None:
            nodes, denominator, power = found
            return Quotient((*nodes, index), value, denominator, power, other)
    return None


def _reciprocal(known: Known, value: int) -> tuple[tuple[int, ...], int, float] | None:
    """Nodes that make ``value`` = c / v^power, c constant, with v and the power."""
    reading = read(known, value, sums=False)
    index = known.producer.get(reading.source)
    if index is None:
        return None
    node = known.nodes[index]
    live = known.live(node)
    if len(live) != 1:
        return None
    power = None
    if node.name == "div" and live == [1]:
        power = 1.0
        if known.facts[node.operands[0]].depends:
            return None
    elif node.name == "rsqrt":
        power = 0.5
    elif node.name == "integer_pow" and node.eqn.params["y"] < 0:
        power = -float(node.eqn.params["y"])
    elif node.name == "pow" and live == [0]:
        exponent = known.literal(node.operands[1])
        power = -float(exponent) if exponent is not None and exponent < 0 else None
    denominator = node.operands[live[0]]
    if power is None or _is_function(known, denominator):
        return None
    return tuple(sorted({index, *reading.path})), denominator, power


def _is_function(known: Known, value: int) -> bool:
    """Tells whether a denominator is a function that makes one with its reciprocal: a sigmoid.

    Sums, roots and powers do not: they are of some degree in what they are made of.
    """
    for _ in range(8):
        index = known.producer.get(value)
        node = known.node(value)
        live = [] if node is None else known.live(node)
        if node is None or index is None or len(live) != 1:
            return False
        if index in known.insides or not known.is_elementwise(index, [node.operands[live[0]]]):
            return False
        row = of(node.name)
        if row.unary and row.degree is None and node.name != "integer_pow":
            return True
        value = node.operands[live[0]]
    return False


# ------------------------------------------------------------------------------------------ shares


class Share(NamedTuple):
    """A quotient of numbers by their sum.

    Attributes:
      source: the numbers.
      nodes: what makes the shares of them.
      total: the value that is their sum.
      axes: dimensions of the shares along which they add up to one; empty: not any one dimension.
      guarded: what is divided by, if a constant is added to the sum, or it has a least value.
    """

    source: int
    nodes: tuple[int, ...]
    total: int
    axes: frozenset[int]
    guarded: int | None


def find_share(known: Known, quotient: Quotient) -> Share | None:
    """The share that a quotient is, if it is one."""
    if quotient.power != 1:
        return None
    above = read(known, quotient.numerator, sums=False)
    below = read(known, quotient.denominator, sums=True)
    if below.total is None or above.source != below.source:
        return None
    axes = _adds_up(known, quotient, above, below)
    if axes is None:
        return None
    nodes = tuple(sorted({*above.path, *below.path, *quotient.nodes}))
    guarded = quotient.denominator if below.guarded else None
    return Share(above.source, nodes, below.total, axes, guarded)


def _adds_up(
    known: Known, quotient: Quotient, above: Reading, below: Reading
) -> frozenset[int] | None:
    """Dimensions of the quotient along which it adds up; None if it is no share.

    Wherever the numerator runs along a dimension of the source, the sum must run along the same, or
    be over it.
    """
    own = above.dims()
    places = _divisor_places(known, quotient)
    totals = {places[k]: d for k, d in below.dims().items() if k in places}
    summed = below.summed()
    masks = above.placed(above.factors) | _vanishing(known, above.source)
    if not below.placed(below.factors) <= masks:
        return None
    shape = known.shape(above.source) or ()
    covered = {*own.values()}
    if any(size != 1 and k not in covered for k, size in enumerate(shape)):
        return None
    grouped = None if below.groups is None else below.groups[1]
    axes = set()
    for k, dim in own.items():
        if k in totals:
            if totals[k] != dim:
                return None
            if grouped is not None and totals[k] == below.labels.index(grouped):
                axes.add(k)  # members of a group add up, wherever they stand
        elif dim in summed:
            axes.add(k)
        else:
            return None
    if set(totals) - set(own):
        return None
    return frozenset(axes) if axes or below.meshes else None


def _vanishing(known: Known, source: int) -> set[Any]:
    """Masks under which exponentials are 0 already: their logits are -inf there."""
    node = known.node(source)
    if node is None or not of(node.name).exponential:
        return set()
    value = node.operands[0]
    while (node := known.node(value)) is not None:
        live = known.live(node)
        if len(live) != 1 or known.shape(node.operands[live[0]]) != known.shape(source):
            return set()
        if node.name == "select_n":
            condition, *cases = node.operands
            others = [known.literal(v) for k, v in enumerate(cases, 1) if k != live[0]]
            if known.facts[condition].depends or any(v != -math.inf for v in others):
                return set()
            rank = range(len(known.shape(condition) or ()))
            sizes = known.shape(condition) or ()
            along = tuple(k for k in rank if sizes[k] != 1)
            return {((f"case {live[0]}", condition), along)}
        if not (of(node.name).linear or known.is_same(node)):
            return set()
        value = node.operands[live[0]]
    return set()


def _divisor_places(known: Known, quotient: Quotient) -> dict[int, int]:
    """For each dimension of the denominator that of the quotient that it is put along."""
    shape = known.shape(quotient.numerator) or ()
    reading = read(known, quotient.divisor, sums=False)
    rank = len(known.shape(quotient.divisor) or ())
    shift = len(shape) - rank if rank == len(shape) else 0
    if quotient.divisor == quotient.denominator:
        return {k: k + shift for k in range(rank)}
    return {d: k + shift for k, d in reading.dims().items()}


def find_softmax(known: Known, share: Share, parts: bool) -> Group | None:
    """The softmax that a share of exponentials is.

    Args:
      known: the graph.
      share: of whatever.
      parts: whether one with a constant in the denominator is left to be taken apart.
    """
    if share.guarded is not None and parts:
        return None
    index = known.producer.get(share.source)
    if index is not None and of(known.nodes[index].name).exponential:
        nodes = tuple(sorted({index, *share.nodes}))
        shares = Shares(nodes.index(index), share.total, True, share.guarded)
        return Group("softmax", nodes, (known.nodes[index].operands[0],), shares=shares)
    role = known.facts[share.source].role
    if role is not None and role.name == "weights":  # a softmax, masked and shared out again
        along = tuple(sorted(role.axes or ()))
        shares = Shares(None, share.total, True, share.guarded, along)
        return Group("softmax", share.nodes, (share.source,), shares=shares)
    return None


def find_log_total(known: Known, index: int) -> Group | None:
    """The logarithm of a sum of exponentials that ends in node ``index``."""
    node = known.nodes[index]
    if node.name != "log" or not known.live(node):
        return None
    reading = read(known, node.operands[0], sums=True)
    source = known.producer.get(reading.source)
    if reading.total is None or source is None or not of(known.nodes[source].name).exponential:
        return None
    if reading.groups is not None:
        return None
    nodes = tuple(sorted({source, *reading.path, index}))
    guarded = node.operands[0] if reading.guarded else None
    shares = Shares(nodes.index(source), reading.total, False, guarded)
    return Group("softmax", nodes, (known.nodes[source].operands[0],), shares=shares)


# ---------------------------------------------------------------------------------- normalizations


def is_normalization(known: Known, quotient: Quotient) -> bool:
    """Tells whether a quotient is scaled by a root of sums of what its numerator is made of."""
    return _Statistic(known, quotient).holds()


class _Statistic:
    """Degrees of the values between a denominator and what it is made of.

    A value has degree k if it is scaled by c^k where the value it is made of is scaled by c > 0,
    but for constants that are added to keep it from 0.
    """

    def __init__(self, known: Known, quotient: Quotient):
        self.known, self.quotient = known, quotient
        self.rooted = quotient.power == 0.5
        self.degrees: dict[int, float | None] = {}

    def holds(self) -> bool:
        quotient = self.quotient
        for start in self._starts(quotient.numerator):
            self.degrees.clear()
            self.degrees[start], self.rooted = 1.0, quotient.power == 0.5
            if start == quotient.denominator or not self._is_summed(quotient.denominator, start):
                continue
            degree = self._degree(quotient.denominator)
            if degree is not None and abs(degree * quotient.power - 1) < 1e-6 and self.rooted:
                return True
        return False

    def _starts(self, numerator: int) -> list[int]:
        """What a numerator may be a linear function of: itself, what it is read from ..."""
        known = self.known
        found, value = [numerator], numerator
        while (node := known.node(value)) is not None and len(found) < 16:
            row, live = of(node.name), known.live(node)
            if not live or not (row.linear or row.bilinear) or len(live) > 2:
                break
            if len(live) == 2:
                value = self._centred(node.operands) if node.name == "sub" else None
            else:
                value = node.operands[live[0]]
            if value is None:
                break
            found.append(value)
        return found

    def _centred(self, operands: tuple[int, ...]) -> int | None:
        """The value x of a difference x - mean(x)."""
        x, mean = operands
        stack, seen = [mean], set()
        while stack:
            value = stack.pop()
            node = self.known.node(value)
            if value == x or node is None or value in seen:
                continue
            seen.add(value)
            row, live = of(node.name), self.known.live(node)
            if not (row.linear or row.bilinear) or len(live) != 1:
                return None
            stack.append(node.operands[live[0]])
        return x

    def _is_summed(self, value: int, start: int) -> bool:
        """Tells whether every live way from ``start`` to ``value`` leads through a sum."""
        known = self.known
        stack, seen, reached = [value], {value}, False
        while stack:
            here = stack.pop()
            node = known.node(here)
            if here == start:
                return False
            if node is None or len(seen) > 64:
                return False
            if self._reduces(node):
                reached = True
                continue
            for k in known.live(node):
                if node.operands[k] not in seen:
                    seen.add(node.operands[k])
                    stack.append(node.operands[k])
        return reached

    def _reduces(self, node) -> bool:
        if of(node.name).sums:
            return True
        return node.name == "dot_general" and bool(node.eqn.params["dimension_numbers"][0][0])

    def _degree(self, value: int) -> float | None:
        if value not in self.degrees:
            self.degrees[value] = None  # what comes round to itself has none
            node = self.known.node(value)
            if node is not None and len(self.degrees) < 128:
                self.degrees[value] = self._of_node(node)
        return self.degrees[value]

    def _of_node(self, node) -> float | None:
        known, row = self.known, of(node.name)
        live = [node.operands[k] for k in known.live(node)]
        if not live:
            return None
        degrees = [self._degree(value) for value in live]
        if any(degree is None for degree in degrees):
            return None
        first = degrees[0]
        assert first is not None
        if row.unary:
            own = row.degree
            if node.name == "integer_pow":
                own = node.eqn.params["y"]
            self.rooted |= own in (0.5, -0.5)
            return None if own is None else own * first
        if node.name == "pow" and len(live) == 1:
            exponent = known.literal(node.operands[1])
            if exponent is None or live[0] != node.operands[0]:
                return None
            self.rooted |= abs(exponent) == 0.5
            return float(exponent) * first
        if row.bilinear:
            return sum(d for d in degrees if d is not None)
        if node.name == "div":
            return first - (degrees[1] or 0.0) if len(live) == 2 else self._divided(node, live)
        same = row.linear or row.identity or row.picks == "" or node.name in ("max", "min", "clamp")
        return first if same and all(d == first for d in degrees) else None

    def _divided(self, node, live: list[int]) -> float | None:
        degree = self.degrees[live[0]]
        assert degree is not None
        return degree if live[0] == node.operands[0] else -degree
