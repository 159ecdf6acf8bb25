"""Rules against a baseline, restated densely: softmax at its limits, maxima, rules for matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxrel
from jaxrel import First, Kind, RuleSet, rules, rulesets
from jaxrel.errors import RuleError

U = np.random.default_rng(0).normal(size=5)
U0 = np.random.default_rng(1).normal(size=5)
WEIGHTS = np.array([3.0, -1.0, 0.5, 2.0, -4.0])


def log_shares(u: np.ndarray) -> np.ndarray:
    """Logarithms of softmax, in extended precision."""
    u = u.astype(np.longdouble) - u.max()
    return u - np.log(np.exp(u).sum())


def log_mean(v: np.ndarray, v0: np.ndarray) -> np.ndarray:
    """(exp v - exp v0) / (v - v0), in extended precision also where the two are close."""
    half = (v - v0) / 2
    small = np.abs(half) < 1e-3
    near = np.exp((v + v0) / 2) * (1 + half**2 / 6 + half**4 / 120)
    return np.where(small, near, (np.exp(v) - np.exp(v0)) / np.where(small, 1, v - v0))


def softmax_relevance(u: np.ndarray, u0: np.ndarray, m: np.ndarray, log: bool) -> np.ndarray:
    """R of the rule LogMean: of softmax(u) . m, or (log) of log sum exp(u)."""
    means = log_mean(log_shares(u), log_shares(u0))
    weights = means / means.sum()
    multiplier = weights if log else means * m - weights * (means * m).sum()
    return ((u.astype(np.longdouble) - u0) * multiplier).astype(np.float64)


@pytest.mark.parametrize("distance", [1e4, 700.0, 20.0, 1.0, 1e-2, 1e-4, 1e-7, 1e-10])
def test_softmax(distance: float) -> None:
    """Natural and binary, softmax and log-sum-exp, in units of the distance."""
    u, u0 = jnp.asarray(U0 + distance * U), jnp.asarray(U0)
    u, u0 = (u, u0) if distance < 1e3 else (jnp.asarray(distance * U), jnp.asarray(-distance * U))

    def binary(u: jax.Array) -> jax.Array:
        e = jnp.exp2(u - lax.stop_gradient(u.max()))
        return e / e.sum()

    found = jaxrel.relevance(lambda u: nn.softmax(u) @ WEIGHTS, baseline=u0)(u)
    expected = softmax_relevance(np.asarray(u), np.asarray(u0), WEIGHTS, log=False)
    size = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * size)
    twice = jaxrel.relevance(lambda u: binary(u / np.log(2)) @ WEIGHTS, baseline=u0)(u)
    np.testing.assert_allclose(twice, expected, rtol=0, atol=1e-9 * size)
    found = jaxrel.relevance(nn.logsumexp, baseline=u0)(u)
    expected = softmax_relevance(np.asarray(u), np.asarray(u0), WEIGHTS, log=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_softmax_at_its_limits() -> None:
    """A number added to all logits, equal logits, a single one, masks."""
    fun = lambda u: nn.softmax(u) @ WEIGHTS  # noqa: E731
    expected = jaxrel.relevance(fun, baseline=U0)(jnp.asarray(U)) / (U - U0)
    moved = jaxrel.relevance(fun, baseline=U0 - 20)(jnp.asarray(U)) / (U - U0 + 20)
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    _, pullback = jaxrel.relevance_vjp(fun, jnp.ones(5), baseline=(2.0,))
    with pytest.warns(jaxrel.LargeRelevanceWarning):  # the value does not change
        np.testing.assert_allclose(pullback(1.0)[0].sum(), 0, atol=1e-15)
    assert jaxrel.relevance(lambda u: nn.softmax(u).sum(), baseline=3.0)(jnp.ones(1)) == 0
    kept = jnp.array([True, False, True, True, False])
    masks: list[Callable] = [
        lambda u: nn.softmax(jnp.where(kept, u, -jnp.inf)) @ WEIGHTS,
        lambda u: nn.softmax(jnp.where(kept, u, -1e30)) @ WEIGHTS,
        lambda u: nn.softmax(u, where=kept) @ WEIGHTS,
    ]
    places = np.flatnonzero(kept)
    expected = np.zeros(5)
    expected[places] = softmax_relevance(U[places], U0[places], WEIGHTS[places], log=False)
    for masked in masks:
        found = jaxrel.relevance(masked, baseline=U0)(jnp.asarray(U))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_a_mask_made_of_the_input() -> None:
    """What is masked at one point only is the limit of ever lower logits, -inf included."""

    def explain(low: float) -> jax.Array:
        routed = lambda u: nn.softmax(jnp.where(u > 0, u, low)) @ WEIGHTS  # noqa: E731
        return jaxrel.relevance(routed, baseline=U0)(jnp.asarray(U))

    assert ((U > 0) != (U0 > 0)).any()
    np.testing.assert_allclose(explain(-jnp.inf), explain(-1e30), rtol=1e-12)
    np.testing.assert_allclose(explain(-1e9), explain(-1e30), rtol=1e-6, atol=1e-6)


def test_soft_maxima_between_distant_values() -> None:
    """sum(R) is the change of (1/beta) log mean exp(beta a), far beyond the range of exp."""
    a, a0 = jnp.array([3.0, -2000.0, 40.0]), jnp.array([-900.0, 5.0, 2.0])
    for beta in (0.1, 1.0, 30.0):
        explain = jaxrel.relevance(
            jnp.max, rulesets.compare_to_baseline(rules.SoftmaxLimit(beta)), baseline=a0
        )
        change = (nn.logsumexp(beta * a) - nn.logsumexp(beta * a0)) / beta
        np.testing.assert_allclose(explain(a).sum(), change, rtol=1e-12)
    hard = rulesets.compare_to_baseline(rules.SoftmaxLimit(jnp.array(jnp.inf)))
    np.testing.assert_array_equal(jaxrel.relevance(jnp.max, hard, baseline=a0)(a), [0, 0, 35])


def test_the_winner_takes_all() -> None:
    """At beta = inf: the winner at x where the maximum rises, at the baseline where it falls."""
    x, x0 = jnp.array([4.0, 1.0]), jnp.array([0.0, 2.0])
    explain = lambda x, x0: jaxrel.relevance(  # noqa: E731
        lambda x: jnp.maximum(x[0], x[1]), "deeplift_rescale", baseline=x0
    )(x)
    np.testing.assert_array_equal(explain(x, x0), [2, 0])
    np.testing.assert_array_equal(explain(x0, x), [-2, 0])
    np.testing.assert_array_equal(explain(jnp.ones(2), jnp.zeros(2)), [1, 0])  # ties: the first
    np.testing.assert_array_equal(explain(jnp.ones(2), jnp.ones(2)), [0, 0])


# One affine layer, tanh, another; and what each rule for matrices makes of differences.
RNG = np.random.default_rng(2)
W1, W2, B1 = RNG.normal(size=(6, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=4)
X, X0 = RNG.normal(size=(2, 6))

EPS = 0.05
Layer = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def stable(z: np.ndarray) -> np.ndarray:
    """S(z) = z + eps sgn+(z)."""
    return z + EPS * np.where(z < 0, -1, 1)


def alpha_beta(alpha: float, beta: float) -> Layer:
    """Relevance by positive and negative contributions."""

    def layer(d: np.ndarray, w: np.ndarray, z: np.ndarray, r: np.ndarray) -> np.ndarray:
        parts = d[:, None] * w
        p, n = np.maximum(parts, 0), np.minimum(parts, 0)
        return (alpha * p / stable(p.sum(0)) - beta * n / stable(n.sum(0))) @ r

    return layer


def gamma(d: np.ndarray, w: np.ndarray, z: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Relevance by contributions with positive weights favoured."""
    changed = w + 0.3 * np.maximum(w, 0)
    return (d[:, None] * changed / stable(d @ changed)) @ r


