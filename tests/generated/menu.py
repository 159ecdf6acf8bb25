"""What generated programs are made of: lines of source, on values of one shape.

Every value is (4, 4), so any line can be left out of a program, or read any other value. In a line,
`{a}` and `{b}` are values, `{W}` a matrix, `{c}` a vector, `{K}` a kernel of a convolution.
"""

from typing import NamedTuple

PRELUDE = """
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

rng = np.random.default_rng(0)
W0, W1, W2 = (jnp.asarray(rng.normal(size=(4, 4)) / 2, dtype) for _ in range(3))
c0, c1, c2 = (jnp.asarray(rng.normal(size=4), dtype) for _ in range(3))
K0, K1 = (jnp.asarray(rng.normal(size=(3, 4, 4)) / 3, dtype) for _ in range(2))
x, x0 = (jnp.asarray(rng.normal(size=(4, 4)), dtype) for _ in range(2))
causal = np.tri(4, dtype=bool)
order = np.array([2, 0, 3, 1])
mesh = Mesh(np.array(jax.devices()[:2]), ("m",))
conv = partial(lax.conv_general_dilated, window_strides=(1,), padding="SAME",
               dimension_numbers=("NWC", "WIO", "NWC"))


def wide(h):
    return h.astype(jnp.promote_types(h.dtype, jnp.float32))


def observed(h):
    jax.debug.callback(lambda value: None, h)
    return h


def share(h, axis=-1):
    e = jnp.exp(h - lax.stop_gradient(h.max(axis, keepdims=True)))
    return e / e.sum(axis, keepdims=True)


def masked_share(h):
    e = jnp.exp(h) * causal
    return e / (e @ jnp.ones((4, 1), h.dtype))


def centred(h):
    return h - h.mean(-1, keepdims=True)


def layer_norm(h):
    return centred(h) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-3)


def moments_norm(h):
    mean = h.mean(-1, keepdims=True)
    return (h - mean) * lax.rsqrt((h * h).mean(-1, keepdims=True) - mean**2 + 1e-3)


def split_softmax(h):
    e = jnp.exp(h - lax.pmax(lax.stop_gradient(h.max(-1, keepdims=True)), "m"))
    return e / lax.psum(e.sum(-1, keepdims=True), "m")


def on_columns(f):
    return jax.shard_map(f, mesh=mesh, in_specs=P(None, "m"), out_specs=P(None, "m"))


def tensor_parallel(h, w, c, v):
    def local(h, w, c, v):
        return lax.psum(nn.relu(h @ w + c) @ v, "m")

    specs = P(), P(None, "m"), P("m"), P("m", None)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())(h, w, c, v)


def sharded(f):
    whole = NamedSharding(mesh, P())
    return jax.jit(f, in_shardings=NamedSharding(mesh, P("m")), out_shardings=whole)


@jax.custom_jvp
def signed_root(h):
    return jnp.sign(h) * jnp.log1p(jnp.abs(h))


@signed_root.defjvp
def _(primals, tangents):
    return signed_root(*primals), tangents[0] / (1 + jnp.abs(primals[0]))


@jax.custom_vjp
def softsign(h):
    return h / (1 + jnp.abs(h))


softsign.defvjp(lambda h: (softsign(h), h), lambda h, m: (m / (1 + jnp.abs(h)) ** 2,))


@jax.custom_vjp
def own_layer(h, w):
    return jnp.tanh(h @ w)


def _own_layer_back(kept, m):
    h, w, y = kept
    m = m * (1 - y * y)
    return m @ w.T, h.T @ m


own_layer.defvjp(lambda h, w: (own_layer(h, w), (h, w, jnp.tanh(h @ w))), _own_layer_back)
"""


class Line(NamedTuple):
    """An operation.

    Attributes:
        text: Its source; an expression.
        conserves: Whether `cp_lrp` with biases hands on all relevance.
        complete: Whether all that it does is explained against a baseline; not so where something
            passes as an integer or through `stop_gradient`.
        smooth: Whether its relevance has derivatives almost everywhere that finite differences see.
        sharded: Whether it runs on several devices.
    """

    text: str
    conserves: bool = True
    complete: bool = True
    smooth: bool = True
    sharded: bool = False


def lines(texts: str, **facts: bool) -> list[Line]:
    return [Line(text.strip(), **facts) for text in texts.strip().splitlines()]


