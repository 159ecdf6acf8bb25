"""Reading is cheap: what a plan costs grows as the program does, whatever its shape."""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from jaxrel._plan import build_plan
from jaxrel._plan.steps import INPUT


def chain(x, count: int):
    for _ in range(count):
        x = jnp.sin(x)
    return x


def tower(x, count: int):
    for _ in range(count // 2):
        x = x + jnp.tanh(x)
    return x


def fan(x, count: int):
    h = jnp.tanh(x)
    return sum(jnp.sin(h) * (k + 1.0) for k in range(count // 3))


def reads(x, count: int):
    h = x @ jnp.ones((4, 4))
    return sum(h * (k + 1.0) for k in range(count // 2))


def joins(x, count: int):
    for _ in range(count // 6):
        x = x * jax.nn.sigmoid(x) + jnp.exp(-x * x)
    return x


def squarings(x, count: int):
    a = x + 1.0
    for _ in range(count // 2):
        a = a * a * 0.5
    return a * jnp.tanh(x)


def norms(x, count: int):
    for _ in range(count // 8):
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) + jnp.tanh(x)
    return x


def attention(x, count: int):
    for _ in range(count // 12):
        x = x + jax.nn.softmax(x @ x.T) @ x
    return x


def folds(x, count: int):
    x = x @ jnp.ones((4, 4))
    for k in range(count // 2):
        x = (x + 1.0 * k) * 0.5
    return x


def calls(x, count: int):
    for _ in range(count // 2):
        x = jax.nn.softplus(x @ jnp.ones((4, 4)))
    return x


@jax.jit
def _inner(x):
    return jnp.tanh(x) * 2.0


def nested(x, count: int):
    for _ in range(count // 2):
        x = jax.jit(lambda x: _inner(x) + 1.0)(x)
    return x


SHAPES = [
    chain, tower, fan, reads, joins, squarings, norms, attention, folds, calls, nested,
]  # fmt: skip


def operations(run: Callable[[], object]) -> int:
    """How many Python functions are entered: the same on every machine, at any load."""
    count = 0

    def called(frame, event: str, argument) -> None:
        nonlocal count
        del frame, argument
        count += event == "call"

    previous = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(previous)
    return count


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_twice_the_program_is_twice_the_work(shape) -> None:
    def work(count: int) -> int:
        jaxpr = jax.make_jaxpr(lambda x: shape(x, count))(jnp.ones((4, 4)))
        return operations(lambda: build_plan(jaxpr, [INPUT]))

    work(48)  # what is kept for all programs is made now
    small, large = work(300), work(600)
    assert large <= 2.1 * small


def test_what_is_called_in_many_places_is_read_once() -> None:
    def work(count: int) -> int:
        jaxpr = jax.make_jaxpr(lambda x: calls(x, count))(jnp.ones((4, 4)))
        return operations(lambda: build_plan(jaxpr, [INPUT]))

    work(8)
    assert work(80) - work(40) < 20 * work(2)
