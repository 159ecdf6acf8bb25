"""Positive and negative differences carried apart, for rules such as ``RevealCancel``.

Against a baseline a rule sees x - x0, in which what increased x and what decreased it may have
cancelled. Here every value that varies is carried as (x, x0, p, n):

    x - x0 = p + n        p >= 0 is what increased it, n <= 0 what decreased it

p and n are what is differentiated, x and x0 are constants beside them; so the multipliers m+ and m-
of p and n are ordinary cotangents, and the plain VJP of this expanded program does the linear rule:

* input: p = max(x - x0, 0), n = min(x - x0, 0), and in the end R = p m+ + n m-; both begin as m.
* what is linear with known signs: the same map of p and of n. What changes the sign (neg, sub, the
  negative weights of a matmul) puts p into n and n into p: z+ = W+ p + W- n, z- = W- p + W+ n.
* a nonlinearity multiplies p and n by two slopes, its rule's; a falling one changes them over.
* everything else (products, softmax, maxima, other rules): the parts are *joined*, the step's
  ordinary rule sends a multiplier of x - x0 back, and its result is *split* by sign: m is m+ where
  z > z0 and m- where z < z0 (their mean at 0), and both parts of an input get the same.

All of these hand on exactly what arrives, so sum(R) = f(x) - f(x0) as without parts. Example:

    >>> least = lambda x: x[0] - jax.nn.relu(x[0] - x[1])  # min(x0, x1)
    >>> rules = "deeplift_reveal_cancel"
    >>> jaxrel.relevance(least, rules, baseline=0.0)(jnp.array([2.0, 1.0]))  # Rescale: [0, 1]
    Array([0.5, 0.5], dtype=float32)

Sharp edges:

* The paper's linear rule assigns w (x - x0) as a whole to z+ or z- by its sign, even where x - x0
  has two parts; ours assigns each part. On the first layer, where every difference has one sign,
  and on the last, where both multipliers are the same, that is one and the same; a network with one
  hidden layer has no others. Beyond, joining would forget at every layer what the rule has just
  told apart, by a sign that jumps where two parts are nearly equal, and the relevance with it.
* What is another function at the baseline (a ``cond`` that takes another branch, a selection whose
  condition differs), and a linear function with a derivative of its own, are joined and split as a
  whole; inside, RevealCancel is Rescale. Relevance that is not proportional to x (``Flat``) ends at
  its step, and that of a value which equals its baseline is lost.
* m+ and m- differ, so relevance jumps where the result of a joined step equals its baseline's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.graph import Node
from .._plan.primitives import MATMUL, OPAQUE, STRUCTURAL
from .._plan.steps import Plan, Step
from .._plan.varying import scan_varying
from ..rules.numerics import difference
from ..rulesets.assign import Assignment, is_plain
from .control import CONTROL_FLOW
from .evaluate import run_step, stopped
from .step import hyperparameters, run_nodes, scope, view_of
from .taps import NO_TAPS, Probes
from .units import meet


class Apart(NamedTuple):
    """What a value is compared to, and the parts of its difference from that.

    Attributes:
      origin: the value at the baseline.
      positive, negative: parts that add up to the difference; None for integers and the like. Of a
        complex number the positive part is all.
    """

    origin: Any
    positive: Any
    negative: Any


Pair = tuple[Any, Any]
"""A positive and a negative part."""

Twins = Sequence[Apart | None]
"""For each value what it is compared to; None for those that do not vary."""


def carries_parts(chosen: Assignment) -> bool:
    """Tells whether some rule wants parts carried apart."""
    return any(getattr(rule, "carries_parts", False) for rule in chosen.values())


def vjp_apart(
    plan: Plan, chosen: Assignment, leaves: Sequence[Any], origins: Sequence[Any]
) -> tuple[Any, Callable[[Any], list[Any]], list[Any]]:
    """The first output of ``plan``, its pullback from multiplier to relevances, the other outputs.

    Args:
      plan: what to do.
      chosen: the rule of each step.
      leaves: values of the plan's inputs.
      origins: what they are compared to.
    """
    start = [_parts(difference(x, x0)) for x, x0 in zip(leaves, origins, strict=True)]

    def run(parts: list[Pair]) -> tuple[Pair, list[Any]]:
        twins = [Apart(x0, *pair) for x0, pair in zip(origins, parts, strict=True)]
        out, made = _evaluate(plan, chosen, leaves, twins)
        end = made[0] or _still(out[0])
        return (end.positive, end.negative), out

    _, pullback, out = jax.vjp(run, start, has_aux=True)

    def relevances(m: Any) -> list[Any]:
        (multipliers,) = pullback((m, m))
        return [p * a + n * b for (p, n), (a, b) in zip(start, multipliers, strict=True)]

    return out[0], relevances, out[1:]


def _evaluate(
    plan: Plan, chosen: Assignment, arguments: Sequence[Any], twins: Twins
) -> tuple[list[Any], list[Apart | None]]:
    """Runs ``plan``; returns its outputs and what they are compared to."""
    env = {**plan.constants, **dict(zip(plan.inputs, arguments, strict=True))}
    there = dict(zip(plan.inputs, twins, strict=True))
    for step in plan.steps:
        values = [env[value] for value in step.operands]
        given = [there.get(value) for value in step.operands]
        with scope(step), _compat.at_source(step.nodes[-1].eqn):
            results, made = _run(step, chosen, values, given)
        env.update(zip(step.results, results, strict=True))
        there.update(zip(step.results, made, strict=True))
    return [env[value] for value in plan.outputs], [there.get(value) for value in plan.outputs]


class _Bodies:
    """Executes nested plans; all of them are rebuilt, for parts to go through."""

    tapped = True

    def __init__(self, chosen: Assignment):
        self.chosen = chosen

    def probes(self, step: Step) -> Probes:
        del step
        return {}

    def __call__(
        self, plan: Plan, arguments: Sequence[Any], twins: Twins, probes: Probes | None = None
    ):
        del probes
        out, made = _evaluate(plan, self.chosen, arguments, twins)
        return out, [twin or _still(z) for z, twin in zip(out, made, strict=True)]


def _run(
    step: Step, chosen: Assignment, values: list[Any], twins: list[Apart | None]
) -> tuple[Sequence[Any], Sequence[Apart | None]]:
    """The results of a step and what they are compared to."""
    if all(twin is None for twin in twins):
        return _as_it_is(step, values), [None] * len(step.results)
    rule = chosen.get(id(step))
    if step.kind == "control" and id(step) not in chosen and not _is_whole(step, chosen, twins):
        twins = _with_carries(step, values, twins)
        return CONTROL_FLOW[step.variant](step, chosen, values, twins, _Bodies(chosen))
    base = [v if twin is None else twin.origin for v, twin in zip(values, twins, strict=True)]
    results, made = _as_it_is(step, values), _as_it_is(step, base)
    compared = [_compared(z, z0) for z, z0 in zip(results, made, strict=True)]
    if step.kind == "constant":
        return results, compared
    same = all(twin is None for k, twin in enumerate(twins) if k not in step.live)
    if same and step.kind == "nonlinearity" and hasattr(rule, "slopes"):
        twin = twins[step.live[0]] or _still(values[step.live[0]])
        pair = _scale(step, rule, values, results, base, made, twin)
        return results, [Apart(made[0], *pair)]
    if same and rule is None and _is_signed(step):
        pairs = _expand(step, values, twins)
        return results, [Apart(z0, *pair) for z0, pair in zip(made, pairs, strict=True)]
    ends = _whole(step, chosen, values, twins)
    return results, [
        twin if twin.positive is None else Apart(z0, *_split(end, difference(z, z0)))
        for end, z, z0, twin in zip(ends, results, made, compared, strict=True)
    ]


def _whole(step: Step, chosen: Assignment, values: Sequence[Any], twins: Twins) -> Sequence[Any]:
    """The step's results, run as without parts; what they get, both parts of its operands get."""
    joined, companions = list(values), []
    origins = [None if twin is None else twin.origin for twin in twins]
    for k in step.live:
        if (twin := twins[k]) is not None and twin.positive is not None:
            joined[k] = _join(values[k], twin.positive, twin.negative)
        if getattr(chosen.get(id(step)), "emits_unit", False):
            joined[k], companion = meet(joined[k], origins[k])
            companions.append(companion)
    return run_step(step, chosen, joined, origins, companions, NO_TAPS)[0]


