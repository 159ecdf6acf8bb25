"""Relevance that is out of all proportion to what it explains.

Against a baseline relevance adds up to f(x) - f(x0). Where single numbers are a thousand times as
large, they cancel: some step divides by what is nearly 0, at the baseline or half-way, or the value
hardly changed. They are right by the rules, and of little use to a reader; so there is a warning.

Only numbers that are known can be looked at. Under a trace (``jit``, ``vmap``, ``grad``) nothing is
computed for this, so that programs are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from ..errors import LargeRelevanceWarning, warn
from .taps import Key, sum_type

CHANGE = Key(0, "change")
"""Of how much the value changes, among what is read off."""
LIMIT = 1e3
"""Times the change is large."""


def change(m: jax.Array, value: jax.Array, there: jax.Array | None) -> jax.Array:
    """How much of a value with the multiplier m changes: that of the example that does most.

    Outputs add up, but for those along the first axis, which may be examples.
    """
    difference = jnp.zeros_like(value) if there is None else value - there
    moved = jnp.abs(m * difference).astype(sum_type(value.dtype))
    return jnp.max(moved.sum(tuple(range(1, moved.ndim))), initial=0)


def check_size(relevances: Iterable[Any], changed: jax.Array) -> None:
    """Warns of relevances more than ``LIMIT`` times as large as the change that they explain."""
    leaves = [r for r in jax.tree.leaves(relevances) if r.size]
    if any(_compat.is_tracer(x) for x in (*leaves, changed)):
        return
    largest = max((float(jnp.max(jnp.abs(r))) for r in leaves), default=0.0)
    if largest > LIMIT * float(changed):
        warn(
            f"relevance: the largest, {largest:.2g}, is more than {LIMIT:g} times as much as the "
            f"value differs from that at the baseline, {float(changed):.2g}: relevances cancel. "
            "audit(fun, rules, baseline=x0)(x) shows in which layer they grow. Compare to another "
            'baseline, or to many; by the rule set "compare_to_baseline"; or explain a value that '
            "differs more, a logit in place of a probability.",
            LargeRelevanceWarning,
        )
