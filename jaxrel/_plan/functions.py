"""What holds of an elementwise function of one value, by what it is made of.

Found here are the functions (joins, chains of what has a pole, calls of ``jax.nn``), whether they
are linear, whether f(c x) = c f(x), and whether f(x) = x g(x).
"""

from __future__ import annotations

from .. import _compat
from .graph import Node
from .known import Known
from .primitives import ACTIVATIONS, ALL, of
from .steps import Group


def find_function(known: Known, index: int) -> Group | None:
    """The nonlinearity of several nodes that ends in node ``index``, if there is one."""
    node = known.nodes[index]
    if len(node.results) != 1 or not known.facts[node.results[0]].live:
        return None
    start = known.meeting(index)
    if start is not None:
        start = _before(known, start)
        region = known.region(index, start)
        if region is None or is_linear(known, region, start):
            return None
        return nonlinearity(known, region, start)
    if _has_pole(known, node):
        return _chain(known, index)
    return _counted(known, index) if node.name == "convert_element_type" else None


def _before(known: Known, start: int) -> int:
    """What a function is one of, where it is written by another that is not 0 at 0: e / (1 + e)."""
    while (node := known.node(start)) is not None:
        row, above = of(node.name), known.by_dependence.parent(start)
        if not row.unary or not row.zero or above is None or not known.facts[above].live:
            return start
        start = above
    return start


def nonlinearity(known: Known, region: tuple[int, ...], start: int) -> Group:
    """The step of an elementwise function."""
    homogeneous = is_homogeneous(known, region, start)
    factor = None if homogeneous else _linear_read(known, region, start)
    return Group(
        "nonlinearity",
        region,
        (start,),
        homogeneous=homogeneous,
        linear_read=factor,
        by_value=any(has_another_derivative(known.nodes[k]) for k in region),
    )


def find_activations(known: Known) -> dict[int, Group]:
    """Calls of known activation functions that are elementwise in one live value."""
    groups: dict[int, Group] = {}
    for call, operands, results in known.graph.calls.values():
        if call.name not in ACTIVATIONS or len(results) != 1 or results[0] not in known.producer:
            continue
        dependent = {v for v in operands if v in known.facts and known.facts[v].depends}
        if len(dependent) != 1 or not known.facts[results[0]].live:
            continue
        (start,), (result,) = dependent, results
        if known.facts[start].live and known.by_dependence.is_below(result, start):
            region = known.region(known.producer[result], start)
            if region is not None and result != start:
                groups[known.producer[result]] = nonlinearity(known, region, start)
    return groups


def _has_pole(known: Known, node: Node) -> bool:
    """Tells whether a function of one live value has a pole at 0 (or is half of a softplus)."""
    if node.name == "integer_pow":
        return node.eqn.params["y"] < 0
    return of(node.name).pole or (node.name == "div" and known.live(node) == [1])


def _chain(known: Known, index: int) -> Group | None:
    """The longest elementwise region that ends in node ``index``, if it has more than one node.

    It ends where a constant is no single number: a bias belongs to its layer.
    """
    node = known.nodes[index]
    dependent = [v for v in node.operands if known.facts[v].depends]
    if len(dependent) != 1 or not known.is_elementwise(index, dependent):
        return None
    value, best = dependent[0], None
    nodes = (index,)
    while known.facts[value].live and _has_numbers_only(known, nodes):
        best = value
        above = known.by_dependence.parent(value)
        if above is None:
            break
        found = known.region(known.producer[value], above)
        if found is None:
            break
        value, nodes = above, found
    region = None if best is None else known.region(index, best)
    if best is None or region is None or len(region) == 1:
        return None
    return nonlinearity(known, region, best)


def _has_numbers_only(known: Known, nodes: tuple[int, ...]) -> bool:
    values = {v for index in nodes for v in known.nodes[index].operands}
    return all(known.size(v) == 1 for v in values if not known.facts[v].depends)


def _counted(known: Known, index: int) -> Group | None:
    """A float made of what is none, where the discrete counts by its value."""
    node = known.nodes[index]
    if not known.discrete or known.facts[node.operands[0]].live:
        return None
    value = known.live_above(node.operands[0])
    region = None if value is None else known.region(index, value)
    return None if value is None or region is None else nonlinearity(known, region, value)


# ----------------------------------------------------------------------------- what holds of them


def has_another_derivative(node: Node) -> bool:
    """Tells whether a call has a derivative that may be another than that of its body."""
    return of(node.name).own_derivative and not _compat.is_of_jax(node.eqn)


def is_linear(known: Known, region: tuple[int, ...], start: int) -> bool:
    """Tells whether every node of a join is linear: ``a x + b x`` is no nonlinearity."""
    inside = {start, *(known.nodes[index].results[0] for index in region)}
    for index in region:
        node = known.nodes[index]
        positions = [k for k, v in enumerate(node.operands) if v in inside]
        if not is_linear_in(known, node, positions):
            return False
    return True


