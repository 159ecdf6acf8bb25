"""The layer paths of a finished plan: where scopes and parameters, taken together, say a step is.

Most steps stand in the scope of a module, and most layers read parameters whose place is known.
What neither says is found here:

* A module that was made anew on the way (:mod:`jaxrel._call.modules`) has opened a scope of an
  unknown place, ``?7``. It is where the parameters are that are read in it: the layer
  ``?7/mlp/fc1`` reads those of ``blocks/0/mlp/fc1``, so ``?7`` is ``blocks/0``, and so it is for
  the softmax that stands in ``?7/attn`` and reads none.
* An activation, softmax or norm that stands in no scope (functions of parameters, as in stax or
  jraph) goes by the layer that feeds it: if there are several, by what their paths have in common.
  What is linear, sums and layers without names do not inherit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from .graph import Node
from .paths import Path, is_scoped, prefer
from .steps import Plan, Step

_LINEAR = frozenset({"linear", "sum"})
_INHERITS_NOT = _LINEAR | {"matmul", "control", "constant"}

Layer = Path | None
"""The layer that a value comes from; None: from none, it is an input."""


def placed(plan: Plan) -> Plan:
    """A plan with the layer paths of its steps as far as they can be told."""
    pairs = ((step.nodes[0].layer, step.origin) for step in plan.walk())
    return _Placing(modules(pairs)).plan(plan, [None for _ in plan.inputs])[0]


def modules(pairs: Iterable[tuple[Path, Path]]) -> dict[Path, Path]:
    """The places of modules of unknown place, by the scopes down to theirs.

    Args:
      pairs: scopes, and the layer of a parameter that is read there; empty: none.
    """
    found: dict[Path, tuple[int, Path]] = {}
    for scopes, origin in pairs:
        unknown = [k for k, name in enumerate(scopes) if _is_unknown(name)]
        if not unknown or not origin:
            continue
        module, below = scopes[: unknown[-1] + 1], scopes[unknown[-1] + 1 :]
        doubt, place = _above(origin, below)
        before = found.get(module, (doubt, place))
        if doubt == before[0]:
            found[module] = doubt, _shared([before[1], place])
        else:
            found[module] = min(before, (doubt, place))
    return {module: place for module, (_, place) in found.items()}


def _is_unknown(name: str) -> bool:
    return name.startswith("?")


def _above(path: Path, below: Path) -> tuple[int, Path]:
    """How doubtful it is that parameters of this path are read so far below, and what is above.

    They may be held by something that is no module, a dictionary, or by another module.
    """
    if below and path[-len(below) :] == below:
        return 0, path[: -len(below)]
    if not below:
        return 1, path
    starts = range(len(path) - len(below))
    return 2, next((path[:k] for k in starts if path[k : k + len(below)] == below), ())


def _shared(paths: Sequence[Path]) -> Path:
    """What paths begin with alike."""
    same = [len(set(names)) == 1 for names in zip(*paths, strict=False)]
    return paths[0][: [*same, False].index(False)]


def resolved(scopes: Path, places: Mapping[Path, Path]) -> Path:
    """The layer that scopes make, with the places of modules that were unknown."""
    found: Path = ()
    for k, name in enumerate(scopes):
        place = places.get(scopes[: k + 1], ())
        if not _is_unknown(name):
            found = (*found, name)
        elif place:  # of the whole model; a scope of the user's stays before it
            found = place if place[:1] == found[:1] else (*found, *place)
    return found


class _Placing:
    def __init__(self, places: dict[Path, Path]):
        self.places = places

    def plan(self, plan: Plan, inputs: Iterable[Layer]) -> tuple[Plan, list[Layer]]:
        """The plan with paths, and the layers that its results come from."""
        layers: dict[int, Layer] = dict(zip(plan.inputs, inputs, strict=True))
        steps = tuple(self.step(step, layers) for step in plan.steps)
        return dataclasses.replace(plan, steps=steps), [layers.get(v) for v in plan.outputs]

    def step(self, step: Step, layers: dict[int, Layer]) -> Step:
        """A step with its path; notes the layer that its results come from."""
        first = step.nodes[0]
        scopes, stands = self.resolved(first), self.stands(first)
        feeding = _common([layers.get(step.operands[k]) for k in step.live])
        path = prefer(scopes, step.origin)
        if not stands and not step.origin and step.kind not in _INHERITS_NOT:
            path = feeding or ()
        made = path if stands or step.origin or step.kind not in _LINEAR else feeding
        results = [made for _ in step.results]
        bodies = []
        for body in step.bodies:
            skipped = len(step.operands) - len(body.inputs)  # which branch
            given = [layers.get(v) for v in step.operands[skipped:]]
            inner, outputs = self.plan(body, given)
            pairs = zip(results, outputs, strict=True) if bodies else ((o, o) for o in outputs)
            results = [_common(pair) for pair in pairs]
            bodies.append(inner)
        layers.update(zip(step.results, results, strict=True))
        nodes = tuple(self.node(node) for node in step.nodes)
        return dataclasses.replace(step, path=path, nodes=nodes, bodies=tuple(bodies))

    def node(self, node: Node) -> Node:
        """A node with all the places of its layer known."""
        if not any(map(_is_unknown, node.layer)):
            return node
        return dataclasses.replace(node, layer=self.resolved(node))

    def resolved(self, node: Node) -> Path:
        """The layer of a node by its scopes."""
        return resolved(node.layer, self.places)

    def stands(self, node: Node) -> bool:
        """Tells whether a node stands in a scope of known place."""
        names = node.layer
        known = any(
            names[: k + 1] in self.places for k, name in enumerate(names) if _is_unknown(name)
        )
        return known or bool(self.resolved(node)) or (not names and is_scoped(node.path))


def _common(layers: Iterable[Layer]) -> Layer:
    known = [layer for layer in layers if layer is not None]
    return _shared(known) if known else None
