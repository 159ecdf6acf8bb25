"""The public transformations behave as ``jax.grad``, ``jax.value_and_grad`` and ``jax.vjp`` do.

What the rules compute is the business of other files; here are arguments, outputs, transformations
of the transformations, and rule sets as values. A network without biases under ``"gradient"`` has
relevance x * grad, which is all the mathematics needed.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxrel
from jaxrel import (
    Kind,
    RuleError,
    RuleSet,
    relevance,
    relevance_vjp,
    rewrite,
    rulesets,
    value_and_relevance,
)
from jaxrel import rules as r

W1 = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))
W2 = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)))
X = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4)))
GRADIENT = rulesets.gradient()


def network(x, w1=W1, w2=W2):
    """Two layers, (batch, 4) -> (batch, 3)."""
    return jnp.tanh(x @ w1) @ w2


def close(got, expected, tolerance=1e-12):
    """Two trees of one structure, equal to rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        got,
        expected,
    )


def times_gradient(fun, *args, argnums=0, **kwargs):
    """X * jax.grad of the sum of ``fun``."""
    gradient = jax.grad(lambda *a: fun(*a, **kwargs).sum(), argnums)(*args)
    explained = args[argnums] if isinstance(argnums, int) else tuple(args[k] for k in argnums)
    return jax.tree.map(lambda x, g: x * g, explained, gradient)


# ------------------------------------------------------------------------------------- arguments


def three(a, b, c):
    return jnp.sin(a) * b + c


@pytest.mark.parametrize("argnums", [0, 2, -1, -3, (0,), (1, 0), (-1, 0), (0, 1, 2), [2, 1]])
def test_argnums_are_those_of_grad(argnums):
    args = (jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.array([0.5, 0.0]))
    expected = times_gradient(three, *args, argnums=argnums)
    close(relevance(three, "gradient", argnums)(*args), expected)
    value, got = value_and_relevance(three, "gradient", argnums)(*args)
    close(got, expected)
    np.testing.assert_array_equal(value, three(*args))


@pytest.mark.parametrize(
    ("argnums", "error", "words"),
    [
        (3, ValueError, "argnums: 3 is out of range; three was called with 3 positional"),
        (-4, ValueError, "argnums: -4 is out of range"),
        ((0, 5), ValueError, "argnums: 5 is out of range"),
        ((0, -3), ValueError, "names an argument twice"),
        ("a", TypeError, "expected an int or a sequence of ints, got 'a'"),
        (1.0, TypeError, "expected an int or a sequence of ints, got 1.0"),
        ((0, "b"), TypeError, "expected an int or a sequence of ints"),
    ],
)
def test_wrong_argnums(argnums, error, words):
    args = (jnp.ones(2), jnp.ones(2), jnp.ones(2))
    with pytest.raises(error, match=words):
        relevance(three, "gradient", argnums)(*args)


def test_argnums_may_be_a_numpy_integer():
    args = (jnp.ones(2), jnp.ones(2), jnp.ones(2))
    close(relevance(three, "gradient", np.int64(2))(*args), jnp.ones(2))


def test_keyword_arguments_cannot_be_explained_and_that_is_said():
    with pytest.raises(ValueError, match="called with 0 positional arguments"):
        relevance(network)(x=X)


def test_pytrees():
    tree = {"a": X, "b": [X[0], (X[1], None)]}

    def fun(tree, scale):
        first, (second, _) = tree["b"]
        return jnp.sin(tree["a"]).sum(0) * first * scale["s"] + second

    args = (tree, {"s": jnp.asarray(2.0)})
    close(relevance(fun, "gradient", (0, 1))(*args), times_gradient(fun, *args, argnums=(0, 1)))


def test_keyword_and_non_array_arguments():
    def fun(x, mode, *, model, scale=1.0):
        x = model(x)
        return scale * (jnp.sin(x) if mode == "sin" else x)

    got = relevance(fun, "gradient")(X, "sin", model=jnp.square, scale=3.0)
    close(got, times_gradient(lambda x: fun(x, "sin", model=jnp.square, scale=3.0), X))


