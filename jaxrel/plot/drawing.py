"""What pictures share: numbers; matplotlib, when it is needed; free axes; titles in lines."""

from __future__ import annotations

import importlib
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "x-small"
"""Size of titles, a name of matplotlib's."""


def matplotlib_module(module: str) -> Any:
    """Imports ``matplotlib.<module>``, an extra, when the first picture is drawn.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        message = 'jaxrel.plot draws with matplotlib: pip install "jaxrel[plot]"'
        raise ImportError(message) from error


def real_numbers(name: str, values: Any) -> np.ndarray:
    """Finite real numbers as float64, whose sums no longer overflow or round; of any shape.

    Raises:
      TypeError: they are no real numbers, or a function that would return some.
      ValueError: one is NaN or infinite.
    """
    if callable(values):
        raise TypeError(f"{name}: expected an array, got a function; draw what it returns.")
    values = np.asarray(values)
    if not np.can_cast(values.dtype, np.float64, "same_kind"):
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}.")
    values = values.astype(np.float64)
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{name}: {wrong} of {values.size} numbers are NaN or infinite.")
    return values


def given_or_free(axes: Axes | None) -> Axes:
    """The axes that are given, or pyplot's current ones if nothing is drawn there, or new ones.

    What has been drawn is never drawn over: the current axes after a grid are its last panel.
    """
    if axes is not None:
        return axes
    pyplot = matplotlib_module("pyplot")
    current = pyplot.gca()
    return pyplot.figure().gca() if current.has_data() else current


def width_of(axes: Axes) -> float:
    """How wide axes are at present, in inches."""
    figure = axes.get_figure()
    assert figure is not None
    return axes.get_window_extent().width / figure.dpi


def wrapped(title: str, width: float) -> str:
    """A title in lines of at most so many inches, broken within a word only if it is longer."""

    def fits(line: str) -> bool:
        return not line.strip() or path((0, 0), line, prop=font).get_extents().width <= 72 * width

    path = matplotlib_module("textpath").TextPath
    font = matplotlib_module("font_manager").FontProperties(size=TITLE)
    lines = []
    for line in title.splitlines():
        letters = len(line)
        while letters > 1 and not all(map(fits, textwrap.wrap(line, letters))):
            letters -= 1
        lines.extend(textwrap.wrap(line, letters) if letters else [""])
    return "\n".join(lines)
