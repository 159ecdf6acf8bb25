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
GATES, POOLS = {"relu_1": 16, "relu_2": 32, "relu_3": 64}, ("pool_1", "pool_2")
"""Of the CNNs; gates with their channels."""
STEPS, BATCH, RATE = 100, 50, 0.05

Numbers = Mapping[str, jax.Array]


@rules.rule("matmul")
class TwoGammas(rules.Gamma):
    """Gamma that takes from negative weights, too: W' = W + gamma W+ - weaker W-.

    Attributes:
        weaker: By what part, 0 to 1; were they favoured, a denominator z' would be 0 somewhere.
    """

    weaker: float | jax.Array = 0.0

    def changed_weight(self, view: rules.View) -> jax.Array:
        """The weights W'."""
        weight = view.affine().weight  # type: ignore[misc]
        return super().changed_weight(view) - self.weaker * jnp.minimum(weight, 0)


@rules.rule("nonlinearity")
class SoftGate(rules.BetaSmooth):
    """m_x = m sigmoid(beta (x + shift)): relu as if x were not known exactly.

    Without a part of the picture x is another, and units that are near the edge would change sides.

    Attributes:
        shift: Where the gate is half open, in units of x.
    """

    shift: float | jax.Array = 0.0

    def __call__(self, view: rules.View, m: Any, /) -> Any:
        """See `rules.RuleFunction`."""
        (x,) = view.inputs
        return m * jax.nn.sigmoid(self.beta * (x + self.shift))


@rules.rule("maximum")
class SoftWinner(rules.SoftmaxLimit):
    """m_i = m softmax(beta a)_i: the gradient of the soft maximum in the maximum's place."""

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """m_i / m of candidates and their maximum."""
        return jax.nn.softmax(self.beta * (a - y), 0)


def gammas(numbers: Numbers) -> RuleSet:
    """A gamma for each layer."""
    more = {layer: jax.nn.softplus(numbers[f"gamma {layer}"]) for layer in LAYERS}
    return RuleSet() | {f"**/{layer}": rules.Gamma(gamma) for layer, gamma in more.items()}


def two_gammas(numbers: Numbers) -> RuleSet:
    """A gamma for each layer and sign of weights."""
    more = {layer: jax.nn.softplus(numbers[f"gamma {layer}"]) for layer in LAYERS}
    less = {layer: jax.nn.sigmoid(numbers[f"weaker {layer}"]) for layer in LAYERS}
    return RuleSet() | {f"**/{k}": TwoGammas(more[k], weaker=less[k]) for k in LAYERS}


def soft(numbers: Numbers) -> RuleSet:
    """Gates and pools that are not all or nothing, each in its own measure."""
    sharp = {name: jnp.exp(numbers[f"log beta {name}"]) for name in (*GATES, *POOLS)}
    gates = {f"**/{k}": SoftGate(sharp[k], shift=numbers[f"shift {k}"]) for k in GATES}
    return RuleSet() | gates | {f"**/{k}": SoftWinner(sharp[k]) for k in POOLS}


def soft_gammas(numbers: Numbers) -> RuleSet:
    """Both: soft gates and pools, and a gamma for each layer."""
    return soft(numbers) | dict(gammas(numbers).overrides)


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


def meaning(numbers: Numbers) -> dict[str, np.ndarray]:
    """What was learned in the units of the rules: gammas, betas, shifts, shares of a mixture."""
    units = {
        "gamma": jax.nn.softplus,
        "weaker": jax.nn.sigmoid,
        "log beta": jnp.exp,
        "weights": jax.nn.softmax,
    }
    found = {}
    for name, value in numbers.items():
        unit = next((unit for unit in units if name.startswith(unit)), None)
        found[name.removeprefix("log ")] = np.asarray(units[unit](value) if unit else value)
    return found


_START: dict[str, Any] = {f"gamma {layer}": -1.0 for layer in LAYERS}
_SIGNS: dict[str, Any] = {f"weaker {layer}": -2.0 for layer in LAYERS}
_POOLS: dict[str, Any] = {f"log beta {pool}": 1.0 for pool in POOLS}


def _gates(of: Callable[[int], Any]) -> dict[str, Any]:
    """Where betas and shifts of gates start; `of` makes zeros of a number of channels."""
    betas = {f"log beta {gate}": of(channels) + 1.0 for gate, channels in GATES.items()}
    return betas | {f"shift {gate}": of(channels) for gate, channels in GATES.items()}


HANDS: dict[str, tuple[Callable[..., jax.Array], Mapping[str, Any]]] = {
    "a gamma by layer": (one_map(gammas), _START),
    "gammas by layer and sign": (one_map(two_gammas), _START | _SIGNS),
    "and mixed with others": (mixture, _START | _SIGNS | {"weights": (0.0, 0.0, 0.0, 0.0)}),
    "soft gates and pools": (one_map(soft), _gates(lambda channels: 0.0) | _POOLS),
    "soft gates by channel": (one_map(soft), _gates(np.zeros) | _POOLS),
    "and a gamma by layer": (one_map(soft_gammas), _START | _gates(np.zeros) | _POOLS),
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
        numbers = {key: jnp.asarray(value, jnp.float32) for key, value in start.items()}
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
