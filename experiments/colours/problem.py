"""A problem where the colour of a picture tells its class in training and not in the test.

Every class has a colour of its own, of the same number. The test has every picture in every colour,
so that all groups (class, colour) are as large as a class.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.backgrounds.recipes import RULES, Recipe, Swap
from jaxrel import relevance, training

METRICS = (
    "accuracy worst_group flip_rate in_mask_trained validation_flips goodhart_gap "
    "validation_accuracy validation_score"
).split()
"""The names of what `judge` returns, all as fractions."""

_CHUNK = 250  # so few that their activations stay in the processor's cache
_EXPLAINED = 500


class Pictures(NamedTuple):
    """What may be looked at in training.

    Attributes:
        images: (N, H, W, C) float32 in [0, 1].
        masks: (N, H, W, 1) or (N, H, W, C) float32, 0 where the nuisance is.
        labels: (N,) int32.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


class Problem(NamedTuple):
    """What a run sees.

    Attributes:
        train: Confounded.
        deconfounded: The same pictures in colours that tell nothing: the oracle's.
        validation: Confounded like `train`.
        test: The test's pictures, all in the colour of a number.
        labels: The test's.
        colours: How many there are.
        agreeing: The share of a test, as its accuracy is reported, whose colour is its class's.
    """

    train: Pictures
    deconfounded: np.ndarray
    validation: Pictures
    test: Callable[[int], np.ndarray]
    labels: np.ndarray
    colours: int
    agreeing: float


Apply = Callable[[Any, jax.Array], jax.Array]


def judge(
    apply: Apply, swap: Swap, params: Any, recipe: Recipe, problem: Problem
) -> dict[str, float]:
    """Measure a network on the test, and on validation pictures what tells without one.

    Args:
        apply: The network, from parameters and pictures to logits; always the same function, for
            it is compiled once.
        swap: The nuisance is exchanged by it on validation pictures.
        params: The network's parameters.
        recipe: How it was trained.
        problem: What it was trained on.

    Returns:
        The numbers called `METRICS`. Of the test:

        accuracy, worst_group   `agreeing` says how much which group counts; the least of all
        flip_rate               answers that change when the class's colour becomes another one

        Of the validation pictures, all confounded:

        in_mask_trained         share of absolute relevance on what is no nuisance, by the trained
                                rule (slope where none was; against a reference, which has no
                                relevance outside there, against another picture)
        validation_flips        answers that change when the nuisance is exchanged by the masks
        goodhart_gap            in_mask_trained - (1 - validation_flips)
        validation_accuracy, validation_score
                                as they are; the worst class after the exchange
    """
    found = _tested(apply, params, problem)
    images, masks, labels = problem.validation
    swapped = swap(jax.random.key(0), *map(jnp.asarray, problem.validation))
    answers, changed = _answers(apply, params, images), _answers(apply, params, swapped)
    flips = float((answers != changed).mean())
    shown = (jnp.asarray(leaf[:_EXPLAINED]) for leaf in problem.validation)
    in_mask = float(_in_mask(apply, recipe.rules, params, *shown))
    right = changed == labels
    return found | {
        "in_mask_trained": in_mask,
        "validation_flips": flips,
        "goodhart_gap": in_mask - (1 - flips),
        "validation_accuracy": float((answers == labels).mean()),
        "validation_score": min(float(right[labels == c].mean()) for c in np.unique(labels)),
    }


def _tested(apply: Apply, params: Any, problem: Problem) -> dict[str, float]:
    """What the network does on the test."""
    labels, colours = problem.labels, range(problem.colours)
    answers = np.stack([_answers(apply, params, problem.test(colour)) for colour in colours])
    right, own = answers == labels, np.arange(problem.colours)[:, None] == labels
    agreeing, others = right[own].mean(), right[~own].mean()
    groups = [right[colour, labels == label].mean() for colour in colours for label in colours]
    flips = answers != answers[labels, np.arange(len(labels))]
    return {
        "accuracy": float(problem.agreeing * agreeing + (1 - problem.agreeing) * others),
        "worst_group": float(min(groups)),
        "flip_rate": float(flips[~own].mean()),
    }


def _answers(apply: Apply, params: Any, images: Any) -> np.ndarray:
    logits = jax.jit(apply)
    parts = (images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK))
    return np.concatenate([np.asarray(logits(params, part)).argmax(1) for part in parts])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _in_mask(
    apply: Apply, rules: str, params: Any, x: jax.Array, masks: jax.Array, labels: jax.Array
) -> jax.Array:
    """The mean share of relevance where there is no nuisance."""

    def value(x: jax.Array) -> jax.Array:
        return training.margin(apply(params, x), labels)

    if rules == "gradient":  # what is trained is the gradient itself
        found = jax.grad(lambda x: value(x).sum())(x)
    else:
        baseline = x[::-1] if rules == "baseline" else None
        found = relevance(value, RULES[rules or "slope"], baseline=baseline)(x)
    return training.in_mask_share(found, masks).mean()
