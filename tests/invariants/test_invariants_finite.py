"""No NaN and no inf where the function and its gradient have none, whatever the input.

The inputs are what breaks divisions: zeros, ties, saturation, numbers without digits to spare.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import RuleSet, rules, rulesets
from tests.checks import assert_same_type, is_finite
from tests.covering import covering, every
from tests.models import NAMES, build

COMMON = ("slope", "lrp", "epsilon", "deconvnet", "guided_backprop")
OTHERS = (
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "excitation_backprop",
    "deep_taylor",
    "attn_lrp",
    "cp_lrp",
    "gim",
)
BOX = {
    "epsilon_gamma_box": rulesets.epsilon_gamma_box(-3.0, 3.0),
    "relative": RuleSet(matmul=rules.Absolute()),
}

MAXIMA = {
    "radial": rules.Radial(),
    "shapley": rules.Shapley(),
    "winner": rules.SoftmaxLimit(),
    "soft": rules.SoftmaxLimit(1.0),
    "hard": rules.SoftmaxLimit(100.0),
    "absolute": rules.AbsoluteValue(),
}

INPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "zero": jnp.zeros_like,
    "negative": lambda x: -jnp.abs(x),
    "ties": jnp.ones_like,
    "tiny": lambda x: x * jnp.asarray(1e-30, x.dtype),
    "denormal": lambda x: jnp.where(x > 0, 3, -2) * jnp.finfo(x.dtype).smallest_subnormal,
    "large": lambda x: x * (jnp.finfo(x.dtype).max ** 0.25).astype(x.dtype),
    "huge": lambda x: x * (jnp.finfo(x.dtype).max ** 0.5).astype(x.dtype),
}

# In 16 bits: a model of each family, each of them quick to compile.
SHORT = ("mlp_mixed", "cnn", "resnet_basic", "mixer", "gated", "lax_plain", "lax_attention", "lstm")


def _check(fun: Callable, params: Any, x: Any, rule_sets: Mapping[str, RuleSet | str]) -> None:
    """Explains what the function and its gradient are finite at, by each rule set."""

    @jax.jit
    def everything(params, x):
        total = lambda x: fun(params, x).astype(jnp.float32).sum()  # noqa: E731
        explained = {
            key: jaxrel.relevance(fun, rules, argnums=1)(params, x)
            for key, rules in rule_sets.items()
        }
        return (fun(params, x), jax.grad(total)(x)), explained

    for kind, make in INPUTS.items():
        inputs = jax.tree.map(make, x)
        reference, explained = everything(params, inputs)
        if not is_finite(reference):
            assert kind in ("large", "huge")
            continue
        for key, result in explained.items():
            assert_same_type(result, x)
            assert is_finite(result), (kind, key)


def _check_model(
    name: str, dtype: Any, presets: Sequence[str], others: Mapping[str, RuleSet] | None = None
) -> None:
    model = build(name, dtype=dtype)
    rule_sets = {preset: preset for preset in presets} | dict(others or {})
    _check(model.fun, model.params, model.x, rule_sets)


@pytest.mark.parametrize("name", every(3, NAMES))
def test_float32(name: str) -> None:
    _check_model(name, jnp.float32, COMMON)


@pytest.mark.parametrize(("name", "dtype"), covering(SHORT, [jnp.float16, jnp.bfloat16]))
def test_16_bits(name: str, dtype) -> None:
    _check_model(name, dtype, COMMON)


@pytest.mark.parametrize(
    ("name", "dtype"),
    covering(
        ["cnn", "resnet_basic", "lax_plain", "lax_attention"],
        [jnp.float16, jnp.float32, jnp.bfloat16],
    ),
)
def test_other_presets(name: str, dtype) -> None:
    _check_model(name, dtype, OTHERS, BOX)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.usefixtures("default_precision")
def test_a_sum_that_overflows_into_saturation(dtype) -> None:
    """tanh(inf) is 1, its relevance something finite."""
    largest = 0.9 * float(jnp.finfo(dtype).max)
    x = jnp.array([[largest, largest], [-largest, -largest], [largest, -largest]], dtype)
    fun = lambda x: jnp.tanh(x @ jnp.ones((2, 1), dtype))  # noqa: E731
    for preset in ("lrp", "epsilon"):
        explain = jax.jit(jaxrel.relevance(fun, preset))
        assert not is_finite(x[:2].sum(1))
        assert is_finite(fun(x))
        assert is_finite(explain(x)), preset


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_maxima(dtype) -> None:
    """Every form of maximum under every rule; the derivatives of relevance are finite as well."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), dtype)
    rule_sets = {key: RuleSet(maximum=rule) for key, rule in MAXIMA.items()}
    _check(_maxima, (), x, rule_sets)

    @jax.jit
    def derivatives(x):
        return {
            key: jax.grad(lambda x, r=r: jaxrel.relevance(_maxima, r, argnums=1)((), x).sum())(x)
            for key, r in rule_sets.items()
        }

    for kind in ("zero", "negative", "ties"):
        for key, derivative in derivatives(INPUTS[kind](x)).items():
            assert is_finite(derivative), (kind, key)


def _maxima(params: tuple[()], x: jax.Array) -> jax.Array:
    del params
    left, right = x[:, :4], x[:, 4:]
    parts = [
        jnp.maximum(left, right),
        jnp.minimum(left, right),
        lax.cummax(left, axis=1),
        lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, (1, 3), (1, 2), "SAME"),
        x.max(axis=1, keepdims=True),
        x.min(axis=1, keepdims=True),
    ]
    return jnp.concatenate(parts, axis=1)
