"""Train a network on your own pictures to look where your masks say.

    python -m experiments.train_your_own --images pictures --masks masks
    python -m experiments.train_your_own --images pictures --boxes boxes.csv --tolerance 1-3

Pictures lie in a folder for each class; masks in folders of the same names, white on the object;
boxes in a CSV file with the columns file,x0,y0,x1,y1 (pixels of the picture, file as in
`dog/rex.jpg`). Pictures without either take part in the task alone.

A fifth of the pictures validates. After each epoch a line tells accuracy there, how many answers
flip when only the background is exchanged, how much of the relevance lies in the masks, and the gap
between the two: where it is large, the network games the penalty, and what helps is printed.

Into the folder `--output` go `epochs.csv`, `explained.png` (validation pictures, and their
relevance against pictures of another class), `parameters.npz`, and while it runs a checkpoint, from
which the same command goes on after it was killed.
"""

import argparse
import csv
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.backgrounds import masks, recipes, runs
from experiments.backgrounds.recipes import Recipe
from experiments.own import folder, network
from experiments.own.folder import Pictures
from experiments.own.watched import Watched, watcher
from jaxrel import plot, relevance, training

_REFERENCES = ("swap", "another", "blur", "none")


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("train_your_own", __doc__)
    add = parser.add_argument
    add("--images", metavar="FOLDER", type=Path, required=True, help="a folder for each class")
    add("--masks", metavar="FOLDER", type=Path, help="the same, of masks")
    add("--boxes", metavar="FILE", type=Path, help="CSV: file,x0,y0,x1,y1")
    add("--size", type=int, default=64, help="of the scaled pictures (default: %(default)s)")
    add("--network", choices=("linen", "nnx"), default="linen", help="default: %(default)s")
    add("--rules", choices=tuple(recipes.RULES), default="baseline", help="default: %(default)s")
    add(
        "--penalty",
        choices=tuple(recipes.PENALTIES),
        default="outside_sum_squared",
        help="default: %(default)s",
    )
    add("--reference", choices=_REFERENCES, default="swap", help="default: %(default)s")
    add("--weight", type=float, default=0.1, help="of the penalty (default: %(default)s)")
    add(
        "--tolerance",
        metavar="LOW-HIGH",
        default="0-0",
        help="erode masks by so many pixels, by chance (default: %(default)s)",
    )
    add(
        "--refine",
        action="store_true",
        help="move and erode masks to where they say most of the pixels; of these, and of boxes, "
        "take what does not look like the surroundings",
    )
    add("--epochs", type=int, default=20, help="default: %(default)s")
    add("--batch", type=int, default=32, help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    command.add_folder(parser, "train_your_own")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks."""
    recipe = _recipe(options)
    if min(options.epochs, options.batch, options.size) < 1:
        raise ValueError("--epochs, --batch, --size: expected positive numbers")
    options.output.mkdir(parents=True, exist_ok=True)
    pictures = folder.read(options.images, options.masks, options.boxes, options.size)
    if options.refine:
        pictures = _refined(pictures, options.boxes is not None)
    train, validation = _split(pictures, options.seed)
    params, apply = network.make(options.network, len(pictures.classes), options.size, options.seed)
    print(
        f"{len(train.labels)} pictures to train, {len(validation.labels)} to validate; "
        f"{pictures.known.mean():.0%} with a mask; classes {', '.join(pictures.classes)}"
    )
    compared = bool(recipe.reference)
    rules = recipes.RULES[recipe.rules]
    watch = watcher(apply, rules, compared, validation, recipe.tolerances[0][1])
    checkpoint = _checkpoint(options)
    rows = _rows(options.output / "epochs.csv", checkpoint)

    def after_epoch(epoch: int, params: Any) -> None:
        found = watch(params)
        rows[:] = [row for row in rows if row[0] < epoch] + [(epoch, found)]
        print(f"epoch {epoch:3d}   {found}", flush=True)
        if advice := found.advice():
            print(advice)
        _write(options.output / "epochs.csv", rows)

    params = runs.train(
        runs.Problem(recipes.loss(recipe, apply), _given(train), params),
        options.weight,
        options.seed,
        options.epochs,
        batch=options.batch,
        checkpoints=checkpoint,
        every=max(len(train.labels) // options.batch, 1),
        after_epoch=after_epoch,
    )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    np.savez(
        options.output / "parameters.npz",
        **{jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves},
    )
    _draw(options.output / "explained.png", apply, params, rules, compared, validation)
    print(f"wrote epochs.csv, explained.png and parameters.npz into {options.output}")


def _recipe(options: argparse.Namespace) -> Recipe:
    """What is minimised.

    Raises:
        ValueError: Options that do not go together.
    """
    if (options.masks is None) == (options.boxes is None):
        raise ValueError("expected either --masks or --boxes")
    low, dash, high = options.tolerance.partition("-")
    if not (dash and low.isdecimal() and high.isdecimal() and int(low) <= int(high)):
        raise ValueError(f"--tolerance: expected LOW-HIGH in pixels, got {options.tolerance!r}")
    compared = options.reference != "none"
    if (options.rules == "baseline") != compared:
        raise ValueError(
            "--rules baseline compares with a --reference, and no other rules do: give both or "
            "neither, as in --rules slope --reference none"
        )
    return Recipe(
        "own",
        "masks",
        options.rules,
        options.penalty,
        options.reference if compared else "",
        counterfactual=1.0 if options.reference == "swap" else 0.0,
        tolerances=((int(low), int(high)),),
    )


def _refined(pictures: Pictures, are_boxes: bool) -> Pictures:
    """The same with masks that are closer to the objects, as far as pixels tell; says how."""
    some = pictures.take(np.flatnonzero(pictures.known))
    made = some.masks
    if not are_boxes:
        made, error = masks.registered(some.images, made, some.labels)
        print(f"masks moved {error.down} down, {error.right} right, eroded by {error.eroded}")
    made = masks.sure(some.images, made, some.labels)
    print(f"{made.sum() / max(some.masks.sum(), 1):.0%} of the area of the masks is kept")
    whole = pictures.masks.copy()
    whole[pictures.known] = made
    return pictures._replace(masks=whole)


def _split(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """To train and to validate: a fifth of each class, at least one with a mask of two classes.

    Raises:
        ValueError: There are too few pictures.
    """
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for label in range(len(pictures.classes)):
        order = rng.permutation(np.flatnonzero(pictures.labels == label))
        order = order[np.argsort(~pictures.known[order], kind="stable")]  # with a mask first
        held += list(order[: -(-len(order) // 5) * 5 : 5])
    chosen = np.isin(np.arange(len(pictures.labels)), held)
    validation = pictures.take(np.flatnonzero(chosen))
    if len(set(validation.labels[validation.known])) < 2:
        raise ValueError("expected pictures with a mask in at least two classes")
    return pictures.take(np.flatnonzero(~chosen)), validation


def _given(train: Pictures) -> dict[str, jax.Array]:
    """What the loss looks at."""
    given = {"images": train.images, "labels": train.labels, "masks": train.masks}
    if not train.known.all():
        given["known"] = np.flatnonzero(train.known).astype(np.int32)
    return {name: jnp.asarray(array) for name, array in given.items()}


def _checkpoint(options: argparse.Namespace) -> Path:
    """A folder of this run's own: one with other options does not go on where it was killed."""
    facts = {name: value for name, value in vars(options).items() if name != "output"}
    digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:8]
    return options.output / f"checkpoint_{digest}"