LAYERS: dict[str, tuple[rules.RuleFunction, Layer]] = {
    "epsilon": (rules.Epsilon(EPS), lambda d, w, z, r: (d[:, None] * w / stable(z)) @ r),
    "z_plus": (rules.ZPlus(EPS), alpha_beta(1, 0)),
    "alpha_beta": (rules.AlphaBeta(2.0, 1.0, EPS), alpha_beta(2, 1)),
    "gamma": (rules.Gamma(0.3, EPS), gamma),
    "flat": (
        rules.Flat(EPS),
        lambda d, w, z, r: (np.ones_like(w) / stable(np.full(w.shape[1], float(len(w))))) @ r,
    ),
    "w_square": (rules.WSquare(EPS), lambda d, w, z, r: (w**2 / stable((w**2).sum(0))) @ r),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rules_for_matrices(name: str) -> None:
    """Relevance in relevance form through a net, layer by layer, of differences."""
    rule, layer = LAYERS[name]
    fun = lambda x: jnp.tanh(x @ W1 + B1) @ W2 + 0.7  # noqa: E731
    chosen = rulesets.compare_to_baseline() | {First(): rule}
    found = jaxrel.relevance(fun, chosen, baseline=X0)(jnp.asarray(X))
    z, z0 = X @ W1 + B1, X0 @ W1 + B1
    r = ((np.tanh(z) - np.tanh(z0))[:, None] * W2).sum(1)
    expected = layer(X - X0, W1, z - z0, r)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    moved = jaxrel.relevance(lambda x: fun(x) + 100, chosen, baseline=X0)(jnp.asarray(X))
    np.testing.assert_allclose(moved, found, rtol=1e-12)


def test_rules_without_a_formula() -> None:
    """Those that mean nothing for differences, and those that need a baseline, say so."""
    x = jnp.asarray(X)
    fun = lambda x: jnp.max(nn.softmax(jnp.tanh(x @ W1)) / (2 + x[:4] ** 2))  # noqa: E731
    complete = rulesets.compare_to_baseline()
    for rule in (rules.Radial(), rules.Shapley()):
        with pytest.raises(RuleError, match=r"no formula with a baseline.*maximum step"):
            jaxrel.relevance(fun, complete | {Kind("maximum"): rule}, baseline=X0)(x)
    with pytest.raises(RuleError, match="ZBox.* no formula with a baseline.*matmul step"):
        jaxrel.relevance(fun, complete | {First(): rules.ZBox(-1.0, 1.0)}, baseline=X0)(x)
    needing = {
        "Rescale": RuleSet(nonlinearity=rules.Rescale()),
        "Midpoint": RuleSet(quotient=rules.Midpoint()),
        "LogMean": RuleSet(softmax=rules.LogMean()),
        "CrossMax": RuleSet(maximum=rules.CrossMax()),
    }
    for name, rule_set in needing.items():
        with pytest.raises(RuleError, match=rf"{name}\(\) has no formula without a baseline"):
            jaxrel.relevance(fun, rule_set)(x)


def test_summary_of_rules_that_need_a_baseline() -> None:
    table = jaxrel.summary(jnp.tanh, baseline=0)(jnp.asarray(X))
    assert [row.rule for row in table] == ["Rescale()"]
    with pytest.raises(RuleError, match="without a baseline"):
        jaxrel.summary(jnp.tanh, "compare_to_baseline")(jnp.asarray(X))


def test_branches() -> None:
    """Another branch at the baseline, and under vmap each example its own.

    ``vmap`` of the function itself makes a selection of ``cond``, where both branches are there to
    take part in the jump: as complete, not the same.
    """
    x, x0 = jnp.asarray([[1.0, 2.0], [-3.0, 1.0]]), jnp.asarray([[-2.0, 1.0], [-1.0, -2.0]])

    def example(x: jax.Array) -> jax.Array:
        return lax.cond(x.sum() > 0, lambda x: (x**2).sum(), lambda x: jnp.tanh(x).sum(), x)

    def explain(x: jax.Array, x0: jax.Array) -> jax.Array:
        return jaxrel.relevance(example, baseline=x0)(x)

    each = jnp.stack([explain(*pair) for pair in zip(x, x0, strict=True)])
    change = jax.vmap(example)(x) - jax.vmap(example)(x0)
    np.testing.assert_allclose(each.sum(1), change, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(explain))(x, x0), each, rtol=1e-12)
    batch = jaxrel.relevance(jax.vmap(example), baseline=x0)(x)
    np.testing.assert_allclose(batch.sum(1), change, rtol=1e-12)
    pairs = jax.vmap(jax.vmap(explain, (None, 0)), (0, None))(x, x0)
    np.testing.assert_allclose(pairs[[0, 1], [0, 1]], each, rtol=1e-12)
    spoiled = jaxrel.relevance(jax.vmap(example), baseline=x0)(x.at[1].set(jnp.nan))
    np.testing.assert_array_equal(spoiled[0], batch[0])
