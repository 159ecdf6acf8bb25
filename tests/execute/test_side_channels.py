"""What travels with a value - twin, companion, parts, probe - goes through every control flow.

One function in three pieces: pictures are prepared, read by a layer, and the rest. Each piece is
put into each kind of control flow, by rule sets that need each of the companies. Nothing but
rounding may change.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrel import First, audit, relevance, rulesets
from jaxrel.rules import Flat
from tests.checks import assert_close
from tests.covering import every

KEYS = jax.random.split(jax.random.key(0), 4)
W, V = jax.random.normal(KEYS[0], (6, 8)), jax.random.normal(KEYS[1], (8, 5))
X, X0 = (jax.random.normal(k, (4, 6)) for k in KEYS[2:])
X = X.at[:, ::2].set(0)  # black pixels: only a companion brings them relevance


def prepare(x):
    """What companions go through."""
    return (x[:, ::-1] - 0.3) / 0.5


def first(x):
    """The layer that unit rules are for."""
    return jax.nn.relu(x @ W + 0.1)


def rest(h):
    """A mask that is another at the baseline, a nonlinearity and a bias."""
    return jnp.tanh((h * (h > 1)) @ V + 0.1).sum(-1)


def through(wrap: Callable) -> Callable:
    """The function with each of its pieces in control flow."""
    pieces = [wrap(piece) for piece in (prepare, first, rest)]

    def fun(x):
        for piece in pieces:
            x = piece(x)
        return x

    return fun


def in_scan(fun):
    """Example by example, beside a carry that begins as a constant and becomes live."""

    def body(total, x):
        y = fun(x[None])[0]
        return total + y.sum(), y

    return lambda x: lax.scan(body, jnp.zeros_like(x[0, 0]), x)[1]


def in_carry(fun):
    """On what a loop carries."""
    return lambda x: lax.scan(lambda x, _: (x, fun(x)), x, length=2)[1][1]


def in_cond(fun):
    """As the branch that is taken."""
    return lambda x: lax.cond(jnp.array(1) < jnp.array(2), fun, lambda x: 2 * fun(x), x)


def in_custom_vjp(fun):
    """With a derivative that is declared, and is the true one."""

    @jax.custom_vjp
    def run(x):
        return fun(x)

    run.defvjp(lambda x: jax.vjp(fun, x), lambda pullback, m: pullback(m))
    return run


@cache
def mesh(kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((2,), ("d",), axis_types=(kind,))


def in_jit(fun):
    """With shardings, which keep a call whole."""
    sharded = NamedSharding(mesh(), P("d"))
    return jax.jit(fun, in_shardings=sharded, out_shardings=sharded)


def in_shard_map(fun):
    """Two examples on each device; mesh axes are checked."""
    return jax.shard_map(fun, mesh=mesh(), in_specs=P("d"), out_specs=P("d"))


def in_all(fun):
    """One in the other."""
    return in_shard_map(in_scan(jax.checkpoint(in_cond(fun))))


WRAPPERS = (
    jax.checkpoint,
    in_scan,
    in_carry,
    in_cond,
    in_custom_vjp,
    in_jit,
    in_shard_map,
    in_all,
)
PARTS_AND_UNITS = rulesets.deeplift_reveal_cancel() | {First(): Flat()}
ALL = {
    "flat": (relevance, "epsilon_plus_flat", {}),
    "deep_taylor": (relevance, "deep_taylor", {}),
    "zbox": (relevance, rulesets.deep_taylor(-3.0, 3.0), {}),
    "baseline": (relevance, "compare_to_baseline", {"baseline": X0}),
    "reveal_cancel": (relevance, "deeplift_reveal_cancel", {"baseline": X0}),
    "parts_and_units": (relevance, PARTS_AND_UNITS, {"baseline": 0.2}),
    "biases": (relevance, "slope", {"biases": "total"}),
    "biases_of_units": (relevance, "epsilon_plus_flat", {"biases": "total"}),
    "audit": (lambda *given, **how: _total(audit(*given, **how)), "epsilon_plus", {}),
    "audit_baseline": (lambda *g, **how: _total(audit(*g, **how)), None, {"baseline": X0}),
}


def _total(run: Callable) -> Callable:
    def total(x):
        found = run(x)
        arrived, sent, biases = sum(jnp.reshape(a, (-1, 3)).sum(0) for a in found.amounts)
        return found.value, found.explained, arrived - sent, biases

    return total


def explained(fun: Callable, around: Callable = lambda run: run, chosen: Any = ALL) -> Any:
    """Explanations by every rule set, compiled at once."""

    def run(x):
        return {key: around(of(fun, rules, **how))(x) for key, (of, rules, how) in chosen.items()}

    return jax.jit(run)(X)


@cache
def plain() -> Any:
    return explained(through(lambda fun: fun))


@pytest.mark.full
@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
def test_relevance_of_control_flow(wrap: Callable) -> None:
    """The plain program's, whatever the rule set."""
    found = explained(through(wrap))
    for key, expected in plain().items():
        assert_close(found[key], expected)


ARRAYS = {
    key: (of, rules, {"baseline": 0.2} if how else {})
    for key, (of, rules, how) in ALL.items()
    if of is relevance and "biases" not in key
}


@cache
def plain_arrays() -> Any:
    return explained(through(lambda fun: fun), chosen=ARRAYS)


@pytest.mark.parametrize("wrap", every(4, WRAPPERS, start=2), ids=lambda wrap: wrap.__name__)
def test_relevance_inside_control_flow(wrap: Callable) -> None:
    """Relevance is a function like any other, and what it makes is made where it is used."""
    found = explained(through(lambda fun: fun), wrap, ARRAYS)
    for key, expected in plain_arrays().items():
        assert_close(found[key], expected)


def test_pixels_worth_nothing_keep_their_relevance() -> None:
    """What the tests above are about is there."""
    for key in ("flat", "deep_taylor", "zbox", "parts_and_units"):
        assert np.any(plain()[key][:, ::2]), key
