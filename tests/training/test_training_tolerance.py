"""`jaxrel.training.tolerance`: morphology against scipy's definition by hand, and what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import training


def by_hand(mask, radius):
    """The least value in the square around every pixel, the picture's edge repeated outwards."""
    out = np.empty_like(mask)
    for row in range(mask.shape[1]):
        for column in range(mask.shape[2]):
            rows = slice(max(row - radius, 0), row + radius + 1)
            columns = slice(max(column - radius, 0), column + radius + 1)
            out[:, row, column] = mask[:, rows, columns].min((1, 2))
    return out


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_erosion_and_dilation(rng, radius):
    mask = (rng.random((3, 9, 7, 1)) < 0.8).astype(np.float32)
    np.testing.assert_array_equal(training.erode(jnp.asarray(mask), radius), by_hand(mask, radius))
    dilated = training.dilate(jnp.asarray(1 - mask), radius)
    np.testing.assert_array_equal(dilated, 1 - by_hand(mask, radius))
    soft = jnp.asarray(mask * rng.random(mask.shape), jnp.bfloat16)
    assert training.erode(soft, radius).dtype == jnp.bfloat16
    for dtype in (bool, jnp.uint8):
        found = training.erode(jnp.asarray(mask, dtype), radius)
        np.testing.assert_array_equal(found, by_hand(mask, radius).astype(dtype))
        assert found.dtype == dtype


def test_each_mask_has_a_radius_of_its_own(rng):
    mask = np.zeros((200, 15, 15, 1), np.float32)
    mask[:, 3:12, 3:12] = 1  # the sides are 9, then 7, 5, 3
    found = jax.jit(training.erode_at_random, static_argnums=(2, 3))(jax.random.key(0), mask, 0, 3)
    sides, counts = np.unique(np.sqrt(np.asarray(found).sum((1, 2, 3))), return_counts=True)
    assert sides.tolist() == [3, 5, 7, 9] and counts.min() > 25
    wider = training.erode_at_random(jax.random.key(0), mask, -1, -1)
    np.testing.assert_array_equal(wider, training.dilate(mask, 1))


def test_an_object_never_vanishes():
    mask = np.zeros((20, 9, 9, 1), np.float32)
    mask[:10, 4, 4] = mask[10:, 3:6, 3:6] = 1
    for seed in range(3):
        found = training.erode_at_random(jax.random.key(seed), mask, 0, 3).sum((1, 2, 3))
        assert (found[:10] == 1).all() and set(np.asarray(found[10:])) <= {1.0, 9.0}
    nothing = training.erode_at_random(jax.random.key(0), jnp.zeros((2, 5, 5, 1)), 1, 2)
    assert (nothing == 0).all()


@pytest.mark.every_case
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: training.erode(m[0], 1), r"mask: expected a batch of pictures"),
        (lambda m: training.erode(m, -1), r"radius: expected 0 pixels or more, got -1"),
        (lambda m: training.dilate(m, 1.5), r"radius: expected a whole number of pixels, got 1.5"),
        (
            lambda m: training.erode_at_random(jax.random.key(0), m, 3, 1),
            r"low: 3 pixels are more than high, 1",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 4, 4, 1)))
