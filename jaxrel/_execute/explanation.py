"""A call, traced, planned, and with its rules chosen: what every transformation begins with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._call.arguments import Arguments, SplitOutput, check_output
from .._call.baseline import Baseline, read_baseline
from .._call.layers import leaf_paths
from .._call.modules import named_modules, own_scope
from .._call.sown import sown_names
from .._call.unready import told_apart
from .._plan import Plan, build_plan
from .._plan.layers import placed
from .._plan.places import Marks
from .._plan.primitives import of
from .._plan.steps import INPUT, Fact
from .._plan.stopped import stopped
from ..errors import RuleError, UnsupportedPrimitive, place
from ..rules.numerics import difference
from ..rulesets.assign import Assignment, assign
from ..rulesets.multilinear import joined
from ..rulesets.presets import preset
from ..rulesets.ruleset import RuleSet, describe
from .apart import carries_parts
from .blame import Blamed, zero_probes
from .books import Books, zeros
from .bundle import Bundle, Pair, is_float, parts_of
from .constants import Constant
from .evaluate import Interpreter
from .inside import NOTHING, Inside, Places
from .places import Marked, places
from .size import CHANGE, change
from .taps import NO_TAPS, Key, Taps
from .units import companioned

_SLOPE = preset("slope")
_BESIDE = Fact(depends=True)
"""What is known of integers that differ at the baseline."""

Constants = Mapping[Key, Constant]
Pullback = Callable[[Any], tuple[list[Any], dict[Key, Any]]]


def trace(
    call: Arguments,
    rules: RuleSet = _SLOPE,
    explained: int | None = None,
    compared: bool = False,
    marks: Marks | None = None,
) -> tuple[Plan, SplitOutput]:
    """Traces a call to a plan, and remembers how its outputs are put together.

    Args:
      call: the call.
      rules: how it is to be taken apart.
      explained: how many of the first output leaves are explained; None: all.
      compared: whether there is a baseline. Then ``stop_gradient`` is looked through; not so where
        all rules are the gradient, which is what leaves it out, and where something behind it
        cannot be explained.
      marks: places that are to be explained.
    """
    call.check()
    names = leaf_paths(call.fun, call.args, call.kwargs)
    output = SplitOutput()

    def run(*leaves: Any) -> Any:
        with own_scope(call.fun):
            return output.split(call(leaves))

    sown = contextlib.nullcontext() if marks is None else sown_names()
    given = jax.tree.leaves((call.args, call.kwargs))
    with (
        told_apart(call.fun),
        sown,
        _compat.under_mesh(given),
        named_modules(call.fun, call.args) as models,
    ):
        jaxpr = jax.make_jaxpr(run)(*call.leaves)
    marks = None if marks is None else marks.among(_compat.open_jaxpr(jaxpr)[1], names)

    def read(through: frozenset[int] = frozenset()) -> Plan:
        built = build_plan(
            jaxpr,
            [INPUT if is_float(x) else _BESIDE for x in call.leaves],
            names=names,
            roots=frozenset(models),
            explained=explained,
            fold=rules.fold,
            parts=rules.parts,
            through=through,
            marks=marks,
        )
        return placed(built.plan)

    plan = read()
    if compared and not rules.is_gradient and (behind := stopped(plan)):
        seen = read(behind)
        plan = seen if _is_explainable(seen, plan, rules) else plan
    return plan, output


def _is_explainable(seen: Plan, plan: Plan, rules: RuleSet) -> bool:
    """Tells whether what is live in ``seen`` and not in ``plan`` can be: no ``while`` loop, say."""
    try:
        assign(seen, rules, True)
    except UnsupportedPrimitive:
        return False
    before = {id(node.eqn) for step in plan.walk() for node in step.nodes}
    nodes = (node for step in seen.walk() for node in step.nodes if id(node.eqn) not in before)
    calls = {id(node.eqn): node.eqn for node in nodes if of(node.name).own_derivative}
    return all(_compat.has_derivative(eqn) for eqn in calls.values())


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A call, planned and with its rules chosen, ready to be differentiated.

    Attributes:
      call: the call.
      plan, chosen: what to do.
      output: how the function's outputs are put together.
      companions: zeros for the inputs that need them; see :mod:`jaxrel._execute.units`.
      baseline: what the explained leaves are compared to; None: 0.
      places: what is explained inside.
      known: whether all numbers are: nothing is being traced.
    """

    call: Arguments
    plan: Plan
    chosen: Assignment
    output: SplitOutput
    companions: dict[int, jax.Array]
    baseline: Baseline | None
    places: Places
    known: bool

    def value(
        self,
        leaves: list[Any],
        companions: dict[int, Any],
        twins: list[Any] | None,
        taps: Taps = NO_TAPS,
    ):
        """The function's value; its auxiliary arrays, and the value's twin.

        ``twins`` are leaves at the baseline.
        """
        there = [None] * len(leaves) if twins is None else twins
        beside = [companions.get(number) for number in self.plan.inputs]
        given = list(map(Bundle, leaves, there, beside))
        first, *rest = Interpreter(self.chosen, taps).run(self.plan, given)
        return first.value, ([bundle.value for bundle in rest], first.twin)

    def of(self, leaves: list[Any]) -> Explanation:
        """The same of other leaves for the explained arguments."""
        return dataclasses.replace(self, call=self.call.having(leaves))

    def mesh(self) -> Any:
        """The context of the mesh of the values, where nobody has set one."""
        return _compat.under_mesh((*self.call.leaves, *self.plan.constants.values()))

    def combine(
        self, multipliers: Sequence[Any], units: Mapping[int, Any], twins: list[Any] | None
    ) -> list[Any]:
        """R = (x - x0) m + r for each leaf."""
        leaves = self.call.leaves
        if not self.call.explains:
            return []
        if twins is not None:
            leaves = [difference(x, x0) for x, x0 in zip(leaves, twins, strict=True)]
        found = [x * m for x, m in zip(leaves, multipliers, strict=True)]
        for k, number in enumerate(self.plan.inputs):
            found[k] = found[k] + units[number] if number in units else found[k]
        return found

    def check_multiples(self) -> None:
        """Checks that relevance is a multiple of x, or of its difference from the baseline.

        Raises:
          RuleError: some of it is not.
        """
        if self.companions:
            raise RuleError(
                f"multipliers: {self._where('emits_unit')} gives relevance to inputs that are "
                "worth 0, as Flat, WSquare or ZBox do, so it is no multiple of x. Choose another "
                "rule for the first layer: rules | {First(): ...}."
            )
        if self.baseline is not None and carries_parts(self.chosen):
            raise RuleError(
                f"multipliers: {self._where('carries_parts')} has two, for what increased and for "
                "what decreased, so relevance is no multiple of x - x0. Take deeplift_rescale."
            )

    def _where(self, fact: str) -> str:
        """The first step whose rule says this of itself, with its rule, in words."""
        pairs = ((step, self.chosen.get(id(step))) for step in self.plan.walk())
        step, rule = next((step, rule) for step, rule in pairs if getattr(rule, fact, False))
        return f"{describe(rule)} on {step.operation!r} {place(step.location, step.source)}"

    def vjp(
        self,
        twins: list[Any] | None,
        blamed: Constants,
        multiples: bool = False,
        ledger: bool = False,
    ) -> tuple[Any, Pullback, Any]:
        """``jax.vjp`` of the value, whose pullback gives relevances of leaves and what is inside.

        Inside are constants and places; and where it can be looked at, for relevances against a
        baseline, how much the value changes; see :mod:`jaxrel._execute.size`.

        Args:
          twins: the leaves at the baseline; None: 0.
          blamed: the constants.
          multiples: whether it gives the leaves' multipliers instead.
          ledger: whether the books of every step are read off beside; see
            :mod:`jaxrel._execute.books`.
        """
        with self.mesh():
            twins = twins and list(map(_placed_like, twins, self.call.leaves))
            first, pullback, (rest, there) = self._vjp(twins, blamed, multiples, ledger)
        watched = twins is not None and not multiples and self.known

        def relevances(m: Any) -> tuple[list[Any], dict[Any, Any]]:
            with self.mesh():
                found, inside = pullback(_placed_like(m, first))
                return found, inside | {CHANGE: change(m, first, there)} if watched else inside

        return first, relevances, rest

    def _vjp(
        self, twins: list[Any] | None, blamed: Constants, multiples: bool, ledger: bool
    ) -> tuple[Any, Pullback, tuple[Any, Any]]:
        """:meth:`vjp` in the mesh that is set; beside auxiliary values the value's twin."""
        if twins is not None and carries_parts(self.chosen):
            return self._vjp_apart(twins)

        def value(leaves: list[Any], companions: dict[int, Any], probes: dict[Any, Any]):
            taps = self.taps(probes, blamed, multiples, ledger)
            return self.value(leaves, companions, twins, taps)

        probes = zeros(self.plan, self.chosen, blamed) if ledger else zero_probes(blamed)
        operands = self.call.leaves, self.companions, probes | self.places.probes()
        first, pullback, rest = jax.vjp(value, *operands, has_aux=True)

        def relevances(m: Any) -> tuple[list[Any], dict[Any, Any]]:
            multipliers, units, inside = pullback(m)
            found = multipliers if multiples else self.combine(multipliers, units, twins)
            return found if self.call.explains else [], inside

        return first, relevances, rest

    def taps(
        self,
        probes: dict[Any, Any],
        blamed: Constants,
        multiples: bool = False,
        ledger: bool = False,
    ) -> Taps:
        """What reads off what is inside."""
        if not probes:
            return NO_TAPS
        inner = Books(probes, found=blamed) if ledger else Blamed(probes, found=blamed)
        if not self.places.marked:
            return inner
        marked = self.places.marked_by(probes)
        return Marked(marked, inner=inner, direct=self.places.direct, multiples=multiples)

    def _vjp_apart(self, twins: list[Any]) -> tuple[Any, Pullback, tuple[Any, Any]]:
        """:meth:`vjp` by parts: R = p m+ + n m- + r, and both multipliers begin as one."""
        leaves, inputs = self.call.leaves, self.plan.inputs
        pairs = zip(leaves, twins, strict=True)
        start = [parts_of(difference(x, x0)) if is_float(x) else None for x, x0 in pairs]

        def run(
            parts: list[Pair | None], companions: dict[int, Any], probes: dict[Any, Any]
        ) -> tuple[Pair, list[Bundle]]:
            beside = [companions.get(number) for number in inputs]
            given = map(Bundle, leaves, twins, beside, parts)
            interpreter = Interpreter(self.chosen, self.taps(probes, {}), apart=True)
            out = interpreter.run(self.plan, list(given))
            return out[0].difference, [bundle._replace(parts=None) for bundle in out]

        operands = start, self.companions, self.places.probes()
        _, pullback, out = jax.vjp(run, *operands, has_aux=True)

        def relevances(m: Any) -> tuple[list[Any], dict[Any, Any]]:
            multipliers, units, inside = pullback((m, m))
            if not self.call.explains:
                return [], inside
            columns = zip(start, multipliers, strict=True)
            found = [p * a + n * b for (p, n), (a, b) in columns]  # type: ignore[misc]
            pairs = zip(inputs, found, strict=True)
            return [r + units[number] if number in units else r for number, r in pairs], inside

        return out[0].value, relevances, ([bundle.value for bundle in out[1:]], out[0].twin)


