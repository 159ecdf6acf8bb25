"""Positive and negative differences carried apart, for rules such as ``RevealCancel``.

Against a baseline every live value has a difference d = x - x0. Here it is carried as two live
parts, d = p + n with p >= 0 >= n as far as operations keep them so, and the multipliers m+ and m-
of the two flow back as cotangents of p and n. So what is executed is an expanded program:

* a matmul is z+ = W+ p + W- n, z- = W+ n + W- p; its plain VJP is DeepLIFT's linear rule;
* other linear steps are applied to both parts, which change places where a coefficient is negative;
* a nonlinearity makes its own two parts, if its rule carries them;
* every other step, and one with another rule, sees d whole: its result's difference is split by
  sign, and both parts of an input get the same multiplier.

Values and their twins are computed beside, as they were, and get no multiplier. Everything is
complete: sum(p m+ + n m-) = f(x) - f(x0).

In the paper (Shrikumar et al. 2017, section 3.5.1) the linear rule sorts a contribution w d by its
own sign, p and n of d together; here the parts are sorted each by its own. The two agree where p or
n is 0 (in the first layer always). Ours keeps what was revealed in one layer apart in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _compat
from .apply import hyperparameters, run_nodes, scope, send, view_of
from .assign import Assignment
from .numerics import difference, divide
from .plan.primitives import STRUCTURAL
from .plan.steps import Plan, Step
from .plan.varying import cond_varying, scan_varying

Parts = tuple[jax.Array, jax.Array]
"""The positive and the negative part of a difference."""

State = tuple[list[Any], list[Any], list[Any]]
"""Values, twins at the baseline (None: the same), parts of differences (None: not live)."""


def carries_parts(chosen: Assignment) -> bool:
    """Tells whether a chosen rule needs the parts of differences."""
    return any(getattr(rule, "carries_parts", False) for rule in chosen.values())


def parts_of(d: jax.Array) -> Parts:
    """A difference by its sign."""
    return jnp.maximum(d, 0), jnp.minimum(d, 0)


def evaluate_apart(plan: Plan, chosen: Assignment, state: State) -> State:
    """Runs ``plan``; see :func:`jaxrel.execute.evaluate`.

    Args:
      plan: what to do.
      chosen: the rule of each step.
      state: of the plan's inputs.

    Returns:
      The state of its outputs; those that are live have parts.
    """
    values, twins, parts = (
        {k: v for k, v in zip(plan.inputs, part, strict=True)} for part in state
    )
    env, there = {**plan.constants, **values}, twins
    for step in plan.steps:
        own = ([env[v] for v in step.operands], *_found((there, parts), step.operands))
        with scope(step), _compat.at_source(step.nodes[-1].eqn):
            made = _run(step, chosen, own)
        for target, results in zip((env, there, parts), made, strict=True):
            target.update(zip(step.results, results, strict=True))
    env_out = [env[v] for v in plan.outputs]
    there_out, parts_out = _found((there, parts), plan.outputs)
    zipped = zip(plan.live_outputs, env_out, parts_out, strict=True)
    return env_out, there_out, [_given(v, p) if live else None for live, v, p in zipped]


def _found(sources: Sequence[dict[int, Any]], wanted: Sequence[int]) -> tuple[list[Any], list[Any]]:
    first, second = ([source.get(v) for v in wanted] for source in sources)
    return first, second


def _given(value: Any, parts: Parts | None) -> Parts:
    zero = jnp.zeros_like(value)
    return (zero, zero) if parts is None else parts


def _run(step: Step, chosen: Assignment, state: State) -> State:
    values, twins, parts = state
    rule = chosen.get(id(step))
    if step.kind == "control" and id(step) not in chosen:
        return _CONTROL.get(step.variant, _call)(step, chosen, state)
    results = run_nodes(step, values)
    if all(twin is None for twin in twins) or not step.results:
        return results, [None] * len(results), [None] * len(results)
    base = _filled(values, twins)
    made = run_nodes(step, base)
    if step.kind == "constant":
        return results, made, [None] * len(results)
    live = [_given(values[k], parts[k]) for k in step.live]
    if getattr(rule, "carries_parts", False):
        found = [_nonlinear(step, rule, values, base, results, made, live[0])]
    elif rule is None and (linear := _linear(step, values, twins)) is not None:
        found = linear(live)
    else:
        found = _whole(step, rule, values, base, results, made, live)
    return results, made, found


def _filled(values: Sequence[Any], twins: Sequence[Any]) -> list[Any]:
    return [v if twin is None else twin for v, twin in zip(values, twins, strict=True)]


# ------------------------------------------------------------------------------------------ steps


def _linear(
    step: Step, values: Sequence[Any], twins: Sequence[Any]
) -> Callable[[list[Parts]], list[Parts]] | None:
    """How a linear step acts on parts; None where it has to see differences whole."""
    dead = [k for k in range(len(values)) if k not in step.live]
    if any(twins[k] is not None for k in dead) or any(map(_is_complex, values)):
        return None
    view = view_of(step, values, [None] * len(step.results))
    if step.kind == "matmul":
        assert view.affine is not None
        affine = view.affine()
        up, down = parts_of(affine.weight)

        def multiplied(live: list[Parts]) -> list[Parts]:
            ((p, n),) = live
            linear = affine.linear
            return [(linear(p, up) + linear(n, down), linear(n, up) + linear(p, down))]

        return multiplied
    name = step.nodes[-1].name

    def moved(*tangents: jax.Array) -> list[Any]:
        out = jax.jvp(view.function, view.inputs, tangents)[1]
        return list(out) if isinstance(out, tuple) else [out]

    if len(step.nodes) == 1 and name in _KEEP_SIGN:
        swapped = (False, True) if name == "sub" else (False,) * len(values)
        at = [swapped[k] for k in step.live] if name == "sub" else [False] * len(step.live)

        def kept(live: list[Parts]) -> list[Parts]:
            ups = [n if swap else p for (p, n), swap in zip(live, at, strict=True)]
            downs = [p if swap else n for (p, n), swap in zip(live, at, strict=True)]
            return list(zip(moved(*ups), moved(*downs), strict=True))

        return kept
    if len(step.nodes) == 1 and name in ("mul", "div", "neg") and len(step.live) == 1:
        (coefficient,) = moved(jnp.ones_like(view.inputs[0]))

        def scaled(live: list[Parts]) -> list[Parts]:
            ((p, n),) = live
            (p,), (n,) = moved(p), moved(n)
            return [(jnp.where(coefficient < 0, n, p), jnp.where(coefficient < 0, p, n))]

        return scaled
    return None


_KEEP_SIGN = STRUCTURAL | frozenset(
    "add sub add_any reduce_sum cumsum reduce_window_sum select_n scatter-add psum".split()
)
"""Linear with coefficients that are not negative; the second operand of ``sub`` apart."""


def _is_complex(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)


def _nonlinear(
    step: Step,
    rule: Any,
    values: list[Any],
    base: list[Any],
    results: list[Any],
    made: list[Any],
    parts: Parts,
) -> Parts:
    """The parts of a nonlinearity's result: those of its operand times the slopes of its rule.

    For what is forward, backward and operand here, see :mod:`jaxrel.apply`.
    """
    leaves, rebuild = hyperparameters(rule)

    def forward(leaves: Any, operands: Any, parts: Parts):
        values, base, results, made = operands
        slopes = rebuild(leaves).slopes(view_of(step, values, results, (base, made)), *parts)
        p, n = (_product(s, part, results[0]) for s, part in zip(slopes, parts, strict=True))
        return (p, n), (slopes, parts)

    @jax.custom_vjp
    def run(leaves: Any, operands: Any, parts: Parts) -> Parts:
        return forward(leaves, operands, parts)[0]

    def backward(kept: Any, m: Parts):
        slopes, parts = kept
        return None, None, tuple(map(_product, slopes, m, parts))

    run.defvjp(forward, backward)
    return run(leaves, (values, base, results, made), parts)


def _product(a: jax.Array, b: jax.Array, like: jax.Array) -> jax.Array:
    return (a * b).astype(like.dtype)


def _whole(
    step: Step,
    rule: Any,
    values: list[Any],
    base: list[Any],
    results: list[Any],
    made: list[Any],
    live: list[Parts],
) -> list[Parts | None]:
    """Parts of a step that sees differences whole: by sign, with its rule for their VJP."""
    leaves, rebuild = hyperparameters(rule)
    floats = [k for k, result in enumerate(results) if _is_inexact(result)]

    def split(results: list[Any], made: list[Any]) -> list[Parts]:
        return [_split(difference(results[k], made[k])) for k in floats]

    @jax.custom_vjp
    def run(leaves: Any, operands: Any, live: list[Parts]) -> list[Parts]:
        del leaves, live
        return split(*operands[2:])

    def backward(kept: Any, m: list[Parts]):
        leaves, (values, base, results, made) = kept
        whole = list(map(jnp.zeros_like, results))
        for k, (up, down) in zip(floats, m, strict=True):
            whole[k] = _joined(difference(results[k], made[k]), up, down)
        with scope(step):
            sent = send(step, rebuild(leaves), values, results, whole, (base, made))
        return None, None, [(s, s) for s in sent]

    run.defvjp(lambda *args: (split(*args[1][2:]), args[:2]), backward)
    found: list[Parts | None] = [None] * len(results)
    for k, parts in zip(floats, run(leaves, (values, base, results, made), live), strict=True):
        found[k] = parts
    return found


def _is_inexact(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _split(d: jax.Array) -> Parts:
    return (d, jnp.zeros_like(d)) if _is_complex(d) else parts_of(d)


def _joined(d: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """The multiplier of a difference that was split by sign."""
    if _is_complex(d):
        return up
    return jnp.where(d > 0, up, jnp.where(d < 0, down, (up + down) / 2))


# ----------------------------------------------------------------------------------- control flow


def _pick(items: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [item for item, flag in zip(items, flags, strict=True) if flag]


def _spread(items: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    rest = iter(items)
    return [next(rest) if flag else None for flag in flags]


def _flags(items: Sequence[Any]) -> list[bool]:
    return [item is not None for item in items]


def _call(step: Step, chosen: Assignment, state: State) -> State:
    if len(step.bodies) != 1 or step.variant == "shard_map":
        raise NotImplementedError(f"rules that carry parts of differences through {step.variant}")
    return evaluate_apart(step.bodies[0], chosen, state)


def _remat(step: Step, chosen: Assignment, state: State) -> State:
    params = step.nodes[0].eqn.params
    run = jax.checkpoint(
        lambda state: evaluate_apart(step.bodies[0], chosen, state),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return run(state)


def _scan(step: Step, chosen: Assignment, state: State) -> State:
    params, body = step.nodes[0].eqn.params, step.bodies[0]
    first, count = _compat.scan_arity(params)
    ends = first + count
    values, twins, parts = state
    varies = scan_varying(step, _flags(twins))
    carried, live = varies[:count], body.live_inputs[first:ends]
    over, apart = _flags(twins[ends:]), _flags(parts[ends:])
    outputs = body.live_outputs
    lives = [a or b for a, b in zip(outputs, (*live, *outputs[count:]), strict=True)]

    def run(carry: Any, x: Any):
        inner = (
            [*values[:first], *carry[0], *x[0]],
            [*twins[:first], *_spread(carry[1], carried), *_spread(x[1], over)],
            [*parts[:first], *_spread(carry[2], live), *_spread(x[2], apart)],
        )
        out, made, found = evaluate_apart(body, chosen, inner)
        made = _filled(out, made)
        found = [_given(v, p) if on else None for v, p, on in zip(out, found, lives, strict=True)]
        carry = list(out[:count]), _pick(made[:count], carried), _pick(found[:count], live)
        return carry, (
            out[count:],
            _pick(made[count:], varies[count:]),
            _pick(found[count:], lives[count:]),
        )

    base = _filled(values, twins)
    begin = [_given(v, p) for v, p in zip(values[first:ends], parts[first:ends], strict=True)]
    start = list(values[first:ends]), _pick(base[first:ends], carried), _pick(begin, live)
    xs = values[ends:], _pick(twins[ends:], over), _pick(parts[ends:], apart)
    carry, ys = lax.scan(
        run,
        jax.tree.map(jnp.asarray, start),
        xs,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return (
        [*carry[0], *ys[0]],
        _spread([*carry[1], *ys[1]], varies),
        _spread([*carry[2], *ys[2]], lives),
    )


def _cond(step: Step, chosen: Assignment, state: State) -> State:
    (index, *values), (there, *twins), (_, *parts) = state
    varies = cond_varying(step, _flags(state[1]))
    lives = [any(live) for live in zip(*(b.live_outputs for b in step.bodies), strict=True)]

    def branch(body: Plan) -> Callable[[State], Any]:
        def run(inner: State) -> Any:
            out, made, found = evaluate_apart(body, chosen, inner)
            whole = zip(out, found, lives, strict=True)
            filled = [_given(v, p) if on else None for v, p, on in whole]
            return list(out), _pick(_filled(out, made), varies), _pick(filled, lives)

        return run

    out, made, found = lax.switch(index, [branch(b) for b in step.bodies], (values, twins, parts))
    made, found = _spread(made, varies), _spread(found, lives)
    if there is None:
        return out, made, found
    plain = [lambda *args, b=body: _compat.run_jaxpr(b.jaxpr, args) for body in step.bodies]
    other = lax.switch(there, plain, *_filled(values, twins))
    live = [p for p in parts if p is not None]
    jumps = [m - o for m, o, on in zip(made, other, lives, strict=True) if on]
    extra = iter(_jumped(live, jumps))
    for k, on in enumerate(lives):
        if on:
            found[k] = jax.tree.map(jnp.add, found[k], next(extra))
    return out, other, found


def _jumped(live: list[Parts], jumps: list[jax.Array]) -> list[Parts]:
    """Parts of what a result jumps by where another branch was taken; see :mod:`.switches`."""

    @jax.custom_vjp
    def run(live: list[Parts], jumps: list[jax.Array]) -> list[Parts]:
        del live
        return [parts_of(jump) for jump in jumps]

    def backward(kept: Any, m: list[Parts]):
        live, jumps = kept
        pairs = zip(map(parts_of, jumps), m, strict=True)
        worth = sum(jnp.vdot(a, b) for own, sent in pairs for a, b in zip(own, sent, strict=True))
        whole = [p + n for p, n in live]
        share = divide(jnp.asarray(worth), jnp.asarray(sum(jnp.vdot(d, d) for d in whole)))
        return [((d * share).astype(d.dtype),) * 2 for d in whole], None

    run.defvjp(lambda live, jumps: ([parts_of(j) for j in jumps], (live, jumps)), backward)
    return run(live, jumps)


_CONTROL = {"scan": _scan, "cond": _cond, "remat2": _remat}
