"""Where nothing is constant, the relevances add up to the value."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import RuleSet, rulesets
from tests.checks import assert_close
from tests.covering import every
from tests.models import BIAS_FREE, NAMES, Model, build

RULES: dict[str, Callable[[jax.Array], RuleSet]] = {
    "slope": lambda zero: rulesets.slope(),
    "lrp": rulesets.lrp,
    "epsilon": rulesets.epsilon,
    "gradient": lambda zero: rulesets.gradient(),
}


def relevance(model: Model, keys: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """The value of a model and its relevance by several rule sets.

    Hyper-parameters are 0. They come traced, so that 0 is computed with; the number 0 would be
    simplified away.
    """

    @jax.jit
    def explained(zero, params, x):
        return model.fun(params, x), {
            key: jaxrel.relevance(model.fun, RULES[key](zero), argnums=1)(params, x) for key in keys
        }

    return jax.tree.map(np.asarray, explained(jnp.zeros(()), model.params, model.x))


@pytest.mark.parametrize("name", BIAS_FREE)
def test_relevances_add_up_to_the_value(name: str) -> None:
    model = build(name, bias=False, dtype=jnp.float64)
    value, results = relevance(model, ("slope", "lrp", "epsilon"))
    for result in results.values():
        leaves = jax.tree.leaves(result)
        # Of each example, not only of the batch: examples do not lend relevance to each other.
        total = sum(leaf.reshape(len(leaf), -1).sum(axis=1) for leaf in leaves)
        np.testing.assert_allclose(total, value.sum(axis=1), rtol=1e-12, atol=0)
        np.testing.assert_allclose(total.sum(), value.sum(), rtol=1e-12, atol=0)


def test_a_gradient_does_not_conserve() -> None:
    model = build("gated", bias=False, dtype=jnp.float64)
    value, results = relevance(model, ("gradient",))
    assert abs(results["gradient"].sum() - value.sum()) > 0.1 * abs(value.sum())


@pytest.mark.parametrize("name", every(2, NAMES, 1))
def test_lrp_without_blip_is_slope(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    _, results = relevance(model, ("slope", "lrp"))
    # two models compute their softmax in float32, whatever x is
    in_float32 = name in ("nnx_transformer", "dot_product_attention")
    assert_close(results["lrp"], results["slope"], 1e-6 if in_float32 else 1e-13)
