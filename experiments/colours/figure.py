"""The figure of a comparison: what the networks do, and what tells without a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.backgrounds.report import Row, summarize

_STYLES = {
    "plain": ("#999999", "X", "plain"),
    "oracle": ("#000000", "D", "oracle: colours that tell nothing"),
    "composites": ("#E69F00", "s", "trained on composites"),
    "random composites": ("#009E73", "^", "trained on random composites alone"),
    "compare+counterfactual": ("#0072B2", "o", "compared with another background or colour"),
    "zplus:outside_share": ("#D55E00", "v", "z-plus outside share, against zero"),
}
"""Colours that colour-blind eyes tell apart (Okabe and Ito 2008), and markers besides."""


def draw(path: Path, rows: Sequence[Row], told_by: Sequence[str]) -> None:
    """Draw accuracies of the worst group, and every run's Goodhart gap against them.

    Args:
        path: The picture.
        rows: All rows.
        told_by: The columns that tell problems apart.
    """
    from matplotlib.figure import Figure

    groups = summarize(rows, (*told_by, "recipe"))
    problems = list(dict.fromkeys(names[:-1] for names in groups))
    picture = Figure(figsize=(11, 3.6 + 0.32 * len(problems)), layout="constrained")
    left, right = picture.subplots(1, 2)
    for shift, (recipe, (colour, marker, label)) in zip(
        np.linspace(-0.3, 0.3, len(_STYLES)), _STYLES.items(), strict=True
    ):
        style = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 5}
        found = ((n, groups.get((*problem, recipe))) for n, problem in enumerate(problems))
        drawn = [(n, group) for n, group in found if group]
        if not drawn:
            continue
        worst = [_percent(group, "worst_group") for _, group in drawn]
        left.errorbar(
            [values.mean() for values in worst],
            [n + shift for n, _ in drawn],
            xerr=[values.std() for values in worst],
            label=label,
            capsize=2,
            **style,
        )
        every = [row for _, group in drawn for row in group]
        gaps, values = _percent(every, "goodhart_gap"), _percent(every, "worst_group")
        right.plot(gaps, values, alpha=0.6, **style)
    means = np.array([_percent(group, "worst_group").mean() for group in groups.values()])
    shown = means[means >= means.max(initial=0) / 2]
    left.set_xlim(shown.min(initial=100) - 2, shown.max(initial=0) + 2)
    left.set_yticks(range(len(problems)), [", ".join(map(_named, p)) for p in problems], fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("accuracy of the worst group (%): mean and deviation over seeds")
    left.set_title("What the networks do on the test (those that fail: right)")
    right.axvline(0, color="0.6", linewidth=0.8)
    right.set_xlabel("in mask - (1 - flips) on validation pictures (points)")
    right.set_ylabel("accuracy of the worst group (%)")
    right.set_title("The Goodhart gap tells, without a test")
    picture.legend(loc="outside lower center", ncols=3, fontsize=8)
    picture.savefig(path, dpi=120)


def _percent(rows: Sequence[Row], column: str) -> np.ndarray:
    return 100 * np.array([row[column] for row in rows])


def _named(value: Any) -> str:
    return f"p = {value:g}" if isinstance(value, float) else str(value)
