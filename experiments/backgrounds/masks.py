"""The masks a recipe is given of pictures, and those it makes of them.

    true                what the pictures were painted by
    random              another picture's
    shifted, dilated    by 3 pixels to the lower right; by 2 pixels all around
    boxes               the smallest rectangle around
    0.1, 0.01           of so many of the pictures, none of the others

Proposed masks are made of these, and of the pictures, without any other knowledge:

    0.1, 0.01    a U-Net of three levels learns from the pictures with a mask, and proposes all
                 others'
    boxes        a classifier that sees 9 x 9 pixels learns what lies inside of boxes; the animal is
                 where it is all but sure, for what is outside of one box and inside of another is
                 background
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.backgrounds.pictures import Data

SURE = 0.96
"""How likely a pixel has to lie inside of a box to count as the animal's; settled on a pilot."""
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


_SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "true": lambda masks: masks,
    "random": _another,
    "shifted": lambda masks: np.roll(masks, (3, 3), axis=(1, 2)),
    "dilated": _dilated,
    "boxes": _boxes,
}


def proposed(known: Masks, data: Data, seed: int) -> Masks:
    """Masks of all pictures, made of those that are known.

    Args:
        known: What is given: boxes, or masks of some pictures.
        data: The pictures.
        seed: Of the networks that learn them.
    """
    images = data.train.images
    if known.known is None:
        inside = _learned(_Local(), images, known.train, seed)
        seen = data.validation.images
        return Masks(
            known.train * (inside(images) > SURE), known.validation * (inside(seen) > SURE), None
        )
    some = known.known
    there = _learned(_UNet(), images[some], known.train[some], seed)
    made = (there(images) > 0.5).astype(np.float32)
    made[some] = known.train[some]
    # of the validation pictures no more are known than of the training's
    return Masks(made, (there(data.validation.images) > 0.5).astype(np.float32), None)


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


class _Local(nn.Module):
    """Convolutions that see 9 x 9 pixels, the picture's edge repeated outwards."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, 1) pictures to (N, H, W, 1) logits."""
        x = 2 * x - 1
        for _ in range(4):
            padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
            x = nn.relu(nn.Conv(24, (3, 3), padding="VALID")(padded))
        return nn.Dense(1)(x)


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
