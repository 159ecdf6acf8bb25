"""The presets: rule sets of the literature, one value each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax

from ..errors import did_you_mean, shown
from ..rules import (
    AbsoluteValue,
    AlphaBeta,
    CrossMax,
    Detach,
    Epsilon,
    Flat,
    GeneralizedGamma,
    Gradient,
    GuidedRelu,
    Half,
    LogMean,
    Midpoint,
    Norm,
    Normalized,
    Repeat,
    Rescale,
    RevealCancel,
    RuleFunction,
    Second,
    Tempered,
    WSquare,
    ZBox,
    ZPlus,
)
from ..rules.numerics import Eps
from . import hints
from .matching import First, Kind, Match
from .ruleset import RuleSet

__all__ = [
    "attn_lrp",
    "compare_to_baseline",
    "cp_lrp",
    "deconvnet",
    "deep_taylor",
    "deeplift_rescale",
    "deeplift_reveal_cancel",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "gim",
    "gradient",
    "guided_backprop",
    "lrp",
    "preset",
    "slope",
]


def gradient() -> RuleSet:
    """The gradient everywhere: the multiplier is ``jax.grad``'s, relevance is x times gradient."""
    g = Gradient()
    return RuleSet(g, g, g, g, g, g, g, g, g, g)


def deconvnet() -> RuleSet:
    """The deconvolution method (Zeiler and Fergus 2014): relus are repeated backwards.

    Leaky ones and other positively homogeneous functions too; any other nonlinearity, of which the
    paper knows none, by the gradient.
    """
    return dataclasses.replace(gradient(), nonlinearity=Repeat(homogeneous=True))


def guided_backprop() -> RuleSet:
    """Guided backpropagation (Springenberg et al. 2015)."""
    return dataclasses.replace(gradient(), nonlinearity=GuidedRelu())


def lrp(blip: float | jax.Array = 1e-6) -> RuleSet:
    """LRP as in Bach et al. 2015: normalized matmuls, nonlinearities ignored (in relevance form).

    Args:
      blip: the jump of the denominators at 0, in units of z. With 0 this is :func:`slope`.
    """
    return RuleSet(matmul=Normalized(blip))


def slope() -> RuleSet:
    """The simplified form of LRP: the gradient with the slope f(x)/x for every nonlinearity.

    No division by anything near 0 is left. On a bias-free network sum(R) = f(x), and with what
    ``biases=True`` tells of biases on any; softmax too has a slope, from uniform shares on, which
    are a bias.
    """
    return RuleSet()


def epsilon(eps: float | jax.Array = 1e-6) -> RuleSet:
    """LRP-epsilon: :func:`lrp` in the field's usual words.

    Args:
      eps: the stabiliser, in units of z.
    """
    return RuleSet(matmul=Epsilon(eps))


def epsilon_plus(eps: Eps = 1e-6, stabilizer: Eps = 1e-6, bias: bool = True) -> RuleSet:
    """Epsilon on dense layers, z-plus on convolutions (Kohlbrenner et al. 2020; Zennit's).

    Args:
      eps: of the dense layers, in units of z.
      stabilizer: of all other denominators: convolutions, average pools, residual sums.
      bias: False leaves biases out of the denominators.
    """
    rules = _proportional(Epsilon(eps, bias), stabilizer)
    return _preset(rules, {Kind("conv"): ZPlus(stabilizer, bias)})


def epsilon_plus_flat(eps: Eps = 1e-6, stabilizer: Eps = 1e-6, bias: bool = True) -> RuleSet:
    """:func:`epsilon_plus` with ``Flat`` on the layer that reads the input.

    Args:
      eps, stabilizer, bias: as for :func:`epsilon_plus`.
    """
    return _preset(epsilon_plus(eps, stabilizer, bias), {First(): Flat(stabilizer)})


def epsilon_alpha2_beta1(eps: Eps = 1e-6, stabilizer: Eps = 1e-6, bias: bool = True) -> RuleSet:
    """Epsilon on dense layers, alpha 2 beta 1 on convolutions (Zennit's).

    Args:
      eps, stabilizer, bias: as for :func:`epsilon_plus`.
    """
    rules = _proportional(Epsilon(eps, bias), stabilizer)
    return _preset(rules, {Kind("conv"): AlphaBeta(2.0, 1.0, stabilizer, bias)})


