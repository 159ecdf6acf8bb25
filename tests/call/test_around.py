"""Averages around a relevance function: integrals along a path, noise, many baselines.

They are restated here by plain loops over the points. What other systems compute is in
`test_golden_around.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

import jaxrel
from jaxrel import expected, integrated, relevance, rulesets, smooth
from jaxrel._call.averages import METHODS, quadrature
from jaxrel._call.multipliers import with_multipliers
from tests.checks import assert_close

W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))
V = jnp.asarray(np.random.default_rng(2).normal(size=6))
X = jnp.asarray(np.random.default_rng(3).normal(size=(3, 4))).at[0, 0].set(0.0)
X0 = jnp.asarray(np.random.default_rng(4).normal(size=4))
MANY = jnp.asarray(np.random.default_rng(5).normal(size=(5, 4)))
KEY = jax.random.key(0)


def network(x, w=W):
    """(..., 4) -> (...)."""
    return jnp.tanh(x @ w + 0.3) @ V


def homogeneous(x):
    """A network without biases: f(t x) = t f(x)."""
    return jax.nn.relu(x @ W) @ V


GRADIENT = relevance(network, "gradient")
SLOPE = relevance(network, "slope")


def noise(key, shape, dtype):
    """The same noise for all dtypes."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


AROUND = {
    "integrated": lambda fn, **kw: integrated(fn, X0, 7, **kw),
    "smooth": lambda fn, **kw: smooth(fn, KEY, 0.2, 7, noise=noise, **kw),
    "expected": lambda fn, **kw: expected(fn, MANY, steps=2, **kw),
    "expected of draws": lambda fn, **kw: expected(fn, MANY, KEY, 7, **kw),
}


@jax.jit
def slope_integral(x0, x):
    """Compiled once for all baselines."""
    return integrated(SLOPE, x0, 3)(x)


all_around = pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)


# ------------------------------------------------------------------------------------- the integral


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rules", ["gradient", "slope"])
def test_integral_is_the_weighted_sum_along_the_path(rules, method):
    nodes, weights = quadrature("", 6, method)
    multiplier = jax.jit(jax.grad(lambda x: jaxrel.rewrite(network, rules)(x).sum()))
    path = [w * multiplier(X0 + t * (X - X0)) for t, w in zip(nodes, weights, strict=True)]
    got = integrated(relevance(network, rules), X0, 6, method, chunk=6)(X)
    assert_close(got, (X - X0) * sum(path))


@pytest.mark.parametrize("method", METHODS)
def test_quadratures(method):
    nodes, weights = quadrature("", 5, method)
    expected_nodes = {
        "left": [0, 0.2, 0.4, 0.6, 0.8],
        "right": [0.2, 0.4, 0.6, 0.8, 1],
        "middle": [0.1, 0.3, 0.5, 0.7, 0.9],
        "trapezoid": [0, 0.25, 0.5, 0.75, 1],
    }
    np.testing.assert_allclose(weights.sum(), 1)
    if method in expected_nodes:
        np.testing.assert_allclose(nodes, expected_nodes[method])
    else:
        np.testing.assert_allclose(weights @ nodes**9, 1 / 10)  # exact to degree 2 n - 1


def test_integrated_gradients_are_complete():
    got = integrated(GRADIENT, X0, 40)(X).sum(1)
    assert_close(got, network(X) - network(X0))


def test_integral_of_a_quadratic_form_is_exact_with_one_step():
    a = W @ W.T
    got = integrated(relevance(lambda x: x @ a @ x, "gradient"), X0, 1)(X[0])
    assert_close(got, (X[0] - X0) * (a @ (X[0] + X0)))


@pytest.mark.parametrize("rules", ["gradient", "slope", "lrp"])
def test_from_zero_a_homogeneous_function_has_its_own_relevance(rules):
    relevance_fn = relevance(homogeneous, rulesets.lrp(0.0) if rules == "lrp" else rules)
    assert_close(integrated(relevance_fn, 0.0, 3)(X), relevance_fn(X))


