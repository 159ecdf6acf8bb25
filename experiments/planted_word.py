"""A planted word tells the class: can relevance teach a transformer to read the evidence?

    python -m experiments.planted_word --quick      a minute
    python -m experiments.planted_word              the full table

In training a word that means nothing agrees with the class without exception; in the test it tells
nothing (`experiments.planted.grammar`). A mask says where the evidence stands. The rows are those
of `experiments.planted.recipes`, on a transformer of one block whose relevance is that of the words
once they are looked up; they are judged by what the networks do when the planted word is exchanged
(`experiments.planted.judge`).

Lambda is chosen as in `experiments.dogs_and_wolves`: on validation sentences, confounded as the
training's, by the accuracy of the worse class when each rationale stands in a sentence of the other
class; the largest lambda within 0.02 of the best, with the first seed. The Goodhart gap comes from
validation sentences too. Runs are kept in the folder `--output`.
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
from experiments.backgrounds import animals, recipes, report, runs
from experiments.backgrounds.recipes import Recipe
from experiments.planted import grammar, network
from experiments.planted.judge import METRICS, judge
from experiments.planted.recipes import QUICK, RECIPES, arrays, loss

SENTENCES, _QUICK_SENTENCES = 2000, 1000
_COLUMNS = "recipe information rules penalty reference lambda seed epochs chosen".split()
_SHOWN = {
    "accuracy": "accuracy",
    "worst_group": "worst",
    "reversed": "reversed",
    "flip_rate": "flips",
    "validation_flips": "validation flips",
    "in_mask_trained": "in mask",
    "goodhart_gap": "gap",
}


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("planted_word", __doc__)
    command.add_seeds(parser, 5)
    parser.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--recipes", metavar="NAMES", help="comma-separated (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="five recipes, one lambda and seed, half the sentences"
    )
    command.add_folder(parser, "runs/planted_word", "runs, table and figure")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    seeds = command.seeds(options)
    if options.epochs < 1:
        raise ValueError(f"--epochs: expected a positive number, got {options.epochs}")
    rows_of = {recipe.name: recipe for recipe in RECIPES}
    usual = QUICK if options.quick else tuple(rows_of)
    names = command.names("--recipes", options.recipes or ",".join(usual), rows_of)
    sentences = _QUICK_SENTENCES if options.quick else SENTENCES
    settings = {"epochs": options.epochs, "sentences": sentences}
    run = functools.partial(_once, runs.Store(options.output, settings))
    rows = []
    with tqdm(names, desc="recipes", disable=None) as bar:
        for name in bar:
            rows += runs.sweep(run, rows_of[name], seeds, options.quick)
    _write(options.output, rows, settings | {"seeds": seeds})


def _once(store: runs.Store, recipe: Recipe, weight: float, seed: int) -> dict[str, Any]:
    """Train and judge a network, unless it was done before."""
    name = store.name(recipe, weight, seed)
    if (row := store.read(name)) is not None:
        return row
    start = time.perf_counter()
    data = grammar.make(seed, store.settings["sentences"])
    problem = runs.Problem(
        loss(recipes.anonymous(recipe)), arrays(recipe, data), network.initial(seed)
    )
    params = runs.train(problem, weight, seed, store.settings["epochs"], title=name)
    row = report.row(recipe, weight, seed) | store.settings | judge(params, recipe, data)
    store.write(name, row | {"seconds": time.perf_counter() - start})
    return row


def _write(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the table, the figure and how they were made."""
    report.bars(
        folder / "planted_word.png",
        rows,
        ("recipe",),
        report.BARS | {"in_mask_trained": "relevance in the rationale"},
        "A planted word tells the class in training: test sentences with either word",
    )
    report.write("planted_word", folder, rows, settings, [*_COLUMNS, *METRICS], _SHOWN)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
