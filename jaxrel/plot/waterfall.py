"""Where relevance goes by layer, drawn as a waterfall."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .drawing import matplotlib_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["waterfall"]

_ROW = 0.25  # inches: height of one layer


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


def waterfall(audit: Audit, axes: Axes | None = None, *, depth: int | None = None) -> Axes:
    """Draws where relevance goes: from the value at the top to what reaches the inputs below.

    Each layer, from output to input, moves the level by what it gives to its biases, what its
    stabilisers swallow, and what its rules create or destroy, one colour each. The legend tells
    their sums, in the words and with the signs of the audit's table: what is taken from relevance
    is positive, and lowers the level. Where relevance is conserved all bars are empty but the first
    and last.

    Args:
      audit: what :func:`jaxrel.audit` returns, or anything like :class:`Audit`.
      axes: where to draw; None: a new figure, high enough for all layers.
      depth: layers that agree in so many leading parts of their paths, and stand together, are
        added up: 1 shows ``block_3`` instead of ``block_3/expand/conv``; None: no adding up.

    Returns:
      The axes; x is relevance, in units of the value.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: it is no audit.
      ValueError: a number is NaN or infinite; ``depth`` is less than 1.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth: expected at least 1, got {depth}.")
    if not hasattr(audit, "layers"):
        raise TypeError(
            f"audit: expected what jaxrel.audit(fun, rules)(x) returns, got {type(audit).__name__}."
        )
    rows = _changes(audit.layers()[::-1], depth)
    value, explained = float(audit.value), float(audit.explained)
    changes = np.array([change for _, change in rows], float).reshape(-1, len(_FATES))
    if not np.isfinite([value, explained, *changes.ravel()]).all():
        raise ValueError("audit: there are NaNs or infinities among its numbers.")

    names = ["value", *(path for path, _ in rows), "explained"]
    if axes is None:
        size = (7.0, 1.2 + _ROW * len(names))
        axes = matplotlib_module("pyplot").subplots(figsize=size, layout="constrained")[1]
    assert axes is not None
    levels = value + np.concatenate([[0.0], np.cumsum(changes)])
    starts = levels[:-1].reshape(changes.shape)
    thick = 0.84 / len(_FATES)
    places = np.arange(1, 1 + len(rows))[:, None] + thick * np.array([-1, 0, 1])
    axes.barh([0, len(rows) + 1], [value, explained], height=0.84, color="0.35")
    for k, (fate, (_, color)) in enumerate(_FATES.items()):
        label = f"{fate}: {-changes[:, k].sum() + 0.0:+.3g}"
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
