"""How the presets explain pictures: one function for each, of a network's function and these."""

from __future__ import annotations

from collections.abc import Callable

import jax

import jaxrel
from jaxrel import rulesets

Explain = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""Maps a function of pictures, and the pictures, to their relevance."""

AGAINST_BLACK = ("compare_to_baseline", "deeplift_rescale", "deeplift_reveal_cancel")
STEPS = 24  # of the path of integrated gradients, Gauss-Legendre


def methods(low: float = 0.0, high: float = 1.0) -> dict[str, Explain]:
    """Every preset by name, integrated gradients, and a random map to be compared with.

    Those that compare to a baseline compare to black.

    Args:
        low: The least value of a pixel, for the presets that need it.
        high: The largest.
    """
    rules = rules_by_name(low, high)
    found = {name: by_rules(chosen, name in AGAINST_BLACK) for name, chosen in rules.items()}
    found["integrated gradients"] = integrated_gradients
    found["random"] = at_random
    return found


def rules_by_name(low: float, high: float) -> dict[str, jaxrel.RuleSet]:
    """Every preset, those that need the bounds of pixels with theirs."""
    bounded = {
        "deep_taylor": rulesets.deep_taylor(low, high),
        "epsilon_gamma_box": rulesets.epsilon_gamma_box(low, high),
    }
    names = sorted(set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"} - {*bounded})
    return {name: rulesets.preset(name) for name in names} | bounded


def by_rules(rules: jaxrel.RuleSet, against_black: bool = False) -> Explain:
    """The relevance of a rule set."""
    baseline = 0.0 if against_black else None
    return lambda fun, x: jaxrel.relevance(fun, rules, baseline=baseline)(x)


def integrated_gradients(fun: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Integrated gradients from black."""
    return jaxrel.integrated(jaxrel.relevance(fun, "gradient"), 0.0, STEPS)(x)


def at_random(fun: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """What any explanation has to be better than: standard normal numbers."""
    return jax.random.normal(jax.random.key(0), x.shape, x.dtype)
