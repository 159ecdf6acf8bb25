"""DeepLIFT of Captum and SHAP, by the Rescale rule: every trusted case.

Both take the gradient where a nonlinearity's input hardly differs from the baseline's; max pools
are CrossMax. DeepLiftShap and DeepExplainer average over baselines, DeepExplainer explains each
output. Not trusted, and left out: Captum where a pool or a nonlinearity follows a nonlinearity
directly, windows that overlap, and softmax over a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from tests import golden_nets
from tests.golden_nets import Case


@functools.cache
def of_outputs(net: str, framework: str) -> Callable:
    """DeepLIFT of x and baseline, one or many, and of multipliers of the outputs, one or many."""
    fun = golden_nets.build(net, framework)

    def relevance(x, baseline, starts):
        _, pullback = jaxrel.relevance_vjp(fun, x, rules="deeplift_rescale", baseline=(baseline,))
        return jax.vmap(lambda start: pullback(start)[0])(starts)

    return golden_nets.compiled(relevance)


def explain(case: Case, framework: str) -> jax.Array:
    """What jaxrel gives for a case."""
    found, baseline = golden_nets.arrays(case.net), case.hyper["baseline"]
    x = found[case.hyper.get("x", "x")]
    if baseline in ("baselines_pool", "background"):
        baseline = found[baseline][:, None].repeat(len(x), 1)
    else:
        baseline = np.broadcast_to(baseline and found[baseline], x.shape)
    relevance = of_outputs(case.net, framework)
    if case.start == "one":
        return relevance(x, baseline, found["onehot"][None])[0]
    outputs = np.eye(found["y"].shape[-1])
    each = relevance(x, baseline, outputs[:, None].repeat(len(x), 1))
    return jnp.moveaxis(each, 0, -1)


def in_linen(case: Case) -> bool:
    """Whether to try channels last as well."""
    return case.name in ("deeplift_base", "deep")


CASES = [
    row for peer in ("captum", "shap") for row in golden_nets.parameters(peer, in_linen, "baseline")
]


@pytest.mark.parametrize("case, framework", CASES)
def test_deeplift(case: Case, framework: str):
    golden_nets.check(case, explain(case, framework))
