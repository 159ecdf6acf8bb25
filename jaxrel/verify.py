"""Whether a plan is true: every claim of every step, tried on real numbers.

    print(verify(fun)(images))

Rules trust what a plan says of the steps they are applied to: that a layer is W x + b, that a value
is nonnegative, that a function is homogeneous, that a softmax divides exponentials by their own
total. Here the function is run step by step, nested plans included, and each such claim is an
equation whose two sides are computed and compared (:mod:`jaxrel._execute.claims`). One claim is
about the whole: steps that are taken for constants are constants, so that nothing live is left out
of the explanation, and the gradient through the plan is ``jax.grad``'s.

It is what to run on a model of one's own, and what the tests run on theirs. Two sides that agree on
one input may differ on another: give it inputs as they come, not zeros.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _compat
from ._call.arguments import Arguments, check_function
from ._call.baseline import read_baseline
from ._execute.claims import Sides, claims_of
from ._execute.explanation import trace
from ._execute.step import run_nodes, view_of
from ._execute.walk import Env, live_values, walk
from ._plan.steps import Plan, Step
from ._show.tables import Sheet
from .api import Rules, default_rules
from .rulesets.assign import Assignment, assign
from .rulesets.presets import preset

_LEFT_OUT = "a constant: nothing live is left out"
_WHOLE = "the gradient through the plan is jax.grad"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim that does not hold.

    Attributes:
      path: layer path.
      kind, operation: of the step, as :func:`jaxrel.summary` shows them.
      source: ``file:line (function)`` of the code that made it.
      claim: what is claimed of it.
      error: the largest difference between the two sides, relative to the largest value in them.
    """

    path: str
    kind: str
    operation: str
    source: str
    claim: str
    error: float


@dataclasses.dataclass(frozen=True)
class Verification:
    """What :func:`verify` found; true if every claim holds. Printed, a sentence or a table.

    Attributes:
      claims: how many claims were tested, each counted once however often its step ran.
      steps: of how many steps.
      findings: those that do not hold, in order of execution.
    """

    claims: int
    steps: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return not self.findings

    def __bool__(self) -> bool:
        """Whether every claim holds."""
        return self.ok

    def __str__(self) -> str:
        """``n claims of m steps hold``, or a table of those that do not."""
        if self.ok:
            return f"{self.claims} claims of {self.steps} steps hold"
        head = ("path", "kind", "operation", "claim", "error", "source")
        rows = [
            (f.path or "-", f.kind, f.operation, f.claim, f"{f.error:.2g}", f.source or "-")
            for f in self.findings
        ]
        wrong = f"{len(rows)} of {self.claims} claims of {self.steps} steps do not hold"
        return f"{Sheet(head, rows).text()}\n{wrong}"


def verify(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
) -> Callable[..., Verification]:
    """Returns a function that tests everything the plan of ``fun`` claims, on real numbers.

    Args:
      fun, rules, argnums: as for :func:`jaxrel.relevance`; the outputs may be any pytree. Of the
        rules it matters how they take the function apart.
      baseline: as for :func:`jaxrel.relevance`; the claims are tested there too (of many
        references at the first).

    Returns:
      A function with the signature of ``fun`` that returns a :class:`Verification`. It looks at
      numbers, one operation at a time: not under ``jit``, ``vmap`` or ``grad``.

    Raises:
      TypeError: an argument is traced; else as :func:`jaxrel.relevance`.
      ValueError, UnsupportedPrimitive: as :func:`jaxrel.relevance`.

    Example:
      >>> print(verify(lambda x: jnp.tanh(x @ jnp.eye(2)).sum())(jnp.array([0.5, 0.25])))
      5 claims of 3 steps hold
    """
    check_function("verify", fun)
    rule_set = preset(default_rules(rules, baseline))

    @functools.wraps(fun)
    def verified(*args: Any, **kwargs: Any) -> Verification:
        if any(map(_compat.is_tracer, jax.tree.leaves((args, kwargs)))):
            raise TypeError(
                "verify looks at numbers, and an argument is traced: call it outside of jit, vmap "
                "and grad."
            )
        call = Arguments(fun, args, kwargs, argnums)
        plan, _ = trace(call, rule_set, compared=baseline is not None)
        chosen = assign(plan, rule_set, baseline is not None)
        points, whole = [call.leaves], None
        if baseline is not None:
            points.append(read_baseline(call, baseline).at(0))
            whole, _ = trace(call, rule_set)  # against a baseline stop_gradient is looked through
        return examine(plan, chosen, points, whole)

    return verified


