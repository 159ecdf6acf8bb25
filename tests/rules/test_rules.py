"""Every rule of jaxrel against the oracle: multipliers through a jaxpr, shares on dense matrices.

The two have nothing in common but the mathematics. A case is one JAX function, written the way
people write it, next to the layer of the oracle that it is; they are compared example by example
in float64. Relevance starts with the output itself; a tanh behind a layer makes what arrives at it
differ from that.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import rules
from tests import oracle
from tests.covering import covering
from tests.oracle import Affine, Attention, Elementwise, Linear, Maximum, Norm, Residual


def relevance(fun: Callable, *args, argnums: int | tuple[int, ...] = 0, **by_kind):
    """The relevance that jaxrel gives, by a set of these rules."""
    result = jax.jit(jaxrel.relevance(fun, jaxrel.RuleSet(**by_kind), argnums))(*args)
    return jax.tree.map(np.asarray, result)


def close(got, expected, tolerance=1e-11):
    """Equal to rounding, relative to the largest value."""
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)


def weights(*shape, seed=1):
    """Some weights."""
    return np.random.default_rng(seed).normal(size=shape)


def examples(rng, shape, count=2):
    """Some inputs, with an exact zero in each."""
    x = rng.normal(size=(count, *shape))
    x.reshape(count, -1)[:, 1] = 0.0
    return x


def compare(fun, network, x, by_kind, by_oracle, tolerance=1e-11):
    """One function of a batch, compiled, and one network of the oracle, example by example."""
    got = np.asarray(jax.jit(jaxrel.relevance(fun, jaxrel.RuleSet(**by_kind)))(x))
    layers = oracle.Sequential(network)
    for one, row in zip(x, got, strict=True):
        expected = layers.relevance(one.ravel(), by_oracle).inputs
        close(row.ravel(), expected, tolerance)


# ------------------------------------------------------------------------------------- matmul

MATMUL = {
    "gradient": (rules.Gradient(), oracle.gradient),
    "normalized 0": (rules.Normalized(0.0), oracle.normalized),
    "normalized 0.3": (rules.Normalized(0.3), partial(oracle.normalized, blip=0.3)),
    "epsilon 1e-6": (rules.Epsilon(1e-6), partial(oracle.epsilon, blip=1e-6)),
    "epsilon 0.5": (rules.Epsilon(0.5), partial(oracle.epsilon, blip=0.5)),
}

W, B, S = weights(6, 5), weights(5, seed=2), weights(5, seed=3)

DENSE = {
    "no bias": lambda x: x @ W,
    "bias": lambda x: x @ W + B,
    "bias first": lambda x: B + jnp.dot(x, W),
    "minus": lambda x: B - x @ W,
    "einsum": lambda x: jnp.einsum("...i,io->...o", x, W) + B,
    "weights on the left": lambda x: (W.T @ x[..., None])[..., 0] + B,
    "scaled": lambda x: (x @ W) * S + B,
    "divided": lambda x: (x @ W + B) / np.sqrt(5.0),
    "batch norm": lambda x: (x @ W - B) * (S / jnp.sqrt(S**2 + 1e-5)) + 1.0,
    "reshaped": lambda x: (x @ W).reshape(x.shape[:-1] + (5, 1)) + B[:, None],
    "input scaled": lambda x: (2 * x) @ W + B,
}


@pytest.mark.parametrize("rule", MATMUL)
@pytest.mark.parametrize("layer", DENSE)
def test_dense(rng, layer, rule):
    fun, (given, by_oracle) = DENSE[layer], MATMUL[rule]
    network = [Affine(*oracle.dense(fun, (6,))), Elementwise("tanh")]
    if layer == "input scaled":
        network.insert(0, Linear(2 * np.eye(6), np.zeros(6)))
        network[1] = Affine(*oracle.dense(DENSE["bias"], (6,)))
    compare(
        lambda x: jnp.tanh(fun(x)),
        network,
        examples(rng, (6,)),
        {"matmul": given},
        oracle.Rules(matmul=by_oracle),
    )


def conv(kernel, strides=(1, 1), padding: str | list[tuple[int, int]] = "SAME", **options):
    """A convolution of (N, H, W, C)."""

    def apply(x):
        x = x[None] if x.ndim == 3 else x
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    return apply


K, C = weights(3, 3, 2, 4), weights(4, seed=5)
MEAN, VARIANCE, SCALE = weights(4, seed=6), weights(4, seed=7) ** 2, weights(4, seed=8)


def batch_norm(z):
    """With running statistics; one scale of `SCALE` is negative."""
    return (z - MEAN) * lax.rsqrt(VARIANCE + 1e-5) * SCALE + C


CONVS = {
    "no bias": conv(K),
    "bias": lambda x: conv(K)(x) + C,
    "valid": lambda x: conv(K, padding="VALID")(x) + C,
    "stride": lambda x: conv(K, (2, 2))(x) + C,
    "odd stride": lambda x: conv(K, (2, 3), [(2, 0), (0, 1)])(x) + C,
    "dilation": lambda x: conv(K, rhs_dilation=(2, 2))(x) + C,
    "transposed": lambda x: conv(K, padding=[(1, 1), (2, 1)], lhs_dilation=(2, 2))(x) + C,
    "groups": lambda x: conv(K[:, :, :1], feature_group_count=2)(x) + C,
    "batch norm": lambda x: batch_norm(conv(K)(x)),
    "bias and batch norm": lambda x: batch_norm(conv(K, (2, 1))(x) + C),
}


@pytest.mark.parametrize("rule", ["gradient", "epsilon 0.5"])
@pytest.mark.parametrize("layer", CONVS)
def test_conv(rng, layer, rule):
    fun, (given, by_oracle) = CONVS[layer], MATMUL[rule]
    compare(
        lambda x: jnp.tanh(fun(x)),
        [Affine(*oracle.dense(fun, (5, 6, 2))), Elementwise("tanh")],
        examples(rng, (5, 6, 2)),
        {"matmul": given},
        oracle.Rules(matmul=by_oracle),
        tolerance=1e-10,
    )


def test_weights_as_arguments(rng):
    x, (given, by_oracle) = examples(rng, (6,)), MATMUL["epsilon 0.5"]
    got = relevance(lambda w, x, b: x @ w + b, W, x, B, argnums=1, matmul=given)
    for one, row in zip(x, got, strict=True):
        close(row, by_oracle(one, W.T, B, one @ W + B).inputs)


def test_epsilon_of_a_zero_output_is_finite():
    fun = lambda x: x @ np.array([[1.0], [1.0]])  # noqa: E731
    for rule in (rules.Epsilon(1e-6), rules.Normalized(0.0), rules.Gradient()):
        assert np.isfinite(relevance(fun, np.array([1.0, -1.0]), matmul=rule)).all()


# ------------------------------------------------------------------------------- nonlinearity


def _mish(x):
    return x * jnp.tanh(jnp.log1p(jnp.exp(x)))


FUNCTIONS = {
    "relu": [jax.nn.relu, lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x > 0, x, 0)],
    "leaky_relu": [jax.nn.leaky_relu, lambda x: jnp.where(x > 0, x, 0.01 * x)],
    "relu6": [jax.nn.relu6],
    "elu": [jax.nn.elu, lambda x: jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))],
    "tanh": [jnp.tanh],
    "sigmoid": [jax.nn.sigmoid, lambda x: 1 / (1 + jnp.exp(-x))],
    "softplus": [jax.nn.softplus],
    "silu": [jax.nn.silu, lambda x: x * jax.nn.sigmoid(x)],
    "gelu": [
        partial(jax.nn.gelu, approximate=False),
        lambda x: 0.5 * x * (1 + lax.erf(x / np.sqrt(2.0))),
    ],
    "gelu_tanh": [
        partial(jax.nn.gelu, approximate=True),
        lambda x: 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ],
    "mish": [jax.nn.mish, _mish],
    "hard_swish": [jax.nn.hard_swish],
    "soft_sign": [jax.nn.soft_sign],
    "square": [jnp.square, lambda x: x * x, lambda x: x**2],
    "sin": [jnp.sin],
}
CASES = [
    pytest.param(name, fun, id=f"{name}-{i}")
    for name, ways in FUNCTIONS.items()
    for i, fun in enumerate(ways)
]
_DECADES = np.logspace(-14, 0.6, 74)
POINTS = np.concatenate([_DECADES, -_DECADES])
EXTREMES = np.array([1e-300, 1e-30, 20.0, 80.0, 500.0])
EXTREMES = np.concatenate([EXTREMES, -EXTREMES])


@pytest.mark.parametrize(("name", "fun"), CASES)
def test_slope(name, fun):
    n = oracle.NONLINEARITIES[name]
    got = relevance(fun, POINTS, nonlinearity=rules.Slope())
    np.testing.assert_allclose(got / POINTS, n.rise(POINTS) / POINTS, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "fun"), CASES)
def test_nonlinearity_gradient(name, fun):
    n = oracle.NONLINEARITIES[name]
    got = relevance(fun, POINTS, nonlinearity=rules.Gradient())
    np.testing.assert_allclose(got / POINTS, n.derivative(POINTS), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nonlinearity_far_out_and_very_near(name):
    n, fun = oracle.NONLINEARITIES[name], FUNCTIONS[name][0]
    slope = relevance(fun, EXTREMES, nonlinearity=rules.Slope())
    np.testing.assert_allclose(
        slope / EXTREMES, n.rise(EXTREMES) / EXTREMES, rtol=1e-10, atol=1e-13
    )
    gradient = relevance(fun, EXTREMES, nonlinearity=rules.Gradient())
    np.testing.assert_allclose(gradient / EXTREMES, n.derivative(EXTREMES), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slope_at_zero_is_the_derivative(name):
    """A zero has no relevance, but it has a multiplier: here that of 1 - 1."""
    kinked = name in ("relu", "leaky_relu", "relu6", "elu")  # elu: as JAX sees some ways
    for fun in FUNCTIONS[name]:
        got = relevance(
            lambda x, fun=fun: fun(x @ np.array([[1.0], [1.0]])),
            np.array([1.0, -1.0]),
            nonlinearity=rules.Slope(),
        )
        assert got[0] == -got[1]
        expected = oracle.NONLINEARITIES[name].derivative(np.zeros(1))[0]
        assert 0 <= got[0] <= 1 if kinked else abs(got[0] - expected) < 1e-12


MULTIPLIERS = {
    "straight_through": (rules.Ignore(), oracle.straight_through),
    "repeat": (rules.Repeat(), oracle.repeat),
    "guided_relu": (rules.GuidedRelu(), oracle.guided_relu),
    "gradient": (rules.Gradient(), oracle.derivative),
}


@pytest.mark.parametrize("rule", MULTIPLIERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rule_on_multipliers(rng, name, rule):
    given, by_oracle = MULTIPLIERS[rule]
    first, last = weights(6, 8), weights(8, 3, seed=9)
    layers = [
        Affine(first.T, weights(8, seed=4)),
        Elementwise(name),
        Affine(last.T, np.zeros(3)),
    ]
    x = examples(rng, (6,))
    # A sigmoid written out starts with -x, which belongs to the matrix before it.
    for fun in FUNCTIONS[name][:1] if name == "sigmoid" else FUNCTIONS[name]:
        got = relevance(
            lambda x, fun=fun: fun(x @ first + weights(8, seed=4)) @ last, x, nonlinearity=given
        )
        for one, row in zip(x, got, strict=True):
            close(row, oracle.signal(layers, one, by_oracle), 1e-10)


def test_maximum_with_constants_is_a_nonlinearity():
    x = np.array([-3.0, -1.5, -0.5, 0.25, 2.0])
    for constant in (-1.0, 0.0):
        got = relevance(lambda x, c=constant: jnp.maximum(x, c), x, nonlinearity=rules.Slope())
        close(got, np.maximum(x, constant))
    got = relevance(lambda x: jnp.maximum(x, 1.0), x, nonlinearity=rules.Slope())
    close(got, np.maximum(x, 1.0) - 1.0)


# ------------------------------------------------------------------------------------ maximum

SHARES = {
    "gradient": (rules.Gradient(), oracle.winner),
    "radial": (rules.Radial(), oracle.radial),
    "shapley": (rules.Shapley(), oracle.shapley),
    "softmax limit": (rules.SoftmaxLimit(), oracle.softmax_limit),
    "absolute value": (rules.AbsoluteValue(), oracle.absolute_value),
}
VALUES = {
    "positive": [1.0, 4.0, 2.5, 0.5],
    "mixed": [-1.0, 4.0, 2.5, -0.5],
    "one positive": [-1.0, -4.0, 2.5, -0.5],
    "negative": [-1.0, -4.0, -2.5, -0.5],
    "tied": [3.0, 3.0, -1.0, 2.0],
    "tied below": [1.0, 1.0, 4.0, 1.0],
    "tied, negative": [-1.0, -1.0, -3.0],
    "all tied": [2.0, 2.0, 2.0],
    "with a zero": [0.0, 2.0, -1.0],
    "zero wins": [0.0, -2.0, -1.0],
    "zeros": [0.0, 0.0, 0.0],
    "two": [0.25, 1.0],
    "two, negative": [-0.25, -1.0],
    "two, tied": [1.5, 1.5],
    "one": [-2.0],
}


def ties_beyond_two(rule, case):
    """Pairwise, a tie of more than two is not shared equally: the order is the rule's own."""
    return rule == "absolute value" and case in ("all tied", "zeros")


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("rule", SHARES)
def test_reduce_max(rule, case):
    a, (given, shares) = np.array(VALUES[case]), SHARES[rule]
    if ties_beyond_two(rule, case):
        close(relevance(jnp.max, a, maximum=given).sum(), a.max())
        return
    close(relevance(jnp.max, a, maximum=given), a.max() * shares(a))


