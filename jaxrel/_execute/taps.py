"""Taps: what passes a place on the way back, read off without touching what passes.

A tap is the identity with one more operand, a probe of zeros that enters nothing. The probe's
cotangent is the relevance that passed: sum of x m. So whatever is read off is one more
``jax.vjp``, with respect to the probes, and works wherever that does: under jit, vmap, in branches,
per iteration of a scan, per shard.

Two things are read off: the relevance of constants (:mod:`jaxrel._execute.blame`), and the books of
an audit (:mod:`jaxrel._execute.books`). What is read off is added up in float32 at least, whatever
the dtype of what passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._plan.steps import Plan, Step
from ..rules.numerics import difference, far


class Key(NamedTuple):
    """What a probe is about.

    Attributes:
      owner: ``id`` of a step, or of a nested plan.
      place: what passes a ``"step"`` on the way to one of its constants, or to the ``"rest"`` of
        them; an ``"operand"`` or an ``"output"``; what goes in and out, ``"flow"``; a ``"place"``.
      position: which one.
    """

    owner: int
    place: str = "step"
    position: int = 0


Probes = Mapping[Key, Any]
"""Zeros, whose cotangents are read off; one row for each iteration of the loops around. That of a
place is a :class:`~jaxrel._execute.places.Mark`."""


def sum_type(dtype: Any) -> Any:
    """The real dtype to add up in: float32 at least."""
    real = jnp.finfo(dtype)
    return real.dtype if real.bits >= 32 else jnp.dtype(jnp.float32)


def worth(x: Any, m: Any, dtype: Any) -> jax.Array:
    """The relevance x m, real, in ``dtype``; an infinite x is no more than far."""
    part = np.promote_types(dtype, np.complex64) if jnp.iscomplexobj(m) else dtype
    product = jnp.where(m == 0, 0, far(jnp.asarray(x).astype(part)) * m.astype(part))
    return product.real.astype(dtype)


@dataclasses.dataclass(frozen=True)
class Taps:
    """What is read off as a plan is executed; here nothing.

    Attributes:
      probes: of the plan that is executed, and of what is nested in it; empty: nothing is read off.
      caught: gets the values of the places that are passed; what control steps hold hands out its
        own.
    """

    probes: Probes = dataclasses.field(default_factory=dict)
    caught: dict[Key, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    def having(self, probes: Probes) -> Taps:
        """The same inside a control step.

        Args:
          probes: those :func:`within` it; of a loop, for one iteration.
        """
        return dataclasses.replace(self, probes=probes, caught={})

    def inputs(
        self, step: Step, values: list[Any], companions: list[Any], twins: Sequence[Any], env: Any
    ) -> tuple[list[Any], list[Any]]:
        """Taps the operands of a step, and companions of the live ones.

        Args:
          step: about to be executed.
          values: of its operands.
          companions: see :mod:`jaxrel._execute.units`.
          twins: of the operands, None for those that are the same at the baseline.
          env: all values there are, by number.
        """
        del step, twins, env
        return values, companions

    def companions(self, step: Step, companions: list[Any]) -> list[Any]:
        """Taps the companions of a step's results."""
        del step
        return companions

    def outputs(
        self,
        step: Step,
        rule: Any,
        values: Sequence[Any],
        others: Sequence[Any],
        results: list[Any],
        twins: Sequence[Any],
        env: Any,
    ) -> list[Any]:
        """Taps the results of a step.

        Args:
          step: that was executed.
          rule: its own.
          values: of its operands.
          others: their twins.
          results: of the step.
          twins: of the results.
          env: all values there are, by number.
        """
        del step, rule, values, others, twins, env
        return results

    def place(self, step: Step, bundle: Any) -> Any:
        """Taps a place.

        Args:
          step: of kind ``place``.
          bundle: its value and all that travels with it.
        """
        del step
        return bundle

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Taps the results of a plan."""
        del plan, env
        return outputs


NO_TAPS = Taps()


def within(step: Step, probes: Probes) -> dict[Key, jax.Array]:
    """The probes of what is inside a control step."""
    owners: set[int] = set()

    def visit(plans: Sequence[Plan]) -> None:
        for plan in plans:
            owners.add(id(plan))
            for inner in plan.steps:
                owners.add(id(inner))
                visit(inner.bodies)

    if probes:
        visit(step.bodies)
    return {key: probe for key, probe in probes.items() if key.owner in owners}


@jax.custom_vjp
def tap(x: jax.Array, probe: jax.Array, twin: jax.Array | None) -> jax.Array:
    """Returns ``x``; the scalar ``probe`` gets sum(x m) for the multiplier m that ``x`` gets.

    Against a baseline, where x has a twin, it gets sum((x - twin) m).
    """
    del probe, twin
    return x


def _tap_forward(x: jax.Array, probe: jax.Array, twin: jax.Array | None):
    return x, (x if twin is None else difference(x, twin), probe)


def _tap_backward(kept: Any, m: jax.Array):
    x, probe = kept
    return m, _compat.cotangent(jnp.sum(worth(x, m, probe.dtype)), probe), None


tap.defvjp(_tap_forward, _tap_backward)


@jax.custom_vjp
def tap_companion(companion: jax.Array, probe: jax.Array) -> jax.Array:
    """Returns ``companion``; the scalar ``probe`` gets the sum of its relevance."""
    del probe
    return companion


tap_companion.defvjp(
    lambda companion, probe: (companion, probe),
    lambda probe, r: (r, _compat.cotangent(jnp.sum(r.astype(probe.dtype)), probe)),
)
