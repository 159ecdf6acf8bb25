"""The rows of the table, on features of the part that is kept, and how networks are judged.

A picture differs from its composite by the background alone, so all of their features' difference
is the background's, wherever it lies: compared with the composite's features, relevance outside is
the sum of all. The recipe penalises its square, and adds the counterfactual task loss. Against zero
relevance of features is penalised outside of the mask, at their resolution.

Composites are made once: `COMPOSITES` of each training picture, with other pictures' backgrounds.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.backgrounds.pictures import Animals
from experiments.backgrounds.recipes import BEST, RULES, Arrays, Loss, Recipe
from experiments.tuned import pictures
from experiments.tuned.network import features, logits
from jaxrel import relevance, training

COMPOSITES, EXPLAINED = 8, 100

RECIPES = (
    Recipe("plain", "none"),
    Recipe("oracle", "oracle"),
    Recipe("composites", "masks"),
    BEST._replace(weights=(0.1, 1.0)),
    Recipe("slope:outside_share", "masks", "slope", "outside_share", "", (10.0,)),
)
METRICS = (
    "accuracy worst_group flip_rate validation_accuracy validation_score validation_flips "
    "in_mask_trained goodhart_gap"
).split()
"""What `judge` returns; as in `experiments.planted.judge`, with backgrounds for planted words."""


class Data(NamedTuple):
    """What a run is trained on and chosen by, as features.

    Attributes:
        train: Arrays by name: `features`, `composites` (N, K, ...), `oracle`, `masks`, `labels`.
        validation: The same without `oracle`.
    """

    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]


class Test(NamedTuple):
    """The same for all runs.

    Attributes:
        features: (2, M, ...), of the same animals on grass and on snow.
        labels: (M,).
    """

    features: np.ndarray
    labels: np.ndarray


def make(animals: Mapping[str, Animals], seed: int, count: int) -> Data:
    """Paint a run's pictures and compute their features.

    Args:
        animals: What `experiments.backgrounds.pictures.split` returned.
        seed: Of everything.
        count: How many to train on; a third as many validate.
    """
    rng = np.random.default_rng([seed, 1])
    train = pictures.make(animals["train"], rng, count)
    validation = pictures.make(animals["validation"], rng, count // 3)
    seen = _seen(train, seed, COMPOSITES)
    side = rng.integers(0, 2, len(train.labels))
    seen["oracle"] = features(train.images[side, np.arange(len(side))])
    return Data(seen, _seen(validation, seed, 1))


def make_test(animals: Mapping[str, Animals], count: int) -> Test:
    """Paint the test and compute its features; as for `make`."""
    test = pictures.make(animals["test"], np.random.default_rng(7), count, test=True)
    return Test(np.stack([features(images) for images in test.images[:2]]), test.labels)


def _seen(some: pictures.Pictures, seed: int, composites: int) -> dict[str, np.ndarray]:
    """What training and validation may look at."""
    images, labels = some.confounded(), some.labels
    swap = jax.jit(training.swap_background)
    keys = jax.random.split(jax.random.key(seed), composites)
    mixed = [features(np.asarray(swap(key, images, some.masks, labels))) for key in keys]
    found = {"features": features(images), "composites": np.stack(mixed, 1), "labels": labels}
    height = pictures.SIZE // found["features"].shape[1]
    cells = some.masks.reshape(len(labels), -1, height, pictures.SIZE // height, height, 1)
    return found | {"masks": (cells.mean((2, 4)) > 0.5).astype(np.float32)}


def arrays(recipe: Recipe, data: Data) -> dict[str, jax.Array]:
    """What a recipe's loss may look at; its `information` says how much that is."""
    train = data.train
    found = {"features": train["features"], "labels": train["labels"]}
    if recipe.information == "oracle":
        found["features"] = train["oracle"]
    if recipe.information == "masks":
        found |= {"composites": train["composites"], "masks": train["masks"]}
    return {name: jnp.asarray(array) for name, array in found.items()}


@functools.cache
def loss(recipe: Recipe) -> Loss:
    """A recipe's loss of a batch, as `experiments.backgrounds.recipes.loss`."""

    def of_batch(params: Any, key: jax.Array, batch: jax.Array, given: Arrays, weight: jax.Array):
        x, labels = given["features"][batch], given["labels"][batch]
        if recipe.information != "masks":
            return _cross_entropy(logits(params, x), labels)
        drawn = jax.random.randint(key, labels.shape, 0, given["composites"].shape[1])
        other = given["composites"][batch, drawn]
        if not recipe.rules:
            both = logits(params, jnp.concatenate([x, other]))
            return _cross_entropy(both, jnp.concatenate([labels, labels]))
        compared = bool(recipe.reference)
        penalised = training.relevance_loss(
            logits,
            RULES[recipe.rules],
            training.outside_sum_squared if compared else training.outside_share,
            weight=weight,
            counterfactual=recipe.counterfactual,
            outside_only=compared,
        )
        mask = jnp.zeros((1, 1, 1, 1)) if compared else given["masks"][batch]
        return penalised(params, x, labels, mask, baseline=other if compared else None)[0]

    return of_batch


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def judge(params: Any, recipe: Recipe, data: Data, test: Test) -> dict[str, float]:
    """Measure a network: the numbers called `METRICS`, as fractions."""
    labels, held = test.labels, data.validation
    answers = np.stack([_answers(params, x) for x in test.features])
    right = answers == labels
    before, after = (_answers(params, x) for x in (held["features"], held["composites"][:, 0]))
    flips, kept = (before != after).mean(), after == held["labels"]
    own = jnp.asarray(held["labels"])
    others = held["features"][training.another(jax.random.key(1), own)]
    some = np.random.default_rng(0).permutation(len(own))[:EXPLAINED]
    x, masks = held["features"][some], held["masks"][some]
    in_mask = _in_mask(recipe.rules, params, x, others[some], own[some], masks)
    found = {
        "accuracy": right.mean(),
        "worst_group": min(right[k, labels == label].mean() for k in (0, 1) for label in (0, 1)),
        "flip_rate": (answers[0] != answers[1]).mean(),
        "validation_accuracy": (before == held["labels"]).mean(),
        "validation_score": min(kept[held["labels"] == label].mean() for label in (0, 1)),
        "validation_flips": flips,
        "in_mask_trained": in_mask,
        "goodhart_gap": float(in_mask) - (1 - flips),
    }
    return {name: float(found[name]) for name in METRICS}


_logits = jax.jit(logits)


def _answers(params: Any, x: np.ndarray, batch: int = 100) -> np.ndarray:
    parts = [_logits(params, x[k : k + batch]) for k in range(0, len(x), batch)]
    return np.concatenate([np.asarray(part) for part in parts]).argmax(1)


@functools.partial(jax.jit, static_argnums=0)
def _in_mask(rules: str, params: Any, x: Any, others: Any, labels: Any, masks: Any) -> jax.Array:
    """The share of relevance on the animal, against a picture of the other class if compared."""

    def value(x: jax.Array) -> jax.Array:
        return training.margin(logits(params, x), labels)

    baseline = others if rules == "baseline" else None
    found = relevance(value, RULES[rules or "slope"], baseline=baseline)(x)
    return training.in_mask_share(found, masks).mean()
