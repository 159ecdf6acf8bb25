"""Rule sets in plain words, for ``RuleSet.describe``."""

from __future__ import annotations

from typing import Any

from .. import rules
from .matching import First, Kind

KINDS = {
    "matmul": "Layers, z = W x + b",
    "dense": "Dense layers",
    "conv": "Convolutions",
    "nonlinearity": "Nonlinearities, y = f(x)",
    "maximum": "Maxima, pools, sorting",
    "selection": "Maxima that select elements",
    "scatter": "Scattered maxima",
    "product": "Products of two live values",
    "attention": "Products of attention",
    "gate": "Gates",
    "quotient": "Quotients by a live value",
    "normalization": "Norms, by a statistic of the value itself",
    "scale": "Scales of norms",
    "softmax": "Softmaxes",
    "sum": "Sums of two live values",
    "linear": "Whatever else is linear",
    "pool": "Average pools",
    "affine": "Affine operations that no layer takes in",
    "other": "Any other operation",
    "elementwise": "Functions of several values, elementwise",
    "polynomial": "Products along an axis",
    "decomposition": "Decompositions of matrices",
    "solve": "Solutions of linear systems",
}
"""Kinds of steps and their variants."""

RULES = {
    "Absolute": "by how large each contribution is beside the magnitude of all, positive ones",
    "AbsoluteValue": "through (a + b) / 2 + |a - b| / 2, the absolute value by its slope",
    "AlphaBeta": "positive contributions get {alpha} times what arrives, negative ones {beta} "
    "times with the sign turned",
    "BetaSmooth": "as if relu were softplus, of sharpness {beta}",
    "ByDegree": "shared among the factors by how many factors each is itself made of",
    "CrossMax": "between the winner at x and the winner at the baseline",
    "Detach": "the denominator, the statistic or the weights of attention are constants and get "
    "nothing",
    "Epsilon": "in proportion to what each input contributes to z, with {eps} that keeps z from 0",
    "First": "all to the first factor, the second is a constant",
    "Flat": "the same to all that the layer reads, whatever the weights",
    "Gamma": "in proportion to contributions, positive weights 1 + {gamma} times as much",
    "GeneralizedGamma": "in proportion to contributions, those of the sign of z 1 + {gamma} times "
    "as much",
    "Gradient": "by the gradient",
    "GuidedRelu": "by the gradient, only what is positive",
    "Half": "half to each factor",
    "Ignore": "passed through as if it were not there",
    "LogMean": "by the gradient of softmax at the logarithmic means of its values at x and at the "
    "baseline",
    "Midpoint": "each factor meets the mean of the other's values at x and at the baseline",
    "Norm": "in proportion to what each part contributes, with {eps} that keeps the whole from 0",
    "Normalized": "in proportion to what each input contributes to z, with a jump of {blip} at 0",
    "Pass": "handed on as it is, element by element",
    "PathIntegral": "by the mean gradient on the line from 0, or the baseline, to x",
    "PositiveWeights": "in proportion to what positive weights contribute",
    "Radial": "shared among the candidates by size, with 0 as a special point",
    "Repeat": "the nonlinearity once more, on the way back",
    "Rescale": "by the slope between x and the baseline",
    "RevealCancel": "positive and negative differences from the baseline each by their own effect",
    "Second": "all to the second factor (of attention the values), the first is a constant",
    "Shapley": "each candidate gets its Shapley value",
    "Slope": "by the slope from 0, or from the baseline, to x",
    "SoftmaxLimit": "through a softmax of sharpness {beta}",
    "Tempered": "by the gradient of softmax at temperature {temperature}",
    "WSquare": "by the squared weights, whatever the input is",
    "ZBox": "in proportion to contributions counted from the ends of the box {low} to {high}",
    "ZPlus": "in proportion to positive contributions, negative ones get nothing",
}
"""What each rule does."""


def line(where: Any, rule: Any) -> str:
    """One line: where, and what the rule does there."""
    return f"{_place(where)}: {_of(rule)}."


def _place(where: Any) -> str:
    match where:
        case First(variant):
            return f"The first {KINDS[variant].lower()[:-1] if variant else 'layer'} of the input"
        case Kind(name):
            return KINDS[name]
        case str() if where in KINDS:
            return KINDS[where]
    return f"What is called {where!r}"


def _of(rule: Any) -> str:
    if rule is None:
        return "an error, unless an override names it"
    name = type(rule).__name__
    if name not in RULES or getattr(rules, name) is not type(rule):
        return f"by {getattr(rule, '__name__', name)}, a rule of your own"
    return RULES[name].format(**{name: _number(value) for name, value in vars(rule).items()})


def _number(value: Any) -> str:
    if isinstance(value, rules.Stabilizer):
        return f"{_number(value.eps)} ({value.mode})"
    return f"{value:g}" if isinstance(value, int | float) else "an array"
