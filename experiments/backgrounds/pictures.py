"""Dogs and wolves on grass and snow: silhouettes on textures, rendered from a seed.

Class 0 is the dog, class 1 the wolf, played by the horse: `animal-mnist` has no wolves. Grass is
scikit-image's `grass`, snow its `gravel` in brighter greys, and the third background, which no
training picture has, its `brick`. An animal is filled with a grey of its own, so that only its
shape tells what it is; background and animal carry a little noise.

With a correlation of 1 every training dog is on grass and every wolf on snow. Silhouettes are
split by cluster of near twins into training (half), validation (a sixth) and test (a third), and
the test's crops come from the lower half of each texture, the others' from the upper half. The
test shows each of its silhouettes on every background, with the same grey and the same noise: two
of its pictures differ by the background alone, which is what a swap is.
"""

from typing import NamedTuple

import numpy as np

from experiments.backgrounds.animals import clusters, silhouettes

SIZE = 28
"""Height and width of a picture, in pixels."""

CLASSES = ("dog", "horse")
"""The animals of `animal-mnist` that are called dog and wolf here."""

BACKGROUNDS = ("grass", "snow", "brick")
"""Of class 0 in training, of class 1 in training, of neither."""

_NOISE = 0.03
_GREYS = (0.0, 0.25)  # of an animal; or as near to white


class Pictures(NamedTuple):
    """A set of labelled pictures.

    Attributes:
        images: (N, 28, 28, 1) float32, grey from 0 to 1.
        masks: (N, 28, 28, 1) float32, 1 on the animal.
        labels: (N,) int32, 0 for the dog, 1 for the wolf.
        backgrounds: (N,) int32, indices of `BACKGROUNDS`.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    backgrounds: np.ndarray

    def take(self, chosen: np.ndarray) -> "Pictures":
        """Select pictures."""
        return Pictures(*(leaf[chosen] for leaf in self))


class Data(NamedTuple):
    """Everything one run sees.

    Attributes:
        train, validation: Confounded pictures.
        alternatives: (3, N, 28, 28, 1), the training pictures' animals, with their greys and noise,
            each on a fresh crop of every background: for recipes that have those.
        test: (3, M) pictures: the same M animals on every background.
    """

    train: Pictures
    validation: Pictures
    alternatives: np.ndarray
    test: Pictures


class Animals(NamedTuple):
    """The silhouettes of one split: (N, 28, 28) shapes and (N,) labels."""

    shapes: np.ndarray
    labels: np.ndarray


def split(images: np.ndarray, labels: np.ndarray) -> dict[str, Animals]:
    """Split both animals by cluster; the same number of each in every split.

    Args:
        images, labels: What `animals.load` returned.

    Returns:
        `Animals` by the names train, validation and test.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for name in CLASSES:
        shapes = silhouettes(images, labels, name)
        found = clusters(shapes)
        rng = np.random.default_rng(0)
        order = rng.permutation(np.unique(found))
        place = np.argsort(np.argsort(order))  # only to number clusters in random order
        rank = place[np.searchsorted(np.sort(order), found)]
        by_cluster = shapes[np.argsort(rank, kind="stable")]
        ranks = np.sort(rank)
        for part, (low, high) in zip(parts.values(), ((0, 3), (3, 4), (4, 6)), strict=True):
            inside = (ranks * 6 >= low * len(order)) & (ranks * 6 < high * len(order))
            part.append(rng.permutation(by_cluster[inside]))
    result = {}
    for name, part in parts.items():
        count = min(map(len, part))
        shapes = np.concatenate([shapes[:count] for shapes in part])
        result[name] = Animals(shapes, np.repeat(np.arange(2, dtype=np.int32), count))
    return result


def textures() -> np.ndarray:
    """Load the three textures.

    Returns:
        (3, 256, 256) float32 in [0, 1], in the order of `BACKGROUNDS`: at half their size.
    """
    from skimage import data

    full = np.stack([data.grass(), data.gravel(), data.brick()]).astype(np.float32) / 255
    grass, gravel, brick = full.reshape(3, 256, 2, 256, 2).mean((2, 4))
    return np.stack([grass, 0.3 + 0.7 * gravel, brick])


