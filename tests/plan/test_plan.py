"""What is found in a jaxpr, for many ways to write the same thing. Nothing here runs a rule.

A step is shown as ``kind`` or ``kind:variant``; structural and other ``linear`` steps, which have
no part in the question, are left out.
"""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxrel import relevance, summary
from jaxrel._call.arguments import Arguments
from jaxrel._execute.explanation import trace
from jaxrel.rulesets.matching import matches_path

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)))
W = jnp.asarray(np.random.default_rng(1).normal(size=(8, 8)))
V = jnp.asarray(np.random.default_rng(2).normal(size=(8, 8)))
B = jnp.asarray(np.random.default_rng(3).normal(size=8))
ONES = {n: jnp.ones(n) for n in ((12, 5), (192, 3))}
IMAGE = jnp.asarray(np.random.default_rng(4).normal(size=(2, 8, 8, 3)))
KERNEL = jnp.asarray(np.random.default_rng(5).normal(size=(3, 3, 3, 4)))


def steps(fun, *args, argnums=-1):
    """Every step of the plan, those inside control flow too."""
    plan, _ = trace(Arguments(fun, args or (X,), {}, argnums))
    return list(plan.walk())


def kinds(fun, *args, argnums=-1):
    """The kinds of the steps that are not linear."""
    found = [s for s in steps(fun, *args, argnums=argnums) if s.kind not in ("linear", "control")]
    return [f"{s.kind}:{s.variant}" if s.variant else s.kind for s in found]


def layers(fun, *args, argnums=-1, kind="matmul"):
    """The layer paths of the matmuls."""
    return [s.location for s in steps(fun, *args, argnums=argnums) if s.kind == kind]


def ones_like(model, x, **keywords):
    """Variables of a linen model that cost nothing to make."""
    shapes = jax.eval_shape(functools.partial(model.init, **keywords), KEY, x)
    return jax.tree.map(lambda a: jnp.ones(a.shape), shapes)


# ----------------------------------------------------------------------------- nonlinearities

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu by erf": lambda x: 0.5 * x * (1 + lax.erf(x / jnp.sqrt(2.0))),
    "gelu by erf, halves": lambda x: x / 2 * (1 + jax.scipy.special.erf(x / np.sqrt(2.0))),
    "gelu by cdf": lambda x: x * jax.scipy.stats.norm.cdf(x),
    "silu": jax.nn.silu,
    "swish": lambda x: x * jax.nn.sigmoid(x),
    "swish beta": lambda x: x * jax.nn.sigmoid(1.7 * x),
    "swish by exp": lambda x: x / (1 + jnp.exp(-x)),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid by exp": lambda x: 1 / (1 + jnp.exp(-x)),
    "tanh by exp": lambda x: (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x)),
    "softplus": jax.nn.softplus,
    "softplus by log": lambda x: jnp.log(1 + jnp.exp(x)),
    "softplus by log1p": lambda x: jnp.log1p(jnp.exp(x)),
    "stable softplus": lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))),
    "log sigmoid": jax.nn.log_sigmoid,
    "mish": jax.nn.mish,
    "mish by hand": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "hard swish": jax.nn.hard_swish,
    "hard swish by hand": lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
    "hard sigmoid": jax.nn.hard_sigmoid,
    "hard tanh": jax.nn.hard_tanh,
    "elu": jax.nn.elu,
    "elu by where": lambda x: jnp.where(x > 0, x, 1.3 * jnp.expm1(x)),
    "elu by safe where": lambda x: jnp.where(x > 0, x, jnp.expm1(jnp.where(x > 0, 0.0, x))),
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "relu": jax.nn.relu,
    "relu by max": lambda x: jnp.maximum(x, 0),
    "relu by where": lambda x: jnp.where(x > 0, x, 0),
    "relu by mask": lambda x: x * (x > 0),
    "relu by clip": lambda x: jnp.clip(x, 0),
    "relu6": jax.nn.relu6,
    "leaky relu": jax.nn.leaky_relu,
    "leaky relu by max": lambda x: jnp.maximum(x, 0.1 * x),
    "leaky relu by where": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "leaky relu by relus": lambda x: jax.nn.relu(x) - 0.1 * jax.nn.relu(-x),
    "abs": jnp.abs,
    "abs by max": lambda x: jnp.maximum(x, -x),
    "soft sign": lambda x: x / (1 + jnp.abs(x)),
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "squareplus": jax.nn.squareplus,
    "snake": lambda x: x + jnp.sin(x) ** 2,
    "huber": lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
    "sinc": jnp.sinc,
    "custom": lambda x: jnp.select([x < -1, x < 1], [0 * x, x], x**2),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_one_nonlinearity(name):
    assert kinds(ACTIVATIONS[name]) == ["nonlinearity"]
    assert kinds(jax.jit(ACTIVATIONS[name])) == ["nonlinearity"]


def dense(x):
    """A layer with a bias."""
    return x @ W + B


def made_of(step):
    """The primitives of a step."""
    return [node.name for node in step.nodes]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_leaves_the_layer_before_it_alone(name):
    """Its additions belong to it, the layer's bias to the layer."""
    found = [s for s in steps(lambda x: ACTIVATIONS[name](dense(x))) if s.kind != "linear"]
    assert [s.kind for s in found] == ["matmul", "nonlinearity"]
    assert made_of(found[0]) == made_of(steps(dense)[0])


