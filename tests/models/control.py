"""The model of the zoo that has every control flow, nested, and derivatives of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.models.plain import dense, dense_shapes
from tests.models.recipe import Recipe, shape


@jax.custom_jvp
def signed_log(x: jax.Array) -> jax.Array:
    """The logarithm of 1 + abs(x), with the sign of x."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


@signed_log.defjvp
def _signed_log_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """The derivative, which is 1 at 0, where that of sign and abs is 0 or undefined."""
    (x,), (dx,) = primals, tangents
    return signed_log(x), dx / (1 + jnp.abs(x))


@jax.custom_vjp
def softsign(x: jax.Array) -> jax.Array:
    """A sigmoid without an exponential: x / (1 + abs(x))."""
    return x / (1 + jnp.abs(x))


def _softsign_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keeps the output and nothing else: the derivative is a function of it."""
    y = softsign(x)
    return y, y


def _softsign_bwd(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    """The derivative 1 / (1 + abs(x))^2 = (1 - abs(y))^2."""
    return (dy * (1 - jnp.abs(y)) ** 2,)


softsign.defvjp(_softsign_fwd, _softsign_bwd)


def inverse_root(n: jax.Array) -> jax.Array:
    """1 / sqrt(n), n >= 1, by Newton's method: a loop of unknown length on values without x.

    The iterates rise to the root from below, so the loop ends in every dtype.
    """

    def improve(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        root, _ = state
        return root * (1.5 - 0.5 * n * root * root), root

    start = improve((1 / n, jnp.zeros_like(n)))
    root, _ = lax.while_loop(lambda state: state[0] > state[1], improve, start)
    return root


def control_flow(bias: bool) -> Recipe:
    """A `jit` in a `scan` in a `cond` in a `checkpoint` in a `map`, then the other loops.

    Each example takes its own branch, so the condition is live but nothing flows through it.
    """
    params = {
        "input": dense_shapes(bias, 4, 6),
        "deep": dense_shapes(bias, 3, 6, 6),
        "shallow": dense_shapes(bias, 6, 6),
        "euler": dense_shapes(bias, 6, 6),
        "head": dense_shapes(bias, 6, 3),
    }

    @jax.jit
    def layer(weights: Any, x: jax.Array) -> jax.Array:
        return x + jax.nn.relu(dense(weights, x))

    def deep(params: Any, x: jax.Array) -> jax.Array:
        x, _ = lax.scan(lambda x, weights: (layer(weights, x), None), x, params["deep"])
        return x

    def shallow(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(dense(params["shallow"], x))

    @jax.checkpoint
    def branch(params: Any, condition: jax.Array, x: jax.Array) -> jax.Array:
        return lax.cond(condition, deep, shallow, params, x)

    def example(params: Any, x: jax.Array) -> jax.Array:
        x = branch(params, x.sum() > 0, signed_log(dense(params["input"], x)))
        scale = inverse_root(jnp.array(x.size, x.dtype))
        x = lax.fori_loop(0, 3, lambda _, x: x + scale * softsign(dense(params["euler"], x)), x)
        return dense(params["head"], x)

    return Recipe(lambda params, x: lax.map(partial(example, params), x), params, shape(3, 4))
