"""Taps: what passes a place on the way back, read off without touching what passes.

A tap is the identity with one more operand, a probe of zeros that enters nothing. The probe's
cotangent is the relevance that passed: sum of x m. So an audit is one more ``jax.vjp``, with
respect to the probes, and works wherever that does: under jit, in branches, per iteration of a
scan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .._plan.steps import Plan, Step
from ..rules import Gradient
from ..rules.numerics import difference
from ..rulesets.assign import Assignment
from .step import hyperparameters, view_of

IN, OUT, BIAS = range(3)
"""What a step's probe counts: relevance arriving at it, handed on to its inputs, to its biases."""

Probes = Mapping[int, jax.Array]
"""By ``id`` of the step, an array ``(..., 3)``, one row for each iteration of the loops around."""


def zeros(plan: Plan, chosen: Assignment, around: tuple[int, ...] = ()) -> dict[int, jax.Array]:
    """Probes for every step of ``plan`` that has a rule.

    Args:
      plan: the plan.
      chosen: the rules.
      around: lengths of the loops around it.
    """
    found: dict[int, jax.Array] = {}
    for step in plan.steps:
        if id(step) in chosen:
            found[id(step)] = jnp.zeros((*around, 3))
        length = (step.nodes[0].eqn.params["length"],) if step.variant == "scan" else ()
        for body in step.bodies:
            found.update(zeros(body, chosen, (*around, *length)))
    return found


def tap(x: jax.Array, probe: jax.Array, twin: jax.Array | None = None) -> jax.Array:
    """Returns ``x``; the scalar ``probe`` gets sum(x m) for the multiplier m that ``x`` gets.

    Against a baseline, where x has a twin, it gets sum((x - twin) m).
    """
    return _tap(x, probe, jnp.zeros_like(x) if twin is None else twin)


@jax.custom_vjp
def _tap(x: jax.Array, probe: jax.Array, twin: jax.Array) -> jax.Array:
    del probe, twin
    return x


_tap.defvjp(
    lambda x, probe, twin: (x, (difference(x, twin), probe)),
    lambda kept, m: (m, jnp.sum(kept[0] * m).astype(kept[1].dtype), None),
)


@jax.custom_vjp
def tap_companion(companion: jax.Array, probe: jax.Array) -> jax.Array:
    """Returns ``companion``; the scalar ``probe`` gets the sum of its relevance."""
    del probe
    return companion


tap_companion.defvjp(
    lambda companion, probe: (companion, probe),
    lambda probe, r: (r, jnp.sum(r).astype(probe.dtype)),
)


def tap_bias(step: Step, rule: Any, values: Sequence[Any], z: jax.Array, probe: jax.Array):
    """Returns the step's result ``z``; ``probe`` gets the relevance of the additive constants."""
    leaves, rebuild = hyperparameters(Gradient() if rule is None else rule)

    @jax.custom_vjp
    def run(leaves: list[Any], values: list[Any], z: jax.Array, probe: jax.Array) -> jax.Array:
        del leaves, values, probe
        return z

    def backward(kept: Any, m: jax.Array):
        leaves, values, z, probe = kept
        rule, view = rebuild(leaves), view_of(step, values, [z])
        to_bias = getattr(rule, "to_bias", None)
        if to_bias is None:  # a plain function
            to_bias = Gradient().to_bias
        return None, None, m, jnp.sum(to_bias(view, m).real).astype(probe.dtype)

    run.defvjp(lambda *operands: (run_plain(*operands), operands), backward)
    return run(leaves, list(values), z, probe)


def run_plain(leaves: Any, values: Any, z: jax.Array, probe: Any) -> jax.Array:
    """What a tap computes."""
    del leaves, values, probe
    return z


class Taps(Protocol):
    """What is read off as a plan is executed: an audit's books, or the relevance of constants.

    Attributes:
      probes: operands whose cotangents are what is read off; empty: nothing is.
    """

    @property
    def probes(self) -> Mapping[Any, jax.Array]:
        """See above."""
        ...

    def at(self, index: jax.Array) -> Taps:
        """Those inside one iteration of a loop."""
        ...

    def inputs(
        self, step: Step, values: list[Any], companions: list[Any], twins: Sequence[Any], env: Any
    ) -> tuple[list[Any], list[Any]]:
        """Taps the operands of a step, and companions of the live ones."""
        ...

    def companions(self, step: Step, companions: list[Any]) -> list[Any]:
        """Taps the companions of a step's results."""
        ...

    def outputs(
        self,
        step: Step,
        rule: Any,
        values: Sequence[Any],
        results: list[Any],
        twins: Sequence[Any],
        env: Any,
    ) -> list[Any]:
        """Taps the results of a step."""
        ...

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Taps the results of a plan."""
        ...


@dataclasses.dataclass(frozen=True)
class Tapped:
    """Puts taps around the steps of a plan as it is executed.

    Attributes:
      probes: see :data:`Probes`; empty: nothing is tapped.
    """

    probes: Probes

    def of(self, step: Step) -> jax.Array | None:
        """The probe of a step, if it has one."""
        return self.probes.get(id(step))

    def at(self, index: jax.Array) -> Tapped:
        """The taps inside one iteration of a loop; those outside keep their single row."""
        inner = {key: p[index] for key, p in self.probes.items() if p.ndim > 1}
        return Tapped({**self.probes, **inner})

    def inputs(
        self, step: Step, values: list[Any], companions: list[Any], twins: Sequence[Any], env: Any
    ):
        """Taps the live operands of a step, and their companions."""
        del env
        probe = self.of(step)
        if probe is None:
            return values, companions
        values = list(values)
        for k in step.live:
            values[k] = tap(values[k], probe[OUT], twins[k])
        return values, [tap_companion(c, probe[OUT]) for c in companions]

    def companions(self, step: Step, companions: list[Any]) -> list[Any]:
        """Taps the companions of a step's results."""
        probe = self.of(step)
        return companions if probe is None else [tap_companion(c, probe[IN]) for c in companions]

    def outputs(
        self,
        step: Step,
        rule: Any,
        values: Sequence[Any],
        results: list[Any],
        twins: Sequence[Any],
        env: Any,
    ):
        """Taps the results of a step; against a baseline its constants cancel."""
        del env
        probe = self.of(step)
        if probe is None:
            return results
        compared = any(twin is not None for twin in twins)
        single = len(results) == 1 and step.kind in ("matmul", "linear", "nonlinearity", "other")
        if single and not compared:
            results = [tap_bias(step, rule, values, results[0], probe[BIAS])]
        return [tap(z, probe[IN], z0) for z, z0 in zip(results, twins, strict=True)]

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Taps the results of a plan: there is nothing to read off."""
        del plan, env
        return outputs


NO_TAPS = Tapped({})