@pytest.mark.parametrize("rule", SHARES)
def test_reduce_min(rule):
    """The minimum is the maximum of the opposites, with a minus."""
    given, shares = SHARES[rule]
    a = np.array([VALUES[case] for case in ("positive", "mixed", "one positive", "negative")])
    got = relevance(lambda a: jnp.min(a, axis=-1), -a, maximum=given)
    close(got, [-row.max() * shares(row) for row in a])


@pytest.mark.parametrize("rule", SHARES)
@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
def test_reduce_max_over_axes(rng, rule, axis):
    given, shares = SHARES[rule]
    if rule == "absolute value" and axis in ((0, 2), None):
        pytest.skip("the order of the pairs over several axes is the rule's own")
    x = rng.normal(size=(2, 3, 2))
    axes = tuple(range(3)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    index = np.moveaxis(np.arange(12).reshape(x.shape), axes, range(-len(axes), 0))
    groups = index.reshape(-1, np.prod([x.shape[i] for i in axes]))
    layer = Maximum(list(groups))
    expected = layer.backward(x.ravel(), layer.forward(x.ravel()), oracle.Rules(maximum=shares))
    got = relevance(lambda x: jnp.max(x, axis=axis), x, maximum=given)
    close(got.ravel(), expected.inputs)


@pytest.mark.parametrize("rule", SHARES)
@pytest.mark.parametrize("pair", [(1.0, 3.0), (-1.0, 2.0), (-1.0, -3.0), (2.0, 2.0), (-2.0, -2.0)])
def test_maximum_of_two_live_values(rule, pair):
    a, (given, shares) = np.array(pair), SHARES[rule]
    got = relevance(jnp.maximum, *a, argnums=(0, 1), maximum=given)
    close(np.array(got), a.max() * shares(a))
    got = relevance(jnp.minimum, *-a, argnums=(0, 1), maximum=given)
    close(np.array(got), -a.max() * shares(a))


@pytest.mark.parametrize("beta", [2.0, 1e3])
def test_soft_maximum(beta):
    a, rule = np.array(VALUES["mixed"]), rules.SoftmaxLimit(beta)
    close(relevance(jnp.max, a, maximum=rule), oracle.soft_maximum(a, beta))


BETAS = np.array([0.0, 1e-3, 2.0, 40.0, 1e3, 1e30, 1e307, 1e308, np.inf])


@jax.jit
def by_betas(betas, a):
    """The relevance of a maximum by each beta; the betas are traced."""

    def by(beta):
        return jaxrel.relevance(jnp.max, jaxrel.RuleSet(maximum=rules.SoftmaxLimit(beta)))(a)

    return jax.vmap(by)(betas)


@pytest.mark.parametrize("case", VALUES)
def test_traced_beta_may_be_infinite_or_overflow(case):
    a = np.array(VALUES[case])
    got = by_betas(BETAS, a)
    close(got[0], a / a.size)
    for beta, row in zip(BETAS[1:5], got[1:5], strict=True):
        close(row, oracle.soft_maximum(a, beta))
    for row in got[5:]:
        close(row, a.max() * oracle.softmax_limit(a))


@pytest.mark.usefixtures("default_precision")
def test_soft_maximum_of_large_values_that_nearly_tie():
    """In float32, beta a is rounded in units of thousands here."""
    a = jnp.array([2e10, np.nextafter(np.float32(2e10), 0), -3e38, 1.0], jnp.float32)
    np.testing.assert_allclose(
        by_betas(jnp.array([1e-3]), a)[0], oracle.soft_maximum(a, 1e-3), 1e-5
    )
    np.testing.assert_array_equal(by_betas(jnp.array([1e3, 1e30]), a), [[2e10, 0, 0, 0]] * 2)


def test_derivatives_by_a_traced_beta():
    """True where beta is finite, 0 where it is infinite or as good as that."""
    a = jnp.array([1.0, 1.5, -2.0, 1.5])
    betas = jnp.array([0.0, 1e-3, 0.7, 20.0, 1e308, np.inf])
    explain = lambda beta, a: by_betas(beta[None], a)[0] @ jnp.arange(4.0)  # noqa: E731
    got = jax.vmap(jax.grad(explain), (0, None))(betas, a)
    h = 1e-5 * jnp.maximum(1, betas[:4])
    rise = jax.vmap(explain, (0, None))(betas[:4] + h, a) - jax.vmap(explain, (0, None))(
        betas[:4] - h, a
    )
    np.testing.assert_allclose(got, [*rise / (2 * h), 0, 0], rtol=1e-6, atol=1e-9)
    assert np.isfinite(jax.vmap(jax.grad(explain, 1), (0, None))(betas, a)).all()


POOLS = {
    "plain": ((2, 2), (2, 2), [(0, 0), (0, 0)]),
    "overlapping": ((3, 3), (2, 2), [(0, 0), (0, 0)]),
    "padded": ((3, 3), (2, 2), [(1, 1), (1, 1)]),
    "dense": ((2, 3), (1, 1), [(0, 1), (1, 1)]),
}


def pooling(pool, shape=(5, 6, 2)):
    """A max pooling of (N, H, W, C), and its windows."""
    size, strides, padding = POOLS[pool]

    def fun(x):
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, *size, 1), (1, *strides, 1), [(0, 0), *padding, (0, 0)]
        )

    return fun, oracle.windows(shape, (*size, 1), (*strides, 1), [*padding, (0, 0)])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("rule", SHARES)
