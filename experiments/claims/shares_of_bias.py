"""How much of a decision is bias: what is measured by `experiments.blame_the_bias`.

The value that is explained is the logit of the predicted digit, or its lead over the runner-up.
Whatever a rule does, the value is the sum of what goes to the pixels, to the ones of each layer's
biases (f(0) of a nonlinearity included), and into the blip's place:

    f(x) = sum R + sum over layers of ones + blip

Against a baseline, f(x) = sum R + f(x0), and f(x0) is the bias.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from jaxrel import RuleSet, rules, rulesets

EPS = 0.25


def normalized(blip: Any) -> RuleSet:
    """Biases left out of the denominators, f(0) too: Bach et al. 2015 sum over inputs alone."""
    return RuleSet(matmul=rules.Epsilon(blip, bias=False), nonlinearity=rules.Pass())


RULES: dict[str, RuleSet] = {
    "slope, ones": rulesets.slope(),
    f"epsilon({EPS})": rulesets.epsilon(EPS),
    "normalized(1e-6)": normalized(1e-6),
}
BASELINES = ("blank", "mean digit")
FAMILIES: dict[str, Callable[[Any], RuleSet]] = {
    "normalized, biases left out": normalized,
    "lrp, biases as ones": rulesets.lrp,
}
"""Rule sets by their blip."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained network and the digits on which it is explained.

    Attributes:
        name, seed: Of the network.
        network: Maps pictures to logits.
        variables: Its variables, float64.
        images: (N, 28, 28, 1) float64.
        weights: For each target, (N, 10): what each logit counts in the value.
        mean: (28, 28, 1), the mean digit of the training.
        accuracy: On the whole test.
    """

    name: str
    seed: int
    network: nn.Module
    variables: Any
    images: np.ndarray
    weights: Mapping[str, np.ndarray]
    mean: np.ndarray
    accuracy: float


class Parts(NamedTuple):
    """An explanation of N values.

    Attributes:
        value: (N,).
        relevance: (N, 28, 28).
        ones: For each layer with additive constants, (N,); against a baseline empty.
    """

    value: np.ndarray
    relevance: np.ndarray
    ones: dict[str, np.ndarray]


class Share(NamedTuple):
    """What part of the value goes where.

    Attributes:
        network, seed, target, rule, part: Of what.
        whole: Sum over the digits, over the sum of their values.
        mean, spread: Of the digits' own shares, and their standard deviation.
        low, median, high: Percentiles 16, 50, 84 of the digits' own shares.
    """

    network: str
    seed: int
    target: str
    rule: str
    part: str
    whole: float
    mean: float
    spread: float
    low: float
    median: float
    high: float


class Size(NamedTuple):
    """How large relevance is under a rule with a blip.

    Attributes:
        network, seed, rule, blip: Of what; for slope the blip is 0.
        ratios: Sum |R| / |f(x)| of each digit, (N,).
        growth: Sum |R| over slope's sum |R|, (N,): f(x) may be next to 0 itself.
        lost: The share of f(x) that went into the blip's place, (N,).
    """

    network: str
    seed: int
    rule: str
    blip: float
    ratios: np.ndarray
    growth: np.ndarray
    lost: np.ndarray


def subject(
    name: str,
    seed: int,
    network: nn.Module,
    variables: Any,
    images: np.ndarray,
    mean: np.ndarray,
    accuracy: float,
) -> Subject:
    """Prepare a trained network: float64, and the two values that are explained."""
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    images = np.asarray(images, np.float64)
    logits = np.asarray(jax.jit(network.apply)(variables, images))
    order = np.argsort(logits, axis=1)
    one_hot = np.eye(logits.shape[1])
    first, second = one_hot[order[:, -1]], one_hot[order[:, -2]]
    weights = {"logit": first, "lead": first - second}
    return Subject(
        name, seed, network, variables, images, weights, np.asarray(mean, np.float64), accuracy
    )


@functools.cache
def _explainer(network: nn.Module, compared: bool) -> Callable[..., Any]:
    """One program for all rule sets of one structure: their numbers are arguments."""

    def explain(chosen: RuleSet, variables: Any, images: Any, weights: Any, origin: Any) -> Any:
        def one(x: jax.Array, weight: jax.Array) -> Any:
            def value(x: jax.Array) -> jax.Array:
                return (jnp.asarray(network.apply(variables, x[None]))[0] * weight).sum()

            run = jaxrel.value_and_relevance
            if compared:
                value_here, r = run(value, chosen, baseline=origin)(x)
                return value_here, r[..., 0], {}
            value_here, (r, ones) = run(value, chosen, biases=True)(x)
            return value_here, r[..., 0], {path: jnp.sum(one) for path, one in ones.items()}

        return jax.vmap(one)(images, weights)

    return jax.jit(explain)


def explain(on: Subject, chosen: RuleSet, target: str, origin: np.ndarray | None = None) -> Parts:
    """Explain one value of each digit.

    Args:
        on: The network and the digits.
        chosen: The rules.
        target: `"logit"` or `"lead"`.
        origin: A baseline, (28, 28, 1); then there are no ones.
    """
    run = _explainer(on.network, origin is not None)
    found = run(chosen, on.variables, on.images, on.weights[target], origin)
    value, relevance, ones = jax.tree.map(np.asarray, found)
    return Parts(value, relevance, ones)


def value_at(on: Subject, target: str, origin: np.ndarray) -> np.ndarray:
    """What is explained, at a baseline: the same weights of the logits there, (N,)."""
    logits = np.asarray(jax.jit(on.network.apply)(on.variables, origin[None]))[0]
    return on.weights[target] @ logits


def shares(on: Subject) -> Iterator[Share]:
    """Measure what part of the value goes where, for every target, rule and part."""
    for target in on.weights:
        for name, parts in dissected(on, target):
            value = parts.pop("value")
            for part, amount in parts.items():
                own = amount / value
                low, median, high = np.percentile(own, (16, 50, 84))
                summary = amount.sum() / value.sum(), own.mean(), own.std(), low, median, high
                yield Share(on.name, on.seed, target, name, part, *map(float, summary))


def dissected(on: Subject, target: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """For each rule the value and its parts, (N,) each."""
    for name, chosen in RULES.items():
        found = explain(on, chosen, target)
        ones = {part: amount for part, amount in found.ones.items() if amount.any()}
        parts = {"value": found.value, "pixels": found.relevance.sum((1, 2)), **ones}
        rest = parts["value"] - sum(amount for part, amount in parts.items() if part != "value")
        yield name, parts if name.startswith("slope") else {**parts, "blip": rest}
    for name, origin in origins(on).items():
        pixels = explain(on, rulesets.compare_to_baseline(), target, origin).relevance
        value = explain(on, RULES["slope, ones"], target).value
        there = value_at(on, target, origin)
        yield f"against {name}", {"value": value, "pixels": pixels.sum((1, 2)), "f(x0)": there}


def origins(on: Subject) -> dict[str, np.ndarray]:
    """The baselines: a blank picture and the mean digit."""
    return dict(zip(BASELINES, (np.zeros_like(on.mean), on.mean), strict=True))


def sizes(
    on: Subject, blips: Sequence[float], families: Sequence[str] = tuple(FAMILIES)
) -> Iterator[Size]:
    """Measure how large relevance becomes, and what the blip swallows, as the blip shrinks.

    Last comes slope, which has none.
    """
    slope = explain(on, RULES["slope, ones"], "logit")
    unit = np.abs(slope.relevance).sum((1, 2))

    def size(name: str, blip: float, found: Parts) -> Size:
        amount = np.abs(found.relevance).sum((1, 2))
        taken = sum(found.ones.values(), found.relevance.sum((1, 2)))
        ratios = amount / np.abs(found.value), amount / unit, 1 - taken / found.value
        return Size(on.name, on.seed, name, blip, *ratios)

    for name in families:
        for blip in blips:
            yield size(name, float(blip), explain(on, FAMILIES[name](blip), "logit"))
    yield size("slope, ones", 0.0, slope)


def heatmaps(on: Subject, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Relevance of the logit of some digits, (rows, 28, 28), by rule."""
    chosen = {
        "slope, ones": RULES["slope, ones"],
        f"epsilon({EPS})": RULES[f"epsilon({EPS})"],
        "normalized\nblip 1e-9": normalized(1e-9),
        "normalized\nblip 0.1": normalized(0.1),
    }
    # all digits, for which the programs are compiled
    found = {name: explain(on, rule, "logit").relevance for name, rule in chosen.items()}
    for name, origin in origins(on).items():
        compared = explain(on, rulesets.compare_to_baseline(), "logit", origin)
        found[f"against\n{name}"] = compared.relevance
    return {name: relevance[list(rows)] for name, relevance in found.items()}
