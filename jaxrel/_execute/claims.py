"""What a plan claims of a step of each kind, as equations between numbers.

A rule trusts the kind of its step: that a ``matmul`` is linear(x, W) + b, that a softmax divides by
the total of its own exponentials. Each claim here is one such equation, tried on the step's own
values and on points beside them; they are a table by kind, and know no primitive.

A claim yields pairs (left side, right side), and nothing where it is not made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._plan.steps import Plan, Step
from ..rules import View
from ..rules.numerics import divide
from .step import run_nodes
from .walk import Env, live_values

Sides = Iterator[tuple[Any, Any]]
_FAR = 8.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A step on its values.

    Attributes:
      plan: the plan it stands in.
      step: the step.
      env: values by number, at least all that were made before it.
      view: what its rule sees.
    """

    plan: Plan
    step: Step
    env: Env
    view: View

    @property
    def x(self) -> tuple[jax.Array, ...]:
        """Values of the live inputs."""
        return self.view.inputs

    @property
    def y(self) -> tuple[jax.Array, ...]:
        """Other values of their shapes and sizes, the same in every run."""
        rng = np.random.default_rng(0)
        return tuple(_beside(rng, x) for x in self.x)


def _beside(rng: np.random.Generator, x: jax.Array) -> jax.Array:
    """Normal numbers of the size of ``x``, where a few masks by huge numbers do not count."""
    size = jnp.sum(jnp.clip(jnp.abs(x), 0, 1e3)) / max(x.size, 1)
    noise = rng.standard_normal(x.shape).astype(x.dtype)
    return jnp.asarray(noise) * jnp.where(size > 0, size, 1).astype(x.dtype)


