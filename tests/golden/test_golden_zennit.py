"""Zennit's rules and composites: every trusted case in plain lax, the composites in linen too.

How Zennit counts: it carries relevance, so a start r at the outputs is the multiplier r / f(x).
Activations and BatchNorm pass relevance on, average pools and residual sums have the rule Norm,
max pools and everything else its gradient. Composites for gradients (deconvnet, guided ...) give
the multiplier itself.

Integrated gradients and smooth gradients are in `test_golden_around.py`. Left out is occlusion,
which is no rule.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import jaxrel
from jaxrel import First, Kind, RuleSet, Stabilizer, rulesets
from jaxrel.rules import (
    AlphaBeta,
    BetaSmooth,
    Epsilon,
    Flat,
    GeneralizedGamma,
    Norm,
    Pass,
    Rule,
    Unit,
    WSquare,
    ZBox,
    ZPlus,
    rule,
)
from tests import golden_nets
from tests.golden_nets import Case

pytestmark = pytest.mark.filterwarnings("ignore::jaxrel.UnusedMatchWarning")

MULTIPLIERS = {
    "a_gradient": lambda hyper: rulesets.gradient(),
    "c_deconvnet": lambda hyper: rulesets.deconvnet(),
    "c_guided_backprop": lambda hyper: rulesets.guided_backprop(),
    "c_beta_smooth": lambda hyper: dataclasses.replace(
        rulesets.gradient(), nonlinearity=BetaSmooth(hyper["beta_smooth"])
    ),
}
"""Composites that give m rather than x * m."""


def everywhere(matmul, stabilizer=1e-6) -> RuleSet:
    """Zennit's `layer_map_base` and one rule for all layers."""
    norm = Norm(stabilizer)
    return RuleSet(matmul=matmul, sum=norm) | {Kind("pool"): norm}


def single(name: str, hyper: dict) -> RuleSet:
    """The cases of one rule on every layer, or of one on the first and another on the rest."""
    bias = hyper.get("zero_params") != "bias"
    eps = hyper.get("epsilon", 1e-6)
    stabilizer = hyper.get("stabilizer", 1e-6)
    gamma = GeneralizedGamma(hyper.get("gamma", 0.25), stabilizer, bias)
    match name.split("_"):
        case ["zbox", "first", *_]:
            box = ZBox(hyper["low"], hyper["high"])
            return everywhere(Epsilon(eps, bias)) | {First(): box}
        case ["wsquare", "first", *_]:
            return everywhere(ZPlus()) | {First(): WSquare()}
        case ["flat", "first", *_]:
            return everywhere(AlphaBeta(2.0, 1.0)) | {First(): Flat()}
        case ["epsilon", "clip"]:
            return everywhere(Epsilon(Stabilizer(eps, "clip")))
        case ["epsilon", "normscale"]:
            return everywhere(Epsilon(Stabilizer(eps, "rms")))
        case ["epsilon", *_]:
            return everywhere(Epsilon(eps, bias))
        case ["alphabeta", *_]:
            pair = hyper.get("alpha", 2.0), hyper.get("beta", 1.0)
            return everywhere(AlphaBeta(*pair, stabilizer, bias))
        case ["pass", "fc2"]:
            return everywhere(Epsilon(eps)) | {"fc2": Pass()}
        case ["pass", "fc2", "flat", "fc1"]:
            return everywhere(Epsilon(eps)) | {"fc1": Flat(), "fc2": Pass()}
        case ["mixed"]:
            layers = {"fc1": WSquare(), "fc2": GeneralizedGamma(0.5), "fc3": AlphaBeta(2.0, 1.0)}
            return everywhere(Epsilon(eps)) | layers
        case [one, *_]:
            one = {
                "zplus": ZPlus(stabilizer, bias),
                "gamma": gamma,
                "wsquare": WSquare(stabilizer, bias),
                "flat": Flat(stabilizer),
                "norm": Norm(stabilizer),
            }[one]
            return everywhere(one)
    raise ValueError(name)


def composite(name: str, hyper: dict) -> RuleSet:
    """The cases of Zennit's composites: jaxrel's presets."""
    options = {"eps": hyper.get("epsilon", 1e-6), "stabilizer": hyper.get("stabilizer", 1e-6)}
    options["bias"] = hyper.get("zero_params") != "bias"
    if name == "excitation_backprop":
        return rulesets.excitation_backprop(options["stabilizer"])
    if name == "epsilon_gamma_box":
        options |= {key: hyper[key] for key in ("low", "high", "gamma") if key in hyper}
    return getattr(rulesets, name)(**options)


@rule("linear")
class Unhooked(Rule):
    """No rule where relevance is carried: R_x = J^T R_z. Zennit on BatchNorm in some composites."""

    emits_unit = True

    def __call__(self, view, m, /):
        """See :class:`jaxrel.rules.RuleFunction`."""
        return Unit(None, view.vjp(m * view.output)[0])


def unmerged(rules: RuleSet, name: str) -> RuleSet:
    """The rules where BatchNorm is a layer of its own (Zennit without its canonizer)."""
    batch_norm = Unhooked() if name == "c_excitation_backprop" else Pass()
    return dataclasses.replace(rules, fold=False) | {Kind("affine"): batch_norm}


def explain(case: Case, framework: str) -> jax.Array:
    """What jaxrel gives for a case."""
    found = golden_nets.arrays(case.net)
    fun = golden_nets.build(case.net, framework)
    x, start = found["x"], found["onehot"]
    name, hyper = case.name, dict(case.hyper)
    for key in ("low", "high"):
        if hyper.get(key) == key:
            hyper[key] = golden_nets.in_layout(found[key], framework)
    if case.start == "random":
        name, start = name.removesuffix("_startrandom"), found["start_random"]
    if case.start == "logit":
        start = start * found["y"]
    if name.startswith("zeroinput_"):
        name, x, start = name.removeprefix("zeroinput_"), np.zeros_like(x[:1]), start[:1]
    if name in MULTIPLIERS:
        rewritten = jaxrel.rewrite(fun, MULTIPLIERS[name](hyper))
        return golden_nets.quick(lambda x, m: jax.vjp(rewritten, x)[1](m)[0])(x, start)
    if name.startswith("c_"):
        rules = composite(name.removeprefix("c_").removesuffix("_hyper"), hyper)
    else:
        rules = single(name, hyper)
    if case.net.endswith("nocanon"):
        rules = unmerged(rules, name)

    def relevance(x, start):
        y, pullback = jaxrel.relevance_vjp(fun, x, rules=rules)
        return pullback(start / y)[0]

    return golden_nets.quick(relevance)(x, start)


def is_preset(case: Case) -> bool:
    """Whether a case is one of Zennit's composites as it comes."""
    return case.name.startswith("c_") and not case.name.endswith(("_startrandom", "_hyper"))


CASES = golden_nets.parameters("zennit", in_linen=is_preset)


@pytest.mark.parametrize("case, framework", CASES)
def test_zennit(case: Case, framework: str):
    golden_nets.check(case, explain(case, framework))
