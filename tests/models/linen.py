"""The linen models of the zoo: one layer family or one way of wiring each."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.networks import BasicBlock, BottleneckBlock, Decoder, ResNet, ViT
from tests.models.recipe import Recipe, linen, shape

Activation = Callable[[jax.Array], jax.Array]


class MLP(nn.Module):
    """Dense layers, each with an activation of its own, then logits."""

    activations: Sequence[Activation]
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, features) to logits."""
        for activation in self.activations:
            x = activation(nn.Dense(8, use_bias=self.use_bias)(x))
        return nn.Dense(3, use_bias=self.use_bias)(x)


def mlp(bias: bool) -> Recipe:
    """The plain ReLU network."""
    return linen(MLP((nn.relu, nn.relu), bias), shape(3, 6))


def mlp_gelu(bias: bool) -> Recipe:
    """Gelu three ways: by tanh, by erf, and the quick one by a logistic."""

    def quick_gelu(x: jax.Array) -> jax.Array:
        return x * nn.sigmoid(1.702 * x)

    exact = partial(nn.gelu, approximate=False)
    return linen(MLP((nn.gelu, exact, quick_gelu), bias), shape(3, 6))


def mlp_mixed(bias: bool) -> Recipe:
    """Many nonlinearities, and with biases also those that are not 0 at 0."""
    at_zero = (nn.tanh, nn.silu, nn.elu, nn.selu)
    elsewhere = (nn.softplus, nn.sigmoid) if bias else ()
    return linen(MLP(at_zero + elsewhere, bias), shape(3, 6))