def _plus(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(u + v for u, v in zip(a, b, strict=True))


def _double(f: Callable[..., Any], *x: jax.Array, degree: float = 1) -> Sides:
    yield f(*(2 * v for v in x)), jax.tree.map(lambda y: y * 2**degree, f(*x))


def _nonneg(case: Case) -> Sides:
    for x, nonneg in zip(case.x, case.step.nonneg, strict=False):
        if nonneg:
            yield jnp.abs(x), x


def _affine(case: Case) -> Sides:
    assert case.view.affine is not None
    parts = case.view.affine()
    z = parts.linear(case.x[0], parts.weight)
    yield z if parts.bias is None else z + parts.bias, case.view.output


def _weighted(case: Case) -> Sides:
    assert case.view.affine is not None
    parts = case.view.affine()
    (x,), (y,), w = case.x, case.y, parts.weight
    yield parts.linear(x + y, w), parts.linear(x, w) + parts.linear(y, w)
    yield from _double(lambda w: parts.linear(x, w), w)


def _additive(case: Case) -> Sides:
    f, zeros = case.view.function, [jnp.zeros_like(x) for x in case.x]
    both, one, two, none = f(*_plus(case.x, case.y)), f(*case.x), f(*case.y), f(*zeros)
    yield (
        jax.tree.map(jnp.add, both, none),
        jax.tree.map(jnp.add, one, two),
    )


def _elementwise(case: Case) -> Sides:
    f, (x,) = case.view.function, case.x
    if jnp.shape(case.view.output) != x.shape:
        return  # broadcast against something larger
    mask = jnp.arange(x.size).reshape(x.shape) % 3 == 0
    other = jnp.roll(x.ravel(), 1).reshape(x.shape)
    yield f(jnp.where(mask, x, other)), jnp.where(mask, f(x), f(other))


def _homogeneous(case: Case) -> Sides:
    if case.step.homogeneous:
        f, (x,) = case.view.function, case.x
        yield from _double(f, x)
        out, pullback = jax.vjp(f, x)
        (slope,) = pullback(jnp.ones_like(out))
        yield (slope * x).real, out.real if out.shape == x.shape else out.sum().real


def _factor(case: Case) -> Sides:
    if case.view.factor is not None:
        yield case.x[0] * case.view.factor(case.x[0]), case.view.output


def _largest(case: Case) -> Sides:
    if case.view.candidates is not None:
        for x in (case.x, _plus(case.x, case.y)):
            stack = case.view.candidates(*x)
            yield stack.min(0) if case.view.minimum else stack.max(0), case.view.function(*x)


def _bilinear(case: Case) -> Sides:
    f, (a, b), (c, d) = case.view.function, case.x, case.y
    yield f(a + c, b), f(a, b) + f(c, b)
    yield f(a, b + d), f(a, b) + f(a, d)


def _divided(case: Case) -> Sides:
    if len(case.x) < 2:  # the denominator below a constant
        return
    f, (a, v), (c, _) = case.view.function, case.x, case.y
    yield f(a + c, v), f(a, v) + f(c, v)
    yield f(a, 4 * v), f(a, v) * 4.0**-case.view.power


def _exponentials(case: Case) -> Sides:
    assert case.view.exponentials is not None
    yield case.view.exponentials().of(_exponentials_of(case)), case.view.output


def _exponentials_of(case: Case) -> jax.Array:
    """The step reads either logits or exponentials."""
    assert case.view.exponentials is not None
    base, (u,) = case.view.exponentials().log_base, case.x
    return u if base is None else jnp.exp(base * u)


def _shares(case: Case) -> Sides:
    """N(e) / T(e), or log T(e), T linear, and each exponential is divided by the total it is in.

    So nothing changes where the exponentials are divided by their totals, which are 1 then. Logits
    of -inf stay what they are.
    """
    assert case.view.exponentials is not None
    parts, (y,), within = case.view.exponentials(), case.y, _exponentials_of(case) != 0
    y = y / jnp.maximum(jnp.max(jnp.abs(y), initial=0), 1)
    e, other = (jnp.where(within, jnp.exp(v), 0) for v in (y, jnp.flip(y)))
    total, pullback = jax.vjp(parts.total, e)
    yield parts.total(e + other), total + parts.total(other)
    (weights,) = pullback(jnp.ones_like(total))
    shares, others = (divide(v, divide(pullback(parts.total(v))[0], weights)) for v in (e, other))
    yield parts.total(shares), (total != 0).astype(total.dtype)
    if parts.is_share:
        yield parts.of(shares), parts.of(e)
        yield 2 * parts.of(shares + others), parts.of(shares) + parts.of(others)
    else:
        doubled = jnp.full_like(case.view.output, math.log(2))
        yield parts.of(2 * shares) - parts.of(shares), doubled


def _system(case: Case) -> Sides:
    if case.view.system is None:
        return
    system = case.view.system()
    found = system.apply([case.x[k] for k in system.matrix], system.solution)
    for k, part in system.rhs:
        yield found[part], case.x[k]


def _statistic(case: Case) -> Sides:
    """The statistic varies along fewer axes than what it scales, and grows with it."""
    if len(case.x) < 2:  # the denominator below a constant
        return
    a, v = (case.step.operands[k] for k in case.step.live)
    found = _source(case.plan, (a, v))
    if found is None:
        return
    start, steps = found

    def at(scale: float) -> list[jax.Array]:
        env = {**case.env, start: case.env[start] * scale}
        for step in steps:
            made = run_nodes(step, [env[value] for value in step.operands])
            env.update(zip(step.results, made, strict=True))
        return [env[a], env[v]]

    narrow = jnp.finfo(case.view.output.dtype).bits < 32
    far = _FAR if narrow else 2.0**20
    (a0, v0), (a1, v1), (a2, v2) = at(0), at(far), at(2 * far)
    yield a2 - a0, 2 * (a1 - a0)
    grown = v1 > 4 * v0  # so far out what keeps it from 0 is nothing, unless there is nothing else
    yield jnp.where(grown, v2, 0), jnp.where(grown, 2 ** (1 / case.view.power) * v1, 0)
    value = case.view.inputs[1]
    constant = [jnp.all(value == jnp.take(value, jnp.array([0]), k)) for k in range(value.ndim)]
    fewer = value.size < case.x[0].size or any(constant)
    yield jnp.asarray(fewer, a2.dtype), jnp.ones((), a2.dtype)


def _source(plan: Plan, ends: Sequence[int]) -> tuple[int, list[Step]] | None:
    """The last value that all of ``ends`` are made of, live ones alone, and the steps between."""
    live, maker = live_values(plan), {v: k for k, s in enumerate(plan.steps) for v in s.results}

    def above(value: int, stop: int | None = None) -> set[int]:
        found, stack = set(), [value]
        while stack:
            v = stack.pop()
            if v in found:
                continue
            found.add(v)
            if v != stop and v in maker:
                stack += [w for w in plan.steps[maker[v]].operands if w in live or w in maker]
        return found

    shared = set.intersection(*(above(v) for v in ends)) & live
    for start in sorted(shared, key=lambda v: maker.get(v, -1), reverse=True):
        between = set().union(*(above(v, start) for v in ends))
        steps = [plan.steps[k] for k in sorted({maker[v] for v in between - {start} if v in maker})]
        reads = {v for step in steps for v in step.operands} | set(ends)
        if not any(step.kind == "control" for step in steps):
            needed = _dependent(steps, start)
            if all(v in needed or v not in live for v in reads - {start}):
                return start, steps
    return None


def _dependent(steps: Sequence[Step], start: int) -> set[int]:
    found = {start}
    for step in steps:
        if not found.isdisjoint(step.operands):
            found.update(step.results)
    return found


Claim = tuple[str, Callable[[Case], Sides]]

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "matmul": (("z = linear(x, W) + b", _affine), ("linear in x and in W", _weighted)),
    "linear": (("f(x + y) + f(0) = f(x) + f(y)", _additive),),
    "sum": (("f(x + y) + f(0) = f(x) + f(y)", _additive),),
    "nonlinearity": (
        ("elementwise", _elementwise),
        ("f(2x) = 2 f(x), f'(x) x = f(x)", _homogeneous),
        ("f(x) = x g(x)", _factor),
    ),
    "maximum": (("the largest of its candidates", _largest),),
    "product": (("bilinear", _bilinear),),
    "quotient": (("y b = a", _divided),),
    "normalization": (("y b = a", _divided), ("b is a statistic of a", _statistic)),
    "softmax": (
        ("a function of exp(u)", _exponentials),
        ("exponentials over their totals", _shares),
    ),
    "other": (("A y = b", _system),),
}
"""By kind of step."""

EVERYWHERE: tuple[Claim, ...] = (("x >= 0", _nonneg),)
"""Of steps of any kind."""


def claims_of(plan: Plan, step: Step, env: Env, view: View) -> Iterator[tuple[str, Sides]]:
    """Every claim about ``step`` on its values: a text, and the pairs that should be equal."""
    case = Case(plan, step, env, view)
    for text, sides in (*CLAIMS.get(step.kind, ()), *EVERYWHERE):
        yield text, sides(case)
