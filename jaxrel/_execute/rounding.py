"""What rounding takes from the relevance of a step in 16 bits.

The books of such a step are added up in float32, but of values and multipliers that were rounded to
its own type: in 16 bits a rule that conserves exactly seems to create or destroy some per mille.
So the step's account is drawn up once more as if nothing had been rounded: z and m_x in float32, of
the x and m that there are. What is missing in that account is the stabiliser's or the rule's; the
difference between the two is rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.steps import Step
from ..rules import Gradient, Unit
from .constants import is_parallel
from .step import hyperparameters, run_wide, view_of
from .taps import worth
from .wide import is_narrow, widen


def is_rounded(step: Step) -> bool:
    """Tells whether a step computes in fewer than 32 bits."""
    if is_parallel(step):  # it computes nothing
        return False
    atoms = (atom for node in step.nodes for atom in (*node.eqn.invars, *node.eqn.outvars))
    return any(is_narrow(atom.aval) for atom in atoms)


def tap_missing(
    step: Step,
    rule: Any,
    values: Sequence[Any],
    twins: Sequence[Any],
    results: Sequence[Any],
    gives: bool,
    probe: jax.Array,
) -> list[Any]:
    """Returns ``results``; ``probe`` gets what is missing when the step is not rounded.

    Args:
      step: any with a rule.
      rule: its rule; None: the plain VJP.
      values: of its operands.
      twins: of its operands, None for those that are the same at the baseline.
      results: its results.
      gives: whether it has additive constants.
      probe: a scalar.
    """
    leaves, rebuild = hyperparameters(Gradient() if rule is None else rule)

    @jax.custom_vjp
    def run(leaves: Any, values: Any, twins: Any, results: list[Any], probe: Any) -> list[Any]:
        del leaves, values, twins, probe
        return results

    def backward(kept: Any, m: list[Any]):
        leaves, values, twins, probe = kept
        missing = _missing(step, rebuild(leaves), values, twins, m, gives, probe.dtype)
        return None, None, None, m, _compat.cotangent(missing, probe)

    run.defvjp(lambda *operands: (operands[3], (*operands[:3], operands[4])), backward)
    return run(leaves, list(values), list(twins), list(results), probe)


def _missing(
    step: Step, rule: Any, values: Any, twins: Any, m: list[Any], gives: bool, dtype: Any
) -> jax.Array:
    values, m = widen(values), widen(m)
    results, base = run_wide(step, values), None
    if any(twin is not None for twin in twins):
        there = widen([v if t is None else t for v, t in zip(values, twins, strict=True)])
        base = there, run_wide(step, there)
    view = view_of(step, values, results, base)
    arrived = m[0] if len(results) == 1 else tuple(m)

    def account(values: Any, multipliers: Any) -> jax.Array:
        pairs = zip(jax.tree.leaves(values), multipliers, strict=True)
        parts = (jnp.sum(worth(x, w, dtype)) for x, w in pairs if _counts(w))
        return sum(parts, jnp.zeros((), dtype))

    sent = rule(view, arrived)
    sent = sent if isinstance(sent, tuple | list) else (sent,)
    units = [jnp.sum(part.relevance, dtype=dtype) for part in sent if isinstance(part, Unit)]
    sent = [part.multiplier if isinstance(part, Unit) else part for part in sent]
    missing = account(view.change, m) - account(view.differences, sent) - sum(units)
    if gives and base is None:
        to_bias = getattr(rule, "to_bias", Gradient().to_bias)
        missing -= jnp.sum(to_bias(view, arrived).real, dtype=dtype)
    return missing


def _counts(m: Any) -> bool:
    """Tells whether something is a multiplier: not None, and not that of an integer."""
    return m is not None and m.dtype != jax.dtypes.float0
