"""A softmax taken apart at its exponentials, for rules that treat these by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from .. import _compat
from .._plan.steps import Step
from ..rules.base import Exponentials


def find_exponentials(step: Step, values: Sequence[Any]) -> Exponentials:
    """Takes a ``softmax`` step apart, its operands having these values."""
    env = dict(zip(step.operands, values, strict=True))
    (exp,) = (node for node in step.nodes if node.name in ("exp", "exp2"))
    (summed,) = (node for node in step.nodes if node.name == "reduce_sum")

    def run(e: jax.Array, wanted: int) -> jax.Array:
        found = {**env, exp.results[0]: e}
        for node in step.nodes:
            if node is not exp and all(v in found for v in node.operands):
                results = _compat.bind(node.eqn, [found[v] for v in node.operands])
                found.update(zip(node.results, results, strict=True))
        return found[wanted]

    return Exponentials(
        of=lambda e: run(e, step.results[0]),
        total=lambda e: run(e, summed.results[0]),
        log_base=1.0 if exp.name == "exp" else math.log(2),
        is_share=step.nodes[-1].name != "log",
    )
