"""DeepLIFT of Captum and SHAP, by the Rescale rule: every trusted case.

Both take the gradient where a nonlinearity's input hardly differs from the baseline's; max pools
are CrossMax. DeepLiftShap and DeepExplainer average over baselines, DeepExplainer explains each
output. Not trusted, and left out: Captum where a pool or a nonlinearity follows a nonlinearity
directly, windows that overlap, and softmax over a batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from tests import golden_nets
from tests.golden_nets import Case


def explain(case: Case, framework: str) -> jax.Array:
    """What jaxrel gives for a case."""
    found = golden_nets.arrays(case.net)
    fun = golden_nets.build(case.net, framework)
    x, baseline = found[case.hyper.get("x", "x")], case.hyper["baseline"]
    if baseline != 0:
        baseline = found[baseline]
    if case.hyper["baseline"] in ("baselines_pool", "background"):
        baseline = np.broadcast_to(baseline[:, None], (len(baseline), *x.shape))

    def relevance(x, baseline):
        y, pullback = jaxrel.relevance_vjp(fun, x, rules="deeplift_rescale", baseline=(baseline,))
        if case.start == "one":
            return pullback(found["onehot"])[0]
        outputs = jnp.eye(y.shape[-1], dtype=y.dtype)
        each = jax.vmap(lambda one: pullback(jnp.broadcast_to(one, y.shape))[0])(outputs)
        return jnp.moveaxis(each, 0, -1)

    return golden_nets.quick(relevance)(x, baseline)


CASES = [
    pytest.param(case, framework, id=f"{case.id}-{framework}")
    for peer in ("captum", "shap")
    for case in golden_nets.cases(peer, "baseline")
    for framework in ("lax", "linen")
]


@pytest.mark.parametrize("case, framework", CASES)
def test_deeplift(case: Case, framework: str):
    golden_nets.check(case, explain(case, framework))
