"""Transformers: a vision transformer and a GPT-like decoder."""

import math
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.networks.options import Network


class EncoderBlock(Network):
    """Self-attention and a gelu network, each behind a LayerNorm and beside a residual.

    Attributes:
        heads: Attention heads.
        expansion: Width of the hidden layer over the width of the block.
    """

    heads: int
    expansion: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, tokens, width) to the same shape."""
        width = x.shape[-1]
        y = nn.LayerNorm(name="attention_norm", **self.options)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="attention", **self.options)(y)
        y = nn.LayerNorm(name="mlp_norm", **self.options)(x)
        y = nn.gelu(nn.Dense(width * self.expansion, name="up", **self.options)(y))
        return x + nn.Dense(width, name="down", **self.options)(y)


class ViT(Network):
    """A vision transformer.

    The class token and the position embedding are additive constants as much as any bias; a
    network free of such constants is `ViT(use_bias=False, pool="mean", positions=False)`.

    Attributes:
        depth: Number of blocks.
        width: Width of the tokens.
        heads: Attention heads.
        patch: Side of the square patches.
        pool: Whether the logits read a class token or the mean of all tokens.
        positions: Whether learned position embeddings are added.
        classes: Number of logits.
    """

    depth: int
    width: int
    heads: int
    patch: int = 16
    pool: Literal["token", "mean"] = "token"
    positions: bool = True
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures (batch, height, width, channels) to logits (batch, classes)."""
        patch = (self.patch, self.patch)
        x = nn.Conv(self.width, patch, patch, "VALID", name="embedding", **self.options)(x)
        x = x.reshape(len(x), -1, self.width)
        normal = nn.initializers.normal(0.02)
        if self.pool == "token":
            token = self.param("token", normal, (1, 1, self.width), self.param_dtype)
            token = jnp.broadcast_to(token, (len(x), 1, self.width)).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
        if self.positions:
            x = x + self.param("position", normal, (1, *x.shape[1:]), self.param_dtype)
        for layer in range(self.depth):
            x = EncoderBlock(heads=self.heads, name=f"layer{layer}", **self.options)(x)
        x = nn.LayerNorm(name="norm", **self.options)(x)
        x = x[:, 0] if self.pool == "token" else x.mean(axis=1)
        return nn.Dense(self.classes, name="head", **self.options)(x)


def ViTS(**options: Any) -> ViT:
    """ViT-S/16: 22,050,664 parameters with 1000 classes and 224x224 pictures."""
    return ViT(depth=12, width=384, heads=6, **options)


def rotate(x: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Rotary position embedding: turns pairs of features by an angle linear in the position.

    Args:
        x: Queries or keys (batch, tokens, heads, width), width even.
        base: The lowest frequency is about 1 / base.

    Returns:
        The rotated x.
    """
    tokens, width = x.shape[1], x.shape[-1]
    frequency = base ** (-jnp.arange(0, width, 2) / width)
    angle = jnp.arange(tokens)[:, None, None] * frequency
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    real, imaginary = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)


class CausalAttention(Network):
    """Self-attention with rotary positions, each token looking at itself and those before it.

    Attributes:
        heads: Attention heads.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, tokens, width) to the same shape."""
        _, tokens, width = x.shape
        head = width // self.heads
        project = partial(nn.DenseGeneral, (self.heads, head), **self.options)
        query, key = rotate(project(name="query")(x)), rotate(project(name="key")(x))
        value = project(name="value")(x)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(head)
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))
        scores = jnp.where(causal, scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), value)
        return nn.DenseGeneral(width, axis=(-2, -1), name="out", **self.options)(mixed)


class DecoderBlock(Network):
    """Causal attention and a SwiGLU network, each behind an RMSNorm and beside a residual.

    Attributes:
        heads: Attention heads.
        expansion: Width of the hidden layer over the width of the block.
    """

    heads: int
    expansion: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        """Maps (batch, tokens, width) to the same shape, in the signature of a scan's body."""
        width = x.shape[-1]
        y = nn.RMSNorm(name="attention_norm", **self.dtypes)(x)
        x = x + CausalAttention(heads=self.heads, name="attention", **self.options)(y)
        y = nn.RMSNorm(name="mlp_norm", **self.dtypes)(x)
        gate = nn.Dense(width * self.expansion, name="gate", **self.options)(y)
        up = nn.Dense(width * self.expansion, name="up", **self.options)(y)
        return x + nn.Dense(width, name="down", **self.options)(nn.silu(gate) * up), None


class Decoder(Network):
    """A GPT-like decoder on embeddings: logits of the token after the last one.

    It takes embeddings and not token ids because they are what is explained; look tokens up
    outside of it.

    Attributes:
        depth: Number of blocks.
        heads: Attention heads; the width is that of the embeddings.
        expansion: Width of the hidden layers over the width of the embeddings.
        vocabulary: Number of logits.
        scan: Whether the blocks are one `nn.scan` over stacked parameters, each block
            rematerialised, instead of an unrolled loop. The values are the same; trace and
            compile time no longer grow with the depth.
    """

    depth: int
    heads: int
    expansion: int = 4
    vocabulary: int = 50_257
    scan: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps embeddings (batch, tokens, width) to logits (batch, vocabulary)."""
        sizes = {"heads": self.heads, "expansion": self.expansion}
        if self.scan:
            layers = nn.scan(
                # A loop's body is not merged with its recomputation anyway: no barrier needed.
                nn.remat(DecoderBlock, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )
            x, _ = layers(name="layers", **sizes, **self.options)(x, None)
        else:
            for layer in range(self.depth):
                x, _ = DecoderBlock(name=f"layer{layer}", **sizes, **self.options)(x)
        x = nn.RMSNorm(name="norm", **self.dtypes)(x[:, -1])
        return nn.Dense(self.vocabulary, name="head", **self.options)(x)
