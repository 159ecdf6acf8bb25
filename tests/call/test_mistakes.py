"""What a newcomer gets wrong, and is told: what, where, and the way out."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrel
from jaxrel import (
    First,
    Kind,
    RuleSet,
    Stabilizer,
    audit,
    capture,
    expected,
    graph,
    integrated,
    linear_map,
    metrics,
    plot,
    relevance,
    relevance_vjp,
    rewrite,
    rules,
    rulesets,
    smooth,
    summary,
    training,
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


# ------------------------------------------------------------------------------- sixty, as a table

PICTURES = jnp.ones((2, 4, 4, 3))
SINGLE = X.astype(jnp.float32)
MASKS = jnp.ones((2, 4, 4, 1))


class Trained(nnx.Module):
    """A model in training mode, as it is made."""

    def __init__(self, rate: float = 0.0):
        """Makes its layers; without a rate the first has statistics."""
        rngs = nnx.Rngs(0)
        self.layer = nnx.Dropout(rate, rngs=rngs) if rate else nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        """Runs it."""
        return jnp.tanh(self.layer(x))


CLOSED_OVER = Trained()


def of_batch_norm(x):
    layer = nn.BatchNorm(use_running_average=False)
    return layer.apply({"params": {}, "batch_stats": {"mean": x[0], "var": x[0]}}, x)


def of_dropout(x):
    return nn.Dropout(0.5, deterministic=False).apply({}, x)


def logits(x):
    return x.mean((1, 2))


def loss(params, x):
    return logits(x)


PENALIZED = training.relevance_loss(loss, None, training.outside_share)
TABLE = {  # what is done, and the words that tell the way out
    "a model in training mode": (lambda: relevance(Trained())(SINGLE), "model.eval() of nnx"),
    "nnx dropout": (lambda: relevance(Trained(0.5))(X), "Trained cannot be explained as it is"),
    "a model closed over": (
        lambda: relevance(lambda x: CLOSED_OVER(x))(SINGLE), "model.eval() of nnx"),
    "linen's BatchNorm": (lambda: relevance(of_batch_norm)(X), "use_running_average=True"),
    "linen's dropout": (lambda: relevance(of_dropout)(X), "deterministic=True"),
    "a linen module": (lambda: relevance(Model())(X), "lambda x: model.apply(variables, x)"),
    "the class of a model": (lambda: relevance(Trained), "make one: Trained(...)"),
    "a call's result": (lambda: relevance(network(X)), "relevance(fun, rules)(x)"),
    "rules before the function": (lambda: relevance("slope", network), "relevance(fun, rules)(x)"),
    "x by name": (lambda: relevance(network)(x=X), "only those can be explained"),
    "argnums": (lambda: relevance(network, argnums=1)(X), "1 is out of range"),
    "argnums by name": (lambda: relevance(network, argnums="x")(X), "a sequence of ints"),
    "rules as an argument": (lambda: relevance_vjp(network, X, "slope"), "rules='slope'"),
    "a pullback's multiplier": (
        lambda: relevance_vjp(network, X)[1](jnp.ones(4)), "jnp.ones_like(value)"),
    "pictures of integers": (
        lambda: relevance(logits)(np.ones((2, 4, 4, 3), np.uint8)), "x.astype(jnp.float32)"),
    "a place without a mask": (
        lambda: relevance(network, through="layer")(X), "a mapping from places to masks"),
    "a row": (lambda: RuleSet(matmull=rules.ZPlus()), "did you mean 'matmul'?"),
    "a variant as a row": (lambda: RuleSet(conv=rules.ZPlus()), 'RuleSet(...) | {Kind("conv")'),
    "a rule of another kind": (lambda: RuleSet(matmul=rules.Half()), "for product steps only"),
    "the match First as a rule": (lambda: RuleSet(product=First()), "That is a match"),
    "overrides in a list": (lambda: RuleSet() | [("a", rules.Pass())], "{match: rule}"),
    "a position": (lambda: First("first"), '"conv", "dense" or nothing'),
    "no bounds": (lambda: relevance(network, "epsilon_gamma_box"), "rulesets.epsilon_gamma_box("),
    "one bound": (lambda: rulesets.deep_taylor(0.0), "give both low and high, or neither"),
    "alpha and beta": (lambda: rules.AlphaBeta(2, 2), "as alpha=2, beta=1 does"),
    "beta and alpha": (lambda: rules.AlphaBeta(1, 2), "as alpha=2, beta=1 does"),
    "eps below 0": (lambda: rules.Epsilon(-1e-6), "eps >= 0 is needed"),
    "eps as text": (lambda: rules.Epsilon("1e-6"), "eps is a number, such as 1e-06"),
    "no gamma": (lambda: rules.Gamma(None), "gamma is a number, such as 0.25"),
    "gamma below 0": (lambda: rules.Gamma(-0.25), "gamma >= 0 is needed"),
    "a preset's gamma below 0": (
        lambda: rulesets.compare_to_baseline(gamma=-0.1), "gamma >= 0 is needed, got -0.1"),
    "a preset's gamma that is none": (
        lambda: rulesets.epsilon_gamma_box(0, 1, gamma=float("nan")), "gamma >= 0 is needed"),
    "beta in a list": (lambda: rules.SoftmaxLimit([1.0]), "beta is a number"),
    "a temperature as text": (lambda: rules.Tempered("2"), "temperature is a number"),
    "a preset's eps as text": (lambda: rulesets.epsilon("small"), "eps is a number"),
    "a stabiliser of text": (lambda: Stabilizer("1e-6"), "eps is a number"),
    "half a point": (lambda: rules.PathIntegral(2.5), "order is a whole number"),
    "a stabiliser's mode": (lambda: Stabilizer(1e-6, "rsm"), "add, clip or rms"),
    "a box upside down": (lambda: rules.ZBox(1, 0), "low <= x <= high"),
    "sigma below 0": (lambda: smooth(R, KEY, -0.1)(X), "sigma >= 0 is needed"),
    "sigma as text": (lambda: smooth(R, KEY, "0.1")(X), "sigma: expected an array"),
    "a seed as a key": (lambda: smooth(R, 0, 0.1)(X), "jax.random.key(0)"),
    "no noise": (lambda: smooth(R, KEY, 0.1, 0)(X), "n must be at least 1"),
    "steps below 0": (lambda: integrated(R, 0.0, steps=-1)(X), "steps must be at least 1"),
    "half a step": (lambda: integrated(R, 0.0, steps=2.5)(X), "steps must be an int"),
    "a quadrature": (lambda: integrated(R, 0.0, method="gauss")(X), "there are gauss_legendre"),
    "no chunk": (lambda: relevance(network, chunk=0), "chunk must be at least 1"),
    "no baseline": (lambda: relevance(network, "deeplift_rescale")(X), "baseline=...)"),
    "another baseline": (lambda: relevance(network, baseline=X[:, :2])(X), "expected (2, 3)"),
    "biases": (lambda: relevance(network, biases="al")(X), '"total" or "all"'),
    "biases against a baseline": (
        lambda: relevance(network, baseline=0.0, biases=True)(X), 'biases="all"'),
    "a place": (lambda: capture(network, "layer")(X), "as summary(fun, rules)(*args) shows it"),
    "nodes": (lambda: graph(network, "slope", {"layer": -1})(X), "no place 'layer'"),
    "a first layer without multipliers": (
        lambda: linear_map(network, RuleSet() | {First(): rules.Flat()})(X), "{First(): ...}"),
    "a preset of jaxrel": (lambda: jaxrel.slope, "did you mean jaxrel.rulesets.slope?"),
    "a rule of rulesets": (lambda: rulesets.Epsilon, "did you mean jaxrel.rules.Epsilon?"),
    "a rule's name": (lambda: rules.Epsilonn, "did you mean 'Epsilon'?"),
    "a metric of jaxrel": (lambda: jaxrel.aopc, "did you mean jaxrel.metrics.aopc?"),
    "a picture of jaxrel": (lambda: jaxrel.heatmap, "did you mean jaxrel.plot.heatmap?"),
    "a metric's name": (lambda: metrics.pixel_fliping, "did you mean 'pixel_flipping'?"),
    "a penalty's name": (lambda: training.outside_shares, "did you mean 'outside_share'?"),
    "a picture's name": (lambda: plot.heatmaps, "did you mean 'heatmap'?"),
    "a metric of all classes": (
        lambda: metrics.pixel_flipping(logits, PICTURES, PICTURES.sum(-1), steps=2),
        "Choose a class"),
    "a metric's function": (
        lambda: metrics.pixel_flipping(PICTURES, logits, PICTURES, steps=2), "x: expected an arr"),
    "a metric of another picture": (
        lambda: metrics.pixel_flipping(lambda x: logits(x)[:, 0], PICTURES, X, steps=2),
        "relevance: expected that of x, (2, 4, 4, 3)"),
    "a mask of another picture": (
        lambda: PENALIZED({}, PICTURES, jnp.arange(2), MASKS[:, 1:]), "mask: (2, 3, 4, 1) does"),
    "a mask without channels": (
        lambda: PENALIZED({}, PICTURES, jnp.arange(2), MASKS[..., 0]), "give it as many axes"),
    "a batch as a heatmap": (lambda: plot.heatmap(PICTURES), "one by one, or by grid"),
    "maps without titles": (lambda: plot.grid(PICTURES, PICTURES), "{'lrp': relevance}"),
    "one string of words": (lambda: plot.tokens("ab", {"a": jnp.ones(2)}), "words.split()"),
    "a waterfall of a function": (lambda: plot.waterfall(network), "jaxrel.audit(fun, rules)(x)"),
    "text as a rule set": (lambda: RuleSet.from_dict("{}"), "json.loads makes it of text"),
    "a function in JSON": (lambda: RuleSet(matmul=of_ones_own).to_dict(), "of_ones_own"),
}  # fmt: skip


@pytest.mark.every_case
@pytest.mark.parametrize("name", TABLE)
def test_sixty_mistakes(name):
    """One clear sentence for each, or two: what is wrong, and the way out."""
    make, way_out = TABLE[name]
    text = refused(make, way_out, error=(TypeError, ValueError, AttributeError))
    assert len(text) < 500 and "0x" not in text and "Chex" not in text


def test_there_are_sixty():
    assert len(TABLE) >= 60


def test_the_ways_out_of_training_mode_are_ways_out():
    """What is advised runs."""
    for model in (Trained(), Trained(0.5)):
        model.eval()
        assert relevance(model)(X).shape == X.shape

    def new_state(x):
        layer = nn.BatchNorm(use_running_average=False, use_bias=False, use_scale=False)
        before = {"batch_stats": {"mean": x[0], "var": x[0]}}
        return layer.apply(before, x, mutable="batch_stats")

    _, state = relevance(new_state, has_aux=True)(X)
    assert set(state) == {"batch_stats"}


def test_errors_of_the_function_itself_stay_what_they_are():
    def wrong(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        relevance(wrong)(X)
