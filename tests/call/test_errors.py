"""What cannot be explained is refused by name and place, and the message tells the way out."""

import warnings
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl

import jaxrel
from jaxrel import (
    First,
    Kind,
    RuleSet,
    UnsupportedPrimitive,
    UnusedMatchWarning,
    relevance,
    relevance_vjp,
    rewrite,
    summary,
    value_and_relevance,
)
from jaxrel import rules as r

X = jnp.array([0.5, -1.0, 2.0])
W = jnp.arange(6.0).reshape(3, 2) - 2
HERE = Path(__file__).name


def network(x):
    return jnp.tanh(x @ W)


# ------------------------------------------------------------------------- arguments and outputs


@pytest.mark.parametrize("transform", [relevance, value_and_relevance, rewrite, summary])
@pytest.mark.parametrize(
    ("leaf", "dtype", "way_out"),
    [
        (jnp.arange(3), "int64", "what is looked up with it"),
        (3, "int", "what is looked up with it"),
        (True, "bool", "what is looked up with it"),
        (X * 1j, "complex128", "real and imaginary parts"),
    ],
    ids=["int", "python-int", "bool", "complex"],
)
def test_arguments_that_are_no_floats(transform, leaf, dtype, way_out):
    def named(scale, tree):
        return scale * jnp.real(tree["a"][1])

    words = rf"of named: argument 1\['a'\]\[1\] has dtype {dtype}.*{way_out}"
    with pytest.raises(TypeError, match=words):
        transform(named, "slope", 1)(2.0, {"a": [X, leaf]})


@pytest.mark.parametrize("leaf", ["text", object()], ids=["text", "object"])
def test_arguments_that_are_no_arrays(leaf):
    words = f"argument 0 is of type {type(leaf).__name__}; only arrays of floats"
    with pytest.raises(TypeError, match=words):
        relevance(lambda x: X)(leaf)


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda x: jnp.argmax(x), "returned dtype int"),
        (lambda x: x > 0, "returned dtype bool"),
        (lambda x: x * 1j, "returned dtype complex"),
        (lambda x: (x, x), "one array of floats .return the rest .* has_aux=True.*got"),
        (lambda x: [x], "one array of floats"),
        (lambda x: {"a": x}, "one array of floats"),
        (lambda x: None, "one array of floats"),
        (lambda x: "text", "one array of floats"),
    ],
    ids=["int", "bool", "complex", "tuple", "list", "dict", "nothing", "text"],
)
def test_outputs_that_cannot_be_explained(fun, words):
    with pytest.raises(TypeError, match=words):
        relevance(fun)(X)


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda x: x, "must return a pair"),
        (lambda x: (x, 1, 2), "must return a pair"),
        (lambda x: (jnp.argmax(x), 1), "returned dtype int"),
        (lambda x: ((x, x), 1), "one array of floats"),
        (lambda x: (None, 1), "one array of floats"),
    ],
    ids=["array", "triple", "int", "tree", "nothing"],
)
def test_auxiliary_outputs_that_cannot_be_explained(fun, words):
    with pytest.raises(TypeError, match=words):
        relevance(fun, has_aux=True)(X)


# ------------------------------------------------------------------------------------- rule sets


@pytest.mark.parametrize("transform", [relevance, value_and_relevance, rewrite, summary])
def test_no_such_preset(transform):
    with pytest.raises(ValueError, match="No preset is called 'epsilno'; there are .*epsilon"):
        transform(network, "epsilno")


