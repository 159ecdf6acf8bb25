"""Compare to a baseline: sum(R) = f(x) - f(x0) for every program, and each rule by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrel import RuleSet, audit, relevance, relevance_vjp, rules, rulesets, value_and_relevance
from jaxrel.errors import RuleError
from tests import covering, models

IN_FLOAT32 = ("nnx_transformer", "dot_product_attention")  # their softmax is, whatever x is
X = jax.random.normal(jax.random.key(0), (3, 6))
X0 = jax.random.normal(jax.random.key(1), (3, 6))


def reference(x):
    """Another point, which takes other branches."""
    return jax.tree.map(lambda v: (0.7 * jnp.flip(v, -1) + 0.1).astype(v.dtype), x)


def sums(tree, count):
    return sum(r.reshape(count, -1).sum(1) for r in jax.tree.leaves(tree))


# test_baseline_complete.py has all models in float64
CASES = [
    covering.case(name, dtype, full=k % 9 > 0, id=f"{name}-{dtype.__name__}")
    for dtype in (jnp.float64, jnp.float32)
    for k, name in enumerate(models.NAMES)
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_complete_on_every_model(name, dtype):
    """For each example, relative to |f(x)| + |f(x0)|: that is what rounding is relative to."""
    model = models.build(name, dtype=dtype)
    x0 = reference(model.x)
    run = jax.jit(value_and_relevance(model.fun, None, 1, baseline=x0))
    y, found = run(model.params, model.x)
    y0 = model.fun(model.params, x0)
    each, rise, size = sums(found, len(y)), sums(y - y0, len(y)), sums(abs(y) + abs(y0), len(y))
    if name == "graph":  # its nodes are not examples
        each, rise, size = each.sum(), rise.sum(), size.sum()
    bar = 1e-4 if dtype == jnp.float32 else 1e-7 if name in IN_FLOAT32 else 1e-10
    assert (abs(each - rise) <= bar * size).all()


@pytest.mark.parametrize(
    ("name", "maximum"),
    covering.covering(
        ["cnn", "resnet_basic", "lax_plain", "unet"], [rules.CrossMax(), rules.SoftmaxLimit()]
    ),
)
def test_complete_with_every_maximum(name, maximum):
    model = models.build(name, dtype=jnp.float64)
    x0 = reference(model.x)
    chosen = rulesets.compare_to_baseline(maximum)
    found = jax.jit(relevance(model.fun, chosen, 1, baseline=x0))(model.params, model.x)
    y, y0 = (model.fun(model.params, x) for x in (model.x, x0))
    assert (abs(sums(found, len(y)) - (y - y0).sum(1)) <= 1e-10 * (abs(y) + abs(y0)).sum(1)).all()


@pytest.mark.parametrize(("name", "gamma"), [("cnn", 0.03), ("resnet_basic", 0.25)])
def test_complete_with_gamma(name, gamma):
    """Whatever gamma is, and however near the baseline; it is another map, and at 0 the same."""
    model = models.build(name, dtype=jnp.float64)

    @jax.jit
    def run(gamma, x0):
        return relevance(model.fun, rulesets.compare_to_baseline(gamma=gamma), 1, baseline=x0)(
            model.params, model.x
        )

    x0 = reference(model.x)
    for near in (x0, model.x + 1e-7 * (x0 - model.x)):
        y, y0 = (model.fun(model.params, x) for x in (model.x, near))
        missed = sums(run(gamma, near), len(y)) - (y - y0).sum(1)
        assert (abs(missed) <= 1e-10 * (abs(y) + abs(y0)).sum(1)).all()
    assert (abs(missed) <= 1e-3 * abs((y - y0).sum(1))).all()  # of the small change as well
    plain = relevance(model.fun, rulesets.compare_to_baseline(), 1, baseline=x0)
    plain = plain(model.params, model.x)
    assert abs(run(gamma, x0) - plain).max() > 1e-2 * abs(plain).max()
    assert abs(run(0.0, x0) - plain).max() < 1e-10 * abs(plain).max()


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


FUNCTIONS = {
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "exp": jnp.exp,
    "log": lambda x: jnp.log(x * x + 1),
    "product": lambda x: x * x[:, ::-1] ** 2,
    "quotient": lambda x: x / (2 + x[:, ::-1] ** 2),
    "softmax": lambda x: jax.nn.softmax(2 * x) @ jnp.arange(6.0),
    "log_softmax": lambda x: jax.nn.log_softmax(x)[:, 2],
    "logsumexp": jax.nn.logsumexp,
    "by_hand": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True) * x,
    "layer_norm": layer_norm,
    "attention": lambda x: jax.nn.softmax(x.T @ x) @ x.T,
    "relu": lambda x: jax.nn.relu(x - 0.1),
    "maximum": lambda x: x.max(-1) + jnp.maximum(x, x[:, ::-1]).sum(-1),
}


@pytest.mark.parametrize(
    "name", [covering.case(name, full=k % 2 > 0, id=name) for k, name in enumerate(FUNCTIONS)]
)
def test_derivatives_near_and_far(name):
    """Of a loss on relevance, in x and x0, against central differences.

    Both points are moved together, so that their distance stays what it is; and x alone where the
    distance is large enough for differences to see.
    """
    fun, way = FUNCTIONS[name], jax.random.normal(jax.random.key(3), X.shape)
    weights, h = jax.random.normal(jax.random.key(2), X.shape), 1e-4

    @jax.jit
    def loss(x, x0, scale):
        return jnp.sum(jnp.sin(weights * relevance(fun, baseline=x0)(x) * scale))

    gradient = jax.jit(jax.grad(loss, (0, 1)))

    def differences(x0, scale, both):
        moved = [loss(X + k * h * way, x0 + both * k * h * way, scale) for k in (1, -1, 2, -2)]
        return (8 * (moved[0] - moved[1]) - moved[2] + moved[3]) / (12 * h)

    for distance in (1.0, 1e-2, 1e-4, 1e-8, 0.0):
        x0, scale = X + distance * (X0 - X), 1 / distance if distance else 0.0
        gx, gx0 = gradient(X, x0, scale)
        # R / distance is only known to eps / distance
        atol = 1e-6 if distance >= 1e-4 else 1e-3
        found = jnp.vdot(gx + gx0, way)
        np.testing.assert_allclose(found, differences(x0, scale, 1), rtol=1e-6, atol=atol)
        if distance == 1.0:
            found = jnp.vdot(gx, way)
            np.testing.assert_allclose(found, differences(x0, scale, 0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"maximum", "relu"}))
def test_where_the_points_meet_multipliers_are_the_gradient(name):
    fun = FUNCTIONS[name]
    x0 = X + 1e-6 * X0
    found = relevance(fun, baseline=x0)(X) / (X - x0)
    expected = jax.grad(lambda x: fun(x).sum())((X + x0) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def log_mean(a, b):
    return np.where(a == b, a, (a - b) / np.where(a == b, 1, np.log(a / b)))


def test_softmax_restated():
    """Logarithmic means for probabilities; a shift of all logits changes nothing."""
    u, u0, m = np.random.default_rng(0).normal(size=(3, 7))
    p, p0 = (np.exp(v) / np.exp(v).sum() for v in (u, u0))
    means = log_mean(p, p0)
    multiplier = means * m - means / means.sum() * (means * m).sum()

    def fun(u):
        return jax.nn.softmax(u) @ m

    found = relevance(fun, baseline=u0)(jnp.asarray(u))
    np.testing.assert_allclose(found, (u - u0) * multiplier, rtol=1e-10)
    shifted = relevance(fun, baseline=u0 + 5)(jnp.asarray(u))
    np.testing.assert_allclose(shifted, (u - u0 - 5) * multiplier, rtol=1e-9)
    np.testing.assert_allclose(multiplier.sum(), 0, atol=1e-12)
    weights = means / means.sum()
    found = relevance(jax.nn.logsumexp, baseline=u0)(jnp.asarray(u))
    np.testing.assert_allclose(found, (u - u0) * weights, rtol=1e-10)


@pytest.mark.parametrize("by", ["where", "add"])
def test_masked_and_saturated_softmax(by):
    """Masked logits get nothing; logits of 1e4 are finite and complete."""
    mask = np.tri(6, dtype=bool)

    def fun(x):
        scores = 1e4 * x.T @ x
        masked = jnp.where(mask, scores, -jnp.inf) if by == "where" else scores - 1e9 * ~mask
        return jax.nn.softmax(masked) @ x.T

    found = relevance(fun, baseline=X0)(X)
    np.testing.assert_allclose(found.sum(), (fun(X) - fun(X0)).sum(), rtol=1e-10)


def test_two_ways_to_take_a_maximum():
    """By the absolute value both change places in part; by the limit of softmax one gets all."""
    x, x0 = jnp.array([3.0, 1.0]), jnp.array([0.0, 2.0])  # y - y0 = 1

    def explained(rule):
        chosen = rulesets.compare_to_baseline(rule)
        return relevance(lambda x: jnp.maximum(x[0], x[1]), chosen, baseline=x0)(x)

    # |d| goes from 2 at d = -2 to 2 at d = 2: slope 0, halves of 3 and of -1
    np.testing.assert_allclose(explained(rules.AbsoluteValue()), [1.5, -0.5])
    np.testing.assert_allclose(explained(rules.SoftmaxLimit()), [1, 0])
    np.testing.assert_allclose(explained(rules.CrossMax()), [1, 0])
    soft = [explained(rules.SoftmaxLimit(beta)) for beta in (10.0, 100.0)]
    assert abs(soft[1] - jnp.array([1, 0])).max() < abs(soft[0] - jnp.array([1, 0])).max() < 0.2


def pooled(x, x0, size, stride, pad):
    """CrossMax on one row, in numpy loops."""
    found = np.zeros_like(x)
    padded, padded0 = (np.pad(v, pad, constant_values=-np.inf) for v in (x, x0))
    for start in range(0, len(padded) - size + 1, stride):
        a, a0 = padded[start : start + size], padded0[start : start + size]
        i, k, top = a.argmax(), a0.argmax(), max(a.max(), a0.max())
        for place, amount in ((i, top - a0.max()), (k, a.max() - top)):
            found[start + place - pad] += amount
    return found


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 2, 1), (3, 1, 0), (2, 2, 0)])
def test_overlapping_and_padded_windows(size, stride, pad):
    """DeepLIFT's pooling by a slow restatement; min is its mirror image."""

    def pool(x):
        window = (1, size), (1, stride), [(0, 0), (pad, pad)]
        return lax.reduce_window(x, -jnp.inf, lax.max, *window)

    expected = np.stack(
        [pooled(*v, size, stride, pad) for v in zip(np.asarray(X), np.asarray(X0), strict=True)]
    )
    for sign in (1, -1):
        fun = (lambda x: -pool(-x)) if sign < 0 else pool
        found = relevance(fun, "deeplift_rescale", baseline=sign * X0)(sign * X)
        np.testing.assert_allclose(found, sign * expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("preset", ["compare_to_baseline", "deeplift_rescale"])
def test_order_statistics(preset):
    """sort, top_k, median, running maxima, ties."""

    def fun(x):
        sorted_ = jnp.sort(x, -1) @ jnp.arange(6.0) + jnp.sort(-x, 0).sum(0).mean()
        return sorted_ + lax.top_k(x, 3)[0].sum(-1) + jnp.median(x, -1) + lax.cummax(x, 1).sum(-1)

    for x, x0 in ((X, X0), (jnp.round(X), jnp.round(X0)), (X, X)):
        found = relevance(fun, preset, baseline=x0)(x)
        np.testing.assert_allclose(found.sum(), (fun(x) - fun(x0)).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "rule", [rules.Epsilon(0.1), rules.ZPlus(0.1), rules.Gamma(0.3, 0.1), rules.Flat()], ids=str
)
def test_rules_for_matrices_see_differences(rule):
    """W x + b against x0 is W (x - x0) against 0: the bias cancels."""
    w, b = jax.random.normal(jax.random.key(5), (6, 4)), jnp.arange(4.0)
    chosen = RuleSet(matmul=rule)
    found = relevance(lambda x: x @ w + b, chosen, baseline=X0)(X)
    np.testing.assert_allclose(found, relevance(lambda x: x @ w, chosen)(X - X0), rtol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["control_flow", *(covering.case(n, full=True) for n in ("vit", "decoder_scan"))]
)
def test_transformations_change_nothing(name):
    """jit, vmap over examples and references, remat, eight devices, audit."""
    model = models.build(name, dtype=jnp.float64)
    x0 = reference(model.x)

    def explain(x, x0):
        return relevance(model.fun, argnums=1, baseline=x0)(model.params, x)

    expected = jax.jit(explain)(model.x, x0)
    each = jax.jit(jax.vmap(lambda x, x0: explain(x[None], x0[None])[0]))(model.x, x0)
    np.testing.assert_allclose(each, expected, rtol=1e-8, atol=1e-10)
    many = jnp.stack([x0, 0 * x0])
    mean = (expected + jax.jit(explain)(model.x, 0 * x0)) / 2
    np.testing.assert_allclose(jax.jit(explain)(model.x, many), mean, rtol=1e-8, atol=1e-10)
    remat = relevance(jax.checkpoint(model.fun), argnums=1, baseline=x0)
    remat = jax.jit(remat)(model.params, model.x)
    np.testing.assert_allclose(remat, expected, rtol=1e-8, atol=1e-10)
    tiled = [jnp.tile(v, (8,) + (1,) * (v.ndim - 1)) for v in (model.x, x0)]
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data"))
    spread = jax.jit(explain)(*(jax.device_put(v, sharding) for v in tiled))
    np.testing.assert_allclose(spread[: len(expected)], expected, rtol=1e-8, atol=1e-10)
    books = jax.jit(audit(lambda x: model.fun(model.params, x), baseline=x0))(model.x).total()
    np.testing.assert_allclose(books.relevance_in, books.relevance_out, rtol=1e-9)
    assert abs(books.rule) < 1e-9


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_it_lowers_elsewhere(platform):
    model = models.build("resnet_basic", dtype=jnp.float32)

    def loss(params, x, x0):
        return relevance(model.fun, argnums=1, baseline=x0)(params, x).var()

    export = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])
    assert export(model.params, model.x, model.x).mlir_module()


