"""Which rule set is faithful: the in-domain single-deletion score of every preset.

    python -m experiments.idsds
    python -m experiments.idsds --quick

A CNN, the same without biases and a small vision transformer learn digits of which single cells of
4 x 4 may be missing. What a network's logit loses without a cell is compared with the relevance of
the cell: Spearman's correlation over the 16 cells (Hesse, Schaub-Meyer, Roth 2024). The best preset
is chosen on pictures that are not those of the result; both are in the table, with the paired
difference to integrated gradients and to gradient x input on the same pictures, and its standard
error. `idsds.csv` has every number; `idsds.png` shows them.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import command
from experiments.cells.explained import methods
from experiments.cells.networks import GRID, NETWORKS, Subject, drops, label_logit, subject
from experiments.data import records
from experiments.networks.digits import Digits
from jaxrel import metrics

METHODS = methods()
RIVALS = ("integrated gradients", "gradient")  # gradient x input, in units of the logit

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
            found.append(scores(on))
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


def scores(on: Subject) -> tuple[Scores, Scores]:
    """The score of every method on every picture: those for choosing, those of the test."""
    digits = Digits(*(np.concatenate(parts) for parts in zip(on.choosing, on.test, strict=True)))
    lost = drops(on.name)(on.variables, digits)
    found = {
        name: np.asarray(_score(on.name, name)(on.variables, digits, lost)) for name in METHODS
    }
    border = len(on.choosing.labels)
    return {m: s[:border] for m, s in found.items()}, {m: s[border:] for m, s in found.items()}


@functools.cache
def _score(network: str, method: str) -> Callable[[Any, Digits, jax.Array], jax.Array]:
    """One program for all seeds."""

    @jax.jit
    def score(variables: Any, digits: Digits, lost: jax.Array) -> jax.Array:
        fun = label_logit(network, variables, jnp.asarray(digits.labels))
        relevance = METHODS[method](fun, jnp.asarray(digits.images))
        return metrics.spearman(metrics.part_sums(relevance, GRID), lost)

    return score


COLUMNS = (
    "network",
    "method",
    "score when choosing",
    "score",
    "standard error",
    "spread of seeds",
    *(f"over {rival}{error}" for rival in RIVALS for error in ("", ", standard error")),
    "chosen",
)


def table(network: str, chosen: Scores, test: Scores, seeds: int) -> list[tuple]:
    """A row for each method, the best first."""
    presets = [name for name in test if name not in (*RIVALS, "random")]
    best = max(presets, key=lambda name: chosen[name].mean())
    rows = []
    for name in sorted(test, key=lambda name: -test[name].mean()):
        of_seeds = records.spread(test[name].reshape(seeds, -1).mean(1))
        over = [np.array(_mean(test[name] - test[rival])) for rival in RIVALS]
        rows.append(
            (network, name, float(chosen[name].mean()), *_mean(test[name]), of_seeds)
            + tuple(float(v) for pair in over for v in pair)
            + ("yes" if name == best else "",)
        )
    return rows


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def report(rows: Sequence[tuple]) -> str:
    """The table as text."""
    lines = [f"{'network':20s}{'method':28s}  choosing     test          over IG       over g x i"]
    for network, name, choosing, score, error, _, ig, ig_error, g, g_error, best in rows:
        over = f"{ig:+.3f} ± {ig_error:.3f} {g:+.3f} ± {g_error:.3f}"
        lines.append(
            f"{network:20s}{name:28s}{choosing:9.3f} {score:6.3f} ± {error:.3f} {over}"
            + ("   <- chosen" if best else "")
        )
    return "\n".join(lines)


def draw(rows: Sequence[tuple], networks: Sequence[str]) -> Figure:
    """A panel for each network, a bar for each method."""
    figure, panels = pyplot.subplots(
        1, len(networks), figsize=(4.6 * len(networks), 6.4), layout="constrained", squeeze=False
    )
    figure.suptitle("In-domain single-deletion score (higher: more faithful)")
    for axes, network in zip(panels[0], networks, strict=True):
        own = [row for row in rows if row[0] == network][::-1]
        colors = [_COLORS.get(row[1], "#4477aa") for row in own]
        axes.barh([row[1] for row in own], [row[3] for row in own], color=colors,
                  xerr=[row[4] for row in own])  # fmt: skip
        axes.set(title=network, xlabel="Spearman's correlation, mean ± standard error")
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


_COLORS: Mapping[str, str] = {**dict.fromkeys(RIVALS, "#ccbb44"), "random": "#bbbbbb"}


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
