"""Heatmaps, overlays, and grids of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import colors
from .drawing import TITLE, given_or_free, matplotlib_module, real_numbers, width_of, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where a map is drawn smaller than it is, its numbers are averaged: red and blue pixels cancel as
# their relevances do. Averaged colours, matplotlib's default, would be purple, which means nothing.
_MEANS: dict[str, Any] = {"interpolation": "antialiased", "interpolation_stage": "data"}

_PANEL = 1.5  # inches: width and height of one picture of a grid
_LINE = 0.12  # inches: a further line of a title
_GAPS = {"w_pad": 0.02, "h_pad": 0.03, "wspace": 0, "hspace": 0}  # inches, shares of a panel
_GREYS = np.array([0.299, 0.587, 0.114])  # luma of red, green, blue (ITU-R BT.601)


def heatmap(
    relevance: Any,
    axes: Axes | None = None,
    *,
    percentile: float | None = None,
    limit: float | None = None,
    colorbar: bool = False,
    title: str = "",
) -> Axes:
    """Draws relevance as colours: red is positive, blue negative, white zero.

    Args:
      relevance: (H, W), or (H, W, C), whose channels are added; in any unit.
      axes: where to draw; None: pyplot's current axes if they are empty, else a new figure.
      percentile: the colours end at this percentile of the magnitudes, in (1, 100]; None: at the
        largest one.
      limit: the colours end at this magnitude, in units of ``relevance``; so that several heatmaps
        share a scale. Not together with ``percentile``.
      colorbar: whether to draw the scale beside the map.
      title: drawn above the map, in several lines if it is long.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: ``relevance`` does not consist of real numbers.
      ValueError: it has another rank, no pixels, or a NaN or infinity; ``percentile`` or ``limit``
        is out of range, or both are given.

    Example:
      >>> heatmap(jnp.array([[1.0, -2.0]])).images[0].get_clim()  # doctest: +SKIP
      (-2.0, 2.0)
    """
    pixels = _pixels(relevance)
    limit = _limit(pixels, percentile, limit)
    axes = given_or_free(axes)
    drawn = axes.imshow(pixels, cmap=colors.NAME, vmin=-limit, vmax=limit, **_MEANS)
    _finish(axes, drawn, limit, colorbar, title)
    return axes


def overlay(
    image: Any,
    relevance: Any,
    axes: Axes | None = None,
    *,
    percentile: float | None = None,
    limit: float | None = None,
    opacity: float = 0.9,
    colorbar: bool = False,
    title: str = "",
) -> Axes:
    """Draws the picture in grey and relevance over it, the more opaque the larger it is.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3): integers in [0, 255] or floats in [0, 1].
      relevance: (H, W) or (H, W, C) of the same height and width.
      opacity: of relevance at the limit, in [0, 1]; at zero relevance only the picture is seen.
      axes, percentile, limit, colorbar, title: as for :func:`heatmap`.

    Returns:
      The axes.

    Raises:
      ImportError, TypeError: as :func:`heatmap`.
      ValueError: as :func:`heatmap`; the picture has other values or another size; ``opacity`` is
        out of range.
    """
    pixels, grey = _pixels(relevance), _picture(image) @ _GREYS
    if pixels.shape != grey.shape:
        raise ValueError(
            f"The picture and its relevance differ in size: {grey.shape} and {pixels.shape}."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: expected a number in [0, 1], got {opacity!r}.")
    limit = _limit(pixels, percentile, limit)
    axes = given_or_free(axes)
    axes.imshow(grey, cmap="gray", vmin=-1, vmax=1)  # a light grey, on which colours show
    # Colour and opacity both fade towards zero; the root keeps the middle visible.
    opacities = opacity * np.sqrt(np.minimum(np.abs(pixels) / limit, 1))
    drawn = axes.imshow(pixels, cmap="bwr", vmin=-limit, vmax=limit, alpha=opacities, **_MEANS)
    _finish(axes, drawn, limit, colorbar, title)
    return axes


def grid(
    images: Any,
    relevances: Mapping[str, Any],
    *,
    captions: str | Sequence[str] = (),
    percentile: float | None = 99.5,
    columns: int | None = None,
    overlays: bool = False,
    title: str = "",
) -> Figure:
    """Draws a row per picture: the picture, and a column for each of several explanations of it.

    Every map has its own scale, for rules differ by orders of magnitude; the number below a map is
    where its colours end.

    Args:
      images: N pictures, (N, H, W, 3) or a sequence; each as for :func:`overlay`. Or one picture:
        an array (H, W), (H, W, 1) or (H, W, 3).
      relevances: for each title, N maps, each as for :func:`heatmap`; one map for one picture.
      captions: N titles for the pictures, or one for one; none by default. Long ones take several
        lines.
      percentile: as for :func:`heatmap`, map by map.
      columns: so many panels stand side by side, and a picture that needs more of them continues in
        the next line; None: a picture is one line.
      overlays: whether to draw overlays instead of heatmaps.
      title: of the whole.

    Returns:
      A new figure of pyplot's, which is drawn and written by ``figure.savefig(path)``.

    Raises:
      ImportError, TypeError: as :func:`heatmap`.
      ValueError: as :func:`overlay`; there is no picture; captions or maps are not as many as the
        pictures; ``columns`` is less than 1.
    """
    if not isinstance(relevances, Mapping):
        raise TypeError(
            "relevances: expected a mapping from titles to maps, {'lrp': relevance}; got "
            f"{type(relevances).__name__}."
        )
    if _is_one(images):
        captions = [captions] if isinstance(captions, str) and captions else captions
        images, relevances = [images], {name: [one] for name, one in relevances.items()}
    pictures = [_picture(image) for image in images]
    if not pictures:
        raise ValueError("images: there is none.")
    maps = {name: list(values) for name, values in relevances.items()}
    for name, values in {"captions": captions or pictures, **maps}.items():
        if len(values) != len(pictures):
            raise ValueError(f"{name}: {len(values)} for {len(pictures)} pictures.")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}.")
    captions = [wrapped(text, _PANEL) for text in captions or [""] * len(pictures)]
    titles = [wrapped(name, _PANEL) for name in maps]

    panels = 1 + len(maps)
    width = min(columns or panels, panels)
    lines = -(-panels // width)
    heights = [
        1.17 * _PANEL * picture.shape[0] / picture.shape[1]
        + _LINE * max(text.count("\n") for text in (caption, *titles))
        for picture, caption in zip(pictures, captions, strict=True)
    ]
    figure = matplotlib_module("pyplot").figure(
        figsize=(_PANEL * width + 0.5, lines * sum(heights)),
        layout=matplotlib_module("layout_engine").ConstrainedLayoutEngine(**_GAPS),
    )
    ratios = np.repeat(heights, lines)
    axes = figure.subplots(len(ratios), width, squeeze=False, height_ratios=ratios)
    cells = axes.reshape(len(pictures), -1)
    for n, (picture, row) in enumerate(zip(pictures, cells, strict=True)):
        for empty in row[panels:]:
            empty.remove()
        row[0].imshow(picture)
        _label(row[0], captions[n])
        for panel, name, values in zip(row[1:], titles, maps.values(), strict=False):
            if overlays:
                overlay(picture, values[n], panel, percentile=percentile)
            else:
                heatmap(values[n], panel, percentile=percentile)
            _label(panel, name, f"±{panel.images[-1].get_clim()[1]:.2g}")
    if maps:
        shape = {"fraction": 0.1 / width, "pad": 0.05 / width, "aspect": 60}
        drawn = list(cells[:, :panels].flat)
        _scale(cells[0, 1].images[-1], drawn, ("−", "0", "+"), **shape)
    if title:
        figure.suptitle(title, fontsize="small")
    return figure


def _is_one(images: Any) -> bool:
    """Tells whether these are not several pictures but one: an array of the shape of one."""
    shape = getattr(images, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def _pixels(relevance: Any) -> np.ndarray:
    """Relevance as float64 (H, W), the channels added."""
    values = real_numbers("relevance", relevance)
    if values.ndim not in (2, 3) or values.size == 0:
        hint = " Draw the examples of a batch one by one, or by grid." if values.ndim == 4 else ""
        raise ValueError(
            f"relevance: expected (H, W) or (H, W, C), got shape {values.shape}.{hint}"
        )
    return values if values.ndim == 2 else values.sum(-1)


def _picture(image: Any) -> np.ndarray:
    """A picture as floats in [0, 1], (H, W, 3)."""
    values = np.asarray(image)
    if values.dtype.kind in "iu":
        values = values / 255
    shape = values.shape
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or values.size == 0:
        raise ValueError(f"image: expected (H, W), (H, W, 1) or (H, W, 3), got shape {shape}.")
    values = values.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # a NaN fails both
        raise ValueError(
            f"image: expected integers in [0, 255] or floats in [0, 1], got values from "
            f"{values.min():.4g} to {values.max():.4g}; undo what the network's input needs."
        )
    return np.broadcast_to(values, (*values.shape[:2], 3))


def _limit(pixels: np.ndarray, percentile: float | None, limit: float | None) -> float:
    """Where the colours end: positive, also if most or all of the map is zero."""
    if percentile is not None and limit is not None:
        raise ValueError("Give percentile or limit, not both.")
    if limit is not None:
        if not 0 < limit < np.inf:
            raise ValueError(f"limit: expected a positive number, got {limit!r}.")
        return float(limit)
    magnitudes = np.abs(pixels)
    largest = float(magnitudes.max()) or 1.0
    if percentile is None:
        return largest
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: expected a number in (0, 100], got {percentile!r}.")
    if percentile <= 1:
        raise ValueError(
            f"percentile: {percentile!r} would hide all but the smallest; did you mean "
            f"{100 * percentile:g} percent?"
        )
    return float(np.percentile(magnitudes, percentile)) or largest


def _finish(axes: Axes, drawn: Any, limit: float, colorbar: bool, title: str) -> None:
    _label(axes, wrapped(title, width_of(axes)))
    if colorbar:
        bar = axes.inset_axes((1.03, 0, 0.05, 1))  # as tall as the map
        _scale(drawn, axes, (f"{-limit:.2g}", "0", f"{limit:.2g}"), cax=bar)


def _scale(drawn: Any, axes: Any, ends: tuple[str, str, str], **options: Any) -> None:
    """A colour bar beside ``axes``, with three ticks: pointed, for what is beyond has its ends."""
    low, high = drawn.get_clim()
    # An overlay's colours have the opacities of its pixels; those of the scale are opaque.
    colors = matplotlib_module("cm").ScalarMappable(drawn.norm, drawn.cmap)
    figure = np.ravel(axes)[0].get_figure()
    beside = {} if "cax" in options else {"ax": axes}
    bar = figure.colorbar(colors, extend="both", ticks=[low, 0, high], **beside, **options)
    bar.ax.set_yticklabels(ends, fontsize="x-small")


def _label(axes: Axes, title: str, below: str = "") -> None:
    """Nothing of the axes but a title and a line below."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=TITLE, pad=2)
    axes.set_xlabel(below, fontsize="xx-small", labelpad=1, color="0.4")
