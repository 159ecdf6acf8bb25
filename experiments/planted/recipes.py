"""The rows of the table, as `experiments.backgrounds.recipes` has them for pictures.

What `swap` compares with is the same rationale within another sentence of the other class: one
whose rationale stands at the same place, so that words are exchanged one for one and what comes out
is a sentence. Relevance is that of embeddings: x and the reference go in looked up.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.backgrounds import recipes
from experiments.backgrounds.recipes import Arrays, Loss, Recipe
from experiments.planted.grammar import Data, Sentences
from experiments.planted.network import embed, read
from jaxrel import training

BEST = recipes.BEST

RECIPES = (
    Recipe("plain", "none"),
    Recipe("oracle", "oracle"),
    Recipe("composites", "masks"),
    Recipe("composite-pairing", "masks", "", "pairing", "swap", (0.01, 0.1, 1.0)),
    BEST,
    BEST._replace(name="compare", counterfactual=0.0),
    Recipe("gradient:right_reasons", "masks", "gradient", "right_reasons", "", (0.1, 1.0, 10.0)),
    Recipe("slope:outside_share", "masks", "slope", "outside_share", "", (1.0, 10.0, 100.0)),
)
"""All rows; the last is relevance against zero, and is gamed."""
QUICK = ("plain", "oracle", "composites", BEST.name, "slope:outside_share")


def arrays(recipe: Recipe, data: Data) -> dict[str, jax.Array]:
    """What a recipe's loss may look at; its `information` says how much that is."""
    train = data.train
    found = {"tokens": train.tokens, "labels": train.labels}
    if recipe.information == "oracle":
        found["tokens"] = data.deconfounded
    if recipe.information == "masks":
        found |= {"masks": train.masks, "places": train.places}
    return {name: jnp.asarray(array) for name, array in found.items()}


def given(sentences: Sentences) -> dict[str, jax.Array]:
    """Sentences as a mapping, in place of `arrays`."""
    return {name: jnp.asarray(array) for name, array in sentences._asdict().items()}


def partners(key: jax.Array, batch: Any, given: Arrays) -> jax.Array:
    """For each sentence of a batch one of the other class: (N,) indices.

    Its rationale stands at the same place, if there is any such sentence.

    Args:
        key: A random key.
        batch: (N,) indices.
        given: Labels and places to choose from.
    """
    labels, places = given["labels"], given["places"]
    fits = labels[batch, None] != labels, places[batch, None] == places
    scores = jax.random.uniform(key, fits[0].shape) + 2 * fits[0] + fits[1]
    return scores.argmax(1)


def swapped(key: jax.Array, batch: Any, given: Arrays) -> jax.Array:
    """The batch's rationales within other sentences of the other class: (N, tokens) words."""
    others = given["tokens"][partners(key, batch, given)]
    return jnp.where(given["masks"][batch] > 0, given["tokens"][batch], others)


@functools.cache
def loss(recipe: Recipe) -> Loss:
    """A recipe's loss of a batch, as `experiments.backgrounds.recipes.loss`."""
    return functools.partial(_relevance if recipe.rules else _plain, recipe)


def _plain(recipe: Recipe, params: Any, key: Any, batch: Any, given: Arrays, weight: Any):
    labels = given["labels"][batch]
    logits = read(params, embed(params, given["tokens"][batch]))
    if recipe.information != "masks":
        return _cross_entropy(logits, labels)
    others = read(params, embed(params, swapped(key, batch, given)))
    if recipe.penalty:
        change = training.margin(logits, labels) - training.margin(others, labels)
        return _cross_entropy(logits, labels) + weight * (change**2).mean()
    return (_cross_entropy(logits, labels) + _cross_entropy(others, labels)) / 2


def _relevance(recipe: Recipe, params: Any, key: Any, batch: Any, given: Arrays, weight: Any):
    mask, reference = given["masks"][batch], None
    if recipe.reference == "swap":
        reference = swapped(key, batch, given)
    total, _ = training.relevance_loss(
        read,
        recipes.RULES[recipe.rules],
        recipes.PENALTIES[recipe.penalty],
        weight=weight,
        counterfactual=recipe.counterfactual,
        of="multiplier" if recipe.rules == "gradient" else "relevance",
    )(
        params,
        embed(params, given["tokens"][batch]),
        given["labels"][batch],
        mask[..., None],
        baseline=None if reference is None else embed(params, reference),
    )
    return total


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
