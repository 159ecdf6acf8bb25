"""Which rule set is faithful: the in-domain single-deletion score of every preset.

    python -m experiments.idsds
    python -m experiments.idsds --quick

A CNN, the same without biases and a small vision transformer learn digits of which single cells of
4 x 4 may be missing. What a network's logit loses without a cell is compared with the relevance of
the cell: Spearman's correlation over the 16 cells (Hesse, Schaub-Meyer, Roth 2024).

Presets that compare do so with black, and with the picture itself without half, or a quarter, of
its cells (`experiments.cells.references`); integrated gradients do, too, for what is compared with
may matter more than the rule. `passes` says how many gradients or comparisons a map takes: taking
each cell away in turn takes 16 forward passes and is right by definition. Halves and quarters know
the cells; halves of other cells, squares of 4 x 4 pixels, do not.

The best preset is chosen on pictures that are not those of the result, among those of one pass and
among all; all are in the table, with the paired difference to integrated gradients from black, from
halves, and from what the preset compares with, and to gradient x input, on the same pictures, and
its standard error. `idsds.csv` has every number; `idsds.png` shows them.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments import command
from experiments.cells import references
from experiments.cells.explained import STEPS, methods
from experiments.cells.networks import GRID, NETWORKS, Subject, drops, label_logit, subject
from experiments.data import records
from experiments.networks.digits import Digits
from jaxrel import metrics

METHODS = methods() | {name: explain for name, (explain, _) in references.METHODS.items()}
PASSES = {"random": 0, "integrated gradients": STEPS}
PASSES |= {name: passes for name, (_, passes) in references.METHODS.items()}
"""Of those that do not take one."""
RIVALS = ("integrated gradients", "integrated gradients, own halves", "gradient")
"""The last is gradient x input, in units of the logit."""
BATCH = 25  # pictures at once: what caches have room for, with all points of a path
SAME = "integrated gradients against the same"

Scores = dict[str, np.ndarray]
"""Of each method, (pictures,)."""


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("idsds", __doc__)
    command.add_folder(parser, "idsds")
    parser.add_argument(
        "--networks", default=",".join(NETWORKS), help="comma-separated (default: %(default)s)"
    )
    command.add_seeds(parser, 3)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, three epochs, 150 pictures: to see it run"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    networks = command.names("--networks", options.networks, NETWORKS)
    output = records.folder(options.output)
    seeds = range(command.seeds(options))
    pictures, epochs = (150, 3) if options.quick else (1500, 10)
    rows, accuracies = [], {}
    for name in networks:
        found: list[tuple[Scores, Scores]] = []
        for seed in seeds:
            on = subject(name, seed, pictures, epochs)
            accuracies[f"{name}, {seed}"] = round(on.accuracy, 4)
            print(f"{name}, seed {seed}: {on.accuracy:.1%} of the test digits", flush=True)
            found.append(scores(on, METHODS))
        chosen, test = (
            {method: np.concatenate([part[k][method] for part in found]) for method in found[0][k]}
            for k in (0, 1)
        )
        rows += table(name, chosen, test, len(seeds))
    records.write_table(output / "idsds.csv", COLUMNS, rows)
    draw(rows, networks).savefig(output / "idsds.png", dpi=120)
    records.write_origin(
        output / "idsds.json",
        f"python -m experiments.idsds{' --quick' if options.quick else ''}",
        ("flax", "optax", "mlxtend"),
        seeds=len(seeds),
        accuracies=accuracies,
    )
    print(report(rows))
    print(f"results in {output}")


def scores(on: Subject, names: Iterable[str]) -> tuple[Scores, Scores]:
    """The scores of methods on every picture: those for choosing, those of the test."""
    digits = Digits(*(np.concatenate(parts) for parts in zip(on.choosing, on.test, strict=True)))
    lost = np.asarray(drops(on.name)(on.variables, digits))
    found = {}
    for name in names:
        score = _score(on.name, name)
        batches = [np.s_[at : at + BATCH] for at in range(0, len(lost), BATCH)]
        found[name] = np.concatenate(
            [score(on.variables, Digits(*(p[at] for p in digits)), lost[at]) for at in batches]
        )
    border = len(on.choosing.labels)
    return {m: s[:border] for m, s in found.items()}, {m: s[border:] for m, s in found.items()}


@functools.cache
def _score(network: str, method: str) -> Callable[[Any, Digits, np.ndarray], jax.Array]:
    """One program for all seeds."""

    @jax.jit
    def score(variables: Any, digits: Digits, lost: np.ndarray) -> jax.Array:
        fun = label_logit(network, variables, jnp.asarray(digits.labels))
        relevance = METHODS[method](fun, jnp.asarray(digits.images))
        return metrics.spearman(metrics.part_sums(relevance, GRID), jnp.asarray(lost))

    return score


COLUMNS = (
    "network",
    "method",
    "passes",
    "score when choosing",
    "score",
    "standard error",
    "spread of seeds",
    *(f"over {rival}{error}" for rival in (*RIVALS, SAME) for error in ("", ", standard error")),
    "chosen",
)


def table(network: str, chosen: Scores, test: Scores, seeds: int) -> list[tuple]:
    """A row for each method, the best first."""
    best = _best(chosen)
    rows = []
    for name in sorted(test, key=lambda name: -test[name].mean()):
        of_seeds = records.spread(test[name].reshape(seeds, -1).mean(1))
        same = RIVALS[0] + "".join(name.partition(", own")[1:])
        over = [_mean(test[name] - test[rival]) for rival in (*RIVALS, same)]
        scores = float(chosen[name].mean()), *_mean(test[name]), of_seeds
        rows.append(
            (network, name, PASSES.get(name, 1), *scores)
            + tuple(v for pair in over for v in pair)
            + (", ".join(among for among, taken in best.items() if taken == name),)
        )
    return rows


def _best(chosen: Scores) -> dict[str, str]:
    """The best preset of one pass, and of all."""
    presets = [name for name in chosen if not name.startswith((*RIVALS, "random"))]
    among = {"of one pass": [p for p in presets if PASSES.get(p, 1) == 1], "of all": presets}
    return {
        which: max(names, key=lambda name: chosen[name].mean()) for which, names in among.items()
    }


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def report(rows: Sequence[tuple]) -> str:
    """The table as text."""
    head = f"{'network':20s}{'method':49s}passes choosing  test             over IG         "
    lines = [head + "over IG, halves   over g x i       over IG, the same"]
    for network, name, passes, choosing, score, error, _, *over, best in rows:
        pairs = "  ".join(f"{over[k]:+.3f} ± {over[k + 1]:.3f}" for k in range(0, len(over), 2))
        lines.append(
            f"{network:20s}{name:49s}{passes:4d}{choosing:9.3f}  {score:6.3f} ± {error:.3f}  "
            + pairs
            + (f"   <- best {best}" if best else "")
        )
    return "\n".join(lines)


def draw(rows: Sequence[tuple], networks: Sequence[str]) -> Figure:
    """A panel for each network, a bar for each method."""
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=(5 * len(networks), 7.6), layout="constrained", squeeze=False
    )
    figure.suptitle(
        "In-domain single-deletion score, mean ± standard error (higher: more faithful); "
        "in brackets how many passes a map takes"
    )
    for axes, network in zip(panels[0], networks, strict=True):
        own = [row for row in rows if row[0] == network][::-1]
        axes.barh(
            [f"{name} ({passes:.0f})" for _, name, passes, *_ in own],
            [row[4] for row in own],
            color=[_color(row[1]) for row in own],
            xerr=[row[5] for row in own],
        )
        axes.tick_params("y", labelsize=8)
        axes.set(title=network, xlabel="Spearman's correlation")
        axes.set_ylim(-0.6, len(own) - 0.4)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    marks = [Patch(color=color, label=label) for label, color in _COLORS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


_COLORS: Mapping[str, str] = {
    "preset": "#4477aa",
    "preset, against the picture's own parts": "#228833",
    "integrated gradients, gradient x input": "#ccbb44",
    "random": "#bbbbbb",
}


def _color(method: str) -> str:
    preset, own, rival, random = _COLORS.values()
    if method == "random":
        return random
    if method.startswith(RIVALS):
        return rival
    return own if "own" in method else preset


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
