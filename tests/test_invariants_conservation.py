"""Where nothing is constant, the relevances add up to the value."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import RuleSet, rulesets
from tests.invariants import assert_close, compiled
from tests.models import BIAS_FREE, NAMES, Model, build

# Their hyper-parameter comes traced, and 0 is then computed with; the number 0 would be simplified
# away.
CONSERVING = {
    "slope": lambda zero: rulesets.slope(),
    "lrp": rulesets.lrp,
    "epsilon": rulesets.epsilon,
}


def relevance(model: Model, rules: Callable[[jax.Array], RuleSet]):
    """The value of a model and its relevance, by rules of a hyper-parameter that is 0."""

    def explained(zero, params, x):
        return jaxrel.value_and_relevance(model.fun, rules(zero), argnums=1)(params, x)

    value, result = compiled(explained)(jnp.zeros(()), model.params, model.x)
    return np.asarray(value), jax.tree.map(np.asarray, result)


@pytest.mark.parametrize("rules", CONSERVING)
@pytest.mark.parametrize("name", BIAS_FREE)
def test_relevances_add_up_to_the_value(name: str, rules: str) -> None:
    model = build(name, bias=False, dtype=jnp.float64)
    value, result = relevance(model, CONSERVING[rules])
    leaves = jax.tree.leaves(result)
    # Of each example, not only of the batch: examples do not lend relevance to each other.
    total = sum(leaf.reshape(len(leaf), -1).sum(axis=1) for leaf in leaves)
    np.testing.assert_allclose(total, value.sum(axis=1), rtol=1e-12, atol=0)
    np.testing.assert_allclose(total.sum(), value.sum(), rtol=1e-12, atol=0)


def test_a_gradient_does_not_conserve() -> None:
    model = build("gated", bias=False, dtype=jnp.float64)
    value, result = relevance(model, lambda zero: rulesets.gradient())
    assert abs(result.sum() - value.sum()) > 0.1 * abs(value.sum())


@pytest.mark.parametrize("name", NAMES)
def test_lrp_without_blip_is_slope(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    value, expected = relevance(model, CONSERVING["slope"])
    same_value, result = relevance(model, CONSERVING["lrp"])
    assert_close(result, expected, 1e-13)
    assert_close(same_value, value, 1e-13)
