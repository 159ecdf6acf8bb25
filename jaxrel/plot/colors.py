"""The one diverging colour map: blue is negative, red positive, and zero is nearly white.

ColorBrewer's RdBu (Harrower and Brewer 2003), which is safe for the colour-blind; matplotlib has it
by name, for heatmaps. Words need it where matplotlib is not installed, with an ink that can be read
on each of its colours.
"""

from __future__ import annotations

import itertools

NAME = "RdBu_r"
"""What matplotlib calls it."""

Color = tuple[int, int, int]
"""Red, green and blue in sRGB, from 0 to 255."""

_ANCHORS = (
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7",
    "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
)  # fmt: skip


def color(share: float) -> Color:
    """The colour of a share of the limit; from -1 on down it is the bluest, from 1 on the reddest.

    Between the eleven colours of the map it is linear, as in matplotlib.
    """
    place = (min(max(share, -1.0), 1.0) + 1) / 2 * (len(_ANCHORS) - 1)
    k = min(int(place), len(_ANCHORS) - 2)
    low, high = (bytes.fromhex(anchor) for anchor in _ANCHORS[k : k + 2])
    r, g, b = (round(a + (place - k) * (c - a)) for a, c in zip(low, high, strict=True))
    return r, g, b


def ink(background: Color) -> Color:
    """Black or white, whichever has the greater contrast: 4.5 at least (WCAG 2, level AA)."""
    black, white = (0, 0, 0), (255, 255, 255)
    return max(black, white, key=lambda text: contrast(text, background))


def contrast(one: Color, other: Color) -> float:
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def hexadecimal(one: Color) -> str:
    """A colour as HTML and matplotlib spell it: ``#f7f7f7``."""
    return f"#{bytes(one).hex()}"


def _luminance(one: Color) -> float:
    linear = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in one)
    )
    return sum(itertools.starmap(float.__mul__, zip(linear, (0.2126, 0.7152, 0.0722), strict=True)))
