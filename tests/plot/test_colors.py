"""The colour map: that of the heatmaps, symmetric, and with a readable ink on all of it."""

import numpy as np
import pytest

from jaxrel import plot
from jaxrel.plot import colors

SHARES = np.linspace(-1, 1, 201)


def test_words_have_the_colours_of_heatmaps():
    drawn = plot.heatmap(SHARES[None]).images[0]
    finer = drawn.get_cmap().resampled(20001)  # of 256 colours each is up to 3 off
    shown = 255 * finer((SHARES + 1) / 2)[:, :3]
    np.testing.assert_allclose([colors.color(share) for share in SHARES], shown, atol=0.6)


def test_red_is_positive_blue_negative_and_zero_nearly_white():
    red, white, blue = map(colors.color, (0.8, 0.0, -0.8))
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0] and min(white) > 240
    assert colors.color(7.0) == colors.color(1.0) and colors.color(-7.0) == colors.color(-1.0)


@pytest.mark.parametrize("share", SHARES[::5])
def test_text_is_readable_on_every_colour(share):
    back = colors.color(float(share))
    assert colors.contrast(colors.ink(back), back) >= 4.5


def test_contrast_is_that_of_wcag():
    black, white, grey = (0, 0, 0), (255, 255, 255), (119, 119, 119)
    np.testing.assert_allclose(colors.contrast(black, white), 21)
    np.testing.assert_allclose(colors.contrast(white, grey), 4.48, atol=0.005)
    assert colors.contrast(grey, grey) == 1


def test_red_and_blue_differ_to_the_colour_blind():
    """Seen without red-sensitive cones (Vienot et al. 1999), equal shares of both signs differ."""
    seen = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    for share in (0.2, 0.4, 0.6, 0.8):
        linear = np.array([colors.color(share), colors.color(-share)]) / 255
        red, blue = np.clip(seen @ (linear**2.2).T, 0, 1).T ** (1 / 2.2)
        assert np.abs(255 * (red - blue)).max() > 40, share
