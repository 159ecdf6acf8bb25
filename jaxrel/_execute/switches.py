"""Where a baseline selects another value, scales by another factor, takes another branch.

What is not live - a condition, a mask, a one-hot, a count, an index, a sign - gets nothing. Yet
where it is another at the baseline it *moves* the result by something that no difference of the
live operands explains: f(x, c) - f(x0, c0) is f(x, c) - f(x0, c), which the step's rule explains,
and a jump, f(x0, c) - f(x0, c0). So that relevance adds up to f(x) - f(x0) for every program, the
jump goes to the live operands too, by the multipliers of least norm that account for it:

    d_k jump . m / sum over k of |d_k|^2            d = x - x0

over those elements of x that the element of the result is made of: each element its own jump where
the operation is elementwise, the row that is contracted where it contracts, and never two examples,
as far as the operation's dimension numbers tell them apart (:mod:`jaxrel._plan.axes`). There is no
jump where what is not live is the same at the baseline.

None of it can be sent where no live operand differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.axes import Axes, independent_axes
from .._plan.steps import Step
from ..rules.numerics import difference, finite, wide
from .bundle import is_float


def settle_step(
    step: Step,
    values: Sequence[Any],
    base: Sequence[Any],
    results: Sequence[Any],
    there: Sequence[Any],
    made: Sequence[Any],
) -> list[Any]:
    """Returns a step's results; on the way back its jumps are sent to its live operands.

    Args:
      step: any, of whose operands some that are not live are others at the baseline.
      values: of its operands.
      base: the same, but the live ones at the baseline.
      results: f(x, c).
      there: f(x0, c).
      made: f(x0, c0), the results at the baseline.
    """
    jumps = [difference(z, z0) if is_float(z0) else None for z, z0 in zip(there, made, strict=True)]
    axes = [independent_axes(step, k) for k in step.live] if len(results) == 1 else None
    return settle(results, [(values[k], base[k]) for k in step.live], jumps, axes)


def settle(
    results: Sequence[Any],
    live: Sequence[tuple[Any, Any]],
    jumps: Sequence[Any],
    axes: Sequence[Axes] | None = None,
) -> list[Any]:
    """Returns ``results``; on the way back their jumps are sent to the live operands.

    Args:
      results: of a step.
      live: live operands and their values at the baseline.
      jumps: for each result what its difference has that those of the operands do not explain;
        None for those that are no floats.
      axes: for each live operand where its axes go in the only result; None: nothing is known.
    """
    operands, references = [a for a, _ in live], [b for _, b in live]
    alone = sorted(set.intersection(*(set(ways) - {None} for ways in axes))) if axes else []
    orders = [[ways.index(b) for b in alone] for ways in axes or ()] or [[] for _ in live]

    @jax.custom_vjp
    def run(results, operands, references, jumps):
        del operands, references, jumps
        return results

    def backward(kept: Any, m: Any):
        operands, references, jumps = kept
        wanted = [(j, w) for j, w in zip(jumps, m, strict=True) if j is not None]
        arrived = sum(_summed((_wide(j) * _wide(w)).real, alone) for j, w in wanted)
        differences = [
            _in_front(difference(_wide(a), _wide(b)), order)
            for a, b, order in zip(operands, references, orders, strict=True)
        ]
        sent = _least(differences, arrived, len(alone))
        back = [
            _from_front(s, order).astype(a.dtype)
            for s, a, order in zip(sent, operands, orders, strict=False)
        ]
        return m, [_compat.cotangent(s, a) for s, a in zip(back, operands, strict=True)], None, None

    run.defvjp(lambda *args: (args[0], args[1:]), backward)
    return run(list(results), operands, references, list(jumps))


def _least(differences: Sequence[jax.Array], arrived: Any, alone: int) -> list[jax.Array]:
    """Multipliers of least norm with sum(d m) = arrived, over all axes but the first ``alone``."""
    rest = [tuple(range(alone, d.ndim)) for d in differences]
    largest = [
        jnp.max(jnp.abs(d), axes, initial=0) for d, axes in zip(differences, rest, strict=False)
    ]
    # in units of the largest difference, so that no square leaves the range of its dtype
    unit = lax.stop_gradient(jnp.max(jnp.stack(largest), 0))
    unit = jnp.where(unit == 0, 1, unit)
    scaled = [d / _at(unit, d) for d in differences]
    size = sum(jnp.sum(jnp.abs(d) ** 2, axes) for d, axes in zip(scaled, rest, strict=True))
    share = arrived / jnp.where(size == 0, 1, size)
    return [finite(d.conj() * _at(share, d) / _at(unit, d)) for d in scaled]


def _at(a: jax.Array, like: jax.Array) -> jax.Array:
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim))


def _summed(a: jax.Array, kept: Sequence[int]) -> jax.Array:
    return jnp.sum(a, tuple(k for k in range(a.ndim) if k not in kept))


def _in_front(a: jax.Array, order: Sequence[int]) -> jax.Array:
    return jnp.moveaxis(a, order, range(len(order)))


def _from_front(a: jax.Array, order: Sequence[int]) -> jax.Array:
    return jnp.moveaxis(a, range(len(order)), order)


def _wide(a: Any) -> jax.Array:
    return wide(a) if is_float(a) else a.astype(jnp.float32)