@pytest.mark.parametrize(
    ("name", "dtype"),
    covering.covering(["resnet_basic", "vit", "lstm"], [jnp.float32, jnp.bfloat16, jnp.float16]),
)
def test_finite_in_low_precision(name, dtype):
    """Zeros, x = x0, tiny and large distances; in one example only."""
    model = models.build(name, dtype=dtype)
    run = jax.jit(lambda x, x0: relevance(model.fun, argnums=1, baseline=x0)(model.params, x))
    for x, x0 in (
        (model.x, model.x),
        (0 * model.x, 0 * model.x),
        (model.x, 0 * model.x),
        (model.x, model.x * 1.01),
        (model.x * 20, -model.x),
    ):
        found = run(x, x0)
        assert found.dtype == dtype
        assert jnp.isfinite(found).all()
    spoilt = run(model.x.at[0].set(jnp.nan), 0 * model.x)
    assert jnp.isfinite(spoilt[1:]).all()


def test_references_of_every_kind():
    """A number, a tree, a function of the arguments, one per primal; auxiliary output."""

    def fun(a, b):
        return a["x"] * b, {"note": b.sum()}

    a, b = {"x": X}, X0
    found, aux = relevance(fun, argnums=(0, 1), baseline=({"x": 0.0}, 0.0), has_aux=True)(a, b)
    np.testing.assert_allclose(found[0]["x"], X * X0 / 2)
    assert set(aux) == {"note"}
    made = relevance(fun, baseline=lambda a, b: {"x": b}, has_aux=True)(a, b)[0]
    np.testing.assert_allclose(made["x"], (X - X0) * X0)
    value, pullback = relevance_vjp(lambda x: jnp.tanh(x), X, baseline=(X0,))
    np.testing.assert_allclose(pullback(jnp.ones_like(value))[0], jnp.tanh(X) - jnp.tanh(X0))


