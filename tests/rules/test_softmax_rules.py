"""Rules of softmax without a baseline, restated densely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import RuleSet, rules

U = 2 * np.random.default_rng(0).normal(size=(3, 5))
M = np.random.default_rng(1).normal(size=(3, 5))
KEPT = np.array([True, False, True, True, False])


def binary(u):
    e = jnp.exp2((u - lax.stop_gradient(u.max(-1, keepdims=True))) / np.log(2))
    return e / (e @ jnp.ones((5, 1)))


def after(u):
    """Masked after the exponentials, and counted by another mask."""
    e = jnp.exp(u) * KEPT
    return e / e.sum(-1, keepdims=True)


SOFTMAXES = {
    "jax.nn": (jax.nn.softmax, False),
    "written out, of 2": (binary, False),
    "without maximum": (lambda u: jnp.exp(u) / jnp.exp(u).sum(-1, keepdims=True), False),
    "masked by -inf": (lambda u: jax.nn.softmax(jnp.where(KEPT, u, -jnp.inf)), True),
    "masked by a number": (lambda u: jax.nn.softmax(jnp.where(KEPT, u, -1e30)), True),
    "masked by a sum": (lambda u: jax.nn.softmax(u + np.where(KEPT, 0, -1e9)), True),
    "masked by where": (lambda u: jax.nn.softmax(u, where=np.broadcast_to(KEPT, u.shape)), True),
    "masked after": (after, True),
}


def shares(u):
    e = np.exp(u - u.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_tempered(name, temperature):
    fun, masked = SOFTMAXES[name]
    s = shares(np.where(KEPT | (not masked), U, -np.inf) / temperature)
    expected = s * (M - (s * M).sum(-1, keepdims=True))
    explain = jaxrel.relevance(lambda u: fun(u) * M, RuleSet(softmax=rules.Tempered(temperature)))
    np.testing.assert_allclose(explain.multipliers(U), expected, rtol=1e-11, atol=1e-14)


def test_tempered_log_sum_exp():
    given = RuleSet(softmax=rules.Tempered(3.0))
    found = jaxrel.relevance(lambda u: jax.nn.logsumexp(u, -1), given).multipliers(U)
    np.testing.assert_allclose(found, shares(U / 3), rtol=1e-12)


def test_tempered_is_the_gradient_at_one():
    fun = lambda u: jax.nn.softmax(u) * M  # noqa: E731
    for one in (1, 1.0, jnp.array(1.0)):
        found = jaxrel.relevance(fun, RuleSet(softmax=rules.Tempered(one)))(U)
        np.testing.assert_allclose(found, jaxrel.relevance(fun, "gradient")(U), rtol=1e-12)


def test_weights_that_are_shared_out_again_get_the_gradient_there():
    """As in GIM, which exchanges the softmax and nothing else."""

    def fun(u):
        p = jax.nn.softmax(u)
        q = lax.optimization_barrier(p) * KEPT
        return q / q.sum(-1, keepdims=True) * M

    given = RuleSet(softmax=rules.Tempered(2.0))
    s, p = shares(U / 2), shares(U)
    q = p * KEPT / (p * KEPT).sum(-1, keepdims=True)
    m = KEPT * (M - (q * M).sum(-1, keepdims=True)) / (p * KEPT).sum(-1, keepdims=True)
    expected = s * (m - (s * m).sum(-1, keepdims=True))
    found = jaxrel.relevance(fun, given).multipliers(U)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)
