"""Equal programs, equal relevance: how a function is written changes nothing but rounding.

Each group spells one function in several ways, the first of which the others are compared with, in
float64 and by every rule set. Where that of the words (a layer, a convolution, a sum) says what a
rule applies to, the group names the rule sets for which the words do not matter.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrel
from jaxrel import RuleSet, rules, rulesets
from tests.checks import assert_close
from tests.covering import case

RULES: dict[str, RuleSet] = {
    "slope": rulesets.slope(),
    "lrp": rulesets.lrp(),
    "epsilon": rulesets.epsilon(0.3),
    "epsilon_plus": rulesets.epsilon_plus(0.3, 0.1),
    "alpha_beta": RuleSet(matmul=rules.AlphaBeta(2.0, 1.0, 0.1)),
    "cp_lrp": rulesets.cp_lrp(0.1),
    "cp": rulesets.cp_lrp(),
    "attn_lrp": rulesets.attn_lrp(0.2),
    "flat": RuleSet(matmul=rules.Epsilon(0.2)) | {jaxrel.First(): rules.Flat()},
    "compare_to_baseline": rulesets.compare_to_baseline(),
}
ALL = tuple(RULES)
LINEAR = ("slope", "compare_to_baseline")
"""Rule sets that do nothing to a linear map: it does not matter where one ends."""

SUMS = tuple(name for name in RULES if name != "epsilon_plus")
"""Those that treat a sum like any linear map: `Norm` has a stabiliser at each that is written."""

SCALELESS = ("slope", "cp", "compare_to_baseline")
"""Rule sets without a stabiliser, which is in units of a layer's result."""

RNG = np.random.default_rng(0)
X, BASE = (jnp.asarray(RNG.normal(size=(4, 4))) for _ in range(2))
W, V, U = (jnp.asarray(RNG.normal(size=(4, 4))) for _ in range(3))
C, S, M, D = (jnp.asarray(RNG.normal(size=4)) for _ in range(4))
VARIANCE = jnp.exp(D)
TRANSPOSED = W.T
CAUSAL = np.tri(4, dtype=bool)
MESH = Mesh(np.array(jax.devices()[:2]), ("m",))


def inner(act: Callable) -> Callable:
    """A spelling of something inside of a network."""

    def fun(x):
        return jnp.tanh(act(x @ W + C) @ V)

    return fun


def column_parallel(f: Callable) -> Callable:
    """A layer whose results are split over devices, and one that adds up what they have of it."""

    def local(x, w, c, v):
        return lax.psum(f(x @ w + c) @ v, "m")

    specs = P(), P(None, "m"), P("m"), P("m", None)
    return lambda x: jax.shard_map(local, mesh=MESH, in_specs=specs, out_specs=P())(x, W, C, V)


def over_columns(f: Callable) -> Callable:
    """A function of rows whose columns are split over devices."""
    return jax.shard_map(f, mesh=MESH, in_specs=P(None, "m"), out_specs=P(None, "m"))


def sharded_like(spec: P) -> Callable:
    return lambda h: lax.with_sharding_constraint(h, NamedSharding(MESH, spec))


@partial(jax.jit, in_shardings=NamedSharding(MESH, P("m")), out_shardings=NamedSharding(MESH, P()))
def tanh_in_shardings(h):
    return jnp.tanh(h)


def observed(h):
    jax.debug.callback(lambda value: None, h)
    return h


def loop(x):
    return lax.scan(lambda h, w: (jax.nn.relu(h @ w + C), None), x, jnp.stack([W, V, U]))[0]


def loop_of_checkpoints(x):
    @jax.checkpoint
    def layer(h, w):
        return jax.nn.relu(h @ w + C), None

    return lax.scan(layer, x, jnp.stack([W, V, U]))[0]


def unrolled(x):
    for w in (W, V, U):
        x = jax.nn.relu(x @ w + C)
    return x


def counted(x):
    stacked = jnp.stack([W, V, U])
    return lax.fori_loop(0, 3, lambda k, h: jax.nn.relu(h @ stacked[k] + C), x)


@jax.custom_jvp
def own_tanh(x):
    return jnp.tanh(x)


@own_tanh.defjvp
def _(primals, tangents):
    y = own_tanh(*primals)
    return y, (1 - y * y) * tangents[0]


@jax.custom_vjp
def own_layer(x):
    return jnp.tanh(x @ W + C) @ V


own_layer.defvjp(
    lambda x: (jnp.tanh(x @ W + C) @ V, jnp.tanh(x @ W + C)),
    lambda y, m: (((m @ V.T) * (1 - y * y)) @ W.T,),
)