def test_modules_as_arguments(rng):
    linen = nn.Dense(3)
    variables = linen.init(jax.random.key(0), X)
    got = relevance(lambda model, v, x: model.apply(v, x), "gradient", 2)(linen, variables, X)
    close(got, times_gradient(lambda x: linen.apply(variables, x), X))

    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    got = relevance(lambda model, x: model(x), "gradient", 1)(model, X)
    close(got, times_gradient(model, X))


def test_explaining_parameters():
    params = {"w1": W1, "w2": W2}

    def fun(params, x):
        return network(x, **params)

    close(relevance(fun, "gradient")(params, X), times_gradient(fun, params, X))


class Callables:
    """Methods and instances as functions."""

    def method(self, x):
        """A network."""
        return network(x)

    def __call__(self, x):
        """The same."""
        return network(x)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: network(x),
        functools.partial(network, w2=W2),
        Callables().method,
        Callables(),
        jax.jit(network),
        jax.vmap(network),
        jax.checkpoint(network),
        functools.partial(jax.jit(network), w1=jnp.asarray(W1)),
    ],
    ids=["lambda", "partial", "method", "callable", "jit", "vmap", "checkpoint", "partial-jit"],
)
@pytest.mark.parametrize("transform", [relevance, value_and_relevance, rewrite, jaxrel.summary])
def test_any_callable(fun, transform):
    got = transform(fun, "gradient")(X)
    if transform is relevance:
        close(got, times_gradient(network, X))


