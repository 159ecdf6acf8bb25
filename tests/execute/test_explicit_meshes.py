"""On a mesh with Explicit axes, where types say how values are sharded, all is as on one device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrel import audit, expected, integrated, relevance, rulesets, smooth, training
from jaxrel.rules import Shapley
from tests.checks import assert_close

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 3, 6)).at[:, :, ::2].set(0)
W = jax.random.normal(jax.random.key(1), (6, 6))
PICTURES = jax.random.normal(KEY, (4, 6, 6, 2))
MASK = jnp.zeros((4, 6, 6, 1)).at[:, 1:3, 2:5].set(1)
LABELS = jnp.array([0, 1, 0, 1])


def fun(x):
    """Attention over three tokens, a mask, two maxima and a loop."""
    h = jnp.tanh(x @ W + 0.1)
    weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", h, h))
    h = jnp.maximum(jnp.einsum("bqk,bkd->bqd", weights, h), h * (h > 0.2)).max(1)
    return jax.lax.scan(lambda h, _: (jnp.sin(h @ W), None), h, length=2)[0].sum(-1)


def _amounts(x: Any) -> Any:
    found = audit(fun, "lrp")(x)
    return found.explained, found.amounts


SLOPE = relevance(fun, "slope")
RUNS: dict[str, Callable] = {
    "gradient": relevance(fun, "gradient"),
    "lrp": relevance(fun, "lrp"),
    "cp_lrp": relevance(fun, "cp_lrp"),
    "flat": relevance(fun, "epsilon_plus_flat"),
    "zbox": relevance(fun, rulesets.deep_taylor(-3.0, 3.0)),
    "shapley": relevance(fun, rulesets.RuleSet(maximum=Shapley())),
    "biases": relevance(fun, "slope", biases=True),
    "audit": _amounts,
    "baseline": relevance(fun, baseline=0.2),
    "reveal_cancel": relevance(fun, "deeplift_reveal_cancel", baseline=0.2),
    "integrated": integrated(SLOPE, 0.0, steps=3),
    "smooth": smooth(SLOPE, KEY, 0.1, n=3),
    "expected": expected(SLOPE, jnp.ones((2, 3, 6)), KEY, 3),
    "second order": jax.grad(lambda x: (relevance(fun, "lrp")(x) ** 2).sum()),
}


@pytest.mark.parametrize("name", RUNS)
def test_relevance_is_the_same(name: str) -> None:
    """On two devices and one; and the relevance of what is sharded is sharded like it."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    plain = jax.jit(RUNS[name])(X)
    with jax.set_mesh(mesh):
        sharded = jax.jit(RUNS[name])(jax.device_put(X, NamedSharding(mesh, P("batch"))))
    assert_close(sharded, plain, 1e-11)
    leaf = jax.tree.leaves(sharded)[0]
    assert leaf.ndim < 3 or leaf.sharding.spec[0] == "batch"


ELEMENTS: dict[str, Callable] = {
    "one class": relevance(lambda x: jnp.tanh(x[:, 0] @ W)[:, 1], "slope"),
    "one row and class": relevance(lambda x: jnp.tanh(x @ W)[:, 1, 2], baseline=0.2),
    "dimensions less": relevance(lambda x: jax.lax.squeeze(x[:, :1, 1:2], (1, 2)), "lrp"),
    "blamed": relevance(lambda x: jnp.tanh(x @ W + 0.1)[:, 1, 2], "epsilon", biases=True),
}


@pytest.mark.every_case
@pytest.mark.parametrize("name", ELEMENTS)
def test_no_mesh_need_be_set(name: str) -> None:
    """The batch alone says where it lies; of what is explained one element is taken."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    explain = jax.jit(ELEMENTS[name])
    found = explain(jax.device_put(X, NamedSharding(mesh, P("batch"))))
    assert_close(jax.device_get(found), jax.device_get(explain(X)), 1e-11)


def test_references_and_microbatches() -> None:
    """What training makes of a sharded batch."""

    def loss(w, x):
        return jnp.tanh(x @ w).mean()

    def run(pictures, mask, labels, x):
        return (
            training.another(KEY, labels),
            training.swap_background(KEY, pictures, mask, labels),
            training.accumulate(jax.value_and_grad(loss), 2)(W, x),
        )

    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    given = PICTURES, MASK, LABELS, X
    plain = run(*given)
    with jax.set_mesh(mesh):
        sharded = run(*(jax.device_put(a, NamedSharding(mesh, P("batch"))) for a in given))
    np.testing.assert_array_equal(sharded[0], plain[0])
    assert_close(sharded[1:], plain[1:])


def test_parameters_that_are_sharded() -> None:
    """Each device has some columns of a layer, and some rows of the next: constants count once."""
    mesh = jax.make_mesh((2, 2), ("b", "m"), axis_types=(AxisType.Explicit,) * 2)
    specs = {"w": P(None, "m"), "b": P("m"), "v": P("m", None), "c": P(), "x": P("b", None)}
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 4), "b": (4,), "v": (4, 2), "c": (2,), "x": (4, 6)}
    given = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}

    def network(out: Any) -> Callable:
        def fun(p):
            h = jnp.tanh(p["x"] @ p["w"] + p["b"])
            return jnp.sin(jnp.dot(h, p["v"], out_sharding=out) + p["c"]).sum(-1)

        return fun

    def run(fun: Callable) -> Callable:
        def explained(given):
            def of_x(x):
                return fun(given | {"x": x})

            books = audit(of_x, "lrp")(given["x"])
            return {
                "lrp": relevance(of_x, "lrp", biases=True)(given["x"]),
                "alpha_beta": relevance(of_x, "excitation_backprop", biases="total")(given["x"]),
                "deep_taylor": relevance(of_x, "deep_taylor", biases=True)(given["x"]),
                "parameters": relevance(fun, "slope", biases="total")(given),
                "books": (books.explained, books.amounts),
            }

        return jax.jit(explained)

    expected = run(network(None))(given)
    with jax.set_mesh(mesh):
        placed = {k: jax.device_put(v, NamedSharding(mesh, specs[k])) for k, v in given.items()}
        found = run(network(P("b", None)))(placed)
    for key in expected:
        assert_close(found[key], expected[key])


@pytest.mark.parametrize("arguments", [{"rules": "epsilon_plus_flat", "biases": True}, {}])
@pytest.mark.parametrize("transform", [jax.jit, lambda explain: explain])
def test_a_mesh_that_nobody_has_set(arguments: dict, transform: Callable) -> None:
    """The types of the arguments say which it is, as they do to jax.grad."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    x, w, bias = X.sum(1), W, jnp.arange(6.0)

    def net(w, bias, x):
        return jax.nn.relu(x @ w + bias).sum(-1)

    w_put = jax.device_put(w, NamedSharding(mesh, P(None, "model")))
    bias_put = jax.device_put(bias, NamedSharding(mesh, P("model")))
    x_put = jax.device_put(x, NamedSharding(mesh, P("data", None)))
    explain = transform(relevance(lambda x: net(w_put, bias_put, x), **arguments))
    want = relevance(lambda x: net(w, bias, x), **arguments)(x)
    assert_close(explain(x_put), want, 1e-11)
    books = audit(lambda x: net(w_put, bias_put, x), "lrp")(x_put)
    assert_close(books.amounts, audit(lambda x: net(w, bias, x), "lrp")(x).amounts, 1e-11)
