"""What a trained network does, and what its explanations say about it.

What it does: accuracy in the four groups of the test (both animals on both backgrounds), on the
third background, and `flip_rate`: how many animals are called something else when only the
background is exchanged.

What is said about it, on confounded test pictures (each animal on its class's background):

    in_mask_trained         mean share of absolute relevance on the animal, by the rule that was
                            trained (by `slope` where none was; against a reference, this is
                            `in_mask_another`: against the swapped background it is 0 by definition)
    in_mask_guided, in_mask_alpha2_beta1, in_mask_blank
                            the same by explainers that no recipe is trained by: guided backprop,
                            alpha 2 beta 1, compared to a blank picture
    in_mask_another         the same, compared to test pictures of the other class
    goodhart_gap            in_mask_trained - (1 - flip_rate): how much better the explanation looks
                            than the network is
    background_effect       mean absolute relevance total of the background, against the same animal
                            on the other background, over the mean absolute value
    bias_share              mean absolute relevance of the biases over that of pixels and biases
                            together, by `slope`, which leaves biases what the pixels do not have
    conservation_error      mean absolute difference of sum(R) by the trained rule and the value (or
                            the change of the value, against a reference), over the mean absolute
                            value (or change)
    one_sided_units         of the last layer's units that are alive on a twentieth of the pictures
                            with one background, the share that is alive ten times less often on
                            the same animals with the other one

The value that is explained is the margin of the right class.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.backgrounds import inside, recipes
from experiments.backgrounds.network import apply, units
from experiments.backgrounds.pictures import Data, Pictures
from experiments.backgrounds.recipes import Recipe
from jaxrel import RuleSet, rulesets, training, value_and_relevance
from jaxrel.rules import AlphaBeta

METRICS = (
    "accuracy worst_group flip_rate third_background in_mask_trained in_mask_guided "
    "in_mask_alpha2_beta1 in_mask_blank in_mask_another goodhart_gap background_effect bias_share "
    "conservation_error one_sided_units"
).split()
"""The names of what `judge` returns, all as fractions."""

_EXPLAINED = 256  # of the test pictures
_HELD_OUT = {
    "guided": rulesets.guided_backprop(),
    "alpha2_beta1": RuleSet(matmul=AlphaBeta(2.0, 1.0)),
}


def judge(params: Any, recipe: Recipe, data: Data) -> dict[str, float]:
    """Measure a network on the test.

    Args:
        params: The network's parameters.
        recipe: How it was trained.
        data: The pictures it was trained on; their test is used alone.

    Returns:
        The numbers called `METRICS`.
    """
    test = data.test
    labels = test.labels[0]
    answers = np.stack([_answers(params, images) for images in test.images])
    right = answers == labels
    groups = [right[side, labels == label].mean() for side in (0, 1) for label in (0, 1)]
    found = {
        "accuracy": right[:2].mean(),
        "worst_group": min(groups),
        "flip_rate": (answers[0] != answers[1]).mean(),
        "third_background": right[2].mean(),
        "one_sided_units": _one_sided(params, test),
    }
    found |= {name: float(value) for name, value in _explanations(params, recipe, test).items()}
    found["goodhart_gap"] = found["in_mask_trained"] - (1 - found["flip_rate"])
    return {name: float(found[name]) for name in METRICS}


def validate(params: Any, recipe: Recipe, data: Data, seed: int) -> dict[str, float]:
    """Score a network for the choice of lambda and tolerance, on validation pictures alone.

    It is seen by masks of the recipe's own kind: who is given boxes has no better ones here. They
    are eroded by 0 to `recipe.doubt` pixels, by chance, before they cut the animals out: with masks
    that are too wide an animal takes its own background along, and a network that decides by that
    would score best.

    A recipe without compositing is scored without it, too: each animal is compared with the
    picture of the other class whose animal overlaps most with it, and what counts is the answer
    less the relevance of the background, which is what neither animal covers.

    Args:
        params: The network's parameters.
        recipe: How it was trained; one that needs no masks is scored by true ones.
        data: The pictures.
        seed: Of the run.

    Returns:
        `validation_accuracy` on the confounded pictures, and `validation_score`: the accuracy of
        the worse class when every animal is put on the background of a picture of the other class,
        or without the background's relevance.
    """
    images, _, labels, _ = data.validation
    masks = jnp.asarray(recipes.known_masks(recipe, data, seed).validation)
    draw, key = jax.random.split(jax.random.key(0))
    masks = training.erode_at_random(draw, masks, 0, recipe.doubt)
    if recipe.reference == "near" or recipe.penalty in inside.WAYS:
        near = recipes.nearest(np.asarray(masks), labels, 1)[:, 0]
        others = images[near], training.erode(masks[near], recipe.trimmed)
        right = np.asarray(_without_background(params, images, masks, labels, *others)) > 0
    else:
        swapped = training.swap_background(key, jnp.asarray(images), masks, jnp.asarray(labels))
        right = _answers(params, swapped) == labels
    return {
        "validation_accuracy": float((_answers(params, images) == labels).mean()),
        "validation_score": float(min(right[labels == label].mean() for label in (0, 1))),
    }


@jax.jit
def _without_background(
    params: Any, x: jax.Array, masks: jax.Array, labels: jax.Array, others: jax.Array, theirs: Any
) -> jax.Array:
    """(N,) margins less the relevance, against others, of what neither animal covers."""

    def value(x: jax.Array) -> jax.Array:
        return training.margin(apply(params, x), labels)

    margin, relevance = value_and_relevance(value, recipes.RULES["baseline"], baseline=others)(x)
    return margin - (relevance * (1 - jnp.maximum(masks, theirs))).sum((1, 2, 3))


@jax.jit
def _logits(params: Any, images: jax.Array) -> jax.Array:
    return apply(params, images)


def _answers(params: Any, images: Any) -> np.ndarray:
    return np.asarray(_logits(params, images)).argmax(1)


def _one_sided(params: Any, test: Pictures) -> float:
    """The share of units that are alive on one background only."""
    alive = [np.asarray(units(params, images) > 0).mean(0) for images in test.images[:2]]
    more, less = np.maximum(*alive), np.minimum(*alive)
    counted = more > 0.05
    return float((less[counted] < 0.1 * more[counted]).mean()) if counted.any() else 0.0


def _explanations(params: Any, recipe: Recipe, test: Pictures) -> dict[str, jax.Array]:
    """What is said about a network: `_measure`, on a part of the test."""
    count = test.labels.shape[1]
    chosen = np.random.default_rng(0).permutation(count)[:_EXPLAINED]
    labels, masks = test.labels[0, chosen], test.masks[0, chosen]
    own, swapped = test.images[labels, chosen], test.images[1 - labels, chosen]
    number = np.arange(len(chosen))
    dogs, wolves = (np.flatnonzero(labels == label) for label in (0, 1))
    others = np.where(labels == 0, wolves[number % len(wolves)], dogs[number % len(dogs)])
    return _measure(recipe.rules, params, own, swapped, own[others], masks, labels)


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    rules: str,
    params: Any,
    x: jax.Array,
    swapped: jax.Array,
    others: jax.Array,
    masks: jax.Array,
    labels: jax.Array,
) -> dict[str, jax.Array]:
    """The numbers that come from explanations."""

    def explain(rule_set: RuleSet, baseline: Any = None) -> tuple[jax.Array, jax.Array]:
        def value(x: jax.Array) -> jax.Array:
            return training.margin(apply(params, x), labels)

        return value_and_relevance(value, rule_set, baseline=baseline)(x)

    def in_mask(relevance: jax.Array) -> jax.Array:
        return training.in_mask_share(relevance, masks).mean()

    value, slopes = explain(recipes.RULES["slope"])
    totals, pixels = slopes.sum((1, 2, 3)), jnp.abs(slopes).sum((1, 2, 3))
    biases = jnp.abs(value - totals)
    compared = recipes.RULES["baseline"]
    _, background = explain(compared, swapped)
    size = jnp.abs(value).mean()
    change = value - training.margin(apply(params, swapped), labels)
    found = {f"in_mask_{name}": in_mask(explain(rule)[1]) for name, rule in _HELD_OUT.items()}
    found["in_mask_blank"] = in_mask(explain(compared, 0.5)[1])
    found["in_mask_another"] = in_mask(explain(compared, others)[1])
    found["bias_share"] = biases.mean() / (biases + pixels).mean()
    effect = jnp.abs((background * (1 - masks)).sum((1, 2, 3)))
    found["background_effect"] = effect.mean() / size
    if rules == "baseline":
        relevance, found["in_mask_trained"] = background, found["in_mask_another"]
        error = jnp.abs(background.sum((1, 2, 3)) - change).mean() / jnp.abs(change).mean()
    else:
        relevance = explain(recipes.RULES[rules or "slope"])[1]
        error = jnp.abs(value - relevance.sum((1, 2, 3))).mean() / size
        if rules == "gradient":  # what is trained is the gradient itself
            relevance = jax.grad(lambda x: training.margin(apply(params, x), labels).sum())(x)
        found["in_mask_trained"] = in_mask(relevance)
    return found | {"conservation_error": error}