@pytest.mark.parametrize("x", [0.5, np.float64(0.5), np.array(0.5), jnp.array(0.5)])
@pytest.mark.parametrize("rules", ["gradient", "slope", "lrp"])
def test_scalars(x, rules):
    for fun in (jnp.tanh, jax.nn.relu, lambda x: 2 * jnp.tanh(3 * x)):
        got = relevance(fun, rules)(x)
        assert isinstance(got, jax.Array)
        assert got.shape == ()
        close(got, jnp.asarray(0.5 * jax.grad(fun)(0.5) if rules == "gradient" else fun(0.5)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("rules", ["gradient", "slope", "lrp"])
def test_shapes_and_dtypes_are_the_arguments(dtype, rules):
    x = jnp.asarray(X, dtype)
    w1, w2 = jnp.asarray(W1, dtype), jnp.asarray(W2, dtype)
    value, got = value_and_relevance(network, rules)(x, w1, w2)
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    assert value.dtype == dtype


def test_numpy_arguments_give_jax_arrays():
    assert isinstance(relevance(network)(X), jax.Array)


@pytest.mark.parametrize("rules", ["gradient", "slope", "lrp", "guided_backprop"])
def test_empty_batches(rules):
    value, got = value_and_relevance(network, rules)(np.zeros((0, 4)))
    assert got.shape == (0, 4)
    assert value.shape == (0, 3)


def test_no_dependence_gives_zeros():
    close(relevance(lambda x: jnp.ones(3))(X), jnp.zeros_like(X))
    close(relevance(lambda x: 1.0)(X), jnp.zeros_like(X))
    close(relevance(lambda x: lax.stop_gradient(x))(X), jnp.zeros_like(X))
    close(relevance(lambda x: (x > 0) * 1.0)(X), jnp.zeros_like(X))
    close(relevance(lambda x, y: y, argnums=(0, 1))(X, X), (jnp.zeros_like(X), jnp.asarray(X)))


def test_identity():
    value, got = value_and_relevance(lambda x: x)(X)
    close((value, got), (jnp.asarray(X), jnp.asarray(X)))


# --------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 1, 3)])
@pytest.mark.parametrize("jit", [False, True])
def test_outputs_of_any_shape(shape, jit):
    def fun(x):
        y = network(x)
        return y.sum() if shape == () else (y[0] if shape == (3,) else y.reshape(shape))

    transform = jax.jit if jit else (lambda f: f)
    value, got = transform(value_and_relevance(fun, "slope"))(X)
    np.testing.assert_array_equal(value, transform(fun)(X))
    assert got.shape == X.shape
    np.testing.assert_allclose(got.sum(), value.sum(), rtol=1e-12)


def test_examples_of_a_batch_are_explained_independently():
    batch = relevance(network, "lrp")(X)
    one_by_one = jnp.stack([relevance(network, "lrp")(x) for x in X])
    close(batch, one_by_one)


class Opaque:
    """Something JAX knows nothing of."""


def test_auxiliary_data():
    marker = Opaque()

    def fun(x):
        h = jnp.tanh(x)
        aux = {"hidden": h, "name": "tanh", "n": 3, "half": 0.5, "yes": True, "none": None}
        return h.sum(), {**aux, "ints": jnp.arange(2), "marker": marker}

    (_, aux), got = value_and_relevance(fun, "gradient", has_aux=True)(X)
    expected, plain = jax.grad(fun, has_aux=True)(X)
    close(got, X * expected)
    assert aux["name"] == "tanh"
    assert aux["marker"] is marker
    assert {k: type(v) for k, v in aux.items()} == {k: type(v) for k, v in plain.items()}
    close(aux["hidden"], jnp.tanh(X))
    same, aux = relevance(fun, "gradient", has_aux=True)(X)
    close(same, got)
    assert aux["name"] == "tanh"


def test_auxiliary_data_of_vjp():
    def fun(x):
        return jnp.tanh(x), ("aux", x + 1)

    value, pullback, aux = relevance_vjp(fun, X, rules="slope", has_aux=True)
    close(value, jnp.tanh(X))
    assert aux[0] == "aux"
    close(aux[1], jnp.asarray(X + 1))
    close(pullback(jnp.ones_like(value)), (jnp.tanh(X),), 1e-9)


def test_auxiliary_data_may_depend_on_what_has_no_rule():
    def fun(x):
        return jnp.sin(x).sum(), lax.while_loop(lambda c: c < 3, lambda c: c + 1, x.sum())

    got, aux = relevance(fun, "gradient", has_aux=True)(X)
    close(got, X * jnp.cos(X))
    assert aux >= 3


# ------------------------------------------------------------------------------------------- vjp


@pytest.mark.parametrize("rules", ["slope", "lrp", "gradient"])
def test_pullback_of_one_hot_multipliers_explains_classes(rules):
    x = X[0]
    value, pullback = relevance_vjp(network, x, rules=rules)
    np.testing.assert_array_equal(value, network(x))
    (classes,) = jax.vmap(pullback)(jnp.eye(3))
    for k in range(3):
        close(classes[k], relevance(lambda x, k=k: network(x)[k], rules)(x))


def test_pullback_of_several_arguments():
    value, pullback = relevance_vjp(network, X, W1, W2, rules="gradient")
    m = jnp.arange(6.0).reshape(2, 3)
    _, plain = jax.vjp(network, X, W1, W2)
    close(pullback(m), tuple(x * g for x, g in zip((X, W1, W2), plain(m), strict=True)))
    assert value.shape == (2, 3)


def test_pullback_is_linear_for_linear_rules():
    _, pullback = relevance_vjp(network, X, rules="lrp")
    a, b = jnp.ones((2, 3)), jnp.arange(6.0).reshape(2, 3)
    close(pullback(2 * a - b)[0], 2 * pullback(a)[0] - pullback(b)[0])


# --------------------------------------------------------------------------------------- rewrite


def test_rewrite_has_the_values_and_the_multipliers():
    new = rewrite(network, "slope")
    np.testing.assert_array_equal(new(X), network(X))
    m = jax.grad(lambda x: new(x).sum())(X)
    close(X * m, relevance(network, "slope")(X))


@pytest.mark.parametrize("rules", ["slope", "lrp", "guided_backprop", "deconvnet"])
def test_rewrite_differentiated_by_parameters_is_the_plain_vjp(rules):
    def loss(fun):
        return lambda w1, w2: (fun(X, w1, w2) ** 2).sum()

    got = jax.grad(loss(rewrite(network, rules)), (0, 1))(W1, W2)
    # an upper layer's weights are reached by the plain gradient; what goes through a nonlinearity
    # to a lower one meets its rule
    close(got[1], jax.grad(loss(network), (0, 1))(W1, W2)[1])
    plain = jax.grad(loss(rewrite(network, "gradient")), (0, 1))(W1, W2)
    close(plain, jax.grad(loss(network), (0, 1))(W1, W2))


def test_rewrite_returns_any_pytree():
    def fun(x):
        return {"y": jnp.tanh(x), "label": "a", "ints": jnp.arange(2), "nothing": None}

    out = rewrite(fun, "slope")(X)
    np.testing.assert_array_equal(out["y"], jnp.tanh(X))
    assert out["label"] == "a"
    assert out["nothing"] is None
    jacobian = jax.jacrev(lambda x: rewrite(fun, "slope")(x)["y"])(jnp.array([0.5]))
    close(jacobian, jnp.array([[np.tanh(0.5) / 0.5]]))


# ------------------------------------------------------------------------------- transformations


@pytest.mark.parametrize("rules", ["slope", "lrp"])
def test_jit_vmap_scan(rules):
    explain = relevance(network, rules)
    expected = explain(X)
    close(jax.jit(explain)(X), expected)
    close(jax.vmap(explain)(X), expected)
    close(jax.jit(jax.vmap(explain))(X), expected)
    close(lax.map(explain, X), expected)
    close(lax.scan(lambda c, x: (c + 1, explain(x)), 0, X)[1], expected)
    close(jax.checkpoint(explain)(X), expected)
    close(lax.cond(X.sum() > -1e9, explain, jnp.asarray, X), expected)


@pytest.mark.parametrize("rules", ["slope", "lrp", "gradient"])
def test_gradient_of_relevance_by_parameters_and_input(rules):
    direction = np.random.default_rng(5).normal(size=X.shape)

    def loss(w1, x):
        return (direction * relevance(network, rules)(x, w1)).sum()

    for argnum in (0, 1):
        got = jax.jit(jax.grad(loss, argnum))(W1, X)
        args = [W1, X]
        step = np.random.default_rng(6).normal(size=args[argnum].shape)

        def along(t, argnum=argnum, step=step):
            moved = [W1, X]
            moved[argnum] = moved[argnum] + t * step
            return jax.jit(loss)(*moved)

        h = 1e-5
        difference = (along(h) - along(-h)) / (2 * h)
        np.testing.assert_allclose((got * step).sum(), difference, rtol=1e-6)
        tangents = [np.zeros_like(W1), np.zeros_like(X)]
        tangents[argnum] = step
        _, forward = jax.jvp(loss, (W1, X), tuple(tangents))
        np.testing.assert_allclose(forward, (got * step).sum(), rtol=1e-10)


def test_relevance_of_relevance():
    inner = relevance(network, "slope")
    got = relevance(inner, "gradient")(X)
    close(got, X * jax.grad(lambda x: inner(x).sum())(X))
    value, slopes = jax.jit(value_and_relevance(inner, RuleSet(other=r.Gradient())))(X)
    np.testing.assert_allclose(value, jax.jit(inner)(X), rtol=1e-14)  # what is shared is inlined
    assert np.isfinite(slopes).all()


def test_a_rewritten_function_can_be_explained_again():
    def inner(x):
        return rewrite(jnp.tanh, RuleSet(nonlinearity=r.Ignore()))(x) * 3

    close(relevance(inner, "gradient")(X), 3 * jnp.asarray(X))


def test_per_example_relevance_under_vmap_of_parameters():
    stacked = np.stack([W1, 2 * W1])
    got = jax.vmap(lambda w: relevance(network, "lrp")(X, w))(stacked)
    close(got, jnp.stack([relevance(network, "lrp")(X, w) for w in stacked]))


def test_closed_over_tracers():
    def loss(w1):
        return relevance(lambda x: network(x, w1), "lrp")(X)[0, 0]

    expected = jax.grad(lambda w1: relevance(network, "lrp")(X, w1)[0, 0])(W1)
    close(jax.jit(jax.grad(loss))(W1), expected)


def test_sharing_one_transformed_function_between_shapes():
    explain = jax.jit(relevance(network))
    close(explain(X)[0], explain(X[0]))


# --------------------------------------------------------------------------------- rules as values


def test_a_rule_set_is_a_pytree_of_its_hyperparameters():
    rules = rulesets.epsilon(0.5) | {Kind("conv"): r.Epsilon(0.25), "tanh": doubled}
    assert jax.tree.leaves(rules) == [0.5, 0.25]
    twice = jax.tree.map(lambda leaf: 2 * leaf, rules)
    assert twice.matmul == r.Epsilon(1.0)
    assert twice.overrides[0] == (Kind("conv"), r.Epsilon(0.5))
    assert twice.overrides[1] == ("tanh", doubled)
    assert rulesets.epsilon(0.5) == rulesets.epsilon(0.5) != rulesets.epsilon(0.25)
    assert hash(rulesets.epsilon(0.5)) == hash(rulesets.epsilon(0.5))


def test_a_rule_set_prints_as_a_table():
    text = str(RuleSet(matmul=r.Epsilon(0.5)) | {"*/head": r.Gradient(), Kind("conv"): doubled})
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["matmul", "Epsilon(eps=0.5)"] in lines
    assert ["other", "PathIntegral(order=16)"] in lines
    assert ["*/head", "Gradient()"] in lines
    assert ['Kind("conv")', "doubled"] in lines


def test_sweep_over_eps_in_one_compilation():
    traced = []

    @jax.jit
    def sweep(eps):
        traced.append(eps)
        return jax.vmap(lambda e: relevance(network, rulesets.epsilon(e))(X))(eps)

    eps = np.array([1e-6, 0.1, 1.0])
    close(sweep(eps), jnp.stack([relevance(network, rulesets.epsilon(float(e)))(X) for e in eps]))
    sweep(2 * eps)
    assert len(traced) == 1


def test_rules_as_an_argument_of_jit():
    explain = jax.jit(lambda rules, x: relevance(network, rules)(x))
    for eps in (0.1, 0.0):
        rules = RuleSet(matmul=r.Epsilon(eps))
        close(explain(rules, X), relevance(network, rules)(X))
    batch = RuleSet(matmul=r.Epsilon(jnp.array([0.1, 1.0])))
    axes = jax.tree.map(lambda _: 0, batch)
    got = jax.vmap(lambda rules: relevance(network, rules)(X), (axes,))(batch)
    close(got[1], relevance(network, rulesets.epsilon(1.0))(X))


def test_gradient_by_eps():
    def total(eps):
        return (relevance(network, rulesets.epsilon(eps))(X) ** 2).sum()

    h = 1e-6
    expected = (total(0.3 + h) - total(0.3 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(total)(0.3), expected, rtol=1e-7)
    by_rules = jax.grad(lambda rules: (relevance(network, rules)(X) ** 2).sum())
    np.testing.assert_allclose(by_rules(rulesets.epsilon(0.3)).matmul.eps, expected, rtol=1e-7)


def doubled(view, m):
    """A rule of one's own."""
    return tuple(2 * v for v in view.vjp(m))


@r.rule("nonlinearity")
class Scaled(r.Rule):
    """A rule of one's own with a hyper-parameter."""

    factor: float = 2.0
    mode: str = "slope"

    def __call__(self, view, m):
        """Scales what is passed on."""
        return self.factor * view.vjp(m)[0]


def test_rules_of_ones_own():
    expected = 2 * relevance(network, "gradient")(X)
    for rule in (doubled, Scaled(), Scaled(jnp.asarray(2.0))):
        close(relevance(network, GRADIENT | {"tanh": rule})(X), expected)
        rules = dataclasses.replace(GRADIENT, nonlinearity=rule)
        close(jax.jit(relevance(network, rules))(X), expected)
    assert jax.tree.leaves(Scaled(3.0)) == [3.0]


def test_a_rule_may_return_lists_arrays_and_none():
    for rule, factor in (
        (lambda view, m: [m], 1),
        (lambda view, m: m, 1),
        (lambda view, m: np.ones(X.shape), 1),
        (lambda view, m: (None,), 0),
        (lambda view, m: None, 0),
    ):
        close(relevance(jnp.tanh, RuleSet(nonlinearity=rule))(X), factor * jnp.asarray(X))


def test_a_multiplier_of_another_dtype_is_cast():
    def halved(view, m):
        return m.astype("float32")

    got = relevance(jnp.tanh, RuleSet(nonlinearity=halved))(X)
    close(got, X)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda view, m: (m, m), "2 multipliers for the 1 live inputs of a nonlinearity"),
        (lambda view, m: (), "0 multipliers for the 1 live inputs"),
        (lambda view, m: m.sum(), r"shape \(\) for an input of shape \(2, 4\) of a nonlinearity"),
        (lambda view, m: 0.0, "for an input"),
        (lambda view, m: "m", "for an input"),
    ],
    ids=["many", "none", "shape", "number", "text"],
)
def test_rules_that_return_the_wrong_thing(rule, words):
    with pytest.raises(RuleError, match=words):
        relevance(jnp.tanh, RuleSet(nonlinearity=rule))(X)
