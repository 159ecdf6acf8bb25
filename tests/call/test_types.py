"""The idioms of the README as users write them: they run here, and pyright and mypy accept them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxrel
from jaxrel import First, Kind, RuleSet, rules, rulesets


def half(view: rules.View, m: Any) -> Any:
    """A rule of one's own."""
    return tuple(0.5 * v for v in view.vjp(m))


def unannotated(view, m):
    return view.vjp(m)


def test_overrides_with_keys_of_one_type_and_of_several() -> None:
    made: list[RuleSet] = [
        rulesets.slope() | {"**/layers_3": rules.Gradient()},
        rulesets.slope() | {Kind("conv"): rules.Epsilon(1e-3)},
        rulesets.slope() | {First(): rules.Flat()},
        rulesets.slope() | {"silu": rules.Ignore(), "tanh": half, "exp": unannotated},
        rulesets.slope() | {"tanh": lambda view, m: m},
        rulesets.slope() | {First(): rules.Flat(), "silu": rules.Ignore(), Kind("pool"): half},
        rulesets.epsilon(jnp.float32(0.1)) | dict(rulesets.epsilon_plus_flat().overrides),
    ]
    named = {"tanh": rules.Slope()}
    by_kind: dict[Kind, rules.RuleFunction] = {Kind("dense"): rules.ZPlus()}
    made.append(made[0] | named | by_kind)
    assert [len(each.overrides) for each in made[:6]] == [1, 1, 1, 3, 1, 3]


def test_relevance_functions_and_what_they_carry() -> None:
    def fun(x: jax.Array) -> jax.Array:
        return jnp.tanh(x).sum(-1)

    x = jnp.ones((2, 3))
    chosen = RuleSet(matmul=half) | {Kind("dense"): rules.Gradient()}
    explain = jaxrel.relevance(fun, rulesets.slope(), 0, baseline=0.0, chunk=2)
    m: jax.Array = explain.multipliers(x)
    faster: Callable[..., Any] = jax.jit(explain)
    around = jaxrel.integrated(jaxrel.relevance(fun, "gradient"), 0.0, steps=2)
    value, found = jaxrel.value_and_relevance(fun, "slope")(x)
    assert m.shape == faster(x).shape == around(x).shape == found.shape == x.shape
    assert value.shape == (2,)
    assert str(chosen)
    figures = jaxrel.plot, jaxrel.training
    assert all(hasattr(figure, "__name__") for figure in figures)