def folded(x):
    scale = S / jnp.sqrt(VARIANCE + 1e-3)
    return jnp.tanh(x @ (W * scale) + ((C - M) * scale + D))


def batch_norm(x):
    return jnp.tanh((x @ W + C - M) / jnp.sqrt(VARIANCE + 1e-3) * S + D)


def batch_norm_of_linen(x):
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3)
    variables = {
        "params": {"scale": S, "bias": D},
        "batch_stats": {"mean": M, "var": VARIANCE},
    }
    return jnp.tanh(norm.apply(variables, x @ W + C))


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T / 2) @ v


def fused(x):
    q, k, v = jnp.split(x @ jnp.concatenate([W, V, U], 1) + jnp.concatenate([C, S, M]), 3, 1)
    return attend(q, k, v)


def fused_by_slices(x):
    qkv = (x @ jnp.stack([W, V, U], 1).reshape(4, 12) + jnp.stack([C, S, M]).ravel()).reshape(
        4, 3, 4
    )
    return attend(*(qkv[:, k] for k in range(3)))


def fused_by_einsum(x):
    q, k, v = jnp.einsum("td,kde->kte", x, jnp.stack([W, V, U])) + jnp.stack([C, S, M])[:, None]
    return attend(q, k, v)


def unfused(x):
    return attend(x @ W + C, x @ V + S, x @ U + M)


def positive(h):
    """Something to divide by, which is no function of one value."""
    return 2 + jnp.cos(h) + jnp.cos(h[0])


def exponentials(h):
    e = jnp.exp(h - lax.stop_gradient(h.max(-1, keepdims=True)))
    return e, e.sum(-1, keepdims=True)


def deferred(h):
    e, total = exponentials(h @ V)
    return (e @ h) / total


def split_softmax(h):
    """Over columns that live on two devices."""
    e = jnp.exp(h - lax.pmax(lax.stop_gradient(h.max(-1, keepdims=True)), "m"))
    return e / lax.psum(e.sum(-1, keepdims=True), "m")


def segment_softmax(h):
    """Of each row, as edges of a graph that end in one node."""
    flat, ids = h.ravel(), np.repeat(np.arange(4), 4)
    e = jnp.exp(flat - lax.stop_gradient(jax.ops.segment_max(flat, ids, 4))[ids])
    return (e / jax.ops.segment_sum(e, ids, 4)[ids]).reshape(4, 4)


def renormalised(h):
    p = jax.nn.softmax(h) * CAUSAL
    return p / p.sum(-1, keepdims=True)


def layer_norm(h):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)


def layer_norm_by_moments(h):
    mean = h.mean(-1, keepdims=True)
    return (h - mean) * lax.rsqrt((h * h).mean(-1, keepdims=True) - mean**2 + 1e-5)


def layer_norm_by_hand(h):
    h = h - h.sum(-1, keepdims=True) / 4
    return h / ((h * h).sum(-1, keepdims=True) / 4 + 1e-5) ** 0.5


def split_norm(h):
    """Columns on two devices."""
    mean = lax.pmean(h.mean(-1, keepdims=True), "m")
    variance = lax.pmean(((h - mean) ** 2).mean(-1, keepdims=True), "m")
    return (h - mean) * lax.rsqrt(variance + 1e-5)


def rms(h):
    return h / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-6)


GELU = 0.7978845608028654
WINDOW = ((1, 1, 2), (1, 1, 2), "VALID")

