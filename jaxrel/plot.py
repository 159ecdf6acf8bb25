"""Pictures of relevance: heatmaps, overlays, grids of both, and where relevance goes by layer.

    jaxrel.plot.heatmap(relevance, percentile=99.5)                    # (H, W) or (H, W, C)
    jaxrel.plot.overlay(image, relevance)                              # on the grey picture
    jaxrel.plot.grid(images, {"lrp": r, "gradient": g}).savefig("maps.png")
    jaxrel.plot.waterfall(audit)                                       # from the value to the sum

Colours mean the same everywhere: red is positive, blue negative, and zero is the colour map's
middle, for the limits are always symmetric. By default they are the largest magnitude; as a few
extreme pixels then make all others invisible, ``percentile`` lets the colours end earlier, and the
magnitudes beyond it look like the limit. Colour channels are added, never averaged: what is drawn
still sums to what was explained.

Relevance may be any real array, of JAX or numpy and of any precision; a NaN or an infinity raises
rather than leaves a hole. ``axes=None`` draws into pyplot's current axes, as matplotlib's own
functions do. matplotlib is an extra, imported by the first picture: ``pip install "jaxrel[plot]"``.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grid", "heatmap", "overlay", "waterfall"]

# Where a map is drawn smaller than it is, its numbers are averaged: red and blue pixels cancel as
# their relevances do. Averaged colours, matplotlib's default, would be purple, which means nothing.
_MEANS: dict[str, Any] = {"interpolation": "antialiased", "interpolation_stage": "data"}

_PANEL = 1.5  # inches: width and height of one picture of a grid
_GAPS = {"w_pad": 0.02, "h_pad": 0.03, "wspace": 0, "hspace": 0}  # inches, shares of a panel
_ROW = 0.25  # inches: height of one layer of a waterfall
_GREYS = np.array([0.299, 0.587, 0.114])  # luma of red, green, blue (ITU-R BT.601)


class Layer(Protocol):
    """Where relevance goes in one layer, as :func:`waterfall` reads it.

    All numbers are relevance, in units of the value: in = out + bias + stabilizer + rule.
    """

    @property
    def path(self) -> str: ...
    @property
    def bias(self) -> float: ...
    @property
    def stabilizer(self) -> float: ...
    @property
    def rule(self) -> float: ...


class Audit(Protocol):
    """What :func:`waterfall` draws: a value, the layers from input to output, what is explained."""

    @property
    def value(self) -> Any: ...
    @property
    def explained(self) -> Any: ...
    def layers(self) -> Sequence[Layer]: ...


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
      axes: where to draw; None: pyplot's current axes.
      percentile: the colours end at this percentile of the magnitudes, in (0, 100]; None: at the
        largest one.
      limit: the colours end at this magnitude, in units of ``relevance``; so that several heatmaps
        share a scale. Not together with ``percentile``.
      colorbar: whether to draw the scale beside the map.
      title: drawn above the map.

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
    axes = _axes(axes)
    drawn = axes.imshow(pixels, cmap="RdBu_r", vmin=-limit, vmax=limit, **_MEANS)
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
    axes = _axes(axes)
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
    captions: Sequence[str] = (),
    percentile: float | None = 99.5,
    columns: int | None = None,
    overlays: bool = False,
) -> Figure:
    """Draws a row per picture: the picture, and a column for each of several explanations of it.

    Every map has its own scale, for rules differ by orders of magnitude; the number below a map is
    where its colours end.

    Args:
      images: N pictures, (N, H, W, 3) or a sequence; each as for :func:`overlay`.
      relevances: for each title, N maps, each as for :func:`heatmap`.
      captions: N titles for the pictures; none by default.
      percentile: as for :func:`heatmap`, map by map.
      columns: so many panels stand side by side, and a picture that needs more of them continues in
        the next line; None: a picture is one line.
      overlays: whether to draw overlays instead of heatmaps.

    Returns:
      A new figure of pyplot's, which is drawn and written by ``figure.savefig(path)``.

    Raises:
      ImportError, TypeError: as :func:`heatmap`.
      ValueError: as :func:`overlay`; there is no picture; captions or maps are not as many as the
        pictures; ``columns`` is less than 1.
    """
    pictures = [_picture(image) for image in images]
    if not pictures:
        raise ValueError("images: there is none.")
    maps = {title: list(values) for title, values in relevances.items()}
    for title, values in {"captions": captions or pictures, **maps}.items():
        if len(values) != len(pictures):
            raise ValueError(f"{title}: {len(values)} for {len(pictures)} pictures.")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}.")

    panels = 1 + len(maps)
    width = min(columns or panels, panels)
    lines = -(-panels // width)
    heights = [1.17 * _PANEL * picture.shape[0] / picture.shape[1] for picture in pictures]
    figure = _matplotlib("pyplot").figure(
        figsize=(_PANEL * width + 0.5, lines * sum(heights)),
        layout=_matplotlib("layout_engine").ConstrainedLayoutEngine(**_GAPS),
    )
    ratios = np.repeat(heights, lines)
    axes = figure.subplots(len(ratios), width, squeeze=False, height_ratios=ratios)
    cells = axes.reshape(len(pictures), -1)
    for n, (picture, row) in enumerate(zip(pictures, cells, strict=True)):
        for empty in row[panels:]:
            empty.set_axis_off()
        row[0].imshow(picture)
        _label(row[0], captions[n] if captions else "")
        for panel, (title, values) in zip(row[1:], maps.items(), strict=False):
            if overlays:
                overlay(picture, values[n], panel, percentile=percentile)
            else:
                heatmap(values[n], panel, percentile=percentile)
            _label(panel, title, f"±{panel.images[-1].get_clim()[1]:.2g}")
    if maps:
        shape = {"fraction": 0.1 / width, "pad": 0.05 / width, "shrink": 0.6, "aspect": 40}
        _scale(cells[0, 1].images[-1], axes, ("−", "0", "+"), **shape)
    return figure


def waterfall(audit: Audit, axes: Axes | None = None, *, depth: int | None = None) -> Axes:
    """Draws where relevance goes: from the value at the top to what reaches the inputs below.

    Each layer, from output to input, moves the level by what it gives to its biases, what its
    stabilisers swallow, and what its rules create or destroy, one colour each; the legend tells
    their sums. Where relevance is conserved all bars are empty but the first and last.

    Args:
      audit: what :func:`jaxrel.audit` returns, or anything like :class:`Audit`.
      axes: where to draw; None: a new figure, high enough for all layers.
      depth: layers that agree in so many leading parts of their paths, and stand together, are
        added up: 1 shows ``block_3`` instead of ``block_3/expand/conv``; None: no adding up.

    Returns:
      The axes; x is relevance, in units of the value.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: a number is NaN or infinite; ``depth`` is less than 1.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth: expected at least 1, got {depth}.")
    rows = _changes(audit.layers()[::-1], depth)
    value, explained = float(audit.value), float(audit.explained)
    changes = np.array([change for _, change in rows], float).reshape(-1, len(_FATES))
    if not np.isfinite([value, explained, *changes.ravel()]).all():
        raise ValueError("audit: there are NaNs or infinities among its numbers.")

    names = ["value", *(path for path, _ in rows), "explained"]
    if axes is None:
        size = (7.0, 1.2 + _ROW * len(names))
        axes = _matplotlib("pyplot").subplots(figsize=size, layout="constrained")[1]
    assert axes is not None
    levels = value + np.concatenate([[0.0], np.cumsum(changes)])
    starts = levels[:-1].reshape(changes.shape)
    thick = 0.84 / len(_FATES)
    places = np.arange(1, 1 + len(rows))[:, None] + thick * np.array([-1, 0, 1])
    axes.barh([0, len(rows) + 1], [value, explained], height=0.84, color="0.35")
    for k, (fate, (_, color)) in enumerate(_FATES.items()):
        label = f"{fate}: {changes[:, k].sum():+.3g}"
        axes.barh(places[:, k], changes[:, k], thick, starts[:, k], color=color, label=label)
    # The level as a thin line leads the eye from bar to bar, also where all of them are empty.
    heights = [0.42, *(places.ravel() + thick / 2), len(rows) + 0.58]
    axes.step([*levels, levels[-1]], heights, where="pre", color="0.35", linewidth=0.8)
    axes.axvline(0, color="0.35", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(rows) + 1.6, -0.6)
    axes.set_xlabel("relevance")
    axes.use_sticky_edges = False  # else the longest bar ends at the frame, as if cut off
    axes.margins(x=0.03)
    axes.autoscale_view(scaley=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return axes


# What becomes of relevance in a layer: the attribute of the record that lowers the level, and a
# colour. The three are told apart by the colour-blind too.
_FATES = {
    "to biases": ("bias", "#4477aa"),
    "to stabilisers": ("stabilizer", "#ccaa33"),
    "by rules": ("rule", "#cc4455"),
}


def _changes(layers: Sequence[Layer], depth: int | None) -> list[tuple[str, list[float]]]:
    """For each layer, or run of layers that are one at this depth, its path and three changes."""

    def name(layer: Layer) -> str:
        return "/".join(layer.path.split("/")[:depth])

    # Without a depth every layer is a row of its own, even next to one of the same name.
    key = name if depth is not None else id
    rows = []
    for _, run in itertools.groupby(layers, key=key):
        run = list(run)
        changes = [
            -sum(float(getattr(layer, attribute)) for layer in run)
            for attribute, _ in _FATES.values()
        ]
        rows.append((name(run[0]) or "(no layer)", changes))
    return rows


def _pixels(relevance: Any) -> np.ndarray:
    """Relevance as float64 (H, W), the channels added, which no longer overflows or rounds."""
    values = np.asarray(relevance)
    if not np.can_cast(values.dtype, np.float64, "same_kind"):
        raise TypeError(f"relevance: expected real numbers, got {values.dtype}.")
    if values.ndim not in (2, 3) or values.size == 0:
        hint = " Draw the examples of a batch one by one, or by grid." if values.ndim == 4 else ""
        raise ValueError(
            f"relevance: expected (H, W) or (H, W, C), got shape {values.shape}.{hint}"
        )
    values = values.astype(np.float64)
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"relevance: {wrong} of {values.size} numbers are NaN or infinite.")
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
    return float(np.percentile(magnitudes, percentile)) or largest


