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
    audit,
    expected,
    integrated,
    relevance,
    relevance_vjp,
    rewrite,
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


@pytest.mark.parametrize("name", CALLS)
def test_nothing_leaks(name):
    """Checking takes long: it looks for every tracer of every trace."""
    with jax.checking_leaks():
        jax.eval_shape(CALLS[name], X)


def test_nothing_leaks_within_other_traces():
    explain = CALLS["relevance"]
    by_scan = lambda x: lax.scan(lambda c, x: (c, explain(x[None])), 0, x)[1]  # noqa: E731
    with jax.checking_leaks():
        explain(X)
        jax.eval_shape(jax.vmap(lambda x: by_scan(x[None])), X)
        jax.eval_shape(jax.grad(lambda x: (explain(x) ** 2).sum()), X)


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
