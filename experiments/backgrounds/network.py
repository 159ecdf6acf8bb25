"""The network of the background experiments: three strided convolutions of 16, 32, 64 channels.

A convolution is written as the product of a matrix and the patches under it, cut out by strided
slices. It is the same function as `flax.linen.Conv`, and `jaxrel` finds the same affine map in it;
but XLA's convolutions on a CPU are slow where a gradient is differentiated (47 ms for a step that
takes 8 ms this way), and very slow inside loops.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

CHANNELS = (16, 32, 64)
KERNELS = (5, 3, 3)


class PatchConv(nn.Module):
    """A convolution of stride 2 with zero padding.

    Attributes:
        features: Number of output channels.
        kernel: Its height and width, odd.
    """

    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), features)."""
        size, stride = self.kernel, 2
        padding = size // 2
        padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        height, width = (-(-side // stride) for side in x.shape[1:3])
        patches = [
            padded[:, i : i + stride * height - 1 : stride, j : j + stride * width - 1 : stride]
            for i in range(size)
            for j in range(size)
        ]
        dense = nn.Dense(self.features, kernel_init=nn.initializers.he_normal(), name="filters")
        return dense(jnp.concatenate(patches, axis=-1))


class Network(nn.Module):
    """A small classifier of grey pictures.

    Attributes:
        classes: Number of logits.
        channels: Of the convolutions.
        kernels: Their height and width.
        start: The first convolution; from 1 on its features go in instead of pictures.
        stop: The layer whose features are returned; None: to the logits.
    """

    classes: int = 2
    channels: Sequence[int] = CHANNELS
    kernels: Sequence[int] = KERNELS
    start: int = 0
    stop: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) pictures with values in [0, 1] to (N, classes) logits."""
        x = x if self.start else 2 * x - 1
        layers = list(enumerate(zip(self.channels, self.kernels, strict=True)))
        for number, (features, kernel) in layers[self.start : self.stop]:
            x = nn.relu(PatchConv(features, kernel, name=f"conv_{number}")(x))
            self.sow("intermediates", "units", x)
        if self.stop is not None:
            return x
        return nn.Dense(self.classes, name="classifier")(x.reshape(len(x), -1))


@functools.cache
def applied(network: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """A network as a function of parameters and pictures, always the same one."""
    return lambda params, x: network.apply({"params": params}, x)  # pyright: ignore


def apply(params: Any, x: jax.Array) -> jax.Array:
    """The logits of `Network()`."""
    return Network().apply({"params": params}, x)  # pyright: ignore[reportReturnType]


def before(params: Any, x: jax.Array, layer: int) -> jax.Array:
    """The features of `Network()` that go into a layer, 1 to 3."""
    return Network(stop=layer).apply({"params": params}, x)  # pyright: ignore[reportReturnType]


def after(params: Any, features: jax.Array, layer: int) -> jax.Array:
    """The logits of `Network()` from the features that go into a layer."""
    return Network(start=layer).apply({"params": params}, features)  # pyright: ignore


def share(masks: jax.Array, layer: int) -> jax.Array:
    """How much of what each feature sees is animal, (N, h, w, 1), on average over the windows."""
    for size in KERNELS[:layer]:
        around = ((size // 2, size // 2),) * 2
        masks = nn.avg_pool(masks, (size, size), (2, 2), around, count_include_pad=False)  # pyright: ignore
    return masks


def units(params: Any, x: jax.Array) -> jax.Array:
    """The last hidden layer, (N, units)."""
    state: Any = Network().apply({"params": params}, x, mutable="intermediates")[1]
    return state["intermediates"]["units"][-1].reshape(len(x), -1)
