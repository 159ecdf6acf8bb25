"""Metrics of explanations whose score is known beforehand."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

import jaxrel
from jaxrel import metrics
from jaxrel.metrics import complexity

KEY = jax.random.key(0)
W = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 4, 1)))
X = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4, 4, 1)))
GXI = W * X


def linear(x: jax.Array) -> jax.Array:
    return (W * x).sum((1, 2, 3))


def compiled(fun: Callable[..., Any], *operands: Any) -> Any:
    """What a function gives, as one program: cheaper than one for each operation."""
    return jax.jit(fun)(*operands)


def test_faithfulness_of_what_is_exact():
    """Input times gradient of a linear function is what happens; its negative is the reverse."""

    @jax.jit
    def judge(r: jax.Array) -> jax.Array:
        found = [
            metrics.idsds(linear, X, r, cells=2),
            metrics.surrogate(r, metrics.part_drops(linear, X, patch=2), 2),
            metrics.faithfulness_estimate(linear, X, r, patch=(2, 1)),
            metrics.faithfulness_correlation(linear, X, r, size=3, runs=9, key=KEY, patch=(2, 1)),
            *metrics.sensitivity_n(linear, X, r, sizes=(1, 4, 7), key=KEY, runs=9, chunk=4).T,
        ]
        return jnp.stack(found)

    for sign in (1, -1):
        np.testing.assert_allclose(judge(sign * GXI), jnp.full((7, 5), sign))
    np.testing.assert_allclose(metrics.completeness(linear, X, GXI), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.completeness(linear, X, 3 * GXI), 2 * linear(X))
    x0 = jnp.ones((4, 4, 1))
    np.testing.assert_allclose(metrics.completeness(linear, X, W * (X - x0), x0), 0, atol=1e-12)


def test_infidelity_of_what_is_exact():
    noise = jax.random.normal(KEY, (7, *X.shape))
    mask = (noise > 0).astype(X.dtype)
    gradient = jnp.broadcast_to(W, X.shape)
    exact = compiled(
        lambda: (
            metrics.infidelity(linear, X, gradient, noise),
            metrics.infidelity(linear, X, GXI, mask * X, weights=mask),
            metrics.infidelity(linear, X, 7 * gradient, noise, normalize=True),
        )
    )
    np.testing.assert_allclose(jnp.stack(exact), 0, atol=1e-12)
    off = compiled(lambda: metrics.infidelity(linear, X, 2 * gradient, noise, chunk=3))
    np.testing.assert_allclose(off, ((W * noise).sum((2, 3, 4)) ** 2).mean(0))
    total = lambda r: metrics.infidelity(linear, X, r, noise).sum()  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.grad(total))(gradient), 0, atol=1e-12)


def test_monotonicity():
    positive, x = jnp.abs(W), jnp.abs(X)
    fun = lambda x: (positive * x).sum((1, 2, 3))  # noqa: E731
    np.testing.assert_array_equal(metrics.monotonicity(fun, x, positive * x), 1)
    np.testing.assert_array_equal(metrics.monotonicity(lambda x: -fun(x), x, x), 0)
    with pytest.raises(ValueError, match="monotonicity: one step of 16 gives all 16 parts"):
        metrics.monotonicity(fun, x, x, per_step=16)


def test_non_sensitivity_counts_both_kinds_of_error():
    fun = lambda x: x[:, 0] + 2 * x[:, 1]  # noqa: E731
    x = jnp.ones((2, 4))
    relevance = jnp.array([[1.0, 2.0, 0.0, 0.0], [1.0, 0.0, 3.0, -3.0]])
    np.testing.assert_array_equal(metrics.non_sensitivity(fun, x, relevance), [0, 3])


def test_invariances():
    """Slope does not depend on how a product of two is written; the gradient not on a shift."""
    one = lambda x: (x[:, 0] * x[:, 1]).sum()  # noqa: E731
    two = lambda x: jnp.einsum("nk,nk->n", x[:, :1], x[:, 1:]).sum()  # noqa: E731
    explain = lambda fun, rules: jaxrel.relevance(fun, rules)  # noqa: E731
    x = jnp.array([[2.0, 3.0], [0.5, -1.0]])
    same = metrics.implementation_invariance(explain(one, "slope"), explain(two, "slope"), x)
    np.testing.assert_allclose(same, 0, atol=1e-12)
    other = metrics.implementation_invariance(explain(one, "slope"), explain(two, "gradient"), x)
    np.testing.assert_allclose(other, 1)
    fun = lambda x: jnp.tanh(x).sum()  # noqa: E731
    shifted = lambda x: jnp.tanh(x - 2).sum()  # noqa: E731
    gradients = [jaxrel.relevance(f, "gradient").multipliers for f in (fun, shifted)]
    np.testing.assert_allclose(metrics.input_invariance(*gradients, x, 2.0), 0, atol=1e-12)
    times_input = [jaxrel.relevance(f, "gradient") for f in (fun, shifted)]
    assert bool((metrics.input_invariance(*times_input, x, 2.0) > 0.1).all())
    against = [jaxrel.relevance(f, baseline=b) for f, b in ((fun, 0.0), (shifted, 2.0))]
    np.testing.assert_allclose(metrics.input_invariance(*against, x, 2.0), 0, atol=1e-12)


def test_localisation():
    relevance = jnp.array([[3.0, 1.0, 0.0, -4.0], [1.0, 2.0, 5.0, 0.0]])
    mask = jnp.array([[1, 1, 0, 0]])
    score = {
        metrics.pointing_game: [1, 0],
        metrics.relevance_mass_accuracy: [np.inf, 3 / 8],
        metrics.relevance_rank_accuracy: [1, 0.5],
        metrics.auc: [1, 0.5],
        metrics.attribution_localisation: [1, 3 / 8],
    }
    for metric, expected in score.items():
        np.testing.assert_allclose(compiled(metric, relevance, mask), expected)
        none = compiled(metric, relevance, jnp.zeros((2, 4)))
        assert bool(jnp.isnan(none).all())  # nothing to be found
    influence = metrics.top_k_intersection(relevance, mask, 1, concept_influence=True)
    np.testing.assert_allclose(influence, [2, 0])
    weighted = metrics.attribution_localisation(relevance, mask, weighted=True)
    np.testing.assert_allclose(weighted, [2, 3 / 4])
    assert bool(jnp.isnan(metrics.auc(relevance, jnp.ones((2, 4)))).all())


@pytest.mark.usefixtures("default_precision")
def test_auc_of_large_pictures_in_float32():
    relevance = jax.random.normal(KEY, (1, 224, 224))
    mask = jnp.zeros((1, 224, 224)).at[:, 50:150, 50:150].set(1)
    inside, outside = (np.asarray(relevance)[np.asarray(mask) == k] for k in (1, 0))
    expected = stats.mannwhitneyu(inside, outside).statistic / (inside.size * outside.size)
    np.testing.assert_allclose(metrics.auc(relevance, mask), expected, atol=1e-5)


def test_zeros_of_either_sign_tie():
    """`lax.top_k` would put -0 behind 0."""
    relevance = jnp.array([[-0.0, 0.0, 1.0, 0.0]])
    mask = jnp.array([[1, 0, 1, 0]])
    np.testing.assert_allclose(metrics.top_k_intersection(relevance, mask, 2), 1)
    np.testing.assert_allclose(metrics.relevance_rank_accuracy(relevance, mask), 1)


def test_complexity():
    one, alike = jnp.zeros((1, 8)).at[0, 3].set(-2.0), jnp.full((1, 8), 0.5)
    nothing = jnp.zeros((1, 8))
    both = jnp.concatenate([one, alike, nothing])
    few = stats.entropy([7 / 8, 1 / 8])
    thresholds = jnp.array([3.0, 0.1, -1.0])
    scores: list[tuple[Callable, list[float]]] = [
        (metrics.entropy, [0, np.log(8), 0]),
        (metrics.gini, [1 - 1 / 8, 0, 0]),
        (metrics.effective_complexity, [1, 8, 0]),
        (lambda r: metrics.effective_complexity(r, thresholds), [0, 8, 8]),
        (lambda r: metrics.histogram_entropy(r, 4), [few, 0, 0]),
    ]
    for metric, expected in scores:
        np.testing.assert_allclose(compiled(metric, both), expected, atol=1e-12)
    slopes = compiled(jax.grad(lambda r: metrics.entropy(r).sum()), both)
    assert bool(jnp.isfinite(slopes).all())


def test_file_size_is_that_of_a_picture():
    noise = jax.random.normal(KEY, (1, 20, 30))
    smooth = jnp.ones((1, 20, 30)) * jnp.linspace(0, 1, 30)
    sizes = metrics.file_size(jnp.concatenate([noise, smooth]))
    assert sizes[0] > 3 * sizes[1] > 100
    picture = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    data = complexity._png(picture)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)


def test_similarities_agree_with_scipy(rng):
    a, b = rng.integers(-3, 4, (6, 11)), rng.normal(size=(6, 11))
    for metric, peer in ((metrics.pearson, stats.pearsonr), (metrics.spearman, stats.spearmanr)):
        expected = [peer(*rows).statistic for rows in zip(a, b, strict=True)]
        program = jax.jit(metric)
        np.testing.assert_allclose(program(a.astype(float), b), expected, atol=1e-12)
        np.testing.assert_array_equal(program(jnp.full((6, 11), 0.1), b), 0)
        np.testing.assert_allclose(program(1e200 * b, b), 1)
    with pytest.raises(ValueError, match=r"a \(6, 11\) and b \(6, 3\) differ"):
        metrics.pearson(b, b[:, :3])


def test_ssim_of_pictures(rng):
    a = rng.normal(size=(2, 9, 8))
    np.testing.assert_allclose(compiled(metrics.ssim, a, a), 1)
    nothing = jnp.zeros((1, 7))
    np.testing.assert_allclose(compiled(metrics.ssim, nothing, nothing), 1)
    windows = list(itertools.product(range(3), range(2)))
    b = rng.normal(size=(2, 9, 8))
    extent = max(a[0].max(), b[0].max()) - min(a[0].min(), b[0].min())
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    scores = []
    for i, j in windows:
        p, q = (v[0, i : i + 7, j : j + 7].ravel() for v in (a, b))
        (vp, c), (_, vq) = np.cov(p, q)
        means = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
        scores.append(means * (2 * c + c2) / (vp + vq + c2))
    np.testing.assert_allclose(compiled(metrics.ssim, a, b)[0], np.mean(scores))
    with pytest.raises(ValueError, match=r"a window of 7 does not fit \(2, 9, 6\)"):
        metrics.ssim(a[..., :6], b[..., :6])


def test_robustness_of_a_linear_explanation():
    noise = jax.random.normal(KEY, (4, 5, 16))
    x = X.reshape(5, 16)
    explain = lambda x: 3 * x  # noqa: E731
    ratio = np.linalg.norm(noise, axis=-1) / np.linalg.norm(x, axis=-1)
    scores = {
        metrics.local_lipschitz: 3,
        metrics.max_sensitivity: ratio.max(0),
        metrics.average_sensitivity: ratio.mean(0),
        metrics.relative_input_stability: 1,
    }
    for metric, expected in scores.items():
        found = compiled(lambda x, noise, m=metric: m(explain, x, noise), x, noise)
        np.testing.assert_allclose(found, expected)
    keep = np.ones((4, 5), bool)
    keep[:, 0] = keep[1:, 1] = False
    for metric in (metrics.max_sensitivity, metrics.average_sensitivity):
        found = compiled(lambda x, m=metric: m(explain, x, noise, keep=keep), x)
        assert bool(jnp.isnan(found[0]))
        np.testing.assert_allclose(found[1], ratio[0, 1])
    nothing = metrics.max_sensitivity(lambda x: 0 * x + 1e-9 * (x > 0), 0 * x, 0 * noise)
    np.testing.assert_array_equal(nothing, 0)


def test_randomisation():
    """An explanation that does not look at the network stays as it is; one that does, changes."""
    params = {"a": {"w": jnp.arange(1.0, 5.0)}, "b": {"w": jnp.ones(4)}}
    fresh = {"a": {"w": jnp.array([4.0, -3.0, 2.0, -1.0])}, "b": {"w": -jnp.ones(4)}}
    x = jnp.ones((2, 4))

    def cascade(explain: Callable, **options: Any) -> jax.Array:
        return compiled(
            lambda x: metrics.cascading(explain, params, fresh, x, ["b", "a"], **options), x
        )

    blind = cascade(lambda params, x: x * jnp.arange(4.0))
    np.testing.assert_array_equal(blind, jnp.ones((3, 2)))
    sees = lambda params, x: x * params["a"]["w"] * params["b"]["w"]  # noqa: E731
    spearman = stats.spearmanr([1, 2, 3, 4], [4, -3, 2, -1]).statistic
    found = cascade(sees)
    np.testing.assert_allclose(found[:, 0], [1, -1, -spearman], atol=1e-12)
    alone = cascade(sees, together=False)
    np.testing.assert_allclose(alone[:, 0], [1, -1, spearman], atol=1e-12)
    others = metrics.other_classes(KEY, jnp.arange(100) % 3, 3)
    assert bool((others != jnp.arange(100) % 3).all()) and set(np.asarray(others)) == {0, 1, 2}


def test_sufficiency_does_not_mind_what_is_constant():
    """Where Quantus divides by a variance of 0."""
    relevance = jnp.array([[0.0, 1.0], [0.0, 1.1], [0.0, 5.0], [0.0, 5.1]])
    found = metrics.sufficiency(relevance, jnp.array([0, 0, 1, 2]), threshold=0.2)
    np.testing.assert_allclose(found, [1, 1, 0, 0])


def test_the_surrogate_trains_rules():
    """Gradient ascent on it through a relevance makes that more faithful; a constant one stays."""
    w = jnp.asarray(np.random.default_rng(3).normal(size=(16, 6)))

    def fun(x: jax.Array) -> jax.Array:
        return jnp.tanh(jax.nn.relu(x.reshape(len(x), -1) @ w - 0.5)).sum(-1)

    drops = compiled(lambda x: metrics.part_drops(fun, x, patch=2), X)

    @jax.jit
    def faithful(gamma: jax.Array) -> jax.Array:
        rules = jaxrel.RuleSet(matmul=jaxrel.rules.Gamma(gamma))
        return metrics.surrogate(jaxrel.relevance(fun, rules)(X), drops, 2).mean()

    gamma = jnp.array(0.7)
    slope = jax.grad(faithful)(gamma)
    numeric = (faithful(gamma + 1e-5) - faithful(gamma - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)
    assert faithful(gamma + 0.1 * jnp.sign(slope)) > faithful(gamma)
    flat = jax.grad(lambda r: metrics.surrogate(r, drops, 2).sum())(jnp.ones_like(X))
    np.testing.assert_array_equal(flat, 0)
