"""The same small convolutional network in flax's two libraries, as a function of parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

WIDTHS = (32, 64, 96)
Apply = Callable[[Any, jax.Array], jax.Array]


class Linen(nn.Module):
    """Three strided convolutions, the mean over the picture, and a matrix.

    Attributes:
        classes: Number of logits.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, S, S, 3) pictures from 0 to 1 to (N, classes) logits."""
        x = 2 * x - 1
        for width in WIDTHS:
            x = nn.relu(nn.Conv(width, (5, 5), 2)(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


class Nnx(nnx.Module):
    """The same.

    Args:
        classes: Number of logits.
        rngs: Where parameters are drawn from.
    """

    def __init__(self, classes: int, rngs: nnx.Rngs):
        sizes = zip((3, *WIDTHS), WIDTHS, strict=False)
        self.convs = nnx.List([nnx.Conv(a, b, (5, 5), 2, rngs=rngs) for a, b in sizes])
        self.head = nnx.Linear(WIDTHS[-1], classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """As `Linen`."""
        x = 2 * x - 1
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(x.mean((1, 2)))


def make(library: str, classes: int, size: int, seed: int) -> tuple[Any, Apply]:
    """Parameters, and the function that maps them and pictures to logits.

    Args:
        library: `linen` or `nnx`.
        classes: Number of logits.
        size: Of the pictures.
        seed: Of the parameters.
    """
    if library == "linen":
        network = Linen(classes)
        x = jnp.zeros((1, size, size, 3))
        return network.init(jax.random.key(seed), x), lambda params, x: network.apply(params, x)  # pyright: ignore[reportReturnType]
    graph, params = nnx.split(Nnx(classes, nnx.Rngs(seed)))
    return nnx.to_pure_dict(params), lambda params, x: nnx.merge(graph, nnx.State(params))(x)
