"""Within `shard_map` with its mesh axes checked, all is as on one device.

What a rule makes by itself (ones, zeros, bounds) varies over no axis of the mesh, what it meets
does; what one layer is may be split over devices in many ways.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxrel import RuleSet, relevance, rules, rulesets, summary
from jaxrel.rulesets import First
from tests.checks import assert_close
from tests.covering import every

MESH = jax.make_mesh((2, 2), ("b", "m"), axis_types=(AxisType.Auto,) * 2)
RNG = np.random.default_rng(0)
X, X0, W, V = (jnp.asarray(RNG.normal(size=(4, 4))) for _ in range(4))
C, S = (jnp.asarray(RNG.normal(size=4)) for _ in range(2))
ROWS, COLUMNS, BOTH = P("b"), P(None, "m"), P("b", "m")


def sharded(fun: Callable, specs: tuple, out: P) -> Callable:
    return jax.shard_map(fun, mesh=MESH, in_specs=specs, out_specs=out)


def gathered(x, w, c):
    """Everyone has all columns, and keeps its own."""
    z = lax.all_gather(x @ w, "m", axis=1, tiled=True) + c
    return lax.dynamic_slice_in_dim(z, 2 * lax.axis_index("m"), 2, 1)


def scattered(x, w, c):
    return lax.psum_scatter(x @ w, "m", scatter_dimension=1, tiled=True) + c


def scattered_in_two(x, w, c):
    """Along a dimension of its own, after a reshape."""
    return lax.psum_scatter((x @ w).reshape(-1, 2, 2), "m", scatter_dimension=1) + c


LAYERS: dict[str, tuple[Callable, tuple, P]] = {
    "rows": (lambda x, w, c: x @ w + c, (ROWS, P(), P()), ROWS),
    "columns": (lambda x, w, c: x @ w + c, (P(), COLUMNS, P("m")), COLUMNS),
    "rows and columns": (lambda x, w, c: x @ w + c, (ROWS, COLUMNS, P("m")), BOTH),
    "sum": (lambda x, w, c: lax.psum(x @ w, "m") + c, (COLUMNS, P("m"), P()), P()),
    "rows and sum": (lambda x, w, c: lax.psum(x @ w, "m") + c, (BOTH, P("m"), P()), ROWS),
    "sum over all": (
        lambda x, w, c: lax.psum(x @ w, ("b", "m")) + c,
        (P(None, ("b", "m")), P(("b", "m")), P()),
        P(),
    ),
    "each adds a part of the bias": (
        lambda x, w, c: lax.psum(x @ w + c / 2, "m"),
        (BOTH, P("m"), P()),
        ROWS,
    ),
    "scattered": (scattered, (BOTH, P("m"), P("m")), BOTH),
    "scattered in two": (scattered_in_two, (BOTH, P("m"), P("m")), BOTH),
    "gathered": (gathered, (ROWS, COLUMNS, P()), BOTH),
    "input gathered": (
        lambda x, w, c: lax.all_gather(x, "m", axis=1, tiled=True) @ w + c,
        (BOTH, COLUMNS, P("m")),
        BOTH,
    ),
    "the same on all": (lambda x, w, c: x @ w + c, (P(), P(), P()), P()),
}
UNITS = {"WSquare": rules.WSquare(0.1), "Flat": rules.Flat(0.1), "ZBox": rules.ZBox(-3.0, 3.0, 0.1)}
RULES = {
    "Epsilon": rules.Epsilon(0.1, bias=False),
    "Gamma": rules.Gamma(jnp.asarray(0.3), jnp.asarray(0.1)),
    "GeneralizedGamma": rules.GeneralizedGamma(0.3, 0.1),
    "AlphaBeta": rules.AlphaBeta(2.0, 1.0, 0.1),
    "ZPlus": rules.ZPlus(rules.Stabilizer(0.1, "clip")),
    **UNITS,
}


def explained(layer: Callable) -> dict[str, Any]:
    """By every rule, the layer being the first, and in the middle; and against a baseline."""

    def first(x):
        return jnp.tanh(layer(x)) @ V

    def middle(x):
        return layer(jnp.tanh(x @ V + C))

    def run(x):
        found = {}
        for name, rule in RULES.items():
            chosen = RuleSet(matmul=rules.Epsilon(0.1)) | {First(): rule}
            found[name] = relevance(first, chosen)(x)
            if name not in UNITS:
                found[f"{name} in the middle"] = relevance(middle, RuleSet(matmul=rule))(x)
        chosen = RuleSet(matmul=rules.AlphaBeta(2.0, 1.0, 0.1))
        return found | {"baseline": relevance(middle, chosen, baseline=X0)(x)}

    return jax.jit(run)(X)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return explained(lambda x: x @ W + C)


@pytest.mark.parametrize("place", every(2, list(LAYERS)))
def test_layers_that_are_split(place: str, plain: dict[str, Any]) -> None:
    fun, specs, out = LAYERS[place]
    found = explained(lambda x: sharded(fun, specs, out)(x, W, C))
    for key, expected in plain.items():
        assert_close(found[key], expected)


@pytest.mark.parametrize(("x", "c", "out"), [(BOTH, P(), ROWS), (BOTH, P("m"), BOTH)])
def test_scales_after_a_sum(x: P, c: P, out: P) -> None:
    """They are folded into the weights, where a device has all that they are for, once."""

    def local(x, w, s, c):
        if out == ROWS:
            return lax.psum(x @ w, "m") * s + c
        return lax.psum_scatter(x @ w, "m", scatter_dimension=1, tiled=True) * 0.5 + c

    scale = S if out == ROWS else 0.5
    for rule in (rules.Epsilon(0.1, bias=False), rules.AlphaBeta(2.0, 1.0, 0.1), UNITS["WSquare"]):
        split, whole = (
            jax.jit(relevance(fun, RuleSet(matmul=rules.Gradient()) | {First(): rule}))(X)
            for fun in (
                lambda x_: jnp.tanh(sharded(local, (x, P("m"), P(), c), out)(x_, W, S, C)) @ V,
                lambda x_: jnp.tanh(x_ @ W * scale + C) @ V,
            )
        )
        assert_close(split, whole)


def deferred(h):
    """Attention that is normalised after the values."""
    e = jnp.exp(h @ V)
    return (e @ h.T @ h) / e.sum(-1, keepdims=True)


def by_logarithm(h):
    return jnp.exp(h - jax.nn.logsumexp(h, -1, keepdims=True)) @ V


def scaled_norm(h):
    return h * (lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6) * jnp.tanh(h @ V))


def of_one_value(h):
    return jnp.ones(4) / (1 + h.sum() ** 2) * jnp.tanh(h)


FUNCTIONS = (
    jax.nn.relu,
    jax.nn.leaky_relu,
    jax.nn.relu6,
    jax.nn.silu,
    jax.nn.gelu,
    jax.nn.softmax,
    jax.nn.log_softmax,
    deferred,
    by_logarithm,
    scaled_norm,
    of_one_value,
)


@pytest.mark.parametrize("fun", FUNCTIONS, ids=lambda fun: fun.__name__)
def test_what_is_read(fun: Callable) -> None:
    """Step by step the same, by a rule set that asks what a function is like."""
    rows = summary(fun, rulesets.lrp())(X)
    _, *inside = summary(sharded(fun, (ROWS,), ROWS), rulesets.lrp())(X)
    assert [(r.kind, r.rule) for r in inside] == [(r.kind, r.rule) for r in rows]


def test_what_is_repeated() -> None:
    """Relu is one also where its 0 has been made to vary."""

    def fun(x):
        return jax.nn.leaky_relu(jax.nn.relu(x @ W + C) @ V, 0.2) @ V

    found = jax.jit(relevance(sharded(fun, (ROWS,), ROWS), "deconvnet"))(X)
    assert_close(found, relevance(fun, "deconvnet")(X))


def blamed(layer: Callable) -> dict[str, Any]:
    """Relevance of the constants in all, those of the layer by a rule of its own."""

    def run(x):
        found = {}
        for name in ("Epsilon", "AlphaBeta"):
            explain = relevance(
                lambda x: jnp.tanh(layer(x)) @ V + S, RuleSet(matmul=RULES[name]), biases="total"
            )
            found[name] = explain(x)
        by_layer = relevance(lambda x: jnp.tanh(layer(jnp.tanh(x @ V))), "slope", biases=True)
        sums = jax.tree.map(jnp.sum, by_layer(x)[1])
        return found | {"all": sum(sums.values())}

    return jax.jit(run)(X)


@pytest.fixture(scope="module")
def plainly_blamed() -> dict[str, Any]:
    return blamed(lambda x: x @ W + C)


@pytest.mark.parametrize("place", every(3, list(LAYERS), start=1))
def test_constants_count_once(place: str, plainly_blamed: dict[str, Any]) -> None:
    """Whether a device adds its part of a constant, or all add the same to what is the same."""
    fun, specs, out = LAYERS[place]
    found = blamed(lambda x: sharded(fun, specs, out)(x, W, C))
    for key, expected in plainly_blamed.items():
        assert_close(found[key], expected)