def _placed_like(value: Any, like: Any) -> Any:
    """On an Explicit mesh, sharded alike: what is made outside of the mesh has no sharding."""
    explicit = _compat.is_explicit(jax.typeof(like))
    return _compat.cotangent(value, like) if explicit else value


def explain(
    call: Arguments,
    rules: RuleSet,
    has_aux: bool,
    baseline: Any = None,
    inside: Inside = NOTHING,
) -> Explanation:
    """Checks and plans a call, and chooses the rules."""
    marks = inside.marks(call) if inside else None
    plan, output = trace(call, rules, explained=1, compared=baseline is not None, marks=marks)
    check_output(call.fun, output, has_aux)
    chosen = assign(plan, rules, baseline is not None, explained=1)
    if baseline is not None and not carries_parts(chosen):
        plan, chosen = joined(plan, chosen)
    needed = companioned(plan, chosen)
    inputs = zip(plan.inputs, call.leaves, strict=True)
    companions = {number: jnp.zeros_like(x) for number, x in inputs if number in needed}
    references = None if baseline is None else read_baseline(call, baseline)
    found = inside.find(places(plan), () if marks is None else marks.seen)
    numbers = (*call.leaves, *(references.given if references else ()), *plan.constants.values())
    known = not any(_compat.is_tracer(x) for x in numbers)
    return Explanation(call, plan, chosen, output, companions, references, found, known)
