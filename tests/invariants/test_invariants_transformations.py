"""Relevance commutes with JAX's transformations: to rounding, it does not matter who wraps whom."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import jaxrel
from experiments.networks import Decoder
from tests.checks import assert_close
from tests.covering import covering, every
from tests.models import NAMES, build

Fun = Callable[[Any, Any], jax.Array]


def _one_by_one(fun: Fun) -> Callable[[Any, Any], jax.Array]:
    """The function of a single example."""
    return lambda params, x: fun(params, jax.tree.map(lambda leaf: leaf[None], x))[0]


def vmapped(fun: Fun) -> Fun:
    """Example by example, side by side."""
    return jax.vmap(_one_by_one(fun), in_axes=(None, 0))


def mapped(fun: Fun) -> Fun:
    """Example by example, one after the other."""
    return lambda params, x: lax.map(partial(_one_by_one(fun), params), x)


def scanned(fun: Fun) -> Fun:
    """As the step of a loop that carries the input, and reads the parameters layer by layer."""

    def fun_in_loop(params, x):
        stacked = jax.tree.map(lambda leaf: leaf[None], params)
        _, values = lax.scan(lambda x, params: (x, fun(params, x)), x, stacked)
        return values[0]

    return fun_in_loop


def chosen(fun: Fun) -> Fun:
    """As the branch that is taken, on a condition that depends on the input."""

    def fun_in_branch(params, x):
        condition = jax.tree.leaves(x)[0].sum() < jnp.inf
        return lax.cond(condition, fun, lambda params, x: -fun(params, x), params, x)

    return fun_in_branch


def nested(fun: Fun) -> Fun:
    """All at once."""
    return scanned(chosen(mapped(jax.checkpoint(jax.jit(fun)))))


WRAPPERS = (jax.jit, jax.checkpoint, vmapped, mapped, scanned, chosen)


def _relevance(fun: Fun, rules: str = "lrp") -> Callable[[Any, Any], Any]:
    return jax.jit(jaxrel.relevance(fun, rules, argnums=1))


@cache
def _expected(name: str) -> Any:
    """The relevance of a model as it is, by `lrp`, which has every step that slope has and more."""
    model = build(name, dtype=jnp.float64)
    return _relevance(model.fun)(model.params, model.x)


def _tolerance(name: str) -> float:
    """jax.nn.dot_product_attention makes its softmax in float32, whatever the dtype."""
    return 1e-5 if name in ("dot_product_attention", "nnx_transformer") else 1e-11


@pytest.mark.parametrize("name", every(3, NAMES))
def test_all_wrappers_nested(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    result = _relevance(nested(model.fun))(model.params, model.x)
    assert_close(result, _expected(name), _tolerance(name))


@pytest.mark.parametrize("name", every(3, NAMES))
def test_vmap_of_relevance(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    explain = jaxrel.relevance(_one_by_one(model.fun), "lrp", argnums=1)
    result = jax.jit(jax.vmap(explain, in_axes=(None, 0)))(model.params, model.x)
    assert_close(result, _expected(name), _tolerance(name))


@pytest.mark.parametrize(
    ("name", "wrapper"), covering(["mlp_mixed", "pytree_input", "lax_attention"], WRAPPERS)
)
def test_wrapper(name: str, wrapper: Callable[[Fun], Fun]) -> None:
    model = build(name, dtype=jnp.float64)
    result = _relevance(wrapper(model.fun))(model.params, model.x)
    assert_close(result, _expected(name))


@pytest.mark.parametrize("name", every(2, ["gated", "lax_plain"]))
def test_without_jit(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    result = jaxrel.relevance(model.fun, "lrp", argnums=1)(model.params, model.x)
    assert_close(result, _expected(name))


def _eight(x: jax.Array) -> jax.Array:
    """A batch of eight different examples."""
    scale = 1 + 0.1 * np.arange(8).reshape(-1, *(1 for _ in x.shape[1:]))
    return x[np.arange(8) % len(x)] * scale


@pytest.mark.parametrize("name", ["resnet_basic", "mixer", "pytree_input", "decoder_scan"])
def test_sharded_over_the_batch(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    explain = _relevance(model.fun)
    x = jax.tree.map(_eight, model.x)
    expected = explain(model.params, x)
    mesh = jax.make_mesh((8,), ("batch",), (jax.sharding.AxisType.Auto,))
    params = jax.device_put(model.params, NamedSharding(mesh, PartitionSpec()))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    result = explain(params, jax.device_put(x, sharding))
    assert_close(result, expected)
    for leaf in jax.tree.leaves(result):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


@pytest.mark.parametrize("name", ["gated", "decoder_scan"])
def test_shard_map(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    x = jax.tree.map(_eight, model.x)
    mesh = jax.make_mesh((8,), ("batch",), (jax.sharding.AxisType.Auto,))
    batch = PartitionSpec("batch")
    mapped = jax.shard_map(model.fun, mesh=mesh, in_specs=(PartitionSpec(), batch), out_specs=batch)
    result = _relevance(mapped)(model.params, x)
    assert_close(result, _relevance(model.fun)(model.params, x))


def test_decoder_scanned_is_decoder_unrolled() -> None:
    model = build("decoder", dtype=jnp.float64)
    net = Decoder(depth=2, heads=2, expansion=2, vocabulary=5, scan=True)
    params = dict(model.params["params"])
    layers = [params.pop(f"layer{layer}") for layer in range(2)]
    params["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    result = _relevance(net.apply)({"params": params}, model.x)
    assert_close(result, _expected("decoder"))


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [pytest.param("resnet_bottleneck", marks=pytest.mark.full), "decoder_scan"]
)
def test_export_to_other_platforms(name: str) -> None:
    model = build(name)
    explain = jaxrel.relevance(model.fun, "lrp", argnums=1)

    def gradient(params, x):
        return jax.grad(lambda params: jnp.square(explain(params, x)).sum())(params)

    for fun in (explain, gradient):
        export = jax.export.export(jax.jit(fun), platforms=("cpu", "cuda", "tpu"))
        result = jax.jit(export(model.params, model.x).call)(model.params, model.x)
        assert_close(result, jax.jit(fun)(model.params, model.x), 1e-5)
