"""Draw pictures and the relevance of their pixels side by side, into one PNG."""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INCHES = 2.6
_DOTS_PER_INCH = 110
_PERCENTILE = 99.5


def draw_heatmaps(
    path: str | PathLike[str],
    pictures: np.ndarray,
    captions: Sequence[str],
    heatmaps: Mapping[str, np.ndarray],
) -> None:
    """Write a PNG with one row per picture: the picture, then its heatmap under each rule set.

    Positive relevance is red, negative blue and zero white. Every heatmap has its own scale, which
    its colour bar shows; it ends at the 99.5th percentile of the magnitudes, as a few extreme
    pixels would otherwise make the rest invisible.

    Args:
        path: Where to write the PNG; an existing file is replaced.
        pictures: (N, H, W, 3) float RGB in [0, 1].
        captions: N titles for the pictures.
        heatmaps: For each column title, (N, H, W) relevance in any unit.

    Raises:
        OSError: The file cannot be written.
    """
    rows, columns = len(pictures), 1 + len(heatmaps)
    # A `Figure` of its own, without pyplot, needs no display and draws with the Agg backend.
    figure = Figure(figsize=(_INCHES * columns, 0.85 * _INCHES * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, picture, caption in zip(grid[:, 0], pictures, captions, strict=True):
        axes.imshow(picture)
        axes.set_title(caption, fontsize=9)
        axes.set_axis_off()
    for column, (title, maps) in enumerate(heatmaps.items(), start=1):
        for axes, heatmap in zip(grid[:, column], maps, strict=True):
            _draw_heatmap(axes, heatmap, title)
    figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)


def _draw_heatmap(axes: Axes, heatmap: np.ndarray, title: str) -> None:
    """Draw one heatmap, (H, W), with a colour bar that is symmetric around zero."""
    limit = float(np.percentile(np.abs(heatmap), _PERCENTILE)) or 1.0
    image = axes.imshow(heatmap, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, shrink=0.8, extend="both", ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"{-limit:.1e}", "0", f"{limit:.1e}"], fontsize=6)
