"""From a plan to values, with the rules' VJPs.

The plan is traced again. A step whose rule is the plain VJP is bound as it was; any other runs
inside a ``jax.custom_vjp`` whose backward pass is its rule. jit, vmap, grad of relevance, scan,
remat and sharding then come from JAX.

With a baseline every value that varies has a twin, its value there. Twins are computed beside, by
the same operations; they enter the rules, and get no multiplier. What travels with a value is in
its :class:`~jaxrel._execute.bundle.Bundle`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.kinds import solve_operands
from .._plan.primitives import OPAQUE, of
from .._plan.steps import Plan, Step
from .._plan.stopped import is_shift, shifted
from ..rules import ByDegree
from ..rulesets.assign import Assignment, is_plain
from .apart import run_apart
from .bundle import Bundle, fitted
from .control import CONTROL_FLOW, is_entered
from .step import apply_rule, run_nodes, run_plain, scope
from .switches import settle_step
from .taps import NO_TAPS, Probes, Taps, within
from .units import companioned, emits_unit, hand_on, hands_on

_NONE: Mapping[int, Any] = MappingProxyType({})


def evaluate(
    plan: Plan,
    chosen: Assignment,
    arguments: Sequence[Any],
    companions: Mapping[int, Any] = MappingProxyType({}),
    taps: Taps = NO_TAPS,
    twins: Sequence[Any] | None = None,
) -> list[Any]:
    """Runs ``plan`` on ``arguments`` and returns its outputs.

    Args:
      plan: what to do.
      chosen: the rule of each step, from :func:`jaxrel.rulesets.assign.assign`.
      arguments: values of the plan's inputs.
      companions: companions of inputs by value number; see :mod:`jaxrel._execute.units`.
      taps: what is read off on the way back, for audits; see :mod:`jaxrel._execute.taps`.
      twins: of the arguments, if relevance is against a baseline.
    """
    beside = [companions.get(value) for value in plan.inputs]
    there = [None] * len(arguments) if twins is None else twins
    given = [Bundle(*one) for one in zip(arguments, there, beside, strict=True)]
    return [bundle.value for bundle in Interpreter(chosen, taps).run(plan, given)]


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """Executes plans, nested ones with the rules and taps of the whole.

    Attributes:
      chosen: the rule of each step.
      taps: what is read off.
      apart: whether differences are carried in parts; see :mod:`jaxrel._execute.apart`.
      iterated: degrees of factors in this iteration of the loops around, by ``id`` of the step.
    """

    chosen: Assignment
    taps: Taps = NO_TAPS
    apart: bool = False
    iterated: Mapping[int, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def units(self) -> bool:
        """Whether some rule needs companions."""
        return any(emits_unit(rule) for rule in self.chosen.values())

    def probes(self, step: Step) -> Probes:
        """Those of what is inside ``step``; a loop's with one row for each iteration."""
        return within(step, self.taps.probes)

    def having(self, probes: Probes, iterated: Mapping[int, Any] = _NONE) -> Interpreter:
        """The interpreter inside a control step, with its probes there.

        Args:
          probes: see :meth:`probes`.
          iterated: in a loop, of this iteration; see :meth:`degrees`.
        """
        inner = {**self.iterated, **iterated}
        return dataclasses.replace(self, taps=self.taps.having(probes), iterated=inner)

    def degrees(self, step: Step) -> dict[int, Any]:
        """Degrees of factors inside a loop, with one row for each of its iterations."""
        if not self.chosen.iterated:
            return {}
        known = {**self.chosen.iterated, **self.iterated}
        inside = {id(inner) for body in step.bodies for inner in body.walk()}
        return {key: jnp.asarray(rows) for key, rows in known.items() if key in inside}

    def run(self, plan: Plan, given: Sequence[Bundle], wanted: Sequence[bool] = ()) -> list[Bundle]:
        """Runs ``plan``.

        Args:
          plan: any, of the whole or nested.
          given: its inputs.
          wanted: for each output whether it is to have a companion, as far as it has relevance;
            empty: none is.
        """
        if not any(wanted) and self._is_plain(plan, given):
            return list(map(Bundle, _compat.run_jaxpr(plan.jaxpr, [b.value for b in given])))
        needed = companioned(plan, self.chosen, wanted) if self.units else frozenset()
        env = {value: Bundle(content) for value, content in plan.constants.items()}
        for value, bundle in zip(plan.inputs, given, strict=True):
            env[value] = fitted(bundle, bundle.varies, value in needed, self.apart)
        values = {number: bundle.value for number, bundle in env.items()}
        logits = shifted(plan)
        for step in plan.steps:
            operands = [env[value] for value in step.operands]
            results = self._step(
                step, operands, [v in needed for v in step.results], values, logits
            )
            env.update(zip(step.results, results, strict=True))
            values.update((v, env[v].value) for v in step.results)
        ends = self.taps.ends(plan, [values[value] for value in plan.outputs], values)
        return [env[v]._replace(value=z) for v, z in zip(plan.outputs, ends, strict=True)]

    def _is_plain(self, plan: Plan, given: Sequence[Bundle]) -> bool:
        """Tells whether there is nothing to add to a plan, so that it can run as it is."""
        alone = not jax.tree.leaves([bundle.company for bundle in given])
        whole = plan.jaxpr is not None
        return whole and alone and not self.taps.probes and is_plain(plan, self.chosen)

    def _step(
        self,
        step: Step,
        given: list[Bundle],
        wanted: list[bool],
        values: Mapping[int, Any],
        logits: frozenset[int],
    ) -> list[Bundle]:
        """One step with its rule, between its taps; its results, with companions as wanted."""
        rule = self.chosen.get(id(step))
        if step.kind == "place":
            return [self.taps.place(step, self._fitted_place(step, given[0], wanted[0]))]
        twins = [bundle.twin for bundle in given]
        beside = [k for k in step.live if given[k].companion is not None]
        operands = [bundle.value for bundle in given]
        companions = [given[k].companion for k in beside]
        operands, companions = self.taps.inputs(step, operands, companions, twins, values)
        given = [b._replace(value=x) for b, x in zip(given, operands, strict=True)]
        for k, companion in zip(beside, companions, strict=True):
            given[k] = given[k]._replace(companion=companion)
        with scope(step), _compat.at_source(step.nodes[-1].eqn):
            results = self.execute(step, given, wanted, not is_shift(step, logits))
            made = [bundle.twin for bundle in results]
            out = [bundle.value for bundle in results]
            out = self.taps.outputs(step, rule, operands, twins, out, made, values)
            results = [b._replace(value=z) for b, z in zip(results, out, strict=True)]
            if any(wanted) and hands_on(step, rule):
                handed = self.taps.companions(step, hand_on(step, operands, companions, run_nodes))
                results = [b._replace(companion=r) for b, r in zip(results, handed, strict=True)]
        return [
            fitted(bundle, bundle.varies, unit, self.apart and bundle.parts is not None)
            for bundle, unit in zip(results, wanted, strict=True)
        ]

    def _fitted_place(self, step: Step, bundle: Bundle, unit: bool) -> Bundle:
        """The bundle of a place; where relevance starts its companion does too."""
        if unit and bundle.companion is None and not step.live:
            bundle = bundle._replace(companion=jnp.zeros_like(bundle.value))
        return fitted(bundle, bundle.varies, unit, self.apart)

    def execute(
        self, step: Step, given: list[Bundle], wanted: Sequence[bool], settles: bool = True
    ) -> list[Bundle]:
        """The results of a step; companions come only of what it enters."""
        if is_entered(step, given, wanted, self):
            return CONTROL_FLOW[step.variant](step, given, wanted, self)
        rule = self.chosen.get(id(step))
        if self.apart and step.kind != "constant" and any(bundle.varies for bundle in given):
            whole = Interpreter(self.chosen)
            return run_apart(
                step, rule, given, lambda joined: whole.execute(step, joined, wanted, settles)
            )
        if id(step) in self.iterated:
            rule = ByDegree(tuple(self.iterated[id(step)]))
        return _run_alone(step, rule, self.chosen, given, settles)


