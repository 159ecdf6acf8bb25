"""Captum's and Zennit's integrated gradients and Zennit's smooth gradients: every trusted case.

How they count: Captum's trapezoid has weights that add up to (n - 1) / n, ours to 1; Captum rounds
the points of the path to float32. Zennit's integral is the right sum. With a composite, Zennit
averages relevance along the path and multiplies by (x - x0) once more: relevance stands where a
multiplier should. Its smooth gradients average the gradient, and the last draw of noise is zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel._call.multipliers import with_multipliers
from tests import golden_nets
from tests.covering import every
from tests.golden.test_golden_zennit import composite, unmerged
from tests.golden_nets import Case

pytestmark = pytest.mark.filterwarnings("ignore::jaxrel.UnusedMatchWarning")


@functools.cache
def gradient(net: str) -> Callable:
    """Relevance by the gradient, whose multipliers are compiled once for all cases of a network."""
    fun, onehot = golden_nets.build(net), golden_nets.arrays(net)["onehot"]
    found = jaxrel.relevance(lambda x: fun(x) * onehot, "gradient")
    return with_multipliers(found, golden_nets.compiled(found.multipliers.fun))


def zennit_relevance(case: Case, start: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Relevance under EpsilonPlusFlat, which starts with ``start`` whatever the logit is."""
    fun = golden_nets.build(case.net)
    rules = composite("epsilon_plus_flat", {})
    if case.net.endswith("nocanon"):
        rules = unmerged(rules, case.name)

    def relevance(x):
        y, pullback = jaxrel.relevance_vjp(fun, x, rules=rules)
        return pullback(start / y)[0]

    return relevance


def replay(noise: np.ndarray, key: jax.Array) -> Callable:
    """Noise for ``smooth(..., key, ...)`` that is known: its key tells which draw it is."""
    numbers = jnp.arange(len(noise))
    keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(key, k), 1)[0])(numbers)

    def draw(one, shape, dtype):
        which = (jax.random.key_data(keys) == jax.random.key_data(one)).all(-1)
        return jnp.tensordot(which.astype(dtype), noise, 1)

    return draw


def explain(case: Case) -> jax.Array:
    """What jaxrel gives for a case."""
    found, hyper = golden_nets.arrays(case.net), case.hyper
    x, relevance_fn = found["x"], gradient(case.net)
    if "noise_level" in hyper:
        key, n = jax.random.key(0), hyper["n_iter"]
        noise = replay(found["noise/a_smoothgrad"], key)
        made = jaxrel.smooth(relevance_fn.multipliers, key, 1.0, n, noise=noise, chunk=n)
        return made(x)
    method = hyper.get("method", "riemann_right").removeprefix("riemann_")
    method = {"gausslegendre": "gauss_legendre"}.get(method, method)
    steps = hyper["n_steps"] if "n_steps" in hyper else hyper["n_iter"]
    baseline = found["baseline"] if hyper["baseline"] == "baseline" else hyper["baseline"]
    if case.name == "a_ig_of_epsilon_plus_flat":
        relevance = golden_nets.compiled(zennit_relevance(case, found["onehot"]))
        relevance_fn = with_multipliers(lambda x: x * relevance(x), relevance)
    result = jaxrel.integrated(relevance_fn, baseline, steps, method, chunk=steps)(x)
    return result * (steps - 1) / steps if method == "trapezoid" else result


CASES = [case for peer in ("captum", "zennit") for case in golden_nets.cases(peer, "around")]


@pytest.mark.parametrize("case", every(2, CASES), ids=lambda case: case.id)
def test_around(case: Case):
    # Captum's points are rounded to float32
    tolerance = 1e-6 if case.id.startswith("captum") else 1e-7
    golden_nets.check(case, explain(case), tolerance)
