"""Claims (d) and (e): the maximum.

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

**The two ways to take a maximum are one, if the softmax is taken whole.** Let a be the larger value
and b the larger at the baseline, d = a - b, d0 = a0 - b0. By |a - b|, a gets the factor
|d| / (|d| + |d0|). By exp, sum and log one after the other, in the limit beta -> inf, the winner
where the maximum is larger gets all: another answer, as the text says. But the slopes of exp and
log change when a number is added to a and b, which the log-sum-exp y only hands on. The shares
p = exp(beta (a - y)) do not, and their logarithmic means between the two points, normalised, are
weights w with y - y0 = sum w_i (a_i - a0_i). In the limit only the winner at x and the one at the
baseline keep a weight, 1 / (beta |d0|) and 1 / (beta |d|) before they are normalised: the answer of
|a - b| exactly. And it needs no order of pairs where there are more than two values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments.claims.scaling import NONLINEARITY
from experiments.claims.tables import Table, differ
from jaxrel import RuleSet, rules, rulesets

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

    def as_maximum(constants: tuple[float, ...], rule: Any, base: Any) -> jax.Array:
        wide = tuple(jnp.full_like(x, a) for a in constants)
        every = tuple(range(1 + len(wide)))

        def value(x: jax.Array, *others: jax.Array) -> jax.Array:
            return jnp.max(jnp.stack([x, *others]), 0)

        both = None if base is None else (base, *wide)
        return jaxrel.relevance(value, RuleSet(maximum=rule), every, baseline=both)(x, *wide)[0]

    def as_nonlinearity(constants: tuple[float, ...], rule: Any, base: Any) -> jax.Array:
        a = max(constants)
        chosen = RuleSet(nonlinearity=rule)
        return jaxrel.relevance(lambda x: jnp.maximum(x, a), chosen, baseline=base)(x)

    def table(constants: tuple[float, ...], maxima: Any, columns: Any, base: Any) -> Table:
        def both() -> Any:
            return (
                {name: as_maximum(constants, rule, base) for name, rule in maxima.items()},
                {name: as_nonlinearity(constants, NONLINEARITY[name], base) for name in columns},
            )

        rows, found = jax.tree.map(np.asarray, jax.jit(both)())
        y = np.maximum(GRID, max(constants))
        unit = np.where(y == 0, 1, np.abs(y))
        measure = differ if base is not None else lambda a, b: float(np.abs((a - b) / unit).max())
        return {row: {k: measure(rows[row], found[k]) for k in columns} for row in maxima}

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
    names = ("Gradient", "Radial", "Shapley")

    def relevances(x: jax.Array, a: jax.Array) -> dict[str, jax.Array]:
        sets = {name: RuleSet(maximum=MAXIMUM[name]) for name in names}
        return {k: jaxrel.relevance(jnp.maximum, v, (0, 1))(x, a)[0] for k, v in sets.items()}

    given = jax.jit(relevances)(x, jnp.full_like(x, a))
    found = {name: np.asarray(r) / np.where(y == 0, 1, y) for name, r in given.items()}
    return found | {"slope, as a share": y / GRID, "slope, as relevance": np.ones_like(GRID)}


WORKED = ((3.0, 1.0), (0.0, 2.0))  # two values, and the same at the baseline: the order changes
BETA = 30.0
ONES = np.ones(2)  # closed over: a layer to jaxrel, which does not look at its numbers
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

    def run(fun: Callable, maximum: Any = None) -> Callable[[jax.Array], jax.Array]:
        return jaxrel.relevance(fun, rulesets.compare_to_baseline(maximum), baseline=x0)

    def largest(v: jax.Array) -> jax.Array:
        return v.max(-1)

    def by_distance(v: jax.Array) -> jax.Array:
        a, b = v[:, 0], v[:, 1]
        return (a + b) / 2 + jnp.abs(a - b) / 2

    def by_steps(v: jax.Array) -> jax.Array:
        return jnp.log(jnp.exp(BETA * v) @ ONES) / BETA  # three steps to jaxrel

    def whole(v: jax.Array) -> jax.Array:
        return jax.scipy.special.logsumexp(HARD * v, axis=-1) / HARD  # one step

    ways = {
        "|a - b|": run(largest, rules.AbsoluteValue()),
        "|a - b|, by parts": run(by_distance),
        "softmax limit": run(largest, rules.SoftmaxLimit()),
        "softmax": run(largest, rules.SoftmaxLimit(BETA)),
        "softmax, by parts": run(by_steps),
        "softmax as a whole": run(whole),
    }
    found = jax.jit(lambda x: {name: way(x) for name, way in ways.items()})(jnp.asarray(x))
    return {"x": x, "x0": x0} | {name: np.asarray(r) for name, r in found.items()}


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

    def turned(n: int) -> Callable[[jax.Array], jax.Array]:
        def largest(v: jax.Array) -> jax.Array:
            return v[:, np.roll(np.arange(3), n)].max(-1)

        return jaxrel.relevance(largest, baseline=x0)

    orders = jax.jit(lambda x: [turned(n)(x) for n in range(3)])(jnp.asarray(x))
    spread = np.ptp(np.stack(orders), axis=0).max(-1)
    return spread / np.abs(x - x0).sum(-1)
