"""Scalars that are arrays of jax and closed over: temperatures, thresholds, slopes, indices.

Under ``jit`` such an array is a constant whose value nobody may ask for. What is explained is the
same as with a Python number.
"""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxrel import audit, relevance, rulesets, summary, value_and_relevance
from tests import covering

X = jnp.array([[0.5, -1.0, 2.0], [-0.3, 0.2, 0.1]])

FUNCTIONS = {
    "prelu by where": lambda a: lambda x: jnp.where(x > 0, x, a * x),
    "prelu by maximum": lambda a: lambda x: jnp.maximum(x, a * x),
    "leaky relu": lambda a: lambda x: jax.nn.leaky_relu(x, a),
    "swish with a slope": lambda a: lambda x: x * jax.nn.sigmoid(a * x),
    "soft cap": lambda a: lambda x: a * jnp.tanh(x / a),
    "elu": lambda a: lambda x: jax.nn.elu(x, a),
    "threshold": lambda a: lambda x: jnp.where(x > a, x, 0.0),
    "maximum with a number": lambda a: lambda x: jnp.maximum(x, a),
    "minimum with a number": lambda a: lambda x: jnp.minimum(x, a),
    "clip": lambda a: lambda x: jnp.clip(x, -a, a),
    "temperature": lambda a: lambda x: jax.nn.softmax(x / a) @ jnp.arange(3.0),
    "power": lambda a: lambda x: jnp.abs(x) ** a,
    "norm with an epsilon": lambda a: lambda x: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + a),
    "shift and scale": lambda a: lambda x: jnp.tanh(a - x) * a + a,
    "padding": lambda a: lambda x: lax.pad(x, a.astype(x.dtype), ((0, 0, 0), (1, 1, 0))) ** 2,
    "fill": lambda a: (
        lambda x: jnp.take(x, jnp.array([0, 7]), axis=1, mode="fill", fill_value=0.3) * a
    ),
    "scan with a number": lambda a: (
        lambda x: lax.scan(lambda c, x: (jnp.maximum(a * c, x), c), 0 * x[0], x)[1]
    ),
}


@pytest.mark.parametrize(
    ("name", "rules"),
    covering.covering(list(FUNCTIONS), ["slope", "compare_to_baseline", "gradient", "lrp"]),
)
def test_a_number_is_the_same_as_an_array_without_axes(name, rules):
    make, more = FUNCTIONS[name], {"baseline": 0.25} if rules == "compare_to_baseline" else {}
    right = relevance(make(np.float64(0.3)), rules, **more)(X)
    explain = relevance(make(jnp.asarray(0.3)), rules, **more)
    by_vmap = lambda x: jax.vmap(lambda x: explain(x[None])[0])(x)  # noqa: E731
    by_scan = lambda x: lax.scan(lambda c, x: (c, explain(x[None])[0]), 0, x)[1]  # noqa: E731
    rows = [explain, jax.jit(explain)]
    if "scan" not in name:
        rows += [jax.jit(by_vmap), by_scan]
    for got in rows:
        np.testing.assert_allclose(got(X), right, rtol=1e-9, atol=1e-12)


def linen_prelu(x):
    net = nn.Sequential([nn.Dense(5), nn.PReLU(), nn.Dense(3)])
    return net, net.init(jax.random.key(0), x)


def test_the_pattern_of_the_readme():
    """Variables closed over, and the whole jitted: with PReLU, whose slope is a scalar."""
    net, variables = linen_prelu(X)
    explain = relevance(lambda x: net.apply(variables, x), "slope")
    given = relevance(lambda v, x: net.apply(v, x), "slope", 1)
    np.testing.assert_allclose(jax.jit(explain)(X), jax.jit(given)(variables, X), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(explain)(X), explain(X), rtol=1e-9)
    value, found = jax.jit(value_and_relevance(lambda x: net.apply(variables, x)))(X)
    np.testing.assert_allclose(value, net.apply(variables, X))
    assert found.shape == X.shape
    books = jax.jit(audit(lambda x: net.apply(variables, x), "slope"))(X)
    np.testing.assert_allclose(books.explained, found.sum(), rtol=1e-9)


