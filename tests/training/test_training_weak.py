"""Weak masks made better by what pixels look like."""

import numpy as np
import pytest

from jaxrel import training

SIDE = 24


def pictures(count=60, channels=1, seed=0, rough=1.5):
    """Bright discs with rough edges on a darker ground, both noisy, and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    at = rng.uniform(9, 15, (2, count, 1, 1))
    spikes = np.cos(5 * np.arctan2(y - at[0], x - at[1]))
    masks = ((y - at[0]) ** 2 + (x - at[1]) ** 2 < (4 + rough * spikes) ** 2)[..., None]
    level = np.where(masks, 0.7, 0.3) * np.linspace(1, 0.8, channels)
    images = level + 0.12 * rng.standard_normal((count, SIDE, SIDE, channels))
    return images.astype(np.float32), masks.astype(np.float32)


def dilated(masks, by):
    return np.asarray(training.dilate(masks, by))


def overlap(a, b):
    return (np.minimum(a, b).sum()) / np.maximum(a, b).sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_that_are_right_are_left_alone(channels):
    images, masks = pictures(channels=channels)
    found = training.register(images, masks)
    assert found[:3] == (0, 0, 0)
    np.testing.assert_array_equal(found.correct(masks), masks)


@pytest.mark.parametrize("down, right", [(3, 3), (-2, 4), (0, -1)])
def test_a_move_is_found_and_undone(down, right):
    images, masks = pictures()
    moved = np.roll(masks, (down, right), (1, 2))
    found = training.register(images, moved)
    assert found[:3] == (-down, -right, 0)
    assert found.correct(moved).dtype == masks.dtype
    assert overlap(found.correct(moved), masks) > 0.98


@pytest.mark.parametrize("by", [1, 2, 3])
def test_masks_that_are_too_wide_are_eroded(by):
    images, masks = pictures()
    wide = dilated(masks, by)
    found = training.register(images, wide)
    assert found[:3] == (0, 0, by)
    assert overlap(found.correct(wide), masks) > overlap(wide, masks) + 0.3


def test_masks_that_are_too_narrow_are_dilated_and_moved_together():
    images, masks = pictures(rough=0)
    narrow = np.roll(np.asarray(training.erode(masks, 1)), (2, -1), (1, 2))
    assert training.register(images, narrow)[:3] == (-2, 1, -1)


def test_information_is_that_of_the_counts():
    """A picture of two brightnesses, one of them the object's: ln 2 nats where half is object."""
    masks = np.zeros((1, 8, 8, 1))
    masks[:, :, :4] = 1
    found = training.register(masks, masks, shift=0, width=0, levels=2)
    np.testing.assert_allclose(found.information, np.log(2))
    assert found.information.shape == (1, 1, 1)


def test_where_nothing_tells_nothing_is_changed():
    _, masks = pictures()
    assert training.register(np.zeros_like(masks), masks)[:3] == (0, 0, 0)
    assert training.register(masks, np.zeros_like(masks))[:3] == (0, 0, 0)


def test_each_mask_is_moved_back_by_its_own():
    images, masks = pictures()
    ways = np.random.default_rng(1).integers(-3, 4, (len(masks), 2))
    moved = np.stack([np.roll(m, way, (0, 1)) for m, way in zip(masks, ways, strict=True)])
    found = training.register_each(images, moved, np.arange(len(masks)) % 2)
    assert overlap(moved, masks) < 0.6
    assert overlap(found, masks) > 0.95 and found.dtype == masks.dtype
    np.testing.assert_array_equal(training.register_each(images, masks), masks)
    np.testing.assert_array_equal(training.register_each(np.zeros_like(masks), moved), moved)


def test_pixels_in_boxes_are_told_apart():
    images, masks = pictures()
    rows, columns = (masks.max(axis, keepdims=True) for axis in (2, 1))
    boxes = rows * columns
    found = training.in_boxes(images, boxes)
    assert found.shape == masks.shape and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 and not found[boxes == 0].any()
    assert overlap(found > 0.7, masks) > overlap(boxes, masks) + 0.2
    # as likely as it says
    sure = found > 0.7
    assert abs(found[sure].mean() - masks[sure].mean()) < 0.05


def test_masks_that_are_right_are_all_object():
    images, masks = pictures()
    assert overlap(training.in_boxes(images, masks) > 0.7, masks) > 0.97


def test_groups_are_told_by_their_own_surroundings():
    """In one group the object is the brighter, in the other the darker."""
    images, masks = pictures()
    groups = np.arange(len(images)) % 2
    images = np.where(groups[:, None, None, None], 1 - images, images)
    boxes = dilated(masks, 2)
    apart = training.in_boxes(images, boxes, groups)
    assert (
        overlap(apart > 0.5, masks) > overlap(training.in_boxes(images, boxes) > 0.5, masks) + 0.2
    )


def test_boxes_without_inside_or_outside():
    images, masks = pictures(4)
    for boxes in (np.zeros_like(masks), np.ones_like(masks)):
        assert np.isfinite(training.in_boxes(images, boxes)).all()


def test_wrong_arguments():
    images, masks = pictures(2)
    for wrong, said in (
        (lambda: training.register(images[0], masks), "images"),
        (lambda: training.register(images, masks[:1]), r"masks: expected \(2, 24, 24, 1\)"),
        (lambda: training.register(images, masks, shift=12), "shift < half"),
        (lambda: training.register(images, masks, width=-1), "width >= 0"),
        (lambda: training.register(images, masks, levels=1), "levels: expected 2"),
        (lambda: training.register_each(images, masks, shift=-1), "register_each: expected 0 <="),
        (lambda: training.register(images[:0], masks[:0]), "images: expected one at least"),
        (lambda: training.in_boxes(images[:0], masks[:0]), "images: expected one at least"),
        (lambda: training.in_boxes(images, masks, [0]), "in_boxes: expected 2 groups"),
        (lambda: training.register_each(images, masks, [0]), "register_each: expected 2 groups"),
        (lambda: training.register_each(images, masks[:1]), r"masks: expected \(2, 24, 24, 1\)"),
        (lambda: training.in_boxes(images, masks[..., 0]), "boxes"),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()