GROUPS: dict[str, tuple[Sequence[str], Sequence[Callable]]] = {
    "identities before a bias": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            lambda x: jnp.tanh(lax.optimization_barrier(x @ W) + C) @ V,
            lambda x: jnp.tanh(checkpoint_name(x @ W, "z") + C) @ V,
            lambda x: jnp.tanh(sharded_like(P("m"))(x @ W) + C) @ V,
            lambda x: jnp.tanh(lax.reduce_precision(x @ W, 11, 52) + C) @ V,
            lambda x: jnp.tanh(jnp.copy(x @ W) + C) @ V,
            lambda x: jnp.tanh((x @ W).reshape(2, 2, 4).reshape(4, 4) + C) @ V,
            lambda x: jnp.tanh(jnp.transpose((x @ W).T) + C) @ V,
            lambda x: jnp.tanh(observed(x @ W) + C) @ V,
        ],
    ),
    "identities in an activation": (
        ALL,
        [
            inner(lambda h: h * jax.nn.sigmoid(h)),
            inner(lambda h: h * checkpoint_name(jax.nn.sigmoid(h), "gate")),
            inner(lambda h: h * lax.optimization_barrier(jax.nn.sigmoid(h))),
            inner(lambda h: h * sharded_like(P(None, "m"))(jax.nn.sigmoid(h))),
            inner(lambda h: h * observed(jax.nn.sigmoid(h))),
            inner(lambda h: checkpoint_name(h, "h") * jax.nn.sigmoid(h)),
        ],
    ),
    "identities in a softmax": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h) @ h),
            inner(lambda h: (lambda e, t: e / observed(t))(*exponentials(h)) @ h),
            inner(lambda h: (lambda e, t: checkpoint_name(e, "e") / t)(*exponentials(h)) @ h),
            inner(lambda h: (lambda e, t: e / lax.optimization_barrier(t))(*exponentials(h)) @ h),
            inner(lambda h: observed(jax.nn.softmax(h)) @ h),
            inner(lambda h: checkpoint_name(jax.nn.softmax(h), "p") @ h),
        ],
    ),
    "identities in a norm": (
        ALL,
        [
            inner(rms),
            inner(
                lambda h: h / checkpoint_name(jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-6), "s")
            ),
            inner(lambda h: h / jnp.sqrt(observed((h**2).mean(-1, keepdims=True)) + 1e-6)),
            inner(
                lambda h: (
                    h / lax.optimization_barrier(jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-6))
                )
            ),
        ],
    ),
    "dead code": (
        ALL,
        [
            inner(lambda h: jax.nn.silu(h)),
            inner(lambda h: (jax.nn.silu(h), jnp.cumsum(h), h @ U)[0]),
            inner(lambda h: (h * (s := jax.nn.sigmoid(h)), s + 1, observed(s.sum()))[0]),
        ],
    ),
    "calls": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            jax.jit(lambda x: jnp.tanh(x @ W + C) @ V),
            jax.checkpoint(lambda x: jnp.tanh(x @ W + C) @ V),
            jax.checkpoint(
                lambda x: jnp.tanh(checkpoint_name(x @ W + C, "z")) @ V,
                policy=jax.checkpoint_policies.save_only_these_names("z"),
            ),
            lambda x: jax.jit(jnp.tanh)(jax.jit(lambda x: x @ W)(x) + C) @ V,
            lambda x: tanh_in_shardings(x @ W + C) @ V,
            lambda x: own_tanh(x @ W + C) @ V,
            own_layer,
            lambda x: lax.cond(True, lambda x: jnp.tanh(x @ W + C) @ V, lambda x: x, x),
            lambda x: lax.cond(x[0, 0] < 9, lambda x: jnp.tanh(x @ W + C) @ V, lambda x: x, x),
        ],
    ),
    "a border between a layer and its bias": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            lambda x: jnp.tanh(jax.checkpoint(lambda x: x @ W)(x) + C) @ V,
            lambda x: jax.checkpoint(lambda z: jnp.tanh(z + C) @ V)(x @ W),
        ],
    ),
    "a border within a softmax": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h) @ h),
            inner(
                lambda h: (lambda e: e / e.sum(-1, keepdims=True))(jax.checkpoint(jnp.exp)(h)) @ h
            ),
            inner(lambda h: jax.checkpoint(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(h)) @ h),
        ],
    ),
    "a border within a norm": (
        ALL,
        [
            inner(rms),
            inner(
                lambda h: (
                    h
                    * jax.checkpoint(lambda h: lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-6))(h)
                )
            ),
        ],
    ),
    "loops": (
        tuple(r for r in ALL if r != "flat"),  # a loop has one layer, first or not
        [unrolled, loop, loop_of_checkpoints, counted, jax.jit(loop)],
    ),
    "one by one": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            jax.vmap(lambda x: jnp.tanh(x @ W + C) @ V),
            lambda x: lax.map(lambda x: jnp.tanh(x @ W + C) @ V, x),
            lambda x: lax.map(lambda x: jnp.tanh(x @ W + C) @ V, x, batch_size=2),
            lambda x: jnp.stack([jnp.tanh(row @ W + C) @ V for row in x]),
            lambda x: jnp.concatenate([jnp.tanh(part @ W + C) @ V for part in jnp.split(x, 2)]),
        ],
    ),
    "layers on devices": (
        ALL,
        [
            lambda x: jax.nn.relu(x @ W + C) @ V,
            column_parallel(jax.nn.relu),
            lambda x: sharded_like(P("m"))(jax.nn.relu(sharded_like(P(None, "m"))(x @ W + C)) @ V),
            lambda x: jax.shard_map(
                lambda x: jax.nn.relu(x @ W + C) @ V, mesh=MESH, in_specs=P("m"), out_specs=P("m")
            )(x),
        ],
    ),
    "a bias after the sum over devices": (
        tuple(r for r in ALL if r != "flat"),
        [
            lambda x: jnp.tanh(x @ W + C),
            lambda x: jax.shard_map(
                lambda x, w, c: jnp.tanh(lax.psum(x @ w, "m") + c),
                mesh=MESH,
                in_specs=(P(None, "m"), P("m", None), P()),
                out_specs=P(),
            )(x, W, C),
        ],
    ),
    "softmax on devices": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h) @ h),
            inner(lambda h: over_columns(split_softmax)(h) @ h),
            inner(lambda h: jax.nn.softmax(sharded_like(P(None, "m"))(h)) @ h),
        ],
    ),
    "norm on devices": (
        SUMS,
        [
            inner(layer_norm),
            inner(over_columns(split_norm)),
            inner(lambda h: layer_norm(sharded_like(P(None, "m"))(h))),
        ],
    ),
    "signs": (
        ALL,
        [
            lambda x: jnp.tanh(x @ -W + C) @ V,
            lambda x: jnp.tanh(C - x @ W) @ V,
            lambda x: jnp.tanh(-(x @ W) + C) @ V,
            lambda x: jnp.tanh(-(x @ W - C)) @ V,
            lambda x: jnp.tanh(x @ W * -1 + C) @ V,
            lambda x: jnp.tanh(x @ W / -1 - (-C)) @ V,
            lambda x: jnp.tanh(0 - (x @ W - C)) @ V,
        ],
    ),
    "biases": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            lambda x: jnp.tanh(C + x @ W) @ V,
            lambda x: jnp.tanh(x @ W - -C) @ V,
            lambda x: jnp.tanh(x @ W + C / 2 + C / 2) @ V,
            lambda x: jnp.tanh(x @ W + jnp.broadcast_to(C, (4, 4))) @ V,
        ],
    ),
    "scales": (
        ALL,
        [
            lambda x: jnp.tanh(x @ (W * S) + C) @ V,
            lambda x: jnp.tanh(x @ W * S + C) @ V,
            lambda x: jnp.tanh(S * (x @ W) + C) @ V,
            lambda x: jnp.tanh(x @ W / (1 / S) + C) @ V,
            lambda x: jnp.tanh((x @ W + C / S) * S) @ V,
            lambda x: jnp.tanh(jnp.einsum("te,e->te", x @ W, S) + C) @ V,
        ],
    ),
    "batch norms": (ALL, [folded, batch_norm, batch_norm_of_linen]),
    "contractions": (
        ALL,
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            lambda x: jnp.tanh(jnp.dot(x, W) + C) @ V,
            lambda x: jnp.tanh((W.T @ x.T).T + C) @ V,
            lambda x: jnp.tanh(lax.dot_general(W, x, (((0,), (1,)), ((), ()))).T + C) @ V,
            lambda x: jnp.tanh(jnp.einsum("td,de->te", x, W) + C) @ V,
            lambda x: jnp.tanh(jnp.einsum("de,td->te", W, x) + C) @ V,
            lambda x: jnp.tanh(jnp.einsum("td,ed->te", x, W.T) + C) @ V,
            lambda x: jnp.tanh(x @ TRANSPOSED.T + C) @ V,
            lambda x: jnp.tanh(jnp.tensordot(x, W, 1) + C) @ V,
            lambda x: (
                jnp.tanh(jnp.einsum("tab,abe->te", x.reshape(4, 2, 2), W.reshape(2, 2, 4)) + C) @ V
            ),
        ],
    ),
    "dense layers and convolutions": (
        tuple(r for r in ALL if r != "epsilon_plus"),  # which treats them differently
        [
            lambda x: jnp.tanh(x @ W + C) @ V,
            lambda x: (
                jnp.tanh(
                    lax.conv_general_dilated(
                        x.T[None],
                        W.T[..., None],
                        (1,),
                        "VALID",
                        dimension_numbers=("NCH", "OIH", "NCH"),
                    )[0].T
                    + C
                )
                @ V
            ),
            lambda x: (
                jnp.tanh(
                    lax.conv_general_dilated(
                        x[None], W[None], (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
                    )[0]
                    + C
                )
                @ V
            ),
        ],
    ),
    "sums of products": (
        LINEAR,
        [
            lambda x: jnp.tanh(x @ W),
            lambda x: jnp.tanh((x[:, :, None] * W).sum(1)),
            lambda x: jnp.tanh(x[:, :2] @ W[:2] + x[:, 2:] @ W[2:]),
            lambda x: jnp.tanh(sum(x[:, k, None] * W[k] for k in range(4))),
            lambda x: jnp.tanh((x @ U) @ jnp.linalg.solve(U, W)),
        ],
    ),
    "queries, keys and values": (ALL, [unfused, fused, fused_by_slices, fused_by_einsum]),
    "sides of attention": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h @ V) @ h),
            inner(lambda h: jnp.einsum("ts,sd->td", jax.nn.softmax(h @ V), h)),
            inner(lambda h: jnp.einsum("sd,ts->td", h, jax.nn.softmax(h @ V))),
            inner(lambda h: (h.T @ jax.nn.softmax(h @ V).T).T),
            inner(lambda h: (jax.nn.softmax(h @ V)[:, :, None] * h).sum(1)),
        ],
    ),
    "gates": (
        ALL,
        [
            inner(lambda h: jax.nn.sigmoid(h @ V) * h),
            inner(lambda h: h * jax.nn.sigmoid(h @ V)),
            inner(lambda h: jnp.einsum("td,td->td", h, jax.nn.sigmoid(h @ V))),
        ],
    ),
    "means": (
        ALL,
        [
            lambda x: jnp.tanh((x @ W).mean(0) @ V),
            lambda x: jnp.tanh((x @ W).sum(0) / 4 @ V),
            lambda x: jnp.tanh((x @ W).sum(0) * 0.25 @ V),
            lambda x: jnp.tanh(jnp.einsum("td->d", x @ W) / 4 @ V),
        ],
    ),
    "means as matrices": (
        LINEAR,
        [
            lambda x: jnp.tanh((x @ W).mean(0) @ V),
            lambda x: jnp.tanh(jnp.ones(4) / 4 @ (x @ W) @ V),
            lambda x: jnp.tanh(((x / 4).sum(0) @ W) @ V),
        ],
    ),
    "average pools": (
        tuple(r for r in ALL if r != "epsilon_plus"),
        [
            inner(lambda h: nn.avg_pool(h[..., None], (2,), (2,))[..., 0] @ V[:2]),
            inner(lambda h: h.reshape(4, 2, 2).mean(2) @ V[:2]),
            inner(lambda h: (h[:, ::2] + h[:, 1::2]) / 2 @ V[:2]),
        ],
    ),
    "silu": (
        ALL,
        [
            inner(jax.nn.silu),
            inner(jax.nn.swish),
            inner(nn.silu),
            inner(lambda h: h * jax.nn.sigmoid(h)),
            inner(lambda h: jax.nn.sigmoid(h) * h),
            inner(lambda h: h / (1 + jnp.exp(-h))),
            inner(lambda h: h * (1 / (1 + jnp.exp(-h)))),
            inner(lambda h: h * (0.5 * jnp.tanh(h / 2) + 0.5)),
        ],
    ),
    "relu": (
        ALL,
        [
            inner(jax.nn.relu),
            inner(lambda h: jnp.maximum(h, 0)),
            inner(lambda h: jnp.where(h > 0, h, 0)),
            inner(lambda h: h * (h > 0)),
            inner(lambda h: jnp.clip(h, 0)),
            inner(lambda h: (h + jnp.abs(h)) / 2),
            inner(lambda h: jax.nn.leaky_relu(h, 0.0)),
            inner(lambda h: lax.max(h, jnp.zeros_like(h))),
            inner(lambda h: lax.select(h > 0, h, jnp.zeros_like(h))),
        ],
    ),
    "functions of a layer that is scaled": (
        SCALELESS,
        [
            inner(jnp.tanh),
            inner(lambda h: 2 * jax.nn.sigmoid(2 * h) - 1),
            inner(lambda h: -jnp.tanh(-h)),
        ],
    ),
    "functions of a layer and another bias": (
        SCALELESS,
        [inner(lambda h: jax.nn.softmax(h) @ h), inner(lambda h: jax.nn.softmax(h - 7) @ h)],
    ),
    "relu of the negative": (
        SCALELESS,
        [inner(jax.nn.relu), inner(lambda h: -jnp.minimum(-h, 0))],
    ),
    "maximum of the negative": (
        SCALELESS[:-1],  # AbsoluteValue goes pair by pair
        [inner(lambda h: h.max(1)), inner(lambda h: -(-h).min(1))],
    ),
    "leaky relu": (
        ALL,
        [
            inner(lambda h: jax.nn.leaky_relu(h, 0.2)),
            inner(lambda h: jnp.where(h > 0, h, 0.2 * h)),
            inner(lambda h: jnp.maximum(h, 0.2 * h)),
            inner(lambda h: jax.nn.relu(h) - 0.2 * jax.nn.relu(-h)),
        ],
    ),
    "gelu": (
        ALL,
        [
            inner(jax.nn.gelu),
            inner(lambda h: 0.5 * h * (1 + jnp.tanh(GELU * (h + 0.044715 * h**3)))),
            inner(lambda h: h * jax.nn.sigmoid(2 * GELU * (h + 0.044715 * h * h * h))),
        ],
    ),
    "softplus": (
        ALL,
        [
            inner(jax.nn.softplus),
            inner(lambda h: jnp.logaddexp(h, 0)),
            inner(lambda h: jnp.log(1 + jnp.exp(h))),
            inner(lambda h: jnp.log1p(jnp.exp(h))),
            inner(lambda h: jnp.maximum(h, 0) + jnp.log1p(jnp.exp(-jnp.abs(h)))),
        ],
    ),
    "tanh": (
        ALL,
        [
            inner(jnp.tanh),
            inner(lambda h: (jnp.exp(h) - jnp.exp(-h)) / (jnp.exp(h) + jnp.exp(-h))),
            inner(lambda h: jnp.sinh(h) / jnp.cosh(h)),
            inner(lambda h: 1 - 2 / (jnp.exp(2 * h) + 1)),
        ],
    ),
    "sigmoid": (
        ALL,
        [
            inner(jax.nn.sigmoid),
            inner(lambda h: 1 / (1 + jnp.exp(-h))),
            inner(lambda h: jnp.reciprocal(1 + jnp.exp(-h))),
            inner(lambda h: (1 + jnp.exp(-h)) ** -1),
            inner(lambda h: jnp.exp(h) / (1 + jnp.exp(h))),
        ],
    ),
    "squares": (
        ALL,
        [
            inner(jnp.square),
            inner(lambda h: h * h),
            inner(lambda h: h**2),
            inner(lambda h: jnp.power(h, 2)),
            inner(lambda h: jnp.abs(h) ** 2.0),
        ],
    ),
    "abs": (
        ALL,
        [
            inner(jnp.abs),
            inner(lambda h: jnp.maximum(h, -h)),
            inner(lambda h: h * jnp.sign(h)),
            inner(lambda h: jax.nn.relu(h) + jax.nn.relu(-h)),
            inner(lambda h: jnp.where(h < 0, -h, h)),
        ],
    ),
    "elu": (
        ALL,
        [
            inner(jax.nn.elu),
            inner(lambda h: jnp.where(h > 0, h, jnp.expm1(jnp.where(h > 0, 0.0, h)))),
            inner(lambda h: jax.nn.relu(h) + jnp.minimum(jnp.expm1(h), 0)),
        ],
    ),
    "hard tanh": (
        ALL,
        [
            inner(jax.nn.hard_tanh),
            inner(lambda h: jnp.clip(h, -1, 1)),
            inner(lambda h: jnp.minimum(jnp.maximum(h, -1), 1)),
            inner(lambda h: lax.clamp(-1.0, h, 1.0)),
        ],
    ),
    "quotients": (
        ALL,
        [
            inner(lambda h: (h @ U) / positive(h)),
            inner(lambda h: (h @ U) * (1 / positive(h))),
            inner(lambda h: (1 / positive(h)) * (h @ U)),
            inner(lambda h: (h @ U) * positive(h) ** -1),
            inner(lambda h: (h @ U) * jnp.reciprocal(positive(h))),
            inner(lambda h: -((h @ U) / -positive(h))),
        ],
    ),
    "quotients by roots": (
        ALL,
        [
            inner(lambda h: (h @ U) / jnp.sqrt(positive(h))),
            inner(lambda h: (h @ U) * lax.rsqrt(positive(h))),
            inner(lambda h: (h @ U) * (1 / jnp.sqrt(positive(h)))),
            inner(lambda h: (h @ U) / positive(h) ** 0.5),
            inner(lambda h: (h @ U) * positive(h) ** -0.5),
        ],
    ),
    "softmax": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h) @ h),
            inner(lambda h: (lambda e, total: e / total)(*exponentials(h)) @ h),
            inner(lambda h: jnp.exp(h) / jnp.exp(h).sum(-1, keepdims=True) @ h),
            inner(lambda h: (lambda e: e / (e @ jnp.ones((4, 1))))(jnp.exp(h)) @ h),
            inner(lambda h: (lambda e, total: e * (1 / total))(*exponentials(h)) @ h),
            inner(lambda h: (lambda e, total: e * total**-1)(*exponentials(h)) @ h),
            inner(lambda h: (lambda e: e / jnp.einsum("td->t", e)[:, None])(jnp.exp(h)) @ h),
            inner(lambda h: jnp.exp(jax.nn.log_softmax(h)) @ h),
            inner(lambda h: jnp.exp(h - jax.nn.logsumexp(h, -1, keepdims=True)) @ h),
            inner(lambda h: jnp.exp(h - jnp.log(jnp.exp(h).sum(-1, keepdims=True))) @ h),
            inner(lambda h: jax.nn.softmax(h.T, 0).T @ h),
            inner(lambda h: segment_softmax(h) @ h),
        ],
    ),
    "log softmax": (
        ALL,
        [
            inner(jax.nn.log_softmax),
            inner(lambda h: h - jax.nn.logsumexp(h, -1, keepdims=True)),
            inner(lambda h: h - jnp.log(jnp.exp(h).sum(-1, keepdims=True))),
        ],
    ),
    "masks of a softmax": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(jnp.where(CAUSAL, h, -jnp.inf)) @ h),
            inner(lambda h: jax.nn.softmax(h, where=CAUSAL) @ h),
            inner(lambda h: jax.nn.softmax(jnp.where(CAUSAL, h, -1e30)) @ h),
            inner(lambda h: jax.nn.softmax(h + jnp.where(CAUSAL, 0, -jnp.inf)) @ h),
            inner(lambda h: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(h) * CAUSAL) @ h),
            inner(
                lambda h: (
                    (lambda e: e / e.sum(-1, keepdims=True))(jnp.where(CAUSAL, jnp.exp(h), 0)) @ h
                )
            ),
            inner(lambda h: renormalised(h) @ h),
        ],
    ),
    "shares of values": (
        ALL,
        [
            inner(lambda h: jax.nn.softmax(h @ V) @ h),
            inner(deferred),
        ],
    ),
    "scaled shares": (
        ALL,
        [
            inner(lambda h: (jax.nn.softmax(h @ V) @ h) * S[:, None]),
            inner(lambda h: (jax.nn.softmax(h @ V) * S[:, None]) @ h),
            inner(lambda h: jnp.einsum("ts,t->ts", jax.nn.softmax(h @ V), S) @ h),
        ],
    ),
    "layer norm": (
        ALL,
        [
            inner(layer_norm),
            inner(layer_norm_by_moments),
            inner(layer_norm_by_hand),
            inner(lambda h: jax.nn.standardize(h, epsilon=1e-5)),
        ],
    ),
    "rms norm": (
        ALL,
        [
            inner(rms),
            inner(lambda h: h * lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6)),
            inner(lambda h: h * (1 / jnp.sqrt((h * h).mean(-1, keepdims=True) + 1e-6))),
            inner(lambda h: h * ((h * h).mean(-1, keepdims=True) + 1e-6) ** -0.5),
            inner(lambda h: h / ((h * h).mean(-1, keepdims=True) + 1e-6) ** 0.5),
            inner(lambda h: h / jnp.sqrt(jnp.einsum("td,td->t", h, h)[:, None] / 4 + 1e-6)),
            inner(lambda h: lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6) * h),
            inner(nn.RMSNorm(use_scale=False, epsilon=1e-6).bind({})),
        ],
    ),
    "unit vectors": (
        ALL,
        [
            inner(lambda h: h / jnp.linalg.norm(h, axis=-1, keepdims=True)),
            inner(lambda h: h / jnp.sqrt((h * h).sum(-1, keepdims=True))),
            inner(lambda h: h * lax.rsqrt((h * h).sum(-1, keepdims=True))),
        ],
    ),
    "maxima": (
        tuple(r for r in ALL if r != "compare_to_baseline"),  # AbsoluteValue goes pair by pair
        [
            inner(lambda h: h.max(1)),
            inner(lambda h: jnp.sort(h, 1)[:, -1]),
            inner(lambda h: lax.top_k(h, 1)[0][:, 0]),
            inner(lambda h: lax.cummax(h, 1)[:, -1]),
            inner(lambda h: nn.max_pool(h[..., None], (4,))[:, 0, 0]),
            inner(lambda h: jnp.maximum(h[:, :2].max(1), h[:, 2:].max(1))),
            inner(lambda h: jnp.take_along_axis(h, h.argmax(1)[:, None], 1)[:, 0]),
        ],
    ),
    "moves": (
        ALL,
        [
            inner(lambda h: jnp.tanh(h)[np.array([3, 2, 1, 0])] @ U),
            inner(lambda h: jnp.tanh(h)[::-1] @ U),
            inner(lambda h: jnp.tanh(jnp.flip(h, 0)) @ U),
            inner(lambda h: lax.rev(jnp.tanh(h), (0,)) @ U),
            inner(lambda h: jnp.take(jnp.tanh(h), np.array([3, 2, 1, 0]), 0) @ U),
            inner(lambda h: jnp.concatenate([jnp.tanh(h[k : k + 1]) for k in (3, 2, 1, 0)]) @ U),
            inner(lambda h: jnp.zeros_like(h).at[np.array([3, 2, 1, 0])].set(jnp.tanh(h)) @ U),
            inner(lambda h: jnp.eye(4)[::-1] @ jnp.tanh(h) @ U),
        ],
    ),
    "masks": (
        ALL,
        [
            inner(lambda h: jnp.where(CAUSAL, jnp.tanh(h), 0) @ U),
            inner(lambda h: jnp.tanh(h) * CAUSAL @ U),
            inner(lambda h: jnp.tril(jnp.tanh(h)) @ U),
            inner(lambda h: jnp.einsum("ts,ts->ts", jnp.tanh(h), CAUSAL.astype(h.dtype)) @ U),
        ],
    ),
    "running sums": (
        SUMS,
        [
            inner(lambda h: jnp.cumsum(jnp.tanh(h), 0) @ U),
            inner(lambda h: lax.associative_scan(jnp.add, jnp.tanh(h)) @ U),
            inner(
                lambda h: lax.scan(lambda s, x: (s + x, s + x), jnp.zeros(4), jnp.tanh(h))[1] @ U
            ),
            inner(lambda h: jnp.tril(jnp.ones((4, 4))) @ jnp.tanh(h) @ U),
        ],
    ),
    "residuals": (
        SUMS,
        [
            inner(lambda h: h + jnp.tanh(h @ U)),
            inner(lambda h: jnp.tanh(h @ U) + h),
            inner(lambda h: h - -jnp.tanh(h @ U)),
            inner(lambda h: jnp.stack([h, jnp.tanh(h @ U)]).sum(0)),
        ],
    ),
    "complex numbers": (
        LINEAR,
        [
            inner(lambda h: h @ U),
            inner(lambda h: (h.astype(complex) @ U).real),
            inner(lambda h: jnp.fft.ifft(jnp.fft.fft(h)).real @ U),
            inner(lambda h: jnp.fft.irfft(jnp.fft.rfft(h)) @ U),
        ],
    ),
}


