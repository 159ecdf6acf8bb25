"""EfficientNet-Lite0 in two parts: what is kept as ImageNet left it, and what is trained.

Kept are the stem, the first five of sixteen blocks, all depthwise filters and the stored
statistics of the batch norms. So what the first part gives for a picture, (12, 12, 40) features at
96 pixels, is computed once. The classifier begins at 0.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.data.imagenet import normalize
from experiments.networks.efficientnet import EfficientNetLite0, load_variables

FIRST = 5
"""The first block that is trained."""


@functools.cache
def variables() -> dict[str, Any]:
    """The trained weights, with a classifier of two classes."""
    found = load_variables()
    width = found["params"]["classifier"]["kernel"].shape[0]
    head = {"kernel": jnp.zeros((width, 2)), "bias": jnp.zeros(2)}
    return {**found, "params": {**found["params"], "classifier": head}}


def trained() -> dict[str, jax.Array]:
    """The parameters that are trained, by path."""
    flat: Any = flatten_dict(variables()["params"], sep="/")
    return {path: leaf for path, leaf in flat.items() if _trains(path)}


def _trains(path: str) -> bool:
    """Whether a parameter is trained."""
    module = path.split("/")[0]
    block = int(module.removeprefix("block_")) if module.startswith("block_") else None
    late = block >= FIRST if block is not None else module != "stem"
    return late and not path.endswith("depthwise/conv/kernel")


def logits(params: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    """The second part: (N, 2) logits of features."""
    known = variables()
    every = {**flatten_dict(known["params"], sep="/"), **params}
    whole = {"params": unflatten_dict(every, sep="/"), "batch_stats": known["batch_stats"]}
    return EfficientNetLite0(classes=2, start=FIRST, shifts=True).apply(whole, features)  # pyright: ignore


@jax.jit
def _first_part(variables: Any, x: jax.Array) -> Any:
    return EfficientNetLite0(classes=2, stop=FIRST, shifts=True).apply(variables, x)


def features(images: np.ndarray, batch: int = 40) -> np.ndarray:
    """The first part, of pictures (N, H, W, 3) from 0 to 1."""
    x = normalize(255 * images)
    known = variables()
    parts = [_first_part(known, x[k : k + batch]) for k in range(0, len(x), batch)]
    return np.concatenate([np.asarray(part) for part in parts])
