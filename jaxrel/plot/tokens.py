"""Words coloured by their relevance: in a terminal, in a notebook, as a page, as a picture."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import lines, pieces
from .colors import Color, color, hexadecimal, ink
from .drawing import matplotlib_module, real_numbers

__all__ = ["Tokens", "tokens"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One explanation of the words.

    Attributes:
      name: of the rule set; empty: none is shown.
      words: the words.
      relevance: of each word, in units of the function's value.
      limit: the magnitude at which colours end, in the same units; positive.
    """

    name: str
    words: tuple[str, ...]
    relevance: tuple[float, ...]
    limit: float

    def colors(self) -> list[Color]:
        """The background of each word."""
        return [color(r / self.limit) for r in self.relevance]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Words coloured by relevance, one row for each explanation of them.

    Printed it is coloured text, for terminals of 24-bit colour; in a notebook HTML.

    Attributes:
      rows: for each explanation a row with ``name``, ``words``, ``relevance`` and ``limit``.
      unit: what relevance is measured in.
    """

    rows: tuple[Row, ...]
    unit: str

    def __str__(self) -> str:
        """Coloured text, in lines of the terminal's width."""
        width = shutil.get_terminal_size().columns
        return "\n".join(line for row in self.rows for line in self._printed(row, width))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "\n".join(map(self._block, self.rows))

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a page (``.html``) or a picture (``.png``, by matplotlib).

        Args:
          path: where to; its suffix says which.

        Raises:
          ImportError: matplotlib is not installed, for a picture.
          ValueError: the path ends in neither.
        """
        suffix = pathlib.Path(path).suffix.lower()
        if suffix == ".html":
            page = _PAGE.format(body=self._repr_html_())
            pathlib.Path(path).write_text(page, encoding="utf-8")
        elif suffix == ".png":
            self._picture().savefig(path, format="png")
        else:
            raise ValueError(f"path: expected one that ends in .html or .png, got {str(path)!r}.")

    def _ends(self, row: Row) -> tuple[str, str]:
        """What stands at the ends of a row's scale."""
        total = sum(row.relevance)
        high = f"+{row.limit:.2g} {lines.visible(self.unit)}".rstrip()
        return f"-{row.limit:.2g}", f"{high}, sum {total:+.2g}"

    def _printed(self, row: Row, width: int) -> Iterator[str]:
        low, high = self._ends(row)
        name = f"{lines.visible(row.name)}  " if row.name else ""
        yield f"{name}{low} {''.join(_painted(' ', share) for share in _SCALE)} {high}"
        for line in lines.broken(row.words, width):
            yield " ".join(_painted(text, row.relevance[k] / row.limit) for text, k in line)

    def _block(self, row: Row) -> str:
        low, high = map(html.escape, self._ends(row))
        stops = ", ".join(hexadecimal(color(share)) for share in _SCALE)
        bar = f'<span style="{_BAR}; background: linear-gradient(to right, {stops})"></span>'
        name = f"<b>{html.escape(lines.visible(row.name))}</b> &ensp; " if row.name else ""
        words = "\n".join(
            f'<span title="{r:+.4g}" style="{_CELL}; background: {hexadecimal(back)}; '
            f'color: {hexadecimal(ink(back))}">{html.escape(lines.visible(word))}</span>'
            for word, r, back in zip(row.words, row.relevance, row.colors(), strict=True)
        )
        return (
            f'<div style="{_BLOCK}">\n<div style="font-size: smaller">{name}{low} {bar} {high}'
            f"</div>\n{words}\n</div>"
        )

    def _picture(self) -> Any:
        """A figure that is none of pyplot's: a letter of the fixed-width font is one unit wide."""
        texts: list[list[_Text]] = []
        for row in self.rows:
            texts += [[], list(self._heading(row))] if texts else [list(self._heading(row))]
            for line in lines.broken(row.words, _COLUMNS):
                cells = ((text, row.relevance[k] / row.limit) for text, k in line)
                texts.append(list(_placed(cells)))
        wide = max(text.x + lines.width(text.text) for line in texts for text in line)
        size = ((wide + 2) * _LETTER, len(texts) * _LINE)
        figure = matplotlib_module("figure").Figure(figsize=size, facecolor="white", dpi=150)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-1, wide + 1), ylim=(len(texts) - 0.25, -0.75))
        axes.set_axis_off()
        for y, line in enumerate(texts):
            for text in line:
                _draw(axes, y, text)
        return figure

    def _heading(self, row: Row) -> Iterator[_Text]:
        low, high = self._ends(row)
        start = f"{lines.visible(row.name)}  {low}" if row.name else low
        scale = [(" ", share) for share in _SCALE]
        yield _Text(start, None, 0)
        yield from _placed(scale, lines.width(start) + 1, gap=0)
        yield _Text(high, None, lines.width(start) + len(scale) + 2)


