"""Rules in 16 bits, at poles and kinks, and where contributions cancel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import RuleSet, Stabilizer, relevance, relevance_vjp, rules
from jaxrel.rules.numerics import secant
from tests.checks import is_finite

pytestmark = pytest.mark.usefixtures("default_precision")


def exactly(a) -> jax.Array:
    """The numbers that a 16-bit array holds, in float64."""
    return jnp.asarray(np.asarray(a.astype(jnp.float32), np.float64))


def error(explain: Callable, *operands: jax.Array) -> float:
    """Of what is explained, against float64 on the same numbers; relative."""
    found = np.asarray(explain(*operands).astype(jnp.float32), np.float64)
    with jax.enable_x64(True):
        right = np.asarray(explain(*map(exactly, operands)))
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


# Matrices: how many of their weights are negative, what x is, how large the bias.
MATRICES = {
    "few negative": (0.01, "positive", 0.0),
    "very few negative": (0.001, "positive", 0.0),
    "relu": (0.5, "positive", 0.0),
    "signed": (0.5, "signed", 0.0),
    "bias": (0.5, "signed", 30.0),
}
ILL = {
    "alpha beta": (rules.AlphaBeta(), ["few negative", "very few negative", "signed"]),
    "alpha beta, no bias": (rules.AlphaBeta(bias=False), ["bias", "few negative"]),
    "gamma": (rules.Gamma(), ["relu", "signed"]),
    "gamma, no bias": (rules.Gamma(bias=False), ["bias", "relu"]),
    "generalized gamma": (rules.GeneralizedGamma(), ["few negative", "signed"]),
    "generalized gamma, no bias": (rules.GeneralizedGamma(bias=False), ["bias"]),
    "epsilon, no bias": (rules.Epsilon(bias=False), ["bias"]),
    "epsilon": (rules.Epsilon(Stabilizer(0.01, "rms")), ["signed", "bias"]),
    "z plus": (rules.ZPlus(), ["signed", "very few negative"]),
    "positive weights": (rules.PositiveWeights(), ["relu", "few negative"]),
    "relative": (rules.Absolute(), ["few negative", "signed"]),
    "flat": (rules.Flat(), ["signed"]),
    "w square": (rules.WSquare(), ["signed"]),
    "box": (rules.ZBox(-6.0, 6.0), ["signed", "bias"]),
}
CASES = [(name, matrix) for name, (_, matrices) in ILL.items() for matrix in matrices]


@pytest.mark.parametrize("width", [512, pytest.param(4096, marks=pytest.mark.full)])
@pytest.mark.parametrize(("name", "matrix"), CASES)
def test_rules_for_matrices_lose_nothing_in_16_bits(name, matrix, width):
    rule, _ = ILL[name]
    negative, sign, bias = MATRICES[matrix]
    rng = np.random.default_rng(0)
    size = np.abs(rng.normal(size=(width, 128))) / width**0.5
    W = np.where(rng.uniform(size=size.shape) < negative, -size, size)
    x, b = rng.normal(size=(4, width)), bias * rng.normal(size=128)
    x = np.abs(x) if sign == "positive" else x
    m = np.linspace(-1, 2, 4 * 128).reshape(4, 128)

    def explain(x, W, b):
        f = lambda x: (jax.nn.relu(x) if sign == "positive" else x) @ W + b  # noqa: E731
        return relevance_vjp(f, x, rules=RuleSet(matmul=rule))[1](jnp.asarray(m, x.dtype))[0]

    operands = [jnp.asarray(v, jnp.bfloat16) for v in (x, W, b)]
    assert error(jax.jit(explain), *operands) <= 1e-2
    assert is_finite(jax.jit(explain)(*(jnp.asarray(v, jnp.float16) for v in (x, W, b))))


KINKED = {
    "elu": lambda x: jax.nn.elu(x, 0.5),
    "selu": jax.nn.selu,
    "hard_sigmoid": lambda x: jax.nn.hard_sigmoid(x + 2.9),
    "celu": lambda x: jax.nn.celu(x, 2.0),
    "clipped": lambda x: jnp.clip(x, -0.1, 0.05) + 0.5 * x,
    "softplus": lambda x: jax.nn.softplus(9 * x),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "norm": lambda x: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-3),
    "softmax": lambda x: jax.nn.softmax(9 * x),
    "logsumexp": lambda x: jax.nn.logsumexp(9 * x, -1, keepdims=True) + x,
    "gate": lambda x: jax.nn.sigmoid(3 * x) * jnp.flip(x, -1),
    "maximum": lambda x: jnp.maximum(x, jnp.flip(x, -1)),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", KINKED)
def test_other_steps_against_a_baseline_in_16_bits(name, dtype):
    """No less exact than the change of the function itself, rounded as its values are."""
    f, rng = KINKED[name], np.random.default_rng(1)
    x, x0 = (jnp.asarray(rng.uniform(-0.3, 0.3, (50, 8)), dtype) for _ in range(2))
    weight = jnp.asarray(rng.normal(size=8), dtype)

    def explain(x, x0, weight):
        g = lambda x: (f(x).astype(x.dtype) * weight).astype(x.dtype)  # noqa: E731
        return relevance(g, baseline=x0)(x)

    assert error(jax.jit(explain), x, x0, weight) <= 3 * float(jnp.finfo(dtype).eps)


# Infinite slopes.

ROOTS: dict[str, Callable] = {
    "sqrt": jnp.sqrt,
    "cbrt": jnp.cbrt,
    "power": lambda x: x**0.3,
    "steep": lambda x: x**1.5,
    "x log x": lambda x: x * jnp.log(x),
    "arcsin of 1 - x": lambda x: jnp.arcsin(1 - x) - np.float32(np.pi / 2),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", ["sqrt", "cbrt", "power", "steep"])
def test_roots_hand_on_what_they_are(name, dtype):
    """Sum(R) = f(x) on every scale, near 0 where the slope is infinite, and between two scales."""
    f = ROOTS[name]
    x = jnp.asarray([1e-4, 1e-3, 0.01, 0.04, 0.25, 0.9, 3.0], dtype)
    if dtype == jnp.float32:
        x = jnp.concatenate([x, jnp.asarray([1e-30, 1e-12, 1e-10, 1e-7])])
    tolerance = 3 * float(jnp.finfo(dtype).eps)
    right = np.asarray(f(x), np.float32)
    for found in (relevance(f, "slope")(x), relevance(f, baseline=0.0)(x)):
        np.testing.assert_allclose(np.asarray(found, np.float32), right, tolerance)
    x0 = 1.001 * x.astype(jnp.float32)
    found = relevance(f, baseline=x0)(x.astype(jnp.float32))
    with jax.enable_x64(True):
        change = f(exactly(x)) - f(exactly(x0))
    np.testing.assert_allclose(found, change, rtol=1e-3, atol=1e-40)


@pytest.mark.parametrize("name", ROOTS)
def test_nothing_comes_of_nothing_at_an_infinite_slope(name):
    """0 where x = x0 = 0, and no NaN, neither in relevance nor in its derivatives."""
    f = ROOTS[name]
    x = jnp.array([0.0, 0.5, 0.0, 0.9])
    if name != "x log x":  # f(0) is NaN there
        found = relevance(f, baseline=0.0)(x)
        np.testing.assert_allclose(found, f(x) - f(jnp.zeros(4)), rtol=1e-5, atol=1e-6)
        above = lambda x: f(jax.nn.relu(x - 0.5)).sum()  # noqa: E731
        assert is_finite(relevance(above, baseline=0.0)(x))
    found = relevance(f, "slope")(x)
    assert is_finite(found) and found[0] == 0
    if name in ("steep", "arcsin of 1 - x"):  # relevance itself has an infinite slope there
        return
    squares = jax.grad(lambda x: (relevance(f, "slope")(x) ** 2).sum())(x)
    assert is_finite(squares)
    along = jax.jvp(lambda x: relevance(f, "slope").multipliers(x), (x,), (jnp.ones(4),))[1]
    assert is_finite(along)


def test_secants_are_the_same_on_every_scale():
    """Scaling f, and x by powers of 2, scales the secant exactly: nothing is measured in ones."""
    x, x0 = jnp.array([1e-3, 0.02, 0.3, 0.5]), jnp.array([0.0, -0.02, 0.299, -0.2])
    for f in (lambda x: jax.nn.elu(x), lambda x: jnp.abs(x) ** 1.5, jnp.cbrt):
        expected = secant(f, x, x0, f(x), f(x0))
        for a, c in ((2.0**-30, 1.0), (1.0, 2.0**-40), (2.0**-20, 2.0**20)):
            if f is not jnp.cbrt and a != 1 and "elu" in f.__code__.co_names:
                continue  # elu has a scale of its own
            g = lambda x, f=f, a=a, c=c: c * f(x / a)  # noqa: E731
            found = secant(g, a * x, a * x0, g(a * x), g(a * x0))
            np.testing.assert_allclose(found * a / c, expected, rtol=2e-5)


# Derivatives of one's own, read in float32.


def surrogate():
    """A step with a surrogate gradient, forwards and backwards."""

    @jax.custom_jvp
    def forwards(x):
        return jnp.where(x > 0, x * x, -0.1 * x)

    forwards.defjvp(lambda p, t: (forwards(*p), t[0] * jnp.exp(-(p[0] ** 2))))

    @jax.custom_vjp
    def backwards(x):
        return jnp.where(x > 0, x * x, -0.1 * x)

    backwards.defvjp(lambda x: (backwards(x), x), lambda x, m: (m * jnp.exp(-(x**2)),))
    return forwards, backwards


@pytest.mark.parametrize("way", [0, 1])
def test_a_derivative_of_its_own_is_kept(way):
    f, rng = surrogate()[way], np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=50), jnp.bfloat16)
    guided = RuleSet(nonlinearity=rules.GuidedRelu())
    for rule_set in (guided, "slope"):
        assert error(lambda x, r=rule_set: relevance(f, r)(x), x) <= 1e-2
    found = relevance(f, "slope")(x).astype(jnp.float32)
    np.testing.assert_allclose(found, f(x).astype(jnp.float32), rtol=1e-2, atol=1e-3)
    again = jax.grad(lambda x: relevance(f, "slope")(x).astype(jnp.float32).sum())(x)
    assert is_finite(again)


def test_what_means_its_16_bits_is_left_alone():
    """A mask by the bits of a bfloat16, and a loop inside an operation."""
    x = jnp.asarray([1.5, -2.0, 0.25, -0.75], jnp.bfloat16)

    def f(x):
        negative = jax.lax.bitcast_convert_type(x, jnp.uint16) >> 15 == 1
        return jnp.tanh(jnp.where(negative, 0.5 * x, x)).sum()

    expected = relevance(lambda x: jnp.tanh(jnp.where(x < 0, 0.5 * x, x)).sum(), "slope")(x)
    np.testing.assert_array_equal(
        relevance(f, "slope")(x).astype(np.float32), expected.astype(np.float32)
    )
    windows = lambda x: jax.lax.reduce_window(  # noqa: E731
        x, jnp.ones((), x.dtype), jax.lax.mul, (2,), (1,), "VALID"
    )
    assert error(lambda x: relevance(windows, baseline=jnp.ones_like(x))(x), x) <= 1e-2


def test_plain_steps_are_the_gradient_in_16_bits():
    """What is left to the plain VJP computes in its own type, bit for bit."""
    rng = np.random.default_rng(3)
    x, W = (jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((4, 16), (16, 16)))
    f = lambda x: jax.nn.relu(x @ W) @ W  # noqa: E731
    _, pullback = jax.vjp(f, x)
    found = relevance(f, "slope").multipliers(x)
    np.testing.assert_array_equal(
        found.astype(np.float32), pullback(jnp.ones((4, 16), x.dtype))[0].astype(np.float32)
    )
    with_bias = jaxrel.audit(lambda x: jnp.tanh(x @ W + W[0]) @ W, "epsilon")(x)
    total = with_bias.total()
    kept = total.bias + total.stabilizer + total.rule
    assert abs(total.relevance_in - total.relevance_out - kept) < 2e-2 * abs(total.relevance_in)
