"""Positive and negative differences carried apart, for rules such as ``RevealCancel``.

Against a baseline a rule sees x - x0, in which what increased x and what decreased it may have
cancelled. Here the bundle of every value that varies has two parts more, p and n:

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
  whole; inside, RevealCancel is Rescale.
* m+ and m- differ, so relevance jumps where the result of a joined step equals its baseline's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.graph import Node
from .._plan.primitives import ALL, of
from .._plan.steps import Step
from ..rules.numerics import difference
from ..rulesets.assign import Assignment
from .bundle import Bundle, Pair, is_float, join, split
from .step import hyperparameters, run_nodes, view_of


def carries_parts(chosen: Assignment) -> bool:
    """Tells whether some rule wants parts carried apart."""
    return any(getattr(rule, "carries_parts", False) for rule in chosen.values())


def run_apart(
    step: Step,
    rule: Any,
    given: Sequence[Bundle],
    whole: Callable[[list[Bundle]], list[Bundle]],
) -> list[Bundle]:
    """The results of a step, and their parts.

    Args:
      step: one that something live goes into.
      rule: its rule; None: the plain VJP.
      given: its operands, of which some vary.
      whole: runs the step without parts.
    """
    values, base = [b.value for b in given], [b.origin for b in given]
    results, made = run_nodes(step, values), run_nodes(step, base)
    moved = any(b.varies for k, b in enumerate(given) if k not in step.live)
    companions = [None for _ in results]
    if not moved and step.kind == "nonlinearity" and hasattr(rule, "slopes"):
        parts = given[step.live[0]].difference
        pairs: list[Pair | None] = [_scale(step, rule, values, results, base, made, parts)]
    elif not moved and rule is None and _is_signed(step):
        pairs = _expand(step, given)
    else:
        ends = whole([_joined(b) if k in step.live else b for k, b in enumerate(given)])
        companions = [end.companion for end in ends]
        pairs = [
            split(end.value, difference(z, z0)) if is_float(z) else None
            for end, z, z0 in zip(ends, results, made, strict=True)
        ]
    columns = zip(results, made, companions, pairs, strict=True)
    return [Bundle(*column) for column in columns]


def _joined(bundle: Bundle) -> Bundle:
    """Without parts; what the value gets, both of them get."""
    if bundle.parts is None:
        return bundle
    return bundle._replace(value=join(bundle.value, *bundle.parts), parts=None)


def _scale(
    step: Step,
    rule: Any,
    values: list[Any],
    results: Sequence[Any],
    base: list[Any],
    made: Sequence[Any],
    parts: Pair,
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
    return _ordered(*run(leaves, points, parts))


def _product(a: jax.Array, b: jax.Array, like: jax.Array) -> jax.Array:
    return (a * b).astype(like.dtype)


def _ordered(p: jax.Array, n: jax.Array) -> Pair:
    """Changes p and n over where both have the sign of the other: f falls there."""
    if jnp.issubdtype(p.dtype, jnp.complexfloating):
        return p, n
    falls = (p <= 0) & (n >= 0)
    return jnp.where(falls, n, p), jnp.where(falls, p, n)


# linear steps


def _is_signed(step: Step) -> bool:
    """Tells whether a step with the plain VJP is a linear map of known signs."""
    if step.kind not in ("matmul", "linear", "sum"):
        return False
    atoms = [atom for node in step.nodes for atom in (*node.eqn.invars, *node.eqn.outvars)]
    is_real = not any(jnp.issubdtype(_dtype(atom), jnp.complexfloating) for atom in atoms)
    return is_real and all(of(node.name).signed for node in step.nodes)


def _dtype(atom: Any) -> Any:
    return getattr(atom.aval, "dtype", jnp.int32)


def _expand(step: Step, given: Sequence[Bundle]) -> list[Pair | None]:
    """The parts of a linear step's results, operation by operation."""
    env: dict[int, Any] = dict(zip(step.operands, (b.value for b in given), strict=True))
    env.update((step.operands[k], given[k].difference) for k in step.live)
    for node in step.nodes:
        pairs = _expand_node(node, [env[value] for value in node.operands])
        env.update(zip(node.results, pairs, strict=True))
    return [env[value] for value in step.results]


def _expand_node(node: Node, operands: list[Any]) -> list[Pair | None]:
    """The parts of one operation's results; operands that are pairs are parts, others constant."""
    live = [k for k, content in enumerate(operands) if isinstance(content, tuple)]

    def run(replaced: dict[int, Any]) -> list[Any]:
        return _compat.bind(node.eqn, [replaced.get(k, v) for k, v in enumerate(operands)])

    if of(node.name).contraction:
        (x,), (p, n) = live, operands[live[0]]
        weight = operands[1 - x]
        up, down = jnp.maximum(weight, 0), jnp.minimum(weight, 0)
        (a,), (b,), (c,), (d,) = (
            run({x: part, 1 - x: w}) for part, w in ((p, up), (n, down), (n, up), (p, down))
        )
        return [(a + b, c + d)]
    if of(node.name).linear != (ALL,):  # scaled by a constant
        (x,), (p, n) = live, operands[live[0]]
        falls = operands[1 - x] < 0
        (a,), (b,) = run({x: jnp.where(falls, n, p)}), run({x: jnp.where(falls, p, n)})
        return [(a, b)]
    negated = of(node.name).negated
    # of the difference of two sums a constant is no part
    zeros = {k: jnp.zeros_like(v) for k, v in enumerate(operands) if k not in live and is_float(v)}
    pairs = zip(
        run(zeros | {k: operands[k][k in negated] for k in live}),
        run(zeros | {k: operands[k][k not in negated] for k in live}),
        strict=True,
    )
    return [pair if is_float(pair[0]) else None for pair in pairs]