@pytest.mark.parametrize("name", ["log", "rsqrt", "reciprocal"])
def test_a_pole_leaves_the_layer_before_it_alone(name):
    fun = {"log": jnp.log, "rsqrt": lax.rsqrt, "reciprocal": lambda z: 1 / z}[name]
    assert made_of(steps(lambda x: fun(dense(x)))[0]) == made_of(steps(dense)[0])


@pytest.mark.parametrize(
    ("fun", "operation"),
    [
        (jax.nn.relu, "relu"),
        (jax.nn.silu, "silu"),
        (jax.nn.softplus, "softplus"),
        (jax.nn.elu, "elu"),
        (jax.nn.mish, "mish"),
        (jnp.tanh, "tanh"),
        (jax.nn.sigmoid, "logistic"),
        (functools.partial(jax.nn.gelu, approximate=True), "gelu"),
        (functools.partial(jax.nn.gelu, approximate=False), "gelu"),
        (lambda x: x * jnp.tanh(jax.nn.softplus(x)), "softplus+tanh+mul"),
        (jax.jit(lambda x: jnp.tanh(x)), "tanh"),
    ],
)
def test_nonlinearities_are_named_as_people_name_them(fun, operation):
    (step,) = (s for s in steps(fun) if s.kind == "nonlinearity")
    assert step.operation == operation
    assert operation in step.names or "+" in operation


def test_a_squared_relu_is_elementwise_all_the_way():
    assert set(kinds(lambda x: jax.nn.relu(x) ** 2)) == {"nonlinearity"}
    assert set(kinds(lambda x: jnp.square(jax.nn.relu(x)))) == {"nonlinearity"}
    assert kinds(lambda x: jax.nn.relu(x) * jax.nn.relu(x)) == ["nonlinearity"]


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: 2 * x + 3 * x,
        lambda x: x - 0.3 * x,
        lambda x: x * lax.stop_gradient(x.sum()),
        lambda x: x / lax.stop_gradient(jnp.abs(x).max()),
        lambda x: (x - x.mean()) * lax.stop_gradient(lax.rsqrt(x.var())),
        lambda x: jnp.where(x > x.mean(), x, 0),
    ],
    ids=["sum", "difference", "stopped factor", "stopped divisor", "stopped norm", "mask"],
)
def test_linear_operations_are_no_nonlinearity(fun):
    assert "nonlinearity" not in kinds(fun)


def test_homogeneous_functions_are_known():
    homogeneous = {
        name
        for name in ACTIVATIONS
        if all(s.homogeneous for s in steps(ACTIVATIONS[name]) if s.kind == "nonlinearity")
    }
    assert homogeneous >= {
        "relu", "relu by max", "relu by where", "relu by mask", "relu by clip", "leaky relu",
        "leaky relu by max", "leaky relu by where", "abs", "abs by max",
    }  # fmt: skip
    assert homogeneous.isdisjoint({"relu6", "silu", "gelu", "elu", "hard tanh", "square"})


# ------------------------------------------------------------------------------------ products


@pytest.mark.parametrize(
    "gate",
    [
        jax.nn.sigmoid,
        lambda z: 1 / (1 + jnp.exp(-z)),
        jax.nn.silu,
        lambda z: z * jax.nn.sigmoid(z),
        jax.nn.gelu,
        functools.partial(jax.nn.gelu, approximate=False),
        jax.nn.relu,
        lambda z: jnp.where(z > 0, z, 0),
        lambda z: z * (z > 0),
        jax.nn.softplus,
        jax.nn.hard_sigmoid,
        lambda z: jax.nn.sigmoid(z).astype("float32").astype("float64"),
    ],
    ids=["sigmoid", "sigmoid by exp", "silu", "swish", "gelu tanh", "gelu", "relu", "relu by where",
         "relu by mask", "softplus", "hard sigmoid", "cast"],
)  # fmt: skip
@pytest.mark.parametrize("swap", [False, True])
def test_gates_come_first(gate, swap):
    def fun(x):
        a, b = gate(x @ W), x @ V
        return b * a if swap else a * b

    found = steps(fun)
    product = found[-1]
    assert (product.kind, product.variant) == ("product", "gate")
    value = product.operands[product.live[1]]
    assert value in {v for s in found if s.kind == "matmul" for v in s.results}


@pytest.mark.parametrize("value", [jnp.tanh, jax.nn.relu, jax.nn.hard_swish])
@pytest.mark.parametrize("gate", [jax.nn.sigmoid, jax.nn.hard_sigmoid])
def test_a_sigmoid_is_the_gate_of_two_nonlinearities(value, gate):
    """Squeeze and excite, LSTM cells."""
    found = steps(lambda x: value(x @ W) * gate(x @ V))
    assert (found[-1].kind, found[-1].variant) == ("product", "gate")


def test_products_without_a_gate():
    assert kinds(lambda x: (x @ W) * (x @ V))[-1] == "product"
    assert kinds(jax.nn.glu) == ["nonlinearity", "product:gate"]
    assert kinds(lambda x: x * x.mean() ** 1.5)[-1].startswith("product")
    assert kinds(lambda x: (x.T @ W[:3, :3]) @ x)[-1] == "product"


# ------------------------------------------------------------------------------------- softmax


def by_hand(maximum=None, denominator=lambda e: e.sum(-1, keepdims=True), divide=jnp.divide):
    """Softmax as people write it."""

    def softmax(x):
        e = jnp.exp(x if maximum is None else x - maximum(x.max(-1, keepdims=True)))
        return divide(e, denominator(e))

    return softmax


