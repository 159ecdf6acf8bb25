"""Rule sets: which rule each kind of step gets. Values, composable and printable.

    rules = rulesets.slope() | {Kind("conv"): Epsilon(1e-3), First(): Gradient(), "silu": Ignore()}

The presets are functions of their hyper-parameters; where jaxrel takes a rule set, a preset's name
means its defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from .matching import First, Kind, Match, specificity
from .numerics import Eps
from .plan.steps import Step
from .rules import (
    AlphaBeta,
    Detach,
    Epsilon,
    Flat,
    GeneralizedGamma,
    Gradient,
    GuidedRelu,
    Half,
    Norm,
    Normalized,
    Repeat,
    RuleFunction,
    Second,
    Slope,
    WSquare,
    ZBox,
    ZPlus,
)

__all__ = [
    "First",
    "Kind",
    "RuleSet",
    "attn_lrp",
    "cp_lrp",
    "deconvnet",
    "deep_taylor",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "gradient",
    "guided_backprop",
    "lrp",
    "preset",
    "slope",
]


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """One rule for each kind of step, and overrides for the steps that a match means.

    A pytree: its leaves are the hyper-parameters of its rules.

    Attributes:
      matmul: z = W x + b: dense and convolution layers with what affine follows them.
      nonlinearity: y = f(x), elementwise.
      maximum: max or min of several live values: pools, reductions, sorting.
      product: of two live values: gates, attention.
      quotient: by a live value.
      normalization: scaling by a statistic of the value itself: layer, RMS, group norm.
      softmax: attention weights, logsumexp.
      sum: of two live values: residual connections.
      linear: everything else that is linear.
      other: any other differentiable primitive; None: raise, unless a match names it.
      overrides: pairs (match, rule), later ones first among equals.
      optional: how many of the first overrides may match nothing without a warning: a preset's own.

    Raises:
      TypeError: a rule is given to a kind it has no formula for, or is no rule; or a match is none.
    """

    matmul: RuleFunction = Gradient()
    nonlinearity: RuleFunction = Slope()
    maximum: RuleFunction = Gradient()
    product: RuleFunction = Half()
    quotient: RuleFunction = Detach()
    normalization: RuleFunction = Detach()
    softmax: RuleFunction = Gradient()
    sum: RuleFunction = Gradient()
    linear: RuleFunction = Gradient()
    other: RuleFunction | None = None
    overrides: tuple[tuple[Match, RuleFunction], ...] = ()
    optional: int = 0

    def __post_init__(self):
        """Checks that each rule suits its row."""
        for kind in _ROWS:
            _check(kind, getattr(self, kind), frozenset({kind}))
        for match, rule in self.overrides:
            if not isinstance(match, str | First | Kind):
                raise TypeError(
                    f"A rule set is overridden by a layer path glob, First(), Kind(...), a "
                    f"primitive or a call name; got {match!r} of type {type(match).__name__}."
                )
            _check(match, rule, frozenset())

    def __or__(self, overrides: Mapping[Match, RuleFunction]) -> RuleSet:
        """This rule set with other rules where the given matches apply.

        Args:
          overrides: maps a layer path glob (``"**/Conv_*"``), ``First()``, ``Kind(...)``, or a
            primitive or call name (``"silu"``) to a rule.
        """
        if not isinstance(overrides, Mapping):
            return NotImplemented
        return dataclasses.replace(self, overrides=(*self.overrides, *overrides.items()))

    def choose(self, step: Step) -> tuple[RuleFunction | None, int | None]:
        """The rule for ``step``, and the index of the override it comes from (None: its row).

        An override that has no formula for the step's kind passes it by: ``"Block_0/**":
        Epsilon()`` means the matmuls of the block. Control flow has no rule, only what it holds
        has; but a call may be given one as a whole, by its function's name.
        """
        best, rank, index = getattr(self, step.kind, None), 0, None
        for k, (match, rule) in enumerate(self.overrides):
            kinds = getattr(rule, "kinds", None)
            if kinds and step.kind not in kinds:
                continue
            if step.kind == "control" and match not in step.names:
                continue
            found = specificity(match, step)
            if found and found >= rank:
                best, rank, index = rule, found, k
        return best, index

    def __str__(self) -> str:
        """A table: kind or match, rule."""
        rows = [(kind, getattr(self, kind)) for kind in _ROWS]
        rows += [(str(match), rule) for match, rule in self.overrides]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {describe(rule)}" for name, rule in rows)


_ROWS = tuple(field.name for field in dataclasses.fields(RuleSet))[:-2]


def describe(rule: RuleFunction | None) -> str:
    """A rule as a person would write it: ``Epsilon(eps=1e-06)``."""
    if rule is None:
        return "(error)"
    if dataclasses.is_dataclass(rule):
        return repr(rule)
    return getattr(rule, "__name__", repr(rule))


def _check(where: Any, rule: Any, kinds: frozenset[str]) -> None:
    if rule is None and where == "other":
        return
    if isinstance(rule, type) or not callable(rule):
        hint = f"; did you mean {rule.__name__}()?" if isinstance(rule, type) else "."
        raise TypeError(f"{where}: expected a rule, got {rule!r}{hint}")
    domain = getattr(rule, "kinds", None)
    if domain and kinds and kinds.isdisjoint(domain):
        raise TypeError(
            f"{where}: {describe(rule)} is a rule for {', '.join(sorted(domain))} steps only."
        )


def _flatten(rules: RuleSet) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    rows = tuple(getattr(rules, kind) for kind in _ROWS)
    plain = [rule for _, rule in rules.overrides]
    matches = tuple(match for match, _ in rules.overrides)
    parts = [_split(rule) for rule in (*rows, *plain)]
    functions = tuple(function for _, function in parts)
    return tuple(tree for tree, _ in parts), (matches, functions, rules.optional)


def _split(rule: Any) -> tuple[Any, Any]:
    """A rule that is a pytree goes among the leaves, a plain function into the structure."""
    if rule is None or dataclasses.is_dataclass(rule):
        return rule, None
    return None, rule


def _unflatten(structure: Any, children: Any) -> RuleSet:
    matches, functions, optional = structure
    rules = [f if f is not None else tree for tree, f in zip(children, functions, strict=True)]
    new = object.__new__(RuleSet)  # unchecked: jax unflattens with placeholders for leaves
    for kind, rule in zip(_ROWS, rules, strict=False):
        object.__setattr__(new, kind, rule)
    overrides = tuple(zip(matches, rules[len(_ROWS) :], strict=True))
    object.__setattr__(new, "overrides", overrides)
    object.__setattr__(new, "optional", optional)
    return new


jax.tree_util.register_pytree_node(RuleSet, _flatten, _unflatten)


def gradient() -> RuleSet:
    """The gradient everywhere: the multiplier is ``jax.grad``'s, relevance is x times gradient."""
    g = Gradient()
    return RuleSet(g, g, g, g, g, g, g, g, g, g)


