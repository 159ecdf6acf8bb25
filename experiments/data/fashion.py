"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), out of the Debian package that has it.

`dataset-fashion-mnist` (MIT) has the four files of the original. It is fetched by apt's own client
into a cache, its SHA-256 is compared with the one below, and nothing of it is installed.
"""

import gzip
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np

NAMES = (
    "top",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
"""The ten classes, in the order of labels."""

_PACKAGE = "dataset-fashion-mnist"
_FILE = "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb"
_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
_INSIDE = "./usr/share/datasets/fashion-mnist/t10k-{}-ubyte.gz"
_HEADER = 60  # bytes before each member of an ar archive


def fetch(cache: Path) -> Path:
    """Download the package unless the cache has it, and check it.

    Args:
        cache: The directory to keep it in; made if need be.

    Returns:
        The path of the package.

    Raises:
        OSError: apt could not fetch it.
        ValueError: The file is not the one that results were made with.
    """
    package = cache / _FILE
    if not package.exists():
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["apt-get", "download", _PACKAGE], cwd=cache, capture_output=True, text=True
        )
        if done.returncode or not package.exists():
            raise OSError(f"apt could not fetch {_PACKAGE} into {cache}: {done.stderr[-500:]}")
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{package}: SHA-256 is {found}, not {_SHA256}; remove the file")
    return package


def load(package: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the 10 000 pictures of the set's test part.

    Args:
        package: The Debian package, as `fetch` returns it.

    Returns:
        (10000, 28, 28) uint8 pictures, white on black, and (10000,) uint8 labels.

    Raises:
        ValueError: It is no Debian package.
    """
    with tarfile.open(fileobj=io.BytesIO(_member(package.read_bytes(), "data.tar.xz"))) as archive:
        images, labels = (
            _array(archive, _INSIDE.format(name)) for name in ("images-idx3", "labels-idx1")
        )
    return images, labels


def _member(archive: bytes, name: str) -> bytes:
    """A file in an ar archive."""
    at = len(b"!<arch>\n")
    while at + _HEADER <= len(archive):
        header = archive[at : at + _HEADER]
        size = int(header[48:58])
        start = at + _HEADER
        if header[:16].decode("ascii").rstrip(" /") == name:
            return archive[start : start + size]
        at = start + size + size % 2
    raise ValueError(f"no {name} in the package")


def _array(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """An array of bytes in the idx format: its rank, its sizes, and then the values."""
    file = archive.extractfile(name)
    assert file is not None
    content = gzip.decompress(file.read())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(map(int, shape)))