SOFTMAX = {
    "jax.nn": jax.nn.softmax,
    "jitted": jax.jit(jax.nn.softmax),
    "vmapped": jax.vmap(jax.nn.softmax),
    "axis": functools.partial(jax.nn.softmax, axis=0),
    "axes": functools.partial(jax.nn.softmax, axis=(0, 1)),
    "where": lambda x: jax.nn.softmax(x, where=jnp.arange(8) < 5),
    "masked": lambda x: jax.nn.softmax(jnp.where(jnp.arange(8) < 5, x, -jnp.inf)),
    "temperature": lambda x: jax.nn.softmax(x / 3.0),
    "no maximum": by_hand(),
    "stopped maximum": by_hand(lax.stop_gradient),
    "eps": by_hand(denominator=lambda e: e.sum(-1, keepdims=True) + 1e-9),
    "mean": by_hand(denominator=lambda e: e.mean(-1, keepdims=True)),
    "einsum": by_hand(denominator=lambda e: jnp.einsum("ij->i", e)[:, None]),
    "reciprocal": by_hand(divide=lambda e, s: e * (1 / s)),
    "jnp.reciprocal": by_hand(divide=lambda e, s: e * jnp.reciprocal(s)),
    "power": by_hand(divide=lambda e, s: e * s**-1),
    "masked by product": lambda x: by_hand()(x * 1.0) * (jnp.arange(8) < 5),
    "logsumexp": functools.partial(jax.nn.logsumexp, axis=-1),
    "logsumexp by hand": lambda x: jnp.log(jnp.exp(x).sum(-1)),
}


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax(name):
    assert kinds(SOFTMAX[name]) == ["softmax"]


def test_softmax_with_a_live_maximum():
    assert kinds(by_hand(lambda m: m)) == ["maximum", "sum", "softmax"]


@pytest.mark.parametrize(
    "fun",
    [
        jax.nn.log_softmax,
        lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True),
        lambda x: x - jnp.log(jnp.exp(x).sum(-1, keepdims=True)),
        lambda x: jax.nn.log_softmax(x, where=jnp.arange(8) < 5),
    ],
)
def test_log_softmax(fun):
    assert kinds(fun) == ["softmax", "sum"]


def test_what_is_no_softmax():
    assert "softmax" not in kinds(lambda x: jnp.exp(x) / jnp.exp(x + B).sum())
    assert "softmax" not in kinds(lambda x: jnp.exp(x) * jnp.exp(x).sum())
    assert "softmax" not in kinds(lambda x: (lambda e: (1 / e) / e.sum())(jnp.exp(x)))
    assert "softmax" not in kinds(lambda x: (lambda e: (1 / e) * (1 / e.sum()))(jnp.exp(x)))


def hand_attention(x):
    q, k, v = jnp.split(x @ jnp.concatenate([W, V, W], -1), 3, -1)
    return jnp.einsum("kd,qk->qd", v, jax.nn.softmax(jnp.einsum("qd,kd->qk", q, k) / 8**0.5))


def dropped_attention(x):
    weights = jax.nn.softmax(x @ x.T)
    return jnp.where(jax.random.bernoulli(KEY, 0.5, (3, 3)), weights / 0.5, 0) @ x


def dot_product_attention(**kwargs):
    def fun(x):
        heads = x.reshape(1, 3, 2, 4)
        return jax.nn.dot_product_attention(heads, heads, heads, **kwargs)

    return fun


def linen_attention(x):
    model = nn.MultiHeadDotProductAttention(num_heads=2)
    return model.apply(ones_like(model, x), x)


NNX_ATTENTION = nnx.MultiHeadAttention(2, in_features=8, decode=False, rngs=nnx.Rngs(0))

