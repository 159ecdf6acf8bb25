"""Dogs on grass, wolves on snow: can relevance teach a network to look at the animal?

    python -m experiments.dogs_and_wolves --quick       three minutes
    python -m experiments.dogs_and_wolves               the full table
    python -m experiments.dogs_and_wolves --table loose    masks that are loose, few, or boxes
    python -m experiments.dogs_and_wolves --table without_compositing

Every training picture has its class's background. Recipes (`experiments.backgrounds.recipes`) are
judged by what the networks do when the background is exchanged (`experiments.backgrounds.judge`).

How lambda is chosen, settled before any of the reported runs. Lambdas are swept with the first
seed. Each network is scored on the validation split, which is as confounded as the training
pictures, by means of its masks alone, which are of the kind that the recipe was given: every
validation animal is put on the background of a validation picture of the other class (its own
animal filled from the mirrored picture), and the score is the accuracy of the worse class. Of the
lambdas whose score is within 0.02 of the best, the largest is taken, and trained with all seeds.
Recipes with spoilt masks or other correlations, and the one that is trained for longer, are not
swept in that table; `--table loose` sweeps them, and with lambda how far masks are eroded. The test
is looked at by no choice of lambda. The recipes themselves, the range of their lambdas and the ramp
were settled on pilots with one seed and other numbers of epochs, which did look at it.

Runs are kept one by one in the folder `--output`: a second call does only what is missing and goes
on in the middle of a run that was killed, to the same numbers. Several processes may share the
work: `--share 0/2` and `--share 1/2`, then a last call without it, which writes the table.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import command
from experiments.backgrounds import (
    animals,
    construction,
    pictures,
    recipes,
    report,
    runs,
    tables,
)
from experiments.backgrounds.judge import judge, validate
from experiments.backgrounds.recipes import Recipe

EPOCHS, _QUICK_EPOCHS = 10, 5
TABLES = {
    "all": (tables.table, ""),
    "loose": (
        tables.loose,
        "Masks that are loose, few, or boxes: what the networks do on the test",
    ),
    "without_compositing": (
        tables.without_compositing,
        "Without compositing: what the networks do on the test",
    ),
}
"""Of each table its rows, and the title of its bars."""
_QUICK = ("plain", "oracle", "composites", recipes.BEST.name, "zplus:outside_share")


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser(
        "dogs_and_wolves", "Train with relevance where the background tells the class."
    )
    command.add_seeds(parser, 5)
    parser.add_argument(
        "--other-seeds",
        type=int,
        default=5,
        help="how many for recipes that no figure is about (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=int, help=f"default: {EPOCHS}, or {_QUICK_EPOCHS} with --quick"
    )
    parser.add_argument(
        "--recipes",
        metavar="NAMES",
        help="comma-separated; of no recipe's name, those that begin with it (default: all)",
    )
    parser.add_argument(
        "--table",
        choices=TABLES,
        default="all",
        help="all recipes with perfect masks, or those for masks that are loose, few, or boxes, or "
        "those that make no composites",
    )
    parser.add_argument(
        "--quick", action="store_true", help="five recipes, one lambda, one seed, five epochs"
    )
    command.add_folder(parser, "runs/dogs_and_wolves", "runs, checkpoints, table and figures")
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        type=Path,
        default=animals.default_cache(),
        help="where the silhouettes are downloaded to (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoint-every", metavar="STEPS", type=int, default=400, help="default: %(default)s"
    )
    parser.add_argument(
        "--finished", action="store_true", help="train nothing: the table of what is finished"
    )
    parser.add_argument(
        "--share", metavar="I/N", default="0/1", help="do the I-th of N parts of the recipes"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    seeds, epochs = command.seeds(options), command.given(options, "epochs", _QUICK_EPOCHS, EPOCHS)
    if min(options.other_seeds, options.checkpoint_every) < 1:
        raise ValueError("--other-seeds and --checkpoint-every: expected positive numbers")
    part, parts = _share(options.share)
    chosen = _chosen(options)
    experiment = Experiment(options, epochs)
    rows, core = [], {recipe.name for recipe in tables.core()}
    with tqdm(chosen[part::parts], desc="recipes", disable=None) as bar:
        for recipe in bar:
            bar.set_postfix_str(recipe.name)
            count = seeds if recipe.name in core else min(seeds, options.other_seeds)
            rows += runs.sweep(experiment.run, recipe, count, options.quick)
    if parts == 1:
        name = "dogs_and_wolves" + ("" if options.table == "all" else f"_{options.table}")
        _write(options.output / name, rows, experiment.settings | {"seeds": seeds})


def _share(text: str) -> tuple[int, int]:
    """Parse `I/N`."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ValueError(f"--share: expected I/N with 0 <= I < N, got {text!r}")
    return int(part), int(parts)


