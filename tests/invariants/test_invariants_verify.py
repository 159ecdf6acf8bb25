"""The plan of every model of the zoo is true: `verify` finds nothing."""

import jax.numpy as jnp
import pytest

import jaxrel
from tests.covering import every
from tests.models import NAMES, build


@pytest.mark.parametrize("name", every(4, NAMES, 3))
def test_every_claim_holds(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    found = jaxrel.verify(model.fun, argnums=1)(model.params, model.x)
    assert found.ok, str(found)


@pytest.mark.parametrize("name", every(9, NAMES, 5))
def test_every_claim_holds_with_the_parameters_live(name: str) -> None:
    model = build(name, dtype=jnp.float64)
    found = jaxrel.verify(model.fun, "attn_lrp", argnums=(0, 1))(model.params, model.x)
    assert found.ok, str(found)


@pytest.mark.parametrize("name", every(9, NAMES, 7))
def test_every_claim_holds_at_a_baseline(name: str) -> None:
    model = build(name)
    found = jaxrel.verify(model.fun, argnums=1, baseline=0.0)(model.params, model.x)
    assert found.ok, str(found)
