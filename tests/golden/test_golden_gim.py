"""GIM's gradients: every trusted case.

How GIM counts: its map is grad * (embedding - embedding of another token), and `grad` is what is
compared, the multipliers. Gated products are not halved there. Trusted are the cases in which its
changes of softmax, norms and products all act; attention in one fused call ignores the temperature.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import RuleSet, rules, rulesets
from tests import golden_nets
from tests.golden_nets import Case


def rules_of(case: Case) -> RuleSet:
    """The rule set of a case: the preset, with what the case leaves out."""
    hyper, plain = case.hyper, rules.Gradient()
    found = rulesets.gim(hyper["softmax_temperature"])
    if hyper["q_scale"] is None:
        found = dataclasses.replace(found, product=plain)
    return found if hyper["freeze_norm"] else dataclasses.replace(found, normalization=plain)


NETWORKS = [case for case in golden_nets.cases("gim") if not case.net.endswith("primitives")]


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.id)
def test_networks(case: Case):
    """A logit of a position in a causal network: what comes later gets nothing."""
    arrays, fun = golden_nets.arrays(case.net), golden_nets.build(case.net)
    x = arrays["x"]
    read = range(x.shape[1])[case.hyper["position"]] + 1

    def logit(x):
        return fun(x[:, :read])[0, case.hyper["target"]]

    np.testing.assert_allclose(logit(x), arrays["y"][0, read - 1, case.hyper["target"]], rtol=1e-9)
    explain = jaxrel.relevance(logit, rules_of(case)).multipliers
    golden_nets.check(case, golden_nets.quick(explain)(x), 1e-9)


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight, eps):
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def attention(q, k, v):
    scores = q @ jnp.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5
    causal = jnp.tri(q.shape[-2], dtype=bool)
    return jax.nn.softmax(jnp.where(causal, scores, -jnp.inf)) @ v


def norm(name: str, weight, bias, eps):
    if name.startswith("rms"):
        return lambda x: x * lax.rsqrt((x**2).mean(-1, keepdims=True) + eps) * weight

    def layer_norm(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias

    return layer_norm


PRIMITIVES = [case for case in golden_nets.cases("gim") if case.net.endswith("primitives")]


@pytest.mark.parametrize("case", PRIMITIVES, ids=lambda case: case.id)
def test_primitives(case: Case):
    found, hyper = golden_nets.arrays(case.net), case.hyper
    given = rulesets.gim(hyper.get("T", 1.0))
    if case.name.startswith("softmax"):
        fun, m = jax.nn.softmax, found["upstream"]
        x = (found["logits_causal" if "causal" in case.name else "logits"],)
    elif case.name.startswith("attention"):
        fun, x, m = attention, [found[name] for name in "qkv"], found["upstream_o"]
        if hyper["q_scale"] == 1:
            given = dataclasses.replace(given, product=rules.Gradient())
    else:
        fun = norm(case.name, found["weight"], found["bias"], hyper["eps"])
        x, m = (found["x"],), found["upstream_x"]
    changed = jaxrel.rewrite(fun, given, tuple(range(len(x))))
    sent = jax.vjp(changed, *x)[1](jnp.asarray(m))
    golden_nets.check(case, np.stack(sent) if len(x) > 1 else sent[0], 1e-9)