def test_max_pooling(rng, rule, pool):
    """Of examples that are all negative, mixed and all positive."""
    (given, shares), (fun, windows) = SHARES[rule], pooling(pool)
    x = rng.normal(size=(3, 5, 6, 2)) + np.array([-9.0, 0.0, 9.0])[:, None, None, None]
    compare(
        lambda x: jnp.tanh(fun(x)),
        [Maximum(windows), Elementwise("tanh")],
        x,
        {"maximum": given},
        oracle.Rules(maximum=shares),
        tolerance=1e-10,
    )


def test_max_pooling_gives_a_tie_to_the_first():
    fun, windows = pooling("overlapping")
    x = np.random.default_rng(3).integers(-1, 3, size=(2, 5, 6, 2)).astype(float)
    compare(fun, [Maximum(windows)], x, {}, oracle.Rules(maximum=oracle.first_winner))


@pytest.mark.parametrize("rule", ["radial", "shapley", "softmax limit"])
def test_max_pooling_shares_a_tie(rule):
    (given, shares), (fun, windows) = SHARES[rule], pooling("overlapping")
    x = np.random.default_rng(3).integers(-1, 3, size=(2, 5, 6, 2)).astype(float)
    compare(fun, [Maximum(windows)], x, {"maximum": given}, oracle.Rules(maximum=shares))


