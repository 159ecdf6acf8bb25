"""Softmax, normalization statistics and the two sides of a product, found by dataflow.

None of these carries a marker in a jaxpr, and they look different in linen, nnx,
``jax.nn.dot_product_attention`` and code by hand: transposes and casts between, the maximum with or
without ``stop_gradient``, variances as E[x^2] - E[x]^2 or as E[(x - E[x])^2]. So each is recognised
by walking back from its last node, never by the order of equations.
"""

from __future__ import annotations

from collections.abc import Collection

from .graph import Node
from .primitives import BILINEAR, STRUCTURAL, UNARY
from .steps import Group
from .view import ROOT, GraphView

_CARRIES = STRUCTURAL | {"select_n", "mul", "div", "neg"}
"""Linear operations with constants that may stand between two parts of a pattern."""

_SIGMOIDS = ("sigmoid", "hard_sigmoid")

_STATISTIC = _CARRIES | frozenset(
    "add sub square integer_pow sqrt rsqrt pow max min abs reduce_sum psum stop_gradient clamp "
    "dot_general add_any".split()
)
"""What a normalization statistic is made of."""


def find_softmax(view: GraphView, parts: bool = False) -> dict[int, Group]:
    """Finds exp(u) / sum exp(u) and log sum exp(u), by the index of their last node.

    The live operand is u, the operand of ``exp``. A maximum subtracted before is a step of its own;
    whether it is differentiated does not matter to any rule that treats the softmax as a whole.

    Args:
      view: the graph.
      parts: whether those with a constant in the denominator are left to be taken apart.
    """

    def shares(group: Group | None) -> bool:
        names = {view.graph.nodes[k].name for k in group.nodes} if group else set()
        return group is not None and not (parts and "add" in names)

    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        live = view.live(node)
        if node.name in ("div", "mul") and len(live) == 2:
            numerator, other = (node.operands[k] for k in live)
            group = _quotient_of_exponentials(view, index, numerator, other)
            if group is None and node.name == "mul":
                group = _quotient_of_exponentials(view, index, other, numerator)
        elif node.name == "log" and live:
            group = _log_of_sum(view, index)
        else:
            continue
        if group is not None and shares(group):
            groups[index] = group
    return groups


def _quotient_of_exponentials(view: GraphView, index: int, e: int, total: int) -> Group | None:
    path = [index]
    if view.graph.nodes[index].name == "mul":
        total = _back(view, total, _CARRIES - {"div"}, path)
        reciprocal = view.node(total)
        if reciprocal is None or not _is_reciprocal(view, reciprocal):
            return None
        path.append(view.producer[total])
        total = reciprocal.operands[-1]
    return _exponentials(view, _back(view, e, _CARRIES, path), total, path)


def _is_reciprocal(view: GraphView, node: Node) -> bool:
    if node.name == "integer_pow":
        return node.eqn.params["y"] == -1
    return node.name == "div" and view.live(node) == [1]


def _log_of_sum(view: GraphView, index: int) -> Group | None:
    path = [index]
    total = _back(view, view.graph.nodes[index].operands[0], _CARRIES | {"abs"}, path)
    return _exponentials(view, None, total, path)


def _exponentials(view: GraphView, e: int | None, total: int, path: list[int]) -> Group | None:
    """Checks that ``total`` is a sum of the exponentials ``e`` (of any, if None)."""
    total = _back(view, total, _CARRIES | {"add"}, path)
    summed = view.node(total)
    if summed is None or summed.name != "reduce_sum":
        return None
    path.append(view.producer[total])
    source = _back(view, summed.operands[0], _CARRIES, path)
    node = view.node(source)
    if node is None or node.name not in ("exp", "exp2") or e not in (None, source):
        return None
    path.append(view.producer[source])
    return Group("softmax", tuple(sorted(set(path))), (node.operands[0],))


def _back(
    view: GraphView,
    value: int,
    through: Collection[str],
    path: list[int],
    stop: Collection[int] = (),
) -> int:
    """Follows the only live operand back while the node's name is in ``through``.

    Args:
      view: the graph.
      value: where to begin.
      through: names of operations to go through; never through a division by the live operand.
      path: gets the indices of the nodes passed.
      stop: indices of nodes not to go through.
    """
    while (node := view.node(value)) is not None and node.name in through:
        live = view.live(node)
        if len(live) != 1 or len(node.results) != 1 or view.producer[value] in stop:
            break
        if node.name == "div" and live != [0]:
            break
        path.append(view.producer[value])
        value = node.operands[live[0]]
    return value


