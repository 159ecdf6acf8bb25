"""What holds is found however it is written, and what does not hold is not claimed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxrel
from jaxrel import RuleSet, relevance, rules
from tests.plan.test_plan import KEY, kinds, steps

X = jax.random.normal(KEY, (3, 4))
X0 = jax.random.normal(jax.random.key(1), (3, 4))
W = jax.random.normal(jax.random.key(2), (4, 4))
C = jax.random.normal(jax.random.key(3), (4,))
MASK = jnp.tril(jnp.ones((3, 4)))
SEGMENTS = jnp.array([0, 1, 0])


def complete(fun, x=X, x0=X0):
    found = relevance(fun, baseline=x0)(x).sum()
    np.testing.assert_allclose(found, (fun(x) - fun(x0)).sum(), rtol=1e-10, atol=1e-12)


def same(fun, other, names=("slope", "epsilon_plus", "cp_lrp"), x=X):
    for rule_set in (*names, RuleSet(matmul=rules.AlphaBeta()), RuleSet(matmul=rules.Epsilon(0.3))):
        np.testing.assert_allclose(
            relevance(fun, rule_set)(x), relevance(other, rule_set)(x), rtol=1e-11, atol=1e-12
        )


def exponentials(total):
    def fun(x):
        e = jnp.exp(x)
        return e / total(e)

    return fun


SHARES_OF_OTHERS = {
    "the next row": exponentials(lambda e: jnp.roll(e.sum(-1, keepdims=True), 1, 0)),
    "a window": exponentials(lambda e: e[:, 1:3].sum(-1, keepdims=True)),
    "another mask": exponentials(lambda e: (e * MASK).sum(-1, keepdims=True)),
    "columns for rows": lambda x: exponentials(lambda e: e.sum(0)[:, None])(x[:, :3]),
    "weighted": exponentials(lambda e: (e * C).sum(-1, keepdims=True)),
    "largest": exponentials(lambda e: e.max(-1, keepdims=True)),
}


@pytest.mark.parametrize("name", SHARES_OF_OTHERS)
def test_a_share_of_anothers_total_is_no_softmax(name):
    assert "softmax" not in kinds(SHARES_OF_OTHERS[name], X)
    complete(SHARES_OF_OTHERS[name])


def renormalised(x):
    p = jax.nn.softmax(x) * MASK
    return p / p.sum(-1, keepdims=True)


def by_segments(x):
    e = jnp.exp(x)
    return e / jax.ops.segment_sum(e, SEGMENTS, 2)[SEGMENTS]


SHARES = {
    "ones": (exponentials(lambda e: e @ jnp.ones((4, 1))), jax.nn.softmax),
    "einsum with ones": (
        exponentials(lambda e: jnp.einsum("ij,j->i", e, jnp.ones(4))[:, None]),
        jax.nn.softmax,
    ),
    "by its logarithm": (lambda x: jnp.exp(jax.nn.log_softmax(x)), jax.nn.softmax),
    "minus logsumexp": (
        lambda x: jnp.exp(x - jax.nn.logsumexp(x, axis=-1, keepdims=True)),
        jax.nn.softmax,
    ),
    "masked and renormalised": (
        renormalised,
        lambda x: jax.nn.softmax(jnp.where(MASK > 0, x, -jnp.inf)),
    ),
    "a checkpoint between": (
        lambda x: jax.checkpoint(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(x)),
        jax.nn.softmax,
    ),
    "segments": (
        by_segments,
        lambda x: jnp.stack(
            [jax.nn.softmax(x[::2], 0)[0], jnp.ones(4), jax.nn.softmax(x[::2], 0)[1]]
        ),
    ),
}


@pytest.mark.parametrize("name", SHARES)
def test_softmax_however_written(name):
    fun, usual = SHARES[name]
    assert "softmax" in kinds(fun, X)
    value = lambda f: lambda x: (f(x) * (x @ W)).sum(-1)  # noqa: E731
    np.testing.assert_allclose(fun(X), usual(X), rtol=1e-12)
    if name != "segments":
        same(value(fun), value(usual))
    complete(value(fun))


def test_attention_normalised_after_its_product():
    def deferred(x):
        e = jnp.exp(x @ x.T)
        return (e @ x) / e.sum(-1, keepdims=True)

    def batched(x):
        e = jnp.exp(jnp.einsum("hd,gd->gh", x, x))
        return jnp.einsum("gh,hd->gd", e, x) / jnp.einsum("gh->g", e)[:, None]

    usual = lambda x: jax.nn.softmax(x @ x.T) @ x  # noqa: E731
    for fun in (deferred, batched):
        np.testing.assert_array_equal(jaxrel.rewrite(fun, "slope")(X), fun(X))
        same(fun, usual, ("slope", "attn_lrp", "cp_lrp"))
        complete(fun)


QUOTIENTS = {
    "reciprocal": lambda a, b: a * (1 / b),
    "first": lambda a, b: (1 / b) * a,
    "power": lambda a, b: a * b**-1,
    "jnp.reciprocal": lambda a, b: a * jnp.reciprocal(b),
    "scaled": lambda a, b: a * (3 / b) / 3,
    "root of the square": lambda a, b: a * lax.rsqrt(b * b),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_quotients_however_written(name):
    total = lambda x: 2 + jnp.cos(x).sum(-1, keepdims=True) ** 2  # noqa: E731
    fun = lambda x: QUOTIENTS[name](x @ W, total(x))  # noqa: E731
    same(fun, lambda x: (x @ W) / total(x))
    complete(fun)


def rms(x):
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def test_a_product_with_a_normalised_value_is_no_normalization():
    for gate in (lambda x: jax.nn.sigmoid(x @ W), lambda x: x[:, ::-1], lambda x: x @ W):
        found = kinds(lambda x: gate(x) * rms(x), X)  # noqa: B023
        assert found[-1].startswith("product") and found.count("normalization:scale") == 1


def test_a_statistic_keeps_its_other_readers():
    def fun(x):
        norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jnp.concatenate([x / norm, 5 * norm], -1).sum(-1)

    found = relevance(fun, "slope")(X)
    np.testing.assert_allclose(found.sum(-1), fun(X), rtol=1e-12)


ANNOTATIONS = {
    "name": lambda z: checkpoint_name(z, "z"),
    "barrier": lax.optimization_barrier,
    "cast": lambda z: z.astype(jnp.float64),
    "precision": lambda z: lax.reduce_precision(z, 11, 52),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_change_nothing(name):
    mark = ANNOTATIONS[name]
    same(lambda x: jnp.tanh(mark(x @ W) + C), lambda x: jnp.tanh(x @ W + C))
    same(lambda x: (lambda h: h * jax.nn.sigmoid(mark(h)))(x @ W), lambda x: jax.nn.silu(x @ W))


def test_observers_change_nothing():
    def observed(x):
        h = x @ W
        jax.debug.callback(lambda _: None, h)
        return jnp.tanh(h + C), h

    found = relevance(observed, RuleSet(matmul=rules.AlphaBeta()), has_aux=True)(X)[0]
    plain = relevance(lambda x: jnp.tanh(x @ W + C), RuleSet(matmul=rules.AlphaBeta()))(X)
    np.testing.assert_allclose(found, plain, rtol=1e-12)


CHECKPOINTED = {
    "the layer": lambda x: jnp.tanh(jax.checkpoint(lambda x: x @ W)(x) + C),
    "its bias": lambda x: jax.checkpoint(lambda z: jnp.tanh(z + C))(x @ W),
    "nested": jax.checkpoint(lambda x: jax.checkpoint(lambda z: jnp.tanh(z + C))(x @ W)),
    "the function": lambda x: jax.checkpoint(jnp.tanh)(x @ W + C),
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_borders_of_checkpoints_change_nothing(name):
    same(CHECKPOINTED[name], lambda x: jnp.tanh(x @ W + C))


def test_the_sign_of_a_layer_is_its_weights():
    same(lambda x: C - x @ W, lambda x: x @ -W + C)
    same(lambda x: -(x @ W - C), lambda x: x @ -W + C)
    same(lambda x: C - (x @ W).reshape(-1, 2, 2).reshape(-1, 4), lambda x: x @ -W + C)


def test_scales_by_contraction_are_scales():
    same(lambda x: jnp.einsum("te,e->te", x @ W, C) + C, lambda x: (x @ W) * C + C)
    assert kinds(lambda x: jnp.einsum("te,e->te", x, C) @ W, X) == ["matmul:dense"]


OPERATORS = {
    "resize": lambda x: jax.image.resize(x, (3, 8), "linear"),
    "flip": lambda x: x @ jnp.eye(4)[::-1],
    "differences": lambda x: x @ (jnp.eye(4) - jnp.eye(4, k=1)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_matrices_of_the_program_are_no_layers(name):
    weights = jnp.concatenate([W, W])[: OPERATORS[name](X).shape[1]]
    found = [s for s in steps(lambda x: OPERATORS[name](x) @ weights, X) if s.kind == "matmul"]
    assert len(found) == 1 and found[0].first


def test_names_are_those_of_steps():
    fun = lambda x: jax.nn.gelu(x @ W + C) + x  # noqa: E731
    named = {name: [s.kind for s in steps(fun, X) if name in s.names] for name in ("add", "mul")}
    assert named == {"add": ["sum"], "mul": []}
    assert [s.kind for s in steps(fun, X) if "dot_general" in s.names] == ["matmul"]


def own(forward, backward):
    fun = jax.custom_vjp(forward)
    fun.defvjp(lambda z: (forward(z), z), lambda z, g: (backward(z, g),))
    return fun


OWN = {
    "reversal": own(lambda z: z, lambda z, g: -g),
    "rounding": own(lambda z: jnp.round(z), lambda z, g: g),
    "spike": own(lambda z: (z > 0.1).astype(z.dtype), lambda z, g: g / (1 + abs(z))),
    "quantised sum": own(
        lambda z: jnp.round(4 * z).sum(-1, keepdims=True) / 4, lambda z, g: g + 0 * z
    ),
    "layer": own(lambda z: z @ W + C, lambda z, g: 7 * g),
}


@pytest.mark.parametrize("name", OWN)
def test_functions_with_a_derivative_of_their_own_close_by_value(name):
    fun = lambda x: jnp.tanh(OWN[name](x @ W)).sum(-1)  # noqa: E731
    found, biases = relevance(fun, "slope", biases="total")(X)
    np.testing.assert_allclose(found.sum() + biases, fun(X).sum(), rtol=1e-10)
    complete(fun)
    jitted = jax.jit(relevance(fun, "gradient"))(X)
    np.testing.assert_array_equal(
        jitted, jax.jit(lambda x: x * jax.grad(lambda x: fun(x).sum())(x))(X)
    )


def test_a_factor_is_read_once():
    def twice(x):
        u = 2 * x
        return u * jax.nn.sigmoid(u) / 2

    def thrice(x):
        u = x / 3
        return u * u * jnp.tanh(u)

    for fun in (twice, thrice):
        np.testing.assert_allclose(relevance(fun, "slope")(X), fun(X), rtol=1e-12)


def test_casts_to_integers_are_no_identities():
    for fun in (lambda x: x - x.astype(int), lambda x: jnp.where(x.astype(int) > 0, x, 0.0)):
        complete(fun, 3 * X, X0)


def test_a_call_on_one_value_twice_is_a_function_of_that():
    counts = jnp.array([0.0, 4.0, 0.25])
    for fun in (jax.scipy.special.entr, lambda x: jax.scipy.special.xlogy(x, x)):
        assert kinds(fun, counts) == ["nonlinearity"]
        np.testing.assert_allclose(relevance(fun, "slope")(counts), fun(counts), rtol=1e-12)
        complete(fun, counts, jnp.zeros(3))


def test_a_value_and_its_stopped_copy_have_no_slope_by_euler():
    fun = lambda x: x + lax.stop_gradient(x)  # noqa: E731
    assert not any(s.homogeneous for s in steps(fun, X))
    complete(lambda x: fun(jnp.tanh(x)))