ATTENTION = {
    "by hand": hand_attention,
    "matrix products": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "dropout": dropped_attention,
    "jax.nn": dot_product_attention(),
    "jax.nn causal": dot_product_attention(is_causal=True),
    "jax.nn lengths": dot_product_attention(key_value_seq_lengths=jnp.array([2], "int32")),
    "linen": linen_attention,
    "nnx": lambda x: NNX_ATTENTION(x),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_weights_come_first(name):
    found = [s for s in steps(ATTENTION[name]) if s.kind in ("product", "softmax")]
    assert [(s.kind, s.variant) for s in found] == [
        ("product", ""), ("softmax", ""), ("product", "attention"),
    ]  # fmt: skip
    # weights are >= 0, and known to be
    assert found[-1].nonneg[0] or name == "dropout"
    assert not found[-1].nonneg[1]


# ------------------------------------------------------------------------------- normalization


def flax_norm(module):
    """A linen module on a batch, with its parameters."""
    variables = ones_like(module, X)

    def fun(x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    return fun


NORMS = {
    "linen layer": flax_norm(nn.LayerNorm()),
    "linen layer slow": flax_norm(nn.LayerNorm(use_fast_variance=False)),
    "linen layer plain": flax_norm(nn.LayerNorm(use_bias=False, use_scale=False)),
    "linen rms": flax_norm(nn.RMSNorm()),
    "linen group": flax_norm(nn.GroupNorm(num_groups=2)),
    "linen batch": flax_norm(nn.BatchNorm(use_running_average=False)),
    "nnx layer": nnx.LayerNorm(8, rngs=nnx.Rngs(0)),
    "nnx rms": nnx.RMSNorm(8, rngs=nnx.Rngs(0)),
    "nnx group": nnx.GroupNorm(8, num_groups=2, rngs=nnx.Rngs(0)),
    "equinox layer": jax.vmap(eqx.nn.LayerNorm(8)),
    "equinox rms": jax.vmap(eqx.nn.RMSNorm(8)),
    "standardize": jax.nn.standardize,
    "std": lambda x: x / jnp.std(x, -1, keepdims=True),
    "std eps": lambda x: (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-5),
    "var": lambda x: (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5),
    "norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "whole norm": lambda x: x / jnp.linalg.norm(x),
    "clipped norm": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6),
    "safe std": lambda x: x / jnp.where(x.std(-1, keepdims=True) == 0, 1, x.std(-1, keepdims=True)),
    "rsqrt": lambda x: x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5),
    "power": lambda x: x * ((x * x).mean(-1, keepdims=True) + 1e-5) ** -0.5,
    "1 / sqrt": lambda x: x * (1 / jnp.sqrt((x**2).mean(-1, keepdims=True))),
    "einsum": lambda x: x / jnp.sqrt(jnp.einsum("ij,ij->i", x, x))[:, None],
    "cosine": lambda x: (x @ B) / (jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(B)),
    "after a layer": lambda x: (lambda z: z / z.std(-1, keepdims=True))(jnp.tanh(x @ W)),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalization(name):
    """The value is scaled by its statistic; what makes that are steps like any others."""
    found = kinds(NORMS[name])
    assert found.count("normalization:scale") == 1
    assert not {"product:gate", "quotient", "softmax"} & set(found)
    assert "product" not in found or name == "einsum"  # |x|^2 is x times x


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: x * jnp.linalg.norm(x),
        lambda x: x * x.mean() ** 0.5,
        lambda x: x * x.mean(-1, keepdims=True) ** 1.5,
        lambda x: x / x.mean(-1, keepdims=True) ** -0.5,
        lambda x: x / (x @ W),
    ],
    ids=["norm", "root", "power", "negative power", "quotient"],
)
def test_what_is_no_normalization(fun):
    assert not [k for k in kinds(fun) if k.startswith("normalization")]


# ---------------------------------------------------------------------------------- affine maps


def conv(x, kernel=KERNEL, strides=(1, 1), padding="SAME"):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dims)


class DenseNorm(nn.Module):
    """Dense, bias, running-average BatchNorm."""

    @nn.compact
    def __call__(self, x):
        """One affine map."""
        x = nn.Conv(4, (3, 3))(x) if x.ndim == 4 else nn.Dense(4)(x)
        return nn.BatchNorm(use_running_average=True)(x)


DENSE_NORM = {x.ndim: ones_like(DenseNorm(), x) for x in (X, IMAGE)}


def dense_norm(x):
    return DenseNorm().apply(DENSE_NORM[x.ndim], x)


AFFINE = {
    "dense": (lambda x: x @ W, X),
    "bias": (lambda x: x @ W + B, X),
    "bias before": (lambda x: B - x @ W, X),
    "scale": (lambda x: (x @ W + B) * B / 3.0 - 1.0, X),
    "dense BatchNorm": (dense_norm, X),
    "conv BatchNorm": (dense_norm, IMAGE),
    "conv bias scale": (lambda x: (conv(x) + B[:4]) * 2.0 - 1.0, IMAGE),
    "transposed conv": (lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "SAME") + 1.0, IMAGE),
    "weights left": (lambda x: jnp.einsum("ij,bj->bi", W, x) + B, X),
    "weights right": (lambda x: jnp.einsum("bj,ji->bi", x, W) + B, X),
    "transposed": (lambda x: (W @ x.T).T + B, X),
    "vmapped": (jax.vmap(lambda x: W @ x + B), X),
    "jitted": (jax.jit(lambda x: jax.jit(jnp.dot)(x, W) + B), X),
    "reshaped": (lambda x: (x @ W).reshape(3, 2, 4).swapaxes(1, 2) + B[:2], X),
    "cast": (lambda x: (x.astype("float32") @ W.astype("float32")).astype("float64") + B, X),
    "ragged": (lambda x: lax.ragged_dot(x, jnp.stack([W, V]), jnp.array([1, 2])) + B, X),
}


@pytest.mark.parametrize("name", AFFINE)
def test_a_layer_is_one_affine_map(name):
    fun, x = AFFINE[name]
    (step,) = (s for s in steps(fun, x) if s.operation not in ("transpose", "convert_element_type"))
    assert (step.kind, step.variant) == ("matmul", "conv" if "conv" in name else "dense")
    assert step.first


def test_an_affine_map_ends_where_its_value_is_used_twice():
    def fun(x):
        z = x @ W
        return (z + B) * 2 + z

    assert [s.operation for s in steps(fun)] == ["dot_general", "add", "mul", "add"]
    assert kinds(fun) == ["matmul:dense", "sum"]
    assert [s.operation for s in steps(lambda x: jnp.sin(x @ W + B) * jnp.cos(x @ W + B))][0] == (
        "dot_general+add"
    )


def test_sums_of_live_values_belong_to_no_layer():
    assert kinds(lambda x: x + (x @ W + B)) == ["matmul:dense", "sum"]
    assert kinds(lambda x: x @ W + B + x @ V) == ["matmul:dense", "matmul:dense", "sum"]


def test_two_layers_are_two():
    assert [s.operation for s in steps(lambda x: x @ W @ V + B)] == [
        "dot_general", "dot_general+add",
    ]  # fmt: skip


