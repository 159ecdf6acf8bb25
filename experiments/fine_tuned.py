"""EfficientNet-Lite0 tuned to dogs on grass and wolves on snow: can it learn to see the animal?

    python -m experiments.fine_tuned --quick      a few minutes
    python -m experiments.fine_tuned              the full table: an accelerator, or hours

`experiments.dogs_and_wolves` in colour, at 96 pixels (`experiments.tuned.pictures`), with a network
that ImageNet has taught already (`experiments.tuned.network` says which of its parameters are
trained). Every training picture has its class's background. Networks are judged, and lambda is
chosen, as `experiments.tuned.recipes` says: the largest whose accuracy on validation composites,
of the worse class, is within 0.02 of the best, with the first seed. Runs are kept in the folder
`--output`, which several processes may share, each with some of the `--recipes`; a last call with
`--finished` writes the table.
"""

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import command
from experiments.backgrounds import animals, pictures, recipes, report, runs
from experiments.backgrounds.recipes import Recipe
from experiments.tuned import network
from experiments.tuned.recipes import (
    METRICS,
    RECIPES,
    Data,
    Test,
    arrays,
    judge,
    loss,
    make,
    make_test,
)

PICTURES, EPOCHS, _QUICK_PICTURES, _QUICK_EPOCHS = 900, 10, 120, 1
BATCH, LEARNING_RATE = 16, 3e-4
_COLUMNS = "recipe information rules penalty reference lambda seed epochs pictures chosen".split()
_SHOWN = {
    "accuracy": "accuracy",
    "worst_group": "worst",
    "flip_rate": "flips",
    "validation_flips": "validation flips",
    "in_mask_trained": "in mask",
    "goodhart_gap": "gap",
}


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("fine_tuned", __doc__)
    command.add_seeds(parser, 5)
    add = parser.add_argument
    add("--epochs", type=int, help=f"default: {EPOCHS}, or {_QUICK_EPOCHS} with --quick")
    add("--pictures", type=int, help=f"default: {PICTURES}, or {_QUICK_PICTURES} with --quick")
    add("--recipes", metavar="NAMES", help="comma-separated (default: all)")
    add("--quick", action="store_true", help="few pictures, one lambda, one seed, one epoch")
    add("--finished", action="store_true", help="train nothing: the table of what is finished")
    command.add_folder(parser, "runs/fine_tuned", "runs, table and figure")
    add(
        "--cache",
        metavar="FOLDER",
        type=Path,
        default=animals.default_cache(),
        help="where the silhouettes are downloaded to (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    seeds = command.seeds(options)
    settings = {
        "epochs": command.given(options, "epochs", _QUICK_EPOCHS, EPOCHS),
        "pictures": command.given(options, "pictures", _QUICK_PICTURES, PICTURES),
    }
    rows_of = {recipe.name: recipe for recipe in RECIPES}
    names = command.names("--recipes", options.recipes or ",".join(rows_of), rows_of)
    experiment = Experiment(options, settings)
    rows = []
    with tqdm(names, desc="recipes", disable=None) as bar:
        for name in bar:
            rows += runs.sweep(experiment.run, rows_of[name], seeds, options.quick)
    _write(options.output, rows, settings | {"seeds": seeds})


class Experiment:
    """Trains and judges, or reads what was trained and judged before.

    Args:
        options: The command line.
        settings: Of every run.
    """

    def __init__(self, options: argparse.Namespace, settings: dict[str, int]):
        self.settings, self.finished = settings, options.finished
        self.store = runs.Store(options.output, settings)
        self.split = pictures.split(*animals.load(animals.fetch(options.cache)))

    @functools.lru_cache(maxsize=5)  # noqa: B019 - there is one experiment
    def data(self, seed: int) -> Data:
        """The features of a seed's pictures."""
        return make(self.split, seed, self.settings["pictures"])

    @functools.cached_property
    def test(self) -> Test:
        """The features of the test's pictures: as many as those to train on."""
        return make_test(self.split, self.settings["pictures"])

    def run(self, recipe: Recipe, weight: float, seed: int) -> dict[str, Any] | None:
        """The row of one run; None if it is not finished and is not to be."""
        name = self.store.name(recipe, weight, seed)
        if (row := self.store.read(name)) is not None or self.finished:
            return row
        data = self.data(seed)
        start = time.perf_counter()
        problem = runs.Problem(
            loss(recipes.anonymous(recipe)), arrays(recipe, data), network.trained()
        )
        epochs = self.settings["epochs"]
        params = runs.train(
            problem, weight, seed, epochs, batch=BATCH, rate=LEARNING_RATE, title=name
        )
        row = report.row(recipe, weight, seed) | self.settings
        row |= judge(params, recipe, data, self.test)
        self.store.write(name, row | {"seconds": time.perf_counter() - start})
        return row


def _write(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the table, the figure and how they were made."""
    title = "EfficientNet-Lite0 tuned where the background tells the class"
    report.bars(folder / "fine_tuned.png", rows, ("recipe",), title=title)
    report.write("fine_tuned", folder, rows, settings, [*_COLUMNS, *METRICS], _SHOWN)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
