"""Plans of what control flow holds: bodies of loops, branches, checkpoints, custom derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import _compat
from .graph import Call, Node
from .steps import Fact, Plan

Build = Callable[..., tuple[Plan, list[Fact]]]


def plan_bodies(
    node: Node, operands: Sequence[Fact], build: Build
) -> tuple[tuple[Plan, ...], list[Fact]]:
    """Plans the jaxprs of a control node.

    Args:
      node: a ``scan``, ``cond``, ``remat2``, ``shard_map`` or call.
      operands: facts of its operands.
      build: :func:`jaxrel._plan.build.build_plan`.

    Returns:
      One plan for each jaxpr, and the facts of the node's results.
    """
    match node.name:
        case "scan":
            return _scan(node, operands, build)
        case "cond":
            return _cond(node, operands, build)
        case "remat2" | "shard_map":
            jaxpr = node.eqn.params["jaxpr"]
        case _:
            jaxpr = _compat.call_jaxpr(node.eqn)
    name = _compat.custom_call_name(node.eqn)
    calls = (*node.calls, Call(name, -1, node.eqn))
    plan, results = build(jaxpr, operands, node.path, calls)
    return (plan,), results


def _scan(node: Node, operands: Sequence[Fact], build: Build):
    """A carry is live, or of unknown sign, if it is so in any iteration: a fixpoint."""
    constants, carries = _compat.scan_arity(node.eqn.params)
    before, after = operands[:constants], operands[constants + carries :]
    carry = list(operands[constants : constants + carries])
    while True:  # each round can only add liveness or take away knowledge, so this ends
        facts = [*before, *carry, *after]
        plan, results = build(node.eqn.params["jaxpr"], facts, node.path, node.calls)
        merged = [merge(a, b) for a, b in zip(carry, results, strict=False)]
        if merged == carry:
            return (plan,), [*carry, *results[carries:]]
        carry = merged


def _cond(node: Node, operands: Sequence[Fact], build: Build):
    index, *facts = operands
    branches = node.eqn.params["branches"]
    plans, results = zip(*(build(b, facts, node.path, node.calls) for b in branches), strict=True)
    merged = list(results[0])
    for other in results[1:]:
        merged = [merge(a, b) for a, b in zip(merged, other, strict=True)]
    merged = [fact._replace(depends=fact.depends or index.depends) for fact in merged]
    return plans, merged


def merge(a: Fact, b: Fact) -> Fact:
    """What is known of a value that is one or the other."""
    return Fact(
        live=a.live or b.live,
        depends=a.depends or b.depends,
        nonneg=a.nonneg and b.nonneg,
        first=a.first and b.first,
        origin=a.origin if a.origin == b.origin else (),
    )


def is_elementwise_call(node: Node, operands: Sequence[Fact], plans: tuple[Plan, ...]) -> bool:
    """Tells whether a custom-derivative call is one elementwise function of one live value.

    Such a call (relu, softplus, a user's own activation) is a nonlinearity with the derivative its
    author gave it. Its plan shows that: nothing but elementwise steps of the same shape.
    """
    if node.name not in ("custom_jvp_call", "custom_vjp_call") or len(node.results) != 1:
        return False
    dependent = {v for v, fact in zip(node.operands, operands, strict=True) if fact.depends}
    if len(dependent) != 1 or not all(f.live for f in operands if f.depends):
        return False
    shapes = set()
    for step in plans[0].steps:
        if step.kind == "constant":
            continue
        if step.kind not in ("nonlinearity", "linear", "sum", "maximum", "product", "quotient"):
            return False
        if step.names.isdisjoint(_ELEMENTWISE_CALL) and step.kind != "nonlinearity":
            return False
        shapes.update(shape for side in step.shapes for shape in side)
    return len(shapes) <= 1 and bool(shapes)


_ELEMENTWISE_CALL = frozenset(
    "add sub mul div neg max min select_n convert_element_type copy".split()
)
