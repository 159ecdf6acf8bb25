"""Google's Magika, which tells the type of a file by its bytes, in `flax.linen`.

The network reads the first and the last 1024 bytes, white space stripped. Each byte is embedded;
groups of four are normalized over the groups (not over features), one convolution reads five groups
at a time, and the largest of each of its 512 features decides.

The weights (Apache-2.0, Google) lie as an ONNX file inside the wheel of the PyPI package `magika`,
whose code and ONNX runtime are not needed:

    pip install --no-deps magika
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.data import onnx_file

HALF = 1024
"""Bytes read at the beginning, and at the end."""

PADDING = 256
"""The token for no byte, where a file is shorter."""

_BLOCK = 4096  # white space is stripped off so many bytes
_GROUP, _EMBEDDED, _FEATURES = 4, 64, 512
_PACKAGE = "magika"
_MODEL = "magika/models/standard_v3_3"
_WHERE = "MagikaV2/"
_WEIGHTS = {
    ("bytes", "embedding"): "Dense_0/einsum/Einsum:0",
    ("byte_bias",): "Dense_0/AddV2:0",
    ("group_norm", "scale"): "LayerNorm_0/Mul:0",
    ("group_norm", "bias"): "LayerNorm_0/AddV2_1:0",
    ("convolution", "kernel"): "Conv_0/Conv2D:0",
    ("convolution", "bias"): "Conv_0/AddV2:0",
    ("norm", "scale"): "LayerNorm_1/Mul:0",
    ("norm", "bias"): "LayerNorm_1/AddV2_1:0",
    ("head", "kernel"): "Dense_1/MatMul:0",
    ("head", "bias"): "Dense_1/AddV2:0",
}
"""Parameters, and the values in the file that are made by them."""


class Magika(nn.Module):
    """The network; `bytes` is the place to explain."""

    types: int = 214

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tell the types of files.

        Args:
            tokens: (files, 2048) integers from 0 to 256, as `encode` makes them.

        Returns:
            (files, types) float32 logits.
        """
        bias = self.param("byte_bias", nn.initializers.zeros, (_EMBEDDED,), jnp.float32)
        x = nn.gelu(nn.Embed(PADDING + 1, _EMBEDDED, name="bytes")(tokens) + bias)
        x = x.reshape(len(tokens), -1, _GROUP * _EMBEDDED)
        x = nn.LayerNorm(reduction_axes=1, feature_axes=1, name="group_norm")(x)
        x = nn.gelu(nn.Conv(_FEATURES, (5,), padding="VALID", name="convolution")(x))
        x = nn.LayerNorm(name="norm")(x.max(1))
        return nn.Dense(self.types, name="head")(x)


def encode(content: bytes) -> np.ndarray:
    """The bytes of a file that the network reads, (2048,) int32.

    Raises:
        ValueError: The file has less than 8 bytes beside white space.
    """
    first, last = content[:_BLOCK].lstrip()[:HALF], content[-_BLOCK:].rstrip()[-HALF:]
    if min(len(first), len(last)) < 8:
        raise ValueError("a file has 8 bytes at least")
    tokens = np.full(2 * HALF, PADDING, np.int32)
    tokens[: len(first)] = np.frombuffer(first, np.uint8)
    tokens[-len(last) :] = np.frombuffer(last, np.uint8)
    return tokens


def load_types() -> list[str]:
    """The names of the types, in the order of the logits."""
    return json.loads((package_path() / "config.min.json").read_text())["target_labels_space"]


def load_variables(path: Path | None = None) -> dict[str, Any]:
    """Load the trained weights as the variables of `Magika()`.

    Args:
        path: The ONNX file; by default the one in the installed package.

    Returns:
        `{"params": ...}` with float32 leaves.

    Raises:
        FileNotFoundError: The package is not installed, or there is no file at `path`.
        ValueError: The file is none of that network.
    """
    graph = onnx_file.read(package_path() / "model.onnx" if path is None else path)
    wanted = jax.eval_shape(Magika().init, jax.random.key(0), jnp.zeros((1, 2 * HALF), int))
    flat, tree = jax.tree_util.tree_flatten_with_path(wanted["params"])
    leaves = []
    for keys, leaf in flat:
        name = tuple(key.key for key in keys)
        found = graph.weight(_WHERE + _WEIGHTS[name])
        if name == ("convolution", "kernel"):  # (out, in, width, 1)
            found = found.transpose(2, 1, 0, 3)
        if found.size != leaf.size:
            raise ValueError(f"not the expected network: {name} has {found.size} numbers")
        leaves.append(jnp.asarray(found.reshape(leaf.shape), leaf.dtype))
    return {"params": jax.tree.unflatten(tree, leaves)}


def package_path() -> Path:
    """Locate the model in the installed package, without importing that package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        package = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        message = f"the weights are missing: pip install --no-deps {_PACKAGE}"
        raise FileNotFoundError(message) from None
    return Path(str(package.locate_file(_MODEL)))