def test_masks_that_depend_on_the_input_belong_to_no_layer():
    assert kinds(lambda x: (x @ W) * (x > 0))[0] == "matmul:dense"
    assert steps(lambda x: (x @ W) * (x > 0))[0].operation == "dot_general"
    assert steps(lambda x: (x @ W) * lax.stop_gradient(x))[0].operation == "dot_general"


@pytest.mark.parametrize("move", [lax.optimization_barrier, jax.device_put])
def test_weights_that_pass_beside_the_input_are_not_live(move):
    def fun(x):
        moved, weights = move((x, W))
        return moved @ weights + B

    assert kinds(fun) == ["matmul:dense"]


# --------------------------------------------------------------------------- the first layer


MEAN, STD = jnp.array([0.4, 0.5, 0.6]), jnp.array([0.1, 0.2, 0.3])

BEFORE_THE_FIRST = {
    "nothing": conv,
    "normalise": lambda x: conv((x - MEAN) / STD),
    "range": lambda x: conv(x / 255 * 2 - 1),
    "transpose": lambda x: conv(x.transpose(0, 2, 1, 3)),
    "channels": lambda x: conv(x[..., ::-1]),
    "pad": lambda x: conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), padding="VALID"),
    "reflect": lambda x: conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")),
    "crop": lambda x: conv(x[:, 1:-1, 1:-1]),
    "patches": lambda x: x.reshape(2, 4, 2, 4, 6).swapaxes(2, 3).reshape(2, 16, 12) @ ONES[12, 5],
    "cast": lambda x: conv(x.astype("float32"), KERNEL.astype("float32")),
    "class token": lambda x: (
        jnp.concatenate([jnp.zeros((1, 192)), x.reshape(2, -1)]) @ ONES[192, 3]
    ),
    "position": lambda x: (x.reshape(2, 192) + jnp.arange(192.0)) @ ONES[192, 3],
    "dropout": lambda x: conv(jnp.where(jax.random.bernoulli(KEY, 0.5, x.shape), x / 0.5, 0)),
    "jit": jax.jit(lambda x: jax.jit(conv)((x - MEAN) / STD)),
    "remat": jax.checkpoint(lambda x: conv((x - MEAN) / STD)),
    "branches": lambda x: lax.cond(x[0, 0, 0, 0] > 0, conv, lambda x: conv(x - MEAN), x),
    "scan": lambda x: lax.scan(lambda c, x: (c, conv(x[None])), 0, x)[1],
}


@pytest.mark.parametrize("name", BEFORE_THE_FIRST)
def test_the_first_layer_is_found(name):
    matmuls = [s for s in steps(BEFORE_THE_FIRST[name], IMAGE) if s.kind == "matmul"]
    assert matmuls
    assert all(s.first for s in matmuls)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jax.nn.relu(x) @ W,
        lambda x: x * (x > 0) @ W,
        lambda x: x * lax.stop_gradient(x) @ W,
        lambda x: x / lax.stop_gradient(jnp.abs(x).max()) @ W,
        lambda x: jnp.where(x > 0, x, 0) @ W,
        lambda x: (x - x.mean()) @ W,
        lambda x: jnp.concatenate([x, jnp.tanh(x)], -1) @ jnp.ones((16, 2)),
        lambda x: lax.scan(lambda c, w: (c @ w, None), x, jnp.stack([W, V]))[0],
    ],
    ids=["relu", "mask", "stopped", "scaled", "where", "mean", "concatenate", "carry"],
)
def test_what_is_not_the_first_layer(fun):
    assert not any(s.first for s in steps(fun) if s.kind == "matmul")


def test_only_the_first_of_several_layers_is_first():
    assert [s.first for s in steps(lambda x: x @ W @ V)] == [True, False]
    matmuls = [s.first for s in steps(lambda x: x @ W + x @ V) if s.kind == "matmul"]
    assert matmuls == [True, True]


# ---------------------------------------------------------------------------------------- signs

NONNEGATIVE = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "relu by max": lambda x: jnp.maximum(x, 0),
    "clip": lambda x: jnp.clip(x, 0, 1),
    "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "exp": jnp.exp,
    "square": jnp.square,
    "x * x": lambda x: x * x,
    "x ** 2": lambda x: x**2,
    "abs": jnp.abs,
    "plus a number": lambda x: jax.nn.relu(x) + 1.0,
    "times an int": lambda x: jax.nn.relu(x) * 2,
    "concatenate": lambda x: jnp.concatenate([jax.nn.relu(x), x**2])[:3],
    "pad": lambda x: jnp.pad(jax.nn.relu(x), ((0, 0), (4, 4)))[:, 4:-4],
    "pool": lambda x: nn.max_pool(jax.nn.relu(x)[..., None], (2,), padding="SAME")[..., 0],
    "mean pool": lambda x: nn.avg_pool(jax.nn.relu(x)[..., None], (2,), padding="SAME")[..., 0],
    "sum": lambda x: jax.nn.relu(x) + jax.nn.relu(-x).mean(),
    "dropout": lambda x: jnp.where(jax.random.bernoulli(KEY, 0.5, x.shape), jax.nn.relu(x), 0),
    "scan": lambda x: lax.scan(lambda c, w: (jax.nn.relu(c @ w), None), x**2, W[None])[0],
    "cond": lambda x: lax.cond(x[0, 0] > 0, jax.nn.relu, jnp.square, x),
    "remat": jax.checkpoint(jax.nn.relu),
}


