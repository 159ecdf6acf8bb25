"""Steps under ``jax.checkpoint``, put together again.

A checkpoint says what is to be kept in memory, and nothing of what is computed. So it is unfolded
as ``jit`` is, and patterns are found across its border: a layer whose bias is added outside, a
softmax whose exponentials are made outside. Afterwards the steps that lie wholly within one are put
into a nested plan, to be computed again on the way back. A step that has a part outside is outside,
and what it reads is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Call, Node
from .known import Known
from .steps import Plan, Step


def checkpointed(known: Known, steps: Sequence[Step], outputs: Sequence[int], depth: int = 0):
    """Returns ``steps`` with those under a checkpoint in nested plans.

    Args:
      known: the graph.
      steps: in order of execution.
      outputs: values that are wanted afterwards.
      depth: how many checkpoints the steps are within.
    """
    if not any(len(_checkpoints(step)) > depth for step in steps):
        return list(steps)
    done: list[Step | _Segment] = []
    for step in steps:
        around = _checkpoints(step)[depth:]
        last = done[-1] if done and isinstance(done[-1], _Segment) else None
        if around and last is not None and last.call.number == around[0].number:
            last.steps.append(step)
        elif around:
            done.append(_Segment(around[0], [step]))
        elif last is not None and last.makes().isdisjoint(step.operands):
            done.insert(-1, step)  # what is outside and waits for nothing inside comes before
        else:
            done.append(step)
    wanted = set(outputs)
    found: list[Step] = []
    for entry in reversed(done):
        entered = entry.steps[::-1] if isinstance(entry, _Segment) else [entry]
        if isinstance(entry, _Segment) and any(step.kind != "constant" for step in entered):
            entered = [entry.nested(known, wanted, depth)]
        for step in entered:
            found.append(step)
            wanted.update(step.operands)
    return found[::-1]


def _checkpoints(step: Step) -> list[Call]:
    """The checkpoints that all of a step is within, outermost first."""
    chains = [[c for c in node.calls if c.is_checkpoint] for node in step.nodes]
    shared = []
    for calls in zip(*chains, strict=False):
        if any(call.number != calls[0].number for call in calls):
            break
        shared.append(calls[0])
    return shared


class _Segment:
    """Steps that follow each other within one checkpoint."""

    def __init__(self, call: Call, steps: list[Step]):
        self.call, self.steps = call, steps

    def makes(self) -> set[int]:
        return {value for step in self.steps for value in step.results}

    def nested(self, known: Known, wanted: set[int], depth: int) -> Step:
        """A control step that holds these."""
        graph, made = known.graph, self.makes()
        outputs = tuple(v for step in self.steps for v in step.results if v in wanted)
        steps = checkpointed(known, self.steps, outputs, depth + 1)
        reads = dict.fromkeys(v for step in steps for v in step.operands)
        inputs = tuple(v for v in reads if v not in made and v not in graph.literals)
        first = self.steps[0].nodes[0]
        plan = Plan(
            steps=tuple(steps),
            inputs=inputs,
            outputs=outputs,
            constants=graph.constants,
            live_inputs=tuple(known.facts[v].live for v in inputs),
            live_outputs=tuple(known.facts[v].live for v in outputs),
            avals=graph.avals,
            jaxpr=None,
        )
        node = Node(self.call.eqn, "remat2", inputs, outputs, first.path, first.layer, ())
        return Step(
            kind="control",
            variant="remat2",
            operation="checkpoint",
            names=frozenset({"remat2", "checkpoint"}),
            path=first.layer,
            nodes=(node,),
            operands=inputs,
            live=tuple(k for k, live in enumerate(plan.live_inputs) if live),
            results=outputs,
            bodies=(plan,),
            shapes=(known.shapes(inputs), known.shapes(outputs)),
        )
