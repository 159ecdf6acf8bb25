"""Pictures of 8 x 8 with a T or an L in noise, restated from the protocol of XAI-TRIS.

Clark, Wilming, Haufe, "XAI-TRIS: non-linear image benchmarks to quantify false positive post-hoc
attribution of feature importance" (Machine Learning 2024, arXiv 2306.12816). With patterns P and
noise B, each divided by its Frobenius norm over all pictures, a picture is a P + (1 - a) B, or
(1 - a P) B in the multiplicative scenario; then all are divided by the largest magnitude. What is
smooth in the noise makes *suppressors* of pixels without a pattern: they tell nothing of the class,
but what noise there is where the pattern is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

SIDE = 8
T = np.array([[1, 0], [1, 1], [1, 0]], float)
L = np.array([[1, 0], [1, 0], [1, 1]], float)
PLACES = (1, 1), (4, 5)
"""Of the T and the L where they are fixed."""

SCENARIOS = {
    "linear": (0.18, 0.0125),
    "multiplicative": (0.7, 0.1),
    "translations": (0.65, 0.2),
    "xor": (0.35, 0.15),
}
"""How much of a picture is pattern: in white, and in correlated noise."""

NOISES = ("white", "correlated")
_SMOOTH = 3.0  # the deviation of the Gaussian that makes noise correlated, in pixels


class Pictures(NamedTuple):
    """Pictures, their classes and the truth.

    Attributes:
        images: (N, 8, 8, 1) float32 in [-1, 1].
        labels: (N,) int32, 0 or 1.
        masks: (N, 8, 8) whether a pixel tells the class.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def draw(scenario: str, noise: str, seed: int, number: int = 10_000) -> Pictures:
    """Draw pictures of a scenario, as many of each class.

    Args:
        scenario: One of `SCENARIOS`.
        noise: One of `NOISES`.
        seed: Of all that is random.
        number: How many; the norms are those of all of them.

    Raises:
        ValueError: There is no such scenario, or noise.
    """
    if scenario not in SCENARIOS or noise not in NOISES:
        raise ValueError(f"no scenario {scenario!r} in {noise!r} noise")
    rng = np.random.default_rng((seed, list(SCENARIOS).index(scenario), NOISES.index(noise)))
    labels = rng.permutation(np.arange(number) % 2)
    make = {"translations": _anywhere, "xor": _both}.get(scenario, _either)
    patterns = make(labels, rng)
    background = rng.normal(0, 0.5, (number, SIDE, SIDE))
    if noise == "correlated":
        background = ndimage.gaussian_filter(background, (0, _SMOOTH, _SMOOTH))
    a = SCENARIOS[scenario][NOISES.index(noise)]
    if scenario == "multiplicative":
        images = _normed(1 - a * patterns) * _normed(background)
    else:
        images = a * _normed(patterns) + (1 - a) * _normed(background)
    images /= np.abs(images).max()
    fixed = np.broadcast_to((_placed(T, PLACES[0]) + _placed(L, PLACES[1])) > 0, images.shape)
    masks = patterns != 0 if scenario == "translations" else fixed
    return Pictures(images[..., None].astype(np.float32), labels.astype(np.int32), masks)


def parts(pictures: Pictures) -> tuple[Pictures, Pictures, Pictures]:
    """Four fifths for training, a tenth for choosing, a tenth for the test."""
    n = len(pictures.labels)
    cuts = slice(n * 8 // 10), slice(n * 8 // 10, n * 9 // 10), slice(n * 9 // 10, None)
    train, choosing, test = (Pictures(*(v[cut] for v in pictures)) for cut in cuts)
    return train, choosing, test


def _normed(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values)


def _placed(shape: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """A picture with the shape's upper left corner at a place."""
    picture = np.zeros((SIDE, SIDE))
    picture[tuple(slice(at, at + n) for at, n in zip(place, shape.shape, strict=True))] = shape
    return picture


def _either(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The T where it belongs, or the L."""
    del rng
    return np.stack([_placed(T, PLACES[0]), _placed(L, PLACES[1])])[labels]


def _both(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both, of the same sign or of opposite ones."""
    first = rng.choice([-1, 1], len(labels))
    second = np.where(labels == 0, first, -first)
    signs = first[:, None, None], second[:, None, None]
    return signs[0] * _placed(T, PLACES[0]) + signs[1] * _placed(L, PLACES[1])


def _anywhere(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A T or an L, turned and moved at random."""
    patterns = []
    for label, turns in zip(labels, rng.integers(4, size=len(labels)), strict=True):
        shape = np.rot90((T, L)[label], turns)
        row, column = (int(rng.integers(SIDE - n + 1)) for n in shape.shape)
        patterns.append(_placed(shape, (row, column)))
    return np.stack(patterns)