_AFFINE = lines("""
{a} @ {W} + {c}
{c} - {a} @ {W}
{c} + {a} @ {W}
({a} @ {W}) * {c} + 1
-({a} @ {W})
({a} @ {W} - {c}) / jnp.sqrt({c} ** 2 + 1) * {c} + 0.5
jnp.einsum("td,ed->te", {a}, {W}) + {c}
jnp.einsum("de,td->te", {W}, {a})
({W}.T @ {a}.T).T - {c}
{W} @ {a}
conv({a}[None], {K})[0] + {c}
{c} - conv({a}[None], {K})[0]
conv({a}[None], {K}[:, :1], feature_group_count=4)[0]
jnp.einsum("tab,abe->te", {a}.reshape(4, 2, 2), {W}.reshape(2, 2, 4)) + {c}
jax.vmap(lambda row: row @ {W} + {c})({a})
checkpoint_name({a} @ {W}, "z") + {c}
lax.optimization_barrier({a} @ {W}) + {c}
observed({a} @ {W}) + {c}
jax.checkpoint(lambda h: h @ {W})({a}) + {c}
jax.jit(lambda h: h @ {W} + {c})({a})
{a} * {c}
{a} + {c}
{c} - {a}
{a} / 2 - 1
{a} * 0.5
-{a}
""")

_ACTIVATIONS = lines("""
nn.relu({a})
jnp.maximum({a}, 0)
jnp.where({a} > 0, {a}, 0)
{a} * ({a} > 0)
nn.leaky_relu({a}, 0.1)
jnp.where({a} > 0, {a}, 0.2 * {a})
nn.gelu({a})
0.5 * {a} * (1 + jnp.tanh(0.8 * ({a} + 0.04 * {a} ** 3)))
nn.silu({a})
{a} * nn.sigmoid({a})
{a} / (1 + jnp.exp(-{a}))
{a} * (1 / (1 + jnp.exp(-{a})))
{a} * checkpoint_name(nn.sigmoid({a}), "gate")
nn.elu({a})
jnp.where({a} > 0, {a}, jnp.expm1(jnp.where({a} > 0, 0.0, {a})))
nn.softplus({a})
jnp.log(1 + jnp.exp({a}))
jnp.logaddexp({a}, 0)
nn.sigmoid({a})
1 / (1 + jnp.exp(-{a}))
jnp.tanh({a})
2 * nn.sigmoid(2 * {a}) - 1
nn.mish({a})
nn.selu({a})
nn.relu6({a})
nn.hard_tanh({a})
jnp.clip({a}, -1, 1)
nn.squareplus({a})
jnp.sin({a})
jnp.cos({a})
jnp.abs({a})
jnp.sqrt({a} * {a} + 1)
{a} ** 2
jnp.square({a}) / 3
{a} * {a} * {a} / 5
jnp.exp(-{a} * {a})
jnp.arctan({a})
lax.erf({a})
jnp.log1p(jnp.abs({a}))
signed_root({a})
softsign({a})
jax.jit(nn.silu)({a})
jax.checkpoint(jnp.tanh)({a})
1 / (1 + {a} * {a})
lax.rsqrt(1 + {a} * {a})
""")

_NORMS = lines("""
layer_norm({a})
moments_norm({a})
centred({a}) * lax.rsqrt(({a}.var(-1, keepdims=True)) + 1e-3)
nn.standardize({a}, epsilon=1e-3)
{a} * lax.rsqrt(({a} * {a}).mean(-1, keepdims=True) + 1e-3) * {c}
{a} / jnp.sqrt(({a} ** 2).mean(-1, keepdims=True) + 1e-3)
{a} / (({a} ** 2).sum(-1, keepdims=True) + 1e-2) ** 0.5
{a} * (1 / jnp.sqrt(jnp.einsum("td,td->t", {a}, {a})[:, None] + 1e-2))
{a} / jnp.sqrt(({a} ** 2).mean((0, 1), keepdims=True) + 1e-3)
jax.checkpoint(layer_norm)({a})
centred({a})
""")

_SHARES = lines(
    """
nn.softmax({a})
nn.softmax({a}, 0)
share({a})
masked_share({a})
jnp.exp(nn.log_softmax({a}))
jnp.exp({a}) / jnp.exp({a}).sum()
nn.log_softmax({a})
nn.logsumexp({a}, -1, keepdims=True) - {b}
nn.softmax({a}) @ {W}
jax.checkpoint(nn.softmax)({a})
nn.softmax(jnp.where(causal, {a}, -jnp.inf))
nn.softmax({a}, where=causal) * {c}
jnp.exp(nn.sigmoid({a})) / jnp.exp(nn.sigmoid({b})).sum(-1, keepdims=True)
""",
    conserves=False,
)

