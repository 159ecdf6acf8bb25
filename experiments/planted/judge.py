"""What a network does where the planted word tells nothing, and where it lies.

On the test, whose sentences have either planted word:

    accuracy            over the four groups, class by planted word
    reversed            where the planted word is the other class's
    worst_group         of the four groups
    flip_rate           how many answers change when the planted word alone is exchanged

On validation sentences, confounded as the training's, by their masks alone:

    validation_accuracy     as they are
    validation_score        of the worse class, each rationale within a sentence of the other class
    validation_flips        how many answers that changes
    in_mask_trained         mean share of absolute relevance in the rationale, by the rule that was
                            trained (by `slope` where none was; against a sentence of the other
                            class where that rule compares)
    goodhart_gap            in_mask_trained - (1 - validation_flips): how much better the
                            explanation looks than the network is. The test is not needed for it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.backgrounds.recipes import RULES, Recipe
from experiments.planted import recipes
from experiments.planted.grammar import Data
from experiments.planted.network import embed, read
from jaxrel import relevance, training

METRICS = (
    "accuracy reversed worst_group flip_rate validation_accuracy validation_score "
    "validation_flips in_mask_trained goodhart_gap"
).split()
"""The names of what `judge` returns, all as fractions."""


def judge(params: Any, recipe: Recipe, data: Data) -> dict[str, float]:
    """Measure a network.

    Args:
        params: Its parameters.
        recipe: How it was trained.
        data: The sentences; of the training's none is looked at.

    Returns:
        The numbers called `METRICS`.
    """
    labels = data.test.labels
    answers = np.stack([_answers(params, tokens) for tokens in data.tests])
    right = answers == labels
    groups = [right[word, labels == label].mean() for word in (0, 1) for label in (0, 1)]
    found = {
        "accuracy": right.mean(),
        "reversed": right[1 - labels, np.arange(len(labels))].mean(),
        "worst_group": min(groups),
        "flip_rate": (answers[0] != answers[1]).mean(),
    }
    found |= _validate(params, recipe, data)
    return {name: float(found[name]) for name in METRICS}


def _validate(params: Any, recipe: Recipe, data: Data) -> dict[str, float]:
    held, given = data.validation, recipes.given(data.validation)
    everything = jnp.arange(len(held.labels))
    before = _answers(params, held.tokens)
    after = _answers(params, recipes.swapped(jax.random.key(0), everything, given))
    right, flips = after == held.labels, (before != after).mean()
    others = given["tokens"][recipes.partners(jax.random.key(1), everything, given)]
    in_mask = _in_mask(recipe.rules, params, given["tokens"], others, held.labels, held.masks)
    return {
        "validation_accuracy": (before == held.labels).mean(),
        "validation_score": min(right[held.labels == label].mean() for label in (0, 1)),
        "validation_flips": flips,
        "in_mask_trained": in_mask,
        "goodhart_gap": float(in_mask) - (1 - flips),
    }


@jax.jit
def _logits(params: Any, tokens: Any) -> jax.Array:
    return read(params, embed(params, tokens))


def _answers(params: Any, tokens: Any) -> np.ndarray:
    return np.asarray(_logits(params, tokens)).argmax(1)


@functools.partial(jax.jit, static_argnums=0)
def _in_mask(rules: str, params: Any, tokens: Any, others: Any, labels: Any, masks: Any):
    x = embed(params, tokens)

    def value(x: jax.Array) -> jax.Array:
        return training.margin(read(params, x), labels)

    if rules == "gradient":  # what is trained is the gradient itself
        found = jax.grad(lambda x: value(x).sum())(x)
    else:
        baseline = embed(params, others) if rules == "baseline" else None
        found = relevance(value, RULES[rules or "slope"], baseline=baseline)(x)
    return training.in_mask_share(found, masks[..., None]).mean()
