"""The books of an audit: what every step gets, hands on, and leaves to its constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._plan.steps import Plan, Step
from ..rulesets.assign import Assignment
from .blame import Blamed, zero_probes
from .constants import Constant, is_parallel
from .rounding import is_rounded, tap_missing
from .taps import Key, Taps, tap, tap_companion

IN, OUT, MISSING = range(3)
"""What a step's probe counts: relevance arriving at it, handed on to its inputs, and of a step in
16 bits what is missing when nothing is rounded; see :mod:`jaxrel._execute.rounding`."""


class Row(NamedTuple):
    """One row of the books.

    Attributes:
      step: what it is about; None for a constant that a control step, or a result, is as a whole.
      flow: the probe of what goes in and out, if there is a step.
      constants: probes of what goes to constants.
    """

    step: Step | None
    flow: Key | None
    constants: tuple[Key, ...]


def rows(plan: Plan, chosen: Assignment, found: Mapping[Key, Constant]) -> list[Row]:
    """The rows of the books of a plan, in order of execution."""
    owned: dict[int, list[Key]] = {}
    for key in found:
        owned.setdefault(key.owner, []).append(key)
    return list(_rows(plan, chosen, owned))


def _rows(plan: Plan, chosen: Assignment, owned: Mapping[int, list[Key]]) -> Iterator[Row]:
    for step in plan.steps:
        own = owned.get(id(step), [])
        if id(step) in chosen:
            yield Row(step, Key(id(step), "flow"), tuple(own))
            continue
        yield from (Row(None, None, (key,)) for key in own)
        for body in step.bodies:
            yield from _rows(body, chosen, owned)
    yield from (Row(None, None, (key,)) for key in owned.get(id(plan), []))


def zeros(plan: Plan, chosen: Assignment, found: Mapping[Key, Constant]) -> dict[Key, jax.Array]:
    """Probes for every step of ``plan`` that has a rule, and for every constant."""
    return {**_flows(plan, chosen, ()), **zero_probes(found)}


def _flows(plan: Plan, chosen: Assignment, around: tuple[int, ...]) -> dict[Key, jax.Array]:
    flows: dict[Key, jax.Array] = {}
    for step in plan.steps:
        if id(step) in chosen:
            flows[Key(id(step), "flow")] = jnp.zeros((*around, 3))
        length = (step.nodes[0].eqn.params["length"],) if step.variant == "scan" else ()
        for body in step.bodies:
            flows.update(_flows(body, chosen, (*around, *length)))
    return flows


def implicit(account: Sequence[Row], read: Mapping[Key, jax.Array]) -> dict[str, jax.Array]:
    """What rules create (or, negative, destroy) and stabilisers take, by layer.

    Of each step that is y m - sum x m - what went to its constants.

    Args:
      account: the rows of the books.
      read: what probes got.
    """
    found: dict[str, jax.Array] = {}
    for row in account:
        if row.step is None or row.flow is None:
            continue
        flow = read[row.flow]
        left = jnp.sum(flow[..., IN]) - jnp.sum(flow[..., OUT])
        left = left - sum(jnp.sum(read[key]) for key in row.constants)
        path = row.step.location
        found[path] = found[path] + left if path in found else left
    return found


@dataclasses.dataclass(frozen=True)
class Books(Taps):
    """Puts taps around the steps of a plan as it is executed.

    Attributes:
      found: the constants; none against a baseline, where they cancel.
    """

    found: Mapping[Key, Constant] = dataclasses.field(default_factory=dict)

    @property
    def _blamed(self) -> Blamed:
        return Blamed(self.probes, self.found)

    def _gives(self, step: Step) -> bool:
        """Tells whether constants of a step have relevance, if only what is rounded off."""
        keys = (Key(id(step), "step", k) for k in range(len(step.operands)))
        named = Key(id(step), "rest") in self.found or any(key in self.found for key in keys)
        return named or step.kind in ("matmul", "linear", "sum")

    def _flow(self, step: Step) -> jax.Array | None:
        return self.probes.get(Key(id(step), "flow"))

    def inputs(
        self, step: Step, values: list[Any], companions: list[Any], twins: Sequence[Any], env: Any
    ):
        """Taps the live operands of a step, and their companions."""
        values, companions = self._blamed.inputs(step, values, companions, twins, env)
        probe = self._flow(step)
        if probe is None:
            return values, companions
        values = list(values)
        for k in step.live:
            values[k] = tap(values[k], probe[OUT], twins[k])
        return values, [tap_companion(c, probe[OUT]) for c in companions]

    def companions(self, step: Step, companions: list[Any]) -> list[Any]:
        """Taps the companions of a step's results."""
        probe = self._flow(step)
        return companions if probe is None else [tap_companion(c, probe[IN]) for c in companions]

    def outputs(
        self,
        step: Step,
        rule: Any,
        values: Sequence[Any],
        others: Sequence[Any],
        results: list[Any],
        twins: Sequence[Any],
        env: Any,
    ):
        """Taps the results of a step, and blames its constants."""
        results = self._blamed.outputs(step, rule, values, others, results, twins, env)
        probe = self._flow(step)
        if probe is None:
            return results
        # what constants that move make is settled, not the rule's
        moves = any(t is not None for k, t in enumerate(others) if k not in step.live)
        if is_rounded(step) and not moves:
            results = tap_missing(
                step, rule, values, others, results, self._gives(step), probe[MISSING]
            )
        return [
            tap(z, probe[IN], z0) if _is_live(step, k, z) else z
            for k, (z, z0) in enumerate(zip(results, twins, strict=True))
        ]

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Blames results of a plan that are constant there and live outside."""
        return self._blamed.ends(plan, outputs, env)


def _is_live(step: Step, k: int, z: Any) -> bool:
    """Tells whether relevance arrives at the step's result ``z``, the ``k``-th."""
    is_float = jnp.issubdtype(jnp.result_type(z), jnp.inexact)
    return is_float and (k in step.live or not is_parallel(step))