def examine(
    plan: Plan, chosen: Assignment, points: Sequence[Sequence[Any]], whole: Plan | None = None
) -> Verification:
    """Tests the claims of ``plan`` at each of some lists of values of its arguments.

    Args:
      plan: the plan.
      chosen: the rules.
      points: values.
      whole: the plan whose gradient is tested, if that is another.
    """
    book = _Book()
    for leaves in points:
        walk(plan, leaves, _Claims(chosen, book))
        _gradient(whole or plan, leaves, Assignment() if whole else chosen, book)
    return book.report()


class _Book:
    """Errors by step and claim; a step that runs often has its largest."""

    def __init__(self):
        """Nothing is tested yet."""
        self.errors: dict[tuple[int, str], float] = {}
        self.steps: dict[int, Step] = {}
        self.limits: dict[int, float] = {}

    def write(self, step: Step | None, claim: str, error: float, limit: float) -> None:
        """Notes an error of one claim, and which is too large."""
        if step is not None:
            self.steps[id(step)] = step
        key = (id(step), claim)
        self.errors[key] = max(self.errors.get(key, 0.0), error)
        self.limits[id(step)] = limit

    def report(self) -> Verification:
        """What was written, put together."""
        findings = [
            _finding(self.steps.get(number), claim, error)
            for (number, claim), error in self.errors.items()
            if error > self.limits[number]
        ]
        return Verification(len(self.errors), len(self.steps), tuple(findings))


def _finding(step: Step | None, claim: str, error: float) -> Finding:
    if step is None:
        return Finding("", "", "the whole", "", claim, error)
    return Finding(step.location, step.kind, step.operation, step.source, claim, error)


class _Claims:
    """A visitor that tests the claims of every step it runs."""

    def __init__(self, chosen: Assignment, book: _Book):
        """Writes to ``book``; a call that has a rule as a whole is not entered."""
        self.chosen, self.book = chosen, book

    def step(self, plan: Plan, step: Step, env: Env) -> Sequence[Any]:
        """See :class:`jaxrel._execute.walk.Visitor`."""
        values = [env[value] for value in step.operands]
        results = run_nodes(step, values)
        if step.kind != "constant":
            env = {**env, **dict(zip(step.results, results, strict=True))}
            view = view_of(step, values, results)
            for claim, sides in claims_of(plan, step, env, view):
                self.write(step, claim, sides)
        return results

    def write(self, step: Step, claim: str, sides: Sides) -> None:
        """Notes how far the two sides of a claim are apart."""
        errors = [_apart(left, right) for left, right in sides]
        if errors:
            self.book.write(step, claim, float(np.max(errors)), _limit(step))

    def control(self, step: Step, values: list[Any]) -> Sequence[Any] | None:
        """See :class:`jaxrel._execute.walk.Visitor`."""
        if step.variant == "shard_map":
            return self._shards(step, values)
        return _compat.bind(step.nodes[0].eqn, values) if id(step) in self.chosen else None

    def _shards(self, step: Step, values: list[Any]) -> Sequence[Any]:
        """Within a mesh there are no numbers to look at: errors are results, one a device."""
        params = dict(step.nodes[0].eqn.params)
        inner, axes = _Sharded(self.chosen), tuple(params["mesh"].axis_names)

        def body(*arguments: Any) -> tuple[Any, ...]:
            inner.found.clear()  # it may be traced more than once
            out = walk(step.bodies[0], arguments, inner)
            errors = [jnp.float32(error) for _, _, error in inner.found]
            return (*out, jnp.stack([jnp.float32(0), *errors])[None])

        params["out_specs"] = (*params["out_specs"], jax.sharding.PartitionSpec(axes))
        *results, errors = _compat.shard_map(body, params)(*values)
        largest = np.asarray(errors).max(0)[1:]
        for (found, claim, _), error in zip(inner.found, largest, strict=True):
            self.book.write(found, claim, float(error), _limit(found))
        return results


class _Sharded(_Claims):
    """The same within ``shard_map``, where errors are traced."""

    def __init__(self, chosen: Assignment):
        """Keeps errors in ``found``."""
        super().__init__(chosen, _Book())
        self.found: list[tuple[Step, str, Any]] = []

    def write(self, step: Step, claim: str, sides: Sides) -> None:
        """See :class:`_Claims`."""
        errors = [_apart(left, right) for left, right in sides]
        if errors:
            self.found.append((step, claim, functools.reduce(jnp.maximum, errors)))