def deconvnet() -> RuleSet:
    """The deconvolution method (Zeiler and Fergus 2014): nonlinearities are repeated backwards."""
    return dataclasses.replace(gradient(), nonlinearity=Repeat())


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

    No division by anything near 0 is left. On a bias-free network sum(R) = f(x).
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
    return RuleSet(matmul=Epsilon(eps))


def cp_lrp(eps: Eps = 0.0) -> RuleSet:
    """CP-LRP (Ali et al. 2022): attention weights and gates are constants.

    Args:
      eps: of the dense layers.
    """
    rules = RuleSet(matmul=Epsilon(eps), softmax=Detach())
    return _preset(rules, {Kind("attention"): Second(), Kind("gate"): Second()})


def _proportional(matmul: RuleFunction, stabilizer: Eps) -> RuleSet:
    """Average pools and residual sums by what each part contributes, as Zennit has them."""
    norm = Norm(stabilizer)
    return _preset(RuleSet(matmul=matmul, sum=norm), {Kind("pool"): norm})


def _preset(rules: RuleSet, overrides: Mapping[Match, RuleFunction]) -> RuleSet:
    """Overrides that are part of a preset: a network without convolutions is no mistake."""
    rules = rules | overrides
    return dataclasses.replace(rules, optional=len(rules.overrides))


_PRESETS = {
    f.__name__: f
    for f in (
        attn_lrp,
        cp_lrp,
        deconvnet,
        deep_taylor,
        epsilon,
        epsilon_alpha2_beta1,
        epsilon_alpha2_beta1_flat,
        epsilon_gamma_box,
        epsilon_plus,
        epsilon_plus_flat,
        excitation_backprop,
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
        raise TypeError(
            f"rules: expected a RuleSet or the name of a preset, got {type(rules).__name__}: "
            f"{rules!r}."
        )
    if rules not in _PRESETS:
        raise ValueError(f"No preset is called {rules!r}; there are {', '.join(_PRESETS)}.")
    try:
        return _PRESETS[rules]()
    except TypeError as error:
        raise TypeError(f"Preset {rules!r} has no defaults: {error}.") from None