_ATTENTION = lines(
    """
nn.softmax({a} @ {W} @ {b}.T) @ {b}
nn.softmax(jnp.where(causal, {a} @ {b}.T / 2, -jnp.inf)) @ {b}
jnp.einsum("ts,sd->td", share(jnp.einsum("td,sd->ts", {a}, {b})), {b} @ {W})
jnp.einsum("sd,ts->td", {b}, nn.softmax({a} @ {W}))
(lambda e: (e @ {b}) / e.sum(-1, keepdims=True))(jnp.exp(nn.tanh({a} @ {W})))
(nn.softmax({a} @ {b}.T) * {c}[:, None]) @ {b}
jnp.tanh({a} @ {b}.T) @ {b}
""",
    conserves=False,
)

_PRODUCTS = lines("""
nn.sigmoid({a}) * {b}
{b} * nn.sigmoid({a} @ {W})
nn.silu({a} @ {W}) * ({b} @ {W})
{a} * {b}
jnp.einsum("td,td->td", {a}, jnp.tanh({b}))
{a} @ {b} / 2
{a} / (1 + {b} * {b})
{a} * (1 / (2 + jnp.sin({b})))
{a} * (1 + jnp.exp({b})) ** -1
{a} * lax.rsqrt(1 + {b} ** 2)
{a} * (1 + jnp.abs({b}))
{a} * jnp.linalg.norm({b}, axis=-1, keepdims=True) / 3
jnp.prod({a}[:, :3], -1, keepdims=True) / 4 + {b}
jnp.cumprod({a} / 2, -1)
""")

_SUMS = lines("""
{a} + {b}
{a} - {b}
{b} + jnp.tanh({a} @ {W})
{a} - {b} @ {W}
{a}.sum(0, keepdims=True) + {b}
{a} - {b}.mean()
jnp.cumsum({a}, 0)
lax.cumsum({a}, 1, reverse=True) + {b}
jnp.tril(jnp.ones((4, 4), {a}.dtype)) @ {a}
lax.associative_scan(jnp.add, {a})
jnp.stack([{a}, {b}]).sum(0)
jnp.stack([{a}, jnp.ones_like({b}), {b}]).mean(0)
jnp.concatenate([{a}[:2], {b}[1:3]])
jnp.concatenate([{a}[:, 1:], jnp.ones((4, 1), {a}.dtype)], 1)
jnp.pad({a}, 1, constant_values=0.5)[:4, 1:5]
jnp.roll({a}, 1, 0)
{a}[order]
{a}[::-1].T
jnp.take({a}, jnp.array([0, 9, 2, 1]), 0, mode="fill", fill_value=0.25)
{a}.at[1].set({b}[0])
{a}.at[order[:2]].add({b}[:2])
jax.ops.segment_sum({a}, np.array([0, 1, 1, 3]), 4)
lax.dynamic_update_slice({a}, {b}[:2, :2], (1, 1))
jnp.where(causal, {a}, {b})
jnp.where(causal, {a}, 0.5)
{a} * causal
jnp.repeat({a}[:, :2], 2, 1)
lax.reduce_window({a}, np.array(0, {a}.dtype), lax.add, (3, 1), (1, 1), "SAME") / 3
jnp.fft.ifft(jnp.fft.fft({a}) * jnp.exp(1j * jnp.arange(4))).real.astype({a}.dtype)
jnp.fft.irfft(jnp.fft.rfft(wide({a})), 4).astype({a}.dtype)
""")

_COMPLEX = lines("""
jnp.abs(jnp.fft.fft({a})).astype({a}.dtype)
(({a} + 1j * {b}) ** 2).real.astype({a}.dtype)
(jnp.exp(1j * {a}) * {b}).imag.astype({a}.dtype)
""")

_MAXIMA = lines(
    """
jnp.maximum({a}, {b})
jnp.minimum({a}, {b})
{a} - {b}.max(-1, keepdims=True)
{a}.max(0) + {b}
lax.reduce_window({a}, np.array(-np.inf, {a}.dtype), lax.max, (2, 2), (1, 1), "SAME")
lax.cummax({a}, 0)
jnp.sort({a}, 0)
lax.top_k({a}, 4)[0]
jnp.median({a}, 0) + {b}
{a}.at[0].max({b}[1])
jnp.where({a} > {b}, {a}, {b})
jnp.maximum({a}, {c})
jnp.linalg.norm({a}, axis=0) + {b}
""",
    smooth=False,
)

