"""Ways to train where nothing can be composited that look inside the network, or at parts alone.

    latent      the features of the background are swapped for another picture's, and the answer is
                asked not to change, as with composites of pictures
    activation  features outside of the animal are asked to be small (TAP, AAAI 2024)
    channel     what channels say is asked to be little, wherever they fire, the more of their
                relevance lies outside
    direction   the logit's derivative along the way from one class's background to the other's, in
                mean features, is asked to be 0 (RR-ClArC, Dreyer et al. 2024)
    subset      a picture without its animal, grey in its place, is asked to be answered by neither
                class ("Where not to learn", 2026: subsets of the pixels instead of maps)

Each is a function of parameters, a key, pictures, masks and labels; it gives the logits and a
penalty for each picture. `WAYS` has them by name, with the layer whose input they look at.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.backgrounds.network import after, apply, before, share
from jaxrel import training, value_and_relevance

Way = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def latent(layer: int, params: Any, key: jax.Array, x: Any, masks: Any, labels: Any) -> Any:
    """Swaps features: those that see enough of the animal are kept; how much, by chance."""
    features = before(params, x, layer)
    draw, swap = jax.random.split(key)
    enough = jax.random.uniform(draw, (len(x), 1, 1, 1), minval=0.4, maxval=0.98)
    kept = (share(masks, layer) > enough).astype(features.dtype)
    swapped = training.swap_background(swap, features, kept, labels)
    logits, others = (after(params, h, layer) for h in (features, swapped))
    change = training.margin(logits, labels) - training.margin(others, labels)
    return logits, change**2


def activation(layer: int, params: Any, key: jax.Array, x: Any, masks: Any, labels: Any) -> Any:
    """The mean absolute value of features outside."""
    del key, labels
    features = before(params, x, layer)
    return after(params, features, layer), jnp.abs(features * _outside(masks, layer)).mean(
        (1, 2, 3)
    )


def channel(layer: int, params: Any, key: jax.Array, x: Any, masks: Any, labels: Any) -> Any:
    """The squared total of each channel's relevance, by `slope`, times its share outside."""
    del key

    def value(features: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = after(params, features, layer)
        return training.margin(logits, labels), logits

    (_, logits), relevance = value_and_relevance(value, "slope", has_aux=True)(
        before(params, x, layer)
    )
    size = jnp.abs(relevance)
    outside = (size * _outside(masks, layer)).sum((0, 1, 2)) / (size.sum((0, 1, 2)) + 1e-9)
    return logits, (jax.lax.stop_gradient(outside) * relevance.sum((1, 2)) ** 2).sum(-1)


def direction(layer: int, params: Any, key: jax.Array, x: Any, masks: Any, labels: Any) -> Any:
    """The squared derivative along the difference of both classes' mean features outside."""
    del key
    features = before(params, x, layer)
    seen = jax.lax.stop_gradient(features * _outside(masks, layer))

    def mean(label: int) -> jax.Array:
        own = (labels == label)[:, None, None, None]
        count = (own * _outside(masks, layer)).sum() + 1e-6
        return (seen * own).sum((0, 1, 2)) / count

    slopes = jax.grad(lambda h: training.margin(after(params, h, layer), labels).sum())(features)
    along = (slopes * (mean(0) - mean(1))).sum((1, 2, 3))
    return after(params, features, layer), along**2


def subset(layer: int, params: Any, key: jax.Array, x: Any, masks: Any, labels: Any) -> Any:
    """The squared margin of the background alone."""
    del layer, key
    alone = apply(params, x * (1 - masks) + 0.5 * masks)
    return apply(params, x), training.margin(alone, labels) ** 2


def _outside(masks: jax.Array, layer: int) -> jax.Array:
    return (share(masks, layer) < 0.5).astype(masks.dtype)


WAYS: dict[str, Way] = {
    f"{way.__name__} {layer}": functools.partial(way, layer)
    for way, layers in (
        (latent, (1, 2)),
        (activation, (1, 3)),
        (channel, (2, 3)),
        (direction, (2, 3)),
        (subset, (0,)),
    )
    for layer in layers
}