# ------------------------------------------------------------ product, quotient, normalization

PARTS = {
    "half": (rules.Half(), oracle.HALF),
    "first": (rules.First(), oracle.FIRST),
    "second": (rules.Second(), oracle.SECOND),
    "gradient": (rules.Gradient(), oracle.BOTH),
}


@pytest.mark.parametrize("rule", PARTS)
def test_product(rng, rule):
    (given, parts), (a, b) = PARTS[rule], rng.normal(size=(2, 5))
    got = relevance(lambda a, b: a * b, a, b, argnums=(0, 1), product=given)
    close(np.array(got), np.array(oracle.product(a * b, parts)))
    got = relevance(lambda a, b: jnp.sum(a * b), a, b, argnums=(0, 1), product=given)
    close(np.array(got), np.array(oracle.product(a * b, parts)))


@pytest.mark.parametrize("rule", PARTS)
def test_product_of_matrices(rng, rule):
    given, parts = PARTS[rule]
    A, B = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    expected = oracle.bilinear(A, B, np.tanh(A @ B), parts)
    for fun in (lambda A, B: A @ B, lambda A, B: jnp.einsum("ij,jk->ik", A, B)):
        got = relevance(
            lambda A, B, fun=fun: jnp.tanh(fun(A, B)), A, B, argnums=(0, 1), product=given
        )
        for one, other in zip(got, expected, strict=True):
            close(one, other)