def tokens(
    words: Sequence[str],
    relevance: Any,
    *,
    join: bool = True,
    limit: float | None = None,
    unit: str = "in units of the value",
) -> Tokens:
    """Colours words by their relevance: red is positive, blue negative, white zero.

    Pieces of words are joined and their relevance is added: those of WordPiece (``##ing``),
    sentencepiece (``▁word``), byte-level BPE (``Ġword``), and of BPE with ``</w>`` or ``@@``.
    Punctuation, special tokens and letters of scripts without spaces stay words of their own.

    Args:
      words: N words or pieces, as the tokenizer gives them.
      relevance: (N,), or (N, d), which is summed over its last axis (the features of an embedding);
        any real array of JAX or numpy. Or a mapping from names, such as those of rule sets, to
        several of them: one row for each.
      join: whether to join pieces; False: each piece stands for itself, as it is.
      limit: the colours of all rows end at this magnitude, in units of ``relevance``; None: row by
        row at the largest one, for rules differ by orders of magnitude.
      unit: what the numbers beside the scale are; ``"logits"``, say.

    Returns:
      A :class:`Tokens`: printed, coloured text; in a notebook, HTML; ``.save("x.html")`` and
      ``.save("x.png")``.

    Raises:
      TypeError: ``words`` are not strings, or one string; relevance does not consist of real
        numbers.
      ValueError: there are no words or no relevance; there are more or fewer of one than of the
        other; a number is NaN or infinite; ``limit`` is not positive.

    Example:
      >>> tokens(["explain", "##ing"], [1.0, 0.5]).rows[0].words
      ('explaining',)
    """
    given = _strings(words)
    if limit is not None and not 0 < limit < np.inf:
        raise ValueError(f"limit: expected a positive number, got {limit!r}.")
    several = isinstance(relevance, Mapping)
    if several and not relevance:
        raise ValueError("relevance: there is none.")
    found = (
        {
            f"{name}": _by_token(f"relevance[{name!r}]", r, len(given))
            for name, r in relevance.items()
        }
        if several
        else {"": _by_token("relevance", relevance, len(given))}
    )
    made = pieces.joined(given) if join else pieces.apart(given)
    rows = []
    for name, values in found.items():
        sums = tuple(float(values[word.start : word.stop].sum()) for word in made)
        ends = limit if limit is not None else max(map(abs, sums)) or 1.0
        rows.append(Row(name, tuple(word.text for word in made), sums, float(ends)))
    return Tokens(tuple(rows), unit)


def _strings(words: Any) -> list[str]:
    if isinstance(words, str):
        raise TypeError(
            "words: expected a sequence of words, got one string; words.split() are its words, "
            "list(words) its letters."
        )
    if not isinstance(words, Iterable):
        raise TypeError(f"words: expected a sequence of strings, got {type(words).__name__}.")
    given = list(words)
    if not given:
        raise ValueError("words: there is none.")
    for word in given:
        if not isinstance(word, str):
            raise TypeError(
                f"words: expected strings, got {type(word).__name__}; a tokenizer turns its ids "
                "into pieces (convert_ids_to_tokens)."
            )
    return given


def _by_token(name: str, relevance: Any, count: int) -> np.ndarray:
    """Relevance as float64 (tokens,), the features added."""
    values = real_numbers(name, relevance)
    one = " Draw the examples of a batch one by one."
    if values.ndim not in (1, 2) or values.size == 0:
        hint = one if values.ndim == 3 else ""
        raise ValueError(
            f"{name}: expected (tokens,) or (tokens, features), got shape {values.shape}.{hint}"
        )
    if len(values) != count:
        hint = one if values.shape[-1] == count else ""
        raise ValueError(
            f"{name}: {len(values)} tokens for {count} words, in shape {values.shape}.{hint}"
        )
    return values if values.ndim == 1 else values.sum(-1)


def _painted(text: str, share: float) -> str:
    """Text for a terminal, on the colour of a share of the limit."""
    back = color(share)
    codes = ";".join(map(str, (48, 2, *back, 38, 2, *ink(back))))
    return f"\x1b[{codes}m{text}\x1b[0m"


class _Text(NamedTuple):
    """A text of a picture, on the colour of a share of the limit; None: on none."""

    text: str
    share: float | None
    x: float


def _placed(cells: Iterable[tuple[str, float]], x: float = 0, gap: float = 1) -> Iterator[_Text]:
    for text, share in cells:
        yield _Text(text, share, x)
        x += lines.width(text) + gap


def _draw(axes: Any, y: float, text: _Text) -> None:
    back = (255, 255, 255)
    if text.share is not None:
        back = color(text.share)
        beside = 0.25 if text.text.strip() else 0  # the colours of a scale touch
        start, wide = text.x - beside, lines.width(text.text) + 2 * beside
        patch = matplotlib_module("patches").Rectangle((start, y - 0.4), wide, 0.8)
        patch.set(facecolor=hexadecimal(back), edgecolor="none")
        axes.add_patch(patch)
    axes.text(text.x, y, text.text, color=hexadecimal(ink(back)), **_FONT)


_SCALE = tuple(k / 10 for k in range(-10, 11, 2))
"""Shares of the limit that a scale shows."""

_COLUMNS = 80  # of a picture
_SIZE = 11  # points: of its letters
_LETTER = 0.602 * _SIZE / 72  # inches: width of a letter of the font
_LINE = 0.24  # inches
# Words are no mathematics, whatever dollar signs there are; letters that the font lacks are taken
# from the one that is set as sans-serif.
_FONT: dict[str, Any] = {
    "family": ["DejaVu Sans Mono", "sans-serif"],
    "fontsize": _SIZE,
    "va": "center_baseline",
    "parse_math": False,
    "usetex": False,
}

_BLOCK = "max-width: 50em; margin: 0.5em 0; line-height: 1.7"
_BAR = "display: inline-block; width: 6em; height: 0.8em"
# Spaces within a word are kept, and a word that is wider than the page is broken.
_CELL = "white-space: pre-wrap; overflow-wrap: anywhere; padding: 0.1em 0.2em; border-radius: 0.2em"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Relevance of words</title></head>
<body style="font-family: sans-serif">
{body}
</body>
</html>
"""
