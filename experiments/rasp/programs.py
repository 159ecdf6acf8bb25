"""Programs in RASP, and transformers with weights that compute them exactly (Lindner et al. 2023).

The truth about an output is found by the interpreter: a token matters to it if a fresh token, one
that does not occur in the sequence, would change it in its place.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BOS = "compiler_bos"


@dataclasses.dataclass(frozen=True)
class Program:
    """A program and the sequences it is run on.

    Attributes:
        name: Of the program.
        needs: What it needs of attention: a class of programs.
        make: Builds it; tracr is imported no earlier.
        tokens: The vocabulary; the last one is the fresh token, which no sequence has.
        length: Of the sequences.
        distinct: Whether no token may occur twice.
    """

    name: str
    needs: str
    make: Callable[[Any, Any], Any]
    tokens: Sequence[Any] = ("a", "b", "c", "d")
    length: int = 5
    distinct: bool = False

    def sequences(self, seed: int, many: int) -> list[list[Any]]:
        """Different sequences, drawn at random."""
        draw = itertools.permutations if self.distinct else _products
        whole = list(draw(self.tokens[:-1], self.length))
        rows = np.random.default_rng(seed).permutation(len(whole))[:many]
        return [list(whole[row]) for row in rows]

    def matters(self, program: Any, sequence: Sequence[Any]) -> np.ndarray:
        """(outputs, tokens): whether the fresh token in that place changes that output."""
        usual = program(list(sequence))
        changed = np.zeros((len(sequence), len(sequence)), bool)
        for place in range(len(sequence)):
            other = program([*sequence[:place], self.tokens[-1], *sequence[place + 1 :]])
            changed[:, place] = [not _same(a, b) for a, b in zip(other, usual, strict=True)]
        return changed


def compiled(program: Program) -> tuple[Any, Any]:
    """The program for the interpreter, and its transformer.

    Raises:
        ImportError: tracr is not installed.
    """
    try:
        from tracr.compiler import compiling, lib  # type: ignore[import-not-found]
        from tracr.rasp import rasp  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(
            'programs are compiled by tracr: pip install "jaxrel[compiled]"'
        ) from error
    made = program.make(rasp, lib)
    return made, compiling.compile_rasp_to_model(
        made, set(program.tokens), max_seq_len=program.length, compiler_bos=BOS
    )


def _products(tokens: Sequence[Any], length: int) -> Any:
    return itertools.product(tokens, repeat=length)


def _same(a: Any, b: Any) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) < 1e-6)


def _first(rasp: Any) -> Any:
    """The first token, everywhere."""
    first = rasp.Select(rasp.indices, rasp.indices, lambda k, q: k == 0)
    return rasp.Aggregate(first, rasp.tokens)


def _is(rasp: Any, *tokens: Any) -> Any:
    return rasp.numerical(rasp.Map(lambda t: float(t in tokens), rasp.tokens))


NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}
DIGITS = (1, 2, 3, 4, 5, 6)
PROGRAMS = (
    Program("next letter", "none", lambda r, lib: r.Map(NEXT.get, r.tokens)),
    Program("is it a", "none", lambda r, lib: r.Map(lambda t: t == "a", r.tokens)),
    Program("is it a or b", "none", lambda r, lib: r.Map(lambda t: t in "ab", r.tokens)),
    Program("reverse", "positions", lambda r, lib: lib.make_reverse(r.tokens)),
    Program("shift by 1", "positions", lambda r, lib: lib.shift_by(1, r.tokens)),
    Program("shift by 2", "positions", lambda r, lib: lib.shift_by(2, r.tokens)),
    Program("first token", "positions", lambda r, lib: _first(r)),
    Program("reverse, next letter", "positions", lambda r, lib: r.Map(
        NEXT.get, lib.make_reverse(r.tokens))),
    Program("same as reversed", "positions", lambda r, lib: r.SequenceMap(
        lambda a, b: a == b, r.tokens, lib.make_reverse(r.tokens))),
    Program("both this and last", "positions", lambda r, lib: r.SequenceMap(
        lambda a, b: f"{a}{b}", r.tokens, lib.shift_by(1, r.tokens))),
    Program("same as first", "positions", lambda r, lib: r.SequenceMap(
        lambda a, b: a == b, r.tokens, _first(r))),
    Program("sum with first", "positions", lambda r, lib: r.SequenceMap(
        lambda a, b: a + b, r.tokens, _first(r)), (1, 2, 3, 4)),
    Program("pattern ab", "positions", lambda r, lib: lib.detect_pattern(r.tokens, "ab")),
    Program("share of a before", "means", lambda r, lib: lib.make_frac_prevs(_is(r, "a"))),
    Program("share of a, b before", "means", lambda r, lib: lib.make_frac_prevs(_is(r, "a", "b"))),
    Program("balance of brackets", "means", lambda r, lib: lib.make_pair_balance(
        r.tokens, "(", ")"), ("(", ")", "a", "b")),
    Program("how often it occurs", "counts", lambda r, lib: lib.make_hist()),
    Program("does it occur once", "counts", lambda r, lib: r.Map(
        lambda n: n == 1, lib.make_hist())),
    Program("does it occur twice", "counts", lambda r, lib: r.Map(
        lambda n: n >= 2, lib.make_hist())),
    Program("how many a", "counts", lambda r, lib: lib.make_count(r.tokens, "a")),
    Program("how many rare ones", "counts", lambda r, lib: lib.make_count_less_freq(2)),
    Program("sort, distinct", "values", lambda r, lib: lib.make_sort_unique(
        r.tokens, r.tokens), DIGITS, 4, True),
    Program("sort", "values", lambda r, lib: lib.make_sort(
        r.tokens, r.tokens, max_seq_len=4, min_key=1), (1, 2, 3, 4), 4),
    Program("sort downwards", "values", lambda r, lib: lib.make_sort_unique(
        r.tokens, r.Map(lambda t: -t, r.tokens)), DIGITS, 4, True),
)  # fmt: skip
