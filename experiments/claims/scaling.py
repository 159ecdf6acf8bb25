"""Claim (c): scaling by c is a matrix, and it is a nonlinearity. Which pairs of rules agree?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments.claims.naive import stabilized
from experiments.claims.tables import Table, differ
from jaxrel import RuleSet, rules

BLIP = 0.1  # one that is seen, in units of z
SCALES = (3.0, 0.5, -2.0)


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

    def run(scaled: Callable[[Any, Any], Any], chosen: Mapping[str, RuleSet]) -> dict[str, Any]:
        def pulled(c: jax.Array) -> dict[str, jax.Array]:
            return {
                name: jaxrel.relevance_vjp(lambda x: scaled(c, x), x, rules=rule)[1](m)[0]
                for name, rule in chosen.items()
            }

        found = jax.jit(jax.vmap(pulled))(jnp.array(SCALES))
        return {name: np.asarray(found[name]) for name in chosen}

    def as_matrix(c: Any, x: Any):
        return (c * unit) @ x

    def as_nonlinearity(c: Any, x: Any):
        return jnp.where(x > 0, c * x, c * x)

    rows = run(as_matrix, {name: RuleSet(matmul=rule) for name, rule in MATRIX.items()})
    chosen = {name: RuleSet(nonlinearity=rule) for name, rule in NONLINEARITY.items()}
    columns = run(as_nonlinearity, chosen)
    return {
        row: {name: max(map(differ, a, b)) for name, b in columns.items()}
        for row, a in rows.items()
    }
