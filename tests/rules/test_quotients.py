"""Quotients and norms against a baseline: complete, and of the size of f, also where f(0) is 0 / 0.

The measures of a transformer and of a decoder without biases; `python -m
tests.rules.test_quotients 24 1024 64` prints the first at full size.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrel import relevance


def draw(*shape, seed=0, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("power", [1, 0.5, 2, 3, 1 / 3])
@pytest.mark.parametrize("written", ["divided", "by the power"])
def test_quotients_are_complete(power, written):
    """Also where the denominator changes its sign, as far as the power allows that."""
    a, a0 = draw(2, 5, 3)
    v, v0 = draw(2, 5, 1, seed=1)
    if power not in (1, 3):
        v, v0 = jnp.abs(v), jnp.abs(v0)

    def f(x):
        a, v = x
        return a / v**power if written == "divided" else a * v**-power

    assert power not in (1, 3) or ((v > 0) != (v0 > 0)).any()
    R = relevance(f, baseline=(a0, v0))((a, v))
    found = R[0] + R[1] / 3  # each of three quotients has its part of what v gets
    np.testing.assert_allclose(found.sum(-1), (f((a, v)) - f((a0, v0))).sum(-1), rtol=1e-9)


def test_a_quotient_by_nearly_nothing_is_of_the_size_of_f():
    x = draw(4, 8)
    for floor in (1e-4, 1e-8, 1e-12):
        for f in (
            lambda x, e=floor: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + e),
            lambda x, e=floor: x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + e),
            lambda x, e=floor: x / jnp.maximum(jnp.abs(x).sum(-1, keepdims=True), e),
        ):
            R = relevance(f, baseline=0.0)(x)
            np.testing.assert_allclose(R.sum(-1), f(x).sum(-1), rtol=1e-9)
            assert jnp.abs(R).max() < 10 * jnp.abs(f(x)).max()


def layer_norm(x, fast=False):
    """With the variance as a mean square, or as the difference of two, as flax has it."""
    mean = x.mean(-1, keepdims=True)
    if fast:
        variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    else:
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-6)


def rms_norm(x):
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def transformer(depth, width, dtype, norm=layer_norm, heads=4):
    """Pre-norm blocks with biases, gelu, and a linear head on the mean token."""
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width), (4 * width, 1)]
    rows = [
        [draw(*s, seed=9 * k + i, dtype=jnp.float32) / s[0] ** 0.5 for i, s in enumerate(shapes)]
        for k in range(depth)
    ]
    rows = jax.tree.map(lambda w: w.astype(dtype), rows)
    split = lambda z: z.reshape(len(z), heads, -1)  # noqa: E731

    def f(x):
        for q, k, v, o, up, down, b in rows:
            h = norm(x)
            logits = (
                jnp.einsum("qhd,khd->hqk", split(h @ q), split(h @ k)) * (width / heads) ** -0.5
            )
            x = (
                x
                + jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), split(h @ v)).reshape(x.shape)
                @ o
            )
            x = x + jax.nn.gelu(norm(x) @ up + b[:, 0]) @ down
        return norm(x).mean(0)[0]

    return f


def measured(depth, width, tokens, norm=layer_norm):
    """Completeness in float32 by reference, and the rounding of f itself there; both relative."""
    x, noise = draw(2, tokens, width, seed=1, dtype=jnp.float32)
    references = {
        "zero": jnp.zeros_like(x),
        "noise": noise,
        "mean": jnp.broadcast_to(x.mean(0), x.shape),
        "1 % away": x + 0.01 * noise,
    }
    f = jax.jit(transformer(depth, width, jnp.float32, norm))
    explain = jax.jit(lambda x, x0: relevance(f, baseline=x0)(x))
    found = {}
    for name, x0 in references.items():
        R = np.asarray(explain(x, x0), np.float64)
        change = float(f(x)) - float(f(x0))
        with jax.enable_x64(True):
            g = jax.jit(transformer(depth, width, jnp.float64, norm))
            right = [float(g(jnp.asarray(np.asarray(v, np.float64)))) for v in (x, x0)]
        right = right[0] - right[1]
        found[name] = abs(R.sum() - change) / abs(change), abs(change - right) / abs(right)
    return found


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("norm", [layer_norm, lambda x: layer_norm(x, fast=True)])
def test_a_transformer_is_complete_in_float32(norm):
    for name, (error, rounding) in measured(3, 32, 8, norm).items():
        bar = {"zero": 1e-4, "1 % away": 3 * rounding + 1e-6}.get(name, 1e-5)
        assert error <= bar + 2 * rounding, name


def decoder(depth, width, dtype):
    """RMSNorm, causal attention, SwiGLU; no biases: nothing but the embedding enters."""
    shapes = [(width, width)] * 4 + [(width, 2 * width)] * 2 + [(2 * width, width)]
    rows = [
        [draw(*s, seed=9 * k + i, dtype=dtype) / s[0] ** 0.5 for i, s in enumerate(shapes)]
        for k in range(depth)
    ]

    def f(x):
        for q, k, v, o, gate, up, down in rows:
            h = rms_norm(x)
            logits = jnp.where(np.tri(len(x)) > 0, (h @ q) @ (h @ k).T / width**0.5, -jnp.inf)
            x = x + jax.nn.softmax(logits) @ (h @ v) @ o
            h = rms_norm(x)
            x = x + (jax.nn.silu(h @ gate) * (h @ up)) @ down
        return rms_norm(x)[-1, :3].sum()

    return f


@pytest.mark.parametrize("depth", [4, pytest.param(32, marks=pytest.mark.full)])
def test_a_decoder_without_biases_against_nothing(depth):
    for dtype, bar in ((jnp.float64, 1e-10), (jnp.float32, 1e-4)):
        with jax.enable_x64(dtype == jnp.float64):
            f, x = decoder(depth, 16, dtype), draw(6, 16, seed=3, dtype=dtype)
            R = jax.jit(relevance(f, baseline=0.0))(x)
            change = f(x) - f(0 * x)
            assert abs(R.sum() - change) <= bar * abs(change)
            assert jnp.abs(R).max() <= 1e3 * abs(change)


if __name__ == "__main__":
    with jax.enable_x64(False):
        for name, (error, rounding) in measured(*map(int, sys.argv[1:4])).items():
            print(f"{name:10} completeness {error:.1e}   rounding of f {rounding:.1e}")