@pytest.mark.parametrize("name", NONNEGATIVE)
def test_values_known_to_be_nonnegative(name):
    assert steps(lambda x: NONNEGATIVE[name](x) @ V)[-1].nonneg == (True,)
    assert (NONNEGATIVE[name](X) >= 0).all()


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: x,
        lambda x: jax.nn.relu(x) + B,
        lambda x: jax.nn.relu(x) - 1.0,
        lambda x: jax.nn.relu(x) * -1,
        lambda x: -jax.nn.relu(x),
        lambda x: jnp.minimum(jax.nn.relu(x), -1.0),
        lambda x: jnp.clip(x, -1, 1),
        lambda x: jax.nn.gelu(x),
        lambda x: jax.nn.leaky_relu(x),
        lambda x: jnp.log(jnp.abs(x)),
        lambda x: x**3,
        lambda x: jnp.pad(jax.nn.relu(x), ((0, 0), (1, 0)), constant_values=-1)[:, 1:],
        lambda x: jnp.where(B > 0, jax.nn.relu(x), -1.0),
        lambda x: jnp.concatenate([jax.nn.relu(x), x])[:3],
        lambda x: lax.scan(lambda c, w: (c @ w, None), jax.nn.relu(x), W[None])[0],
        lambda x: lax.cond(x[0, 0] > 0, jax.nn.relu, jnp.tanh, x),
    ],
)
def test_values_of_unknown_sign(fun):
    assert steps(lambda x: fun(x) @ V)[-1].nonneg == (False,)


# ------------------------------------------------------------------------------ paths: linen


class Block(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, x):
        """A residual block."""
        return x + nn.Dense(8, name="out")(nn.relu(nn.Dense(8)(x)))


class Setup(nn.Module):
    """Modules made in setup, methods of other names."""

    def setup(self):
        """Makes the modules."""
        self.blocks = [Block() for _ in range(2)]
        self.enc = nn.Dense(8)
        self.dec = nn.Dense(8)

    def encode(self, x):
        """First half."""
        return nn.tanh(self.enc(x))

    def decode(self, z):
        """Second half."""
        return self.dec(z)

    def __call__(self, x):
        """Both."""
        for block in self.blocks:
            x = block(x)
        return self.decode(self.encode(x))


class Calls(nn.Module):
    """Calls methods of a submodule."""

    def setup(self):
        """Makes the module."""
        self.inner = Setup()

    def __call__(self, x):
        """Calls them."""
        return self.inner.decode(self.inner.encode(x))


class Body(nn.Module):
    """The body of a scan."""

    @nn.compact
    def __call__(self, x, _):
        """One iteration."""
        return Block()(x), None


class Lifted(nn.Module):
    """Lifted transformations, and a module used twice."""

    @nn.compact
    def __call__(self, x):
        """One after another."""
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = nn.scan(Body, length=2, **axes)(name="scanned")(x, None)
        x = nn.remat(Block)(name="remat")(x)
        x = nn.jit(Block)(name="jit")(x)
        shared = nn.Dense(8, name="shared")
        return shared(nn.tanh(shared(x)))


class Inherited(nn.MultiHeadDotProductAttention):
    """Calls the method of the class it inherits from."""

    @nn.compact
    def __call__(self, x):
        """Attention of a value to itself."""
        return super().__call__(x)


BLOCKS = [f"blocks_{k}/{layer}" for k in (0, 1) for layer in ("Dense_0", "out")]
LINEN = {
    "nested": (nn.Sequential([nn.Dense(8), nn.relu, Block()]), None,
               ["layers_0", "layers_2/Dense_0", "layers_2/out"]),
    "setup": (Setup(), None, [*BLOCKS, "enc", "dec"]),
    "named": (Setup(name="model"), None, [*BLOCKS, "enc", "dec"]),
    "method": (Setup(), "encode", ["enc"]),
    "methods of a submodule": (Calls(), None, ["inner/enc", "inner/dec"]),
    "lifted": (Lifted(), None, [
        "scanned/Block_0/Dense_0", "scanned/Block_0/out", "remat/Dense_0", "remat/out",
        "jit/Dense_0", "jit/out", "shared", "shared",
    ]),
    "inherited": (Inherited(num_heads=2), None, ["query", "key", "value", "out"]),
    "one layer": (nn.Dense(8), None, [""]),
}  # fmt: skip


def linen_apply(model, method=None):
    """A linen model as a function, and variables for it."""
    keywords = {"method": method} if method else {}
    return functools.partial(model.apply, **keywords), ones_like(model, X, **keywords)


@pytest.mark.parametrize("name", LINEN)
@pytest.mark.parametrize("how", ["closed over", "argument", "bound", "jit", "vmap", "no scopes"])
def test_linen_paths_are_those_of_the_parameters(name, how):
    if (name, how) == ("inherited", "vmap"):
        how = "jit"  # attention wants the axis that vmap would take
    model, method, expected = LINEN[name]
    apply, variables = linen_apply(model, method)
    fun = functools.partial(apply, variables)
    if how == "argument":
        found = layers(apply, variables, X)
    elif how == "bound":
        bound = model.bind(variables)
        found = layers(getattr(bound, method) if method else bound)
    elif how == "no scopes":
        with nn.override_named_call(False):
            found = layers(fun)
    else:
        found = layers({"jit": jax.jit, "vmap": jax.vmap}.get(how, lambda f: f)(fun))
    assert sorted(found) == sorted(expected)


def test_linen_paths_of_other_steps():
    fun = functools.partial(*linen_apply(Setup()))
    assert layers(fun, kind="nonlinearity") == ["blocks_0", "blocks_1", ""]
    assert layers(fun, kind="sum") == ["blocks_0", "blocks_1"]


