"""The models of the zoo written in other libraries: nnx, equinox and haiku."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.recipe import Recipe, Shape, shape


def _nnx(module: Callable[..., nnx.Module], x: Shape, **options: Any) -> Recipe:
    """The recipe of an nnx module: its state is the parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: module(rngs=nnx.Rngs(0), **options)))
    return Recipe(lambda state, x: nnx.merge(graph, state)(x), state, x)


class ConvBlock(nnx.Module):
    """Convolution, BatchNorm, ReLU, in evaluation mode."""

    def __init__(self, width_in: int, width_out: int, *, use_bias: bool, rngs: nnx.Rngs):
        self.conv = nnx.Conv(width_in, width_out, (3, 3), use_bias=use_bias, rngs=rngs)
        self.norm = nnx.BatchNorm(width_out, use_running_average=True, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to pictures."""
        return nnx.relu(self.norm(self.conv(x)))


class NNXConvNet(nnx.Module):
    """Blocks in a list, a pool after each."""

    def __init__(self, *, use_bias: bool, rngs: nnx.Rngs):
        widths = [(3, 4), (4, 6)]
        self.blocks = nnx.List([ConvBlock(*pair, use_bias=use_bias, rngs=rngs) for pair in widths])
        self.head = nnx.Linear(6, 3, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to logits."""
        for block in self.blocks:
            x = nnx.max_pool(block(x), (2, 2), (2, 2))
        return self.head(x.mean(axis=(1, 2)))


def nnx_cnn(bias: bool) -> Recipe:
    """A convolutional network in nnx."""
    return _nnx(NNXConvNet, shape(2, 8, 8, 3), use_bias=bias)


class NNXTransformer(nnx.Module):
    """One pre-norm block of attention and gelu network on embeddings."""

    def __init__(self, *, use_bias: bool, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(8, use_bias=use_bias, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=2, in_features=8, use_bias=use_bias, decode=False, rngs=rngs
        )
        self.norm2 = nnx.LayerNorm(8, use_bias=use_bias, rngs=rngs)
        self.up = nnx.Linear(8, 16, use_bias=use_bias, rngs=rngs)
        self.down = nnx.Linear(16, 8, use_bias=use_bias, rngs=rngs)
        self.head = nnx.Linear(8, 3, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, tokens, width) to logits."""
        x = x + self.attention(self.norm1(x))
        x = x + self.down(nnx.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(axis=1))


def nnx_transformer(bias: bool) -> Recipe:
    """A transformer in nnx."""
    return _nnx(NNXTransformer, shape(2, 5, 8), use_bias=bias)


class EquinoxConvNet(eqx.Module):
    """A convolutional network on one picture, channels first, as equinox likes it."""

    conv1: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    mlp: eqx.nn.MLP

    def __init__(self, *, use_bias: bool, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, padding=1, use_bias=use_bias, key=keys[0])
        self.norm = eqx.nn.GroupNorm(2, 4)
        self.conv2 = eqx.nn.Conv2d(4, 6, 3, stride=2, use_bias=use_bias, key=keys[1])
        self.pool = eqx.nn.MaxPool2d(2, 1)
        self.mlp = eqx.nn.MLP(24, 3, 8, 1, use_bias=use_bias, use_final_bias=use_bias, key=keys[2])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (channels, height, width) to logits."""
        x = jax.nn.relu(self.norm(self.conv1(x)))
        x = self.pool(jax.nn.relu(self.conv2(x)))
        return self.mlp(x.ravel())


def equinox_cnn(bias: bool) -> Recipe:
    """A convolutional network in equinox, mapped over the batch; the module is its parameters."""
    net = eqx.filter_eval_shape(EquinoxConvNet, use_bias=bias, key=jax.random.key(0))
    params, static = eqx.partition(net, lambda leaf: isinstance(leaf, Shape))
    return Recipe(
        lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, shape(2, 3, 8, 8)
    )


def haiku_net(bias: bool) -> Recipe:
    """Convolutions, layer norm and linear layers in haiku."""

    def net(x: jax.Array) -> jax.Array:
        x = jax.nn.relu(hk.Conv2D(4, 3, with_bias=bias)(x))
        x = hk.LayerNorm(axis=-1, create_scale=True, create_offset=bias)(x)
        x = hk.avg_pool(
            jax.nn.gelu(hk.Conv2D(6, 3, 2, with_bias=bias)(x)), (2, 2, 1), (2, 2, 1), "VALID"
        )
        x = jnp.tanh(hk.Linear(8, with_bias=bias)(hk.Flatten()(x)))
        return hk.Linear(3, with_bias=bias)(x)

    transformed = hk.without_apply_rng(hk.transform(net))
    x = shape(2, 8, 8, 3)
    return Recipe(transformed.apply, jax.eval_shape(transformed.init, jax.random.key(0), x), x)