def _finish(axes: Axes, drawn: Any, limit: float, colorbar: bool, title: str) -> None:
    _label(axes, title)
    if colorbar:
        _scale(drawn, axes, (f"{-limit:.2g}", "0", f"{limit:.2g}"), shrink=0.8)


def _scale(drawn: Any, axes: Any, ends: tuple[str, str, str], **options: Any) -> None:
    """A colour bar beside ``axes``, with three ticks: pointed, for what is beyond has its ends."""
    low, high = drawn.get_clim()
    # An overlay's colours have the opacities of its pixels; those of the scale are opaque.
    colors = _matplotlib("cm").ScalarMappable(drawn.norm, drawn.cmap)
    figure = np.ravel(axes)[0].get_figure()
    bar = figure.colorbar(colors, ax=axes, extend="both", ticks=[low, 0, high], **options)
    bar.ax.set_yticklabels(ends, fontsize="x-small")


def _label(axes: Axes, title: str, below: str = "") -> None:
    """Nothing of the axes but a title and a line below."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize="x-small", pad=2)
    axes.set_xlabel(below, fontsize="xx-small", labelpad=1, color="0.4")


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        message = 'jaxrel.plot draws with matplotlib: pip install "jaxrel[plot]"'
        raise ImportError(message) from error


def _axes(axes: Axes | None) -> Axes:
    return _matplotlib("pyplot").gca() if axes is None else axes
