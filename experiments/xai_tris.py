"""Which pixels tell a T from an L: explanations where the truth is known, and edges compete.

    python -m experiments.xai_tris
    python -m experiments.xai_tris --quick

Four scenarios of tetrominoes in white and in correlated noise (XAI-TRIS: Clark, Wilming, Haufe
2024, pictures of 8 x 8, restated from the paper's protocol), an MLP and a CNN. Of 1000 test
pictures those that both networks get right are explained, the logit of the class less that of the
other, and precision is the share of the n largest magnitudes that are on the n pixels of the truth.
The preset is chosen for each of the 16 cells by 1000 other pictures; it is compared picture by
picture with the best of Sobel's filter, Laplace's filter, abs(x) and chance. Beside it is the share
of all relevance that is off the truth: in correlated noise, on suppressors. `xai_tris.csv` has all
methods, `xai_tris.png` the sixteen cells. (The paper trains longer, more slowly, and reports the
earth mover's distance too.)
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import command
from experiments.data import records
from experiments.tetrominoes import maps, networks
from experiments.tetrominoes.maps import FILTERS, PRESETS, Score
from experiments.tetrominoes.pictures import NOISES, SCENARIOS, Pictures, draw, parts

COLUMNS = (
    "scenario",
    "noise",
    "network",
    "method",
    "precision when choosing",
    "precision",
    "spread of seeds",
    "over the best filter",
    "standard error",
    "off the truth",
    "chosen",
)
EPOCHS = 60
LEARNED, ATTEMPTS = 0.7, 4
"""A network that gets less of the pictures for choosing right begins anew, a few times."""


class Cell(NamedTuple):
    """A scenario, a noise and a network: scores of all methods with all seeds.

    Attributes:
        where: Scenario, noise, network.
        choosing: Of pictures for choosing, by method.
        test: Of test pictures, by method.
        seeds: Of each test picture.
    """

    where: tuple[str, str, str]
    choosing: dict[str, Score]
    test: dict[str, Score]
    seeds: np.ndarray


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("xai_tris", __doc__)
    command.add_folder(parser, "xai_tris")
    parser.add_argument(
        "--scenarios", default=",".join(SCENARIOS), help="comma-separated (default: %(default)s)"
    )
    command.add_seeds(parser, 3)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs: to see it run")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    scenarios = command.names("--scenarios", options.scenarios, SCENARIOS)
    output = records.folder(options.output)
    seeds, epochs = command.seeds(options), 2 if options.quick else EPOCHS
    cells, accuracies = [], {}
    for where in ((scenario, noise) for scenario in scenarios for noise in NOISES):
        found = [judged(*where, seed, epochs) for seed in range(seeds)]
        for network in networks.NETWORKS:
            cells.append(_cell((*where, network), [one[network] for one, _ in found]))
            accuracies[", ".join(cells[-1].where)] = [right[network] for _, right in found]
            print(*cells[-1].where, accuracies[", ".join(cells[-1].where)], flush=True)
    rows = [row for cell in cells for row in table(cell)]
    records.write_table(output / "xai_tris.csv", COLUMNS, rows)
    draw_cells(rows).savefig(output / "xai_tris.png", dpi=120)
    records.write_origin(
        output / "xai_tris.json",
        f"python -m experiments.xai_tris{' --quick' if options.quick else ''}",
        ("flax", "optax", "scipy"),
        seeds=seeds,
        accuracies=accuracies,
    )
    print(report(rows))
    print(f"results in {output}")


def judged(scenario: str, noise: str, seed: int, epochs: int) -> tuple[dict[str, Any], Any]:
    """Of each network its scores when choosing and on the test, and its accuracy on the test."""
    train, *others = parts(draw(scenario, noise, seed))
    means = np.stack([train.images[train.labels == label].mean(0) for label in (0, 1)])
    variables = {name: _learned(name, train, others[0], seed, epochs) for name in networks.NETWORKS}
    right = [
        {name: _right(name, variables[name], part) for name in networks.NETWORKS} for part in others
    ]
    found = {}
    for name in networks.NETWORKS:
        found[name] = [
            _scores(maps.maps(name, variables[name], part, means), part.masks, _all(of.values()))
            for part, of in zip(others, right, strict=True)
        ]
    return found, {name: round(float(of.mean()), 4) for name, of in right[1].items()}


def _learned(name: str, train: Pictures, choosing: Pictures, seed: int, epochs: int) -> Any:
    """Variables of a network that has learned something: some first weights are dead ends."""
    variables = None
    for attempt in range(ATTEMPTS):
        variables = networks.train(name, train, 100 * attempt + seed, epochs)
        if _right(name, variables, choosing).mean() >= LEARNED:
            break
    return variables


def _right(name: str, variables: Any, pictures: Pictures) -> np.ndarray:
    logits = jax.jit(networks.NETWORKS[name].apply)(variables, pictures.images)
    return np.asarray(logits).argmax(-1) == pictures.labels


def _all(of: Any) -> np.ndarray:
    return np.logical_and.reduce(list(of))


def _scores(found: dict[str, Any], masks: np.ndarray, kept: np.ndarray) -> dict[str, Score]:
    """Scores of those pictures that are kept."""
    scores = {name: maps.score(values, masks) for name, values in found.items()}
    return {name: Score(*(part[kept] for part in of)) for name, of in scores.items()}


def _cell(where: tuple[str, str, str], found: Sequence[Any]) -> Cell:
    """The pictures of all seeds, one after another."""
    choosing, test = (
        {
            name: Score(
                *(np.concatenate(part) for part in zip(*(f[k][name] for f in found), strict=True))
            )
            for name in found[0][k]
        }
        for k in (0, 1)
    )
    sizes = [len(test["random"].precision) for _, test in found]
    return Cell(where, choosing, test, np.repeat(np.arange(len(found)), sizes))


def table(cell: Cell) -> list[tuple]:
    """A row for each method, the best first."""
    precision = {name: of.precision for name, of in cell.test.items()}
    choosing = {name: of.precision.mean() for name, of in cell.choosing.items()}
    chosen = max(PRESETS, key=lambda name: choosing[name])
    rival = precision[max(FILTERS, key=lambda name: precision[name].mean())]
    rows = []
    for name in sorted(precision, key=lambda name: -precision[name].mean()):
        values, over = precision[name], precision[name] - rival
        of_seeds = [values[cell.seeds == seed].mean() for seed in np.unique(cell.seeds)]
        error = over.std(ddof=1) / np.sqrt(len(over))
        rows.append(
            (*cell.where, name, float(choosing[name]), float(values.mean()))
            + (records.spread(of_seeds), float(over.mean()), float(error))
            + (float(cell.test[name].outside.mean()), "yes" if name == chosen else "")
        )
    return rows


def report(rows: Sequence[tuple]) -> str:
    """A line for each cell: the preset that was chosen, and the best filter."""
    lines = [
        f"{'cell':36s}{'preset':36s}precision  off    {'filter':8s} precision  off    ahead by"
    ]
    for where in dict.fromkeys(row[:3] for row in rows):
        own = [row for row in rows if row[:3] == where]
        best = next(row for row in own if row[-1])
        rival = next(row for row in own if row[3] in FILTERS)
        lines.append(
            f"{', '.join(where):36s}{best[3]:36s}{best[5]:9.3f}{best[9]:5.2f}    "
            f"{rival[3]:8s} {rival[5]:9.3f}{rival[9]:5.2f}    {best[7]:+.3f} ± {best[8]:.3f}"
        )
    return "\n".join(lines)


def draw_cells(rows: Sequence[tuple]) -> Figure:
    """A panel for each scenario and noise: all methods, with both networks."""
    panels_of = list(dict.fromkeys(row[:2] for row in rows))
    columns = max(len(panels_of) // 2, 1)
    figure, panels = pyplot.subplots(
        2,
        columns,
        figsize=(1 + 3.6 * columns, 10),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    figure.suptitle("Share of the most relevant pixels that are on the truth (ring: chosen)")
    methods = [*FILTERS, *maps.EXPLANATIONS][::-1]
    for axes, where in zip(panels.T.ravel(), panels_of, strict=True):
        for network, color in zip(networks.NETWORKS, ("#4477aa", "#ee6677"), strict=True):
            own = {row[3]: row for row in rows if row[:3] == (*where, network)}
            values = [own[name][5] for name in methods]
            axes.plot(values, methods, "o", color=color, markersize=4, label=network)
            axes.axvline(max(own[name][5] for name in FILTERS), color=color, linewidth=0.8)
            best = next(name for name in methods if own[name][-1])
            axes.plot(own[best][5], best, "o", color=color, markersize=10, fillstyle="none")
        axes.set(title=", ".join(where), xlim=(-0.03, 1.03))
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(axis="y", linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(fontsize=8)
    figure.supxlabel("precision; line: the best of Sobel, Laplace, abs(x) and chance", fontsize=10)
    return figure


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
