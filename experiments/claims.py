"""The consistency claims, measured: what `experiments.consistency` prints and draws.

Each function computes the numbers of one claim in float64; `findings` judges them. The arguments
that go with the numbers:

**A maximum with constants a <= 0, f(x) = max(x, a), can not be shared like the slope.** Shares of a
maximum of two values are >= 0, sum to 1, and do not depend on which of the two is called first.
Slope gives x the factor f(x) / x. Take p < q < 0.

- As a share (both rules act on the number that is carried back, whatever it is): slope wants the
  share q / p > 0 for x = p beside the constant q, and the share q / q = 1 for x = q beside the
  constant p. They are the two shares of one maximum, max(p, q), and sum to 1 + q / p > 1.
- As relevance (slope in multiplier form): factors are shares times y / x, so slope wants the share
  1 for x = p, and 1 for x = q: they sum to 2.

So no rule whose shares sum to 1 equals slope, Radial or another, however it shares two negative
values. Where they do agree: x > 0 (the only positive value gets all), a = 0 (relu), and as a share
in the limits x -> 0 and x -> -inf, where |a| / (|a| + |x|) meets min(1, |a| / |x|). That is why the
two graphs look alike. The gap is largest at the kink x = a: 1/2 against 1.

**Against a baseline every complete rule for the maximum passes this test.** A constant is the same
at both points, so sum_i factor_i (a_i - a0_i) = y - y0 has one term left, and factor_x =
(y - y0) / (x - x0): the slope nonlinearity. Conservation forces what no choice of shares can.

**The two ways to take a maximum are one, if the softmax is taken whole.** Let the order of a and b
be another at the baseline, d = a - b, d0 = a0 - b0. By |a - b|, a gets the factor
|d| / (|d| + |d0|). By exp, sum and log one after the other, in the limit beta -> inf, whichever of
the two winners has the larger value gets all: another answer, as the text says. But these slopes
are not those of the log-sum-exp as one function: add a number to both values, and at finite beta
they change. The shares p = exp(beta a - y beta) do not, and the logarithmic means of p and p0,
normalised, are weights w with y - y0 = sum w_i (a_i - a0_i). In the limit only the winner at x and
the one at the baseline keep a weight, 1 / (beta |d0|) and 1 / (beta |d|) before they are
normalised, and that is |a - b|'s answer exactly. Unlike |a - b|'s it needs no order of pairs where
there are more than two values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments.naive import Network, propagate, stabilized
from jaxrel import RuleSet, rules, rulesets

BLIP = 0.1  # where a claim is about a blip that is seen, in units of z
SCALES = (3.0, 0.5, -2.0)


class Finding(NamedTuple):
    """A claim held against its number.

    Attributes:
        claim: Which one, by its letter and in words.
        case: In which setting.
        number: What was measured.
        bound: What it is compared to.
        relation: `"<="` where the claim is an equality, up to rounding; `">="` where it is that two
            things differ.
        text: What the source text says: `"says"`, `"suspects"`, or `"silent"`; and `"wrong"` where
            the measured relation is the opposite of its suspicion.
    """

    claim: str
    case: str
    number: float
    bound: float
    relation: str
    text: str

    @property
    def holds(self) -> bool:
        """Whether the number is on its side of the bound."""
        low, high = sorted((self.number, self.bound))
        return (self.number, self.bound) == ((low, high) if self.relation == "<=" else (high, low))


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
        amounts = []
        for size in sizes:
            signs = np.where(np.arange(len(dense.weight)) % 2, 1, -1)
            z = dense.weight @ hidden
            shift = np.outer(z - size * signs, hidden) / (hidden @ hidden)
            moved = type(dense)(dense.weight - shift, dense.bias)
            new = [*layers[:3], moved, *layers[4:]]
            relevances, _ = propagate(new, x.ravel(), bias=counted)
            amounts.append(np.abs(relevances[0]).sum())
        found[case] = np.array(amounts)
    return found


def differ(a: Any, b: Any) -> float:
    """The largest |a - b|, in units of the largest of either."""
    a, b = np.asarray(a), np.asarray(b)
    largest = max(np.abs(a).max(), np.abs(b).max())
    return float(np.abs(a - b).max() / largest) if largest else 0.0


Table = Mapping[str, Mapping[str, float]]
"""Numbers by row and column."""


def scaling_as_written() -> Table:
    """Claim (c) in the words of the text: rules that act on the number that is carried back.

    Returns:
        For each matrix rule and each nonlinearity rule, by how much they differ on x -> c x; the
        largest over `SCALES`.
    """
    rng = np.random.default_rng(0)
    x, carried = rng.normal(size=(2, 1000))
    matrix: dict[str, Callable[[float], np.ndarray]] = {
        "Gradient": lambda c: c * carried,
        "Normalized(0)": lambda c: x * c / (c * x) * carried,
        f"Normalized({BLIP})": lambda c: x * c / stabilized(c * x, BLIP) * carried,
    }
    nonlinearity: dict[str, Callable[[float], np.ndarray]] = {
        "Ignore": lambda c: carried,
        "Gradient": lambda c: c * carried,
        "Slope": lambda c: c * x / x * carried,
        "Repeat": lambda c: c * carried,
    }
    return {
        row: {
            column: max(differ(first(c), second(c)) for c in SCALES)
            for column, second in nonlinearity.items()
        }
        for row, first in matrix.items()
    }


MATRIX = {
    "Gradient": rules.Gradient(),
    "Normalized(0)": rules.Normalized(0.0),
    f"Normalized({BLIP})": rules.Normalized(BLIP),
    "Gamma(0.25)": rules.Gamma(0.25, 0.0),
    "GeneralizedGamma(0.25)": rules.GeneralizedGamma(0.25, 0.0),
    "AlphaBeta(2, 1)": rules.AlphaBeta(2.0, 1.0, 0.0),
    "ZPlus": rules.ZPlus(0.0),
    "WSquare": rules.WSquare(0.0),
    "Flat": rules.Flat(0.0),
    "Pass": rules.Pass(),
}
NONLINEARITY = {
    "Gradient": rules.Gradient(),
    "Slope": rules.Slope(),
    "Pass": rules.Pass(),
    "Ignore": rules.Ignore(),
    "Repeat": rules.Repeat(),
    "GuidedRelu": rules.GuidedRelu(),
    "BetaSmooth(10)": rules.BetaSmooth(10.0),
}


def scaling() -> Table:
    """Claim (c) as jaxrel has the rules: on multipliers, all pairs.

    x -> c x is once a product with c times the unit matrix, and once a leaky relu whose two slopes
    are both c. What is compared is relevance, x m, for multipliers of both signs.

    Returns:
        As `scaling_as_written`.
    """
    rng = np.random.default_rng(0)
    x, m = jnp.asarray(rng.normal(size=(2, 12)))
    unit = jnp.eye(12)

    def run(scaled: Callable[[Any, Any], Any], chosen: RuleSet) -> np.ndarray:
        def pulled(c: jax.Array) -> jax.Array:
            return jaxrel.relevance_vjp(lambda x: scaled(c, x), x, rules=chosen)[1](m)[0]

        return np.asarray(jax.jit(jax.vmap(pulled))(jnp.array(SCALES)))

    def as_matrix(c: Any, x: Any):
        return (c * unit) @ x

    def as_nonlinearity(c: Any, x: Any):
        return jnp.where(x > 0, c * x, c * x)

    rows = {name: run(as_matrix, RuleSet(matmul=rule)) for name, rule in MATRIX.items()}
    columns = {
        name: run(as_nonlinearity, RuleSet(nonlinearity=rule))
        for name, rule in NONLINEARITY.items()
    }
    return {
        row: {name: max(map(differ, a, b)) for name, b in columns.items()}
        for row, a in rows.items()
    }


MAXIMUM = {
    "Gradient": rules.Gradient(),
    "Radial": rules.Radial(),
    "Shapley": rules.Shapley(),
    "SoftmaxLimit": rules.SoftmaxLimit(),
    "AbsoluteValue": rules.AbsoluteValue(),
}
AGAINST_BASELINE = {
    "AbsoluteValue": rules.AbsoluteValue(),
    "SoftmaxLimit": rules.SoftmaxLimit(),
    "CrossMax": rules.CrossMax(),
}
CONSTANTS = {"max(x, 0)": (0.0,), "max(x, -1)": (-1.0,), "max(x, -1, -0.3)": (-1.0, -0.3)}
GRID = np.linspace(-4, 3, 1401) + 1e-4  # no ties


def maximum_as_nonlinearity() -> dict[str, Table]:
    """Claim (d): max(x, constants <= 0), as a maximum and as a nonlinearity.

    The constants enter as arguments, so that jaxrel sees a maximum of several values; theirs is not
    looked at.

    Returns:
        For each of `CONSTANTS`, without and with a baseline, for each maximum rule (row) and
        nonlinearity rule (column): by how much the relevances of x differ, at worst, in units of
        the maximum (with a baseline: of the largest relevance).
    """
    x = jnp.asarray(GRID)
    origin = jnp.asarray(np.random.default_rng(0).normal(size=x.shape))

    def as_maximum(constants: tuple[float, ...], rule: Any, base: Any) -> np.ndarray:
        wide = tuple(jnp.full_like(x, a) for a in constants)
        every = tuple(range(1 + len(wide)))

        def value(x: jax.Array, *others: jax.Array) -> jax.Array:
            return jnp.max(jnp.stack([x, *others]), 0)

        both = None if base is None else (base, *wide)
        run = jaxrel.relevance(value, RuleSet(maximum=rule), every, baseline=both)
        return np.asarray(jax.jit(run)(x, *wide)[0])

    def as_nonlinearity(constants: tuple[float, ...], rule: Any, base: Any) -> np.ndarray:
        a = max(constants)
        chosen = RuleSet(nonlinearity=rule)
        run = jaxrel.relevance(lambda x: jnp.maximum(x, a), chosen, baseline=base)
        return np.asarray(jax.jit(run)(x))

    def table(constants: tuple[float, ...], maxima: Any, columns: Any, base: Any) -> Table:
        y = np.maximum(GRID, max(constants))
        unit = np.where(y == 0, 1, np.abs(y)) if base is None else 1
        found = {name: as_nonlinearity(constants, NONLINEARITY[name], base) for name in columns}
        rows = {name: as_maximum(constants, rule, base) for name, rule in maxima.items()}
        measure = differ if base is not None else lambda a, b: float(np.abs((a - b) / unit).max())
        return {row: {k: measure(a, b) for k, b in found.items()} for row, a in rows.items()}

    four = ("Gradient", "Slope", "Ignore", "Repeat")
    alone = {title: table(a, MAXIMUM, four, None) for title, a in CONSTANTS.items()}
    compared = {
        f"{title}, baseline": table(a, AGAINST_BASELINE, ("Slope",), origin)
        for title, a in CONSTANTS.items()
    }
    return alone | compared


def shares(a: float) -> dict[str, np.ndarray]:
    """Claim (d), the curves: what part x gets of max(x, a), for the x of `GRID`.

    Returns:
        The share that each rule for the maximum gives to x; `"slope, as a share"`: f(x) / x, as the
        text compares them; `"slope, as relevance"`: 1, as it is in relevance form.
    """
    x = jnp.asarray(GRID)
    y = np.maximum(GRID, a)
    found = {}
    for name in ("Gradient", "Radial", "Shapley"):
        run = jax.jit(jaxrel.relevance(jnp.maximum, RuleSet(maximum=MAXIMUM[name]), (0, 1)))
        found[name] = np.asarray(run(x, jnp.full_like(x, a))[0]) / np.where(y == 0, 1, y)
    return found | {"slope, as a share": y / GRID, "slope, as relevance": np.ones_like(GRID)}


WORKED = ((3.0, 1.0), (0.0, 2.0))  # two values, and the same at the baseline: the order changes
BETA = 30.0
HARD = 100.0  # more, and the shares exp(-beta |d|) leave float64


def two_ways(seed: int, count: int) -> dict[str, np.ndarray]:
    """Claim (e): relevances of (a, b) in max(a, b) against a baseline.

    Args:
        seed: Of the values.
        count: How many pairs; the first is `WORKED`.

    Returns:
        Under `"x"`, `"x0"` the values, (count, 2); and the relevances, (count, 2), by each way,
        those of `"... by parts"` being composed by hand of other operations.
    """
    rng = np.random.default_rng(seed)
    x, x0 = rng.normal(size=(2, count, 2))
    x[0], x0[0] = WORKED

    def run(fun: Callable, maximum: Any = None):
        chosen = rulesets.compare_to_baseline(maximum)
        return np.asarray(jax.jit(jaxrel.relevance(fun, chosen, baseline=x0))(jnp.asarray(x)))

    def largest(v: jax.Array) -> jax.Array:
        return v.max(-1)

    def by_distance(v: jax.Array) -> jax.Array:
        a, b = v[:, 0], v[:, 1]
        return (a + b) / 2 + jnp.abs(a - b) / 2

    def by_steps(v: jax.Array) -> jax.Array:
        return jnp.log(jnp.exp(BETA * v) @ jnp.ones(2)) / BETA  # three steps to jaxrel

    def whole(v: jax.Array) -> jax.Array:
        return jax.scipy.special.logsumexp(HARD * v, axis=-1) / HARD  # one step

    return {
        "x": x,
        "x0": x0,
        "|a - b|": run(largest, rules.AbsoluteValue()),
        "|a - b|, by parts": run(by_distance),
        "softmax limit": run(largest, rules.SoftmaxLimit()),
        "softmax": run(largest, rules.SoftmaxLimit(BETA)),
        "softmax, by parts": run(by_steps),
        "softmax as a whole": run(whole),
    }


def hardening(betas: np.ndarray) -> dict[str, np.ndarray]:
    """Claim (e): the relevances of `WORKED`, moved so that the two ways are seen, as beta grows.

    Returns:
        (betas, 2): through exp, sum and log one after the other, and through them as a whole.
    """
    x, x0 = jnp.array([2.0, 1.0]), jnp.array([0.0, 0.5])

    def steps(beta: jax.Array) -> jax.Array:
        chosen = rulesets.compare_to_baseline(rules.SoftmaxLimit(beta))
        return jaxrel.relevance(lambda v: v.max(-1), chosen, baseline=x0)(x)

    def whole(beta: jax.Array) -> jax.Array:
        def soft(v: jax.Array) -> jax.Array:
            return jax.scipy.special.logsumexp(beta * v) / beta

        return jaxrel.relevance(soft, baseline=x0)(x)

    runs = {"exp, sum, log": steps, "log-sum-exp": whole}
    return {name: np.asarray(jax.jit(jax.vmap(f))(betas)) for name, f in runs.items()}


def order_of_pairs(seed: int, count: int) -> np.ndarray:
    """Claim (e): how much |a - b| depends on who meets whom first, for three values.

    Returns:
        The largest relevance that moves when the three are handed over in another order, over
        sum |x - x0|, for each of `count` triples.
    """
    x, x0 = np.random.default_rng(seed).normal(size=(2, count, 3))

    def turned(n: int) -> np.ndarray:
        def largest(v: jax.Array) -> jax.Array:
            return v[:, np.roll(np.arange(3), n)].max(-1)

        return np.asarray(jax.jit(jaxrel.relevance(largest, baseline=x0))(jnp.asarray(x)))

    spread = np.ptp(np.stack([turned(n) for n in range(3)]), axis=0).max(-1)
    return spread / np.abs(x - x0).sum(-1)


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

    Returns:
        For a tanh and silu network without biases, and a relu network with: the largest
        difference of the two relevances relative to slope's, (blips, count).
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
        largest = jnp.abs(slope).max(-1)
        found[title] = np.asarray(jnp.abs(lrp - slope).max(-1) / largest)
    return found


def steepness(blips: np.ndarray, differences: np.ndarray) -> float:
    """The order of convergence: the slope of log difference over log blip."""
    return float(np.polyfit(np.log(blips), np.log(differences), 1)[0])
