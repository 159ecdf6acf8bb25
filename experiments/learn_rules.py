"""Learn the numbers in rules by `jax.grad` through the relevance, to be faithful.

    python -m experiments.learn_rules
    python -m experiments.learn_rules --quick

For two CNNs that are at home with digits of which a cell is missing (see `experiments.idsds`), a
gamma for each layer, a gamma for each layer and sign of its weights, and a mixture of these with
other rule sets are learned on 700 pictures in 200 steps of Adam, and judged by the in-domain
single-deletion score on 800 others, beside the preset that is best on the 700. The step, the rate
and their number were set beforehand. `learn_rules.csv` has the differences to that preset, picture
by picture, with their standard error, and what was learned.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import command
from experiments.cells.learned import HANDS, LAYERS, learner, score
from experiments.cells.networks import drops, subject
from experiments.data import records
from experiments.idsds import Scores, scores

NETWORKS = ("cnn", "cnn without biases")
COLUMNS = (
    "network",
    "rules",
    "score",
    "over the best preset",
    "standard error",
    "seeds",
    "learned",
)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("learn_rules", __doc__)
    command.add_folder(parser, "learn_rules")
    command.add_seeds(parser, 3)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, three epochs, 150 pictures: to see it run"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    output = records.folder(options.output)
    seeds = command.seeds(options)
    rows = []
    for network in NETWORKS:
        judged = [_seed(network, seed, options.quick) for seed in range(seeds)]
        rows += table(network, judged)
        print(report(rows[-len(HANDS) - 1 :]), flush=True)
    records.write_table(output / "learn_rules.csv", COLUMNS, rows)
    draw(rows).savefig(output / "learn_rules.png", dpi=120)
    records.write_origin(
        output / "learn_rules.json",
        f"python -m experiments.learn_rules{' --quick' if options.quick else ''}",
        ("flax", "optax", "mlxtend"),
        seeds=seeds,
    )
    print(f"results in {output}")


def _seed(network: str, seed: int, quick: bool) -> tuple[Scores, Scores, dict[str, Any]]:
    """Scores of presets when choosing and on the test, learned rules beside; what was learned."""
    on = subject(network, seed, *((150, 3) if quick else (1500, 10)))
    chosen, test = scores(on)
    lost, unseen = (drops(network)(on.variables, digits) for digits in (on.choosing, on.test))
    numbers = {}
    for hand in HANDS:
        key = jax.random.key(seed)
        numbers[hand] = learner(network, hand)(on.variables, on.choosing, lost, key)
        test[hand] = np.asarray(score(network, hand)(numbers[hand], on.variables, on.test, unseen))
        print(f"{network}, seed {seed}, {hand}: {test[hand].mean():.3f}", flush=True)
    return chosen, test, jax.device_get(numbers)


def table(network: str, judged: Sequence[tuple[Scores, Scores, dict[str, Any]]]) -> list[tuple]:
    """A row for the best preset, and for each hand."""
    presets = [name for name in judged[0][0] if name != "random"]
    best = max(presets, key=lambda name: np.mean([chosen[name].mean() for chosen, *_ in judged]))
    rows = []
    for name in (best, *HANDS):
        on_test = np.concatenate([test[name] for _, test, _ in judged])
        over = on_test - np.concatenate([test[best] for _, test, _ in judged])
        of_seeds = " ".join(f"{test[name].mean():.3f}" for _, test, _ in judged)
        error = float(over.std(ddof=1) / np.sqrt(len(over)))
        learned = _learned(judged[0][2][name]) if name in HANDS else ""
        rows.append(
            (network, name, float(on_test.mean()), float(over.mean()), error, of_seeds, learned)
        )
    return rows


def _learned(numbers: dict[str, np.ndarray]) -> str:
    """What was learned with the first seed, as text."""
    found = {layer: f"{np.logaddexp(0, numbers[layer]):.2f}" for layer in LAYERS}
    found |= {name: f"{value:+.2f}" for name, value in numbers.items() if "negative" in name}
    if "weights" in numbers:
        shares = np.exp(numbers["weights"]) / np.exp(numbers["weights"]).sum()
        found["weights"] = " ".join(f"{share:.2f}" for share in shares)
    return "; ".join(f"{name} {value}" for name, value in found.items())


def report(rows: Sequence[tuple]) -> str:
    """The table as text."""
    return "\n".join(
        f"{network:20s}{name:28s}{score:.3f}  {over:+.3f} ± {error:.3f}   ({seeds})  {learned}"
        for network, name, score, over, error, seeds, learned in rows
    )


def draw(rows: Sequence[tuple]) -> Figure:
    """A panel for each network, a bar for each way."""
    figure, panels = pyplot.subplots(
        1, len(NETWORKS), figsize=(9.4, 2.8), layout="constrained", squeeze=False, sharex=True
    )
    figure.suptitle("What learning the rules adds to the score of the best preset")
    for axes, network in zip(panels[0], NETWORKS, strict=True):
        best, *own = [row for row in rows if row[0] == network]
        axes.barh([r[1] for r in own][::-1], [r[3] for r in own][::-1],
                  xerr=[r[4] for r in own][::-1], color="#4477aa")  # fmt: skip
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set(
            title=f"{network}: best preset {best[1]}, {best[2]:.3f}",
            xlabel="difference of Spearman's correlations ± standard error",
        )
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
