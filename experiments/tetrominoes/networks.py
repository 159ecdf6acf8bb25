"""The two nonlinear networks of XAI-TRIS for pictures of 8 x 8, and how they are trained here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.tetrominoes.pictures import Pictures

RATE, BATCH = 5e-3, 128  # the paper: 5e-4 and 512, for 500 epochs


class Mlp(nn.Module):
    """Hidden layers of 32, 16 and 8 units after the 64 pixels, relu."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, 2) of pictures (N, 8, 8, 1)."""
        x = x.reshape(len(x), -1)
        for k, width in enumerate((32, 16, 8), 1):
            x = nn.relu(nn.Dense(width, name=f"dense_{k}")(x))
        return nn.Dense(2, name="dense_4")(x)


class Cnn(nn.Module):
    """Four convolutions of 4 channels, 2 x 2, padded by 1, relu and max pooling after each."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, 2) of pictures (N, 8, 8, 1)."""
        for k in range(1, 5):
            x = nn.Conv(4, (2, 2), padding=((1, 1), (1, 1)), name=f"conv_{k}")(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(2, name="dense_5")(x.reshape(len(x), -1))


NETWORKS: dict[str, nn.Module] = {"mlp": Mlp(), "cnn": Cnn()}


def train(name: str, pictures: Pictures, seed: int, epochs: int) -> Any:
    """Train by Adam, the learning rate falling to 0 as a cosine; a step is a program.

    Args:
        name: One of `NETWORKS`.
        pictures: What it learns.
        seed: Of its first weights and the order.
        epochs: How often it sees each of them.

    Returns:
        Its variables, float32.
    """
    images, labels = jnp.asarray(pictures.images), jnp.asarray(pictures.labels)
    variables = NETWORKS[name].init(jax.random.key(seed), images[:1])
    steps = len(labels) // BATCH * epochs
    state = variables, optax.scale_by_adam().init(variables)
    rng = np.random.default_rng((seed, 4))
    order = [rng.permutation(len(labels))[: steps // epochs * BATCH] for _ in range(epochs)]
    step = _step(name)
    for number, rows in enumerate(np.concatenate(order).reshape(steps, BATCH)):
        rate = RATE * (1 + np.cos(np.pi * number / steps)) / 2
        state = step(state, images, labels, rows, rate)
    return state[0]


@functools.cache
def _step(name: str) -> Callable[..., Any]:
    """One program for all scenarios."""

    def loss(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jnp.asarray(NETWORKS[name].apply(variables, images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(state: Any, images: Any, labels: Any, rows: Any, rate: Any) -> Any:
        variables, memory = state
        slope = jax.grad(loss)(variables, images[rows], labels[rows])
        updates, memory = optax.scale_by_adam().update(slope, memory)
        updates = jax.tree.map(lambda update: -rate * update, updates)
        return optax.apply_updates(variables, updates), memory

    return step
