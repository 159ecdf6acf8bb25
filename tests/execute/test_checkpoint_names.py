"""What a checkpoint saves by name is what rules read: z is kept once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxrel
from jaxrel import Kind, rules, rulesets

LAYERS, BATCH, WIDTH = 6, 128, 64


def network(biased: bool, named: bool) -> Callable:
    def block(x, layer):
        w, b = layer
        z = x @ w + b if biased else x @ w
        return x + jnp.tanh(checkpoint_name(z, "z") if named else z)

    kept = jax.checkpoint(block, policy=jax.checkpoint_policies.save_only_these_names("z"))

    def fun(x, layers):
        return lax.scan(lambda x, layer: (kept(x, layer), None), x, layers)[0]

    return fun


def arguments(dtype=jnp.float32):
    x = jnp.linspace(-1, 1, BATCH * WIDTH, dtype=dtype).reshape(BATCH, WIDTH)
    w = jnp.linspace(-0.1, 0.2, LAYERS * WIDTH * WIDTH, dtype=dtype)
    return x, (w.reshape(LAYERS, WIDTH, WIDTH), jnp.full((LAYERS, WIDTH), 0.1, dtype))


def kept(explain: Callable) -> float:
    """Temporary memory in units of one layer's z."""
    program = jax.jit(explain).lower(*arguments()).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes / (BATCH * WIDTH * 4)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("eps", [1e-6, "norm"])
def test_z_is_kept_once(biased: bool, eps) -> None:
    fun = network(biased, named=True)
    rule = rules.Norm() if eps == "norm" else rules.Epsilon(eps)
    rule_set = rulesets.slope() | {Kind("matmul"): rule}
    own = kept(jaxrel.relevance(fun, rule_set))
    theirs = kept(jax.grad(lambda x, layers: fun(x, layers).sum()))
    assert own <= theirs + LAYERS / 2


@pytest.mark.parametrize("biased", [False, True])
def test_a_name_changes_no_explanation(biased: bool) -> None:
    found, expected = (
        jax.jit(jaxrel.relevance(network(biased, named), "epsilon_plus"))(*arguments(jnp.float64))
        for named in (True, False)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
