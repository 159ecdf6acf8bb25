"""Relevance propagation as one reads it in the papers: explicit layers, relevance itself, numpy.

An independent restatement, to hold `jaxrel` against. A network is a list of layers whose matrices
are written out (a convolution is a matrix too), and what goes back through them is relevance R:

    affine     R_i = sum_j x_i w_ij / S(z_j) R_j    (normalized: eq. 6 of Samek 2015)
               R_one = sum_j b_j / S(z_j) R_j       (the bias as a one)
    f(x)       R_x = R_y                            (ignored)
    maximum    R_winner = R_y                       (of neighbours, two by two)

with S(z) = z + blip sgn z. With a baseline all x, z are differences to their values there, and the
maximum of two is taken apart into (a + b) / 2 + |a - b| / 2, whose pieces follow the lines above.
No multiplier anywhere, no slope, and every division that multipliers make unnecessary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NONLINEARITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
}
"""Each by the name that `jax.nn` has for it."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """z = W x + b, with W of shape (outputs, inputs)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The values z."""
        return self.weight @ x + self.bias


@dataclasses.dataclass(frozen=True)
class Elementwise:
    """y = f(x)."""

    name: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The values y."""
        return NONLINEARITIES[self.name](x)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The maximum of each two neighbours."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The maxima."""
        return x.reshape(-1, 2).max(-1)


Layer = Affine | Elementwise | Pairs


def propagate(
    layers: Sequence[Layer],
    x: np.ndarray,
    *,
    blip: float = 0.0,
    bias: bool = True,
    baseline: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[float]]:
    """Sends the network's value back to its input.

    Args:
        layers: The network, from input to output.
        x: Its input, flat.
        blip: The jump of the denominators at 0.
        bias: Whether biases are in the denominators, and so take their part.
        baseline: What the input is compared to; biases then cancel.

    Returns:
        Relevance of the values at each boundary, from the input (first) to the output (last), and
        for each layer the relevance of its ones.
    """
    here = _values(layers, x)
    there = [np.zeros_like(v) for v in here] if baseline is None else _values(layers, baseline)
    relevances, ones = [here[-1] - there[-1]], []
    for k, layer in reversed(list(enumerate(layers))):
        r, one = relevances[0], 0.0
        if isinstance(layer, Affine):
            change = here[k] - there[k]
            z = layer.weight @ change
            if bias and baseline is None:
                z = z + layer.bias
                one = float(np.sum(layer.bias / stabilized(z, blip) * r))
            r = (layer.weight * change / stabilized(z, blip)[:, None]).T @ r
        elif isinstance(layer, Pairs):
            pairs = here[k].reshape(-1, 2)
            if baseline is None:
                r = (np.where(pairs == pairs.max(-1, keepdims=True), r[:, None], 0)).ravel()
            else:
                r = _between(pairs, there[k].reshape(-1, 2), r).ravel()
        relevances.insert(0, r)
        ones.insert(0, one)
    return relevances, ones


def stabilized(z: np.ndarray, blip: float) -> np.ndarray:
    """A straight line of slope 1 but for a jump at 0."""
    return z + blip * np.where(z < 0, -1.0, 1.0)


def _values(layers: Sequence[Layer], x: np.ndarray) -> list[np.ndarray]:
    values = [x]
    for layer in layers:
        values.append(layer(values[-1]))
    return values


def _between(pairs: np.ndarray, origin: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The maximum of two against a baseline: half their sum, and half their distance."""
    change = pairs - origin
    distance, distance0 = (v[:, 0] - v[:, 1] for v in (pairs, origin))
    rise = (np.abs(distance) - np.abs(distance0)) / 2
    total = change.sum(-1) / 2 + rise
    of_sum = change / 2 / total[:, None] * r[:, None]
    signs = np.array([1.0, -1.0])
    of_distance = signs * change / (distance - distance0)[:, None] * (rise / total * r)[:, None]
    return of_sum + of_distance


@dataclasses.dataclass(frozen=True)
class Network:
    """A convolution, maxima of two channels, two dense layers: as a JAX function and as layers.

    Attributes:
        kernel: (3, 3, 1, 4) of the convolution, on pictures of 6 x 6.
        dense, head: (10, 32) and (1, 10).
        biases: (4,), (10,), (1,); zeros where there are none.
        nonlinearities: after the convolution and after the dense layer.
    """

    kernel: np.ndarray
    dense: np.ndarray
    head: np.ndarray
    biases: tuple[np.ndarray, np.ndarray, np.ndarray]
    nonlinearities: tuple[str, str] = ("tanh", "silu")

    @classmethod
    def random(
        cls,
        seed: int,
        biases: bool = True,
        nonlinearities: tuple[str, str] = ("tanh", "silu"),
    ) -> Network:
        """A network with normal weights in float64; the same weights with and without biases."""
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(3, 3, 1, 4)) / 3
        dense, head = (rng.normal(size=s) / s[1] ** 0.5 for s in ((10, 32), (1, 10)))
        b = [rng.normal(size=n) * 0.3 * biases for n in (4, 10, 1)]
        return cls(kernel, dense, head, (b[0], b[1], b[2]), nonlinearities)

    @staticmethod
    def inputs(seed: int, count: int) -> np.ndarray:
        """Random pictures, (count, 6, 6, 1)."""
        return np.random.default_rng((seed, 1)).normal(size=(count, 6, 6, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """The value, (1,), of one picture (6, 6, 1); biases of 0 are not added."""
        first, second = (getattr(jax.nn, name) for name in self.nonlinearities)
        with jax.named_scope("conv"):
            x = self._biased(_convolve(x, self.kernel), 0)
        with jax.named_scope(self.nonlinearities[0]):
            x = first(x)
        with jax.named_scope("maximum"):
            x = x.reshape(-1, 2).max(-1)
        with jax.named_scope("dense"):
            x = self._biased(jnp.matmul(self.dense, x), 1)
        with jax.named_scope(self.nonlinearities[1]):
            x = second(x)
        with jax.named_scope("head"):
            return self._biased(jnp.matmul(self.head, x), 2)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the layers, from input to output."""
        first, second = self.nonlinearities
        return ("conv", first, "maximum", "dense", second, "head")

    def layers(self) -> list[Layer]:
        """The same network with its convolution written out as a matrix."""
        zeros = jnp.zeros((6, 6, 1))
        matrix = jax.jacobian(lambda x: _convolve(x, self.kernel).ravel())(zeros)
        first, second = self.nonlinearities
        return [
            Affine(np.asarray(matrix).reshape(64, 36), np.tile(self.biases[0], 16)),
            Elementwise(first),
            Pairs(),
            Affine(self.dense, self.biases[1]),
            Elementwise(second),
            Affine(self.head, self.biases[2]),
        ]

    def _biased(self, z: Any, k: int) -> Any:
        return z + self.biases[k] if np.any(self.biases[k]) else z


def _convolve(x: jax.Array, kernel: np.ndarray) -> jax.Array:
    weights = jnp.asarray(kernel)
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], weights, (1, 1), "VALID", dimension_numbers=axes)[
        0
    ]
