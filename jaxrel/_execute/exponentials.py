"""A softmax taken apart at its exponentials, for rules that treat these by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from .._plan.steps import Step
from ..rules.view import Exponentials
from .wide import bind


def find_exponentials(step: Step, values: Sequence[Any]) -> Exponentials:
    """Takes a ``softmax`` step apart, its operands having these values."""
    assert step.shares is not None
    shares = step.shares
    env = dict(zip(step.operands, values, strict=True))
    exp = None if shares.exponential is None else step.nodes[shares.exponential]
    numbers = step.operands[step.live[0]] if exp is None else exp.results[0]

    def run(e: jax.Array, wanted: int) -> jax.Array:
        found = {**env, numbers: e}
        for node in step.nodes:
            if node is not exp and all(v in found for v in node.operands):
                results = bind(node.eqn, [found[v] for v in node.operands])
                found.update(zip(node.results, results, strict=True))
        return found[wanted]

    guarded = shares.guarded
    return Exponentials(
        of=lambda e: run(e, step.results[0]),
        total=lambda e: run(e, shares.total),
        log_base=None if exp is None else 1.0 if exp.name == "exp" else math.log(2),
        is_share=shares.is_share,
        along=shares.along,
        guarded=None if guarded is None else lambda e: run(e, guarded),
    )
