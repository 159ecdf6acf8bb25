"""The masks a recipe is given of pictures, and those it makes of them.

    true                what the pictures were painted by
    random              another picture's
    shifted, dilated    by 3 pixels to the lower right; by 2 pixels all around
    uneven              each shifted by up to 3 pixels and dilated by up to 2, by chance
    boxes               the smallest rectangle around
    0.1, 0.01           of so many of the pictures, none of the others

Proposed masks are made of these, and of the pictures, without any other knowledge:

    0.1, 0.01        a U-Net of three levels learns from the pictures with a mask, and proposes all
                     others'
    boxes            the pixels inside that are all but sure not to be background, by brightness
                     (`jaxrel.training.in_boxes`)
    true, shifted,   moved and eroded, all alike, so that they say most of brightness
    dilated, uneven  (`jaxrel.training.register`), then each moved for itself (`register_each`), all
                     alike again, and then as boxes are
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.backgrounds.pictures import Data
from jaxrel import training

SURE = 0.7
"""How likely a pixel has to be the animal's; settled on training masks of the first seed."""
STEPS, BATCH, LEARNING_RATE = 400, 64, 3e-3

Kind = str | float


class Masks(NamedTuple):
    """What a recipe knows.

    Attributes:
        train, validation: (N, 28, 28, 1) masks of these pictures.
        known: The training pictures that have one; None: all.
    """

    train: np.ndarray
    validation: np.ndarray
    known: np.ndarray | None


def given(kind: Kind, data: Data, seed: int) -> Masks:
    """The masks of a kind.

    Args:
        kind: See above.
        data: The pictures.
        seed: Of the choice of those with a mask.

    Raises:
        ValueError: There is no such kind.
    """
    train, validation = data.train.masks, data.validation.masks
    if isinstance(kind, float):
        order = np.random.default_rng([seed, 2]).permutation(len(train))
        return Masks(train, validation, order[: round(kind * len(train))].astype(np.int32))
    if kind not in _SPOILT:
        raise ValueError(f"unknown masks {kind!r}; there are {', '.join(_SPOILT)} and shares")
    return Masks(_SPOILT[kind](train), _SPOILT[kind](validation), None)


def _another(masks: np.ndarray) -> np.ndarray:
    return np.random.default_rng(3).permutation(masks)


def _dilated(masks: np.ndarray) -> np.ndarray:
    padded = np.pad(masks, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2)).max((-1, -2))


def _boxes(masks: np.ndarray) -> np.ndarray:
    """From the first row (column) with a pixel of the animal to the last."""
    found = masks > 0.5
    sides = []
    for axis in (2, 1):
        there = found.any(axis, keepdims=True)
        before = np.maximum.accumulate(there, 3 - axis)
        after = np.flip(np.maximum.accumulate(np.flip(there, 3 - axis), 3 - axis), 3 - axis)
        sides.append(before & after)
    return (sides[0] & sides[1]).astype(masks.dtype)


def _uneven(masks: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(4)
    found = np.zeros_like(masks)
    for k, mask in enumerate(masks):
        wide = np.asarray(training.dilate(mask[None], int(rng.integers(0, 3))))[0]
        padded = np.pad(wide, ((3, 3), (3, 3), (0, 0)))
        y, x = rng.integers(0, 7, 2)
        found[k] = padded[y : y + mask.shape[0], x : x + mask.shape[1]]
    return found


_SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "true": lambda masks: masks,
    "random": _another,
    "shifted": lambda masks: np.roll(masks, (3, 3), axis=(1, 2)),
    "dilated": _dilated,
    "boxes": _boxes,
    "uneven": _uneven,
}


def proposed(kind: Kind, known: Masks, data: Data, seed: int) -> Masks:
    """Masks of all pictures, made of those that are known.

    Args:
        kind: Of these.
        known: What is given: masks or boxes of all pictures, or masks of some.
        data: The pictures.
        seed: Of the network that learns from some.
    """
    if known.known is None:
        images, labels = (
            np.concatenate([getattr(part, name) for part in (data.train, data.validation)])
            for name in ("images", "labels")
        )
        masks = np.concatenate([known.train, known.validation])
        if kind != "boxes":
            masks, _ = registered(images, masks, labels)
        masks = sure(images, masks, labels)
        return Masks(masks[: len(known.train)], masks[len(known.train) :], None)
    images = data.train.images
    some = known.known
    there = _learned(_UNet(), images[some], known.train[some], seed)
    made = (there(images) > 0.5).astype(np.float32)
    made[some] = known.train[some]
    # of the validation pictures no more are known than of the training's
    return Masks(made, (there(data.validation.images) > 0.5).astype(np.float32), None)


def registered(
    images: np.ndarray, masks: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, training.Registration]:
    """Masks moved and eroded to where they say most, and the error that all of them had."""
    error = training.register(images, masks)
    each = training.register_each(images, error.correct(masks), labels)
    return training.register(images, each).correct(each), error


def sure(images: np.ndarray, masks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The pixels of masks that have no brightness of the surroundings of their class."""
    return (training.in_boxes(images, masks, labels) > SURE).astype(np.float32)


def _learned(
    network: nn.Module, images: np.ndarray, masks: np.ndarray, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pictures to probabilities of the mask, learned from mirrored pictures."""
    params = network.init(jax.random.key(seed), images[:1])
    optimizer = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, STEPS), weight_decay=1e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, mask: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            logits: Any = network.apply(params, x)
            return optax.sigmoid_binary_cross_entropy(logits, mask).mean()

        updates, changed = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), changed

    rng = np.random.default_rng([seed, 4])
    for _ in range(STEPS):
        both = np.concatenate([images, masks], -1)[rng.integers(0, len(images), BATCH)]
        for axis in (1, 2):
            flipped = rng.random((BATCH, 1, 1, 1)) < 0.5
            both = np.where(flipped, np.flip(both, axis), both)
        params, state = step(params, state, both[..., :1], both[..., 1:])

    @jax.jit
    def there(x: jax.Array) -> jax.Array:
        logits: Any = network.apply(params, x)
        return nn.sigmoid(logits)

    return lambda x: np.concatenate([there(x[k : k + 500]) for k in range(0, len(x), 500)])


class _UNet(nn.Module):
    """Three levels of 16, 32 and 48 channels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, 1) pictures, of sides divisible by 4, to (N, H, W, 1) logits."""
        x, beside = 2 * x - 1, []
        for level, width in enumerate((16, 32, 48)):
            x = nn.max_pool(x, (2, 2), (2, 2)) if level else x
            for _ in range(2):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
            beside.append(x)
        for width, skipped in ((32, beside[1]), (16, beside[0])):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            x = nn.relu(nn.Conv(width, (3, 3))(jnp.concatenate([x, skipped], -1)))
        return nn.Dense(1)(x)
