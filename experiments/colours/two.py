"""Coloured MNIST (Arjovsky, Bottou, Gulrajani, Lopez-Paz 2019): red and green digits.

A label is whether the digit is below 5, and wrong for a quarter of the pictures. The colour agrees
with the label (as it is, wrong or not) for 80 and 90 % of the pictures of two environments in
training, and for 10 % in the test: nobody is right on more than 75 %, whoever trusts the colour on
10 %. Pictures have every other row and column of the original.

There they are stored as red and green, here as red + green, the brightness, and red: the same
picture in other coordinates, so that a mask can say that the nuisance is the second. The recoloured
picture is the same digit in the other colour.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.colours.problem import Pictures, Problem
from experiments.decoys.digits import Digits

RED, GREEN = 0, 1
NOISE = 0.25
ENVIRONMENTS = (0.8, 0.9)
AGREEING = 0.1
"""In the test."""


def problem(plain: dict[str, Digits], seed: int) -> Problem:
    """Colour the pictures of a run; the test's labels are always the same.

    Args:
        plain: The digits, in the parts train, validation and test.
        seed: Of colours and wrong labels.
    """
    train, validation = (
        _confounded(plain[part], np.random.default_rng([seed, number]))
        for number, part in enumerate(("train", "validation"), 6)
    )
    random = np.random.default_rng([seed, 8]).integers(0, 2, len(train.labels))
    test = plain["test"]
    return Problem(
        train,
        paint(plain["train"].images, random),
        validation,
        lambda colour: paint(test.images, np.full(len(test.labels), colour)),
        noisy(test.labels, np.random.default_rng(1000)),
        2,
        AGREEING,
    )


def _confounded(digits: Digits, rng: np.random.Generator) -> Pictures:
    labels = noisy(digits.labels, rng)
    agreeing = np.resize(ENVIRONMENTS, len(labels))
    colours = np.where(rng.random(len(labels)) < agreeing, labels, 1 - labels)
    images = paint(digits.images, colours)
    masks = np.broadcast_to(np.array([1, 0], np.float32), images.shape)
    return Pictures(images, masks, labels)


def noisy(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether a digit is below 5, wrong for a quarter of them.

    Args:
        digits: (N,) from 0 to 9.
        rng: Decides which are wrong.

    Returns:
        (N,) int32 labels.
    """
    return ((digits < 5) ^ (rng.random(len(digits)) < NOISE)).astype(np.int32)


def paint(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour digits.

    Args:
        images: (N, 28, 28) uint8.
        colours: (N,) `RED` or `GREEN`.

    Returns:
        (N, 14, 14, 2) float32 in [0, 1]: brightness and red.
    """
    brightness = images[:, ::2, ::2].astype(np.float32) / 255
    return np.stack([brightness, brightness * (colours == RED)[:, None, None]], axis=-1)


def recoloured(key: jax.Array, x: jax.Array, mask: jax.Array, labels: jax.Array) -> jax.Array:
    """The same digits in the other colour.

    Args:
        key, mask, labels: Not needed: there is but one other colour.
        x: (N, 14, 14, 2) brightness and red.
    """
    del key, mask, labels
    brightness, red = x[..., 0], x[..., 1]
    return jnp.stack([brightness, brightness - red], axis=-1)