@pytest.mark.parametrize("rule", PARTS)
def test_product_of_a_convolution(rng, rule):
    """Both the image and the kernel are explained; by the oracle, row by row of the patches."""
    given, parts = PARTS[rule]
    image, kernel = rng.normal(size=7), rng.normal(size=3)
    patches = np.lib.stride_tricks.sliding_window_view(image, 3)
    R_patches, R_kernel = oracle.bilinear(
        patches, kernel[:, None], (patches @ kernel)[:, None], parts
    )
    R_image = np.zeros(7)
    for start, row in enumerate(R_patches):
        R_image[start : start + 3] += row

    def fun(image, kernel):
        return lax.conv_general_dilated(image[None, None], kernel[None, None], (1,), "VALID")

    got = relevance(fun, image, kernel, argnums=(0, 1), product=given)
    close(got[0], R_image)
    close(got[1], R_kernel[:, 0])


@pytest.mark.parametrize("rule", PARTS)
def test_gate(rng, rule):
    """SwiGLU: the gate and the value are different projections, a product of two live values."""
    given, parts = PARTS[rule]
    x, gate, up = rng.normal(size=6), weights(6, 4), weights(6, 4, seed=2)
    silu = oracle.NONLINEARITIES["silu"].f
    a, b = silu(x @ gate), x @ up
    R_a, R_b = oracle.product(a * b, parts)
    expected = (
        oracle.gradient(x, gate.T, np.zeros(4), R_a).inputs
        + oracle.gradient(x, up.T, np.zeros(4), R_b).inputs
    )
    close(relevance(lambda x: jax.nn.silu(x @ gate) * (x @ up), x, product=given), expected)