_CONSTANTS = lines(
    """
{a} + lax.stop_gradient({b})
{a} * lax.stop_gradient(jnp.tanh({b}))
{a} + jnp.round({b})
{a} * {b}.astype(int).astype({a}.dtype)
{a} + jnp.argmax({b})
{a}[jnp.argsort({b}[:, 0])]
lax.dynamic_slice_in_dim({a}, jnp.argmax({b}[:3, 0]), 1) + {b}
jnp.take_along_axis({a}, {b}.argsort(1), 1)
{a} - lax.stop_gradient({a}.max(-1, keepdims=True))
{a} + jnp.floor({b}) * {c}
""",
    complete=False,
    smooth=False,
)

_SWITCHES = lines(
    """
{a} * ({b} > 0)
jnp.where({b} > 0, {a}, 0.5)
jnp.where({b} > 0, {a}, {b} @ {W})
jnp.where({b}.sum() > 0, {a}, 1 - {a})
(({b} > 0).astype({a}.dtype) @ {W}) * {a}
jnp.einsum("ts,sd->td", ({b} > 0).astype({a}.dtype), {a}) / 4
lax.cond({b}.sum() > 0, lambda h: jnp.tanh(h @ {W}), lambda h: h - {c}, {a})
lax.switch(jnp.argmax({b}[0]), [jnp.sin, jnp.tanh, lambda h: h, lambda h: 1 - h], {a})
""",
    smooth=False,
)

_CONTROL = lines("""
lax.scan(lambda h, w: (jnp.tanh(h @ w + {c}), None), {a}, jnp.stack([{W}, W1, W2]))[0]
lax.scan(lambda h, r: (nn.relu(h + r), h * r), {a}[0], {b}, reverse=True)[1]
lax.scan(jax.checkpoint(lambda h, w: (h + nn.silu(h @ w), None)), {a}, jnp.stack([{W}, W0]))[0]
lax.scan(lambda s, r: (s + r, s), jnp.ones(4, {a}.dtype), {a})[1]
lax.fori_loop(0, 2, lambda k, h: h - 0.5 * jnp.sin(h @ {W}), {a})
lax.map(lambda r: nn.gelu(r @ {W} + {c}), {a})
jax.vmap(lambda r, s: jnp.tanh(r) * s, in_axes=(0, 1))({a}, {b})
jax.checkpoint(lambda h, g: nn.relu(h @ {W} + {c}) * nn.sigmoid(g))({a}, {b})
own_layer({a}, {W})
(lambda h: (h, observed(jnp.cumsum(h)), h @ {W})[0])(jnp.tanh({a}))
jnp.linalg.solve(wide({W} @ {W}.T) + jnp.eye(4), wide({a})).astype({a}.dtype)
jnp.arctan2({a}, 2 + {b} * {b})
jnp.hypot({a}, {b})
{a}.astype(jnp.complex64).real.astype({a}.dtype) if {a}.dtype != float else {a} + 0
lax.reduce_precision({a}, 11, 52) if {a}.dtype == float else lax.reduce_precision({a}, 8, 7)
""")

_SHARDED = lines(
    """
sharded(jnp.tanh)({a} @ {W} + {c})
lax.with_sharding_constraint({a} @ {W}, NamedSharding(mesh, P("m"))) + {c}
tensor_parallel({a}, {W}, {c}, W1)
on_columns(lambda h: h * lax.rsqrt(lax.pmean((h * h).mean(-1, keepdims=True), "m") + 1e-3))({a})
jax.shard_map(nn.gelu, mesh=mesh, in_specs=P("m"), out_specs=P("m"))({a})
""",
    sharded=True,
)

MENU: tuple[tuple[float, list[Line]], ...] = (
    (5, _AFFINE),
    (4, _ACTIVATIONS),
    (1.5, _NORMS),
    (1, _SHARES),
    (1, _ATTENTION),
    (2, _PRODUCTS),
    (3, _SUMS),
    (0.5, _COMPLEX),
    (1.5, _MAXIMA),
    (0.7, _CONSTANTS),
    (1, _SWITCHES),
    (1.5, _CONTROL),
    (0.1, _SHARDED),
)
"""Kinds of lines, and how often each is drawn."""