@pytest.mark.parametrize("rules", [r.Epsilon(), RuleSet, jaxrel.rulesets.epsilon, 0, {}])
def test_what_is_no_rule_set(rules):
    with pytest.raises(TypeError, match="expected a RuleSet or the name of a preset, got"):
        relevance(network, rules)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"matmul": r.Epsilon}, r"matmul: expected a rule, .* did you mean Epsilon\(\)\?"),
        ({"matmul": 1e-6}, "matmul: expected a rule, got 1e-06"),
        ({"matmul": "epsilon"}, "matmul: expected a rule, got 'epsilon'"),
        ({"softmax": None}, "softmax: expected a rule, got None"),
        ({"matmul": r.Half()}, r"matmul: Half\(\) is a rule for product steps only"),
        ({"nonlinearity": r.Epsilon(0.5)}, r"nonlinearity: Epsilon\(eps=0.5\) is a rule for"),
        ({"product": r.Detach()}, r"product: Detach\(\) is a rule for normalization, quotient"),
    ],
)
def test_rows_that_do_not_suit(rows, words):
    with pytest.raises(TypeError, match=words):
        RuleSet(**rows)


@pytest.mark.parametrize(
    ("match", "rule", "words"),
    [
        ("tanh", r.Slope, r"tanh: expected a rule, .* did you mean Slope\(\)\?"),
        ("tanh", None, "tanh: expected a rule, got None"),
        (First, r.Epsilon(), "overridden by a layer path glob, First.., Kind.*of type type"),
        (r.First(), r.Epsilon(), "overridden by a layer path glob, First.., Kind.*of type First"),
        (3, r.Epsilon(), "overridden by a layer path glob.*got 3 of type int"),
        (Kind("product"), r.Epsilon(), r"Kind\(.product.\): Epsilon.* is a rule for .* only"),
        (Kind("conv"), r.Half(), r"Kind\(.conv.\): Half.* is a rule for product steps only"),
        (First(), r.Slope(), r"First\(\): Slope.* is a rule for nonlinearity steps only"),
    ],
)
def test_overrides_that_do_not_suit(match, rule, words):
    with pytest.raises(TypeError, match=words):
        RuleSet() | {match: rule}


def test_an_override_is_a_mapping():
    with pytest.raises(TypeError, match="overridden by a mapping"):
        RuleSet() | [("tanh", r.Slope())]


@pytest.mark.parametrize("name", ["typo", "First", "control", ""])
def test_no_such_kind(name):
    with pytest.raises(ValueError, match=rf"Kind\('{name}'\): no such kind of step; there are mat"):
        Kind(name)


# -------------------------------------------------------------------------------- unused matches