def _as_it_is(step: Step, values: Sequence[Any]) -> list[Any]:
    """The step's results by its original operations."""
    if step.kind == "constant" and step.nodes[0].name in OPAQUE:
        values = [stopped(v) for v in values]
    return run_nodes(step, values)


def _is_whole(step: Step, chosen: Assignment, twins: Twins) -> bool:
    """Tells whether a control step is joined and split, not entered."""
    if step.variant == "cond":
        return twins[0] is not None  # another branch at the baseline
    is_call = step.variant not in ("scan", "remat2", "jit", "shard_map")
    return is_call and all(is_plain(body, chosen) for body in step.bodies)


def _with_carries(
    step: Step, values: Sequence[Any], twins: list[Apart | None]
) -> list[Apart | None]:
    """For a loop, something to compare to for each carry that begins to vary within."""
    if step.variant != "scan":
        return twins
    twins = list(twins)
    constants, carries = _compat.scan_arity(step.nodes[0].eqn.params)
    varies = scan_varying(step, [twin is not None for twin in twins])[:carries]
    for k, flag in enumerate(varies, constants):
        twins[k] = (twins[k] or _still(values[k])) if flag else None
    return twins


# parts of a difference


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _parts(d: jax.Array) -> Pair:
    """A difference by its sign."""
    if jnp.issubdtype(d.dtype, jnp.complexfloating):
        return d, jnp.zeros_like(d)
    return jnp.maximum(d, 0), jnp.minimum(d, 0)


