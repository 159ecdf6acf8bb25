"""What holds on every program, as checks that raise `AssertionError` where it does not."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxrel
from jaxrel import rulesets
from tests.checks import assert_same_bits
from tests.generated.piecemeal import piecemeal
from tests.generated.program import Program, inputs


def _run(program: Program, fun: Callable) -> Callable:
    """Operation by operation, which compiles little; on several devices as a whole."""
    return jax.jit(fun) if program.sharded else piecemeal(fun)


def _turn(program: Program) -> bool:
    """Which of two ways is tried; both are by the programs that one invariant gets."""
    return program.seed // 2 // len(INVARIANTS) % 2 == 0


def _close(got: Any, expected: Any, tolerance: float, size: Any = 0.0) -> None:
    error = np.max(np.abs(np.asarray(got) - np.asarray(expected)), initial=0)
    scale = max(float(np.max(np.abs(np.asarray(a)), initial=0)) for a in (expected, size))
    assert error <= tolerance * scale + 1e-12, f"{error:.2g} of {scale:.2g}"


def values(program: Program) -> None:
    """Values are left alone, bit for bit."""
    fun, (x, _) = program.compile(), inputs()
    assert_same_bits(jax.jit(jaxrel.rewrite(fun, "lrp"))(x), jax.jit(fun)(x))


def gradients(program: Program) -> None:
    """The rule set of gradients is `jax.grad`, bit for bit."""
    fun, (x, _) = program.compile(), inputs()

    def gradient(fun):
        return jax.jit(jax.grad(lambda x: fun(x).sum()))(x)

    found, expected = gradient(jaxrel.rewrite(fun, "gradient")), gradient(fun)
    if (np.asarray(found) != np.asarray(expected)).any():
        # jax itself adds cotangents in another order to a function that was traced before
        traced = jax.make_jaxpr(fun)(x)
        expected = gradient(lambda x: jax.core.eval_jaxpr(traced.jaxpr, traced.consts, x)[0])
    assert_same_bits(found, expected)


def conservation(program: Program) -> None:
    """Relevance and biases add up to the value."""
    if not program.all("conserves"):
        return
    fun, (x, _) = program.compile(), inputs()
    explain = jaxrel.value_and_relevance(fun, rulesets.cp_lrp(), biases=True)
    value, (found, biases) = _run(program, explain)(x)
    leaves = [found, *jax.tree.leaves(biases)]
    size = sum(float(jnp.abs(leaf).sum()) for leaf in leaves)
    _close(sum(float(leaf.sum()) for leaf in leaves), float(value.sum()), 1e-10, size)


def completeness(program: Program, scale: float = 1.0) -> None:
    """Against a baseline relevance adds up to the difference."""
    if not program.all("complete"):
        return
    fun, (x, x0) = program.compile(), inputs()
    x0 = x0 * scale if scale >= 0 else x + x0 * -scale
    run = _run(program, fun)
    value, origin = run(x), run(x0)
    # XLA of jaxlib 0.10 miscompiles some sharded scatters of x and of a constant in one program
    if program.sharded and not np.allclose(jax.jit(lambda x: fun(x) - fun(x0))(x), value - origin):
        return
    found = _run(program, jaxrel.relevance(fun, baseline=x0))(x)
    expected = (value - origin).sum()
    size = max(float(jnp.abs(found).sum()), float(jnp.abs(value).sum()) * 1e-3)
    _close(found.sum(), expected, 1e-9, size)


def at_zero(program: Program) -> None:
    """The same, compared to 0."""
    completeness(program, 0.0)


def far_away(program: Program) -> None:
    """The same, compared to something large."""
    completeness(program, 4.0)


def nearby(program: Program) -> None:
    """The same, compared to what is almost x."""
    completeness(program, -1e-4)


def finite(program: Program) -> None:
    """No NaN and no infinity in float32 and bfloat16, at x and at 0, by rules and compared."""
    dtype = (jnp.float32, jnp.bfloat16)[program.seed // 3 % 2]
    fun, (x, x0) = program.compile(dtype), inputs(dtype)
    x = x * (program.seed % 3 > 0)
    if _turn(program):
        explain = jaxrel.value_and_relevance(fun, rulesets.epsilon_plus())
    else:
        explain = jaxrel.value_and_relevance(fun, baseline=x0)
    value, found = _run(program, explain)(x)
    if jnp.isfinite(value).all():
        assert jnp.isfinite(found).all() and found.dtype == dtype


def transformations(program: Program) -> None:
    """`jit`, `checkpoint` and `vmap` change nothing but rounding."""
    if program.sharded:
        return
    fun, (x, _) = program.compile(), inputs()
    explain = jaxrel.relevance(fun, rulesets.epsilon(0.1))
    other = (
        explain,
        lambda x: jaxrel.relevance(jax.checkpoint(fun), rulesets.epsilon(0.1))(x),
        lambda x: jax.vmap(explain)(jnp.stack([x, 2 * x]))[0],
    )[program.seed % 3]
    _close(jax.jit(other)(x), piecemeal(explain)(x), 1e-10)


def derivatives(program: Program) -> None:
    """The derivative of a relevance is that of its values."""
    if not program.all("smooth"):
        return
    fun, (x, x0) = program.compile(), inputs()
    explain = jaxrel.relevance(fun, rulesets.epsilon(0.5))
    direction = x0 / 4

    def along(t: Any) -> jax.Array:
        return (explain(x + t * direction) * x0).sum()

    def measured(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lax.map(along, t), jax.grad(along)(0.0)

    steps = np.array([1e-4, 2e-4])
    values, found = _run(program, measured)(jnp.concatenate([steps, -steps]))
    slopes = np.asarray(values[:2] - values[2:]) / (2 * steps)
    expected = (4 * slopes[0] - slopes[1]) / 3
    if abs(slopes[0] - slopes[1]) > 1e-3 * abs(expected):
        return  # a kink between
    _close(found, expected, 1e-4, expected)


def verified(program: Program) -> None:
    """`verify` finds nothing, with the layers folded or taken apart."""
    fun, (x, x0) = program.compile(), inputs()
    found = jaxrel.verify(fun, baseline=x0 if _turn(program) else None)(x)
    assert found.ok, str(found)


CHEAP = (conservation, completeness, at_zero, far_away, nearby)
DEAR = (values, gradients, finite, transformations, derivatives, verified)
INVARIANTS: tuple[Callable[[Program], None], ...] = (*CHEAP, *DEAR[:3], *CHEAP, *DEAR[3:])
"""In the order in which programs are held to them; those that compile little come twice."""


def failure(program: Program, invariant: Callable[[Program], None]) -> str | None:
    """What is wrong with one invariant, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            invariant(program)
        except AssertionError as error:
            return str(error) or type(error).__name__
        except Exception as error:  # a program that runs must be explained, or refused by name
            return f"{type(error).__name__}: {error}"
    return None