def is_linear_in(known: Known, node: Node, positions: list[int]) -> bool:
    """Tells whether a node is linear in these of its operands, the others being constants."""
    row = of(node.name)
    if row.dead:
        return False
    if row.identity or node.name == "convert_element_type":
        return known.is_same(node)
    if row.bilinear:
        return len(positions) == 1
    if row.linear == (ALL,):
        return all(known.is_float(node.operands[k]) for k in positions)
    return bool(positions) and set(positions) <= set(row.linear)


def is_homogeneous(known: Known, region: tuple[int, ...], start: int) -> bool:
    """Tells whether a region is positively homogeneous: f(cx) = c f(x) for every c > 0.

    Then f(x) / x = f'(x) wherever x != 0 (Euler), and the slope rule is the gradient. Each value is
    told by its degree: what becomes of it when x is scaled.
    """
    degrees: dict[int, float | None] = {start: 1.0}
    for index in region:
        node = known.nodes[index]
        if index in known.insides:
            whole = len(region) == 1 and not has_another_derivative(node)
            return whole and _is_homogeneous_call(known.insides[index])
        found = [_degree_of_operand(known, v, degrees) for v in node.operands]
        degrees[node.results[0]] = _degree(known, node, found)
    return degrees[known.nodes[region[-1]].results[0]] == 1


def _is_homogeneous_call(body: Known) -> bool:
    """Homogeneity of a call such as relu, read off its body."""
    (start,) = {v for v in body.graph.inputs if body.facts[v].live}
    (end,) = body.graph.outputs
    index = body.producer.get(end)
    region = None if index is None else body.region(index, start)
    return region is not None and is_homogeneous(body, region, start)


_ANY = float("nan")
"""The degree of 0: any."""


def _degree_of_operand(known: Known, value: int, degrees: dict[int, float | None]) -> float | None:
    if value in degrees:
        return degrees[value]
    content = known.literal(value)
    return _ANY if content is not None and content == 0 else 0.0


def _degree(known: Known, node: Node, degrees: list[float | None]) -> float | None:
    """The degree of a node's result; None: it has none."""
    row = of(node.name)
    if any(d is None for d in degrees):
        return None
    told = {d for d in degrees if d is not None and d == d}
    if node.name == "select_n":
        condition, cases = degrees[0], {d for d in degrees[1:] if d is not None and d == d}
        return cases.pop() if condition == 0 and len(cases) == 1 else None
    if row.identity or node.name == "convert_element_type":
        same = known.is_same(node) and not row.dead  # Euler asks for the derivative too
        return degrees[0] if same or degrees[0] in (0, None) else None
    if row.discrete:
        return 0.0 if len(told) == 1 and node.name in ("gt", "ge", "lt", "le", "eq", "ne") else None
    if row.linear == (ALL,) or node.name in ("max", "min"):
        return told.pop() if len(told) == 1 else None
    if row.unary:
        own = float(node.eqn.params["y"]) if node.name == "integer_pow" else row.degree
        return None if own is None or degrees[0] != degrees[0] else own * (degrees[0] or 0.0)
    if row.bilinear and len(told) == len(degrees):
        return sum(d for d in degrees if d is not None)
    if node.name == "div" and len(told) == len(degrees) and told:
        return (degrees[0] or 0.0) - (degrees[1] or 0.0)
    return None


def _linear_read(known: Known, region: tuple[int, ...], start: int) -> tuple[int, int] | None:
    """Finds a place where f reads x and is linear in what it reads there: f(x) = x g(x).

    gelu, silu, mish, hard_swish are all of this form. With 1 read in this place f gives
    g(x) = f(x) / x without a division, at x = 0 too. What lies on the way from there must have no
    other reader, or g would be another function.

    Returns:
      Position of the node within the region, and of the operand within the node.
    """
    readers: dict[int, int] = {}
    for index in region:
        for value in known.nodes[index].operands:
            readers[value] = readers.get(value, 0) + 1
    index = region[-1]
    while True:
        node = known.nodes[index]
        reads = _scaled_operands(known, node)
        for k in reads:
            if node.operands[k] == start:
                return region.index(index), k
        onward = [
            i
            for k in reads
            if readers[node.operands[k]] == 1
            and (i := known.producer.get(node.operands[k])) is not None
            and i in region
            and _leads_to(known, i, start, region, readers)
        ]
        if not onward:
            return None
        index = onward[0]


def _scaled_operands(known: Known, node: Node) -> list[int]:
    """Operands in each of which alone a node is linear, without an additive constant."""
    row = of(node.name)
    if row.bilinear:
        return [0, 1]
    if node.name == "div" or known.is_same(node) or (row.linear == (ALL,) and row.parity == -1):
        return [0]
    return []


def _leads_to(known: Known, index: int, start: int, region, readers: dict[int, int]) -> bool:
    """Tells whether scaling operations alone lead from node ``index`` back to ``start``."""
    stack, seen = [index], {index}
    while stack:
        node = known.nodes[stack.pop()]
        for k in _scaled_operands(known, node):
            value = node.operands[k]
            if value == start:
                return True
            maker = known.producer.get(value)
            if maker is None or readers[value] != 1:
                continue
            if maker in region and maker not in seen:
                seen.add(maker)
                stack.append(maker)
    return False
