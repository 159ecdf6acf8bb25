"""What rules for matrices cost: contractions over shards, ones for one example, strict ranks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrel
from jaxrel import RuleSet, relevance, rules

D, H, T = 16, 4, 4
COLUMNS, ROWS = P(None, "model"), P("model", None)
SPEC = {"q": COLUMNS, "k": COLUMNS, "v": COLUMNS, "o": ROWS, "up": COLUMNS, "down": ROWS}


def transformer(params, x):
    """Blocks whose heads and hidden units are divided among devices."""
    heads = lambda z: z.reshape(*z.shape[:2], H, -1)  # noqa: E731
    for p in params:
        h = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        logits = jnp.einsum("bqhd,bkhd->bhqk", heads(h @ p["q"]), heads(h @ p["k"]))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits / 2), heads(h @ p["v"]))
        x = x + mixed.reshape(x.shape) @ p["o"]
        h = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        x = x + jax.nn.relu(h @ p["up"]) @ p["down"]
    return x.mean(1)[:, 0]


def collectives(fun, *operands):
    """How many arrays a compiled program adds up over devices, and how many it gathers."""
    text = jax.jit(fun).lower(*operands).compile().as_text()
    added = re.findall(r" all-reduce(?:-start)?\(([^)]*)\)", text)
    moved = re.findall(r" (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    return sum(arrays.count(",") + 1 for arrays in added), len(moved)


@pytest.mark.usefixtures("default_precision")
def test_rules_for_signs_add_up_over_shards_once():
    """On 2 x 4 devices: less than twice the all-reduces of the gradient, nothing gathered."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("data", "model"))
    rng = np.random.default_rng(0)
    sizes = {"up": (D, 2 * D), "down": (2 * D, D)}
    params = [
        {
            name: jax.device_put(
                jnp.asarray(rng.normal(size=sizes.get(name, (D, D))) / 4, jnp.float32),
                NamedSharding(mesh, spec),
            )
            for name, spec in SPEC.items()
        }
        for _ in range(2)
    ]
    x = jnp.asarray(rng.normal(size=(4, T, D)), jnp.float32)
    x = jax.device_put(x, NamedSharding(mesh, P("data")))
    of_gradient, _ = collectives(jax.grad(lambda p, x: transformer(p, x).sum(), 1), params, x)
    assert of_gradient > 8
    for rule in (rules.ZPlus(), rules.GeneralizedGamma(), rules.AlphaBeta()):
        explain = relevance(transformer, RuleSet(matmul=rule), 1)
        added, moved = collectives(explain, params, x)
        assert added < 2 * of_gradient and moved == 0, rule
        sharded, alone = jax.jit(explain)(params, x), explain(*jax.device_get((params, x)))
        np.testing.assert_allclose(sharded, alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


def network(kernel, head):
    """A convolution and a dense layer of each pixel, with a bias of its own for each example."""

    def fun(x):
        z = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (jax.nn.relu(z + 0.1) @ head).sum((1, 2, 3))

    return fun


@pytest.mark.full
@pytest.mark.parametrize("rule", [rules.Flat(), rules.WSquare()])
def test_what_does_not_depend_on_the_input_is_computed_for_one_example(rule):
    rng = np.random.default_rng(1)
    kernel, head = jnp.asarray(rng.normal(size=(3, 3, 2, 5))), jnp.asarray(rng.normal(size=(5, 3)))
    fun, x = network(kernel, head), jnp.asarray(rng.normal(size=(8, 6, 6, 2)))
    explain = relevance(fun, RuleSet(matmul=rule))
    text = jax.jit(explain).lower(x).as_text()
    shapes = re.findall(r"stablehlo.convolution\(.*-> tensor<(\d+)x6x6x5x", text)
    assert sorted(shapes) == ["1", "8"]
    # XLA may not see that it could compute them when it compiles, weights being constants
    assert text.count("optimization_barrier") >= 2
    one_by_one = jnp.concatenate([explain(one[None]) for one in x])
    np.testing.assert_allclose(explain(x), one_by_one, rtol=1e-12)
    mapped = jax.vmap(lambda one: explain(one[None])[0])(x)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-12)


def test_weights_of_each_example_are_kept_apart():
    """A product with a batch of matrices, and a bias that differs between examples."""
    rng = np.random.default_rng(2)
    W, b = jnp.asarray(rng.normal(size=(4, 6, 3))), jnp.asarray(rng.normal(size=(4, 3)))
    x = jnp.asarray(rng.normal(size=(4, 6)))
    for rule in (rules.Flat(1e-3), rules.WSquare(1e-3), rules.ZPlus(1e-3)):
        rule_set = RuleSet(matmul=rule)
        found = relevance(lambda x: jnp.einsum("bi,bio->bo", x, W) + b, rule_set)(x)
        alone = [relevance(lambda x, k=k: x @ W[k] + b[k], rule_set)(x[k]) for k in range(4)]
        np.testing.assert_allclose(found, jnp.stack(alone), rtol=1e-10)


PLACES = {
    "maximum": lambda x: x.max(1).sum((0, 1)),
    "two": lambda x: jnp.minimum(x, x[:, ::-1]).sum((0, 1, 2)),
    "running": lambda x: lax.cummax(x, 1).sum((0, 1, 2)),
    "sorted": lambda x: (jnp.sort(x, 1) * jnp.arange(5.0)[None, :, None]).sum((0, 1, 2)),
    "largest": lambda x: lax.top_k(x, 2)[0].sum((0, 1, 2)),
    "norm": lambda x: (x / (1 + (x * x).sum(-1, keepdims=True))).sum((0, 1, 2)),
    "attention": lambda x: (jax.nn.softmax(x @ jnp.swapaxes(x, 1, 2)) @ x).sum((0, 1, 2)),
}


@pytest.mark.parametrize("place", PLACES)
def test_ranks_are_not_promoted(place):
    """What jax refuses under its strict option, no rule does."""
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 5, 3)))
    maxima = [rules.Radial(), rules.Shapley(), rules.SoftmaxLimit(2.0), rules.AbsoluteValue()]
    with jax.numpy_rank_promotion("raise"):
        for preset in ("compare_to_baseline", "deeplift_rescale"):
            relevance(PLACES[place], preset, baseline=x[:, ::-1] / 2)(x)
        for rule in maxima:
            explain = relevance(PLACES[place], RuleSet(maximum=rule))
            assert np.isfinite(explain(x)).all()
        jaxrel.audit(PLACES[place], "epsilon")(x)
