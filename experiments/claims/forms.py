"""Claims (a), (b), (f): what is conserved, relevance form and multipliers, lrp and slope."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments.claims.naive import Affine, Network, propagate
from experiments.claims.tables import differ
from jaxrel import RuleSet, rules, rulesets

BLIP = 0.1  # one that is seen, in units of z


class Level(NamedTuple):
    """Relevance between two layers; sums, in units of the network's value.

    Attributes:
        setting: The network and what its relevance is compared to.
        boundary: The layer below which it is measured; `"value"` at the top.
        relevance: In relevance form, restated naively.
        multiplier: sum x m, from `jaxrel.audit`.
        ones: What the biases above have taken (relevance form).
        value: What should be conserved.
        scale: Sum of |R| at the input; rounding is relative to it.
    """

    setting: str
    boundary: str
    relevance: float
    multiplier: float
    ones: float
    value: float
    scale: float


SETTINGS = ("no biases", "biases as ones", "baseline", "no biases, gradient")


def conservation(seed: int) -> list[Level]:
    """Claim (a): sum R at every boundary of a network, in both forms.

    Args:
        seed: Of the network and its input.

    Returns:
        One row for each boundary, from the value down to the input, for each of `SETTINGS`. The
        last is the counter-example: relevance form ignores the nonlinearities all the same, but
        multipliers take their gradient.
    """
    x, x0 = Network.inputs(seed, 2)
    rows = []
    for setting in SETTINGS:
        network = Network.random(seed, biases="no" not in setting)
        origin = x0 if setting == "baseline" else None
        sets = rulesets.gradient() if "gradient" in setting else None
        flat = None if origin is None else origin.ravel()
        found, ones = propagate(network.layers(), x.ravel(), baseline=flat)
        books = jax.jit(jaxrel.audit(network, sets, baseline=origin))(jnp.asarray(x))
        shown = ("matmul", "nonlinearity", "maximum")
        steps = zip(books.labels, books.steps(), strict=True)
        levels = [step.relevance_in for label, step in steps if label.kind in shown]
        levels = [float(books.explained), *map(float, levels)]
        names = [*network.names, "value"]
        scale = float(np.abs(found[0]).sum())
        for k in range(len(names))[::-1]:
            taken, arrived = sum(ones[k:]), float(found[k].sum())
            value = float(books.value)
            rows.append(Level(setting, names[k], arrived, levels[k], taken, value, scale))
    return rows


FORMS = {
    "no biases": (False, ("tanh", "silu"), 0.0, "slope"),
    "biases as ones": (True, ("tanh", "silu"), 0.0, "slope"),
    f"biases, blip {BLIP}": (True, ("tanh", "silu"), BLIP, f"lrp({BLIP})"),
    "softplus against slope": (True, ("softplus", "silu"), 0.0, "slope"),
    "softplus against Pass": (True, ("softplus", "silu"), 0.0, "pass"),
}
"""Biases, nonlinearities, the blip of the naive form, and what it is compared to."""


def forms(seed: int, count: int) -> dict[str, np.ndarray]:
    """Claim (b): the naive relevance form against multipliers, on many inputs.

    Args:
        seed: Of the network and its inputs.
        count: How many inputs.

    Returns:
        For each of `FORMS` the largest |R - x m| over the largest |R|, input by input.
    """
    sets = {
        "slope": rulesets.slope(),
        f"lrp({BLIP})": rulesets.lrp(BLIP),
        "pass": RuleSet(nonlinearity=rules.Pass()),
    }
    inputs = Network.inputs(seed, count)
    found = {}
    for case, (biases, nonlinearities, blip, against) in FORMS.items():
        network = Network.random(seed, biases, nonlinearities)
        layers = network.layers()
        explain = jax.jit(jax.vmap(jaxrel.relevance(network, sets[against])))
        multipliers = np.asarray(explain(jnp.asarray(inputs))).reshape(count, -1)
        naive = np.stack([propagate(layers, x.ravel(), blip=blip)[0][0] for x in inputs])
        found[case] = np.abs(naive - multipliers).max(1) / np.abs(naive).max(1)
    return found


def tiny_units(seed: int, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Claim (b), where it should be worst: all units of the dense layer are brought near 0.

    Args:
        seed: Of the network and its input.
        sizes: What the units' |z| are made to be (the weights are moved a little for it).

    Returns:
        Sum of |R| at the input for each of the sizes: of relevance form with biases in the
        denominators (`"biases as ones"`), without them (`"biases left out"`), and of a network that
        has none (`"no biases"`).
    """
    cases = {"no biases": (False, True), "biases as ones": (True, True)}
    cases["biases left out"] = (True, False)
    (x,) = Network.inputs(seed, 1)
    found = {}
    for case, (biases, counted) in cases.items():
        layers = Network.random(seed, biases).layers()
        hidden = x.ravel()
        for layer in layers[:3]:
            hidden = layer(hidden)
        dense = layers[3]
        assert isinstance(dense, Affine)
        amounts = []
        for size in sizes:
            signs = np.where(np.arange(len(dense.weight)) % 2, 1, -1)
            z = dense.weight @ hidden
            shift = np.outer(z - size * signs, hidden) / (hidden @ hidden)
            moved = Affine(dense.weight - shift, dense.bias)
            new = [*layers[:3], moved, *layers[4:]]
            relevances, _ = propagate(new, x.ravel(), bias=counted)
            amounts.append(np.abs(relevances[0]).sum())
        found[case] = np.array(amounts)
    return found