def test_plans_do_not_depend_on_jit():
    """What a step is taken for does not either."""
    net, variables = linen_prelu(X)
    fun = lambda x: net.apply(variables, x)  # noqa: E731
    seen = []

    @jax.jit
    def traced(x):
        seen.append(str(summary(fun)(x)))
        return x

    traced(X)
    assert seen == [str(summary(fun)(X))]
    assert "nonlinearity" in seen[0]


def equinox_model():
    linear, prelu = eqx.nn.Linear(3, 4, key=jax.random.key(0)), eqx.nn.PReLU(0.3)
    return jax.vmap(linear), lambda x: jax.vmap(lambda x: prelu(linear(x)))(x)


def nnx_model():
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.PReLU(0.3))
    return model, lambda x: model(x)


def haiku_model():
    def forward(x):
        slope = hk.get_parameter("slope", (), init=jnp.ones) * 0.3
        y = hk.Linear(4)(x)
        return jnp.where(y > 0, y, slope * y)

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), X)
    return (lambda x: net.apply(params, x)), (lambda x: net.apply(params, x))


@pytest.mark.parametrize("make", [equinox_model, nnx_model, haiku_model])
def test_scalar_parameters_of_other_frameworks(make):
    for fun in make():
        for rules, more in (("slope", {}), ("compare_to_baseline", {"baseline": 0.0})):
            explain = relevance(fun, rules, **more)
            np.testing.assert_allclose(jax.jit(explain)(X), explain(X), rtol=1e-9, atol=1e-12)


def test_an_unknown_exponent_is_one_under_jit_and_without():
    """Whether it divides or multiplies is not known; so it is a product, either way."""
    a = jnp.asarray(0.3)
    fun = lambda x: x * ((x * x).mean(-1, keepdims=True) + 1) ** -a  # noqa: E731
    for rules, more in (("slope", {}), ("compare_to_baseline", {"baseline": 0.25})):
        explain = relevance(fun, rules, **more)
        np.testing.assert_allclose(jax.jit(explain)(X), explain(X), rtol=1e-9)


def test_scalars_that_choose():
    """Indices, conditions and bounds that are arrays."""
    k, yes, first = jnp.asarray(1), jnp.asarray(True), jnp.asarray(0)
    functions = [
        lambda x: jnp.tanh(x[:, k]),
        lambda x: lax.dynamic_slice(x, (first, k), (2, 2)) ** 2,
        lambda x: lax.cond(yes, jnp.sin, jnp.cos, x),
        lambda x: lax.switch(k, [jnp.sin, jnp.tanh, jnp.cos], x),
        lambda x: jnp.where(yes, jnp.tanh(x), x),
        lambda x: x.at[:, k].multiply(2.0) ** 2,
        lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x) * k, x),
    ]
    for fun in functions:
        for rules, more in (("slope", {}), ("compare_to_baseline", {"baseline": 0.1})):
            explain = relevance(fun, rules, **more)
            np.testing.assert_allclose(jax.jit(explain)(X), explain(X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("rules", "options"),
    [
        ("compare_to_baseline", {"baseline": 0.0}),
        ("deeplift_reveal_cancel", {"baseline": 0.0}),
        (rulesets.deep_taylor(0.0, 1.0), {}),
        ("epsilon_plus_flat", {}),
    ],
    ids=["baseline", "parts", "deep_taylor", "flat"],
)
def test_no_convolution_is_computed_when_xla_compiles(rules, options):
    """It does so by an interpreter, for minutes, where weights and what they meet are constants."""
    x, weights = jnp.ones((2, 8, 8, 1)), jnp.cos(jnp.arange(9.0)).reshape(3, 3, 1, 1)

    def network(weights, x):
        for _ in range(2):
            x = jnp.maximum(lax.conv(x.transpose(0, 3, 1, 2), weights.T, (1, 1), "SAME"), 0.0)
            x = x.transpose(0, 2, 3, 1)
        return x.sum()

    def convolutions(fun, *operands):
        return jax.jit(fun).lower(*operands).compile().as_text().count(" convolution(")

    closed = convolutions(relevance(functools.partial(network, weights), rules, **options), x)
    given = convolutions(relevance(network, rules, argnums=1, **options), weights, x)
    assert closed == given > 2
