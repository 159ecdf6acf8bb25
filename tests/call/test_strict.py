"""The settings of jax that forgive nothing: leak checking, strict promotion of ranks and of types.

A function that ``jax.grad`` takes under them is explained under them.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrel import (
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
)

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(4, 3)))
X = jnp.asarray(RNG.normal(size=(2, 4)))
MANY = jnp.asarray(RNG.normal(size=(3, 4)))
KEY = jax.random.key(0)


def network(x):
    return jnp.tanh(x @ W).sum(-1)


def deep(x):
    def layer(c, _):
        return c + jnp.tanh(c @ W @ W.T), None

    y, _ = lax.scan(jax.checkpoint(layer), x, None, length=2)
    return (y * jax.nn.softmax(y) + jax.nn.relu(y)).sum(-1)


def multipliers(x):
    return relevance(network, baseline=0.5).multipliers(x)


def pullback(x):
    return relevance_vjp(network, x, rules="lrp")[1](jnp.ones(2))


CALLS = {
    "relevance": relevance(network),
    "deep": relevance(deep, "lrp"),
    "deep, compared": relevance(deep, baseline=0.5),
    "value_and_relevance": value_and_relevance(network, "slope"),
    "biases": relevance(network, biases=True),
    "has_aux": relevance(lambda x: (network(x), x), has_aux=True),
    "baseline": relevance(network, baseline=0.5),
    "many": relevance(network, baseline=MANY, chunk=2),
    "parts": relevance(network, "deeplift_reveal_cancel", baseline=MANY[0]),
    "multipliers": multipliers,
    "relevance_vjp": pullback,
    "rewrite": rewrite(network),
    "summary": lambda x: jnp.zeros(len(summary(network)(x))),
    "audit": lambda x: audit(network, "lrp")(x).explained,
    "integrated": integrated(relevance(network, "slope"), MANY[0], 3),
    "smooth": smooth(relevance(network, "slope"), KEY, MANY[0], 2),
    "relative": smooth(relevance(network, "slope"), KEY, 0.1, 2, relative=1),
    "expected": expected(relevance(network, "slope"), MANY, KEY, 3, chunk=2),
    "compared": expected(lambda x0: relevance(network, baseline=x0), MANY),
}


@pytest.mark.usefixtures("little_garbage")
@pytest.mark.parametrize("name", CALLS)
def test_nothing_leaks(name):
    """Checking takes long: it looks for every tracer of every trace."""
    with jax.checking_leaks():
        jax.eval_shape(CALLS[name], X)


@pytest.mark.full
@pytest.mark.usefixtures("little_garbage")
def test_nothing_leaks_within_other_traces():
    explain = CALLS["relevance"]
    by_scan = lambda x: lax.scan(lambda c, x: (c, explain(x[None])), 0, x)[1]  # noqa: E731
    with jax.checking_leaks():
        explain(X)
        jax.eval_shape(jax.vmap(lambda x: by_scan(x[None])), X)
        jax.eval_shape(jax.grad(lambda x: (explain(x) ** 2).sum()), X)


MAXIMA = {
    "max": lambda x: x.max(-1),
    "min": lambda x: jnp.minimum(x, x[:, ::-1]),
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 1), "SAME"),
    "sort": lambda x: jnp.sort(x, -1),
    "scatter": lambda x: x.at[:, 0].max(x[:, 1]),
}
OF_MAXIMA = (rules.Shapley(), rules.Radial(), rules.SoftmaxLimit(), rules.SoftmaxLimit(2.0))
BETWEEN = (rules.AbsoluteValue(), rules.CrossMax(), rules.SoftmaxLimit(2.0))


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_rules_promote_nothing(name, dtype):
    x = X.astype(dtype)
    with jax.numpy_dtype_promotion("strict"):
        for rule in OF_MAXIMA:
            jax.eval_shape(relevance(MAXIMA[name], RuleSet(maximum=rule), biases="total"), x)
        for rule in BETWEEN:
            chosen = rulesets.compare_to_baseline(rule)
            jax.eval_shape(relevance(MAXIMA[name], chosen, baseline=2 * x), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rules_of_layers_promote_nothing(dtype):
    x, w = X.astype(dtype), W.astype(dtype)

    def fun(x):
        return jnp.prod(jnp.tanh(x @ w + w[:1]), -1) ** x[:, 0]

    with jax.numpy_dtype_promotion("strict"):
        for rule in (rules.WSquare(), rules.AlphaBeta(), rules.PositiveWeights()):
            jax.eval_shape(relevance(fun, RuleSet(matmul=rule), biases=True), x)
        jax.eval_shape(relevance(fun, RuleSet(nonlinearity=rules.PathIntegral(3))), x)
        jax.eval_shape(relevance(fun, baseline=2 * x), x)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("strict", ["rank", "dtype"])
def test_nothing_is_promoted(name, strict):
    setting = {
        "rank": jax.numpy_rank_promotion("raise"),
        "dtype": jax.numpy_dtype_promotion("strict"),
    }
    with setting[strict]:
        jax.eval_shape(CALLS[name], X)


def test_the_settings_are_strict():
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        X + MANY[0]
    with contextlib.suppress(Exception), jax.numpy_dtype_promotion("strict"):
        X + X.astype(jnp.float32)
        pytest.fail("it promotes")
