"""The table and the figures of `experiments.dogs_and_wolves`, from its finished runs."""

import csv
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.backgrounds.judge import METRICS
from experiments.backgrounds.recipes import Recipe

COLUMNS = (
    "recipe information rules penalty reference lambda seed masks proposes tolerance correlation "
    "epochs chosen validation_accuracy validation_score"
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


def row(recipe: Recipe, weight: float, seed: int) -> dict[str, Any]:
    """The columns that say what a run was."""
    columns = {key: value for key, value in recipe._asdict().items() if key in COLUMNS}
    low, high = recipe.tolerances[0]
    return columns | {
        "recipe": recipe.name,
        "lambda": weight,
        "seed": seed,
        "tolerance": f"{low}-{high}",
    }


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write all runs, swept lambdas included; `chosen` tells which the means are taken over."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: _written(k, row[k]) for k in columns})


def _written(column: str, value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) and column != "lambda" else value


def summarize(
    rows: Iterable[Row], by: Sequence[str] = ("recipe",)
) -> dict[tuple[Any, ...], list[Row]]:
    """Group the chosen rows, in the order in which the groups first occur."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["chosen"]:
            groups.setdefault(tuple(row[column] for column in by), []).append(row)
    return groups


def markdown(
    rows: Iterable[Row],
    shown: Mapping[str, str] = _SHOWN,
    by: Sequence[str] = ("recipe",),
) -> str:
    """The table in percent: the mean and the standard deviation over the seeds.

    Args:
        rows: All rows.
        shown: Headings of the columns of numbers.
        by: Columns that tell the groups apart.
    """
    rows = list(rows)
    wide = ["tolerance"] if any(row.get("tolerance", "0-0") != "0-0" for row in rows) else []
    head = [*by, "information", "lambda", *wide, "seeds", *shown.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for names, group in summarize(rows, by).items():
        cells = [*map(str, names), group[0]["information"], f"{group[0]['lambda']:g}"]
        cells += [*(group[0][column] for column in wide), str(len(group))]
        for column in shown:
            values = 100 * np.array([row[column] for row in group])
            spread = f" ± {values.std():.1f}" if len(values) > 1 else ""  # one seed has none
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe(command: str, settings: Mapping[str, Any]) -> str:
    """The line above a table: the command, its settings, and the versions."""
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    device = jax.devices()[0].device_kind
    facts = {**settings, "device": device, **versions, "python": platform.python_version()}
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    return f"`{command}`: {told}.\nMean and standard deviation over the seeds, in percent.\n\n"


def write(
    name: str,
    folder: Path,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    columns: Sequence[str],
    shown: Mapping[str, str],
    by: Sequence[str] = ("recipe",),
) -> None:
    """Write and print the table of a script whose figure is drawn.

    Args:
        name: Of the script, and of its files.
        folder: Theirs.
        rows: All rows.
        settings: Of every run.
        columns: Of the CSV file.
        shown, by: As for `markdown`.
    """
    write_csv(folder / f"{name}.csv", rows, columns)
    text = describe(f"python -m experiments.{name}", settings) + markdown(rows, shown, by) + "\n"
    (folder / f"{name}.md").write_text(text)
    print(text)
    print(f"wrote {folder}/{name}.csv, .md and .png")


def figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw what the trained metric promises against what the network does."""
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row["correlation"] == 1 and row["masks"] == "true"]
    picture = Figure(figsize=(12, 5.4), layout="constrained")
    picture.suptitle("Dogs on grass, wolves on snow: what explanations promise, and what holds")
    left, right = picture.subplots(1, 2)
    for rules, (label, colour, marker) in _KINDS.items():
        group = [row for row in drawn if row["rules"] == rules]
        if not group:
            continue
        style = {"color": colour, "marker": marker, "label": label, "alpha": 0.7, "s": 20}
        in_mask = [100 * row["in_mask_trained"] for row in group]
        left.scatter(in_mask, [100 * row["worst_group"] for row in group], **style)
    left.set_xlabel("relevance on the animal, by the trained rule (%)")
    left.set_ylabel("accuracy of the worst group (%)")
    left.set_title("every network, swept lambdas included", fontsize=10)
    left.legend(fontsize=8, title="trained on relevance by")
    _flips(right, drawn)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=120)


def _flips(axes: Any, rows: Sequence[Row]) -> None:
    """Bars of the answers that flip; recipes where most do are left out."""
    groups = {name: group for (name,), group in summarize(rows).items()}
    flips = {k: 100 * np.array([row["flip_rate"] for row in g]) for k, g in groups.items()}
    names = sorted((k for k in flips if flips[k].mean() < 60), key=lambda k: -flips[k].mean())
    axes.barh(
        names,
        [flips[name].mean() for name in names],
        xerr=[flips[name].std() if len(flips[name]) > 1 else np.nan for name in names],
        color=[_KINDS[groups[name][0]["rules"]][1] for name in names],
    )
    axes.set_xlabel("answers (%), mean and standard deviation of seeds")
    axes.set_title("answers that change with the background alone (below 60 %)", fontsize=10)
    axes.tick_params(axis="y", labelsize=7)


COLOURS = ("#0072B2", "#D55E00", "#999999", "#009E73")
"""Of Okabe and Ito (2008), told apart by the colour-blind too."""
_KINDS = {
    "": ("none", "#999999", "o"),
    "baseline": ("comparison", "#0072B2", "o"),
    "gradient": ("gradient", "#E69F00", "s"),
    "slope": ("slope", "#56B4E9", "^"),
    "epsilon": ("epsilon", "#CC79A7", "v"),
    "zplus": ("z-plus", "#D55E00", "D"),
}
"""Of rules: what they are called in figures, a colour of theirs, a marker."""
BARS = {"accuracy": "accuracy", "worst_group": "worst group", "flip_rate": "flips"}


def bars(
    path: Path,
    rows: Sequence[Row],
    by: Sequence[str],
    shown: Mapping[str, str] = BARS,
    title: str = "",
) -> None:
    """Draw columns in percent, for each group of chosen rows: means, and deviations over seeds.

    Args:
        path: Of the picture.
        rows: All rows.
        by: Columns that tell the groups apart.
        shown: Names of the columns, four at most.
        title: Above.
    """
    from matplotlib.figure import Figure

    groups = summarize(rows, by)
    picture = Figure(figsize=(9, 1.2 + 0.38 * len(groups)), layout="constrained")
    axes = picture.subplots()
    places, height = np.arange(len(groups)), 0.8 / len(shown)
    for number, (column, name) in enumerate(shown.items()):
        values = [100 * np.array([row[column] for row in group]) for group in groups.values()]
        axes.barh(
            places + height * (number - (len(shown) - 1) / 2),
            [value.mean() for value in values],
            height=0.9 * height,
            xerr=[value.std() if len(value) > 1 else np.nan for value in values],
            error_kw={"elinewidth": 0.8},
            color=COLOURS[number],
            label=name,
        )
    axes.set_yticks(places, [" ".join(names) for names in groups], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("% (mean and standard deviation over seeds)")
    axes.set_title(title, fontsize=10)
    picture.legend(fontsize=8, loc="outside lower center", ncols=len(shown))
    picture.savefig(path, dpi=120)
