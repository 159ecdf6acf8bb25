"""Words out of the pieces that a tokenizer makes of them.

Tokenizers mark where a word begins, goes on or ends, each family in its own way:

    WordPiece                 ``explain ##ing``             goes on
    sentencepiece             ``▁explain ing``              begins
    byte-level BPE            ``Ġexplain ing``              begins; letters stand for bytes
    the same, decoded         ``·explain ing`` (a space)    begins
    BPE of CLIP, GPT-1        ``explain ing</w>``           ends
    BPE of fairseq            ``explain@@ ing``             goes on in the next

Where a mark says only that a word begins or ends, what has none is not always its continuation:
punctuation follows a word without a space, special tokens (``</s>``) have no mark at all, and some
scripts have no spaces. There a piece goes on only where letter meets letter of a script that writes
spaces. So the same text gives nearly the same words by every tokenizer.

A character may itself be split, where pieces are bytes: it is put together first.
"""

from __future__ import annotations

import codecs
import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Word(NamedTuple):
    """A word, and which pieces it is made of.

    Attributes:
      text: the word, without marks.
      start, stop: the pieces ``[start, stop)``.
    """

    text: str
    start: int
    stop: int


def joined(pieces: Sequence[str]) -> list[Word]:
    """The words that pieces make; where nothing marks them, each is a word."""
    convention = next((c for c in _CONVENTIONS if any(map(c.marked, pieces))), None)
    if convention is None:
        return apart(pieces)
    words: list[Word] = []
    for unit in _whole_characters(pieces, convention):
        if words and convention.goes_on(pieces, unit.start, words[-1].text, unit.text):
            before = words.pop()
            unit = Word(before.text + unit.text, before.start, unit.stop)
        words.append(unit)
    # What is nothing but a mark, a space of its own, is shown as what it was.
    return [w._replace(text=w.text or "".join(pieces[w.start : w.stop])) for w in words]


def apart(pieces: Sequence[str]) -> list[Word]:
    """Every piece as a word, as it is."""
    return [Word(piece, k, k + 1) for k, piece in enumerate(pieces)]


class _Convention(NamedTuple):
    """How a family of tokenizers marks pieces.

    Attributes:
      marked: whether a piece has the mark.
      content: what a piece stands for, in bytes.
      goes_on: of all pieces, the index of one, the word before it, its text: whether it is part of
        that word.
    """

    marked: Callable[[str], bool]
    content: Callable[[str], bytes]
    goes_on: Callable[[Sequence[str], int, str, str], bool]


def _whole_characters(pieces: Sequence[str], convention: _Convention) -> list[Word]:
    """Pieces as text; neighbours that hold parts of one character are one."""
    units: list[Word] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for k, piece in enumerate(pieces):
        partial = bool(decoder.getstate()[0])
        if partial and convention.marked(piece):  # a word begins: the rest is missing
            units[-1] = units[-1]._replace(text=units[-1].text + decoder.decode(b"", final=True))
            decoder.reset()
            partial = False
        text = decoder.decode(convention.content(piece), final=k + 1 == len(pieces))
        if partial:
            before = units.pop()
            units.append(Word(before.text + text, before.start, k + 1))
        else:
            units.append(Word(text, k, k + 1))
    return units


def _begins(mark: str, content: Callable[[str], bytes]) -> _Convention:
    def marked(piece: str) -> bool:  # among letters a space is one of them
        return piece.startswith(mark) and not (mark == " " and piece.isspace())

    def goes_on(pieces: Sequence[str], k: int, word: str, text: str) -> bool:
        return not pieces[k].startswith(mark) and _meet(word, text)

    def stripped(piece: str) -> bytes:
        return content(piece.lstrip(mark))

    return _Convention(marked, stripped, goes_on)


def _meet(word: str, text: str) -> bool:
    """Whether both are parts of one word: letters meet, or so far there was but a space."""
    return not word or (_is_spaced_letter(word[-1]) and _is_spaced_letter(text[:1]))


def _is_spaced_letter(character: str) -> bool:
    if not character or unicodedata.category(character)[0] not in "LMN":
        return False
    return not unicodedata.name(character, "").startswith(_WITHOUT_SPACES)


_WITHOUT_SPACES = (
    "CJK ",
    "HIRAGANA ",
    "KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
)
"""Scripts without spaces between words, by how Unicode names their letters."""


def _plain(piece: str) -> bytes:
    return piece.encode("utf-8", "replace")


def _fallback(piece: str) -> bytes:
    """A piece of sentencepiece; ``<0xE2>`` is a byte of a character that it does not know."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else _plain(piece)


def _alphabet(piece: str) -> bytes:
    """A piece of byte-level BPE, whose letters stand for bytes (Radford et al. 2019)."""
    byte_of = _byte_of()
    if all(letter in byte_of for letter in piece):
        return bytes(byte_of[letter] for letter in piece)
    return _plain(piece)


@functools.cache
def _byte_of() -> dict[str, int]:
    """Printable bytes stand for themselves, the others for the letters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + k): b for k, b in enumerate(others)}


_CONVENTIONS = (
    _begins("▁", _fallback),
    _begins("Ġ", _alphabet),
    _begins(" ", _plain),
    _Convention(
        lambda piece: piece.startswith("##") and len(piece) > 2,
        lambda piece: _plain(piece.removeprefix("##") or piece),
        lambda pieces, k, word, text: pieces[k].startswith("##") and len(pieces[k]) > 2,
    ),
    _Convention(
        lambda piece: piece.endswith("</w>"),
        lambda piece: _plain(piece.removesuffix("</w>")),
        lambda pieces, k, word, text: not pieces[k - 1].endswith("</w>") and _meet(word, text),
    ),
    _Convention(
        lambda piece: piece.endswith("@@") and len(piece) > 2,
        lambda piece: _plain(piece.removesuffix("@@") or piece),
        lambda pieces, k, word, text: pieces[k - 1].endswith("@@") and len(pieces[k - 1]) > 2,
    ),
)
"""In the order in which they are looked for: the first that marks any piece is taken."""