def _run_alone(
    step: Step, rule: Any, chosen: Assignment, given: Sequence[Bundle], settles: bool
) -> list[Bundle]:
    """A step that is not entered, by its rule; without one as it is."""
    if step.kind == "constant" and step.nodes[0].name in OPAQUE:
        given = [
            Bundle(_stopped(b.value), None if b.twin is None else _stopped(b.twin)) for b in given
        ]
    values = [bundle.value for bundle in given]
    compared = any(bundle.varies for bundle in given) and bool(step.results)
    base = [bundle.origin for bundle in given]
    made: list[Any] = [None] * len(step.results)
    if compared:
        made = run_plain(step, base, chosen.shared, is_twin=True)
    # against other constants f is another function: the rule sees one of them, the jump is settled
    there, moved = made, settles and _is_moved(step, given)
    if moved:
        base = [given[k].origin if k in step.live else v for k, v in enumerate(values)]
        there = run_plain(step, base, chosen.shared, is_twin=True)
    if rule is None or not any(jnp.size(values[k]) for k in step.live):
        results = run_plain(step, values, chosen.shared)  # no rule need know of no element
    else:
        companions = [c for k in step.live if (c := given[k].companion) is not None]
        reference = (base, there) if compared else None
        results = apply_rule(step, rule, values, companions, reference, chosen.shared)
    if moved:
        results = settle_step(step, values, base, results, there, made)
    return [Bundle(z, z0) for z, z0 in zip(results, made, strict=True)]


def _is_moved(step: Step, given: Sequence[Bundle]) -> bool:
    """Tells whether what is not live is another at the baseline."""
    if step.kind == "constant" or not step.live or step.nodes[-1].stands_in:
        return False
    reads: Iterable[int] = range(len(given))
    if of(step.nodes[-1].name).solves is not None:  # others only help to find the solution
        reads = chain(*solve_operands(step.nodes[-1].eqn))
    return any(given[k].varies for k in reads if k not in step.live)


def _stopped(value: Any) -> Any:
    """``value`` as a constant: what an opaque call reads."""
    is_float = jnp.issubdtype(jnp.result_type(value), jnp.inexact)
    return lax.stop_gradient(value) if is_float else value
