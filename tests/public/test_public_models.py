"""Unpatched models of public packages: presets are finite, references complete, layers named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import relevance, rulesets, summary
from tests.public.models import ALL, Model

PRESETS = ("gradient", "slope", "lrp", "attn_lrp", "cp_lrp", "epsilon_plus_flat")


def explained(model: Model, rules, reference=None):
    """Relevance, and multipliers' places, of a model in its own way."""
    if not model.at:
        return relevance(model.fun, rules, baseline=reference)
    return relevance(model.fun, rules, at=model.at, argnums=(), baseline=reference)


@pytest.mark.every_case
@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("name", ALL)
def test_public_models(name: str) -> None:
    model = ALL[name]()
    value = jax.jit(model.fun)(model.x)
    for preset in PRESETS:
        found = jax.jit(explained(model, preset))(model.x)
        for leaf in jax.tree.leaves(found):
            assert jnp.isfinite(leaf).all() and (leaf != 0).any(), preset
    draw = np.random.default_rng(1)
    if model.at:
        references = [jnp.zeros_like(model.x), jnp.asarray(draw.permuted(model.x, axis=1))]
    else:
        other = jnp.asarray(draw.normal(size=model.x.shape), model.x.dtype)
        references = [jnp.zeros_like(model.x), other]
    for reference in references:
        found = jax.jit(explained(model, rulesets.compare_to_baseline(), reference))(model.x)
        whole = sum(leaf.astype(float).sum() for leaf in jax.tree.leaves(found))
        change = (value - jax.jit(model.fun)(reference)).astype(float)
        scale = jnp.abs(value).max() + jnp.abs(change).max()
        assert jnp.abs(whole - change.sum()) < 1e-3 * scale, (whole, change.sum())
    if "jraph" not in name and "penzai" not in name and model.at == "":
        paths = {line.split()[0] for line in str(summary(model.fun)(model.x)).splitlines()[2:]}
        assert len(paths - {"-"}) > 0
