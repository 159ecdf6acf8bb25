"""A transformer of one block, apart: relevance is that of the words once they are looked up."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.networks.transformers import EncoderBlock
from experiments.planted.grammar import LENGTH, WORDS

WIDTH = 32


class Reader(nn.Module):
    """From words that are looked up to logits of two classes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, tokens, width) embeddings to (N, 2) logits."""
        normal = nn.initializers.normal(0.1)
        x = x + self.param("position", normal, (1, LENGTH, WIDTH))
        x = EncoderBlock(heads=2, expansion=2, name="block")(x)
        x = nn.LayerNorm(name="norm")(x)
        return nn.Dense(2, name="head")(x.mean(1))


def initial(seed: int) -> dict[str, Any]:
    """The parameters to begin with: `words`, (vocabulary, width), and the `reader`'s."""
    words, reader = jax.random.split(jax.random.key(seed))
    x = jnp.zeros((1, LENGTH, WIDTH))
    return {
        "words": 0.3 * jax.random.normal(words, (len(WORDS), WIDTH)),
        "reader": Reader().init(reader, x)["params"],
    }


def embed(params: Any, tokens: jax.Array) -> jax.Array:
    """Look words up: (N, tokens, width)."""
    return params["words"][tokens]


def read(params: Any, x: jax.Array) -> jax.Array:
    """The logits of words that are looked up."""
    return Reader().apply({"params": params["reader"]}, x)  # pyright: ignore[reportReturnType]