@pytest.mark.parametrize(
    ("rule", "by_oracle"),
    [(rules.Detach(), oracle.quotient_detach), (rules.Gradient(), oracle.quotient_gradient)],
)
def test_quotient(rng, rule, by_oracle):
    a, b = rng.normal(size=(2, 5))
    got = relevance(lambda a, b: a / b, a, b, argnums=(0, 1), quotient=rule)
    close(np.array(got), np.array(by_oracle(a / b)))


EPS = 1e-6
GAIN, SHIFT = weights(4, seed=11), weights(4, seed=12)


def _layer_norm(x):
    mean, var = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPS)


def _layer_norm_rsqrt(x):
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + EPS)


def _layer_norm_fast(x):
    """As flax does it: the variance as mean square minus squared mean, the gain before."""
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.maximum(0.0, jnp.mean(x * x, -1, keepdims=True) - mean * mean)
    return (x - mean) * (lax.rsqrt(var + EPS))


def _rms_norm(x):
    return x * lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + EPS)


def _rms_norm_divided(x):
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)


NORMS = {
    "layer norm": (_layer_norm, True),
    "layer norm, rsqrt": (_layer_norm_rsqrt, True),
    "layer norm, fast": (_layer_norm_fast, True),
    "standardize": (partial(jax.nn.standardize, epsilon=EPS), True),
    "rms norm": (_rms_norm, False),
    "rms norm, divided": (_rms_norm_divided, False),
}


