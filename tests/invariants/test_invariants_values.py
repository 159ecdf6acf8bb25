"""The function that is explained keeps its values, and relevance has the type of its argument."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from tests.checks import assert_same_bits, assert_same_type, optimized
from tests.covering import covering, every
from tests.models import NAMES, build

pytestmark = pytest.mark.usefixtures("default_precision")


@cache
def _value(name: str) -> np.ndarray:
    model = build(name)
    return np.asarray(optimized(model.fun)(model.params, model.x))


@pytest.mark.parametrize(
    ("name", "rules"), covering(NAMES, ["slope", "lrp", "deconvnet", "epsilon_plus"])
)
def test_values_are_unchanged_bit_for_bit(name: str, rules: str) -> None:
    model = build(name)
    rewritten = optimized(jaxrel.rewrite(model.fun, rules, argnums=1))
    assert_same_bits(rewritten(model.params, model.x), _value(name))


def _gradient(fun: Callable) -> Callable:
    return optimized(jax.grad(lambda params, x: fun(params, x).sum(), argnums=1))


@pytest.mark.parametrize("name", every(3, NAMES))
def test_all_gradient_is_jax_grad_bit_for_bit(name: str) -> None:
    model = build(name)
    rewritten = jaxrel.rewrite(model.fun, "gradient", argnums=1)
    expected = _gradient(model.fun)(model.params, model.x)
    assert_same_bits(_gradient(rewritten)(model.params, model.x), expected)


@pytest.mark.parametrize("name", ["resnet_basic", "pytree_input", "lstm", "lax_attention"])
def test_relevance_by_gradients_is_input_times_gradient(name: str) -> None:
    model = build(name)
    relevance = optimized(jaxrel.relevance(model.fun, "gradient", argnums=1))
    gradient = _gradient(model.fun)(model.params, model.x)
    expected = jax.tree.map(jnp.multiply, model.x, gradient)
    assert_same_bits(relevance(model.params, model.x), expected)


@pytest.mark.parametrize(("name", "dtype"), covering(NAMES, [jnp.bfloat16, jnp.float32]))
def test_relevance_has_the_type_of_its_argument(name: str, dtype) -> None:
    model = build(name, dtype=dtype)
    relevance = jaxrel.value_and_relevance(model.fun, "lrp", argnums=(1, 0))
    value, result = jax.eval_shape(relevance, model.params, model.x)
    assert_same_type(result, (model.x, model.params))
    assert_same_type(value, jax.eval_shape(model.fun, model.params, model.x))


@pytest.mark.parametrize("rules", ["gradient", "slope", "deconvnet", "guided_backprop"])
@pytest.mark.parametrize("name", ["pytree_input", "siamese"])
def test_relevance_has_the_tree_of_its_argument(name: str, rules: str) -> None:
    model = build(name)
    result = jax.eval_shape(jaxrel.relevance(model.fun, rules, 1), model.params, model.x)
    assert_same_type(result, model.x)