def test_wrong_baselines_are_named():
    """By shape, tree, dtype, count; and rules without a formula."""
    with pytest.raises(ValueError, match=r"shape \(5,\) does not fit .* \(3, 6\)"):
        relevance(jnp.tanh, baseline=jnp.ones(5))(X)
    with pytest.raises(ValueError, match="0 references"):
        relevance(jnp.tanh, baseline=jnp.ones((0, 3, 6)))(X)
    with pytest.raises(TypeError, match="expected a tree like"):
        relevance(lambda a: a["x"], baseline={"y": 0.0})({"x": X})
    with pytest.raises(TypeError, match="expected real numbers"):
        relevance(jnp.tanh, baseline=1j)(X)
    with pytest.raises(ValueError, match="expected one number"):
        both = jnp.ones((2, 3, 6)), jnp.ones((4, 3, 6))
        relevance(lambda a, b: a * b, argnums=(0, 1), baseline=both)(X, X)
    for rule in (rules.Radial(), rules.Shapley()):
        with pytest.raises(RuleError, match="no formula with a baseline"):
            relevance(lambda x: x.max(-1), RuleSet(maximum=rule), baseline=0.0)(X)
    for preset in ("compare_to_baseline", "deeplift_rescale"):
        with pytest.raises(RuleError, match="no formula without a baseline"):
            relevance(jnp.tanh, preset)(X)
