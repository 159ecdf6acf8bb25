"""What a newcomer gets wrong, and is told: what, where, and the way out."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import (
    First,
    Kind,
    RuleSet,
    audit,
    expected,
    integrated,
    relevance,
    relevance_vjp,
    rewrite,
    rules,
    rulesets,
    smooth,
    summary,
    value_and_relevance,
    verify,
    with_multipliers,
)

X = jnp.ones((2, 3))
W = jnp.ones((3, 4))
KEY = jax.random.key(0)


def network(x):
    return jnp.tanh(x @ W)


R = relevance(network)


def refused(call, *words, error=TypeError):
    with pytest.raises(error) as caught:
        call()
    text = " ".join(str(caught.value).split())
    assert all(word in text for word in words), text
    assert text[-1] in ".?", text
    return text


# ----------------------------------------------------------------------------- what is no function

TRANSFORMS = [relevance, value_and_relevance, rewrite, summary, audit, verify]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_arguments_for_the_function(transform):
    """relevance(x, f), and relevance(f, x), the first line of many."""
    name = transform.__name__
    told = f"{name}: expected a function, got ArrayImpl: float64[2, 3].", f"{name}(fun, rules)(x)."
    refused(lambda: transform(X, network), *told)
    for wrong in (X, (X, W), {"a": [X]}, np.ones(3), 0.5):
        told = (
            f"got {type(wrong).__name__}",
            "goes into what is returned: relevance(fun, rules)(x).",
        )
        refused(lambda wrong=wrong: transform(network, wrong), *told)


def test_other_transformations_of_what_is_no_function():
    refused(lambda: relevance_vjp(X, network), "relevance_vjp(fun, x, rules=rules)")
    refused(lambda: integrated(X, 0.0), "integrated(relevance(fun, rules), baseline)(x)")
    refused(lambda: smooth(X, KEY, 0.1), "smooth(relevance(fun, rules), key, sigma)(x)")
    refused(lambda: expected(X, R), "expected(relevance(fun, rules), baselines)(x)")
    refused(lambda: smooth(R, KEY, 0.1, noise=KEY), "noise(key, shape, dtype)")
    refused(lambda: with_multipliers(R, 3), "with_multipliers(relevance_fn, multipliers)")
    refused(lambda: with_multipliers(X, R), "with_multipliers(relevance_fn, multipliers)")


# --------------------------------------------------------------------------------------- rule sets


def of_ones_own(view, m):
    return view.vjp(m)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (rulesets.slope, 'did you mean rulesets.slope(), or "slope"?'),
        (rulesets.deep_taylor, 'did you mean rulesets.deep_taylor(), or "deep_taylor"?'),
        (rulesets, "did you mean rulesets.slope()?"),
        (RuleSet, "did you mean RuleSet()?"),
        (1, "did you mean argnums=1?"),
        ((0, 1), "did you mean argnums=(0, 1)?"),
        ({First(): rules.Flat()}, "A mapping overrides a rule set: rulesets.slope() | {...}."),
        (rules.Epsilon(0.5), "RuleSet(matmul=Epsilon(eps=0.5"),
        (rules.Epsilon, 'rulesets.slope() | {Kind("matmul"): Epsilon(...)}.'),
        (rules.ZBox, "RuleSet(matmul=ZBox(...))"),
        (rules.Slope(), "RuleSet(nonlinearity=Slope())"),
        (rules.LogMean(), 'rulesets.slope() | {Kind("softmax"): LogMean()}.'),
        (rules.Gradient(), "RuleSet(matmul=Gradient())"),
        (of_ones_own, "RuleSet(matmul=of_ones_own)"),
    ],
)
def test_what_was_meant_by_what_is_no_rule_set(given, told):
    for transform in TRANSFORMS:
        refused(lambda t=transform: t(network, given), "expected a RuleSet or the name of", told)
    refused(lambda: relevance_vjp(network, X, rules=given), "rules: expected a RuleSet", told)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Epsilon", "did you mean 'epsilon'?"),
        ("slop", "did you mean 'slope'?"),
        ("deeplift", "did you mean 'deeplift_rescale'?"),
        ("guided-backprop", "did you mean 'guided_backprop'?"),
        ("EpsilonPlusFlat", "did you mean 'epsilon_plus_flat'?"),
        ("integrated_gradients", 'that is jaxrel.integrated(relevance(fun, "gradient"), baseline)'),
        ("SmoothGrad", "that is jaxrel.smooth("),
        ("expected-gradients", "that is jaxrel.expected("),
        ("DeepSHAP", 'that is relevance(fun, "deeplift_rescale", baseline=references)'),
        ("input_x_gradient", 'that is relevance(fun, "gradient")'),
        ("saliency", 'that is relevance(fun, "gradient").multipliers'),
        ("???", "slope."),
    ],
)
def test_names_that_no_preset_has(name, told):
    text = refused(
        lambda: relevance(network, name), f"No preset is called {name!r}", error=ValueError
    )
    assert text.removesuffix(".").endswith(told.removesuffix(".")) or f"; {told}" in text


def test_what_is_told_of_is_there():
    """The calls in these messages run."""
    fun, baseline, baselines, key, sigma, references = network, 0.0, X, KEY, 0.1, X[:, None]
    assert all(v is not None for v in (fun, baseline, baselines, key, sigma, references))
    for call in rulesets.presets._AROUND.values():
        explain = eval(call.split(", or ")[0])
        assert explain(X).shape == X.shape


# ------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("match", "rule", "told"),
    [
        (First, rules.Flat(), "did you mean First()?"),
        (Kind, rules.Flat(), 'did you mean Kind("conv")?'),
        (rules.First(), rules.Flat(), "rules.First() is the product rule; the first layer's match"),
        (rules.First, rules.Flat(), "match is jaxrel.First()."),
        (rules.Flat(), First(), "A rule is the value, not the key: {match: rule}."),
        (rules.Flat, First(), "A rule is the value, not the key: {match: rule}."),
        (jax.nn.silu, rules.Ignore(), 'did you mean its name, "silu"?'),
        (nn.Dense, rules.Epsilon(), 'did you mean its name, "Dense"?'),
        (("a", "b"), rules.Epsilon(), "Give each match an entry of its own."),
        (lambda step: True, rules.Epsilon(), "of type function."),
        (3, rules.Epsilon(), "got 3 of type int."),
    ],
)
def test_what_was_meant_by_what_is_no_match(match, rule, told):
    refused(lambda: rulesets.slope() | {match: rule}, "A rule set is overridden by", told)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (rules.Epsilon, "did you mean Epsilon()?"),
        ("epsilon", "did you mean rules.Epsilon()?"),
        ("z-plus", "did you mean rules.ZPlus()?"),
        ("ignoring", "did you mean rules.Ignore()?"),
        ("???", "got '???'."),
        (First(), "That is a match, the key: {match: rule}."),
        (rulesets.slope(), "A rule set has one for each kind of step: rules.matmul, say."),
        (rulesets.slope, "slope is no rule: it cannot be called as rule(view, m)"),
        (jnp.tanh, "tanh is no rule: it cannot be called as rule(view, m)"),
        (lambda m: m, "is no rule: it cannot be called as rule(view, m)"),
        (lambda view, m, scale: m, "is no rule: it cannot be called as rule(view, m)"),
        (None, "got None."),
        (jnp.ones(3), "got float64[3]."),
    ],
)
def test_what_was_meant_by_what_is_no_rule(rule, told):
    refused(lambda: RuleSet(nonlinearity=rule), "nonlinearity: ", told)
    refused(lambda: RuleSet() | {"silu": rule}, "silu: ", told)


@pytest.mark.parametrize("rule", [lambda view, m: m, lambda view, m, scale=2: m, lambda *a: a[1]])
def test_what_can_be_called_as_a_rule_is_one(rule):
    assert relevance(jnp.tanh, RuleSet(nonlinearity=rule))(X).shape == X.shape


def test_a_rule_set_does_not_override_another():
    refused(lambda: rulesets.slope() | rulesets.epsilon(), "rules | dict(other.overrides)")
    other = rulesets.epsilon_plus_flat()
    taken = rulesets.slope() | dict(other.overrides)
    assert taken.overrides == other.overrides


@pytest.mark.parametrize(
    ("name", "told"),
    [("Conv", "'conv'"), ("densee", "'dense'"), ("normalisation", "'normalization'")],
)
def test_misspelt_kinds(name, told):
    refused(lambda: Kind(name), "no such kind", f"did you mean {told}?", error=ValueError)


class Block(nn.Module):
    """Two layers within a layer."""

    @nn.compact
    def __call__(self, x):
        """Runs them."""
        return nn.Dense(2, name="out")(nn.silu(nn.Dense(4, name="hidden")(x)))


class Model(nn.Module):
    """A layer around."""

    @nn.compact
    def __call__(self, x):
        """Runs it."""
        return Block(name="block")(x)


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ("dense", 'did you mean Kind("dense")?'),
        ("nonlinearity", 'did you mean Kind("nonlinearity")?'),
        ("hidden", 'did you mean "**/hidden"?'),
        ("out", 'did you mean "**/out"?'),
        ("blok/hidden", "did you mean 'block/hidden'?"),
        ("sillu", "did you mean 'silu'?"),
        ("dotgeneral", "did you mean 'dot_general'?"),
        ("qqqq", "shows the steps and their names."),
    ],
)
def test_matches_that_match_nothing(match, told):
    model = Model()
    variables = model.init(KEY, X)
    rule_set = rulesets.slope() | {match: rules.Gradient()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        relevance(lambda x: model.apply(variables, x), rule_set)(X)
    (warning,) = caught
    assert str(warning.message).endswith(told)


def test_a_layer_that_holds_others_is_matched_with_what_it_holds():
    def fun(x):
        with jax.named_scope("model"), jax.named_scope("block"), jax.named_scope("hidden"):
            return jnp.tanh(x)

    with pytest.warns(jaxrel.UnusedMatchWarning, match=r'did you mean "\*\*/block/\*\*"\?'):
        relevance(fun, rulesets.slope() | {"block": rules.Gradient()})(X)


# --------------------------------------------------------------------------- arguments and results


def test_references_that_are_no_arrays():
    explain = lambda x0: relevance(network, baseline=x0)(X)  # noqa: E731
    refused(lambda: explain([0.0, 0.0, 0.0]), "A list is a tree; jnp.asarray makes it an array.")
    refused(lambda: explain("zeros"), "baseline: expected an array, got str.")
    refused(lambda: explain(X > 0), "baseline: has dtype bool; expected real numbers.")
    refused(lambda: explain(lambda: 0.0), "called with the arguments", "'<lambda>' cannot be")
    refused(lambda: explain(lambda x, y: 0.0), "missing a required argument: 'y'.")
    assert explain(lambda x: 0 * x).shape == X.shape


@jax.tree_util.register_pytree_node_class
class Linear:
    """A model that is a tree and a function."""

    def __init__(self, w):
        """Holds a matrix."""
        self.w = w

    def __call__(self, x):
        """Applies it."""
        return x @ self.w

    def tree_flatten(self):
        """Takes it apart."""
        return (self.w,), None

    @classmethod
    def tree_unflatten(cls, aux, leaves):
        """Puts it together."""
        del aux
        return cls(*leaves)


def test_a_model_beside_a_model_is_a_tree_and_no_function():
    explain = relevance(lambda model, x: jnp.tanh(model(x)), baseline=Linear(W / 2))
    found = explain(Linear(W), X)
    np.testing.assert_allclose(found.w.sum(), (jnp.tanh(X @ W) - jnp.tanh(X @ W / 2)).sum())
    made = relevance(lambda x: jnp.tanh(x @ W), baseline=jax.tree_util.Partial(jnp.multiply, 0.5))
    np.testing.assert_allclose(made(X).sum(), found.w.sum())


@pytest.mark.parametrize(
    ("fun", "told"),
    [
        (lambda x: (x, x), "must return one array of floats (return the rest as auxiliary"),
        (lambda x: jnp.argmax(x), "returned dtype int"),
    ],
)
def test_the_function_is_named(fun, told):
    def classify(x):
        return fun(x)

    refused(lambda: relevance(classify)(X), "classify", told)


def test_averages():
    refused(lambda: smooth(R, 0.1, KEY), "key must be a key such as jax.random.key(0), got float.")
    refused(lambda: smooth(R, KEY, 0.1, relative=5)(X), "relative=5", error=ValueError)
    refused(lambda: expected(lambda x0: R(x0), X)(X), "it returned an array.")
    refused(lambda: integrated(network, 0.0), "Give what jaxrel.relevance returned")


def test_training():
    """What a loss is made of is checked when it is made, not within a training step."""
    from jaxrel.training import outside_share, relevance_loss

    refused(lambda: relevance_loss(X, None, outside_share), "relevance_loss(fun, rules, penalty)")
    refused(lambda: relevance_loss(network, None, "outside"), "called as penalty(relevance, mask).")
    refused(lambda: relevance_loss(network, outside_share, "slope"), "penalty: expected a function")
    refused(lambda: relevance_loss(network, outside_share, outside_share), "expected a RuleSet")
    make = lambda **more: relevance_loss(network, None, outside_share, **more)  # noqa: E731
    refused(lambda: make(task="cross_entropy"), "called as task(logits, labels).")
    refused(lambda: make(explained=0), "called as explained(logits, labels).")
    refused(lambda: make(of="gradient"), "'relevance' or 'multiplier'", error=ValueError)


def test_names_of_the_package():
    with pytest.raises(
        AttributeError, match=r"no attribute 'relevence'; did you mean 'relevance'\?"
    ):
        _ = jaxrel.relevence  # pyright: ignore[reportAttributeAccessIssue]
    assert rules.Stabilizer is jaxrel.Stabilizer


def test_shapes_are_enough_for_a_summary():
    shapes = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert str(summary(network)(shapes)) == str(summary(network)(X))
    table = summary(lambda x, w: x @ w, argnums=(0, 1))(
        shapes, jax.ShapeDtypeStruct(W.shape, W.dtype)
    )
    assert len(table) == 1