class CNN(nn.Module):
    """Convolutions with stride, dilation and groups; three kinds of pooling; leaky ReLU."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to logits."""
        conv = partial(nn.Conv, use_bias=self.use_bias)
        x = nn.leaky_relu(conv(8, (5, 3), strides=(2, 1))(x), 0.1)
        x = nn.max_pool(x, (3, 3), (1, 2), "SAME")
        x = nn.leaky_relu(conv(8, (3, 3), kernel_dilation=2, feature_group_count=2)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.leaky_relu(conv(6, (3, 3), padding="CIRCULAR")(x))
        x = nn.avg_pool(x, (2, 2), (1, 1), "SAME")
        x = x.reshape(len(x), -1)
        return nn.Dense(3, use_bias=self.use_bias)(x)


def cnn(bias: bool) -> Recipe:
    """A convolutional network."""
    return linen(CNN(bias), shape(2, 12, 12, 3))


def resnet_basic(bias: bool) -> Recipe:
    """A ResNet of basic blocks, one of them with a convolution on its shortcut."""
    net = ResNet(depths=(1, 1), block=BasicBlock, width=4, classes=3, use_bias=bias)
    return linen(net, shape(2, 16, 16, 3))


def resnet_bottleneck(bias: bool) -> Recipe:
    """A ResNet of bottleneck blocks, one of them with an identity on its shortcut."""
    net = ResNet(depths=(2,), block=BottleneckBlock, width=4, classes=3, use_bias=bias)
    return linen(net, shape(2, 16, 16, 3))


def vit(bias: bool) -> Recipe:
    """A vision transformer; its class token and positions count as biases."""
    net = ViT(
        depth=2,
        width=8,
        heads=2,
        patch=4,
        pool="token" if bias else "mean",
        positions=bias,
        classes=3,
        use_bias=bias,
    )
    return linen(net, shape(2, 8, 8, 3))


def decoder(bias: bool, *, scan: bool = False) -> Recipe:
    """A decoder: RMSNorm, rotary positions, causal attention, SwiGLU."""
    net = Decoder(depth=2, heads=2, expansion=2, vocabulary=5, scan=scan, use_bias=bias)
    return linen(net, shape(2, 5, 8))


class LSTM(nn.Module):
    """A recurrent network that reads a sequence to its end."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, time, features) to logits."""
        # The initial carry has the parameters' dtype, and a scan's carry cannot be promoted.
        # The orthogonal initializer, which is the default, does not know 16-bit types.
        kernel = nn.initializers.lecun_normal()
        cell = nn.OptimizedLSTMCell(6, param_dtype=x.dtype, recurrent_kernel_init=kernel)
        states = jnp.asarray(nn.RNN(cell)(x))
        return nn.Dense(3)(states[:, -1])


def lstm(bias: bool) -> Recipe:
    """An LSTM; the cell always has biases, which are zeros when there is to be none."""
    del bias
    return linen(LSTM(), shape(2, 5, 4))


class Mixer(nn.Module):
    """An MLP-Mixer block: a network across the patches, then one across the channels."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to logits."""
        dense = partial(nn.Dense, use_bias=self.use_bias)
        norm = partial(nn.LayerNorm, use_bias=self.use_bias)
        x = nn.Conv(8, (4, 4), (4, 4), use_bias=self.use_bias)(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        y = norm()(x).swapaxes(1, 2)
        x = x + dense(x.shape[1])(nn.gelu(dense(6)(y))).swapaxes(1, 2)
        x = x + dense(x.shape[2])(nn.gelu(dense(6)(norm()(x))))
        return dense(3)(norm()(x).mean(axis=1))


def mixer(bias: bool) -> Recipe:
    """An MLP-Mixer."""
    return linen(Mixer(bias), shape(2, 8, 8, 3))


class UNet(nn.Module):
    """Down by strided convolutions, up by transposed ones, skips by concatenation, GroupNorm."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to the mean of their class maps."""
        conv = partial(nn.Conv, kernel_size=(3, 3), use_bias=self.use_bias)
        up = partial(nn.ConvTranspose, strides=(2, 2), use_bias=self.use_bias)
        norm = partial(nn.GroupNorm, num_groups=2, use_bias=self.use_bias)
        fine = nn.silu(norm()(conv(4)(x)))
        middle = nn.silu(norm()(conv(6, strides=2)(fine)))
        coarse = nn.silu(norm()(conv(8, strides=2)(middle)))
        middle = jnp.concatenate([up(6, (2, 2))(coarse), middle], axis=-1)
        middle = nn.silu(norm()(conv(6)(middle)))
        fine = jnp.concatenate([up(4, (3, 3))(middle), fine], axis=-1)
        return conv(3)(fine).mean(axis=(1, 2))


def unet(bias: bool) -> Recipe:
    """A U-Net."""
    return linen(UNet(bias), shape(2, 8, 8, 3))


class DenseNet(nn.Module):
    """Every layer reads the concatenation of all features before it; norm comes before conv."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures to logits."""
        norm = partial(nn.BatchNorm, use_running_average=True, use_bias=self.use_bias)
        for _ in range(3):
            y = nn.Conv(4, (3, 3), use_bias=False)(nn.relu(norm()(x)))
            x = jnp.concatenate([x, y], axis=-1)
        x = nn.avg_pool(nn.relu(norm()(x)), (2, 2), (2, 2))
        return nn.Dense(3, use_bias=self.use_bias)(x.mean(axis=(1, 2)))


def densenet(bias: bool) -> Recipe:
    """A DenseNet, whose BatchNorm has no convolution before it to be folded into."""
    return linen(DenseNet(bias), shape(2, 8, 8, 3))


class Gated(nn.Module):
    """Gated linear units side by side, with the gates that language and vision models use."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, features) to logits."""
        dense = partial(nn.Dense, use_bias=self.use_bias)
        gates = (nn.silu, nn.gelu, nn.hard_swish, jax.nn.mish)
        units = [gate(dense(4)(x)) * dense(4)(x) for gate in gates]
        if self.use_bias:
            # The logistic is 1/2 at 0: no network with this gate is free of constants.
            units.append(nn.glu(dense(8)(x)))
        return dense(3)(jnp.concatenate(units, axis=-1))


def gated(bias: bool) -> Recipe:
    """SwiGLU, GEGLU and their like, and with biases also GLU."""
    return linen(Gated(bias), shape(3, 6))


class Fusion(nn.Module):
    """A picture and a table row; the row modulates the picture's features and joins them."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: dict[str, jax.Array]) -> jax.Array:
        """Maps {"image": pictures, "tabular": rows} to logits."""
        dense = partial(nn.Dense, use_bias=self.use_bias)
        image = nn.relu(nn.Conv(6, (3, 3), use_bias=self.use_bias)(x["image"]))
        image = image * dense(6)(x["tabular"])[:, None, None, :]
        image = nn.max_pool(image, (2, 2), (2, 2)).mean(axis=(1, 2))
        tabular = nn.gelu(dense(6)(x["tabular"]))
        return dense(3)(jnp.concatenate([image, tabular], axis=-1))


def pytree_input(bias: bool) -> Recipe:
    """A model whose explained input is a dict of two arrays of different rank."""
    return linen(Fusion(bias), {"image": shape(2, 8, 8, 3), "tabular": shape(2, 5)})


class Tied(nn.Module):
    """One Dense applied twice in a row, and once more as its own transpose."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, features) to logits."""
        shared = nn.Dense(6, use_bias=self.use_bias, name="shared")
        x = nn.relu(shared(x))
        x = x + nn.tanh(shared(x))
        kernel = shared.variables["params"]["kernel"]
        return nn.Dense(3, use_bias=self.use_bias)(nn.relu(x @ kernel.T))


def shared_weights(bias: bool) -> Recipe:
    """A network with tied weights."""
    return linen(Tied(bias), shape(3, 6))


class Siamese(nn.Module):
    """The squared distances of two inputs in a few embeddings."""

    use_bias: bool

    @nn.compact
    def __call__(self, x: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Maps two (batch, features) to distances (batch, embeddings)."""
        hidden = nn.Dense(8, use_bias=self.use_bias)
        embed = nn.DenseGeneral((3, 4), use_bias=False)  # A bias would cancel.
        left, right = (embed(nn.relu(hidden(side))) for side in x)
        return jnp.square(left - right).sum(axis=-1)


def siamese(bias: bool) -> Recipe:
    """A network of two inputs that compares them."""
    return linen(Siamese(bias), (shape(3, 6), shape(3, 6)))
