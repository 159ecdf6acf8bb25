"""Rule sets with numbers in them, learned by gradient descent to be faithful.

What is learned is what rules have as leaves: relevance is differentiable by them. The objective is
`jaxrel.metrics.surrogate`: Pearson's correlation over cells of their relevance and of what the
network loses without them, averaged over pictures. It is a stand-in for the score itself, whose
ranks have no derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrel
from experiments.cells.networks import GRID, label_logit
from experiments.networks.digits import Digits
from jaxrel import RuleSet, metrics, rules

LAYERS = ("conv_1", "conv_2", "dense_3", "dense_4")
STEPS, BATCH, RATE = 200, 100, 0.05

Numbers = Mapping[str, jax.Array]


@rules.rule("matmul")
class TwoGammas(rules.Gamma):
    """Gamma with a factor for negative weights too: W' = W + gamma W+ + negative W-.

    Attributes:
        negative: How much negative weights are favoured; below 0: how much they are weakened.
    """

    negative: float | jax.Array = 0.0

    def changed_weight(self, view: rules.View) -> jax.Array:
        """The weights W'."""
        weight = view.affine().weight  # type: ignore[misc]
        return super().changed_weight(view) + self.negative * jnp.minimum(weight, 0)


def gammas(numbers: Numbers) -> RuleSet:
    """A gamma for each layer."""
    by_layer = {f"**/{layer}": rules.Gamma(jax.nn.softplus(numbers[layer])) for layer in LAYERS}
    return RuleSet() | by_layer


def two_gammas(numbers: Numbers) -> RuleSet:
    """A gamma for each layer and sign of weights."""
    more = {layer: jax.nn.softplus(numbers[layer]) for layer in LAYERS}
    less = {layer: numbers[f"{layer} negative"] for layer in LAYERS}
    return RuleSet() | {f"**/{k}": TwoGammas(more[k], negative=less[k]) for k in LAYERS}


def one_map(make: Callable[[Numbers], RuleSet]) -> Callable[..., jax.Array]:
    """The relevance of a rule set made of numbers."""
    return lambda numbers, fun, x: jaxrel.relevance(fun, make(numbers))(x)


def mixture(numbers: Numbers, fun: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """A weighted sum of four maps: by two gammas, gradient x input, slope to black, alpha-beta."""
    maps = (
        jaxrel.relevance(fun, two_gammas(numbers))(x),
        jaxrel.relevance(fun, "gradient")(x),
        jaxrel.relevance(fun, "compare_to_baseline", baseline=0.0)(x),
        jaxrel.relevance(fun, "epsilon_alpha2_beta1")(x),
    )
    return jnp.tensordot(jax.nn.softmax(numbers["weights"]), jnp.stack(maps), 1)


_START: dict[str, Any] = {layer: -1.0 for layer in LAYERS}
_SIGNS: dict[str, Any] = {f"{layer} negative": 0.0 for layer in LAYERS}
HANDS: dict[str, tuple[Callable[..., jax.Array], Mapping[str, Any]]] = {
    "a gamma by layer": (one_map(gammas), _START),
    "gammas by layer and sign": (one_map(two_gammas), _START | _SIGNS),
    "and mixed with others": (mixture, _START | _SIGNS | {"weights": (0.0, 0.0, 0.0, 0.0)}),
}
"""Functions of numbers, a function and pictures, and where the numbers start."""


@functools.cache
def learner(network: str, hand: str) -> Callable[[Any, Digits, jax.Array, jax.Array], Numbers]:
    """Learning, of variables, digits, their drops and a key; a step of it is one program."""
    explain, start = HANDS[hand]
    optimizer = optax.adam(RATE)

    def loss(numbers: Numbers, variables: Any, some: Digits, lost: jax.Array) -> jax.Array:
        fun = label_logit(network, variables, jnp.asarray(some.labels))
        relevance = explain(numbers, fun, jnp.asarray(some.images))
        return -metrics.surrogate(relevance, lost, GRID).mean()

    @jax.jit
    def step(state: Any, *of: Any) -> Any:
        numbers, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(numbers, *of), memory)
        return optax.apply_updates(numbers, updates), memory

    def learn(variables: Any, digits: Digits, lost: jax.Array, key: jax.Array) -> Numbers:
        numbers = {key: jnp.asarray(value) for key, value in start.items()}
        state = numbers, optimizer.init(numbers)
        drawn = jax.random.randint(key, (STEPS, BATCH), 0, len(digits.labels))
        for rows in np.asarray(drawn):
            some = Digits(digits.images[rows], digits.labels[rows])
            state = step(state, variables, some, lost[rows])
        return state[0]

    return learn


@functools.cache
def score(network: str, hand: str) -> Callable[[Numbers, Any, Digits, jax.Array], jax.Array]:
    """The score of each picture, (N,), of numbers, variables, digits and their drops."""
    explain, _ = HANDS[hand]

    @jax.jit
    def judge(numbers: Numbers, variables: Any, digits: Digits, lost: jax.Array) -> jax.Array:
        fun = label_logit(network, variables, jnp.asarray(digits.labels))
        relevance = explain(numbers, fun, jnp.asarray(digits.images))
        return metrics.spearman(metrics.part_sums(relevance, GRID), lost)

    return judge
