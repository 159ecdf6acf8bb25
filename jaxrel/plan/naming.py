"""What a step is called: for people, and for the matches of rule sets."""

from __future__ import annotations

from .. import _compat
from .graph import Node
from .view import GraphView

_UNSHOWN = frozenset("reshape broadcast_in_dim convert_element_type squeeze transpose copy".split())

_FAMILIAR = {
    frozenset({"integer_pow", "mul", "add", "tanh"}): "gelu",
    frozenset({"mul", "neg", "erfc"}): "gelu",
    frozenset({"mul", "add", "erf"}): "gelu",
    frozenset({"mul", "div", "add", "erf"}): "gelu",
    frozenset({"logistic", "mul"}): "silu",
}
"""Joins that carry no call of their name in a jaxpr, by the operations they are made of."""


def names_of(view: GraphView, nodes: tuple[Node, ...]) -> tuple[frozenset[str], str]:
    """Returns the names a match may use for a step, and the one shown.

    Shown is the name of the innermost call that is the step and nothing else (``silu``, or the
    function's name of a custom derivative), else the primitives. To be matched by are the
    primitives and the names of all calls around the step.
    """
    primitives = [node.name for node in nodes]
    shared = [
        frames[0]
        for frames in zip(*(node.calls for node in nodes), strict=False)
        if all(frame == frames[0] for frame in frames)
    ]
    whole = [name for name, number in shared if view.call_sizes[number] <= len(nodes)]
    own = _compat.custom_call_name(nodes[0].eqn) if len(nodes) == 1 else ""
    arithmetic = list(dict.fromkeys(name for name in primitives if name not in _UNSHOWN))
    familiar = _FAMILIAR.get(frozenset(arithmetic), "") if len(nodes) > 1 else ""
    named = own or next((n for n in reversed(whole) if n and not n.startswith("_")), "")
    shown = named or familiar or "+".join(arithmetic or primitives[:1])
    calls = [name for name, _ in shared]
    return frozenset(filter(None, (*primitives, *calls, own, familiar))), shown
