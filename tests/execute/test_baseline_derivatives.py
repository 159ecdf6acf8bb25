"""Derivatives of relevance against a baseline are true, also where x nears the baseline.

A secant slope is the mean of f' between the two points, so an oracle for it and for its derivative
that never cancels is a quadrature of f' and f'' with many nodes. Whole programs are compared with
finite differences. Distances go from 1 to 1e-12 and to none.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxrel
from jaxrel import rules, rulesets
from jaxrel.rules.numerics import secant
from tests.covering import every
from tests.execute.test_baseline_complete import PROGRAMS, elsewhere, weighted
from tests.models import build

Elementwise = Callable[[jax.Array], jax.Array]

EVERYWHERE: dict[str, Elementwise] = {
    "tanh": jnp.tanh,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "softplus_by_hand": lambda x: jnp.log(1 + jnp.exp(x)),
    "sigmoid": nn.sigmoid,
    "sigmoid_by_hand": lambda x: 1 / (1 + jnp.exp(-x)),
    "log_sigmoid": nn.log_sigmoid,
    "mish": nn.mish,
    "squareplus": nn.squareplus,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "erf": jax.scipy.special.erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "arctan": jnp.arctan,
    "arcsinh": jnp.arcsinh,
}

POSITIVE: dict[str, Elementwise] = {
    "log": jnp.log,
    "log2": jnp.log2,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "rsqrt": lax.rsqrt,
    "cbrt": jnp.cbrt,
    "reciprocal": lambda x: 1 / x,
    "power": lambda x: x**1.7,
    "inverse_square": lambda x: x**-2,
    "lgamma": lax.lgamma,
}

KINKED: dict[str, Elementwise] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "relu6": nn.relu6,
    "hard_tanh": nn.hard_tanh,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_swish": nn.hard_swish,
    "abs": jnp.abs,
    "selu": nn.selu,
    "elu": nn.elu,
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "straight_through": lambda x: x + lax.stop_gradient(jnp.round(4 * x) / 4 - x),
}

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2

DISTANCES = np.array(
    [0, *(s * k * 10.0**-e for e in range(1, 13) for k in (1, 3) for s in (1, -1))]
)


def quadrature(f: Elementwise, x: jax.Array, x0: jax.Array) -> tuple[jax.Array, ...]:
    """The mean of f' between x0 and x, its derivative by x and by x0."""
    first = jax.vmap(jax.vmap(jax.grad(lambda x: f(x).sum())))
    second = jax.vmap(jax.vmap(jax.grad(jax.grad(lambda x: f(x).sum()))))
    between = x0[:, None] + (x - x0)[:, None] * NODES
    mean = (first(between) * WEIGHTS).sum(1)
    curvature = second(between) * WEIGHTS
    return mean, (curvature * NODES).sum(1), (curvature * (1 - NODES)).sum(1)


def grid(points: list[float], relative: bool) -> tuple[jax.Array, jax.Array]:
    """Pairs of a point and one at every distance from it."""
    x0 = np.repeat(points, len(DISTANCES))
    distance = np.tile(DISTANCES, len(points)) * (np.abs(x0) if relative else 1)
    return jnp.asarray(x0 + distance), jnp.asarray(x0)


@pytest.mark.full
@pytest.mark.parametrize("group", ["everywhere", "positive"])
def test_secants_are_mean_slopes(group: str) -> None:
    """Slope and derivatives of every smooth nonlinearity, on the scale on which it varies."""
    funs = EVERYWHERE if group == "everywhere" else POSITIVE
    scaled = group == "positive"
    points = [1e-8, 1e-3, 0.3, 1.7, 30.0, 1e4, 1e8] if scaled else [-3, -1.3, -1e-8, 0, 0.4, 1, 3]
    x, x0 = grid(points, relative=scaled)
    if scaled:
        keep = np.abs(np.asarray(x - x0)) <= 0.31 * np.asarray(x0)
        x, x0 = x[keep], x0[keep]
    unit = jnp.abs(x0) if scaled else jnp.ones_like(x0)

    @jax.jit
    def run(x: jax.Array, x0: jax.Array) -> Any:
        def slope(f: Elementwise) -> Any:
            def fun(x: jax.Array, x0: jax.Array) -> jax.Array:
                return secant(f, x, x0, f(x), f(x0))

            value, pullback = jax.vjp(fun, x, x0)
            return (value, *pullback(jnp.ones_like(value))), quadrature(f, x, x0)

        return {key: slope(f) for key, f in funs.items()}

    for key, (got, expected) in run(x, x0).items():
        # tails that are rounded within f are known to rounding of numbers of size 1 only
        floor = 0 if scaled else 1e-3
        size = jnp.abs(expected[0]) + unit * jnp.abs(expected[1]) + floor
        bars = (1, 1e-10), (unit, 1e-8), (unit, 1e-8)
        for result, exact, (power, bar) in zip(got, expected, bars, strict=True):
            error = jnp.abs(result - exact) * power / size
            worst = error.argmax()
            assert float(error[worst]) < bar, (key, x0[worst], x[worst] - x0[worst], error[worst])


