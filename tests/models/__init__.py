"""A zoo of small models: the programs on which the library's invariants are tested.

    >>> model = build("resnet_basic", dtype=jnp.float32)
    >>> model.fun(model.params, model.x).shape
    (2, 3)

Every model is small enough to compile in about a second, a pure function of its parameters and
of the input that is explained, with a batch in front whose examples do not meet. Its numbers are
deterministic, have no symmetry of a fresh initialisation, and are the same in every dtype.

`build(name, bias=False)` leaves additive constants out: biases and offsets, running means, class
tokens and positions, and layers that are not 0 at 0 (softplus, sigmoid, GLU). Then f(0) = 0 for
every model. For the names in `BIAS_FREE` more is true: relevance is conserved exactly,

    sum(x * m) = f(x)

when nonlinearities take the slope f(x) / x, products are split half and half, and statistics of
normalizations and conditions of branches are constants. The other models have a softmax or
logistic gates inside, which are worth something at 0.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from tests.models import control, frameworks, linen, plain, recipe

_CONSERVING: dict[str, Callable[[bool], recipe.Recipe]] = {
    "mlp": linen.mlp,
    "mlp_gelu": linen.mlp_gelu,
    "mlp_mixed": linen.mlp_mixed,
    "cnn": linen.cnn,
    "resnet_basic": linen.resnet_basic,
    "resnet_bottleneck": linen.resnet_bottleneck,
    "densenet": linen.densenet,
    "unet": linen.unet,
    "mixer": linen.mixer,
    "gated": linen.gated,
    "pytree_input": linen.pytree_input,
    "shared_weights": linen.shared_weights,
    "siamese": linen.siamese,
    "nnx_cnn": frameworks.nnx_cnn,
    "equinox_cnn": frameworks.equinox_cnn,
    "haiku_net": frameworks.haiku_net,
    "lax_plain": plain.lax_plain,
    "graph": plain.graph,
    "state_space": plain.state_space,
    "control_flow": control.control_flow,
}

_OTHERS: dict[str, Callable[[bool], recipe.Recipe]] = {
    "vit": linen.vit,
    "decoder": linen.decoder,
    "decoder_scan": partial(linen.decoder, scan=True),
    "lstm": linen.lstm,
    "nnx_transformer": frameworks.nnx_transformer,
    "lax_attention": plain.lax_attention,
    "dot_product_attention": plain.dot_product_attention,
}

BIAS_FREE: tuple[str, ...] = tuple(_CONSERVING)
NAMES: tuple[str, ...] = (*_CONSERVING, *_OTHERS)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the zoo.

    Attributes:
        name: Its name in `NAMES`.
        fun: Maps (params, x) to a float array (batch, classes); pure.
        params: A pytree of floating-point arrays.
        x: The explained input, an array or a pytree of arrays.
        bias_free: Whether relevance is conserved exactly, as the module docstring says.
    """

    name: str
    fun: Callable[[Any, Any], jax.Array]
    params: Any
    x: Any
    bias_free: bool


@cache
def build(name: str, *, bias: bool = True, dtype: Any = jnp.float32) -> Model:
    """Builds a model by name; a second call returns the same object.

    Args:
        name: One of `NAMES`.
        bias: False leaves every additive constant out.
        dtype: The dtype of parameters, input and output; float64 needs `jax_enable_x64`. In
            float16, a CPU cannot run `jax.nn.dot_product_attention`, nor nnx attention, which
            calls it.

    Returns:
        The model.
    """
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"{jnp.dtype(dtype).name} needs jax_enable_x64")
    made = (_CONSERVING | _OTHERS)[name](bias)
    return Model(
        name=name,
        fun=made.fun,
        params=recipe.parameters(made.params, name, bias=bias, dtype=dtype),
        x=recipe.inputs(made.x, name, dtype=dtype),
        bias_free=not bias and name in _CONSERVING,
    )
