"""What a step is called: for people, and for the matches of rule sets."""

from __future__ import annotations

from .. import _compat
from .graph import Node
from .known import Known
from .primitives import ACTIVATIONS, of
from .steps import Group

_UNSHOWN = frozenset(
    "reshape broadcast_in_dim convert_element_type squeeze transpose copy name".split()
)

_FAMILIAR = {
    frozenset({"integer_pow", "mul", "add", "tanh"}): "gelu",
    frozenset({"mul", "neg", "erfc"}): "gelu",
    frozenset({"mul", "add", "erf"}): "gelu",
    frozenset({"mul", "div", "add", "erf"}): "gelu",
    frozenset({"logistic", "mul"}): "silu",
}
"""Joins that carry no call of their name in a jaxpr, by the operations they are made of."""


def names_of(known: Known, group: Group, nodes: tuple[Node, ...]) -> tuple[frozenset[str], str]:
    """Returns the names a match may use for a step, and the one shown.

    Shown is the name of the innermost call that is the step and nothing else (``silu``, or the
    function's name of a custom derivative), else the primitives. To be matched by are the names of
    all calls around the step, and its own: the primitive of a step that is one operation, the
    contraction of a layer. What is only a part of a step (the ``add`` in a layer, the ``mul`` in a
    gelu) names another step.
    """
    shared = [
        frames[0]
        for frames in zip(*(node.calls for node in nodes), strict=False)
        if all(frame.number == frames[0].number for frame in frames)
    ]
    whole = [call.name for call in shared if known.call_size(call.number) <= len(nodes)]
    activations = [name for name in whole if name in ACTIVATIONS]
    own = [_own_name(node) for node in nodes]
    arithmetic = list(dict.fromkeys(name for name in own if name not in _UNSHOWN))
    familiar = _FAMILIAR.get(frozenset(arithmetic), "") if len(nodes) > 1 else ""
    named = [name for name in whole if name.isidentifier() and not name.startswith("_")]
    if activations or (len(nodes) > 1 and named):
        shown = (activations or named[::-1])[0]
    else:
        shown = familiar or "+".join(arithmetic or [node.name for node in nodes[:1]])
    calls = [call.name for call in shared]
    if len(nodes) == 1:
        itself = {*own, *(node.name for node in nodes)}
    elif group.kind == "matmul":
        itself = {node.name for node in nodes[:1]}
    else:
        itself = {*(arithmetic if len(arithmetic) == 1 else ()), _KINDS.get(group.kind, "")}
    return frozenset(filter(None, (*itself, *calls, familiar))), shown


_KINDS = {"quotient": "div", "normalization": "div"}
"""The operation that a step of several is, however it is written."""


def _own_name(node: Node) -> str:
    """The primitive's name; a custom derivative's function, as the call of ``jax.nn`` around it."""
    if node.stands_in or not of(node.name).control:
        return node.name
    custom = _compat.custom_call_name(node.eqn)
    around = [call.name for call in node.calls if call.name in ACTIVATIONS]
    return (around[-1] if around else custom) if custom else node.name