def test_scopes_of_the_user_are_kept():
    def fun(x):
        with jax.named_scope("stem"):
            x = x @ W
        with jax.named_scope("stage/1"):
            return jnp.einsum("bi,ij->bj", x, V)

    assert layers(fun) == ["stem", "stage/1"]


# -------------------------------------------------------------------------------- paths: nnx


class NnxBlock(nnx.Module):
    """Two layers."""

    def __init__(self, rngs):
        self.fc1 = nnx.Linear(8, 8, rngs=rngs)
        self.fc2 = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        """A residual block."""
        return x + self.fc2(nnx.relu(self.fc1(x)))


class NnxNet(nnx.Module):
    """A list, a dict, a raw parameter, a method."""

    def __init__(self, rngs):
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(2)])
        self.heads = nnx.Dict({"a": nnx.Linear(8, 8, rngs=rngs)})

    def __call__(self, x):
        """All of it."""
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def head(self, x):
        """The last layer."""
        return self.heads["a"](x)


NNX_PATHS = ["blocks/0/fc1", "blocks/0/fc2", "blocks/1/fc1", "blocks/1/fc2", "heads/a"]
NET = NnxNet(nnx.Rngs(0))
GRAPH, STATE = nnx.split(NET)


@pytest.mark.parametrize(
    ("fun", "args", "expected"),
    [
        (lambda x: NET(x), (X,), NNX_PATHS),
        (NET, (X,), NNX_PATHS),
        (lambda model, x: model(x), (NET, X), NNX_PATHS),
        (jax.jit(lambda x: NET(x)), (X,), NNX_PATHS),
        (lambda x: nnx.merge(GRAPH, STATE)(x), (X,), NNX_PATHS),
        (lambda state, x: nnx.merge(GRAPH, state)(x), (STATE, X), NNX_PATHS),
        (lambda x: NET.head(x), (X,), NNX_PATHS[-1:]),
        (NET.head, (X,), NNX_PATHS[-1:]),
        (lambda x: NET.head(NET.blocks[1](NET.blocks[0](x))), (X,), NNX_PATHS),
        (lambda x: NET.blocks[1].fc2(x), (X,), NNX_PATHS[3:4]),
    ],
    ids=["closed over", "itself", "argument", "jit", "merge", "state", "method", "bound method",
         "piecewise", "one layer"],
)  # fmt: skip
def test_nnx_paths_are_those_of_the_module(fun, args, expected):
    assert layers(fun, *args) == expected


def test_nnx_sequential():
    model = nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.relu, NnxBlock(nnx.Rngs(0)))
    assert layers(model) == ["layers/0", "layers/2/fc1", "layers/2/fc2"]


def test_nnx_methods_are_left_as_they_were():
    before = NnxNet.__call__, nnx.Linear.__call__
    layers(NET)
    assert before == (NnxNet.__call__, nnx.Linear.__call__)


# ------------------------------------------------------------------ paths: equinox, haiku, plain


class EquinoxBlock(eqx.Module):
    """Layers in a list."""

    layers: list
    head: eqx.nn.Linear

    def __init__(self):
        self.layers = [eqx.nn.Linear(8, 8, key=KEY), eqx.nn.MLP(8, 8, 8, 1, key=KEY)]
        self.head = eqx.nn.Linear(8, 8, key=KEY)

    def __call__(self, x):
        """One after another."""
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return self.head(x)


EQUINOX = EquinoxBlock()
EQUINOX_PATHS = ["layers/0", "layers/1/layers/0", "layers/1/layers/1", "head"]
DYNAMIC, STATIC = eqx.partition(EQUINOX, eqx.is_array)


def closure(model):
    """A function with the model in its closure."""
    return lambda x: jax.vmap(model)(x)


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (EQUINOX, (X[0],)),
        (jax.vmap(EQUINOX), (X,)),
        (closure(EQUINOX), (X,)),
        (jax.jit(closure(EQUINOX)), (X,)),
        (lambda x: jax.vmap(EQUINOX)(x), (X,)),
        (lambda model, x: jax.vmap(model)(x), (EQUINOX, X)),
        (functools.partial(lambda model, x: model(x), EQUINOX), (X[0],)),
        (lambda arrays, x: eqx.combine(arrays, STATIC)(x), (DYNAMIC, X[0])),
        (jax.checkpoint(closure(EQUINOX)), (X,)),
        (eqx.filter_vmap(EQUINOX), (X,)),
    ],
    ids=["itself", "vmap", "closure", "jit closure", "global", "argument", "partial", "combine",
         "checkpoint", "filter_vmap"],
)  # fmt: skip
def test_equinox_paths_are_those_of_the_leaves(fun, args):
    assert layers(fun, *args) == EQUINOX_PATHS


class HaikuBlock(hk.Module):
    """A block with a method."""

    def __call__(self, x):
        """A residual block."""
        return x + hk.Linear(8)(jax.nn.relu(hk.Linear(8, name="in")(x)))

    def encode(self, x):
        """Another method."""
        return hk.Linear(8)(x)


def haiku(fun):
    """The pure function, its parameters, and the layers that they belong to."""
    model = hk.without_apply_rng(hk.transform(fun))
    return model, model.init(KEY, X)


