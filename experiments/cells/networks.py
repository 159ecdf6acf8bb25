"""Networks that are trained on digits with single cells set to 0, as IDSDS asks.

Hesse, Schaub-Meyer, Roth, "Benchmarking the Attribution Quality of Vision Models" (NeurIPS 2024):
where a network has never seen a part missing, what it says without it is no measure of that part.
So with probability 1/2 one of the 4 x 4 cells of a training picture, drawn anew each time, is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.networks.digits import Digits, load_digits
from experiments.networks.transformers import ViT
from jaxrel import metrics

CELLS = 4
GRID = metrics.grid((28, 28), CELLS)
"""(1, 28, 28) the number of each pixel's cell."""


class Named(nn.Module):
    """A function as a layer: what has no parameters can be given a rule by its name, too.

    Attributes:
        fun: Of one array.
    """

    fun: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What the function gives."""
        return self.fun(x)


def halved(x: jax.Array) -> jax.Array:
    """Max pooling by 2 x 2."""
    return nn.max_pool(x, (2, 2), (2, 2))


class Cnn(nn.Module):
    """Two convolutions, relu and max pooling after each, a hidden layer and the logits.

    Attributes:
        use_bias: Whether layers have additive parameters.
    """

    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, 10) of pictures (N, 28, 28, 1)."""
        for k, channels in ((1, 16), (2, 32)):
            x = nn.Conv(
                channels, (5, 5), padding="VALID", use_bias=self.use_bias, name=f"conv_{k}"
            )(x)
            x = Named(halved, name=f"pool_{k}")(Named(nn.relu, name=f"relu_{k}")(x))
        x = nn.Dense(64, use_bias=self.use_bias, name="dense_3")(x.reshape(len(x), -1))
        x = Named(nn.relu, name="relu_3")(x)
        return nn.Dense(10, use_bias=self.use_bias, name="dense_4")(x)


NETWORKS: dict[str, nn.Module] = {
    "cnn": Cnn(),
    "cnn without biases": Cnn(use_bias=False),
    "vit": ViT(depth=2, width=48, heads=4, patch=4, pool="mean", classes=10),
}


class Subject(NamedTuple):
    """A trained network, and the digits it is judged on, none of which it has seen.

    Attributes:
        name: One of `NETWORKS`.
        variables: Of the network, float32.
        choosing: Digits on which rules may be chosen and learned.
        test: Digits for the result, and for nothing else.
        accuracy: On `test`, as they are.
    """

    name: str
    variables: Any
    choosing: Digits
    test: Digits
    accuracy: float


def label_logit(name: str, variables: Any, labels: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The function that is explained: pictures (N, 28, 28, 1) to logits of their labels, (N,)."""

    def fun(images: jax.Array) -> jax.Array:
        logits = jnp.asarray(NETWORKS[name].apply(variables, images))
        return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]

    return fun


@functools.cache
def drops(name: str) -> Callable[[Any, Digits], jax.Array]:
    """What the label's logit loses without each cell, (N, 16), of variables and digits."""
    return jax.jit(
        lambda variables, digits: metrics.part_drops(
            label_logit(name, variables, digits.labels), digits.images, patch=GRID
        )
    )


def subject(name: str, seed: int, pictures: int = 1500, epochs: int = 10) -> Subject:
    """Train a network on those of 5000 digits that are not held out.

    Args:
        name: One of `NETWORKS`.
        seed: Of the split, the first weights, the order, the cells.
        pictures: How many are held out: 7 of 15 for choosing, 8 of 15 for the test.
        epochs: How often each of the others is seen.
    """
    seen, others = load_digits(seed, held_out=pictures)
    border = pictures * 7 // 15
    choosing, test = (
        Digits(*(part[rows] for part in others)) for rows in np.split(np.arange(pictures), [border])
    )
    network = NETWORKS[name]
    variables = train(network, seen, seed, epochs)
    right = np.asarray(jax.jit(network.apply)(variables, test.images)).argmax(-1) == test.labels
    return Subject(name, variables, choosing, test, float(right.mean()))


def train(
    network: nn.Module, digits: Digits, seed: int, epochs: int, batch: int = 50, cells: bool = True
) -> Any:
    """Train by Adam, the learning rate falling to 0 as a cosine.

    Args:
        network: From pictures to logits.
        digits: What it learns.
        seed: Of the first weights, the order, the cells.
        epochs: How often each of them is seen.
        batch: How many make a step.
        cells: Whether every other picture lacks a cell.

    Returns:
        Its variables, float32.
    """
    first, drawn = jax.random.split(jax.random.key(seed))
    steps = len(digits.labels) // batch * epochs
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    variables = network.init(first, digits.images[:1])
    state = variables, optimizer.init(variables)
    step = _step(network, optimizer.update, cells)
    rows = np.random.default_rng((seed, 3)).permuted(
        np.tile(np.arange(len(digits.labels)), (epochs, 1)), axis=1
    )
    for number, chosen in enumerate(rows[:, : steps // epochs * batch].reshape(steps, batch)):
        key = jax.random.fold_in(drawn, number)
        state = step(state, key, digits.images[chosen], digits.labels[chosen])
    return state[0]


def _step(network: nn.Module, update: Callable[..., Any], cells: bool) -> Callable[..., Any]:
    """A step of training, one program: a loop within XLA would run convolutions on one core."""

    def loss(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jnp.asarray(network.apply(variables, images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(state: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
        variables, memory = state
        seen = without_cells(key, images) if cells else images
        updates, memory = update(jax.grad(loss)(variables, seen, labels), memory)
        return optax.apply_updates(variables, updates), memory

    return step


def without_cells(key: jax.Array, images: jax.Array) -> jax.Array:
    """Pictures of which every other one, by chance, has one cell set to 0."""
    cell = jax.random.randint(key, (len(images), 1, 1), 0, 2 * CELLS**2)  # half of them are none
    return jnp.where((cell == GRID)[..., None], 0, images)
