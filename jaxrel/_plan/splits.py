"""Patterns that a border splits: what a reader of the plan must know.

Calls with shardings, ``shard_map``, loops, branches and custom derivatives stay whole, and patterns
are not looked for across them. A layer inside whose constant is added outside has no bias, and is
followed by a step that adds it; a quotient of what is made inside is neither softmax nor norm.
"""

from __future__ import annotations

from collections.abc import Iterator

from .primitives import ALL, of
from .steps import Plan, Step


def splits(plan: Plan) -> Iterator[str]:
    """A sentence for each pattern of a plan, nested ones included, that is split by a border."""
    makers = {value: step for step in plan.steps for value in step.results}
    for step in plan.steps:
        for body in step.bodies:
            yield from splits(body)
        for k in step.live:
            value, border = _source(makers, step.operands[k])
            if border is None or border.kind != "control":
                continue
            layer = _layer(border, border.results.index(value))
            if layer is not None and _adds(step):
                yield (
                    f"split by {border.operation}: what is added {_at(step)} is the bias of no "
                    f"layer; the matrix before it is inside, {_at(layer)}"
                )
            if step.kind == "quotient":
                yield (
                    f"split by {border.operation}: the quotient {_at(step)} is read as no softmax "
                    f"and no norm; what it is made of is inside, {_at(border)}"
                )


def _source(makers: dict[int, Step], value: int) -> tuple[int, Step | None]:
    """What a value is made of by linear steps, and the step that made it."""
    while (step := makers.get(value)) is not None and step.kind == "linear" and not _adds(step):
        if len(step.live) != 1:
            break
        value = step.operands[step.live[0]]
    return value, makers.get(value)


def _layer(border: Step, position: int) -> Step | None:
    """The layer inside of a control step that makes one of its results."""
    for body in border.bodies:
        makers = {value: step for step in body.steps for value in step.results}
        value, step = _source(makers, body.outputs[position])
        if step is not None and step.kind == "control":
            step = _layer(step, step.results.index(value))
        if step is not None and step.kind == "matmul":
            return step
    return None


def _adds(step: Step) -> bool:
    """Tells whether a step adds a constant to a live value, element by element."""
    row = of(step.nodes[0].name)
    adds = row.elementwise and row.linear == (ALL,) and not row.moves
    return step.kind == "linear" and adds and len(step.live) == 1 < len(step.operands)


def _at(step: Step) -> str:
    return f"at {step.source}" if step.source else f"in {step.location or 'the function'}"
