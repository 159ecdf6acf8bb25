"""`jaxrel.training` in 16 bits, at the ends of the range, and where nothing is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import training
from tests.checks import is_finite

pytestmark = pytest.mark.usefixtures("default_precision")

RELATIVE = ("outside_share", "in_mask_share", "energy", "ranked_background")
PENALTIES = (*RELATIVE, "outside_absolute", "outside_sum_squared", "right_reasons", "isnet")


def picture(value):
    """Relevance of a picture, alike everywhere, and a mask of its upper half."""
    return jnp.full((1, 64, 64, 3), value), jnp.zeros((1, 64, 64, 1)).at[:, :32].set(1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_in_16_bits_are_those_in_32(name, dtype):
    """The sums of these pictures are beyond float16, and bfloat16 cannot count their pixels."""
    for value in (0.0, 7.0):
        relevance, mask = picture(value)
        found = getattr(training, name)(relevance.astype(dtype), mask)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, getattr(training, name)(relevance, mask), rtol=1e-6)


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1e25])
def test_shares_are_the_same_on_any_scale(name, scale):
    relevance = jnp.asarray([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, 0.5, -1.0]])
    mask = jnp.asarray([[1.0, 0.0, 1.0, 0.0]])
    penalty = getattr(training, name)
    expected, slope = jax.value_and_grad(lambda r: penalty(r, mask).sum())(relevance)
    found, scaled = jax.value_and_grad(lambda r: penalty(r, mask).sum())(scale * relevance)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(scaled * scale, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["outside_share", "energy", "isnet", "outside_sum_absolute"])
def test_an_example_without_relevance_leaves_the_others_alone(name):
    """In float16, where the second example is dead, and 1e-12 is 0."""
    keys = jax.random.split(jax.random.key(0))
    params = {
        "a": jax.random.normal(keys[0], (12, 16)) / 5,
        "b": jax.random.normal(keys[1], (16, 2)),
    }
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    x = jnp.zeros((2, 12), jnp.float16).at[0].set(1.0)

    def network(p, x):
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    loss = training.relevance_loss(network, "slope", getattr(training, name))
    mask = jnp.ones((2, 12)).at[:, :5].set(0)
    found = jax.value_and_grad(loss, has_aux=True)(params, x, jnp.array([0, 1]), mask)
    assert is_finite((found[0][0], found[1]))


def test_what_is_not_known_may_be_anything():
    """Not even NaN gets through, neither into the loss nor into its gradient."""

    def network(p, x):
        return jnp.stack([(p * x).sum(-1), jnp.zeros(len(x))], -1)

    x = jnp.array([[1.0, 2.0, 3.0], [1.0, jnp.nan, 0.0], [0.5, 1.0, 1.0]])
    task = lambda logits, labels: jnp.zeros(len(labels))  # noqa: E731
    mask, labels = jnp.array([[1.0, 0.0, 0.0]]), jnp.zeros(3, int)
    for penalty in (training.energy, training.outside_sum_squared):
        loss = training.relevance_loss(network, "slope", penalty, counterfactual=0.5, task=task)

        def total(p, x, known, loss=loss):
            return loss(p, x, labels, mask, known=known)[0] * len(x)

        p = jnp.array([0.3, -0.2, 0.1])
        known = jnp.array([1.0, 0.0, 1.0])
        found, slope = jax.value_and_grad(total)(p, x, known)
        expected, right = jax.value_and_grad(total)(p, x.at[1].set(0.0), known)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        # x p of the second example is NaN itself: p's derivative there is not the loss's to mend
        np.testing.assert_allclose(slope[0], right[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_references_of_large_pictures(dtype):
    """Pixels are counted beyond 256, and what is summed beyond 65504."""
    ones = jnp.ones((1, 400, 300, 1), dtype)
    assert training.blur(ones).dtype == dtype
    np.testing.assert_array_equal(training.blur(ones).astype(np.float32), 1.0)
    spot = jnp.zeros((1, 400, 300, 1)).at[0, 301, 277].set(1)
    blurred = training.blur(spot.astype(dtype), 3.0).astype(np.float32)
    np.testing.assert_allclose(blurred, training.blur(spot, 3.0), atol=1e-3)
    mask = jnp.zeros((1, 400, 300, 1), dtype).at[:, :9, :9].set(1)
    for how in ("mean", "mirror"):
        filled = training.fill_background(ones, mask, how)
        assert filled.dtype == dtype
        np.testing.assert_array_equal(filled.astype(np.float32), 1.0)
