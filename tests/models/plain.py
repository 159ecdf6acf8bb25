"""The models of the zoo without a library: what people write by hand."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.models.recipe import Recipe, Shape, shape

Layer = Mapping[str, jax.Array]


def dense(layer: Layer, x: jax.Array) -> jax.Array:
    """An affine map of the last axis; a layer without "b" has no bias."""
    x = x @ layer["w"]
    return x + layer["b"] if "b" in layer else x


def dense_shapes(bias: bool, *sizes: int) -> dict[str, Shape]:
    """The parameters of `dense`: sizes are (in, out), or (layers, in, out) for a stack."""
    *stack, _, width = sizes
    return {"w": shape(*sizes)} | ({"b": shape(*stack, width)} if bias else {})


def swish(x: jax.Array) -> jax.Array:
    """Swish as its formula."""
    return x * jax.nn.sigmoid(x)


def elu(x: jax.Array) -> jax.Array:
    """Elu by selection; the inner one keeps the branch not taken from overflowing."""
    return jnp.where(x > 0, x, jnp.expm1(jnp.where(x > 0, 0.0, x)))


def layer_norm(x: jax.Array) -> jax.Array:
    """Layer norm as its formula, with a quotient by a standard deviation."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-5)


def lax_plain(bias: bool) -> Recipe:
    """Primitives with the arguments that layers hide; activations and norm by hand."""
    params = {
        "conv": {"w": shape(4, 3, 3, 2)} | ({"b": shape(4, 1, 1)} if bias else {}),
        "norm": {"scale": shape(4)},
        "mix": {"w": shape(4, 5, 2)},
        "local": {"w": shape(5, 2, 6)} | ({"b": shape(6)} if bias else {}),
        "out": {"w": shape(2, 6, 3)},
    }

    def fun(params: Any, x: jax.Array) -> jax.Array:
        x = lax.conv_general_dilated(
            x,
            params["conv"]["w"],
            window_strides=(1, 2),
            padding=((2, 0), (1, 1)),
            rhs_dilation=(2, 1),
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        x = elu(x + params["conv"]["b"] if bias else x)  # batch, channel 4, height 6, width 5
        lowest, zero = np.array(-np.inf, x.dtype), np.array(0, x.dtype)
        x = lax.reduce_window(x, lowest, lax.max, (1, 1, 3, 2), (1, 1, 1, 1), "VALID")
        x = lax.reduce_window(x, zero, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4
        x = params["norm"]["scale"] * layer_norm(x.transpose(0, 2, 3, 1))
        # Channel and height are contracted, in an odd order: batch, width 2, mix 5.
        x = swish(lax.dot_general(x, params["mix"]["w"], (((3, 1), (0, 2)), ((), ()))))
        # Every column has weights of its own, so width is a batch axis: width, batch, local 6.
        x = lax.dot_general(x, params["local"]["w"], (((2,), (0,)), ((1,), (1,))))
        x = jnp.square(jax.nn.relu(x + params["local"]["b"] if bias else x))
        return jnp.einsum("wbl,wlc->bc", x, params["out"]["w"])

    return Recipe(fun, params, shape(2, 3, 8, 8))


def softmax(x: jax.Array, *, live_maximum: bool) -> jax.Array:
    """Softmax as its formula; the maximum cancels, whether or not it is differentiated."""
    maximum = x.max(axis=-1, keepdims=True)
    x = jnp.exp(x - (maximum if live_maximum else lax.stop_gradient(maximum)))
    return x / x.sum(axis=-1, keepdims=True)


def lax_attention(bias: bool) -> Recipe:
    """Attention by hand, in two common dialects: masked by -inf, and with a live maximum."""
    layer = {name: dense_shapes(bias, 8, 8) for name in ("query", "key", "value", "out")}
    params = {"causal": layer, "full": layer, "head": dense_shapes(bias, 8, 3)}

    def attend(layer: Any, x: jax.Array, *, causal: bool) -> jax.Array:
        query, key, value = (
            dense(layer[name], x).reshape(*x.shape[:2], 2, 4) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(4)
        if causal:
            scores = jnp.where(np.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
        weights = softmax(scores, live_maximum=not causal)
        return dense(layer["out"], jnp.einsum("bhij,bjhd->bihd", weights, value).reshape(x.shape))

    def fun(params: Any, x: jax.Array) -> jax.Array:
        x = x + attend(params["causal"], x, causal=True)
        x = x + attend(params["full"], x, causal=False)
        return dense(params["head"], x.mean(axis=1))

    return Recipe(fun, params, shape(2, 5, 8))


def dot_product_attention(bias: bool) -> Recipe:
    """JAX's own attention, causal, two queries to a key: the grouped heads of recent decoders."""
    params = {
        "query": dense_shapes(bias, 8, 8),
        "key": dense_shapes(bias, 8, 4),
        "value": dense_shapes(bias, 8, 4),
        "head": dense_shapes(bias, 8, 3),
    }

    def fun(params: Any, x: jax.Array) -> jax.Array:
        query, key, value = (
            dense(params[name], x).reshape(*x.shape[:2], -1, 2)
            for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return dense(params["head"], x[:, -1] + mixed[:, -1].reshape(len(x), -1))

    return Recipe(fun, params, shape(2, 5, 8))


def graph(bias: bool) -> Recipe:
    """Message passing on a fixed graph: gather from the senders, scatter to the receivers."""
    senders = np.array([0, 1, 2, 3, 4, 0, 2], np.int32)
    receivers = np.array([1, 2, 3, 4, 0, 2, 4], np.int32)
    params = {
        "message1": dense_shapes(bias, 4, 6),
        "message2": dense_shapes(bias, 6, 6),
        "head": dense_shapes(bias, 6, 3),
    }

    def fun(params: Any, x: jax.Array) -> jax.Array:
        for name in ("message1", "message2"):
            received = jnp.zeros_like(x).at[:, receivers].add(x[:, senders])
            x = jax.nn.relu(dense(params[name], x + received))
        return dense(params["head"], x.sum(axis=1))

    return Recipe(fun, params, shape(2, 5, 4))


def state_space(bias: bool) -> Recipe:
    """A diagonal linear recurrence by parallel scan, and a gate: the core of S5 and its kin."""
    params = {
        "input": dense_shapes(bias, 4, 6),
        "decay": shape(6),
        "gate": dense_shapes(bias, 4, 6),
        "head": dense_shapes(bias, 6, 3),
    }

    def compose(
        first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    def fun(params: Any, x: jax.Array) -> jax.Array:
        drive = dense(params["input"], x)
        decay = jnp.broadcast_to(jax.nn.sigmoid(params["decay"]), drive.shape)
        _, state = lax.associative_scan(compose, (decay, drive), axis=1)
        return dense(params["head"], (state * jax.nn.silu(dense(params["gate"], x)))[:, -1])

    return Recipe(fun, params, shape(2, 6, 4))
