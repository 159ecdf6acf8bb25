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
    """

    classes: int = 2
    channels: Sequence[int] = CHANNELS
    kernels: Sequence[int] = KERNELS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) pictures with values in [0, 1] to (N, classes) logits."""
        x = 2 * x - 1
        for number, (features, kernel) in enumerate(zip(self.channels, self.kernels, strict=True)):
            x = nn.relu(PatchConv(features, kernel, name=f"conv_{number}")(x))
            self.sow("intermediates", "units", x)
        return nn.Dense(self.classes, name="classifier")(x.reshape(len(x), -1))


@functools.cache
def applied(network: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """A network as a function of parameters and pictures, always the same one."""
    return lambda params, x: network.apply({"params": params}, x)  # pyright: ignore


def apply(params: Any, x: jax.Array) -> jax.Array:
    """The logits of `Network()`."""
    return Network().apply({"params": params}, x)  # pyright: ignore[reportReturnType]


def before(params: Any, x: jax.Array, layer: int) -> jax.Array:
    """The features of `Network()` that go into a layer, 0 to 3; 0 is the pictures."""
    x = 2 * x - 1
    for number in range(layer):
        x = _convolved(params, x, number)
    return x


def after(params: Any, features: jax.Array, layer: int) -> jax.Array:
    """The logits of `Network()` from the features that go into a layer."""
    x = features
    for number in range(layer, len(CHANNELS)):
        x = _convolved(params, x, number)
    classifier = params["classifier"]
    return x.reshape(len(x), -1) @ classifier["kernel"] + classifier["bias"]


def _convolved(params: Any, x: jax.Array, number: int) -> jax.Array:
    layer = PatchConv(CHANNELS[number], KERNELS[number])
    return nn.relu(layer.apply({"params": params[f"conv_{number}"]}, x))  # pyright: ignore


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