def test_integral_where_x_is_zero():
    got = integrated(GRADIENT, X0, 20)(jnp.zeros(4))
    assert_close(got, -integrated(GRADIENT, 0.0, 20)(X0))


def test_baseline_may_be_a_function_of_the_arguments():
    got = integrated(GRADIENT, lambda x: x - 1, 3)(X)
    assert_close(got, integrated(GRADIENT, X - 1, 3)(X))


# -------------------------------------------------------------------------------------------- noise


def draws(x, sigma, n):
    """The noisy inputs that ``smooth`` makes of an array."""
    keys = [jax.random.split(jax.random.fold_in(KEY, k), 1)[0] for k in range(n)]
    return [x + sigma * jax.random.normal(key, x.shape, x.dtype) for key in keys]


def test_smooth_is_the_mean_over_noisy_inputs():
    assert_close(smooth(SLOPE, KEY, 0.2, 5)(X), sum(map(jax.jit(SLOPE), draws(X, 0.2, 5))) / 5)


def test_smooth_of_multipliers_is_smoothgrad():
    got = smooth(GRADIENT.multipliers, KEY, 0.2, 5)(X)
    gradient = jax.jit(jax.grad(lambda x: network(x).sum()))
    assert_close(got, sum(map(gradient, draws(X, 0.2, 5))) / 5)
    assert_close(smooth(gradient, KEY, 0.2, 5)(X), got)


def test_mean_of_a_square():
    got = smooth(relevance(lambda x: x**2, "gradient"), KEY, 0.5, 40000, chunk=40000)(X[0])
    np.testing.assert_allclose(got, 2 * (X[0] ** 2 + 0.25), atol=0.05)


@pytest.mark.parametrize(
    ("relative", "width"),
    [
        (True, jnp.ptp(X)),
        (1, jnp.ptp(X, 1, keepdims=True)),
        ((-1,), jnp.ptp(X, 1, keepdims=True)),
        (False, 1.0),
    ],
)
def test_sigma_relative_to_the_range(relative, width):
    got = smooth(GRADIENT, KEY, 0.1, 3, relative=relative)(X)
    assert_close(got, sum(map(GRADIENT, draws(X, 0.1 * width, 3))) / 3)


def test_a_sigma_for_each_example_and_noise_of_another_kind():
    sigma = jnp.array([[0.1], [0.0], [0.3]])
    got = smooth(GRADIENT, KEY, sigma, 3, noise=lambda key, *shape: jnp.ones(*shape))(X)
    assert_close(got, GRADIENT(X + sigma))
    assert_close(got[1], GRADIENT(X[1]))


def test_keys_of_the_old_kind():
    old = smooth(GRADIENT, jax.random.PRNGKey(7), 0.1, 3)(X)
    assert_close(old, smooth(GRADIENT, jax.random.key(7), 0.1, 3)(X))


def test_smooth_averages_whatever_is_returned():
    def fun(x):
        return network(x), {"aux": x.astype(jnp.float32)}

    result, aux = smooth(relevance(fun, "slope", has_aux=True), KEY, 0.2, 5)(X)
    assert_close(result, smooth(SLOPE, KEY, 0.2, 5)(X))
    assert aux["aux"].dtype == jnp.float32
    np.testing.assert_allclose(aux["aux"], sum(draws(X, 0.2, 5)) / 5, rtol=1e-5)


# ---------------------------------------------------------------------------------------- baselines


def test_expected_is_the_mean_of_integrals():
    got = expected(SLOPE, MANY, steps=3)(X)
    assert_close(got, sum(slope_integral(x0, X) for x0 in MANY) / len(MANY))


def test_expected_gradients_are_complete():
    got = expected(GRADIENT, MANY, steps=40, chunk=200)(X).sum(1)
    assert_close(got, network(X) - network(MANY).mean())


def test_draws_of_expected_gradients_converge():
    got = expected(GRADIENT, MANY, KEY, 4000, chunk=4000)(X)
    np.testing.assert_allclose(got, expected(GRADIENT, MANY)(X), atol=0.2)


