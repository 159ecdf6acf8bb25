"""Where a baseline takes another branch, selects another value, or scales by another factor.

A condition is not live: nothing flows through it. Yet where it differs at the baseline the result
jumps by something that no difference of the live operands explains. So that relevance adds up to
f(x) - f(x0) for every program, the jump is sent to the live operands too, by the multipliers of
least norm that account for it: d_k jump . m / sum_j |d_j|^2, where d are the differences. There is
none where the conditions agree.

The same goes for factors without a derivative: ``y * sign(x)``. None of it can be sent where no
live operand differs. And other constants made of the input are not settled: indices (``gather``,
``dynamic_slice``), since what they jump over is in general another example's; terms, since those
that cancel, as the maximum below a softmax does, would no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._plan.steps import Step
from ..rules.numerics import difference, divide


def settle_constants(
    step: Step,
    values: Sequence[Any],
    twins: Sequence[Any],
    results: Sequence[Any],
    made: Sequence[Any],
    run: Callable[[Step, Sequence[Any]], list[Any]],
) -> Sequence[Any]:
    """Settles a selection whose condition differs at the baseline, and a scaling whose factor does.

    Args:
      step: any step; others than these are left alone.
      values: of its operands.
      twins: of its operands, None where they are the same.
      results, made: its results, and what they are at the baseline.
      run: executes a step.
    """
    name = step.nodes[0].name
    if step.kind != "linear" or len(step.nodes) > 1 or name not in ("select_n", "mul", "div"):
        return results
    fixed = {0} if name == "select_n" else {0, 1}.difference(step.live)
    if all(twins[k] is None for k in fixed):
        return results
    references = [v if t is None else t for v, t in zip(values, twins, strict=True)]
    mixed = [values[k] if k in fixed else reference for k, reference in enumerate(references)]
    jump = [difference(run(step, mixed)[0], made[0])]
    live = [(values[k], references[k]) for k in step.live]
    shapes = {jnp.shape(v) for v in (results[0], *(a for a, _ in live))}
    whole = len(shapes) > 1 or (name == "select_n" and jnp.ndim(values[0]) == 0)
    return settle(results, live, jump, None if whole else ())


def settle(
    results: Sequence[Any],
    live: Sequence[tuple[Any, Any]],
    jumps: Sequence[Any],
    axes: tuple[int, ...] | None = None,
) -> list[Any]:
    """Returns ``results``; on the way back their jumps are sent to the live operands.

    Args:
      results: of a step.
      live: live operands and their twins.
      jumps: for each result what its difference has that those of the operands do not explain;
        None for those that are no floats.
      axes: over which axes a jump is shared: ``()``: elementwise, None: all.
    """
    operands, references = [a for a, _ in live], [b for _, b in live]

    @jax.custom_vjp
    def run(results, operands, references, jumps):
        del operands, references, jumps
        return results

    def backward(kept: Any, m: Any):
        operands, references, jumps = kept
        parts = [jnp.sum(j * n, axes) for j, n in zip(jumps, m, strict=True) if j is not None]
        differences = [difference(a, b) for a, b in zip(operands, references, strict=True)]
        size = sum(jnp.sum(d * d, axes) for d in differences)
        share = divide(jnp.asarray(sum(parts)), jnp.asarray(size))
        sent = [(d * share).astype(d.dtype) for d in differences]
        return m, sent, None, None

    run.defvjp(lambda *args: (args[0], args[1:]), backward)
    return run(list(results), operands, references, list(jumps))