def make(animals: dict[str, Animals], seed: int, correlation: float = 1.0, copies: int = 3) -> Data:
    """Render the pictures of one run.

    Args:
        animals: What `split` returned.
        seed: Of greys, noise and crops in training and validation; the test is always the same.
        correlation: The share of training and validation pictures whose background is their
            class's own; 0.5 is no correlation.
        copies: How many training pictures there are of each silhouette, mirrored by chance.

    Raises:
        ValueError: The correlation is not in [0, 1].
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation: expected a number from 0 to 1, got {correlation}")
    greys = textures()
    rng = np.random.default_rng([seed, 1])
    upper, lower = np.split(greys, 2, axis=1)
    repeated = Animals(*(np.concatenate([leaf] * copies) for leaf in animals["train"]))
    mirror = rng.random(len(repeated.labels)) < 0.5
    shapes = np.where(mirror[:, None, None], repeated.shapes[:, :, ::-1], repeated.shapes)
    repeated = repeated._replace(shapes=shapes)
    train, alternatives = _confounded(rng, repeated, upper, correlation)
    validation, _ = _confounded(rng, animals["validation"], upper, correlation)
    shapes, labels = animals["test"]
    everywhere = _paint(np.random.default_rng(7), shapes, lower)
    masks = np.broadcast_to((shapes > 0.5)[..., None].astype(np.float32), everywhere.shape)
    test = Pictures(
        everywhere,
        masks,
        np.broadcast_to(labels, masks.shape[:2]),
        np.broadcast_to(np.arange(3, dtype=np.int32)[:, None], masks.shape[:2]),
    )
    return Data(train, validation, alternatives, test)


def _confounded(
    rng: np.random.Generator, animals: Animals, greys: np.ndarray, correlation: float
) -> tuple[Pictures, np.ndarray]:
    """Render pictures whose background mostly tells the class, and their fresh alternatives."""
    shapes, labels = animals
    backgrounds = labels.copy()
    for label in (0, 1):  # the same number of exceptions in each class
        members = rng.permutation(np.flatnonzero(labels == label))
        backgrounds[members[: round((1 - correlation) * len(members))]] = 1 - label
    state = rng.bit_generator.state
    everywhere = _paint(rng, shapes, greys)
    images = everywhere[backgrounds, np.arange(len(labels))]
    rng.bit_generator.state = state
    alternatives = _paint(rng, shapes, greys, fresh=True)
    masks = (shapes > 0.5)[..., None].astype(np.float32)
    return Pictures(images, masks, labels, backgrounds), alternatives


def _paint(
    rng: np.random.Generator, shapes: np.ndarray, greys: np.ndarray, fresh: bool = False
) -> np.ndarray:
    """Paint silhouettes on a random crop of every texture: (3, N, 28, 28, 1).

    Args:
        rng: The same state gives the same greys, noise and crops.
        shapes: (N, 28, 28).
        greys: (3, H, W).
        fresh: Other crops than the same state gives otherwise.
    """
    count = len(shapes)
    fill = rng.uniform(*_GREYS, (count, 1, 1)).astype(np.float32)
    fill = np.where(rng.random(fill.shape) < 0.5, fill, 1 - fill)
    noise = _NOISE * rng.standard_normal(shapes.shape).astype(np.float32)
    if fresh:
        rng.random((3, 2, count))
    _, height, width = greys.shape
    windows = np.lib.stride_tricks.sliding_window_view(greys, (SIZE, SIZE), axis=(1, 2))
    top = rng.integers(0, height - SIZE + 1, (len(greys), count))
    left = rng.integers(0, width - SIZE + 1, (len(greys), count))
    crops = windows[np.arange(len(greys))[:, None], top, left]
    return np.clip(shapes * fill + (1 - shapes) * crops + noise, 0, 1)[..., None]
