"""Full-size networks for the experiments, in plain `flax.linen`.

These are the architectures that relevance papers report on, written the way one writes them for
training and without a single concession to being explained: residual networks, VGG, a vision
transformer and a GPT-like decoder.

    net = ResNet50()
    variables = net.init(jax.random.key(0), images)
    relevance(net.apply, rules, argnums=1)(variables, images)

Every network takes three options besides its own sizes:

* `use_bias`: False leaves out every additive constant that a layer could learn. What stays is
  BatchNorm's running mean, which is state and not a parameter: zero until somebody trains it.
* `dtype`: the dtype to compute in; None promotes from inputs and parameters.
* `param_dtype`: the dtype to store parameters in.

All networks run in inference mode: BatchNorm takes its running averages, there is no dropout.
"""

from experiments.networks.convolutional import (
    VGG,
    VGG16,
    BasicBlock,
    BottleneckBlock,
    ResNet,
    ResNet50,
)
from experiments.networks.transformers import (
    CausalAttention,
    Decoder,
    DecoderBlock,
    EncoderBlock,
    ViT,
    ViTS,
    rotate,
)

__all__ = [
    "VGG",
    "VGG16",
    "BasicBlock",
    "BottleneckBlock",
    "CausalAttention",
    "Decoder",
    "DecoderBlock",
    "EncoderBlock",
    "ResNet",
    "ResNet50",
    "ViT",
    "ViTS",
    "rotate",
]