def test_haiku_paths():
    model, params = haiku(lambda x: hk.Linear(3)(HaikuBlock(name="b")(hk.nets.MLP([8, 8])(x))))
    expected = ["mlp/linear_0", "mlp/linear_1", "b/in", "b/linear", "linear"]
    assert layers(functools.partial(model.apply, params)) == expected
    assert layers(model.apply, params, X) == expected


PARAMS = {"layers": [{"w": W, "b": B}, {"w": V, "b": B + 1}], "out": {"w": W + V}}
PLAIN_PATHS = ["layers/0", "layers/1", "out"]


def plain(params, x):
    for layer in params["layers"]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params["out"]["w"]


class Holder:
    """A model of one's own that is no pytree."""

    def __init__(self):
        self.params = PARAMS

    def predict(self, x):
        """The model."""
        return plain(self.params, x)


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (plain, (PARAMS, X)),
        (jax.jit(plain), (PARAMS, X)),
        (jax.checkpoint(plain), (PARAMS, X)),
        (functools.partial(plain, PARAMS), (X,)),
        ((lambda params: lambda x: plain(params, x))(PARAMS), (X,)),
        (lambda x: plain(PARAMS, x), (X,)),
        (Holder().predict, (X,)),
        (lambda p, x: plain(jax.tree.map(lambda a: a.astype("float32"), p), x), (PARAMS, X)),
    ],
    ids=[
        "argument",
        "jit",
        "checkpoint",
        "partial",
        "closure",
        "global",
        "holder",
        "cast",
    ],
)
def test_plain_paths_are_those_of_the_leaves(fun, args):
    assert layers(fun, *args) == PLAIN_PATHS


def test_paths_inside_transformations():
    found = []

    def look(params, x):
        found.append(layers(plain, params, x))
        found.append(layers(lambda x: plain(params, x), x))
        return x.sum()

    jax.jit(look)(PARAMS, X)
    jax.grad(look)(PARAMS, X)
    jax.vmap(look, (None, 0))(PARAMS, X)
    assert found == 6 * [PLAIN_PATHS]


def test_stacked_layers_in_a_scan():
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *PARAMS["layers"])

    def fun(params, x):
        return lax.scan(lambda c, p: (c @ p["w"] + p["b"], None), x, params["stack"])[0]

    assert layers(fun, {"stack": stacked}, X) == ["stack"]


# ------------------------------------------------------------------------------------- globs


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("head", "head", True),
        ("head", "a/head", False),
        ("*", "head", True),
        ("*", "a/head", False),
        ("**", "a/b/head", True),
        ("**/head", "head", True),
        ("**/head", "a/b/head", True),
        ("**/Conv_*", "Block_0/Conv_1", True),
        ("**/Conv_*", "Block_0/Conv_1/inner", False),
        ("Block_0/**", "Block_0/Conv_1/inner", True),
        ("Block_0/**", "Block_0", True),
        ("Block_?/Conv_[01]", "Block_2/Conv_1", True),
        ("Block_?/Conv_[01]", "Block_2/Conv_2", False),
        ("**/b/**/d", "a/b/c/c/d", True),
        ("layers/*/fc1", "layers/0/fc1", True),
        ("/head/", "head", True),
        ("HEAD", "head", False),
        ("**", "", False),
    ],
)
def test_globs(pattern, path, matches):
    assert matches_path(pattern, tuple(filter(None, path.split("/")))) == matches


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, jax.grad], ids=lambda f: f.__name__)
def test_a_number_that_is_traced_outside_is_unknown(around):
    """A slope, a threshold, an exponent from an outer transformation: planned without its value."""
    x = jnp.array([1.0, -2.0, 0.5])

    def total(c):
        def fun(x):
            return jnp.where(x > c, c * x, 2 * x) / (1 + (x * x).mean()) ** c

        return relevance(fun)(x).sum()

    operand = jnp.array([0.75]) if around is jax.vmap else 0.75
    assert jnp.isfinite(around(total)(operand)).all()


def test_summary_says_what_a_border_splits():
    """A bias outside of what holds its matrix; a quotient of what is made inside."""
    w, c = jnp.ones((4, 4)), jnp.ones(4)
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    row, column = jax.sharding.PartitionSpec("m"), jax.sharding.PartitionSpec(None, "m")

    def sharded(local, out):
        return jax.shard_map(local, mesh=mesh, in_specs=(column, row), out_specs=out)

    def layer(x, w):
        return lax.psum(x @ w, "m")

    whole = jax.sharding.PartitionSpec()
    split = {
        "shard_map": lambda x: jnp.tanh(sharded(layer, whole)(x, w) + c),
        "scan": lambda x: jnp.tanh(lax.map(lambda row: row @ w, x).T + c),
        "cond": lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: 2 * x, x) - c,
    }
    for name, fun in split.items():
        (note,) = summary(fun, "epsilon")(jnp.ones((4, 4))).notes
        assert note.startswith(f"split by {name}: what is added at ") and "bias of no layer" in note
    total = lambda x: lax.map(jnp.exp, x)  # noqa: E731
    table = summary(lambda x: (e := total(x)) / e.sum(-1, keepdims=True))(jnp.ones((4, 4)))
    assert any("no softmax" in note for note in table.notes) and table.notes[0] in str(table)
    for fun in (
        lambda x: jnp.tanh(sharded(lambda x, w: layer(x, w) + c, whole)(x, w)),
        lambda x: jnp.tanh(jax.checkpoint(lambda x: x @ w)(x) + c),
        lambda x: sharded(layer, whole)(x, w) + x,
    ):
        assert not summary(fun, "epsilon")(jnp.ones((4, 4))).notes
