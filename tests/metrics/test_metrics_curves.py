"""Curves, parts and replacements, where the right answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import metrics

W = jnp.array([[4.0, -1.0, 2.0, -3.0]])
X = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, -1.0, 0.5]])


def linear(x: jax.Array) -> jax.Array:
    return (W * x).sum(-1)


def test_orders_of_a_linear_function():
    """Of what adds up exactly, most relevant first is the steepest descent, and least the rise."""
    relevance = W * X  # 4 -1 2 -3 | 4 -2 -2 -1.5
    morf = metrics.pixel_flipping(linear, X, relevance, steps=4)
    np.testing.assert_allclose(morf, [[2, -2, -4, -3, 0], [-1.5, -5.5, -4, -2, 0]])
    lerf = metrics.pixel_flipping(linear, X, relevance, steps=4, order="lerf")
    np.testing.assert_allclose(lerf, [[2, 5, 6, 4, 0], [-1.5, 0.5, 2.5, 4, 0]])
    np.testing.assert_allclose(metrics.aopc(morf), [2 + 7 / 5, -1.5 + 13 / 5])
    np.testing.assert_allclose(metrics.abpc(morf, lerf), [(17 + 7) / 5, (5.5 + 13) / 5])
    np.testing.assert_allclose(metrics.area(morf), [(1 - 2 - 4 - 3) / 4, (-0.75 - 11.5) / 4])
    np.testing.assert_allclose(metrics.deletion(linear, X, relevance, steps=4), morf)
    inserted = metrics.insertion(linear, X, relevance, steps=4)
    np.testing.assert_allclose(inserted, [[0, 4, 6, 5, 2], [0, 4, 2.5, 0.5, -1.5]])


def test_ties_go_by_position_in_both_directions():
    """Zeros of either sign tie too."""
    relevance = jnp.array([[0.0, -0.0, 0.0, -0.0]] * 2)
    for order in ("morf", "lerf"):
        curve = metrics.pixel_flipping(linear, X, relevance, steps=4, order=order)
        np.testing.assert_allclose(curve, [[2, -2, -1, -3, 0], [-1.5, -5.5, -3.5, -1.5, 0]])


def test_a_random_order_is_another_for_each_example_and_key():
    x = jnp.ones((40, 4))
    flip = lambda key: metrics.pixel_flipping(  # noqa: E731
        linear, x, x, steps=4, order="random", key=key
    )
    first, second = flip(jax.random.key(0)), flip(jax.random.key(1))
    assert len(np.unique(first[:, 1])) == 4
    assert not np.array_equal(first, second)


def test_steps():
    """All are gone after the last one, whether or not they divide the parts."""
    calls = X @ jnp.ones((4, 10))
    relevance = jnp.broadcast_to(jnp.arange(10.0, 0, -1), (2, 10))
    number = lambda x: (x == 0).sum(-1)  # noqa: E731
    count = lambda **options: metrics.pixel_flipping(number, calls, relevance, **options)[0]  # noqa: E731
    np.testing.assert_array_equal(count(steps=3), [0, 3, 6, 10])
    np.testing.assert_array_equal(count(steps=4, per_step=3), [0, 3, 6, 9, 10])
    np.testing.assert_array_equal(count(steps=2, per_step=3), [0, 3, 6])
    np.testing.assert_array_equal(count(steps=4, per_step=3, chunk=3), [0, 3, 6, 9, 10])


def test_a_relevance_without_channels_takes_pixels_with_all_of_them():
    x = jnp.arange(1.0, 25.0).reshape(2, 2, 2, 3)
    relevance = jnp.array([[[1.0, 4.0], [3.0, 2.0]]] * 2)
    fun = lambda x: x.sum((1, 2, 3))  # noqa: E731
    curve = metrics.pixel_flipping(fun, x, relevance, steps=4)
    np.testing.assert_allclose(curve[0], [78, 78 - 15, 78 - 15 - 24, 6, 0])
    np.testing.assert_allclose(metrics.pixel_flipping(fun, x, relevance[..., None], steps=4), curve)
    every = metrics.pixel_flipping(fun, x, jnp.repeat(relevance[..., None], 3, -1), steps=12)
    np.testing.assert_allclose(every[:, ::3], curve)


def test_tokens_are_replaced_by_another_token():
    tokens = jnp.array([[3, 1, 2, 5]])
    relevance = jnp.array([[0.1, 0.4, 0.3, 0.2]])
    fun = lambda tokens: jnp.array([10.0, 1.0, 2.0, 3.0, 4.0, 5.0])[tokens].sum(-1)  # noqa: E731
    curve = metrics.pixel_flipping(fun, tokens, relevance, steps=4, replacement=0)
    np.testing.assert_allclose(curve, [[11, 20, 28, 33, 40]])
    embedded = jnp.ones((1, 4, 2))
    of_words = metrics.part_drops(lambda e: e.sum((1, 2)), embedded, patch=1)
    np.testing.assert_allclose(of_words, [[2, 2, 2, 2]])


def test_what_belongs_to_an_example_may_be_closed_over():
    labels = jnp.array([1, 0])
    weights = jnp.stack([W[0], -W[0]])
    fun = lambda x: (weights[labels] * x).sum(-1)  # noqa: E731
    curve = metrics.pixel_flipping(fun, X, weights[labels] * X, steps=4, chunk=2)
    np.testing.assert_allclose(curve[:, 1], [-2 - 3, -1.5 - 4])


@pytest.mark.parametrize("size, width, expected", [(5, 2, "00112"), (7, 3, "0011122")])
def test_a_grid_that_does_not_divide_is_centred(size, width, expected):
    """As Quantus pads it: the smaller half of what is missing in front."""
    found = metrics.part_sums(jnp.eye(size), width)
    np.testing.assert_array_equal(found.argmax(1), [int(c) for c in expected])


def test_patches_cells_and_segments_are_parts():
    x = jnp.ones((2, 4, 6, 1))
    np.testing.assert_allclose(metrics.part_sums(x, (2, 3)), jnp.full((2, 4), 6))
    np.testing.assert_allclose(metrics.part_sums(x, (2,)), jnp.full((2, 2), 12))
    np.testing.assert_allclose(metrics.part_sums(x, metrics.grid((4, 6), 2)), jnp.full((2, 4), 6))
    np.testing.assert_array_equal(metrics.grid((1, 5), (1, 2)), [[[0, 0, 0, 1, 1]]])
    segments = np.zeros((2, 4, 6), int)
    segments[0, 2:] = 1
    segments[1, 0] = 2  # which has no 1
    np.testing.assert_allclose(metrics.part_sums(x, segments), [[12, 12, 0], [18, 0, 6]])
    fun = lambda x: x.sum((1, 2, 3))  # noqa: E731
    curve = metrics.pixel_flipping(fun, x, x, steps=3, patch=segments)
    np.testing.assert_allclose(curve, [[24, 12, 0, 0], [24, 6, 0, 0]])  # what is missing is last


def test_replacements():
    x = jax.random.uniform(jax.random.key(0), (3, 5, 5, 2)) * jnp.array([1.0, 10.0])
    np.testing.assert_allclose(metrics.mean(x)[:, 0, 0], x.mean((1, 2)))
    drawn = metrics.uniform(jax.random.key(1), x)
    assert bool((drawn >= x.min((1, 2), keepdims=True)).all())
    assert bool((drawn <= x.max((1, 2), keepdims=True)).all())
    assert bool((metrics.uniform(jax.random.key(1), x, 2.0, 3.0) >= 2).all())
    seen = metrics.pixel_flipping(
        lambda x: x.sum((1, 2, 3)), x, x, steps=1, replacement=lambda x, gone: x + gone
    )
    np.testing.assert_allclose(seen[:, 1], seen[:, 0] + 50, rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected pictures \(N, H, W, C\)"):
        metrics.neighbours(x[0], x[0] > 0)


def test_neighbours_continue_what_is_harmonic():
    """A slope is the mean of its neighbours everywhere inside: it comes back exactly."""
    rows, columns = jnp.meshgrid(jnp.arange(7.0), jnp.arange(7.0), indexing="ij")
    x = jnp.stack([rows - 2 * columns, columns], -1)[None]
    gone = jnp.zeros(x.shape, bool).at[:, 2:5, 1:4].set(True).at[0, 1, 5, 0].set(True)
    found = jax.jit(metrics.neighbours)(jnp.where(gone, 99.0, x), gone)
    np.testing.assert_allclose(jnp.where(gone, found, x), x, atol=1e-9)


def test_curves_have_derivatives_and_cost_one_forward_pass_for_each_step():
    weights = jax.random.normal(jax.random.key(0), (256, 512))
    fun = lambda w, x: jnp.tanh(x @ w).sum(-1)  # noqa: E731
    x = jax.random.normal(jax.random.key(1), (8, 256))

    def flip(w: jax.Array, x: jax.Array, relevance: jax.Array) -> jax.Array:
        return metrics.pixel_flipping(lambda x: fun(w, x), x, relevance, steps=50)

    def flops(fun, *operands) -> float:
        return jax.jit(fun).lower(*operands).compile().cost_analysis()["flops"]

    # XLA counts the body of a loop once: with all that is around it
    assert flops(flip, weights, x, x) <= 1.1 * flops(fun, weights, x)
    total = lambda w: metrics.aopc(flip(w, x, x)).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(total))(weights)
    step = 1e-4 * jnp.sign(gradient)
    rise = total(weights + step) - total(weights - step)
    np.testing.assert_allclose(rise, 2e-4 * jnp.abs(gradient).sum(), rtol=1e-3)
