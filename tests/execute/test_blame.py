"""Blame the bias: sum(R) + sum(biases) = f(x), each constant in its own shape and layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrel import RuleSet, relevance, relevance_vjp, rulesets, value_and_relevance
from jaxrel.rules import Epsilon, Gamma, GeneralizedGamma
from tests import covering, models

CONSERVING = [name for name in models.NAMES if name in models.BIAS_FREE]


def totals(explained, biases):
    """Sums of relevances over all but the batch, and of those of the constants."""
    return sum(jnp.sum(r) for r in jax.tree.leaves(explained)), sum(map(jnp.sum, biases.values()))


@pytest.mark.parametrize(
    "name", [covering.case(name, full=k % 2 > 0, id=name) for k, name in enumerate(models.NAMES)]
)
def test_relevances_and_biases_add_up_to_the_value(name):
    """With cp_lrp, which conserves on every model, attention included."""
    model = models.build(name, dtype=jnp.float64)

    def fun(x):
        return model.fun(model.params, x)

    run = jax.jit(value_and_relevance(fun, "cp_lrp", biases=True))
    value, (explained, biases) = run(model.x)
    given, blamed = totals(explained, biases)
    assert abs(given + blamed - value.sum()) <= 1e-10 * jnp.abs(value).sum()
    assert abs(blamed) > 1e-6  # there are biases in each of them


@pytest.mark.parametrize(
    "rule", [Epsilon(0.0), Gamma(0.3, 0.0), GeneralizedGamma(0.3, 0.0)], ids=str
)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet_basic", "control_flow"])
def test_every_rule_that_conserves_tells_its_biases(name, rule):
    """Eps = 0: what the stabiliser takes is nobody's."""
    model = models.build(name, dtype=jnp.float64)

    def fun(x):
        return model.fun(model.params, x)

    run = jax.jit(value_and_relevance(fun, RuleSet(matmul=rule), biases="total"))
    value, (explained, total) = run(model.x)
    given = sum(jnp.sum(r) for r in jax.tree.leaves(explained))
    assert total.shape == ()
    np.testing.assert_allclose(given + total, value.sum(), rtol=1e-10)


def test_the_linear_layer_by_hand():
    """B m z / S(z) with Epsilon, b itself with the gradient; per example under vmap."""
    w, b = jnp.array([[1.0, -2.0], [0.5, 3.0]]), jnp.array([0.25, -1.0])
    x, eps = jnp.array([[1.0, 2.0], [-1.0, 0.5]]), 0.1

    def fun(x):
        return x @ w + b

    z = np.asarray(fun(x))
    share = z / (z + eps * np.where(z < 0, -1, 1))
    rules = rulesets.epsilon(eps)
    _, biases = relevance(fun, rules, biases=True)(x)
    (found,) = biases.values()
    np.testing.assert_allclose(found, (np.asarray(b) * share).sum(0), rtol=1e-12)
    _, biases = jax.vmap(relevance(fun, rules, biases=True))(x)
    (found,) = biases.values()
    np.testing.assert_allclose(found, np.asarray(b) * share, rtol=1e-12)
    _, biases = relevance(fun, "gradient", biases=True)(x)
    np.testing.assert_allclose(*biases.values(), 2 * b)


