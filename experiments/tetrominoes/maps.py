"""Maps of pictures with tetrominoes by presets, by filters that know no network, and by chance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import jaxrel
from experiments.cells.explained import methods
from experiments.tetrominoes.networks import NETWORKS
from experiments.tetrominoes.pictures import Pictures

CLASS_MEAN = "compare_to_baseline, other class"
_RULES = methods(-1.0, 1.0)


class Score(NamedTuple):
    """What maps of N pictures are worth.

    Attributes:
        precision: (N,) the share of the n largest magnitudes that are on the n pixels of the truth;
            what is 0 is nowhere, and of equals it is by chance which come first.
        outside: (N,) the share of all magnitude that is elsewhere: on noise, and where noise is
            correlated on suppressors.
    """

    precision: np.ndarray
    outside: np.ndarray


def _laplace(images: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.laplace(image) for image in images])


def _sobel(images: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.hypot(*(ndimage.sobel(image, axis) for axis in (0, 1))) for image in images]
    )


FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Sobel": _sobel,
    "Laplace": _laplace,
    "abs(x)": np.abs,
    "random": lambda images: np.random.default_rng(0).normal(size=images.shape),
}
"""What any explanation has to be better than, of pictures (N, 8, 8)."""

EXPLANATIONS = tuple(name for name in _RULES if name != "random") + (CLASS_MEAN,)
PRESETS = tuple(name for name in EXPLANATIONS if name != "integrated gradients")


def maps(network: str, variables: Any, pictures: Pictures, means: np.ndarray) -> dict[str, Any]:
    """All maps, (N, 8, 8) each.

    Args:
        network: One of `NETWORKS`.
        variables: Of it.
        pictures: What is explained.
        means: (2, 8, 8, 1) the mean training picture of each class.
    """
    found = {name: fun(pictures.images[..., 0]) for name, fun in FILTERS.items()}
    for name in EXPLANATIONS:
        relevance = _program(network, name)(variables, pictures.images, pictures.labels, means)
        found[name] = np.asarray(relevance)[..., 0]
    return found


@functools.cache
def _program(network: str, method: str) -> Callable[..., jax.Array]:
    """One program for all scenarios."""

    @jax.jit
    def run(variables: Any, images: jax.Array, labels: jax.Array, means: jax.Array) -> jax.Array:
        def fun(x: jax.Array) -> jax.Array:
            logits = jnp.asarray(NETWORKS[network].apply(variables, x))
            own, other = (jnp.take_along_axis(logits, k[:, None], 1)[:, 0] for k in sides)
            return own - other

        sides = labels, 1 - labels
        if method == CLASS_MEAN:
            return jaxrel.relevance(fun, baseline=means[1 - labels])(images)
        return _RULES[method](fun, images)

    return run


def score(relevance: np.ndarray, masks: np.ndarray) -> Score:
    """Judge maps (N, 8, 8) by the truth (N, 8, 8)."""
    magnitude = np.abs(relevance).reshape(len(relevance), -1)
    inside = masks.reshape(len(masks), -1)
    chance = np.random.default_rng(0).random(magnitude.shape)
    place = np.argsort(np.lexsort((chance, -magnitude), axis=1), axis=1)
    size = inside.sum(1, keepdims=True)
    hits = (place < size) & inside & (magnitude > 0)
    whole = magnitude.sum(1)
    there = (magnitude * inside).sum(1) / np.where(whole == 0, 1, whole)
    return Score(hits.sum(1) / size[:, 0], np.where(whole == 0, 1, 1 - there))
