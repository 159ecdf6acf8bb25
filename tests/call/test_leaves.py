"""`leaves`: what of the value passes each parameter, R = w a m, against the layers by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import RuleSet, relevance, rules, value_and_relevance

RNG = np.random.default_rng(0)
PARAMS = {
    "v": jnp.asarray(RNG.normal(size=(4, 6))),
    "w": jnp.asarray(RNG.normal(size=(6, 3))),
    "b": jnp.asarray(RNG.normal(size=3)),
}
X = jnp.asarray(RNG.normal(size=(5, 4)))


def network(params, x):
    h = jnp.tanh(x @ params["v"])
    return (h @ params["w"] + params["b"])[:, 1]


def by_hand(params, x):
    """Epsilon with eps = 0.1 on both layers, tanh by its slope through 0."""
    z = x @ params["v"]
    h = jnp.tanh(z)
    y = h @ params["w"] + params["b"]

    def stable(z):
        return z + 0.1 * jnp.where(z < 0, -1, 1)

    m_y = jnp.zeros_like(y).at[:, 1].set(1)
    m_h = (m_y * y / stable(y)) @ params["w"].T
    m_z = m_h * h / z
    m_x = (m_z * z / stable(z)) @ params["v"].T
    of_params = {"v": x.T @ m_z, "w": h.T @ m_y, "b": m_y.sum(0)}
    return jax.tree.map(jnp.multiply, params, of_params), x * m_x


RULES = RuleSet(matmul=rules.Epsilon(0.1), nonlinearity=rules.Slope())


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_parameters_beside_the_input(wrap):
    found = wrap(relevance(network, RULES, (0, 1), leaves=0))(PARAMS, X)
    for a, b in zip(*map(jax.tree.leaves, (found, by_hand(PARAMS, X))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_parameters_alone_and_with_the_value():
    value, found = value_and_relevance(network, RULES, 0, leaves=[0])(PARAMS, X)
    want, _ = by_hand(PARAMS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, want)
    np.testing.assert_array_equal(value, network(PARAMS, X))
    aux = relevance(lambda p, x: (network(p, x), "more"), RULES, 0, has_aux=True, leaves=0)
    assert aux(PARAMS, X)[1] == "more"


def test_all_of_a_layer_is_what_passes_it():
    """Weights of a layer get what it gets; nothing is halved between a factor and a weight."""
    model = nn.Sequential([nn.Conv(3, (2, 2)), nn.relu, jnp.ravel, nn.Dense(2)])
    x = jnp.asarray(RNG.normal(size=(4, 4, 1)))
    variables = jax.tree.map(jnp.asarray, model.init(jax.random.key(0), x))

    def fun(variables, x):
        return model.apply(variables, x)[0]

    (found, of_input), biases = relevance(fun, "slope", (0, 1), leaves=0, biases=True)(variables, x)
    sums = jax.tree.map(jnp.sum, found["params"])
    np.testing.assert_allclose(sums["layers_0"]["kernel"], of_input.sum(), atol=1e-6)
    np.testing.assert_allclose(sums["layers_3"]["kernel"], fun(variables, x), atol=1e-6)
    np.testing.assert_allclose(sums["layers_0"]["bias"], biases["layers_0"].sum(), atol=1e-7)
    halved, _ = relevance(fun, "slope", (0, 1))(variables, x)
    assert abs(halved["params"]["layers_3"]["kernel"].sum() - fun(variables, x)) > 0.01


def test_multipliers_derivatives_and_places():
    explain = relevance(network, RULES, (0, 1), leaves=0)
    multipliers = explain.multipliers(PARAMS, X)
    found = jax.tree.map(jnp.multiply, (PARAMS, X), multipliers)
    for a, b in zip(*map(jax.tree.leaves, (found, by_hand(PARAMS, X))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)

    def loss(explain, params):
        return sum(map(jnp.sum, jax.tree.leaves(explain(params, X)[0]))) ** 2

    by_rules = jax.grad(lambda params: loss(explain, params))(PARAMS)
    wanted = jax.grad(lambda params: loss(by_hand, params))(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), by_rules, wanted)

    def named(params, x):
        with jax.named_scope("hidden"):
            h = jnp.tanh(x @ params["v"])
        return (h @ params["w"])[:, 0]

    (_, of_x), place = relevance(named, "slope", (0, 1), leaves=0, at="hidden")(PARAMS, X)
    assert of_x.shape == X.shape and place.shape == (5, 6)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"leaves": 1}, ValueError, r"leaves: 1 are not all among argnums=0"),
        ({"leaves": 0, "baseline": 0.0}, ValueError, r"there is no baseline of parameters"),
        ({"leaves": 2}, ValueError, r"argnums: 2 is out of range"),
        ({"leaves": "w"}, TypeError, r"expected an int or a sequence"),
    ],
)
@pytest.mark.every_case
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        relevance(network, **options)(PARAMS, X)


def test_integers_cannot_be_explained_by():
    def look_up(table, tokens):
        return jnp.tanh(table[tokens]).sum()

    with pytest.raises(TypeError, match=r"no argument of floats .* Give it what is looked up"):
        jaxrel.relevance(look_up, "slope", 0, leaves=0)(PARAMS["v"], jnp.array([1, 2]))
