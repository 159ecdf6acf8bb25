"""Products by degree: however a product is written, each of n factors gets 1/n."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import jaxrel
from jaxrel import RuleSet, rules, rulesets

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 3)))
V = jnp.asarray(RNG.normal(size=(5,)) + 2)
W = jnp.asarray(RNG.normal(size=(6, 3, 3)))
C = jnp.asarray(RNG.normal(size=5))


def heads(x: jax.Array) -> list[jax.Array]:
    return [x @ w for w in W[:3]]


def fused(x: jax.Array) -> list[jax.Array]:
    return jnp.split(x @ jnp.concatenate(list(W[:3]), 1), 3, axis=1)


def einsum(path: list[Any]) -> Callable[[jax.Array], jax.Array]:
    def fun(x):
        a, b, c = heads(x)
        return jnp.einsum("ij,kj,kl->il", a, b, c, optimize=path)

    return fun


def scanned(x: jax.Array, **options: Any) -> jax.Array:
    return lax.scan(lambda c, a: (c * a, c), 1.0, x, **options)[0]


def gate(silu: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: (silu(x @ W[0]) * (x @ W[1])) * (x @ W[2])


def averaged(mean: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: (x[0] * mean(x)) * x[1]


def checkpointed(x: jax.Array) -> jax.Array:
    return jax.checkpoint(lambda a, b: a * b)(jax.checkpoint(lambda a, b: a * b)(x[0], x[1]), x[2])


def multiplicative(x: jax.Array, loop: bool) -> jax.Array:
    """A recurrent network whose input multiplies its state, and whose states multiply."""

    def step(state, v):
        h, c = state
        h = (h @ W[0]) * (v @ W[1]) + v
        return (h, c * (h @ W[2])), h * c

    state = x[0], x[1] @ W[3]
    if loop:
        (_, c), ys = lax.scan(step, state, x)
        return c + ys.sum(0)
    ys = []
    for v in x:
        state, y = step(state, v)
        ys.append(y)
    return state[1] + jnp.stack(ys).sum(0)


LOOPS = {
    "unrolled": lambda x: multiplicative(x, loop=False),
    "scanned": lambda x: multiplicative(x, loop=True),
}

MULTILINEAR: dict[str, tuple[int, jax.Array, list[Callable[[jax.Array], jax.Array]]]] = {
    "three factors": (
        3,
        V,
        [
            lambda x: (x[0] * x[1]) * x[2],
            lambda x: x[0] * (x[1] * x[2]),
            lambda x: jnp.prod(x[:3]),
            lambda x: scanned(x[:3]),
            lambda x: scanned(x[:3], reverse=True),
            lambda x: lax.fori_loop(0, 3, lambda i, c: c * x[i], 1.0),
            checkpointed,
            lambda x: lax.cond(True, lambda a: a * x[2], lambda a: a, x[0] * x[1]),
            lambda x: jnp.cumprod(x[:3])[-1],
        ],
    ),
    "four factors": (
        4,
        V,
        [
            lambda x: ((x[0] * x[1]) * x[2]) * x[3],
            lambda x: (x[0] * x[1]) * (x[2] * x[3]),
            lambda x: x[0] * (x[1] * (x[2] * x[3])),
            lambda x: (x[0] * (x[1] * x[2])) * x[3],
            lambda x: jnp.prod(x[:2]) * jnp.prod(x[2:4]),
            lambda x: scanned(x[:4], unroll=2),
            lambda x: lax.scan(lambda c, row: (scanned(row) * c, None), 1.0, x[:4].reshape(2, 2))[
                0
            ],
        ],
    ),
    "with constants between": (
        3,
        V,
        [
            lambda x: jnp.sum((C * (2 * x) * x[::-1]).reshape(5, 1) @ C[None] * x),
            lambda x: 2 * jnp.sum(C * x * (x[::-1] * (x @ C))),
            lambda x: jnp.einsum("i,i,i,j,j->", C, x, 2 * x[::-1], x, C),
        ],
    ),
    "a square": (
        3,
        V,
        [
            lambda x: (x[0] * x[0]) * x[1],
            lambda x: x[0] * (x[0] * x[1]),
            lambda x: x[0] ** 2 * x[1],
            lambda x: jnp.square(x[0]) * x[1],
            lambda x: x[1] * jnp.abs(x[0]) ** 2,
        ],
    ),
    "linear attention": (
        3,
        X,
        [
            lambda x: (lambda q, k, v: (q @ k.T) @ v)(*heads(x)),
            lambda x: (lambda q, k, v: q @ (k.T @ v))(*heads(x)),
            lambda x: (lambda q, k, v: (q @ k.T) @ v)(*fused(x)),
            lambda x: (lambda q, k, v: (k @ q.T).T @ v)(*fused(x)),
            einsum([(0, 1), (0, 1)]),
            einsum([(1, 2), (0, 1)]),
            einsum([(0, 2), (0, 1)]),
        ],
    ),
    "outer products": (
        3,
        X,
        [
            lambda x: jnp.einsum("i,j,k->ijk", *x[:3]),
            lambda x: x[0][:, None, None] * (x[1][:, None] * x[2]),
            lambda x: jnp.kron(jnp.outer(x[0], x[1]), x[2]),
        ],
    ),
    "means": (
        3,
        X,
        [
            averaged(lambda x: x.mean(0)),
            averaged(lambda x: x.sum(0) / len(x)),
            averaged(lambda x: jnp.full(len(x), 1 / len(x)) @ x),
            lambda x: x[0] * (x.mean(0) * x[1]),
        ],
    ),
}


@pytest.mark.every_case
@pytest.mark.parametrize("name", MULTILINEAR)
def test_equal_programs_have_equal_relevance(name):
    """R_i = x_i df/dx_i / n, the integral of the gradient on the line from 0, for all of them."""
    n, x, programs = MULTILINEAR[name]
    scales = jnp.cos(jnp.arange(1000.0))
    expected = None
    for fun in programs:
        scaled = lambda x, f=fun: (y := jnp.ravel(f(x))) @ scales[: y.size]  # noqa: E731
        expected = x * jax.grad(scaled)(x) / n if expected is None else expected
        found = jaxrel.relevance(scaled, RuleSet())(x)
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(found.sum(), scaled(x), rtol=1e-11)


@pytest.mark.every_case
@pytest.mark.parametrize("name", MULTILINEAR)
def test_equal_programs_against_a_baseline(name):
    """By the integral of the gradient from there on; not where a border stands between products."""
    _, x, programs = MULTILINEAR[name]
    x0 = jnp.asarray(np.random.default_rng(5).normal(size=x.shape))
    scales = jnp.cos(jnp.arange(1000.0))
    count = {"three factors": 3, "four factors": 5}.get(name, len(programs))
    for k, fun in enumerate([*programs[:count], *programs[8:9]]):
        scaled = lambda x, f=fun: (y := jnp.ravel(f(x))) @ scales[: y.size]  # noqa: E731
        if not k:
            points, weights = np.polynomial.legendre.leggauss(4)
            gradients = (jax.grad(scaled)(x0 + (t + 1) / 2 * (x - x0)) for t in points)
            expected = (x - x0) * sum(w / 2 * g for w, g in zip(weights, gradients, strict=True))
        for given in (None, "slope"):
            found = jaxrel.relevance(scaled, given, baseline=x0)(x)
            size = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(found.sum(), scaled(x) - scaled(x0), rtol=1e-10)


def test_joined_products_within_loops_and_branches():
    """And beside readers of what is made between; derivatives are those of finite differences."""

    def step(c, v):
        a = (v @ W[0]) * c
        b = (a @ W[1]) * v
        return c + b * lax.cond(c[0] > 0, lambda v: v * (v * v), jnp.tanh, v), a.sum()

    def fun(x):
        c, sums = lax.scan(step, x[0] / 9, x / 3)
        return c.sum() + sums.sum()

    x0 = X[::-1] / 2
    explain = jax.jit(jaxrel.relevance(fun, baseline=x0))
    np.testing.assert_allclose(explain(X).sum(), fun(X) - fun(x0), rtol=1e-11)
    direction = jnp.cos(jnp.arange(12.0)).reshape(4, 3)
    _, found = jax.jvp(explain, (X,), (direction,))
    expected = (explain(X + 1e-5 * direction) - explain(X - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    many = jax.vmap(explain)(jnp.stack([X, X / 2]))
    np.testing.assert_allclose(many[0], explain(X), rtol=1e-11, atol=1e-13)


def test_a_constant_that_moves_between_joined_products():
    """What a mask makes of the input is settled in the step as a whole."""
    fun = lambda x: jnp.sum((jnp.where(x > 0, 2.0, 3.0) * (x * x[::-1])) * (x @ W[0]))  # noqa: E731
    x0 = -X[::-1]
    found = jaxrel.relevance(fun, baseline=x0)(X)
    np.testing.assert_allclose(found.sum(), fun(X) - fun(x0), rtol=1e-11)


GATES = {
    "silu": jax.nn.silu,
    "by sigmoid": lambda z: z * jax.nn.sigmoid(z),
    "sigmoid first": lambda z: jax.nn.sigmoid(z) * z,
    "divided": lambda z: z / (1 + jnp.exp(-z)),
}


@pytest.mark.parametrize("name", GATES)
def test_gates(name):
    """Whatever spells the gate, which is of degree 1, in whatever order it multiplies."""
    expected = jaxrel.relevance(gate(jax.nn.silu), RuleSet())(X)
    found = jaxrel.relevance(gate(GATES[name]), RuleSet())(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    other = lambda x: GATES[name](x @ W[0]) * ((x @ W[1]) * (x @ W[2]))  # noqa: E731
    found = jaxrel.relevance(other, RuleSet())(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(found.sum(), other(X).sum(), rtol=1e-11)


@pytest.mark.full
def test_a_loop_is_what_it_is_unrolled():
    """Also where degrees grow without end, and where loops are in loops; and its derivatives."""
    found, grads = [], []
    for fun in LOOPS.values():
        deep = lambda x, f=fun: f(x * f(x))  # noqa: E731
        for one in (fun, deep):
            explain = jax.jit(jaxrel.relevance(one, RuleSet()))
            found.append(explain(X))
            grads.append(jax.jit(jax.grad(lambda x, e=explain: (e(x) ** 2).sum()))(X))
    for parts in (found, grads):
        for one, other in zip(parts[:2], parts[2:], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(one).max())
    many = jax.vmap(jaxrel.relevance(LOOPS["scanned"], RuleSet()))(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(many[0], found[2], rtol=1e-10, atol=1e-12)


def test_a_loop_on_several_devices():
    """Degrees of an iteration go into a ``shard_map`` inside the loop."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    spec = PartitionSpec("d")
    times = jax.shard_map(lambda c, a: c * a, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    rows = jnp.asarray(RNG.normal(size=(3, 4)))
    fun = lambda x: lax.scan(lambda c, a: (times(c, a), None), jnp.ones(4), x)[0]  # noqa: E731
    found = jax.jit(jaxrel.relevance(fun, RuleSet()))(rows)
    np.testing.assert_allclose(found, jnp.prod(rows, 0) / 3 * jnp.ones((3, 1)), rtol=1e-12)


def test_long_loops():
    """As many iterations as there are; of a loop that doubles its degree, and of one that stays."""
    x = jnp.asarray(1 + 0.001 * RNG.normal(size=300))
    found = jax.jit(jaxrel.relevance(scanned, RuleSet()))(x)
    np.testing.assert_allclose(found, jnp.prod(x) / 300, rtol=1e-11)
    squared = lambda x: lax.fori_loop(0, 3000, lambda i, c: c * (c * 0 + 1), x)  # noqa: E731
    np.testing.assert_allclose(jaxrel.relevance(squared, RuleSet())(X), X, rtol=1e-9)


def rule_names(fun: Callable, given: RuleSet | str) -> list[str]:
    return [
        line.split("  ")[-1].strip()
        for line in str(jaxrel.summary(fun, given)(X)).splitlines()
        if "ByDegree" in line
    ]


def test_what_is_a_constant_to_the_rules_is_of_degree_0():
    """Detached weights hand everything to the values, as ``Second`` does; statistics of norms."""
    attention = lambda x: (lambda q, k, v: jax.nn.softmax(q @ k.T) @ v)(*heads(x))  # noqa: E731
    detached = RuleSet(softmax=rules.Detach())
    found = jaxrel.relevance(attention, detached)(X)
    expected = jaxrel.relevance(attention, "cp_lrp")(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    normed = lambda x: (x / jnp.sqrt((x**2).mean(-1, keepdims=True))) * (x @ W[0])  # noqa: E731
    assert rule_names(normed, RuleSet()) == ["ByDegree(degrees=(1, 1))"]
    assert rule_names(attention, RuleSet())[-1] == "ByDegree(degrees=(2, 1))"
    stopped = lambda x: (x * lax.stop_gradient(x)) * x  # noqa: E731
    np.testing.assert_allclose(jaxrel.relevance(stopped, RuleSet())(X), X**3, rtol=1e-12)


def test_sums_keep_the_larger_degree():
    residual = lambda x: (x + x * (x @ W[0])) * x  # noqa: E731
    assert rule_names(residual, RuleSet())[-1] == "ByDegree(degrees=(2, 1))"


def test_degrees_can_be_given_and_the_others_are_as_ever():
    fun = lambda x: (x @ W[0]) * (x @ W[1])  # noqa: E731
    given = RuleSet(product=rules.ByDegree((0, 3)))
    second = jaxrel.relevance(fun, RuleSet(product=rules.Second()))(X)
    np.testing.assert_allclose(jaxrel.relevance(fun, given)(X), second, rtol=1e-12)
    halves = jaxrel.relevance(fun, rulesets.attn_lrp())(X)
    np.testing.assert_allclose(jaxrel.relevance(fun, RuleSet())(X), halves, rtol=1e-12)
    traced = jax.vmap(
        lambda p: jaxrel.relevance(fun, RuleSet(product=rules.ByDegree((p, 1 - p))))(X)
    )(jnp.array([0.5, 0.0]))
    np.testing.assert_allclose(traced, jnp.stack([halves, second]), rtol=1e-12)


def test_where_relevance_starts_at_a_place():
    """It is of degree 1 there, as if the function were split."""
    fun = lambda x: jax.ad_checkpoint.checkpoint_name(x * (x @ W[0]), "z") * (x @ W[1])  # noqa: E731
    found = jaxrel.relevance(fun, at="z", argnums=())(X)
    np.testing.assert_allclose(found, fun(X), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_types_are_kept(dtype):
    """In a loop with degrees for each iteration too."""
    loop = lambda x: lax.scan(lambda c, a: (c * a, None), jnp.ones(3, x.dtype), x)[0]  # noqa: E731
    for fun in (loop, lambda x: (x[0] * x[1]) * x[2]):
        explain = jaxrel.relevance(fun, RuleSet())
        found, right = explain(X.astype(dtype)), explain(X.astype(dtype).astype(jnp.float64))
        assert found.dtype == dtype
        eps = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(found.astype(jnp.float64), right, rtol=8 * eps, atol=1e-6)