def epsilon_alpha2_beta1_flat(
    eps: Eps = 1e-6, stabilizer: Eps = 1e-6, bias: bool = True
) -> RuleSet:
    """:func:`epsilon_alpha2_beta1` with ``Flat`` on the layer that reads the input.

    Args:
      eps, stabilizer, bias: as for :func:`epsilon_plus`.
    """
    rules = epsilon_alpha2_beta1(eps, stabilizer, bias)
    return _preset(rules, {First(): Flat(stabilizer)})


def epsilon_gamma_box(
    low: float | jax.Array,
    high: float | jax.Array,
    eps: Eps = 1e-6,
    gamma: float | jax.Array = 0.25,
    stabilizer: Eps = 1e-6,
    bias: bool = True,
) -> RuleSet:
    """Epsilon on dense layers, gamma on convolutions, the box rule on a first convolution.

    Zennit's; a network that begins with a dense layer gets no box there.

    Args:
      low, high: bounds of the first layer's input (after any normalisation).
      eps: of the dense layers, in units of z.
      gamma: of the convolutions.
      stabilizer, bias: as for :func:`epsilon_plus`.
    """
    rules = _proportional(Epsilon(eps, bias), stabilizer)
    gammas = GeneralizedGamma(gamma, stabilizer, bias)
    return _preset(rules, {Kind("conv"): gammas, First("conv"): ZBox(low, high, stabilizer)})


def excitation_backprop(stabilizer: Eps = 1e-6) -> RuleSet:
    """Excitation backprop (Zhang et al. 2016): z-plus everywhere, nonlinearities by the gradient.

    Args:
      stabilizer: of all denominators.
    """
    rules = _proportional(ZPlus(stabilizer), stabilizer)
    return dataclasses.replace(rules, nonlinearity=Gradient())


def deep_taylor(
    low: float | jax.Array | None = None, high: float | jax.Array | None = None, eps: Eps = 1e-6
) -> RuleSet:
    """Deep Taylor decomposition (Montavon et al. 2017): z-plus, and by the input's domain.

    Args:
      low, high: bounds of the first layer's input: the box rule there; without: ``WSquare``.
      eps: the stabiliser.

    Raises:
      ValueError: only one bound is given.
    """
    if (low is None) != (high is None):
        raise ValueError("deep_taylor: give both low and high, or neither.")
    first = WSquare(eps) if low is None or high is None else ZBox(low, high, eps)
    return _preset(_proportional(ZPlus(eps), eps), {First(): first})


def attn_lrp(eps: Eps = 0.0) -> RuleSet:
    """AttnLRP (Achtibat et al. 2024): products by halves, the softmax by its gradient.

    Args:
      eps: of the dense layers. 0, as in the paper's efficient form: the gradient.
    """
    return RuleSet(matmul=Epsilon(eps), product=Half(), softmax=Gradient())


def cp_lrp(eps: Eps = 0.0) -> RuleSet:
    """CP-LRP (Ali et al. 2022): attention weights and gates are constants.

    Args:
      eps: of the dense layers.
    """
    rules = RuleSet(matmul=Epsilon(eps), softmax=Detach())
    return _preset(rules, {Kind("attention"): Second(), Kind("gate"): Second()})


def gim(temperature: float | jax.Array = 2.0) -> RuleSet:
    """GIM, gradient interaction modifications (Edin et al. 2025): the gradient but in attention.

    Softmax by a temperature, products of attention by halves (queries and keys 1/4 each, values
    1/2), statistics of norms constant; gates and nonlinearities have their gradient.

    The paper's score is (x - x0) m with the multipliers m at x alone, so that x0 is no baseline
    here: ``(x - x0) * relevance(fun, "gim").multipliers(x)``.

    Args:
      temperature: of the softmax on the way back.
    """
    rules = dataclasses.replace(
        gradient(), product=Half(), normalization=Detach(), softmax=Tempered(temperature)
    )
    return _preset(rules, {Kind("gate"): Gradient()})


def compare_to_baseline(
    maximum: RuleFunction | None = None, gamma: float | jax.Array | None = None
) -> RuleSet:
    """Compare to a baseline: with ``relevance(..., baseline=x0)``, sum(R) = f(x) - f(x0).

    The source text's second answer to biases, for every program: nonlinearities by the slope
    between the two points, products at their midpoints, quotients and normalizations solved from
    their product, softmax by logarithmic means.

    Args:
      maximum: the rule for maxima: ``AbsoluteValue()`` (default), ``SoftmaxLimit()`` or
        ``CrossMax()``. They differ: a maximum can be computed in more than one way.
      gamma: None, or how much affine maps favour contributions of the sign of their sum, 0 or more:
        ``GeneralizedGamma(gamma, eps=0)``. A little (0.03) was more faithful on two small CNNs, and
        less on a ViT. The relevances add up all the same, for a denominator is no smaller than what
        is shared; what cancels to exactly 0 shares nothing, with gamma = 0 too.

    Raises:
      ValueError: gamma is a negative number.
    """
    return RuleSet(
        matmul=Gradient() if gamma is None else GeneralizedGamma(gamma, eps=0.0),
        nonlinearity=Rescale(),
        maximum=maximum or AbsoluteValue(),
        quotient=Midpoint(),
        normalization=Midpoint(),
        softmax=LogMean(),
        parts=True,
    )


