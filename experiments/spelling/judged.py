"""Relevance of letters for phonemes, by any rule set, and how often it finds the right letter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxrel
from experiments.networks.pronouncer import (
    END,
    PAD,
    PHONEMES,
    START,
    STEPS,
    STOP,
    UNKNOWN,
    Pronouncer,
    spell,
)
from experiments.spelling.cases import Cases
from jaxrel import rulesets
from jaxrel.errors import RuleError

REFERENCES = ("unknown", "zero")
"""What letters are compared to: the mark for a letter that the network does not know, or 0."""

_BATCH = 250


class Read(NamedTuple):
    """Words and how the network pronounces them, padded to the longest.

    Attributes:
        words: (N, L) integers, as `spell` makes them.
        spoken: (N, T) integers, the phonemes that the decoder hears: `<s>`, and what it said.
        said: (N, T) integers, the phonemes that it says.
    """

    words: np.ndarray
    spoken: np.ndarray
    said: np.ndarray


def read(variables: Any, words: list[str]) -> Read:
    """Let the network pronounce words."""
    length = max(map(len, words)) + 1
    spelled = np.stack([spell(word, length) for word in words])

    def pronounce(word: jax.Array) -> jax.Array:
        return jnp.asarray(Pronouncer().apply(variables, word, method="pronounce"))

    said = np.asarray(jax.jit(jax.vmap(pronounce))(spelled))
    stops = said == STOP
    steps = np.where(stops.any(1), stops.argmax(1) + 1, STEPS).max()
    said = said[:, :steps]
    starts = np.full((len(words), 1), START, said.dtype)
    return Read(spelled, np.concatenate([starts, said[:, :-1]], 1), said)


def pronunciation(said: np.ndarray) -> list[str]:
    """The names of the phonemes that the network says before it stops."""
    names = [PHONEMES[k] for k in said]
    return names[: names.index(PHONEMES[STOP])] if STOP in said else names


def rule_set(name: str, variables: Any) -> jaxrel.RuleSet:
    """Build a preset; one that wants bounds of the input gets those of all letters' embeddings.

    Raises:
        ValueError: There is no such preset.
    """
    if name in ("deep_taylor", "epsilon_gamma_box"):
        embeddings = np.asarray(variables["params"]["letters"]["embedding"])
        return getattr(rulesets, name)(float(embeddings.min()), float(embeddings.max()))
    return rulesets.preset(name)


def explainer(variables: Any, rules: jaxrel.RuleSet, reference: str) -> Callable[..., jax.Array]:
    """Return a function that explains logits of a word by the embeddings of its letters.

    What the decoder has heard is given: a letter that acts through an earlier phoneme gets nothing
    for it. Against `"unknown"` the reference is a word as long, of unknown letters, with the same
    end mark, of which the decoder heard the same.

    Args:
        variables: Of `Pronouncer()`.
        rules: A rule set.
        reference: One of `REFERENCES`.

    Returns:
        A function of `word`, (L,), `spoken`, (T,), and `multipliers`, (n, T, phonemes), which n
        sums of logits to explain, that returns their relevance, (n, L), by one pullback.

    Raises:
        RuleError: When called, if a rule has no formula with, or without, a reference.
    """

    def logits(word: jax.Array, spoken: jax.Array) -> Any:
        return Pronouncer().apply(variables, word, spoken)

    def explain(word: jax.Array, spoken: jax.Array, multipliers: jax.Array) -> jax.Array:
        baseline = None if reference == "zero" else (unknown(word), None)
        _, pullback = jaxrel.relevance_vjp(
            logits, word, spoken, rules=rules, baseline=baseline, argnums=(), at="letters"
        )
        return jax.vmap(lambda m: jnp.sum(pullback(m), -1))(multipliers)

    return explain


def unknown(word: jax.Array) -> jax.Array:
    """The same word with every letter unknown; the end mark and padding stay."""
    return jnp.where(word > END, UNKNOWN, word)


class Found(NamedTuple):
    """How often a rule set gives the right letter the largest relevance, signed, of all letters.

    Attributes:
        rules: The preset.
        reference: What letters are compared to.
        logit: Share of the cases where the phoneme's logit is explained.
        lead: Share where its lead over the runner-up's logit is explained.
        logit_end: As `logit`, where the end mark may win too.
    """

    rules: str
    reference: str
    logit: float
    lead: float
    logit_end: float


def judge(variables: Any, found: Read, cases: Cases, name: str, reference: str) -> Found | None:
    """Judge a preset on cases; None where it has no formula with, or without, a reference."""
    explain = explainer(variables, rule_set(name, variables), reference)

    def of_case(k: jax.Array, step: jax.Array) -> jax.Array:
        word, spoken, said = (jnp.asarray(part)[k] for part in found)
        row = jnp.asarray(Pronouncer().apply(variables, word, spoken))[step]
        one = jax.nn.one_hot(said[step], len(PHONEMES))
        runner_up = jax.nn.one_hot(jnp.where(one == 1, -jnp.inf, row).argmax(), len(PHONEMES))
        at = (jnp.arange(len(spoken)) == step)[:, None]
        return explain(word, spoken, jnp.stack([one * at, (one - runner_up) * at]))

    def all_of(ks: jax.Array, steps: jax.Array) -> jax.Array:
        return lax.map(lambda case: of_case(*case), (ks, steps), batch_size=_BATCH)

    try:
        relevance = np.asarray(jax.jit(all_of)(cases.words, cases.phonemes))
    except RuleError:
        return None
    words = found.words[cases.words]
    shares = [
        float((np.where(may, relevance[:, which], -np.inf).argmax(1) == cases.letters).mean())
        for which, may in ((0, words > END), (1, words > END), (0, words != PAD))
    ]
    return Found(name, reference, *shares)
