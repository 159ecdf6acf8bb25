"""The zoo and the networks of the experiments are what they claim to be.

Every test of an invariant relies on it: a model whose gradient vanishes, or that has lost its
biases, would pass them all.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.networks import VGG16, Decoder, ResNet50, ViTS
from tests.covering import every
from tests.models import BIAS_FREE, NAMES, build


@pytest.mark.parametrize("name", every(2, NAMES))
def test_values_and_gradients(name: str) -> None:
    model = build(name, dtype=jnp.float64)

    def explained(x):
        logits = model.fun(model.params, x)
        return logits.sum(), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(explained, has_aux=True))(model.x)
    assert logits.ndim == 2
    assert logits.dtype == jnp.float64
    assert np.isfinite(logits).all()
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert leaf.any()

    # 64-bit types are on in this test run, but nothing may be promoted to them by the way.
    model = build(name)
    single = jax.jit(model.fun)(model.params, model.x)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_without_biases_zero_is_zero(name: str) -> None:
    model = build(name, bias=False)
    assert model.bias_free == (name in BIAS_FREE)
    zero = jax.tree.map(jnp.zeros_like, model.x)
    fun = jax.jit(model.fun)
    np.testing.assert_array_equal(fun(model.params, zero), 0)
    assert np.isfinite(fun(model.params, model.x)).all()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_no_symmetry(name: str) -> None:
    for leaf in jax.tree.leaves(build(name).params):
        assert leaf.dtype == jnp.float32
        assert np.unique(leaf).size == leaf.size
        assert leaf.all()


def test_build_is_deterministic_and_strict(default_precision: None) -> None:
    assert build("mlp") is build("mlp")
    with pytest.raises(ValueError, match="jax_enable_x64"):
        build("mlp_gelu", dtype=np.dtype("float64"))


def test_both_branches_are_taken() -> None:
    model = build("control_flow")
    gradient = jax.grad(lambda params: model.fun(params, model.x).sum())(model.params)
    assert gradient["deep"]["w"].any()
    assert gradient["shallow"]["w"].any()


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(ResNet50, 25_557_032), (VGG16, 138_357_544), (ViTS, 22_050_664)],
)
def test_networks_have_the_published_size(network, parameters: int) -> None:
    picture = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(network().init, jax.random.key(0), picture)
    leaves = jax.tree.leaves(variables["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters


def test_decoder_scanned_is_decoder_unrolled() -> None:
    model = build("decoder")
    scanned = Decoder(depth=2, heads=2, expansion=2, vocabulary=5, scan=True)
    params = dict(model.params["params"])
    layers = [params.pop(f"layer{layer}") for layer in range(2)]
    params["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    expected = model.fun(model.params, model.x)
    logits = jnp.asarray(scanned.apply({"params": params}, model.x))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
