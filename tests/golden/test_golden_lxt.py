"""LXT's efficient AttnLRP and CP-LRP: every trusted case.

How LXT counts: the efficient form is input times a modified gradient of the logit, so the
multiplier starts with 1. Left out are its explicit forms: their stabiliser is z + eps whatever the
sign of z, which no rule here has.
"""

from __future__ import annotations

import jax
import pytest

import jaxrel
from jaxrel import Kind, RuleSet, rulesets
from jaxrel.rules import GeneralizedGamma
from tests import golden_nets
from tests.golden_nets import Case


def rules_of(case: Case) -> RuleSet:
    """The rule set of a case."""
    if "plain" in case.name or case.name == "gradient_x_input":
        return rulesets.gradient()
    rules = rulesets.attn_lrp() if "attn" in case.name else rulesets.cp_lrp()
    if "gamma" not in case.name:
        return rules
    # attention's projections are no modules of their own there: they keep the gradient
    dense = GeneralizedGamma(case.hyper["lin_gamma"])
    conv = GeneralizedGamma(case.hyper["conv_gamma"])
    return rules | {Kind("conv"): conv, "*.mlp.*": dense, "heads.head": dense}


def tolerance(case: Case) -> float:
    """Relative to the largest value. Hugging Face's Llama computes its norms in float32."""
    return 1e-4 if "llama" in case.net else 1e-7


def explain(case: Case, framework: str) -> jax.Array:
    """What jaxrel gives for a case."""
    found = golden_nets.arrays(case.net)
    fun = golden_nets.build(case.net, framework)

    def relevance(x, m):
        return jaxrel.relevance_vjp(fun, x, rules=rules_of(case))[1](m)[0]

    return golden_nets.quick(relevance)(found["x"], found["onehot"])


CASES = golden_nets.parameters("lxt", in_linen=lambda case: False)


@pytest.mark.parametrize("case, framework", CASES)
def test_lxt(case: Case, framework: str):
    golden_nets.check(case, explain(case, framework), tolerance(case))
