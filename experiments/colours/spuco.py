"""SpuCoMNIST (Joshi, Yang, Xue, Yang, Mirzasoleiman 2023): digits with a coloured background.

Five classes of two digits each, {0, 1} to {8, 9}; each has a colour, at equal distances in hue. It
is on pixels that are 0 in the digit, of a part of the picture that makes the difficulty:

    magnitude large    all of it                 variance low       the 7 x 7 in the upper left
    magnitude medium   the 4 x 4 in the upper    variance medium    49 random pixels of the 14 x 14
                       left                                         in the upper left
    magnitude small    the 2 x 2 there           variance high      49 random pixels of all

A share of each class has its own colour, the others the other colours in turn.
"""

import colorsys

import numpy as np

from experiments.colours.problem import Pictures, Problem
from experiments.decoys.digits import Digits

CLASSES = 5
DIFFICULTIES = (
    "magnitude large",
    "magnitude medium",
    "magnitude small",
    "variance low",
    "variance medium",
    "variance high",
)
COLOURS = np.array([colorsys.hsv_to_rgb(n / CLASSES, 1, 1) for n in range(CLASSES)], np.float32)
"""(5, 3) red, green and blue of the classes' colours."""

_CORNERS = {"magnitude large": 28, "magnitude medium": 4, "magnitude small": 2, "variance low": 7}
_SCATTERED = {"variance medium": 14, "variance high": 28}
_POINTS = 49


def problem(plain: dict[str, Digits], difficulty: str, strength: float, seed: int) -> Problem:
    """Paint the pictures of a run; the test's are always the same.

    Args:
        plain: The digits, in the parts train, validation and test.
        difficulty: One of `DIFFICULTIES`.
        strength: The share of each class that has its own colour.
        seed: Of colours and places.

    Raises:
        ValueError: There is no such difficulty.
    """
    train, validation = (
        _confounded(plain[part], difficulty, strength, [seed, number])
        for number, part in enumerate(("train", "validation"), 6)
    )
    rng = np.random.default_rng([seed, 8])
    random = rng.integers(0, CLASSES, len(train.labels))
    places = coloured(difficulty, len(train.labels), rng)
    test = plain["test"]
    fixed = coloured(difficulty, len(test.labels), np.random.default_rng(1000))
    return Problem(
        train,
        paint(plain["train"].images, random, places),
        validation,
        lambda colour: paint(test.images, np.full(len(test.labels), colour), fixed),
        test.labels // 2,
        CLASSES,
        1 / CLASSES,
    )


def _confounded(digits: Digits, difficulty: str, strength: float, seed: list[int]) -> Pictures:
    rng = np.random.default_rng(seed)
    labels = digits.labels // 2
    colours = assigned(labels, strength, rng)
    images = paint(digits.images, colours, coloured(difficulty, len(labels), rng))
    return Pictures(images, (digits.images > 0)[..., None].astype(np.float32), labels)


def assigned(labels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Give exactly floor(strength n) of the n pictures of a class its colour, others in turn.

    Args:
        labels: (N,) classes.
        strength: From 0 to 1.
        rng: Decides which.

    Returns:
        (N,) numbers of colours.
    """
    found = labels.copy()
    for label in range(CLASSES):
        where = rng.permutation(np.flatnonzero(labels == label))
        where = where[int(strength * len(where)) :]
        others = np.delete(np.arange(CLASSES), label)
        found[where] = others[np.arange(len(where)) % len(others)]
    return found


def coloured(difficulty: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Where the colour goes.

    Args:
        difficulty: One of `DIFFICULTIES`.
        count: Of pictures.
        rng: Scatters the points.

    Returns:
        (N, 28, 28) booleans.

    Raises:
        ValueError: There is no such difficulty.
    """
    found = np.zeros((count, 28, 28), bool)
    if difficulty in _CORNERS:
        side = _CORNERS[difficulty]
        found[:, :side, :side] = True
    elif difficulty in _SCATTERED:
        side = _SCATTERED[difficulty]
        points = rng.random((count, side * side)).argsort(1)[:, :_POINTS]
        found[np.arange(count)[:, None], points // side, points % side] = True
    else:
        known = ", ".join(DIFFICULTIES)
        raise ValueError(f"no difficulty is called {difficulty!r}; there are {known}")
    return found


def paint(images: np.ndarray, colours: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Colour the background.

    Args:
        images: (N, 28, 28) uint8.
        colours: (N,) numbers of colours.
        places: (N, 28, 28) booleans; digits are not painted over.

    Returns:
        (N, 28, 28, 3) float32 in [0, 1].
    """
    grey = images[..., None].astype(np.float32) / 255
    painted = (places & (images == 0))[..., None] * COLOURS[colours][:, None, None]
    return grey + painted
