"""The LRP family against its relevance form on dense matrices, at odd places, and trained.

The oracle knows nothing of convolutions, BatchNorm or multipliers: it gets the dense matrix of the
whole affine step and hands relevance out by contributions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import First, Kind, RuleSet, Stabilizer, relevance, relevance_vjp, rules, rulesets
from tests import models, oracle
from tests.covering import covering

EPS = 1e-3


def draw(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def dense(x):
    return x @ draw((12, 5), 1) + draw((5,), 2)


def normalised_dense(x):
    """With a running-average BatchNorm behind it, scales of both signs."""
    return (dense(x) - draw((5,), 3)) * draw((5,), 4) + draw((5,), 5)


def conv(x):
    z = jax.lax.conv_general_dilated(
        x.reshape(1, 3, 4, 1), draw((2, 2, 1, 3), 6), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return ((z + draw((3,), 7)) * draw((3,), 8)).ravel()


def transposed(x):
    """Weights on the left, a transpose between the product and its scale and bias."""
    z = jnp.einsum("oi,bi->ob", draw((5, 12), 9), x[None])
    return (z.T * draw((5,), 10) + draw((5,), 11))[0]


LAYERS = {"dense": dense, "batch norm": normalised_dense, "conv": conv, "transposed": transposed}

RULES = {
    "epsilon": (rules.Epsilon(EPS), oracle.epsilon, {"blip": EPS}),
    "epsilon, no bias": (rules.Epsilon(EPS, bias=False), oracle.epsilon, {"blip": EPS, "bias": 0}),
    "gamma": (rules.Gamma(0.3, EPS), oracle.gamma, {"gamma": 0.3, "eps": EPS}),
    "gamma, no bias": (
        rules.Gamma(0.3, EPS, bias=False), oracle.gamma, {"gamma": 0.3, "eps": EPS, "bias": 0}
    ),
    "generalized gamma": (
        rules.GeneralizedGamma(0.3, EPS), oracle.generalized_gamma, {"gamma": 0.3, "eps": EPS}
    ),
    "generalized gamma, no bias": (
        rules.GeneralizedGamma(0.3, EPS, bias=False),
        oracle.generalized_gamma,
        {"gamma": 0.3, "eps": EPS, "bias": 0},
    ),
    "alpha beta": (
        rules.AlphaBeta(2.0, 1.0, EPS), oracle.alpha_beta, {"alpha": 2, "beta": 1, "eps": EPS}
    ),
    "alpha beta, no bias": (
        rules.AlphaBeta(2.0, 1.0, EPS, bias=False),
        oracle.alpha_beta,
        {"alpha": 2, "beta": 1, "eps": EPS, "bias": 0},
    ),
    "z plus": (rules.ZPlus(EPS), oracle.z_plus, {"eps": EPS}),
    "w square": (rules.WSquare(EPS), oracle.w_square, {"eps": EPS}),
    "z box": (rules.ZBox(-3.0, 2.5, EPS), oracle.z_box, {"low": -3.0, "high": 2.5, "eps": EPS}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "layer"), covering(list(RULES), list(LAYERS)))
@pytest.mark.parametrize("signs", ["mixed", "nonneg"])
def test_rule_is_its_relevance_form(layer, name, signs):
    rule, textbook, options = RULES[name]
    fun = LAYERS[layer]
    x = draw((12,), 20)
    before = jax.nn.relu if signs == "nonneg" else jnp.positive
    seen = np.asarray(before(x))
    W, b = oracle.dense(fun, (12,))
    z = W @ seen + b
    m = np.linspace(-1, 2, z.size)  # multipliers of both signs
    expected = textbook(seen, W, b, m * z, **options)
    _, pullback = relevance_vjp(lambda x: fun(before(x)), x, rules=RuleSet(matmul=rule))
    (got,) = pullback(jnp.asarray(m))
    # behind a relu what a unit rule sends to pixels worth 0 passes on whole
    np.testing.assert_allclose(got, expected.inputs, rtol=1e-9, atol=1e-11)
    books = jaxrel.audit(lambda x: fun(before(x)), RuleSet(matmul=rule))(x)
    rows = zip(books.steps(), books.labels, strict=True)
    (account,) = (row for row, label in rows if label.kind == "matmul")
    to_bias = textbook(seen, W, b, z, **options).bias.sum()
    np.testing.assert_allclose(account.bias, to_bias, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_flat_is_the_same_for_all_that_is_seen(layer):
    fun = LAYERS[layer]
    W, b = oracle.dense(fun, (12,))
    x = draw((12,), 21)
    got = relevance(fun, RuleSet(matmul=rules.Flat(EPS)))(x)
    # the scales are part of W, so a tap that exists is where W is not 0
    expected = oracle.flat(x, W, b, W @ np.asarray(x) + b, EPS, mask=(W != 0).astype(float))
    np.testing.assert_allclose(got, expected.inputs, rtol=1e-9)


@pytest.mark.parametrize("rule", [rules.Flat(), rules.WSquare(), rules.ZBox(-1.0, 1.0)])
def test_pixels_worth_nothing_get_relevance(rule):
    """Through normalising, transposing, padding and patches, to an input that is all zeros."""

    def network(x):
        x = jnp.pad((x - 0.4) / 0.2, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = x.reshape(2, 3, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 9, 12)
        return jax.nn.relu(patches @ draw((12, 7), 1) + draw((7,), 2)).sum((1, 2))

    x = jnp.zeros((2, 4, 4, 3))
    R = relevance(network, RuleSet() | {First(): rule})(x)
    assert (jnp.abs(R) > 0).all()
    jitted = jax.jit(relevance(network, RuleSet() | {First(): rule}))(x)
    np.testing.assert_allclose(jitted, R, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["add", "clip", "rms"])
def test_stabilizers(mode):
    z = jnp.asarray([[-2.0, -1e-3, 0.0, 1e-3, 3.0]])
    eps, sign = 0.1, np.where(np.asarray(z) < 0, -1.0, 1.0)
    expected = {
        "add": z + eps * sign,
        "clip": sign * np.maximum(np.abs(z), eps),
        "rms": z + eps * sign * np.sqrt(np.mean(np.asarray(z) ** 2)),
    }
    np.testing.assert_allclose(Stabilizer(eps, mode)(z), expected[mode], rtol=1e-12)
    with pytest.raises(ValueError, match="add, clip or rms, not 'max'"):
        Stabilizer(eps, "max")


CONSERVING = {
    "epsilon": rulesets.epsilon(0.0),
    "gamma": RuleSet(matmul=rules.Gamma(0.25, 0.0)),
    "generalized gamma": RuleSet(matmul=rules.GeneralizedGamma(0.25, 0.0)),
    "z plus": RuleSet(matmul=rules.ZPlus(0.0)),
    "flat first": RuleSet() | {First(): rules.Flat(0.0)},
    "w square first": RuleSet() | {First(): rules.WSquare(0.0)},
    "box first": RuleSet() | {First(): rules.ZBox(-9.0, 9.0, 0.0)},
    "attn_lrp": rulesets.attn_lrp(),
}


@pytest.mark.parametrize(
    ("name", "model"), covering(list(CONSERVING), ["mlp", "resnet_basic", "nnx_cnn"])
)
def test_conservation_without_biases(name, model):
    m = models.build(model, bias=False, dtype=jnp.float64)
    explain = jaxrel.value_and_relevance(lambda x: m.fun(m.params, x), CONSERVING[name])
    values, R = jax.jit(explain)(m.x)
    value = values.sum()
    assert abs(R.sum() - value) <= 1e-10 * abs(value)


@pytest.mark.parametrize("rule", [rules.Epsilon, rules.Gamma, rules.GeneralizedGamma, rules.ZPlus])
def test_conservation_with_biases_left_out(rule):
    """bias=False: the inputs share all of it, as long as they have anything to share it by."""
    made = rule(eps=1e-13, bias=False)
    fun = lambda x: jax.nn.relu(dense(x))  # noqa: E731
    x = jnp.abs(draw((12,), 22))
    books = jaxrel.audit(fun, RuleSet(matmul=made))(x)
    assert books.total().bias == 0
    assert books.total().relevance_out == pytest.approx(float(fun(x).sum()), rel=1e-10)


def test_a_gamma_is_swept_in_one_compilation():
    m = models.build("cnn", dtype=jnp.float64)
    traced = []

    @jax.jit
    def sweep(gammas):
        def one(gamma):
            traced.append(gamma)
            return relevance(lambda x: m.fun(m.params, x), RuleSet(matmul=rules.Gamma(gamma)))(m.x)

        return jax.vmap(one)(gammas)

    gammas = jnp.asarray([0.0, 0.25, 4.0])
    swept = sweep(gammas)
    assert len(traced) == 1
    for gamma, R in zip(gammas, swept, strict=True):
        alone = relevance(lambda x: m.fun(m.params, x), RuleSet(matmul=rules.Gamma(float(gamma))))(
            m.x
        )
        np.testing.assert_allclose(R, alone, rtol=1e-9, atol=1e-12)


def test_a_gamma_is_trained():
    """From the relevances of gamma = 0.7 gradient descent finds gamma = 0.7 again.

    By the generalized rule: it has no poles on inputs of both signs.
    """
    m = models.build("mlp", dtype=jnp.float64)

    def explained(gamma):
        return relevance(
            lambda x: m.fun(m.params, x), RuleSet(matmul=rules.GeneralizedGamma(gamma))
        )(m.x)

    target = explained(jnp.asarray(0.7))
    loss = jax.jit(jax.value_and_grad(lambda gamma: jnp.sum((explained(gamma) - target) ** 2)))
    gamma, h = jnp.asarray(0.2), 1e-6
    slope = (loss(gamma + h)[0] - loss(gamma - h)[0]) / (2 * h)
    np.testing.assert_allclose(loss(gamma)[1], slope, rtol=1e-6)
    rate = 0.2 / abs(loss(gamma)[1])
    for _ in range(200):
        value, direction = loss(gamma)
        trial = gamma - rate * direction
        gamma, rate = (trial, rate * 1.2) if loss(trial)[0] < value else (gamma, rate / 2)
    np.testing.assert_allclose(gamma, 0.7, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "preset"),
    covering(
        ["mlp", "vit", "decoder_scan", "lstm", "control_flow"],
        ["slope", "epsilon_plus_flat", "cp_lrp", "gradient"],
    ),
)
def test_the_books_balance(model, preset):
    m = models.build(model, dtype=jnp.float64)
    fun = lambda x: m.fun(m.params, x)  # noqa: E731
    books = jax.jit(jaxrel.audit(fun, preset))(m.x)
    value, R = jax.jit(jaxrel.value_and_relevance(fun, preset))(m.x)
    total = books.total()
    kept = total.bias + total.stabilizer + total.rule
    assert total.relevance_in == pytest.approx(total.relevance_out + kept, rel=1e-10)
    assert total.relevance_in == pytest.approx(float(value.sum()), rel=1e-10)
    assert total.relevance_out == pytest.approx(float(R.sum()), rel=1e-9)
    assert "total" in str(books)
    assert sum(a.bias for a in books.layers()) == pytest.approx(total.bias, rel=1e-9, abs=1e-12)


def test_books_of_a_scan_have_a_row_for_each_iteration():
    weights = draw((3, 4, 4), 30)

    def fun(x):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)[0]

    books = jaxrel.audit(fun, RuleSet(matmul=rules.Epsilon(0.1)))(draw((4,), 31))
    by_operation = dict(
        zip((label.operation for label in books.labels), books.amounts, strict=True)
    )
    rows = np.asarray(by_operation["dot_general"])
    assert rows.shape == (3, 3)
    arrived, handed_on, _ = rows.T
    np.testing.assert_allclose(arrived[:-1], handed_on[1:], rtol=1e-9)  # from layer to layer
    assert (np.abs(arrived - handed_on) > 0).all()  # and something is lost on the way


def test_preset_of_wrong_arguments():
    with pytest.raises(TypeError, match="'epsilon_gamma_box' has no defaults"):
        relevance(dense, "epsilon_gamma_box")
    with pytest.raises(ValueError, match="both low and high"):
        rulesets.deep_taylor(low=0.0)


def test_batch_norm_is_folded_or_not():
    x = draw((2, 12), 40)
    kinds = [(row.kind, row.rule) for row in jaxrel.summary(normalised_dense)(x)]
    assert kinds == [("matmul:dense", "Gradient()")]
    apart = RuleSet(fold=False) | {Kind("affine"): rules.Pass()}
    kinds = [(row.kind, row.rule) for row in jaxrel.summary(normalised_dense, apart)(x)]
    assert kinds == [("matmul:dense", "Gradient()"), ("linear:affine", "Pass()")]
    W, b = oracle.dense(dense, (12,))
    row = np.asarray(x[0])
    arriving = np.asarray(normalised_dense(x)[0])
    expected = oracle.gradient(row, W, b, arriving).inputs
    np.testing.assert_allclose(relevance(normalised_dense, apart)(x)[0], expected, rtol=1e-9)