def test_expected_of_a_rule_that_compares():
    def against(x0):
        return relevance(network, "deeplift_rescale", baseline=x0)

    many = jnp.broadcast_to(MANY[:, None], (5, 3, 4))
    explain = expected(against, MANY, chunk=2), against(many), expected(against, MANY[:1], KEY, 3)
    got, mean, drawn = jax.jit(lambda x: [fn(x) for fn in explain])(X)
    assert_close(got, mean)
    assert_close(drawn, jax.jit(against(many[0]))(X))


def test_baselines_for_each_example_and_as_a_function():
    each = MANY[:, None] + jnp.arange(3.0)[:, None]
    got = expected(SLOPE, lambda x: each, steps=3)(X)
    assert_close(got, sum(slope_integral(x0, X) for x0 in each) / len(each))


# ---------------------------------------------------------------------------------------- arguments


def of_trees(a, mode, b, *, scale):
    assert mode == "tanh"
    return scale * jnp.tanh(a["x"] * b[0]).sum() + (a["y"] ** 2).sum()


TREES = ({"x": X, "y": X0}, "tanh", (X[0] + 2,))
explain_trees = functools.partial(relevance, of_trees, "gradient", (2, 0))


def test_trees_argnums_and_other_arguments():
    baseline = ((X0,), {"x": 0.0, "y": X0 / 2})
    b, a = integrated(explain_trees(), baseline, 30)(*TREES, scale=2.0)
    total = sum(leaf.sum() for leaf in jax.tree.leaves((a, b)))
    reference = ({"x": X * 0, "y": X0 / 2}, "tanh", (X0,))
    assert_close(total, of_trees(*TREES, scale=2.0) - of_trees(*reference, scale=2.0), 1e-8)
    assert jax.tree.structure(a) == jax.tree.structure(TREES[0])


def test_prefixes_and_argnums_of_smooth_and_expected():
    relevance_fn = jax.jit(explain_trees(), static_argnums=1)
    b, a = smooth(relevance_fn, KEY, (0.0, {"x": 0.1, "y": 0.0}), 3)(*TREES, scale=2.0)
    assert_close(a["y"], relevance_fn(*TREES, scale=2.0)[1]["y"])
    one = ((MANY,), {"x": jnp.zeros(5), "y": MANY})
    got = expected(explain_trees(), one, steps=2)(*TREES, scale=2.0)
    rows = [((x0,), {"x": 0.0, "y": x0}) for x0 in MANY]
    integral = jax.jit(lambda row: integrated(explain_trees(), row, 2)(*TREES, scale=2.0))
    each = [integral(row) for row in rows]
    assert_close(got, jax.tree.map(lambda *r: sum(r) / 5, *each))
    # around another average, the same arguments get noise
    twice = smooth(integrated(explain_trees(), rows[0], 2), KEY, 0.0, 1)(*TREES, scale=2.0)
    assert_close(twice, each[0])


