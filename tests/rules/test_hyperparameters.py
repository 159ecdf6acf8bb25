"""Hyper-parameters: what makes no sense is refused, what is traced passes, and pytrees are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import Kind, RuleSet, Stabilizer, rules, rulesets

W = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
X = jnp.asarray(np.random.default_rng(1).normal(size=5))

REFUSED = {
    "do not conserve": (lambda: rules.AlphaBeta(2, 2), r"conserves.*alpha=2, beta=2"),
    "negative alpha": (lambda: rules.AlphaBeta(-1.0, 0.5), "alpha - beta = 1 conserves"),
    "negative beta": (lambda: rules.AlphaBeta(0.5, -0.5), "beta >= 0 is needed, got -0.5"),
    "epsilon": (lambda: rules.Epsilon(-5.0), "Epsilon: eps >= 0 is needed, got -5.0"),
    "not a number": (lambda: rules.ZPlus(float("nan")), "ZPlus: eps >= 0 is needed, got nan"),
    "blip": (lambda: rules.Normalized(-1), "Normalized: blip >= 0 is needed, got -1"),
    "norm": (lambda: rules.Norm(-1e-9), "Norm: eps >= 0 is needed, got -1e-09"),
    "flat": (lambda: rules.Flat(-1), "Flat: eps >= 0"),
    "stabiliser": (lambda: Stabilizer(-1.0, "rms"), "Stabilizer: eps >= 0"),
    "a preset": (lambda: rulesets.epsilon_plus_flat(eps=-0.1), "Epsilon: eps >= 0"),
    "box": (lambda: rules.ZBox(1.0, -1.0), "ZBox: high >= 1 is needed, got -1.0: the box"),
    "points": (lambda: rules.PathIntegral(0), "PathIntegral: order >= 1 is needed"),
    "hardness": (lambda: rules.SoftmaxLimit(-1.0), "SoftmaxLimit: beta >= 0"),
    "temperature": (lambda: rules.Tempered(0.0), "Tempered: temperature >= 1e-06 is needed"),
    "sharpness": (lambda: rules.BetaSmooth(-1.0), "BetaSmooth: beta >= 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_what_conserves_is_taken():
    for alpha, beta in ((1, 0), (2, 1), (1.3, 0.3), (np.float64(3), 2)):
        rules.AlphaBeta(alpha, beta)
    rules.ZBox(0.0, 0.0)
    rules.ZBox(np.zeros(3), np.ones(3))


def test_traced_hyper_parameters_pass():
    """A sweep may leave what conserves; a rule with placeholders for leaves is no rule to check."""
    fun = lambda x: jax.nn.relu(x) @ W  # noqa: E731

    def explain(alpha, beta):
        rule = rules.AlphaBeta(alpha, beta)
        return jaxrel.relevance(fun, rulesets.slope() | {Kind("matmul"): rule})(X).sum()

    swept = jax.vmap(explain)(jnp.array([1.0, 2.0]), jnp.array([0.5, 2.0]))
    assert swept.shape == (2,) and np.isfinite(swept).all()
    axes = jax.tree.map(lambda _: 0, rules.AlphaBeta())
    assert jax.tree.leaves(axes) == [0, 0, 0]
    opposite = jax.tree.map(lambda v: -v, RuleSet(matmul=rules.Epsilon(Stabilizer(0.1, "rms"))))
    assert opposite.matmul == jax.tree.map(lambda v: -v, rules.Epsilon(Stabilizer(0.1, "rms")))


# The rules that are not linear in m, on what is no relu.


def multipliers(fun, rule_set):
    """The multiplier of x, jitted."""
    return jax.jit(jaxrel.relevance(fun, rule_set).multipliers)(X)


RELUS = {
    "relu": jax.nn.relu,
    "relu6": lambda z: jax.nn.relu6(9 * z),
    "by halves": lambda z: (z + jnp.abs(z)) / 2,
    "selected": lambda z: jnp.where(z > 0, z, 0),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "falling": lambda z: 1 / (1 + jax.nn.relu(z)),
    "mirrored": lambda z: -jnp.minimum(-z, 0),
    "mirrored and scaled": lambda z: jnp.minimum(z / -2, 0) * -3 + 1,
    "mirrored about 1": lambda z: 1 - jax.nn.relu(1 - z),
    "mirrored log sigmoid": lambda z: -jax.nn.log_sigmoid(-z),
    "mirrored chain": lambda z: -jnp.tanh(jnp.exp(jnp.minimum(-z, 0))),
    "falling exponential": lambda z: jnp.exp(-jax.nn.relu(z)),
    "Gaussian": lambda z: jnp.exp(-(z**2) / 2),
    "hat": lambda z: jax.nn.relu(1 - jnp.abs(z)),
    "cosine of relu": lambda z: jnp.cos(jax.nn.relu(2 * z)),
    "tanh of a square": lambda z: jnp.tanh(z**2),
    "of another": lambda z: jnp.sin(jax.nn.silu(z) + 0.5),
}


@pytest.mark.parametrize("name", RELUS)
def test_guided_backprop_keeps_what_is_positive_of_the_gradient(name):
    act, head = RELUS[name], jnp.array([1.0, -2.0, 0.5])
    found = multipliers(lambda x: act(x @ W) @ head, "guided_backprop")
    _, pullback = jax.vjp(act, X @ W)
    expected = jnp.maximum(pullback(head)[0], 0) @ W.T
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_guided_backprop_leaves_the_sign_of_a_layer_to_the_layer():
    """A minus before the activation alone, or between layers, is that of the weights."""
    head = jnp.array([1.0, -2.0, 0.5])
    c = jnp.array([0.1, -0.3, 0.2])
    pairs = [
        (lambda x: jax.nn.relu(-(x @ W)) @ head, lambda x: jax.nn.relu(x @ -W) @ head),
        (lambda x: jax.nn.relu(c - x @ W) @ head, lambda x: jax.nn.relu(x @ -W + c) @ head),
        (lambda x: -jax.nn.relu(x @ W) @ head, lambda x: jax.nn.relu(x @ W) @ -head),
        (lambda x: -jax.nn.relu(x @ -W) @ head, lambda x: jax.nn.relu(x @ -W) @ -head),
    ]
    for fun, same in pairs:
        found, expected = multipliers(fun, "guided_backprop"), multipliers(same, "guided_backprop")
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_guided_backprop_rectifies_again_after_a_layer():
    """Also after one that is diagonal."""
    scale, head = jnp.array([1.0, -0.5, 2.0]), jnp.array([1.0, -2.0, 0.5])
    fun = lambda x: jax.nn.relu(jax.nn.relu(x @ W) * scale + 1) @ head  # noqa: E731
    z = X @ W
    second = jnp.maximum(head * (jax.nn.relu(z) * scale + 1 > 0), 0)
    first = jnp.maximum(second * scale * (z > 0), 0)
    np.testing.assert_allclose(multipliers(fun, "guided_backprop"), first @ W.T, rtol=1e-12)


@pytest.mark.parametrize("preset", ["guided_backprop", "deconvnet"])
def test_a_probability_is_explained_as_its_logit(preset):
    """Through the sigmoid of an output comes p (1 - p) times the logit's map, for every p."""
    logit = lambda x: jax.nn.relu(x @ W) @ jnp.array([1.0, -2.0, 0.5])  # noqa: E731
    for shift in (-2.0, 0.0, 2.0):
        p = jax.nn.sigmoid(logit(X) + shift)
        found = multipliers(lambda x, s=shift: jax.nn.sigmoid(logit(x) + s), preset)
        np.testing.assert_allclose(found, p * (1 - p) * multipliers(logit, preset), rtol=1e-12)


def test_deconvnet_repeats_what_is_homogeneous():
    head = jnp.array([1.0, -2.0, 0.5])
    for act in (jax.nn.relu, lambda z: jnp.where(z > 0, z, 0.2 * z), jnp.abs):
        found = multipliers(lambda x, f=act: f(x @ W) @ head, "deconvnet")
        np.testing.assert_allclose(found, act(head) @ W.T, rtol=1e-12)
    for act in (jax.nn.gelu, jnp.tanh, jax.nn.softplus):
        found = multipliers(lambda x, f=act: f(x @ W) @ head, "deconvnet")
        np.testing.assert_allclose(found, jax.grad(lambda x, f=act: f(x @ W) @ head)(X), rtol=1e-12)
    everything = RuleSet(nonlinearity=rules.Repeat())
    found = multipliers(lambda x: jnp.tanh(x @ W) @ head, everything)
    np.testing.assert_allclose(found, jnp.tanh(head) @ W.T, rtol=1e-12)