def test_relevance_of_kinks_is_the_difference() -> None:
    """(x - x0) m = f(x) - f(x0), and its derivatives are f' there, at any distance over a kink."""
    x, x0 = grid([0.0, 1e-9, 0.125, 0.5, -0.5, 1.0, 3.0, -3.0, 6.0], relative=False)
    x0 = x0 - 0.4 * (x - x0)  # the kink is between the two
    apart = np.asarray(x != x0)

    @jax.jit
    def run(x: jax.Array, x0: jax.Array) -> Any:
        def explain(f: Elementwise) -> Any:
            return jax.vjp(lambda x, x0: jaxrel.relevance(f, baseline=x0)(x), x, x0)

        def both(f: Elementwise) -> Any:
            relevance, pullback = explain(f)
            slope = jax.grad(lambda x: f(x).sum())
            return relevance, pullback(jnp.ones_like(x)), f(x) - f(x0), (slope(x), -slope(x0))

        return {key: both(f) for key, f in KINKED.items()}

    for key, (relevance, got, change, slopes) in run(x, x0).items():
        np.testing.assert_allclose(relevance, change, rtol=0, atol=2e-14, err_msg=key)
        for derivative, slope in zip(got, slopes, strict=True):
            # nearer than this to a kink of f' (elu), slopes are means over what rounding leaves
            far = apart & (np.abs(x - x0) > 1e-6)
            np.testing.assert_allclose(derivative[far], slope[far], rtol=0, atol=1e-7, err_msg=key)
            assert np.isfinite(derivative).all(), key


@pytest.mark.full
def test_float32() -> None:
    """The same in the dtype of users: slopes to 1e-5, their derivatives to 1e-2."""
    x, x0 = grid([-2.0, -0.3, 0.0, 0.7, 3.0], relative=False)
    x, x0 = x.astype(jnp.float32), x0.astype(jnp.float32)

    @jax.jit
    def run(x: jax.Array, x0: jax.Array) -> Any:
        def slope(f: Elementwise) -> Any:
            fun = lambda x, x0: secant(f, x, x0, f(x), f(x0))  # noqa: E731
            value, pullback = jax.vjp(fun, x, x0)
            exact = quadrature(f, x.astype(jnp.float64), x0.astype(jnp.float64))
            return (value, *pullback(jnp.ones_like(value))), exact

        return {key: slope(f) for key, f in EVERYWHERE.items()}

    for key, (got, exact) in run(x, x0).items():
        size = 1 + jnp.abs(exact[0]) + jnp.abs(exact[1])
        for result, expected, bar in zip(got, exact, (1e-5, 1e-2, 1e-2), strict=True):
            assert float((jnp.abs(result - expected) / size).max()) < bar, key


SMOOTH = (
    "softmax by_hand live exp2 plus_one log_softmax masked where logsumexp logsumexp_by_hand "
    "logsumexp_weighted logaddexp standardize unit_length rms std quotient product cubic glu geglu "
    "hypot maximum minimum max pools cummax sort top_k median masked_by_x"
).split()
"""Programs with derivatives at points without ties."""


