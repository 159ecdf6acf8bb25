"""The warning where relevance is out of all proportion to what it explains."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import LargeRelevanceWarning, relevance, relevance_vjp, rulesets, value_and_relevance

X = jnp.array([[1.0, 0.25, 3.0], [2.0, 0.5, 1.0]])


def ratio(x):
    return x[:, 0] / x[:, 1] + x[:, 2]


NEAR = jnp.array([1.0, 1e-4, -1e4])
"""Where a denominator is nearly 0, and all but cancelled."""


def test_it_says_what_is_large_beside_what_and_the_ways_out():
    explain = relevance(ratio, "deeplift_rescale", baseline=NEAR)
    with pytest.warns(LargeRelevanceWarning) as caught:
        r = explain(X)
    (warning,) = caught
    assert warning.filename == __file__
    changed = jnp.abs(ratio(X) - ratio(jnp.broadcast_to(NEAR, X.shape))).max()
    largest, differs = map(
        float, re.findall(r"(?:largest|baseline), ([\d.e+]+)", str(warning.message))
    )
    np.testing.assert_allclose([largest, differs], [jnp.abs(r).max(), changed], rtol=0.1)
    assert largest > 1e3 * differs
    for way_out in ("audit(fun, rules, baseline=x0)(x)", "another baseline", "compare_to_baseline"):
        assert way_out in str(warning.message)


def cancelling(scale):
    """Relevance of 1 and -1 for a value of 1 / scale."""
    return lambda x: x[..., 0] - (1 - 1 / scale) * x[..., 1]


@pytest.mark.parametrize("rules", [None, "gradient", "deeplift_reveal_cancel"])
@pytest.mark.parametrize("many", [False, True])
def test_a_thousand_times_is_the_limit(rules, many):
    x, x0 = jnp.ones((4, 2)), jnp.zeros((7, 4, 2)) if many else 0.0
    relevance(cancelling(999.0), rules, baseline=x0)(x)
    with pytest.warns(LargeRelevanceWarning):
        value, _ = value_and_relevance(cancelling(1001.0), rules, baseline=x0)(x)
    assert value.shape == (4,)


def test_a_batch_does_not_hide_an_example_nor_do_outputs_that_are_not_asked_for():
    x = jnp.ones((64, 2)).at[0].set(500.0)
    fun = lambda x: jnp.where(jnp.arange(len(x)) == 0, x[:, 0] - 0.9999 * x[:, 1], 0.3 * x[:, 0])  # noqa: E731
    with pytest.warns(LargeRelevanceWarning):
        relevance(fun, baseline=0.0)(2 * x)
    both = lambda x: jnp.stack([cancelling(1e4)(x), x[:, 0]], -1)  # noqa: E731
    _, pullback = relevance_vjp(both, x, baseline=(0.0,))
    pullback(jnp.ones((64, 2)))
    with pytest.warns(LargeRelevanceWarning):
        pullback(jnp.zeros((64, 2)).at[:, 0].set(1))


def test_places_are_looked_at_too():
    def inner(x):
        with jax.named_scope("layer"):
            h = jnp.tanh(jnp.stack([x, x], -1))
        return cancelling(1e4)(h)

    relevance(inner, baseline=0.0)(jnp.ones(()))
    with pytest.warns(LargeRelevanceWarning):
        relevance(inner, baseline=0.0, at="layer")(jnp.ones(()))


def test_programs_are_the_same_and_say_nothing():
    """Under a trace nothing is known, and nothing is computed to know it."""
    explain = relevance(cancelling(1e4), baseline=0.0)
    x = jnp.ones((4, 2))
    traced = str(jax.make_jaxpr(explain)(x))
    assert "max" not in traced and "callback" not in traced
    jax.jit(explain)(x)
    jax.vmap(explain)(x)
    jax.grad(lambda x: explain(x).sum())(x)
    jax.lax.map(explain, x)
    weights = jnp.array([1.0, 0.9999])
    closed = lambda w: relevance(lambda x: x @ (w * jnp.array([1, -1])), baseline=0.0)(x)  # noqa: E731
    jax.jit(closed)(weights)
    with pytest.warns(LargeRelevanceWarning):
        closed(weights)


def test_nothing_is_said_without_reason():
    x = jnp.ones((4, 2))
    fun = cancelling(1e4)
    relevance(fun)(x)  # without a baseline
    relevance(fun, baseline=x)(x)  # nothing differs
    relevance(fun, baseline=0.0).multipliers(x)
    relevance(fun, baseline=0.0)(jnp.ones((0, 2)))
    relevance(lambda x: jnp.exp(30 * x[..., 0]), rulesets.slope() | {"exp": _nan}, baseline=0.0)(x)


def _nan(view, m):
    return (jnp.nan * m,)
