"""What is behind a ``stop_gradient``, and whether a baseline must look through it.

``stop_gradient`` says what the gradient is to leave out; the function is the same with and without.
Against a baseline what is behind it moves, and somebody has to account for that. A number that is
taken from all logits of a softmax need not be: nothing comes of it. Any other is looked through, as
if it were not there: so relevance is that of the function, and adds up.
"""

from __future__ import annotations

from collections.abc import Iterator

from .steps import Plan, Step


def shifted(plan: Plan) -> frozenset[int]:
    """The logits of softmaxes: adding a number to all of them at once changes nothing."""
    softmaxes = (step for step in plan.steps if step.kind == "softmax")
    return frozenset(step.operands[k] for step in softmaxes for k in step.live)


def is_shift(step: Step, logits: frozenset[int]) -> bool:
    """Tells whether a step takes a constant from the logits of a softmax."""
    return step.nodes[-1].name == "sub" and step.live == (0,) and step.results[0] in logits


def stopped(plan: Plan) -> frozenset[int]:
    """The ``stop_gradient`` equations of a plan, by ``id``, that are to be looked through."""
    return frozenset(_stopped(plan))


def _stopped(plan: Plan) -> Iterator[int]:
    logits = shifted(plan)
    behind: dict[int, set[int]] = {}
    for step in plan.steps:
        for body in step.bodies:
            yield from _stopped(body)
        found = set().union(*(behind.get(value, set()) for value in step.operands))
        if step.kind != "constant":
            if not is_shift(step, logits):
                yield from found
            continue
        if step.nodes[0].name == "stop_gradient":
            found.add(id(step.nodes[0].eqn))
        behind.update(dict.fromkeys(step.results, found))
    for value in plan.outputs:
        yield from behind.get(value, ())