@pytest.mark.parametrize("name", SMOOTH)
def test_programs_near_the_baseline(name: str) -> None:
    """A loss of relevance differentiated by x and by x0, at all distances between them.

    Differences are central, extrapolated once.
    """
    x0 = elsewhere(jnp.zeros((3, 5)), 0)
    direction, *along = (elsewhere(x0, seed) for seed in (1, 2, 3))
    weights = elsewhere(x0, 4)

    def loss(x: jax.Array, x0: jax.Array) -> jax.Array:
        relevance = jaxrel.relevance(weighted(PROGRAMS[name]), baseline=x0)(x)
        return jnp.vdot(weights, relevance)

    @jax.jit
    def run(distance: jax.Array, t: jax.Array) -> Any:
        x = x0 + distance * direction + t[0] * along[0]
        value, gradients = jax.value_and_grad(loss, (0, 1))(x, x0 + t[1] * along[1])
        return value, [jnp.vdot(g, a) for g, a in zip(gradients, along, strict=True)]

    for distance in (0.0, 1e-9, 1e-6, 1e-4, 1e-2, 0.3):
        _, gradients = run(distance, jnp.zeros(2))
        size = max(abs(float(g)) for g in gradients)
        for k, unit in enumerate(np.eye(2)):
            moved = [run(distance, h * unit) for h in (1e-4, -1e-4, 5e-5, -5e-5)]
            up, down, near, under = (float(value) for value, _ in moved)
            expected = (4 * (near - under) / 1e-4 - (up - down) / 2e-4) / 3
            error = abs(float(gradients[k]) - expected) / size
            assert error < 1e-6, (distance, k, float(gradients[k]), expected)


@pytest.mark.parametrize("name", every(2, ["mixer", "lax_attention", "lstm", "control_flow"], 1))
def test_by_everything(name: str) -> None:
    """A loss of relevance by the hyper-parameter of a rule, parameters, input and baseline."""
    model = build(name, dtype=jnp.float64)
    point = (jnp.array(1.5), model.params, model.x, elsewhere(model.x, 3))
    along, weights = elsewhere(point, 1), elsewhere(model.x, 2)

    def loss(beta: jax.Array, params: Any, x: Any, x0: Any) -> jax.Array:
        soft = rulesets.compare_to_baseline(rules.SoftmaxLimit(beta))
        relevance = jaxrel.relevance(model.fun, soft, 1, baseline=x0)(params, x)
        return jnp.vdot(weights, relevance**2) + 0 * beta

    @jax.jit
    def run(t: jax.Array) -> Any:
        at = [
            jax.tree.map(lambda p, d: p + s * d, p, d)  # noqa: B023
            for p, d, s in zip(point, along, t, strict=True)
        ]
        value, gradients = jax.value_and_grad(loss, (0, 1, 2, 3))(*at)
        flat = [
            sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
            for pair in zip(gradients, along, strict=True)
        ]
        return value, flat

    _, gradients = run(jnp.zeros(4))
    size = max(abs(float(g)) for g in gradients)
    for k, unit in enumerate(np.eye(4)):
        up, down, near, under = (float(run(h * unit)[0]) for h in (1e-4, -1e-4, 5e-5, -5e-5))
        expected = (4 * (near - under) / 1e-4 - (up - down) / 2e-4) / 3
        assert abs(float(gradients[k]) - expected) < 1e-6 * size, k


def test_by_hardness_of_a_maximum() -> None:
    """SoftmaxLimit's beta, and that forward mode and second derivatives are true as well."""
    x, x0, weights = (elsewhere(jnp.zeros(5), seed) for seed in (0, 1, 2))

    @jax.jit
    def loss(beta: jax.Array, x: jax.Array) -> jax.Array:
        soft = rulesets.compare_to_baseline(rules.SoftmaxLimit(beta))
        return jnp.vdot(weights, jaxrel.relevance(jnp.max, soft, baseline=x0)(x))

    derivative = jax.grad(loss)
    expected = (loss(2 + 1e-5, x) - loss(2 - 1e-5, x)) / 2e-5
    np.testing.assert_allclose(derivative(2.0, x), expected, rtol=1e-6)
    expected = (derivative(2 + 1e-5, x) - derivative(2 - 1e-5, x)) / 2e-5
    np.testing.assert_allclose(jax.grad(derivative)(2.0, x), expected, rtol=1e-6)
    _, forward = jax.jvp(loss, (2.0, x), (1.0, jnp.zeros_like(x)))
    np.testing.assert_allclose(forward, derivative(2.0, x), rtol=1e-12)