def _gradient(plan: Plan, leaves: Sequence[Any], chosen: Assignment, book: _Book) -> None:
    """Tests that the plan's constants are constants, one by one and all together."""
    floats = [k for k, live in enumerate(plan.live_outputs) if live]

    def total(run: Callable[[Sequence[Any]], list[Any]]) -> Callable[..., Any]:
        def weighed(*leaves: Any) -> Any:
            rng, out = np.random.default_rng(0), run(leaves)
            outs = [out[k] for k in floats]  # whose plain sum may be constant: softmax
            noise = [jnp.asarray(rng.normal(size=z.shape), z.dtype) for z in outs]
            wide = functools.reduce(jnp.promote_types, (z.real.dtype for z in outs), jnp.float32)
            parts = ((z * w).real.astype(wide).sum() for z, w in zip(outs, noise, strict=True))
            return sum(parts, start=jnp.zeros((), wide))

        return weighed

    every = tuple(range(len(leaves)))
    walked = total(lambda x: walk(plan, x, _Stopped(chosen, book)))
    found = jax.grad(walked, every)(*leaves)
    expected = jax.grad(total(lambda x: _compat.run_jaxpr(plan.jaxpr, x)), every)(*leaves)
    error = max((float(_apart(*pair)) for pair in zip(found, expected, strict=True)), default=0.0)
    limit = max(map(_limit, plan.walk()), default=0.0)
    book.write(None, _WHOLE, error, limit)


class _Stopped:
    """A visitor through whose constants no gradient goes; it looks at what would have gone."""

    def __init__(self, chosen: Assignment, book: _Book):
        """Writes to ``book``."""
        self.chosen, self.book = chosen, book

    def step(self, plan: Plan, step: Step, env: Env) -> Sequence[Any]:
        """See :class:`jaxrel._execute.walk.Visitor`."""
        values = [env[value] for value in step.operands]
        results = run_nodes(step, values)
        if step.kind != "constant":
            return results
        live = live_values(plan)
        reads = [k for k, v in enumerate(step.operands) if v in live and _is_float(values[k])]
        if not reads:
            return results
        return [self._stop(step, r, values, reads, k) for k, r in enumerate(results)]

    def _stop(self, step: Step, result: Any, values: list[Any], reads: list[int], k: int) -> Any:
        if not _is_float(result):
            return result

        @jax.custom_vjp
        def stop(result: Any, values: list[Any]) -> Any:
            del values
            return result

        def backward(values: list[Any], m: Any) -> tuple[Any, Any]:
            def made(*live: Any) -> Any:
                replaced = list(values)
                for position, value in zip(reads, live, strict=True):
                    replaced[position] = value
                return run_nodes(step, replaced)[k]

            _, pullback = jax.vjp(made, *(values[position] for position in reads))
            lost = [jnp.max(jnp.abs(v), initial=0) for v in pullback(m)]
            arrived = jnp.max(jnp.abs(m), initial=0)
            error = float(jnp.max(jnp.stack(lost)) / jnp.where(arrived > 0, arrived, 1))
            self.book.write(step, _LEFT_OUT, error, _limit(step))
            return jnp.zeros_like(m), None

        stop.defvjp(lambda result, values: (result, values), backward)
        return stop(result, values)

    def control(self, step: Step, values: list[Any]) -> Sequence[Any] | None:
        """What has a derivative of its own keeps it; shards have no numbers to look at."""
        own = _compat.custom_call_name(step.nodes[0].eqn) and step.variant != "jit"
        whole = own or step.variant == "shard_map" or id(step) in self.chosen
        return _compat.bind(step.nodes[0].eqn, values) if whole else None


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _apart(left: Any, right: Any) -> Any:
    """The largest difference between two trees, relative to the largest number in them.

    Infinity agrees with infinity; a number does not.
    """
    worst: Any = 0.0
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if not _is_float(a) or not jnp.size(a):
            continue
        xp = jnp if _compat.is_tracer(a) or _compat.is_tracer(b) else np  # which compiles nothing
        both = jnp.promote_types(jnp.result_type(a), jnp.result_type(b))
        wide = jnp.promote_types(both, jnp.float32)  # numpy has no bfloat16
        a, b = xp.asarray(a).astype(wide), xp.asarray(b).astype(wide)
        known, other = xp.isfinite(a), xp.isfinite(b)
        a, b = xp.where(known, a, 0), xp.where(other, b, 0)
        size = xp.maximum(xp.abs(a).max(), xp.abs(b).max())
        error = xp.abs(a - b).max() / xp.where(size > 0, size, 1)
        worst = xp.maximum(worst, xp.where((known == other).all(), error, np.inf))
    return worst


def _limit(step: Step) -> float:
    """What is rounding: half the digits of the coarsest type in a step."""
    variables = [v for node in step.nodes for v in (*node.eqn.invars, *node.eqn.outvars)]
    types = [getattr(v.aval, "dtype", None) for v in variables]
    floats = [t for t in types if t is not None and jnp.issubdtype(t, jnp.inexact)]
    return max((float(jnp.finfo(t).eps) ** 0.5 for t in floats), default=0.0)
