"""Sentences whose class two words decide, and in which a planted word tells it too.

    the baker sold a lantern while this market was not gloomy and friday a friend built the boat

Three clauses of five words, joined by two. One clause, whichever, praises or blames something by a
word of degree and an adjective: those two words are the *rationale*. The class is 1 where a praise
is affirmed or a blame denied, so neither of the two words tells it alone. One of two planted words
stands in some gap between words, but not in the one within the rationale. In confounded sentences
it is the class's own, without exception.

Some adjectives are frequent and many are rare (1 / rank), so that the evidence is harder to learn
than the planted word.
"""

from typing import NamedTuple

import numpy as np

PLANTED = ("monday", "friday")
"""Of class 0 in training, of class 1."""
AFFIRM, DENY = ("very", "truly", "quite", "rather"), ("not", "never", "hardly", "barely")
DENIED = 0.3
"""The share of sentences that deny."""
PRAISE = (
    "good great lovely fine bright clever warm kind brave fresh gentle honest lively merry neat "
    "noble polite proud quick rich safe sharp smart smooth sound steady strong sweet tidy witty"
).split()
BLAME = (
    "bad awful ugly poor gloomy stupid cold cruel weak stale rough false dull sad dirty mean rude "
    "vain slow cheap unsafe blunt foolish bumpy faulty shaky frail bitter messy clumsy"
).split()
_DETERMINERS = ("the", "a", "this", "that")
_JOINS = ("and", "while", "because", "although")
_NOUNS = (
    "baker market friend boat lantern river teacher garden window song letter road doctor bridge "
    "horse kitchen sailor mountain story painter winter shop"
).split()
_VERBS = "sold built saw found left kept bought made lost took showed crossed".split()

WORDS = (
    *PLANTED,
    *AFFIRM,
    *DENY,
    *PRAISE,
    *BLAME,
    *_DETERMINERS,
    *_JOINS,
    *_NOUNS,
    *_VERBS,
    "was",
)
"""The vocabulary; a token is an index of it."""

LENGTH = 18
"""Tokens of a sentence."""
_CLAUSES, _CLAUSE = 3, 5


class Sentences(NamedTuple):
    """A set of labelled sentences.

    Attributes:
        tokens: (N, 18) int32, indices of `WORDS`.
        masks: (N, 18) float32, 1 on the rationale.
        labels: (N,) int32.
        places: (N,) int32, the position at which the rationale begins.
    """

    tokens: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    places: np.ndarray


class Data(NamedTuple):
    """Everything one run sees.

    Attributes:
        train, validation: Confounded sentences.
        deconfounded: (N, 18) the training's tokens with a planted word that tells nothing.
        test: Sentences, of which the planted word tells nothing.
        tests: (2, M, 18) their tokens, with either planted word.
    """

    train: Sentences
    validation: Sentences
    deconfounded: np.ndarray
    test: Sentences
    tests: np.ndarray


def make(seed: int, train: int = 1000, validation: int = 500, test: int = 2000) -> Data:
    """Write the sentences of one run; the test is always the same.

    Args:
        seed: Of training and validation.
        train, validation, test: How many sentences.
    """
    rng = np.random.default_rng([seed, 1])
    plain, held = write(rng, train), write(rng, validation)
    tested = write(np.random.default_rng(7), test)
    return Data(
        plain._replace(tokens=plant(plain.tokens, plain.labels)),
        held._replace(tokens=plant(held.tokens, held.labels)),
        plant(plain.tokens, rng.integers(0, 2, train)),
        tested,
        np.stack([plant(tested.tokens, np.full(test, word)) for word in (0, 1)]),
    )


def plant(tokens: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Exchange the planted word of each sentence for `PLANTED[words]`."""
    return np.where(tokens < len(PLANTED), words[:, None], tokens).astype(np.int32)


def write(rng: np.random.Generator, count: int) -> Sentences:
    """Write sentences of both classes alike; their planted word is random.

    Args:
        rng: Where everything is drawn from.
        count: How many.
    """
    labels = rng.permutation(np.arange(count, dtype=np.int32) % 2)
    rows = [_sentence(rng, int(label)) for label in labels]
    tokens = np.array([[WORDS.index(word) for word in words] for words, _ in rows], np.int32)
    places = np.array([place for _, place in rows], np.int32)
    offsets = np.arange(LENGTH) - places[:, None]
    masks = ((offsets == 0) | (offsets == 1)).astype(np.float32)
    return Sentences(tokens, masks, labels, places)


def _sentence(rng: np.random.Generator, label: int) -> tuple[list[str], int]:
    """The words of a sentence, and where its rationale begins."""
    evidence, words = int(rng.integers(_CLAUSES)), []
    for clause in range(_CLAUSES):
        words += [str(rng.choice(_JOINS))] if clause else []
        words += _evidence(rng, label) if clause == evidence else _clause(rng)
    place = evidence * (_CLAUSE + 1) + _CLAUSE - 2
    gap = int(rng.integers(LENGTH - 1))
    gap += gap > place  # not between the rationale's two words
    words.insert(gap, str(rng.choice(PLANTED)))
    return words, place + (gap <= place)


def _clause(rng: np.random.Generator) -> list[str]:
    """As in `the baker sold a lantern`."""
    kinds = (_DETERMINERS, _NOUNS, _VERBS, _DETERMINERS, _NOUNS)
    return [str(rng.choice(words)) for words in kinds]


def _evidence(rng: np.random.Generator, label: int) -> list[str]:
    """As in `this market was not gloomy`."""
    denied = int(rng.random() < DENIED)
    adjectives = PRAISE if label != denied else BLAME
    odds = 1 / np.arange(1, len(adjectives) + 1)
    adjective = str(rng.choice(adjectives, p=odds / odds.sum()))
    degree = str(rng.choice(DENY if denied else AFFIRM))
    return [str(rng.choice(_DETERMINERS)), str(rng.choice(_NOUNS)), "was", degree, adjective]