def _compared(z: Any, z0: Any) -> Apart:
    """The parts of a value to which nothing is sent back."""
    return Apart(z0, *(_parts(difference(z, z0)) if _is_float(z) else (None, None)))


def _still(z: Any) -> Apart:
    """The twin of a value that does not vary."""
    zero = jnp.zeros_like(z) if _is_float(z) else None
    return Apart(z, zero, zero)


@jax.custom_vjp
def _join(x: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    """Returns x; both parts of x - x0 get its multiplier."""
    del p, n
    return x


_join.defvjp(lambda x, p, n: (x, None), lambda _, m: (None, m, m))


@jax.custom_vjp
def _split(z: jax.Array, d: jax.Array) -> Pair:
    """The parts of d = z - z0; z gets the multiplier of the part that d is in."""
    del z
    return _parts(d)


def _split_backward(d: jax.Array, m: Pair):
    if jnp.issubdtype(d.dtype, jnp.complexfloating):
        return m[0], None
    return jnp.where(d > 0, m[0], jnp.where(d < 0, m[1], (m[0] + m[1]) / 2)), None


_split.defvjp(lambda z, d: (_parts(d), d), _split_backward)


def _scale(
    step: Step,
    rule: Any,
    values: list[Any],
    results: Sequence[Any],
    base: list[Any],
    made: Sequence[Any],
    twin: Apart,
) -> Pair:
    """The parts of a nonlinearity's result: those of its operand times the slopes of its rule.

    For what is forward, backward and operand here, see :mod:`jaxrel._execute.step`.
    """
    leaves, rebuild = hyperparameters(rule)

    def forward(leaves: Any, points: Any, pair: Pair):
        values, results, base, made = points
        slopes = rebuild(leaves).slopes(view_of(step, values, results, (base, made)), *pair)
        p, n = (_product(s, part, results[0]) for s, part in zip(slopes, pair, strict=True))
        return (p, n), (slopes, pair)

    @jax.custom_vjp
    def run(leaves: Any, points: Any, pair: Pair) -> Pair:
        return forward(leaves, points, pair)[0]

    def backward(kept: Any, m: Pair):
        slopes, pair = kept
        return None, None, tuple(map(_product, slopes, m, pair))

    run.defvjp(forward, backward)
    points = values, list(results), base, list(made)
    return _ordered(*run(leaves, points, (twin.positive, twin.negative)))


def _product(a: jax.Array, b: jax.Array, like: jax.Array) -> jax.Array:
    return (a * b).astype(like.dtype)


def _ordered(p: jax.Array, n: jax.Array) -> Pair:
    """Changes p and n over where both have the sign of the other: f falls there."""
    if jnp.issubdtype(p.dtype, jnp.complexfloating):
        return p, n
    falls = (p <= 0) & (n >= 0)
    return jnp.where(falls, n, p), jnp.where(falls, p, n)


# linear steps

_NEGATES = {"neg": 0, "sub": 1, "scatter-sub": 2}
"""The operand that enters with a minus."""

_SIGNED = (
    STRUCTURAL
    | frozenset(
        "mul div add sub neg select_n reduce_sum cumsum reduce_window_sum add_any "
        "dynamic_update_slice scatter scatter-add scatter-sub all_gather all_gather_invariant "
        "all_gather_reduced all_to_all pbroadcast ppermute psum psum_invariant psum2 pvary "
        "reduce_scatter pcast".split()
    )
    | frozenset(MATMUL)
)
"""Linear operations whose coefficients have known signs; all others are joined and split."""


def _is_signed(step: Step) -> bool:
    """Tells whether a step with the plain VJP is a linear map of known signs."""
    if step.kind not in ("matmul", "linear", "sum"):
        return False
    atoms = [atom for node in step.nodes for atom in (*node.eqn.invars, *node.eqn.outvars)]
    is_real = not any(jnp.issubdtype(_dtype(atom), jnp.complexfloating) for atom in atoms)
    return is_real and all(node.name in _SIGNED for node in step.nodes)


def _dtype(atom: Any) -> Any:
    return getattr(atom.aval, "dtype", jnp.int32)


def _expand(step: Step, values: Sequence[Any], twins: Twins) -> list[Pair]:
    """The parts of a linear step's results, operation by operation."""
    env: dict[int, Any] = dict(zip(step.operands, values, strict=True))
    for k in step.live:
        twin = twins[k] or _still(values[k])
        env[step.operands[k]] = (twin.positive, twin.negative)
    for node in step.nodes:
        pairs = _expand_node(node, [env[value] for value in node.operands])
        env.update(zip(node.results, pairs, strict=True))
    return [env[value] for value in step.results]


def _expand_node(node: Node, operands: list[Any]) -> list[Pair]:
    """The parts of one operation's results; operands that are pairs are parts, others constant."""
    live = [k for k, content in enumerate(operands) if isinstance(content, tuple)]

    def run(replaced: dict[int, Any]) -> list[Any]:
        return _compat.bind(node.eqn, [replaced.get(k, v) for k, v in enumerate(operands)])

    if node.name in MATMUL:
        (x,), (p, n) = live, operands[live[0]]
        weight = operands[1 - x]
        up, down = jnp.maximum(weight, 0), jnp.minimum(weight, 0)
        (a,), (b,), (c,), (d,) = (
            run({x: part, 1 - x: w}) for part, w in ((p, up), (n, down), (n, up), (p, down))
        )
        return [(a + b, c + d)]
    if node.name in ("mul", "div"):
        (x,), (p, n) = live, operands[live[0]]
        falls = operands[1 - x] < 0
        (a,), (b,) = run({x: jnp.where(falls, n, p)}), run({x: jnp.where(falls, p, n)})
        return [(a, b)]
    negated = _NEGATES.get(node.name)
    # of the difference of two sums a constant is no part
    zeros = {k: jnp.zeros_like(v) for k, v in enumerate(operands) if k not in live and _is_float(v)}
    pairs = zip(
        run(zeros | {k: operands[k][k == negated] for k in live}),
        run(zeros | {k: operands[k][k != negated] for k in live}),
        strict=True,
    )
    return [pair if _is_float(pair[0]) else (None, None) for pair in pairs]