def find_normalization(view: GraphView) -> dict[int, Group]:
    """Finds where a value is scaled by a statistic of itself: layer, RMS, group, batch, L2 norm.

    Two groups each: everything that makes the statistic (variant ``statistic``, live operand: what
    it is a statistic of), and the one node that scales (``scale``, live operands: value and
    statistic).
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        live = view.live(node)
        if node.name not in ("mul", "div") or len(live) != 2:
            continue
        a, b = (node.operands[k] for k in live)
        candidates = [(a, b)] if node.name == "div" else [(a, b), (b, a)]
        for value, statistic in candidates:
            start = view.common_ancestor((value, statistic), "live")
            path = None if start == ROOT else _statistic(view, statistic, start, node.name)
            if path is not None:
                groups[index] = Group("normalization", (index,), (value, statistic), "scale")
                groups[path[-1]] = Group("normalization", path, (start,), "statistic")
                break
    return groups


def _statistic(view: GraphView, value: int, start: int, scaling: str) -> tuple[int, ...] | None:
    """Nodes that make ``value`` from ``start``, if it is a root of something summed.

    A product must meet the reciprocal of the root, a quotient the root itself: x * norm(x) is no
    normalization.
    """
    path: set[int] = set()
    stack, found = [value], set()
    while stack:
        current = stack.pop()
        node, index = view.node(current), view.producer.get(current)
        if current == start or index in path:
            continue
        if node is None or index is None or node.name not in _STATISTIC or len(path) > 64:
            return None
        live = [node.operands[k] for k in view.live(node)]
        if node.name == "dot_general" and (len(live) != 2 or live[0] != live[1]):
            return None
        path.add(index)
        found.add(_root(view, node))
        stack.extend(live)
    rooted = ("sqrt" if scaling == "div" else "rsqrt") in found
    rooted = rooted or (scaling == "mul" and {"sqrt", "reciprocal"} <= found)
    summed = not found.isdisjoint(("reduce_sum", "dot_general"))
    return tuple(sorted(path)) if rooted and summed else None


def _root(view: GraphView, node: Node) -> str:
    """The name of a node; of a power with a constant exponent, that of the root it is."""
    if node.name == "pow":
        exponent = view.literal(node.operands[1])
        return "pow" if exponent is None else ("sqrt" if exponent > 0 else "rsqrt")
    return "reciprocal" if _is_reciprocal(view, node) else node.name


def find_products(
    view: GraphView, softmaxes: Collection[int], nonlinearities: Collection[int]
) -> dict[int, Group]:
    """Names the two sides of products: attention weights or a gate first, the value second.

    Operand order means nothing in a jaxpr (einsum may emit ``dot_general(value, weights)``), so a
    side is known by where it comes from: through structural and scaling operations from a softmax
    (variant ``attention``), or from a nonlinearity where the other side does not (``gate``).

    Args:
      view: the graph.
      softmaxes: indices of the nodes that end a softmax.
      nonlinearities: indices of the nodes that end a nonlinearity of several nodes.
    """
    groups: dict[int, Group] = {}
    for index, node in enumerate(view.graph.nodes):
        live = view.live(node)
        if node.name not in BILINEAR or len(live) != 2:
            continue
        sides = [node.operands[k] for k in live]
        ends = [_back(view, side, _CARRIES, [], nonlinearities) for side in sides]
        makers = [view.producer.get(end) for end in ends]
        for variant, found in (
            ("attention", [maker in softmaxes for maker in makers]),
            ("gate", [_is_sigmoid(view, maker) for maker in makers]),
            ("gate", [_is_nonlinear(view, maker, nonlinearities) for maker in makers]),
        ):
            if sum(found) == 1:
                ordered = sides if found[0] else sides[::-1]
                groups[index] = Group("product", (index,), tuple(ordered), variant)
                break
    return groups


def _is_sigmoid(view: GraphView, index: int | None) -> bool:
    if index is None:
        return False
    node = view.graph.nodes[index]
    return node.name == "logistic" or any(call.name in _SIGMOIDS for call in node.calls)


def _is_nonlinear(view: GraphView, index: int | None, joins: Collection[int]) -> bool:
    if index is None:
        return False
    unary = view.graph.nodes[index].name in UNARY
    return unary or index in joins or index in view.elementwise_calls
