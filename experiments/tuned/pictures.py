"""Dogs on grass, wolves on snow, in colour: silhouettes with fur on textures.

The animals of `experiments.backgrounds.pictures` and its splits, each silhouette scaled up to 84
pixels and put somewhere into 96. Grass, snow (gravel) and brick are scikit-image's grey textures
as ramps between two colours; fur is cut out of its picture of a cat, in a tint of each animal's
own, so that only the shape tells what it is. Training and validation take their crops from other
halves of the pictures than the test, which shows each animal, with the same fur at the same place,
on every background.
"""

from typing import NamedTuple

import jax
import numpy as np

from experiments.backgrounds.pictures import Animals

SIZE, _ANIMAL = 96, 84
_RAMPS = (
    ((20, 50, 10), (170, 210, 90)),
    ((110, 120, 150), (250, 250, 255)),
    ((90, 30, 20), (220, 150, 120)),
)
"""The darkest and the brightest colour of grass, snow and brick."""


class Pictures(NamedTuple):
    """A set of labelled pictures.

    Attributes:
        images: (3, N, 96, 96, 3) float32 from 0 to 1: on grass, snow, brick.
        masks: (N, 96, 96, 1) float32, 1 on the animal, else 0.
        labels: (N,) int32, 0 for the dog, 1 for the wolf.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray

    def confounded(self) -> np.ndarray:
        """Each on its class's own background, (N, 96, 96, 3)."""
        return self.images[self.labels, np.arange(len(self.labels))]


def backgrounds() -> np.ndarray:
    """The three textures in colour: (3, 512, 512, 3) float32 from 0 to 1."""
    from skimage import data

    greys = np.stack([data.grass(), data.gravel(), data.brick()]).astype(np.float32) / 255
    dark, bright = (np.array(c, np.float32) / 255 for c in zip(*_RAMPS, strict=True))
    share = greys[..., None]
    return (1 - share) * dark[:, None, None] + share * bright[:, None, None]


def make(animals: Animals, rng: np.random.Generator, count: int, test: bool = False) -> Pictures:
    """Paint some animals, as many of each class.

    Args:
        animals: Of one split.
        rng: Where choice, places, tints and crops are drawn from.
        count: How many, at most.
        test: Whether crops come from the test's half.
    """
    from skimage import data

    each = min(count // 2, len(animals.labels) // 2)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(animals.labels == label))[:each] for label in (0, 1)]
    )
    masks = _placed(animals.shapes[chosen], rng)
    half = slice(1, None) if test else slice(None, 1)
    cat = np.asarray(data.chelsea(), np.float32)[60:] / 255
    fur = _crops(rng, np.array_split(cat, 2, axis=1)[half][0], each * 2)
    fur = np.clip(fur * rng.uniform(0.4, 1.4, (2 * each, 1, 1, 3)), 0, 1)
    textures = (np.array_split(t, 2, axis=0)[half][0] for t in backgrounds())
    images = [masks * fur + (1 - masks) * _crops(rng, t, 2 * each) for t in textures]
    return Pictures(np.stack(images).astype(np.float32), masks, animals.labels[chosen])


def _placed(shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Silhouettes (N, 28, 28) as masks (N, 96, 96, 1)."""
    scaled = jax.image.resize(shapes, (len(shapes), _ANIMAL, _ANIMAL), "cubic")
    masks = np.zeros((len(shapes), SIZE, SIZE, 1), np.float32)
    corners = rng.integers(0, SIZE - _ANIMAL + 1, (len(shapes), 2))
    for mask, shape, (top, left) in zip(masks, np.asarray(scaled), corners, strict=True):
        mask[top : top + _ANIMAL, left : left + _ANIMAL, 0] = shape > 0.5
    return masks


def _crops(rng: np.random.Generator, picture: np.ndarray, count: int) -> np.ndarray:
    """Random crops of a picture (H, W, 3): (N, 96, 96, 3), mirrored by chance."""
    height, width, _ = picture.shape
    corners = rng.integers(0, (height - SIZE + 1, width - SIZE + 1), (count, 2))
    crops = np.stack([picture[y : y + SIZE, x : x + SIZE] for y, x in corners])
    mirrored = rng.random((count, 1, 1, 1)) < 0.5
    return np.where(mirrored, crops[:, :, ::-1], crops)