def _rows(path: Path, checkpoint: Path) -> list[tuple[int, Watched]]:
    """The epochs of a run that was killed; those of another are written over."""
    if not path.exists() or not checkpoint.exists():
        return []
    with path.open() as file:
        return [
            (int(row["epoch"]), Watched(*(float(row[name]) for name in Watched._fields)))
            for row in csv.DictReader(file)
        ]


def _write(path: Path, rows: list[tuple[int, Watched]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *Watched._fields, "gap"])
        for epoch, found in rows:
            writer.writerow([epoch, *(f"{value:.4f}" for value in (*found, found.gap))])


def _draw(path: Path, apply: Any, params: Any, rules: Any, compared: bool, data: Pictures) -> None:
    """Pictures with a mask, and their relevance."""
    shown = data.take(np.flatnonzero(data.known)[:: max(data.known.sum() // 6, 1)][:6])
    x, labels = jnp.asarray(shown.images), jnp.asarray(shown.labels)
    pool = jnp.asarray(data.images)[
        training.another(jax.random.key(0), labels, jnp.asarray(data.labels))
    ]

    def value(x: jax.Array) -> jax.Array:
        return training.margin(apply(params, x), labels)

    found = relevance(value, rules, baseline=pool if compared else None)(x)
    plot.grid(shown.images, {"relevance": found}, captions=shown.names).savefig(path)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