def _chosen(options: argparse.Namespace) -> list[Recipe]:
    """The recipes that are asked for."""
    table = TABLES[options.table][0]()
    if options.recipes is None:
        quick = options.quick and options.table == "all"
        return [row for row in table if row.name in _QUICK] if quick else table
    wanted = []
    for name in options.recipes.split(","):
        exactly = [row for row in table if row.name == name]
        found = exactly or [row for row in table if row.name.startswith(name)]
        if not found:
            names = ", ".join(row.name for row in table)
            raise ValueError(f"no recipe begins with {name!r}; there are {names}")
        wanted += found
    return [row for row in table if row in wanted]


class Experiment:
    """Trains and judges, or reads what was trained and judged before.

    Args:
        options: The command line.
        epochs: Of every run.
    """

    def __init__(self, options: argparse.Namespace, epochs: int):
        self.settings = {"epochs": epochs}
        self.store = runs.Store(options.output, self.settings)
        self.every, self.finished = options.checkpoint_every, options.finished
        self.split = pictures.split(*animals.load(animals.fetch(options.cache)))
        self.rendered: dict[tuple[int, float], pictures.Data] = {}

    def run(self, recipe: Recipe, weight: float, seed: int) -> dict[str, Any] | None:
        """The row of one run; None if it is not finished and is not to be."""
        name = self.store.name(recipe, weight, seed)
        if (row := self.store.read(name)) is not None or self.finished:
            return row
        start = time.perf_counter()
        data = self.data(seed, recipe.correlation)
        params = runs.train(
            runs.problem(recipe, data, seed),
            weight,
            seed,
            self.settings["epochs"] * recipe.patience,
            checkpoints=self.store.checkpoints(name),
            every=self.every,
            title=name,
        )
        row = report.row(recipe, weight, seed) | self.settings
        row["epochs"] *= recipe.patience
        row |= judge(params, recipe, data) | validate(params, recipe, data, seed)
        self.store.write(name, row | {"seconds": time.perf_counter() - start})
        return row

    def data(self, seed: int, correlation: float) -> pictures.Data:
        """The pictures of a seed; the last few are kept."""
        if (seed, correlation) not in self.rendered:
            if len(self.rendered) > 5:
                self.rendered.clear()
            self.rendered[seed, correlation] = pictures.make(self.split, seed, correlation)
        return self.rendered[seed, correlation]


def _write(path: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the table, the figures and how they were made; `path` has no suffix yet."""
    report.write_csv(path.with_suffix(".csv"), rows)
    text = report.describe("python -m experiments.dogs_and_wolves", settings)
    text += report.markdown(rows) + "\n"
    path.with_suffix(".md").write_text(text)
    if path.name == "dogs_and_wolves":
        report.figure(path.with_suffix(".png"), rows)
    else:
        title = TABLES[path.name.removeprefix("dogs_and_wolves_")][1]
        report.bars(path.with_suffix(".png"), rows, ("recipe",), title=title)
    construction.figure(path.parent / "dogs_and_wolves_construction.png")
    print(text)
    print(f"wrote {path}.csv, .md and .png, and {path.parent}/dogs_and_wolves_construction.png")


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