class Net(nn.Module):
    """A convolution with a bias, a BatchNorm, a sigmoid, a head."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(3, (2, 2))(x))
        return nn.Dense(2, name="head")(nn.sigmoid(x).mean((1, 2)))


def test_constants_come_by_layer_in_their_own_shape():
    """A folded BatchNorm has a line of its own; f(0) of a nonlinearity is one number."""
    net, x = Net(), jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    variables = net.init(jax.random.key(1), x)
    keys = iter(jax.random.split(jax.random.key(2), 20))
    variables = jax.tree.map(lambda v: jax.random.uniform(next(keys), v.shape) + 0.5, variables)

    def fun(x):
        return net.apply(variables, x)

    value, (explained, biases) = value_and_relevance(fun, "slope", biases=True)(x)
    shapes = {name: r.shape for name, r in biases.items()}
    assert shapes == {"Conv_0": (3,), "BatchNorm_0": (3,), "logistic": (), "head": (2,)}
    np.testing.assert_allclose(sum(totals(explained, biases)), value.sum(), rtol=1e-10)
    # each constant's part: what the value loses linearly, c times its gradient with slopes fixed
    np.testing.assert_allclose(biases["head"], 2 * variables["params"]["head"]["bias"])


def test_all_ways_a_constant_can_enter():
    """Pads, tokens, fills, positions, carries, branches, results: x times gradient on the rest."""
    token, start = jnp.array([[3.0, -1.0]]), jnp.array([0.5, 2.0])

    def concatenated(x):
        return jnp.concatenate([token, x])

    def padded(x):
        return lax.pad(x, jnp.asarray(7.0, x.dtype), [(1, 0, 0), (0, 0, 0)])

    def filled(x):
        return jnp.where(np.arange(2) > 0, x, 4.0)

    def updated(x):
        return x.at[0].set(start)

    def added(x):
        return x.at[0].add(start)

    def carried(x):
        return lax.scan(lambda c, x: (c * x.sum() + 1.0, c), start, x)[1]

    def branched(x):
        return lax.cond(x.sum() > 0, lambda x: 2 * x, lambda x: jnp.ones_like(x) * 5, -jnp.abs(x))

    def shifted(x):
        return 3 - x / 2

    def result(x):
        return jnp.full((2,), 3.0, x.dtype)

    x = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    for fun in (
        concatenated, padded, filled, updated, added, carried, branched, shifted, result,
    ):  # fmt: skip
        value, (explained, biases) = value_and_relevance(fun, "slope", biases=True)(x)
        np.testing.assert_allclose(
            sum(totals(explained, biases)), value.sum(), rtol=1e-12, err_msg=fun.__name__
        )
        assert biases, fun.__name__


@pytest.mark.parametrize(
    "fun",
    [
        lambda x, w, c: (x @ w - c) * c + 0.5,
        lambda x, w, c: (x @ w - c) / jnp.sqrt(c**2 + 1) * c,
        lambda x, w, c: x * c + c,
        lambda x, w, c: (x + c) * c - c,
        lambda x, w, c: x @ w + c + c,
        lambda x, w, c: jnp.where(x > 0, x * c, c),
        lambda x, w, c: jnp.concatenate([x * c, jnp.broadcast_to(c, x.shape)]) + c,
    ],
)
def test_a_constant_is_blamed_for_what_it_adds_and_not_for_what_it_scales(fun, rng):
    x, w, c = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 4), (4, 4), (4,)))
    value, (found, biases) = value_and_relevance(lambda x: fun(x, w, c), RuleSet(), biases=True)(x)
    leaves = [found, *jax.tree.leaves(biases)]
    np.testing.assert_allclose(sum(leaf.sum() for leaf in leaves), value.sum(), rtol=1e-12)


def test_a_mask_of_minus_infinity_is_worth_nothing():
    """0 times infinity would be NaN."""

    def fun(x):
        scores = jnp.where(np.tri(3, dtype=bool), x @ x.T, -jnp.inf)
        return jax.nn.softmax(scores) @ x

    x = jax.random.normal(jax.random.key(0), (3, 4))
    value, (explained, biases) = value_and_relevance(fun, "cp_lrp", biases=True)(x)
    np.testing.assert_allclose(sum(totals(explained, biases)), value.sum(), rtol=1e-12)


def test_biases_are_stacked_per_iteration_of_a_scan():
    """And equal to those of the same layers written out."""
    keys = jax.random.split(jax.random.key(0), 2)
    w, b = jax.random.normal(keys[0], (4, 3, 3)), jax.random.normal(keys[1], (4, 3))
    x = jax.random.normal(jax.random.key(1), (2, 3))

    def layer(x, params):
        return jnp.tanh(x @ params[0] + params[1]), None

    def scanned(x):
        return lax.scan(layer, x, (w, b))[0]

    def written_out(x):
        for k in range(4):
            with jax.named_scope(f"layer{k}"):
                x = jnp.tanh(x @ w[k] + b[k])
        return x

    _, stacked = relevance(scanned, "epsilon", biases=True)(x)
    _, single = relevance(written_out, "epsilon", biases=True)(x)
    (stacked,) = stacked.values()
    assert stacked.shape == (4, 3)
    single = [r for _, r in sorted(single.items())]
    np.testing.assert_allclose(stacked, np.stack(single), rtol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [covering.case("resnet_basic", full=True), "vit", covering.case("decoder_scan", full=True)],
)
def test_transformations_change_nothing(name):
    """jit, vmap over examples, remat, sharding over eight devices."""
    model = models.build(name, dtype=jnp.float64)

    def fun(params, x):
        return model.fun(params, x)

    explain = relevance(fun, "cp_lrp", argnums=1, biases=True)
    _, biases = jax.jit(explain)(model.params, model.x)
    each = jax.jit(jax.vmap(lambda x: explain(model.params, x[None])[1]))(model.x)
    for key, found in biases.items():
        np.testing.assert_allclose(each[key].sum(0), found, rtol=1e-9, atol=1e-12)
    remat = relevance(jax.checkpoint(fun), "cp_lrp", argnums=1, biases=True)
    _, again = jax.jit(remat)(model.params, model.x)
    np.testing.assert_allclose(
        sum(map(jnp.sum, again.values())), sum(map(jnp.sum, biases.values())), rtol=1e-10
    )
    x = jnp.tile(model.x, (8,) + (1,) * (model.x.ndim - 1))
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data"))
    _, spread = jax.jit(explain)(model.params, jax.device_put(x, sharding))
    for key, found in biases.items():
        np.testing.assert_allclose(spread[key], 8 * found, rtol=1e-9, atol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize(
    "rules", ["slope", "epsilon", RuleSet(matmul=Gamma(0.2, 0.1))], ids=["slope", "eps", "g"]
)
def test_a_loss_on_biases_can_be_differentiated(rules):
    """Against central differences, in x and in the parameters, the constants among them."""
    model = models.build("cnn", dtype=jnp.float64)

    def loss(params, x):
        _, biases = relevance(model.fun, rules, argnums=1, biases=True)(params, x)
        return sum(jnp.sum(jnp.sin(3 * r)) for r in biases.values())

    at = model.params, model.x
    keys = iter(jax.random.split(jax.random.key(0), 100))
    way = jax.tree.map(lambda v: jax.random.normal(next(keys), v.shape, v.dtype), at)
    _, slope = jax.jit(lambda *at: jax.jvp(loss, at, way))(*at)
    gradients = jax.jit(jax.grad(loss, (0, 1)))(*at)
    compiled = jax.jit(loss)
    back = sum(jnp.vdot(g, w) for g, w in zip(*map(jax.tree.leaves, (gradients, way)), strict=True))

    def moved(step):
        return compiled(*jax.tree.map(lambda v, w: v + step * w, at, way))

    step = 1e-6
    steps = (8 * (moved(step) - moved(-step)) - moved(2 * step) + moved(-2 * step)) / (12 * step)
    np.testing.assert_allclose(slope, steps, rtol=1e-6)
    np.testing.assert_allclose(back, steps, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_low_precision_is_finite(dtype):
    """Zeros included."""
    model = models.build("resnet_basic", dtype=dtype)
    explain = jax.jit(relevance(model.fun, "epsilon", argnums=1, biases=True))
    for x in (model.x, jnp.zeros_like(model.x)):
        _, biases = explain(model.params, x)
        for found in biases.values():
            assert found.dtype == dtype
            assert jnp.isfinite(found).all()


def test_relevance_vjp_and_aux():
    """Biases come beside the relevance wherever that is returned."""

    def fun(x):
        return jnp.tanh(x) + 1, {"note": x.sum()}

    x = jnp.array([0.5, -1.0])
    (explained, biases), aux = relevance(fun, biases=True, has_aux=True)(x)
    np.testing.assert_allclose(explained + 1, fun(x)[0])
    np.testing.assert_allclose(*biases.values(), 2.0)
    assert set(aux) == {"note"}
    _, pullback = relevance_vjp(lambda x: fun(x)[0], x, biases="total")
    (explained,), total = pullback(jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(explained, [jnp.tanh(0.5), 0])
    assert total == 1


def test_wrong_arguments_are_named():
    """A baseline cancels constants; there are four choices."""
    with pytest.raises(ValueError, match="against a baseline constants cancel"):
        relevance(jnp.tanh, baseline=0.0, biases=True)(jnp.ones(2))
    with pytest.raises(ValueError, match="expected True, False, .total. or .all."):
        relevance(jnp.tanh, biases="every")(jnp.ones(2))


def test_no_constants_no_entries():
    """A bias-free network has nobody to blame; zero fills and carries are nothing."""

    def fun(x):
        x = lax.pad(jax.nn.relu(x), jnp.zeros((), x.dtype), [(1, 1, 0)])
        return lax.scan(lambda c, x: (c + x, None), jnp.zeros((), x.dtype), x)[0]

    assert relevance(fun, biases=True)(jnp.ones(3))[1] == {}
    assert relevance(fun, biases="total")(jnp.ones(3))[1] == 0