@pytest.mark.parametrize("live", [False, True], ids=["detach", "gradient"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("norm", NORMS)
def test_normalization(rng, norm, affine, live):
    fun, centered = NORMS[norm]
    gain, shift = (GAIN, SHIFT) if affine else (np.ones(4), np.zeros(4))
    compare(
        lambda x: fun(x) * gain + shift if affine else fun(x) * 1.0,
        [Norm(gain, shift, centered, EPS)],
        rng.normal(size=(3, 2, 4)),
        # what makes the statistic are steps like any others
        {"normalization": rules.Gradient(), "nonlinearity": rules.Gradient()}
        if live
        else {"normalization": rules.Detach()},
        oracle.Rules(live_statistics=live),
        tolerance=1e-10,
    )


def _softmax_written_out(x):
    e = jnp.exp(x - jnp.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SOFTMAXES = {
    "jax.nn": jax.nn.softmax,
    "written out": _softmax_written_out,
    "without maximum": lambda x: (e := jnp.exp(x)) / e.sum(-1, keepdims=True),
    "computed twice": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
}


@pytest.mark.parametrize(
    ("rule", "by_oracle"),
    [
        pytest.param(rules.Gradient(), oracle.softmax_gradient, id="gradient"),
        pytest.param(rules.Detach(), oracle.softmax_detach, id="detach"),
        pytest.param(rules.Slope(), oracle.softmax_slope, id="slope"),
    ],
)
@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_softmax(rng, softmax, rule, by_oracle):
    x, m = 2 * rng.normal(size=(3, 5)), weights(3, 5)
    got = relevance(lambda x: SOFTMAXES[softmax](x) * m, x, softmax=rule)
    s = np.asarray(jax.nn.softmax(x))
    close(got, by_oracle(x, s * m))


@pytest.mark.parametrize("fun", [jax.nn.logsumexp, jax.nn.log_softmax])
def test_logarithms_of_softmax_by_the_gradient(rng, fun):
    x = rng.normal(size=5)
    c = weights(*fun(x).shape)
    got = relevance(lambda x: fun(x) * c, x, softmax=rules.Gradient())
    J = np.asarray(jax.jacobian(fun)(x)).reshape(-1, 5)
    close(got, x * (np.reshape(c, -1) @ J))


# ----------------------------------------------------------------------------------- networks

NETWORK_RULES = {
    "default": ({}, oracle.Rules()),
    "epsilon": (
        {"matmul": rules.Epsilon(0.1), "maximum": rules.Radial()},
        oracle.Rules(matmul=partial(oracle.epsilon, blip=0.1), maximum=oracle.radial),
    ),
    "gradient": (
        dict.fromkeys(
            (
                "matmul",
                "nonlinearity",
                "maximum",
                "product",
                "quotient",
                "normalization",
                "softmax",
                "sum",
            ),
            rules.Gradient(),
        ),
        oracle.Rules(
            nonlinearity=oracle.nonlinearity_gradient,
            product=oracle.BOTH,
            softmax=oracle.softmax_gradient,
            live_statistics=True,
        ),
    ),
    "value path": (
        {"product": rules.Second(), "softmax": rules.Detach(), "maximum": rules.Shapley()},
        oracle.Rules(product=oracle.SECOND, softmax=oracle.softmax_detach, maximum=oracle.shapley),
    ),
}


def _mlp(name, bias):
    shapes = [(6, 8), (8, 8), (8, 3)]
    parts = [(weights(*s, seed=i) / 2, bias * weights(s[1])) for i, s in enumerate(shapes)]

    def fun(x):
        for i, (W, b) in enumerate(parts):
            x = x @ W + b
            x = FUNCTIONS[name][0](x) if i < 2 else x
        return x

    network = [layer for W, b in parts for layer in (Affine(W.T, b), Elementwise(name))]
    return fun, network[:-1], (6,)


def _cnn(name, bias):
    first = lambda x: conv(K)(x) + bias * C  # noqa: E731
    second = lambda x: conv(weights(3, 3, 4, 3), padding="VALID")(x) + bias * C[:3]  # noqa: E731
    pool, windows = pooling("padded", (5, 6, 4))
    head = weights(3, 2)

    def fun(x):
        x = pool(FUNCTIONS[name][0](first(x)))
        x = FUNCTIONS[name][0](second(x))
        return x.mean((1, 2)) @ head

    network = [
        Affine(*oracle.dense(first, (5, 6, 2))),
        Elementwise(name),
        Maximum(windows),
        Affine(*oracle.dense(second, (3, 3, 4))),
        Elementwise(name),
        Linear(*oracle.dense(lambda x: x.mean((0, 1)), (1, 1, 3))),
        Affine(head.T, np.zeros(2)),
    ]
    return fun, network, (5, 6, 2)


def _average_pooled(name, bias):
    first = lambda x: conv(K)(x) + bias * C  # noqa: E731
    head = weights(4, 2)

    def pool(x):
        total = lax.reduce_window(x, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 3, 1), "VALID")
        return total / 6

    def fun(x):
        return pool(FUNCTIONS[name][0](first(x))).sum((1, 2)) @ head

    network = [
        Affine(*oracle.dense(first, (5, 6, 2))),
        Elementwise(name),
        Linear(*oracle.dense(lambda x: pool(x[None]), (5, 6, 4))),
        Linear(*oracle.dense(lambda x: x.sum((0, 1)), (2, 2, 4))),
        Affine(head.T, np.zeros(2)),
    ]
    return fun, network, (5, 6, 2)


def _residual(name, bias):
    W, V, b = weights(6, 6), weights(6, 6, seed=2), bias * weights(6, seed=3)
    act = FUNCTIONS[name][0]

    def fun(x):
        x = x + act(x @ W + b) @ V
        x = x + act(x @ V - b)
        return x @ W

    first = oracle.Sequential([Affine(W.T, b), Elementwise(name), Affine(V.T, np.zeros(6))])
    second = oracle.Sequential([Affine(V.T, -b), Elementwise(name)])
    return fun, [Residual(first), Residual(second), Affine(W.T, np.zeros(6))], (6,)


def _transformer(name, bias, causal=False):
    T, D, F = 4, 4, 6
    q, k, v, o = (weights(D, D, seed=i) for i in range(4))
    up, down = weights(D, F, seed=5), weights(F, D, seed=6)
    b, act, shift = bias * weights(F, seed=7), FUNCTIONS[name][0], bias * SHIFT

    def attend(x):
        logits = (x @ q) @ jnp.swapaxes(x @ k, -1, -2) / np.sqrt(D)
        if causal:
            logits = jnp.where(np.tri(T) > 0, logits, -jnp.inf)
        return (jax.nn.softmax(logits) @ (x @ v)) @ o

    def fun(x):
        x = x + attend(_layer_norm(x) * GAIN + shift)
        return x + act((_rms_norm(x) * GAIN) @ up + b) @ down

    tokens = lambda W, b: Affine(np.kron(np.eye(T), W.T), np.tile(b, T))  # noqa: E731
    network = [
        Residual(oracle.Sequential([Norm(GAIN, shift, True, EPS), Attention(q, k, v, o, causal)])),
        Residual(
            oracle.Sequential(
                [
                    Norm(GAIN, 0 * GAIN, False, EPS),
                    tokens(up, b),
                    Elementwise(name),
                    tokens(down, np.zeros(D)),
                ]
            )
        ),
    ]
    return fun, network, (T, D)


NETWORKS = {
    "mlp": _mlp,
    "cnn": _cnn,
    "average pooled": _average_pooled,
    "residual": _residual,
    "transformer": _transformer,
    "causal transformer": partial(_transformer, causal=True),
}


@pytest.mark.parametrize("by_kind", NETWORK_RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_network(rng, network, by_kind):
    """With a nonlinearity of which f(0) is a bias, in the transformers with the usual one."""
    name = "gelu" if "transformer" in network else "softplus"
    given, by_oracle = NETWORK_RULES[by_kind]
    fun, layers, shape = NETWORKS[network](name, bias=True)
    x = rng.normal(size=(2, *shape))
    expected = [oracle.Sequential(layers).forward(one.ravel()) for one in x]
    close(np.asarray(fun(x)).reshape(2, -1), expected)
    compare(fun, layers, x, given, by_oracle, tolerance=1e-9)


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("network", ["mlp", "cnn", "average pooled", "residual"])
def test_network_without_biases_conserves(rng, network, name):
    fun, _, shape = NETWORKS[network](name, bias=False)
    x = rng.normal(size=(2, *shape))
    got = relevance(fun, x, maximum=rules.Shapley())
    close(got.reshape(2, -1).sum(1), np.asarray(fun(x)).reshape(2, -1).sum(1), 1e-12)


@pytest.mark.parametrize("network", ["cnn", "transformer"])
def test_compiled_and_mapped_give_the_same(rng, network):
    fun, _, shape = NETWORKS[network]("gelu", bias=True)
    x = rng.normal(size=(2, *shape))
    explain = jaxrel.relevance(fun, jaxrel.RuleSet())
    expected = np.asarray(explain(x))
    close(jax.jit(explain)(x), expected)
    one_by_one = jax.vmap(lambda one: explain(one[None])[0])
    close(one_by_one(x), expected)


# ---------------------------------------------------------------------------- nothing overflows

CROSSING = {
    "default": {},
    "epsilon, radial": {"matmul": rules.Epsilon(1e-6), "maximum": rules.Radial()},
    "ignore, shapley": {"nonlinearity": rules.Ignore(), "maximum": rules.Shapley()},
    "repeat, softmax": {"nonlinearity": rules.Repeat(), "maximum": rules.SoftmaxLimit(5.0)},
    "softmax limit": {"maximum": rules.SoftmaxLimit()},
}


@pytest.mark.parametrize(
    ("by_kind", "dtype"), covering(list(CROSSING), ["float16", "float32", "bfloat16"])
)
@pytest.mark.usefixtures("default_precision")
def test_finite_at_zeros_ties_and_saturation(by_kind, dtype):
    """The maximum of pairs behind a nonlinearity, of values that are 0, tied, tiny and huge."""
    names = ("relu", "elu", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh", "square")
    dtype = jnp.dtype(dtype)
    tiny = jnp.finfo(dtype).tiny
    pairs = [[0, 0], [0, -1], [1, 1], [-1, -1], [tiny, -tiny], [90, -90], [3, 6]]
    x = {name: jnp.array(pairs, dtype) for name in names}

    def fun(x):
        values = [jnp.max(FUNCTIONS[name][0](pair), -1) for name, pair in x.items()]
        return jnp.stack(values) @ jnp.ones((len(pairs), 1), dtype)

    explain = jax.jit(jaxrel.relevance(fun, jaxrel.RuleSet(**CROSSING[by_kind])))
    for name, got in explain(x).items():
        assert got.dtype == dtype, name
        assert np.isfinite(got.astype(np.float32)).all(), name


@pytest.mark.parametrize("rule", [rules.Slope(), rules.Gradient(), rules.Ignore(), rules.Repeat()])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.usefixtures("default_precision")
def test_nonlinearity_that_computes_in_float32(dtype, rule):
    """The input comes back as it was, whether the function promotes it or casts there and back."""
    x = jnp.linspace(-3, 3, 7, dtype=dtype)

    def promoted(x):
        return 0.5 * x * (1 + lax.erf(x / np.sqrt(np.float32(2))))

    def cast(x):
        return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)

    for name, fun in (("gelu", promoted), ("silu", cast)):
        got = relevance(fun, x, nonlinearity=rule)
        assert got.dtype == jnp.dtype(dtype)
        if rule == rules.Slope():
            expected = oracle.NONLINEARITIES[name].f(np.asarray(x, np.float64))
            close(got.astype(np.float64), expected, 1e-2)


@pytest.mark.parametrize("name", ["slope", "attn_lrp", "epsilon_plus"])
def test_infinite_factors_where_nothing_arrives(name: str) -> None:
    """What a mask takes away is worth nothing, whatever it was multiplied or divided by."""
    counts = jnp.array([[0.0, 2.0, 3.0, 0.0], [1.0, 0.0, 4.0, 1.0]])
    functions = (
        lambda x: jnp.where(x > 0, x * jnp.log(x[:, ::-1] + x), 0.0),
        lambda x: jnp.where(x > 0, jax.nn.sigmoid(x @ jnp.ones((4, 4))) * jnp.log(x), 0.0),
        lambda x: jnp.where(x > 0, jnp.log(x) * jnp.cos(x[:, :1]), 0.0),
        lambda x: jnp.where(x > 0, x[:, ::-1] * jnp.cos(x) / x, 0.0),
        lambda x: jnp.where(x + x[::-1] > 1, x[:, ::-1] / (x + x[::-1] - 1), 0.0),
    )
    for fun in functions:
        found, biases = jaxrel.relevance(fun, name, biases="total")(counts)
        assert np.isfinite(found).all() and np.isfinite(biases)
        assert np.any(found)