def of_zeros(seed: int) -> tuple[float, float]:
    """Claim (b) at an input of zeros: the shares of pixels that are NaN, naively and by jaxrel."""
    network, x = Network.random(seed, False), np.zeros((6, 6, 1))
    with np.errstate(invalid="ignore"):
        naive = propagate(network.layers(), x.ravel())[0][0]
    explained = np.asarray(jax.jit(jaxrel.relevance(network))(jnp.asarray(x)))
    return float(np.isnan(naive).mean()), float(np.isnan(explained).mean())


def relu_networks(seed: int, count: int) -> float:
    """Claim (f): on ReLU networks slope equals the gradient.

    The slope is taken literally, relu(x) / x: jaxrel knows that relu is homogeneous, and would
    compare the gradient to itself.

    Returns:
        The largest difference of relevance over `count` inputs, relative.
    """
    network = Network.random(seed, True, ("relu", "relu"))
    x = jnp.asarray(Network.inputs(seed, count))

    def literal(view: jaxrel.rules.View, m: jax.Array) -> jax.Array:
        return m * view.output / view.inputs[0]

    slope, gradient = (
        jax.jit(jax.vmap(jaxrel.relevance(network, chosen)))(x)
        for chosen in (RuleSet(nonlinearity=literal), rulesets.gradient())
    )
    return differ(slope, gradient)


def towards_slope(seed: int, count: int, blips: np.ndarray) -> dict[str, np.ndarray]:
    """Claim (f): lrp becomes slope as the blip goes to 0.

    Args:
        seed: Of the networks and their inputs.
        count: How many inputs.
        blips: The blips, in units of z.

    Returns:
        For a tanh and silu network without biases, and a relu network with: the largest
        difference of the two relevances relative to slope's, (blips, count) but for dead inputs.
    """
    nets = {
        "tanh, silu, no biases": Network.random(seed, False),
        "relu, biases": Network.random(seed, True, ("relu", "relu")),
    }
    x = jnp.asarray(Network.inputs(seed, count))
    found = {}
    for title, network in nets.items():

        def run(chosen: RuleSet, network: Network = network) -> jax.Array:
            return jax.vmap(jaxrel.relevance(network, chosen))(x).reshape(count, -1)

        slope = jax.jit(run)(rulesets.slope())
        lrp = jax.jit(jax.vmap(run))(rulesets.lrp(jnp.asarray(blips)))
        largest = np.asarray(jnp.abs(slope).max(-1))
        gaps = np.asarray(jnp.abs(lrp - slope).max(-1))
        found[title] = gaps[:, largest > 0] / largest[largest > 0]  # not where all units are dead
    return found


def steepness(blips: np.ndarray, differences: np.ndarray) -> float:
    """The order of convergence: the slope of log difference over log blip."""
    return float(np.polyfit(np.log(blips), np.log(differences), 1)[0])
