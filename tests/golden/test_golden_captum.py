"""Captum's LRP, deconvolution, guided backpropagation and gradients: every trusted case.

How Captum counts: it starts with the logit, which is the multiplier 1 there. Pools, residual sums
and BatchNorm have the epsilon rule with 1e-9; activations pass relevance on. Its gamma and z-plus
rules change weights only: inputs are not split by sign, biases stay as they are. `saliency`,
`deconvolution` and `guided_backprop` give the multiplier itself.

DeepLift is in `test_golden_baseline.py`, integrated gradients are in `test_golden_around.py`. Left
out is what has no rule: occlusion and ablation.
"""

from __future__ import annotations

import dataclasses

import jax
import pytest

import jaxrel
from jaxrel import Kind, RuleSet, rulesets
from jaxrel.rules import Epsilon, Gamma, Norm, Pass, PositiveWeights
from jaxrel.rules.numerics import kept_share
from tests import golden_nets
from tests.golden_nets import Case

pytestmark = pytest.mark.filterwarnings("ignore::jaxrel.UnusedMatchWarning")

EPS = 1e-9

MULTIPLIERS = {
    "saliency_abs": rulesets.gradient,
    "deconvolution": rulesets.deconvnet,
    "guided_backprop": rulesets.guided_backprop,
}


def layers(case: Case):
    """The rule of dense and convolution layers."""
    hyper = case.hyper
    zero = hyper.get("set_bias_to_zero", False)
    if "gamma" in case.name:
        return Gamma(hyper["gamma"], EPS, bias=False if zero else "plain")
    if "alpha1beta0" in case.name:
        return PositiveWeights(EPS, bias=not zero)
    return Epsilon(hyper["epsilon"])


def stabilized_maximum(view, m):
    """The epsilon rule on a maximum: winner takes all but what the stabiliser takes."""
    return view.vjp(m * kept_share(view.output, EPS))


def lrp(case: Case) -> RuleSet:
    """Captum's LRP with the rule of a case on its layers."""
    norm = Norm(EPS)
    rules = RuleSet(layers(case), sum=norm, maximum=stabilized_maximum) | {Kind("pool"): norm}
    if not case.net.endswith("cnn_bn"):
        return rules
    batch_norm = Pass() if "bn_identity" in case.name else norm
    return dataclasses.replace(rules, fold=False) | {Kind("affine"): batch_norm}


def explain(case: Case, framework: str) -> jax.Array:
    """What jaxrel gives for a case."""
    found = golden_nets.arrays(case.net)
    fun = golden_nets.build(case.net, framework)
    x, onehot = found["x"], found["onehot"]
    if case.name in MULTIPLIERS:
        rewritten = jaxrel.rewrite(fun, MULTIPLIERS[case.name]())
        m = golden_nets.quick(lambda x, m: jax.vjp(rewritten, x)[1](m)[0])(x, onehot)
        return abs(m) if case.hyper.get("abs") else m
    rules = rulesets.gradient() if case.name == "input_x_gradient" else lrp(case)

    def relevance(x, m):
        return jaxrel.relevance_vjp(fun, x, rules=rules)[1](m)[0]

    return golden_nets.quick(relevance)(x, onehot)


CASES = golden_nets.parameters("captum", in_linen=lambda case: case.name.startswith("lrp_"))


@pytest.mark.parametrize("case, framework", CASES)
def test_captum(case: Case, framework: str):
    golden_nets.check(case, explain(case, framework))
