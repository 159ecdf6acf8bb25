"""What a model of the zoo is made of: a function, shapes, and numbers drawn for the shapes.

A fresh network is too symmetric to test anything on: biases are zero, scales one, running means
zero. A rule that forgets a bias or mistakes a scale for its square passes unnoticed. So no model
is initialised; its parameters' *shapes* are traced and filled with numbers that have nothing
special about them. That also saves compiling some thirty initialisers.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Shape = jax.ShapeDtypeStruct

_CONSTANTS = {"bias", "b", "offset", "mean", "position", "token"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model before it has numbers.

    Attributes:
        fun: Maps (params, x) to (batch, classes).
        params: The shapes of the parameters, a pytree.
        x: The shapes of the explained input, a pytree.
    """

    fun: Callable[[Any, Any], jax.Array]
    params: Any
    x: Any


def shape(*sizes: int) -> Shape:
    """The shape of an array; its dtype is decided when numbers are drawn."""
    return Shape(sizes, jnp.float32)


def linen(module: nn.Module, x: Any) -> Recipe:
    """The recipe of a linen module that is called on x."""
    params = jax.eval_shape(module.init, jax.random.key(0), x)

    return Recipe(lambda params, x: jnp.asarray(module.apply(params, x)), params, x)


def parameters(shapes: Any, name: str, *, bias: bool, dtype: Any) -> Any:
    """Draws parameters for a tree of shapes.

    What an array is for is read off the name of its leaf, a convention that linen, nnx, equinox
    and haiku nearly share. Scales are positive and negative, variances positive, additive
    constants non-zero; everything else is a weight, normal with the variance of its fan-in.

    Args:
        shapes: A pytree of `jax.ShapeDtypeStruct`.
        name: Seeds the numbers, together with the path of each leaf.
        bias: Whether additive constants are non-zero; the other numbers do not depend on it.
        dtype: The dtype of all arrays.

    Returns:
        The pytree of arrays.
    """

    def draw(path: tuple[Any, ...], leaf: Shape) -> jax.Array:
        keys = jax.tree_util.keystr(path, simple=True, separator="/")
        # nnx variables keep their array in an attribute "value", which says nothing about it.
        role = keys.removesuffix("/value").split("/")[-1]
        rng = _generator(f"{name}/{keys}")
        # equinox calls the scale of a normalization "weight".
        if role == "scale" or (role == "weight" and len(leaf.shape) == 1):
            numbers = rng.uniform(0.5, 1.5, leaf.shape) * rng.choice([-1, 1], leaf.shape)
        elif role == "var":
            numbers = rng.uniform(0.5, 1.5, leaf.shape)
        elif role in _CONSTANTS:
            numbers = 0.3 * rng.normal(size=leaf.shape) * bias
        else:
            numbers = rng.normal(size=leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))
        return jnp.asarray(numbers.astype(dtype))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def inputs(shapes: Any, name: str, *, dtype: Any) -> Any:
    """Draws the explained input: normal numbers for a tree of shapes."""
    rng = _generator(name)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(dtype)), shapes)


def _generator(seed: str) -> np.random.Generator:
    """A generator of numbers that are the same in every process and on every platform."""
    return np.random.default_rng(zlib.crc32(seed.encode()))
