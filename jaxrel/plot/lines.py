"""Words in lines of so many columns, as terminals and fixed-width fonts count them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence


def visible(word: str) -> str:
    """A word that shows all there is of it: control characters as escapes, nothing as a space.

    A line break would break the line, and an escape would command the terminal.
    """
    return "".join(map(_visible, word)) or " "


def width(text: str) -> int:
    """How many columns it takes: wide characters two, combining ones none."""
    return sum(map(_width, text))


def broken(words: Sequence[str], columns: int) -> Iterator[list[tuple[str, int]]]:
    """Lines of words with a column between them; of each its visible text and index.

    A word that is wider than a line is broken, so that all its parts have its colour.
    """
    line: list[tuple[str, int]] = []
    used = 0
    for k, word in enumerate(words):
        for part in _parts(visible(word), max(columns, 2)):
            if line and used + width(part) > columns:
                yield line
                line, used = [], 0
            line.append((part, k))
            used += width(part) + 1
    if line:
        yield line


def _parts(word: str, columns: int) -> Iterator[str]:
    start = used = 0
    for k, character in enumerate(word):
        if used + _width(character) > columns:
            yield word[start:k]
            start, used = k, 0
        used += _width(character)
    yield word[start:]


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