def relevance(fun: Callable, name: str, group: str = "") -> jax.Array:
    """Operation by operation, where they need not be compiled for several devices."""
    baseline = BASE if name == "compare_to_baseline" else None
    explain = jaxrel.relevance(fun, RULES[name], baseline=baseline)
    return jax.jit(explain)(X) if "devices" in group else explain(X)


@cache
def expected(group: str, name: str) -> jax.Array:
    return relevance(GROUPS[group][1][0], name, group)


PAIRS = [(group, k) for group, (_, funs) in GROUPS.items() for k in range(1, len(funs))]
FEW = ("epsilon", "alpha_beta", "cp", "compare_to_baseline")


def cases() -> list:
    """Every pair by a few rule sets, and by the others with `--full`."""
    names = {False: FEW, True: tuple(name for name in ALL if name not in FEW)}
    return [
        case(group, k, names[full], full=full, id=f"{group} {k}{' rest' * full}")
        for full in names
        for group, k in PAIRS
    ]


@pytest.mark.parametrize(("group", "k", "names"), cases())
def test_equal_programs_have_equal_relevance(group: str, k: int, names: Sequence[str]) -> None:
    applicable, funs = GROUPS[group]
    np.testing.assert_allclose(funs[k](X), funs[0](X), rtol=1e-12, atol=1e-14)
    for name in (name for name in names if name in applicable):
        assert_close(relevance(funs[k], name, group), expected(group, name), 1e-12)


def test_auxiliary_results_change_nothing() -> None:
    def fun(x):
        return jnp.tanh(x @ W + C) @ V

    def with_more(x):
        z = x @ W
        h = jnp.tanh(z + C)
        return h @ V, {"z": z, "h": h, "largest": jnp.argmax(h)}

    for name, rule_set in RULES.items():
        baseline = BASE if name == "compare_to_baseline" else None
        found, _ = jaxrel.relevance(with_more, rule_set, baseline=baseline, has_aux=True)(X)
        assert_close(found, relevance(fun, name), 1e-12)