def deeplift_rescale() -> RuleSet:
    """DeepLIFT with the Rescale rule (Shrikumar et al. 2017), maxima between the two winners.

    With ``relevance(..., baseline=x0)``. On what DeepLIFT has no rule for (products, softmax,
    normalizations) as :func:`compare_to_baseline`.
    """
    return compare_to_baseline(CrossMax())


def deeplift_reveal_cancel() -> RuleSet:
    """DeepLIFT with the RevealCancel rule: positive and negative differences are carried apart.

    With ``relevance(..., baseline=x0)``; everything but nonlinearities as
    :func:`deeplift_rescale`.
    """
    return dataclasses.replace(deeplift_rescale(), nonlinearity=RevealCancel())


def _proportional(matmul: RuleFunction, stabilizer: Eps) -> RuleSet:
    """Average pools and residual sums by what each part contributes, as Zennit has them."""
    norm = Norm(stabilizer)
    return _preset(RuleSet(matmul=matmul, sum=norm), {Kind("pool"): norm})


def _preset(rules: RuleSet, overrides: Mapping[Match, RuleFunction]) -> RuleSet:
    """Overrides that are part of a preset: a network without convolutions is no mistake."""
    rules = rules | overrides
    return dataclasses.replace(rules, optional=len(rules.overrides))


_PRESETS: dict[str, Callable[..., RuleSet]] = {
    f.__name__: f
    for f in (
        attn_lrp,
        compare_to_baseline,
        cp_lrp,
        deconvnet,
        deep_taylor,
        deeplift_rescale,
        deeplift_reveal_cancel,
        epsilon,
        epsilon_alpha2_beta1,
        epsilon_alpha2_beta1_flat,
        epsilon_gamma_box,
        epsilon_plus,
        epsilon_plus_flat,
        excitation_backprop,
        gim,
        gradient,
        guided_backprop,
        lrp,
        slope,
    )
}


def preset(rules: RuleSet | str) -> RuleSet:
    """Returns a rule set, given itself or the name of a preset (its defaults).

    Raises:
      ValueError: no preset has this name.
      TypeError: neither a rule set nor a string.
    """
    if isinstance(rules, RuleSet):
        return rules
    if not isinstance(rules, str):
        hint = hints.for_rule_set(rules, _PRESETS.values(), RuleSet)
        raise TypeError(
            f"rules: expected a RuleSet or the name of a preset, got {type(rules).__name__}: "
            f"{shown(rules)}{hint}"
        )
    if rules not in _PRESETS:
        raise ValueError(
            f"No preset is called {rules!r}; there are {', '.join(_PRESETS)}"
            f"{_elsewhere(rules) or did_you_mean(rules, _PRESETS)}"
        )
    try:
        return _PRESETS[rules]()
    except TypeError as error:
        raise TypeError(
            f"Preset {rules!r} has no defaults: {error}; call it, rulesets.{rules}(...)."
        ) from None


def _elsewhere(name: str) -> str:
    """The end of a message about a method that is no rule set but something around one."""
    words = "".join(filter(str.isalpha, name.lower()))
    found = next((call for method, call in _AROUND.items() if method in words), "")
    return f"; that is {found}." if found else ""


_AROUND = {
    "integrated": 'jaxrel.integrated(relevance(fun, "gradient"), baseline)',
    "smooth": 'jaxrel.smooth(relevance(fun, "gradient").multipliers, key, sigma)',
    "expected": 'jaxrel.expected(relevance(fun, "gradient"), baselines)',
    "shap": 'relevance(fun, "deeplift_rescale", baseline=references)',
    "timesgradient": 'relevance(fun, "gradient")',
    "xgradient": 'relevance(fun, "gradient")',
    "saliency": 'relevance(fun, "gradient").multipliers, or jax.grad',
}
"""Methods by what is in their names, in letters alone."""
