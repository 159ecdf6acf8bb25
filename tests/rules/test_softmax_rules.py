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


# Slope: from uniform shares on.


def log_mean(p, p0):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p == p0, p, (p - p0) / (np.log(p) - np.log(p0)))


def closes(fun, u, **options):
    """Relevance, and whether it adds up with the biases; the rules themselves create nothing."""
    r, biases = jaxrel.relevance(fun, RuleSet(), biases=True, **options)(u)
    total = r.sum() + sum(b.sum() for b in biases.values())
    np.testing.assert_allclose(total, fun(u).sum(), rtol=1e-12, atol=1e-13)
    return r, biases


@pytest.mark.parametrize("name", SOFTMAXES)
def test_slope(name):
    """By the formula, whatever hides a logit; uniform shares of what is not hidden are a bias."""
    fun, masked = SOFTMAXES[name]
    kept = KEPT | (not masked)
    p, p0 = shares(np.where(kept, U, -np.inf)), np.broadcast_to(kept / kept.sum(), U.shape)
    mean = np.where(kept, log_mean(p, p0), 0)
    expected = mean * M - mean / mean.sum(-1, keepdims=True) * (mean * M).sum(-1, keepdims=True)
    r, biases = closes(lambda u: fun(u) * M, U)
    np.testing.assert_allclose(r, U * expected, rtol=1e-11, atol=1e-14)
    uniform = sum(np.sum(b) for name, b in biases.items() if "div" in name)
    np.testing.assert_allclose(uniform, (p0 * M).sum(), rtol=1e-11)


OTHERS = {
    "log-sum-exp": lambda u: jax.nn.logsumexp(u, -1),
    "log softmax": lambda u: jax.nn.log_softmax(u) * M,
    "one more": lambda u: jnp.exp(u) / (1 + jnp.exp(u).sum(-1, keepdims=True)) * M,
    "log of one more": lambda u: jnp.log(2 + jnp.exp(u).sum(-1)),
    "a least total": lambda u: (
        jnp.exp(u) / jnp.maximum(jnp.exp(u).sum(-1, keepdims=True), 1e-9) * M
    ),
    "shared out again": lambda u: (
        (q := lax.optimization_barrier(jax.nn.softmax(u)) * KEPT) / q.sum(-1, keepdims=True) * M
    ),
    "segments": lambda u: segments(u.ravel()) * M.ravel(),
}


def segments(u):
    """Of the members of three groups that lie mixed."""
    group = np.arange(u.size) % 3
    e = jnp.exp(u)
    return e / jax.ops.segment_sum(e, group, 3)[group]


@pytest.mark.parametrize("name", OTHERS)
def test_slope_closes(name):
    """Without a baseline with the uniform shares, with one without them."""
    fun = OTHERS[name]
    closes(fun, U)
    x0 = jnp.asarray(U[::-1] / 3)
    for given in (RuleSet(), "compare_to_baseline"):
        compared = jaxrel.relevance(fun, given, baseline=x0)(U)
        np.testing.assert_allclose(compared.sum(), fun(U).sum() - fun(x0).sum(), rtol=1e-12)


def test_slope_is_the_gradient_where_logits_are_equal():
    """And near it, on both sides of where the logarithmic mean is a series."""
    for distance in (0.0, 1e-9, 1e-4, 0.249, 0.251):
        u = 3 + distance * U / 2
        fun = lambda u: jax.nn.softmax(u) * M  # noqa: E731
        found = jaxrel.relevance(fun, RuleSet()).multipliers(u)
        middle = jaxrel.relevance(fun, "gradient").multipliers(3 + distance * U / 4)
        np.testing.assert_allclose(found, middle, rtol=0, atol=distance**2 + 1e-14)


def test_slope_moves_with_its_logits():
    """Derivatives of relevance, by finite differences: apart, near, equal, hidden."""
    u = jnp.array(
        [[0.3, -0.9, 2.0, 0.1, 40.0], [0.5, 0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.2, 0.3, 9.0]]
    )
    for fun in (SOFTMAXES["masked by -inf"][0], OTHERS["one more"]):
        explain = jax.jit(jaxrel.relevance(lambda u, f=fun: f(u) * M, RuleSet()).multipliers)
        direction = jnp.asarray(U)
        _, found = jax.jvp(explain, (u,), (direction,))
        step = 1e-5
        expected = (explain(u + step * direction) - explain(u - step * direction)) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_slope_is_finite_where_the_softmax_is(dtype):
    """Saturation, masks in every depth, rows of which nothing is left."""
    low = [-np.inf, float(jnp.finfo(dtype).min), -1e4, -100.0, 0.0]
    u = jnp.asarray(np.array([low, low[::-1], [0, 0, 0, 0, 1e4], [-1e4] * 5]), dtype)
    rows = np.array([[1], [1], [1], [0]], bool) & np.ones(5, bool)
    for fun in (jax.nn.softmax, lambda u: jax.nn.softmax(u, where=rows), jax.nn.logsumexp):
        explain = jaxrel.relevance(lambda u, f=fun: f(u).astype(jnp.float32), RuleSet())
        m = explain.multipliers(u)
        assert m.dtype == dtype and bool(jnp.isfinite(m).all())
        derivative = jax.grad(lambda u, e=explain: e.multipliers(u).astype(jnp.float32).sum())(u)
        assert bool(jnp.isfinite(derivative).all())
