"""The table and the figures of `experiments.dogs_and_wolves`, from its finished runs."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.backgrounds.judge import METRICS

COLUMNS = (
    "recipe information rules penalty reference lambda seed masks correlation epochs chosen "
    "validation_accuracy validation_score"
).split() + METRICS
"""The columns of the CSV file, one row per run."""

_SHOWN = {
    "accuracy": "accuracy",
    "worst_group": "worst",
    "flip_rate": "flips",
    "third_background": "third",
    "in_mask_trained": "in mask",
    "goodhart_gap": "gap",
    "in_mask_another": "vs another",
    "background_effect": "effect",
    "one_sided_units": "one-sided",
}
Row = Mapping[str, Any]


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write all runs, swept lambdas included; `chosen` tells which the means are taken over."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            rounded = {k: f"{row[k]:.4f}" if k in _FRACTIONS else row[k] for k in COLUMNS}
            writer.writerow(rounded)


_FRACTIONS = {*METRICS, "validation_accuracy", "validation_score"}


def summarize(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group the chosen rows by recipe, in the order in which recipes first occur."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["chosen"]:
            groups.setdefault(row["recipe"], []).append(row)
    return groups


def markdown(rows: Iterable[Row]) -> str:
    """The table in percent: the mean and the standard deviation over the seeds."""
    head = ["recipe", "information", "lambda", "seeds", *_SHOWN.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, group in summarize(rows).items():
        cells = [name, group[0]["information"], f"{group[0]['lambda']:g}", str(len(group))]
        for column in _SHOWN:
            values = 100 * np.array([row[column] for row in group])
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw what the trained metric promises against what the network does."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 5), layout="constrained")
    left, right = picture.subplots(1, 2)
    colours = {"": "0.3", "baseline": "tab:green", "gradient": "tab:blue", "slope": "tab:cyan"}
    colours |= {"epsilon": "tab:purple", "zplus": "tab:red"}
    drawn = [row for row in rows if row["correlation"] == 1 and row["masks"] == "true"]
    for rules, colour in colours.items():
        group = [row for row in drawn if row["rules"] == rules]
        label = rules or "no relevance"
        style = {"color": colour, "label": label, "alpha": 0.6, "s": 18}
        in_mask = [100 * row["in_mask_trained"] for row in group]
        left.scatter(in_mask, [100 * row["worst_group"] for row in group], **style)
    left.set_xlabel("relevance on the animal, by the trained rule (%)")
    left.set_ylabel("accuracy of the worst group (%)")
    left.set_title("every run, swept weights included")
    left.legend(fontsize=8)
    names, values, errors = [], [], []
    for name, group in summarize(drawn).items():
        flips = 100 * np.array([row["flip_rate"] for row in group])
        if flips.mean() < 60:
            names.append(name)
            values.append(flips.mean())
            errors.append(flips.std())
    order = np.argsort(values)[::-1]
    right.barh([names[i] for i in order], [values[i] for i in order], xerr=[errors[i] for i in order])
    right.set_xlabel("answers that change with the background (%); recipes below 60")
    right.tick_params(axis="y", labelsize=7)
    picture.savefig(path, dpi=120)
