"""Networks and pictures: digits, Fashion-MNIST, and photographs for EfficientNet-Lite0."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.backgrounds.animals import default_cache
from experiments.cells.networks import Cnn, train
from experiments.data import fashion, imagenet
from experiments.explain_image import read_picture
from experiments.networks.digits import Digits, load_digits
from experiments.networks.efficientnet import EfficientNetLite0, load_variables

SIDE = 14
"""Regions along a side of a picture: 14 x 14 of them."""
STEPS, PER_STEP = 25, 4
"""Half of them go."""

PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png",
               "rocket.jpg")  # fmt: skip
"""Those of scikit-image's wheel that show a thing ImageNet knows."""
CROPS = 6
"""Squares of each photograph."""


class Subject(NamedTuple):
    """A network and the pictures that it is asked about.

    Attributes:
        variables: Of the network, float32.
        pictures: And the classes whose logits are explained.
        accuracy: On pictures that it has not seen; None where nobody knows what they show.
    """

    variables: Any
    pictures: Digits
    accuracy: float | None


class Kind(NamedTuple):
    """What does not depend on a seed.

    Attributes:
        apply: From variables and pictures to logits.
        make: From a seed, a number of pictures, and a number of epochs to a subject.
        low: The least value of a pixel.
        high: The largest.
        noise: Whether regions are replaced by uniform noise, or by 0.
        trained: Whether each seed makes a network of its own, or other noise only.
        alike: How many pictures in a row show one thing, and are not independent.
        chunk: How many steps are computed at once.
        quick: The same as `apply`, where another way to write it is faster, but not explained.
    """

    apply: Callable[[Any, jax.Array], Any]
    make: Callable[[int, int, int], Subject]
    low: float = 0.0
    high: float = 1.0
    noise: bool = True
    trained: bool = True
    alike: int = 1
    chunk: int = STEPS + 1
    quick: Callable[[Any, jax.Array], Any] | None = None


def logit(
    apply: Callable[[Any, jax.Array], Any], variables: Any, labels: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """The function that is explained: pictures (N, H, W, C) to logits of their labels, (N,)."""
    return lambda x: jnp.take_along_axis(apply(variables, x), labels[:, None], 1)[:, 0]


@functools.cache
def _digits(seed: int, pictures: int, epochs: int) -> Subject:
    """A CNN, and digits it has not seen."""
    return _trained(*load_digits(seed, held_out=1000), seed, pictures, epochs)


@functools.cache
def _clothes(seed: int, pictures: int, epochs: int) -> Subject:
    """The same CNN, and pieces of clothing it has not seen."""
    images, labels = fashion.load(fashion.fetch(default_cache()))
    order = np.random.default_rng(seed).permutation(len(labels))
    scaled = (images[order] / 255).astype(np.float32)[..., None]
    parts = [slice(1000, None), slice(1000)]
    train, test = (Digits(scaled[part], labels[order][part].astype(np.int32)) for part in parts)
    return _trained(train, test, seed, pictures, epochs)


def _trained(seen: Digits, others: Digits, seed: int, pictures: int, epochs: int) -> Subject:
    network = Cnn()
    variables = train(network, seen, seed, epochs, cells=False)
    answers = np.asarray(jax.jit(network.apply)(variables, others.images)).argmax(-1)
    asked = Digits(*(part[:pictures] for part in others))
    return Subject(variables, asked, float((answers == others.labels).mean()))


def _photographs(seed: int, pictures: int, epochs: int) -> Subject:
    """EfficientNet-Lite0, squares of photographs, and what it takes each for."""
    del seed, epochs
    folder = Path(str(resources.files("skimage") / "data"))
    photographs = (read_picture(folder / name) for name in PHOTOGRAPHS[:pictures])
    squares = (square for photograph in photographs for square in crops(photograph))
    images, variables = np.stack([*map(imagenet.preprocess, squares)]), load_variables()
    answers = np.asarray(jax.jit(EfficientNetLite0().apply)(variables, images)).argmax(-1)
    return Subject(variables, Digits(images, answers.astype(np.int32)), None)


def crops(photograph: np.ndarray) -> list[np.ndarray]:
    """The middle square of a photograph, and five of 4/5 of its side: the middle, the corners.

    Args:
        photograph: (H, W, 3).

    Returns:
        `CROPS` squares. All of them show what is in the middle.
    """
    side = min(photograph.shape[:2])
    margin = side // 10
    top, left = ((length - side) // 2 for length in photograph.shape[:2])
    middle = photograph[top : top + side, left : left + side]
    small = side - 2 * margin
    starts = [(margin, margin), *itertools.product((0, 2 * margin), repeat=2)]
    return [middle, *(middle[y : y + small, x : x + small] for y, x in starts)]


KINDS: Mapping[str, Kind] = {
    "digits": Kind(Cnn().apply, _digits),
    "digits to black": Kind(Cnn().apply, _digits, noise=False),
    "fashion": Kind(Cnn().apply, _clothes),
    "fashion to black": Kind(Cnn().apply, _clothes, noise=False),
    "efficientnet": Kind(
        EfficientNetLite0().apply,
        _photographs,
        *imagenet.normalize(np.array([0, 255])).tolist(),
        trained=False,
        alike=CROPS,
        chunk=4,
        quick=EfficientNetLite0(shifts=True).apply,
    ),
}
