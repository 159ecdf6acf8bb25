"""Convolutional networks for pictures: ResNet and VGG."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax

from experiments.networks.options import Network


class BasicBlock(Network):
    """Two 3x3 convolutions and a shortcut, as in ResNet-18 and 34.

    Attributes:
        width: Channels of the convolutions.
        stride: Stride of the first convolution and of the shortcut.
    """

    expansion: ClassVar[int] = 1

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the block's resolution and channels."""
        conv = partial(nn.Conv, use_bias=False, **self.dtypes)
        norm = partial(nn.BatchNorm, use_running_average=True, **self.options)
        y = nn.relu(norm()(conv(self.width, (3, 3), self.stride)(x)))
        y = norm()(conv(self.width, (3, 3))(y))
        if x.shape != y.shape:
            x = conv(self.width, (1, 1), self.stride, name="shortcut")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class BottleneckBlock(Network):
    """A 3x3 convolution between two 1x1 convolutions and a shortcut, as in ResNet-50 and deeper.

    The stride sits on the 3x3 convolution ("version 1.5").

    Attributes:
        width: Channels of the 3x3 convolution; the output has four times as many.
        stride: Stride of the 3x3 convolution and of the shortcut.
    """

    expansion: ClassVar[int] = 4

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the block's resolution and channels."""
        conv = partial(nn.Conv, use_bias=False, **self.dtypes)
        norm = partial(nn.BatchNorm, use_running_average=True, **self.options)
        y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.width, (3, 3), self.stride)(y)))
        y = norm()(conv(self.width * self.expansion, (1, 1))(y))
        if x.shape != y.shape:
            x = conv(self.width * self.expansion, (1, 1), self.stride, name="shortcut")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(Network):
    """A residual network for pictures.

    Attributes:
        depths: Blocks of each stage; a stage has half the resolution of the one before.
        block: The kind of block.
        width: Width of the first stage; it doubles from stage to stage.
        classes: Number of logits.
    """

    depths: Sequence[int]
    block: type[BasicBlock] | type[BottleneckBlock] = BottleneckBlock
    width: int = 64
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures (batch, height, width, channels) to logits (batch, classes)."""
        x = nn.Conv(self.width, (7, 7), 2, use_bias=False, name="stem", **self.dtypes)(x)
        x = nn.BatchNorm(use_running_average=True, name="stem_norm", **self.options)(x)
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), "SAME")
        for stage, depth in enumerate(self.depths):
            for layer in range(depth):
                x = self.block(
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and layer == 0 else 1,
                    name=f"stage{stage}_block{layer}",
                    **self.options,
                )(x)
        return nn.Dense(self.classes, name="head", **self.options)(x.mean((1, 2)))


def ResNet50(**options: Any) -> ResNet:
    """ResNet-50: 25,557,032 parameters with 1000 classes."""
    return ResNet(depths=(3, 4, 6, 3), block=BottleneckBlock, **options)


class VGG(Network):
    """Stages of 3x3 convolutions between max pools, then dense layers.

    Attributes:
        depths: Convolutions of each stage.
        widths: Channels of each stage.
        hidden: Widths of the dense layers before the logits.
        classes: Number of logits.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    hidden: Sequence[int] = (4096, 4096)
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures (batch, height, width, channels) to logits (batch, classes)."""
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for layer in range(depth):
                name = f"stage{stage}_conv{layer}"
                x = nn.relu(nn.Conv(width, (3, 3), name=name, **self.options)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for layer, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"dense{layer}", **self.options)(x))
        return nn.Dense(self.classes, name="head", **self.options)(x)


def VGG16(**options: Any) -> VGG:
    """VGG-16: 138,357,544 parameters with 1000 classes and 224x224 pictures."""
    return VGG(depths=(2, 2, 3, 3, 3), widths=(64, 128, 256, 512, 512), **options)