def explained(transform, rules, fun=network):
    """One call of a transformed function; the warnings and the line of the call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if transform is relevance_vjp:
            relevance_vjp(fun, X, rules=rules)
        else:
            transform(fun, rules)(X)
    return caught


def jitted(fun, rules):
    return jax.jit(relevance(fun, rules))


@pytest.mark.parametrize(
    "transform", [relevance, value_and_relevance, relevance_vjp, rewrite, summary, jitted]
)
@pytest.mark.parametrize("match", ["tahn", "**/Conv_*", Kind("conv"), First()], ids=str)
def test_a_match_that_matches_nothing_is_named_once(transform, match):
    (warning,) = explained(transform, RuleSet() | {match: r.Gradient()}, fun=jnp.tanh)
    assert warning.category is UnusedMatchWarning
    text = str(warning.message)
    assert f"{str(match)!r} -> Gradient() matches no step" in text
    assert "summary(fun, rules)(*args)" in text
    assert Path(warning.filename).name == HERE


def test_each_unused_match_is_named():
    rules = RuleSet() | {"a": r.Gradient(), "b": r.Epsilon(), "tanh": r.Gradient()}
    texts = [str(warning.message) for warning in explained(relevance, rules)]
    assert len(texts) == 2
    assert "'a'" in texts[0]
    assert "'b'" in texts[1]


def test_a_match_with_a_rule_that_has_no_formula_is_named():
    (warning,) = explained(relevance, RuleSet() | {"tanh": r.Epsilon()})
    text = "'tanh' -> Epsilon(eps=1e-06) matches only steps of kind nonlinearity"
    assert text in str(warning.message)


def test_a_layer_with_a_rule_that_has_no_formula_is_named():
    def fun(x):
        with jax.named_scope("layer"):
            return jnp.tanh(x)

    (warning,) = explained(relevance, RuleSet() | {"layer": r.Epsilon()}, fun)
    assert "matches only steps of kind nonlinearity, for which the rule" in str(warning.message)


def test_a_match_that_others_take_everything_from_is_named():
    rules = RuleSet() | {"dot_general": r.Epsilon(), First(): r.Epsilon(0.5)}
    (warning,) = explained(relevance, rules)
    assert "'dot_general' -> Epsilon(eps=1e-06) is overridden" in str(warning.message)


def test_overriding_an_override_is_no_mistake():
    rules = RuleSet() | {"tanh": r.Slope(), First(): r.Epsilon()}
    assert not explained(relevance, rules | {"tanh": r.Gradient(), First(): r.Epsilon(0.5)})


def test_a_used_match_is_silent():
    rules = RuleSet() | {"tanh": r.Gradient(), Kind("dense"): r.Epsilon(), "**": r.Gradient()}
    (warning,) = explained(relevance, rules)
    assert "'**'" in str(warning.message)


# ------------------------------------------------------------------------------------ primitives


def loop(x):
    return lax.while_loop(lambda c: c[1] < 3, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0]


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def pallas(x):
    def kernel(x_ref, out_ref):
        out_ref[...] = jnp.sin(x_ref[...])

    return pl.pallas_call(kernel, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)


def foreign(x):
    return jax.ffi.ffi_call("no_such_target", jax.ShapeDtypeStruct(x.shape, x.dtype))(x)


OPAQUE = {"while": loop, "pure_callback": callback, "pallas_call": pallas, "ffi_call": foreign}


@pytest.mark.parametrize("rules", ["slope", RuleSet(other=None) | {"sin": r.Gradient()}])
@pytest.mark.parametrize("name", OPAQUE)
@pytest.mark.filterwarnings("ignore::jaxrel.UnusedMatchWarning")
def test_opaque_calls_are_refused(name, rules):
    with pytest.raises(UnsupportedPrimitive) as caught:
        relevance(OPAQUE[name], rules)(X)
    error = caught.value
    assert error.primitive == name
    assert error.path == ""
    assert f"{HERE}:" in error.source
    assert OPAQUE[name].__name__ in error.source
    text = str(error)
    assert text.startswith(f"'{name}' outside any named layer, at {error.source}: ")
    assert "stop_gradient" in text
    assert ("lax.scan" if name == "while" else "jax.custom_vjp") in text


@pytest.mark.parametrize("name", ["while", "pure_callback", "pallas_call"])
def test_opaque_calls_on_what_is_not_live_just_run(name):
    call = OPAQUE[name]
    expected = X * call(jnp.tanh(X))
    np.testing.assert_allclose(relevance(lambda x: x * call(jnp.tanh(X)))(X), expected)
    got = jax.jit(relevance(lambda x: x * call(lax.stop_gradient(jnp.tanh(x)))))(X)
    np.testing.assert_allclose(got, expected)
    aux = relevance(lambda x: (jnp.sin(x), call(x)), has_aux=True)(X)[1]
    np.testing.assert_allclose(aux, call(X))


def test_integer_loops_and_callbacks_that_depend_on_the_input():
    def fun(x):
        k = lax.while_loop(lambda k: k < jnp.argmax(x), lambda k: k + 1, 0)
        return x * jax.pure_callback(np.float64, jax.ShapeDtypeStruct((), "float64"), k)

    np.testing.assert_allclose(relevance(fun)(X), 2 * X)


class Inner(nn.Module):
    """A layer with a loop."""

    @nn.compact
    def __call__(self, x):
        """Runs it."""
        return loop(nn.Dense(2)(x))


class Outer(nn.Module):
    """A layer in a layer."""

    @nn.compact
    def __call__(self, x):
        """Runs it."""
        return nn.remat(Inner)(name="inner")(nn.Dense(2)(x))


@pytest.mark.parametrize("around", ["plain", "jit", "scan"])
def test_the_layer_and_the_line_are_named(around):
    model = Outer()
    variables = model.init(jax.random.key(0), X)

    def fun(x):
        return model.apply(variables, x)

    if around == "jit":
        fun = jax.jit(fun)
    if around == "scan":
        fun = lambda x: lax.scan(lambda c, x: (c, model.apply(variables, x)), 0, x[None])[1]  # noqa: E731
    with pytest.raises(UnsupportedPrimitive, match="'while' in layer 'inner'") as caught:
        relevance(fun)(X)
    assert caught.value.path == "inner"
    assert "(loop)" in caught.value.source


MATRIX = jnp.array([[4.0, 1.0], [1.0, 3.0]])


def test_an_operation_without_a_rule():
    def fun(a):
        return lax.linalg.cholesky(a)

    with pytest.raises(UnsupportedPrimitive) as caught:
        relevance(fun, RuleSet(other=None))(MATRIX)
    assert caught.value.primitive == "cholesky"
    assert 'rules | {"cholesky": Gradient()}' in str(caught.value)
    expected = MATRIX * jax.grad(lambda a: fun(a).sum())(MATRIX)
    for rules in (
        RuleSet() | {"cholesky": r.Gradient()},
        RuleSet(other=r.Gradient()),
        jaxrel.rulesets.gradient(),
    ):
        np.testing.assert_allclose(relevance(fun, rules)(MATRIX), expected)


@pytest.mark.parametrize("fun", [jnp.cumprod, lax.cumlogsumexp, lambda x: jnp.prod(x)])
def test_the_source_is_the_users_or_none(fun):
    """Frames of jaxrel, and a colon with nothing before it, help nobody."""
    with pytest.raises(UnsupportedPrimitive) as caught:
        relevance(fun, RuleSet(other=None))(X)
    assert "jaxrel" + "/" not in caught.value.source
    assert ", at :" not in str(caught.value)
    assert ", at " not in str(caught.value) or HERE in caught.value.source


def stored(x):
    ref = jax.new_ref(jnp.zeros(3))
    ref[...] = jnp.sin(x)
    return x * ref[...]


@pytest.mark.parametrize(
    ("primitive", "fun"),
    [
        ("hessenberg", lambda x: lax.linalg.hessenberg(MATRIX * x[0])[0]),
        ("polygamma", lambda x: lax.polygamma(x, X)),
        ("regularized_incomplete_beta", lambda x: lax.betainc(x, X, X)),
        ("regularized_incomplete_beta", lambda x: jnp.sin(lax.betainc(X, x, x))),
        ("swap", stored),
        ("new_ref", lambda x: jax.new_ref(x)[...]),
    ],
)
def test_operations_that_jax_cannot_differentiate(primitive, fun):
    with pytest.raises(UnsupportedPrimitive) as caught:
        relevance(fun)(X)
    assert caught.value.primitive == primitive
    assert "stop_gradient" in str(caught.value)


@jax.custom_vjp
def measured(x):
    """An opaque call whose derivative is known."""
    return callback(x)


measured.defvjp(lambda x: (callback(x), x), lambda x, m: (jnp.cos(x) * m,))


def cosine(view, m):
    """A rule for it."""
    return m * jnp.cos(view.inputs[0])


@pytest.mark.parametrize("rule", [r.Gradient(), cosine])
def test_an_opaque_call_with_a_derivative_can_be_given_a_rule_by_name(rule):
    def fun(x):
        return 2 * measured(x)

    with pytest.raises(UnsupportedPrimitive, match="jax.custom_vjp"):
        relevance(fun)(X)
    rules = RuleSet() | {"measured": rule}
    expected = 2 * X * jnp.cos(X)
    np.testing.assert_allclose(relevance(fun, rules)(X), expected)
    np.testing.assert_allclose(jax.jit(relevance(fun, rules))(X), expected)

    def scanned(x):
        return lax.scan(lambda c, x: (c, 2 * measured(x)), 0.0, x[None])[1]

    np.testing.assert_allclose(relevance(scanned, rules)(X), expected)
    np.testing.assert_allclose(relevance(fun, "gradient")(X), expected)


@jax.custom_vjp
def solved(x):
    """A fixed point by a loop, with its derivative given: as odeint, or a deep equilibrium."""
    return loop(x)


solved.defvjp(lambda x: (loop(x), x), lambda x, m: jax.vjp(unrolled, x)[1](m))


def unrolled(x):
    return jnp.sin(jnp.sin(jnp.sin(x)))


@jax.custom_jvp
def root(x):
    """By Newton's method."""
    step = lambda c: ((c[0] + x / c[0]) / 2, c[1] + 1)  # noqa: E731
    return lax.while_loop(lambda c: c[1] < 30, step, (x, 0))[0]


