"""Pictures, classes and masks read from folders.

    IMAGES/dog/rex.jpg      a picture; the folder it lies in is its class
    MASKS/dog/rex.png       its mask, white on the object; its size may differ
    boxes.csv               or boxes: file,x0,y0,x1,y1 in pixels of the picture as it is stored,
                            with file as in dog/rex.jpg; several rows are several boxes

A picture without a mask or box takes part in the task alone.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
Box = tuple[float, float, float, float]


class Pictures(NamedTuple):
    """Pictures of one size.

    Attributes:
        images: (N, S, S, 3) float32 from 0 to 1.
        masks: (N, S, S, 1) float32, 1 on the object; 0 where there is none.
        known: (N,) bool, whether there is a mask.
        labels: (N,) int32, indices of `classes`.
        names: of the files, relative to the folder.
        classes: names of the classes.
    """

    images: np.ndarray
    masks: np.ndarray
    known: np.ndarray
    labels: np.ndarray
    names: list[str]
    classes: list[str]

    def take(self, chosen: np.ndarray) -> "Pictures":
        """Select pictures."""
        names = [self.names[k] for k in chosen]
        arrays = {name: getattr(self, name)[chosen] for name in self._fields[:4]}
        return self._replace(**arrays, names=names)


def read(images: Path, masks: Path | None, boxes: Path | None, size: int) -> Pictures:
    """Read all pictures, and make them squares.

    Args:
        images: A folder with a folder for each class.
        masks: A folder of the same build; or None.
        boxes: A CSV file; or None.
        size: Height and width to scale to, in pixels.

    Raises:
        OSError: A file or folder is not there.
        ValueError: There are not two classes, a file is no picture, no picture has a mask, or a
            line of the boxes makes no sense.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder")
    if masks is not None and not masks.is_dir():
        raise FileNotFoundError(f"{masks}: there is no such folder")
    classes = sorted(path.name for path in images.iterdir() if path.is_dir())
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((images / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if len({label for _, label in found}) < 2:
        raise ValueError(f"{images}: expected a folder with pictures for each of two classes")
    known_boxes = {} if boxes is None else _boxes(boxes)
    rows = []
    for path, label in found:
        picture = _open(path).convert("RGB")
        mask = _mask(path.relative_to(images), picture.size, masks, known_boxes)
        shown = np.asarray(picture.resize((size, size)), np.float32) / 255
        rows.append((shown, np.zeros((size, size, 1), np.float32), False, label))
        if mask is not None:
            scaled = np.asarray(mask.resize((size, size)), np.float32)[..., None] / 255
            rows[-1] = (shown, (scaled > 0.5).astype(np.float32), True, label)
    shown, made, known, labels = (np.stack(column) for column in zip(*rows, strict=True))
    if not known.any():
        raise ValueError(f"{images}: none of {len(rows)} pictures has a mask or a box")
    names = [path.relative_to(images).as_posix() for path, _ in found]
    return Pictures(shown, made, known, labels.astype(np.int32), names, classes)


def _mask(
    name: Path, size: tuple[int, int], masks: Path | None, boxes: Mapping[str, list[Box]]
) -> Image.Image | None:
    """The mask of a picture, grey; None: there is none."""
    if masks is not None:
        for suffix in SUFFIXES:
            if (path := (masks / name).with_suffix(suffix)).exists():
                return _open(path).convert("L")
    if name.as_posix() not in boxes:
        return None
    mask = np.zeros(size[::-1], np.uint8)
    for x0, y0, x1, y1 in boxes[name.as_posix()]:
        mask[round(y0) : round(y1), round(x0) : round(x1)] = 255
    if not mask.any():
        raise ValueError(f"{name.as_posix()}: its boxes lie outside of its {size[0]} x {size[1]}")
    return Image.fromarray(mask)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture") from None


def _boxes(path: Path) -> dict[str, list[Box]]:
    """The boxes of each file."""
    found: dict[str, list[Box]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = {"file", "x0", "y0", "x1", "y1"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        for number, row in enumerate(reader, 2):
            try:
                x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {number}: expected four numbers") from None
            if min(x0, y0) < 0 or x1 <= x0 or y1 <= y0:
                raise ValueError(f"{path}, line {number}: x0 < x1 and y0 < y1, none negative")
            found.setdefault(row["file"], []).append((x0, y0, x1, y1))
    return found
