"""What an experiment leaves behind: tables as CSV, and how they were made as JSON."""

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrel


def folder(path: Path) -> Path:
    """Make a folder for results, unless it is there.

    Raises:
        ValueError: There is something else, or nowhere to put it.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: not a folder")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"{path}: there is no such directory to put it into")
    path.mkdir(exist_ok=True)
    if not os.access(path, os.W_OK):
        raise ValueError(f"{path}: may not be written into")
    return path


def spread(values: Any) -> float | None:
    """The standard deviation over seeds; None of one seed, which has no spread."""
    return float(np.std(values)) if len(values) > 1 else None


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows under the names of their columns; floats with six digits."""

    def cell(value: Any) -> Any:
        return f"{value:.6g}" if isinstance(value, float) else value

    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([cell(value) for value in row] for row in rows)


def read_table(path: Path) -> list[tuple]:
    """The rows of a table that `write_table` wrote: numbers where there are numbers, or text.

    Raises:
        OSError: It is not there.
    """

    def value(cell: str) -> Any:
        try:
            return float(cell)
        except ValueError:
            return cell or None

    with path.open(newline="") as file:
        return [tuple(value(cell) for cell in row) for row in csv.reader(file)][1:]


def write_origin(path: Path, command: str, packages: Sequence[str] = (), **facts: Any) -> None:
    """Write how results were made: the command, the versions, and other facts.

    Args:
        path: The JSON file.
        command: What makes the results again.
        packages: Distributions whose versions matter besides jax's.
        **facts: Seeds, sizes, anything JSON has room for.
    """
    versions = {"python": platform.python_version(), "jaxrel": jaxrel.__version__}
    names = ("jax", "jaxlib", "numpy", *packages)
    versions |= {name: importlib.metadata.version(name) for name in names}
    whole = {"command": command, **facts, "device": jax.default_backend(), "versions": versions}
    path.write_text(json.dumps(whole, indent=2) + "\n")