root.defjvp(lambda primals, tangents: (root(*primals), tangents[0] / 2 / root(*primals)))


@pytest.mark.parametrize(
    ("fun", "name", "plain"), [(solved, "solved", unrolled), (root, "root", jnp.sqrt)]
)
@pytest.mark.parametrize("within", ["plain", "jit", "scan", "outer"])
def test_a_loop_in_a_function_with_its_own_derivative_is_explained_by_name(
    fun, name, plain, within
):
    """The message names the override, and with it sum(R) = f(x) - f(x0)."""
    if within == "jit":
        call = jax.jit(lambda x: 2 * fun(x))
    elif within == "scan":
        call = lambda x: lax.scan(lambda c, x: (c, 2 * fun(x)), 0.0, x[None])[1]  # noqa: E731
    elif within == "outer":
        call = jax.checkpoint(lambda x: 2 * fun(x))
    else:
        call = lambda x: 2 * fun(x)  # noqa: E731
    x, x0 = jnp.array([0.5, 1.5, 2.0]), jnp.array([1.0, 1.0, 0.5])
    with pytest.raises(UnsupportedPrimitive, match=f"It stands inside '{name}'") as caught:
        relevance(call, baseline=x0)(x)
    assert f'rules | {{"{name}": PathIntegral()}}.' in str(caught.value)
    rules = jaxrel.rulesets.compare_to_baseline() | {name: r.PathIntegral()}
    got = relevance(call, rules, baseline=x0)(x)
    np.testing.assert_allclose(got, np.ravel(2 * plain(x) - 2 * plain(x0)), rtol=1e-9)


def test_a_callback_in_a_function_with_its_own_derivative_is_named_too():
    with pytest.raises(UnsupportedPrimitive, match="'pure_callback' .* inside 'measured', which"):
        relevance(lambda x: 2 * measured(x))(X)


def test_diffrax_is_told_of_its_adjoint():
    """Its solver is a jitted function of this name around a custom_vjp."""

    @jax.jit
    def diffeqsolve(x):
        return solved(x)

    with pytest.raises(UnsupportedPrimitive, match=r"adjoint=diffrax\.DirectAdjoint\(\)\. Or: it"):
        relevance(diffeqsolve)(X)


def test_rules_that_do_not_suit_are_named_with_layer_and_line():
    def fun(x):
        with jax.named_scope("layer"):
            return jnp.tanh(x)

    place = rf"'tanh' in layer 'layer', at .*{HERE}:\d+.* \(.*fun\)"
    with pytest.raises(jaxrel.RuleError, match=f"a nonlinearity step, {place}. Give relevance"):
        relevance(fun, "deeplift_rescale")(X)
    with pytest.raises(jaxrel.RuleError, match=rf"inputs of a nonlinearity step, {place}\."):
        relevance(fun, RuleSet(nonlinearity=lambda view, m: (m, m)))(X)