@all_around
def test_bfloat16(around):
    def rounded(x):
        return network(x, W.astype(x.dtype)).astype(x.dtype)

    got = jax.jit(around(relevance(rounded, "gradient")))(X.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    expected_values = jax.jit(around(GRADIENT))(X)
    np.testing.assert_allclose(got.astype(float), expected_values, atol=0.2)


@all_around
def test_default_precision(around, default_precision):
    # constants in float64 would raise a warning here
    x, w, v = (jnp.asarray(np.asarray(a), jnp.float32) for a in (X, W, V))
    got = jax.jit(around(relevance(lambda x: jnp.tanh(x @ w) @ v, "slope"), chunk=2))(x)
    assert got.dtype == jnp.float32


# ---------------------------------------------------------------------------------- transformations


@all_around
def test_chunks_and_jit_change_nothing(around):
    explain = [around(SLOPE), around(SLOPE, chunk=100), around(jax.jit(SLOPE), chunk=3)]
    one_by_one, at_once, by_threes = jax.jit(lambda x: [fn(x) for fn in explain])(X)
    # jax 0.10's normal numbers depend on what they are compiled with, at 1e-8
    assert_close(at_once, one_by_one, 1e-7)
    assert_close(by_threes, one_by_one, 1e-7)


@pytest.mark.parametrize("name", ["integrated", "expected"])
def test_vmap_outside(name):
    explain = AROUND[name](SLOPE, chunk=2)
    assert_close(jax.jit(jax.vmap(explain))(X), jax.jit(explain)(X))


def test_vmap_over_keys_and_baselines():
    keys = jax.random.split(KEY, 3)
    explain = jax.jit(lambda key, x: smooth(SLOPE, key, 0.1, 3)(x))
    rows = [explain(key, x) for key, x in zip(keys, X, strict=True)]
    assert_close(jax.vmap(explain)(keys, X), jnp.stack(rows))
    got = jax.vmap(slope_integral, (0, None))(MANY[:2], X)
    assert_close(got, jnp.stack([slope_integral(x0, X) for x0 in MANY[:2]]))


def total(x, w, x0, many, sigma):
    """The square of all averages."""
    fn = relevance(functools.partial(network, w=w), "gradient")
    parts = [
        integrated(fn, x0, 3, chunk=2),
        smooth(fn, KEY, sigma, 3, noise=lambda key, *shape: jnp.ones(*shape), chunk=2),
        expected(fn, many, steps=2, chunk=3),
    ]
    return sum((part(x) ** 2).sum() for part in parts)


def test_derivatives():
    args = (X[:2], W, X0, MANY, jnp.asarray(0.2))
    check_grads(jax.jit(total), args, 1, modes=("rev",), atol=1e-6, rtol=1e-6)
    forward = jax.jit(lambda x, x0: (integrated(GRADIENT, x0, 3, chunk=2)(x) ** 2).sum())
    check_grads(forward, (X[0], X0), 1, modes=("fwd",), atol=1e-6, rtol=1e-6)


def test_within_shard_map():
    mesh = jax.make_mesh((3,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("d")
    explain = expected(SLOPE, MANY, steps=2, chunk=3)
    local = jax.jit(jax.shard_map(explain, mesh=mesh, in_specs=spec, out_specs=spec))(X)
    assert_close(local, explain(X))


@pytest.mark.parametrize("derivative", [False, True])
def test_memory_is_that_of_a_chunk(derivative):
    def memory(steps, chunk):
        explain = integrated(GRADIENT, X0, steps, chunk=chunk)
        fun = jax.grad(lambda x: (explain(x) ** 2).sum()) if derivative else explain
        x = jnp.zeros((1000, 4))
        return jax.jit(fun).lower(x).compile().memory_analysis().temp_size_in_bytes

    small = memory(4, 2)
    assert memory(64, 2) < 1.2 * small
    if derivative:
        assert memory(64, 64) > 5 * small


# ------------------------------------------------------------------------------------------- errors


def nothing_attached(x):
    return x


WRONG = [
    (lambda: integrated(nothing_attached, 0.0), TypeError, "nothing_attached carries no mult"),
    (lambda: integrated(jax.vmap(GRADIENT), 0.0), TypeError, "jax.vmap goes around integrated"),
    (lambda: integrated(smooth(GRADIENT, KEY, 0.1), 0.0), TypeError, "carries no multipliers"),
    (lambda: integrated(GRADIENT, 0.0, 0), ValueError, "steps must be at least 1, got 0"),
    (lambda: integrated(GRADIENT, 0.0, 2.5), TypeError, r"steps must be an int, got 2\.5"),
    (lambda: integrated(GRADIENT, 0.0, 1, "trapezoid"), ValueError, "at least 2, got 1"),
    (lambda: integrated(GRADIENT, 0.0, 5, "simpson"), ValueError, "'simpson'; there are gauss"),
    (lambda: integrated(GRADIENT, 0.0, chunk=0), ValueError, "chunk must be at least 1, got 0"),
    (lambda: integrated(GRADIENT, jnp.ones(3)), ValueError, r"shape \(3,\) does not fit"),
    (lambda: integrated(GRADIENT, jnp.ones((5, 3, 4))), ValueError, "5 baselines; jaxrel.expected"),
    (lambda: integrated(GRADIENT, {"a": 0.0}), TypeError, "baseline: "),
    (lambda: smooth(GRADIENT, 0, 0.1), TypeError, "smooth: key must be a key such as .*got int"),
    (lambda: smooth(GRADIENT, jnp.ones(2), 0.1), TypeError, "got an array of float64"),
    (lambda: smooth(GRADIENT, jax.random.split(KEY), 0.1), TypeError, r"array of shape \(2,\)"),
    (lambda: smooth(GRADIENT, KEY, 0.1, 0), ValueError, "n must be at least 1, got 0"),
    (lambda: smooth(GRADIENT, KEY, 0.1, chunk=-1), ValueError, "chunk must be at least 1, got -1"),
    (lambda: smooth(GRADIENT, KEY, jnp.ones(3)), ValueError, r"sigma.*does not broadcast"),
    (lambda: smooth(GRADIENT, KEY, [0.1, 0.2]), TypeError, "sigma: expected a tree like"),
    (lambda: smooth(GRADIENT, KEY, "wide"), TypeError, "sigma: expected an array, got str"),
    (lambda: smooth(GRADIENT, KEY, 1j), TypeError, "sigma: has dtype complex128"),
    (lambda: smooth(jnp.sign, KEY, 0.1, argnums=1), ValueError, "argnums: 1 is out of range"),
    (lambda: smooth(lambda x: x > 0, KEY, 0.1), TypeError, "dtype bool; only floats"),
    (lambda: expected(GRADIENT, MANY, 3), TypeError, "expected: key must be a key"),
    (lambda: expected(GRADIENT, MANY, KEY, 0), ValueError, "n must be at least 1"),
    (lambda: expected(GRADIENT, MANY, steps=0), ValueError, "expected: steps must be at least 1"),
    (lambda: expected(GRADIENT, 0.0), ValueError, r"shape \(\); its first axis"),
    (lambda: expected(GRADIENT, MANY[:0]), ValueError, r"shape \(0, 4\); its first axis"),
    (lambda: expected(GRADIENT, MANY[:, :3]), ValueError, "after the axis of the baselines"),
    (lambda: expected(nothing_attached, MANY), TypeError, "nothing_attached carries no multipl"),
]


@pytest.mark.parametrize(("make", "error", "words"), WRONG)
def test_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()(X)


def test_numbers_of_baselines_differ():
    with pytest.raises(ValueError, match=r"5 at \[0\]\[0\], 2 at \[1\]\['x'\]"):
        baselines = ((MANY,), {"x": jnp.zeros(2), "y": MANY})
        expected(explain_trees(), baselines)(*TREES, scale=2.0)


@pytest.mark.parametrize(
    ("relevance_fn", "words"),
    [
        (relevance(network, rulesets.epsilon_plus_flat()), "Flat, WSquare or ZBox"),
        (relevance(network, baseline=0.0), "a baseline of its own"),
        (relevance(network, "slope", biases=True), "biases=True"),
        (relevance(lambda x: (network(x), x), has_aux=True), "has_aux=True"),
    ],
)
def test_relevance_that_is_no_multiple_of_x(relevance_fn, words):
    with pytest.raises(TypeError, match=words):
        integrated(relevance_fn, 0.0)(X)


def test_multipliers():
    assert_close(SLOPE.multipliers(X) * X, SLOPE(X))
    assert_close(jax.jit(SLOPE.multipliers)(X) * X, SLOPE(X))
    with_aux = relevance(lambda x: (network(x), "aux"), "slope", has_aux=True)
    m, aux = with_aux.multipliers(X)
    assert_close(m, SLOPE.multipliers(X))
    assert aux == "aux"
    own = with_multipliers(lambda x: x * 3, lambda x: jnp.full_like(x, 3))
    assert_close(integrated(own, X0, 2)(X), 3 * (X - X0))
