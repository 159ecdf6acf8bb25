"""`capture`, `graph`, `linear_map`, and the ledger that closes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import RuleError, rules
from jaxrel.rulesets import presets
from tests import covering
from tests.models import NAMES, build


def _zoo(name, dtype=jnp.float64):
    model = build(name, dtype=dtype)
    return functools.partial(model.fun, model.params), model.x


PRESETS = [n for n in presets._PRESETS if n not in ("epsilon_gamma_box", "deeplift_reveal_cancel")]
SOME = ("cnn", "vit", "decoder_scan", "lstm", "control_flow")


@pytest.mark.parametrize(
    ("name", "rule_set"),
    [
        covering.case(name, rule_set, full=name not in SOME or (k + j) % 6 > 0)
        for k, name in enumerate(NAMES)
        for j, rule_set in enumerate(PRESETS)
    ],
)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(jnp.float64, 1e-12), covering.case(jnp.float32, 1e-5, full=True)]
)
def test_the_ledger_closes(name, rule_set, dtype, bound):
    fun, x = _zoo(name, dtype)
    try:
        value, (found, rest) = jaxrel.value_and_relevance(fun, rule_set, biases="all")(x)
        start = 0.0
    except RuleError:  # only with a baseline
        explain = jaxrel.value_and_relevance(fun, rule_set, biases="all", baseline=0.25)
        value, (found, rest) = explain(x)
        start = fun(jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.25), x))
    parts = [jnp.sum(leaf) for leaf in jax.tree.leaves((found, rest))]
    scale = sum(map(abs, parts)) + jnp.abs(value).sum()
    assert abs(sum(parts) - jnp.sum(value - start)) <= bound * scale


def test_the_ledger_of_the_gradient_is_told_by_layer():
    w, b = jnp.array([[1.0, -2.0]]), jnp.array([3.0, 1.0])

    def fun(x):
        with jax.named_scope("dense"):
            h = x @ w + b
        with jax.named_scope("act"):
            return jnp.square(h)

    x = jnp.array([[2.0]])
    found, ledger = jaxrel.relevance(fun, "gradient", biases="all")(x)
    np.testing.assert_allclose(ledger["implicit"]["act"], -jnp.square(x @ w + b).sum())
    np.testing.assert_allclose(ledger["dense"], 2 * (x @ w + b)[0] * b)
    with pytest.raises(RuleError, match="RevealCancel"):
        jaxrel.relevance(fun, "deeplift_reveal_cancel", biases="all", baseline=0.0)(x)
    with pytest.raises(ValueError, match="biases"):
        jaxrel.relevance(fun, biases="every")


def _nodes(fun, x):
    return list(jaxrel.capture(fun, "**")(x)[1])


@pytest.mark.parametrize("baseline", [None, 0.3])
@pytest.mark.parametrize(
    "name", [covering.case(n, full=n != "mlp") for n in ("vit", "cnn", "mlp", "lstm")]
)
def test_every_node_of_a_graph_adds_up(name, baseline):
    fun, x = _zoo(name)
    nodes = _nodes(fun, x)
    for rule_set in ("slope", "epsilon") if baseline is None else ("compare_to_baseline",):
        found = jax.jit(jaxrel.graph(fun, rule_set, nodes, baseline=baseline))(x)
        arrives = jnp.append(found.relevance, found.value)
        leaves = found.edges.sum(0) + found.biases + found.implicit
        first = len(jax.tree.leaves(x))  # arguments are made of nothing
        assert len(found.names) == len(found.relevance) == first + len(nodes)
        scale = jnp.abs(found.edges).sum(0).max()
        np.testing.assert_allclose(leaves[first:], arrives[first:], atol=1e-12 * scale)
        whole = jaxrel.relevance(fun, rule_set, baseline=baseline)(x)
        total = sum(map(jnp.sum, jax.tree.leaves(whole)))
        np.testing.assert_allclose(found.edges[:first].sum(), total, atol=1e-12 * scale)


def _two_ways(x):
    with jax.named_scope("left"):
        a = jnp.tanh(x @ jnp.array([[1.0, 2.0], [0.5, -1.0]]))
    with jax.named_scope("right"):
        b = jax.nn.relu(a @ jnp.array([[1.0, -1.0], [2.0, 1.0]]))
    return (a + b) @ jnp.array([1.0, 3.0])


def test_a_graph_by_hand():
    x = jnp.array([[1.0, -0.5]])
    found = jaxrel.graph(_two_ways, "slope", {"left": -1, "right": None})(x)
    assert found.names == ("x", "left[0]", "left[1]", "right")
    a = jnp.tanh(x @ jnp.array([[1.0, 2.0], [0.5, -1.0]]))[0]
    np.testing.assert_allclose(found.edges[1:3, 4], a * jnp.array([1.0, 3.0]), rtol=1e-12)
    np.testing.assert_allclose(found.edges[1:3, 3].sum(), found.relevance[3], rtol=1e-12)
    assert not jnp.tril(found.edges[:, :-1]).any()  # what comes later hands to what came before
    influence = found.influence()
    assert influence.shape == (4,) and float(influence[0]) == pytest.approx(1.0)
    assert found.prune(0.0).names == ()
    assert set(found.prune(0.5).names) < set(found.names) and found.prune(1.0).names == found.names
    assert "left[1]" in str(found)
    with pytest.raises(ValueError, match="share"):
        found.prune(2)
    with pytest.raises(ValueError, match="no axis 5"):
        jaxrel.graph(_two_ways, "slope", {"left": 5})(x)
    with pytest.raises(RuleError, match="Flat"):
        flat = jaxrel.rulesets.slope() | {jaxrel.First(): rules.Flat()}
        jaxrel.graph(_two_ways, flat, "right")(x)


def test_captured_values_are_the_functions_own():
    fun, x = _zoo("decoder_scan")
    value, found = jaxrel.capture(fun, "**")(x)
    np.testing.assert_array_equal(value, fun(x))
    looped = [v for v in found.values() if v.ndim > 2]
    assert looped
    value, one = jaxrel.capture(_two_ways, "left")(jnp.ones((1, 2)))
    np.testing.assert_allclose(
        one, jnp.tanh(jnp.ones((1, 2)) @ jnp.array([[1.0, 2.0], [0.5, -1.0]]))
    )

    def branches(x):
        def square(x):
            with jax.named_scope("square"):
                return x * x

        return jax.lax.cond(x[0] > 0, square, lambda x: x, x) * 2

    taken = jaxrel.capture(branches, "square")(jnp.array([2.0, 3.0]))[1]
    np.testing.assert_array_equal(taken, [4.0, 9.0])
    other = jaxrel.capture(branches, "square")(jnp.array([-2.0, 3.0]))[1]
    np.testing.assert_array_equal(other, [0.0, 0.0])
    with pytest.raises(TypeError, match="expected a place"):
        jaxrel.capture(branches, None)


@pytest.mark.parametrize(
    "name",
    [covering.case(n, full=n != "lstm") for n in ("vit", "nnx_transformer", "lstm", "gated")],
)
def test_a_network_is_a_linear_map_at_its_input(name):
    fun, x = _zoo(name)
    weight, constant = jax.jit(jaxrel.linear_map(fun, chunk=3))(x)
    value = fun(x)
    assert weight.shape == (*value.shape, *x.shape) and constant.shape == value.shape
    made = jnp.tensordot(weight, x, x.ndim) + constant
    assert jnp.abs(made - value).max() <= 1e-14 * jnp.abs(value).max()
    row = jaxrel.relevance(lambda x: fun(x).reshape(-1)[1], "cp_lrp").multipliers(x)
    np.testing.assert_allclose(weight.reshape(-1, *x.shape)[1], row, rtol=1e-10, atol=1e-12)


def test_what_is_left_of_a_linear_map_is_the_constants():
    fun, x = _zoo("mlp")
    _, constant = jaxrel.linear_map(fun, "slope")(x)
    _, biases = jaxrel.relevance(fun, "slope", biases="total")(x)
    np.testing.assert_allclose(constant.sum(), biases, rtol=1e-10)
