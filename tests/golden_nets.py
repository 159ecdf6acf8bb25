"""Networks whose relevances other systems have computed, and what they computed.

`tests/golden/cases.json` describes networks and cases: of rules on one input (`cases`), of averages
around a rule set (`around`), of rules that compare to a baseline (`baseline`).
`tests/golden/<system>/<net>.npz` holds the weights of one network as PyTorch has them
(`w/<layer>.weight`: dense (out, in), convolution OIHW), an input `x` (NCHW), outputs `y`, target
classes, baselines, and one relevance `attr/<case>` for each case.

A network is written once, over the names of its layers, and built twice: in plain lax, as PyTorch
does it, and in linen, with channels last. The transformers are written in plain jnp only.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests import covering

GOLDEN = Path(__file__).parent / "golden"


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of another system.

    Attributes:
        id: `<system>/<net>/<name>`.
        start: What its backward pass starts with at the outputs: `one` at the target class, the
            `logit` there, the array `start_random`, or one at `each` output in turn.
        hyper: Hyper-parameters, in the system's own words.
    """

    id: str
    start: str
    hyper: dict[str, Any]

    @property
    def net(self) -> str:
        """`<system>/<net>`."""
        return self.id.rpartition("/")[0]

    @property
    def name(self) -> str:
        """What was computed."""
        return self.id.rpartition("/")[2]

    def relevance(self) -> np.ndarray:
        """What the system gave."""
        return arrays(self.net)[f"attr/{self.name}"]


@functools.cache
def _description() -> dict[str, Any]:
    return json.loads((GOLDEN / "cases.json").read_text())


def cases(system: str, part: str = "cases") -> list[Case]:
    """All cases of one system in one part of the description."""
    found = [Case(**case) for case in _description()[part]]
    return [case for case in found if case.id.startswith(f"{system}/")]


@functools.cache
def arrays(net: str) -> dict[str, np.ndarray]:
    """Everything in a network's file, and `onehot` of its targets."""
    with np.load(GOLDEN / f"{net}.npz") as file:
        found = dict(file)
    if "target" in found:
        found["onehot"] = np.eye(found["y"].shape[-1])[found["target"]]
    return found


def compiled(fun: Callable) -> Callable:
    """A function compiled with as little effort as possible."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    if jax.__version_info__ < (0, 11):
        options["xla_cpu_use_fusion_emitters"] = False
    return jax.jit(fun, compiler_options=options)


def quick(fun: Callable) -> Callable:
    """A function that is called once: not compiled at all, or with as little effort as possible.

    Operation by operation is cheaper than compiling as a whole, but for an option of older XLAs.
    """
    return fun if jax.__version_info__ >= (0, 11) else compiled(fun)


def check(case: Case, got: Any, tolerance: float = 1e-7) -> None:
    """Asserts that a relevance is what the system gave, relative to its largest value."""
    expected = case.relevance()
    assert np.shape(got) == expected.shape
    error = np.abs(np.asarray(got) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


@functools.cache
def build(net: str, framework: str = "lax") -> Callable[[Any], jax.Array]:
    """A network as a function of its input.

    Args:
        net: `<system>/<net>`.
        framework: `lax` or `linen`.
    """
    weights = {k[2:]: jnp.asarray(v) for k, v in arrays(net).items() if k.startswith("w/")}
    body = _body(net)
    if framework == "lax":
        return functools.partial(_run_lax, _by_layer(weights), body=body)
    return functools.partial(_Linen(body, _widths(weights)).apply, _variables(weights))


def in_layout(x: np.ndarray, framework: str) -> np.ndarray:
    """An array of (N, C, H, W) as the layers have it inside."""
    return np.moveaxis(x, 1, -1) if framework == "linen" and x.ndim == 4 else x


def parameters(system: str, in_linen: Callable[[Case], bool], part: str = "cases") -> list[Any]:
    """Cases and frameworks for `pytest.mark.parametrize("case, framework", ...)`.

    Without `--full`, a network with many cases has one of four of them, and in linen one of eight;
    its neighbours have those that it has not.
    """
    nets: dict[str, list[Case]] = {}
    for case in sorted(cases(system, part), key=lambda case: case.id):
        nets.setdefault(case.net, []).append(case)
    made = []
    for shift, own in enumerate(nets.values()):
        few = ("lax", own, 4 if len(own) > 20 else 1)
        fewer = ("linen", [case for case in own if in_linen(case)], 8)
        for framework, some, step in (few, fewer):
            for index, case in enumerate(some):
                full, name = (index + shift) % step > 0, f"{case.id}-{framework}"
                made.append(covering.case(case, framework, full=full, id=name))
    return made


def _body(net: str) -> Callable[[Any, Any], jax.Array]:
    system, _, name = net.partition("/")
    description = _description()["nets"][net]
    if "architecture" in description:
        return functools.partial(_sequential, description["architecture"])
    if system in ("gim", "lxt"):
        by_hand = {
            "hf_gpt2": _gpt2,
            "gpt2": _gpt2,
            "hf_llama": _llama,
            "llama": _llama,
            "vit": _vit,
        }
        found = [body for prefix, body in by_hand.items() if name.startswith(prefix)]
        return functools.partial((*found, _transformer)[0], description.get("config", {}))
    return {
        "res_plain": _res_plain,
        "res_basic_bn": functools.partial(_resnet, _basic),
        "res_bottleneck_bn": functools.partial(_resnet, _bottleneck),
    }[name]


# ---------------------------------------------------------------------------- two ways of a layer

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "softmax": jax.nn.softmax,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


class _LaxLayers:
    """Layers in plain lax, of (N, C, H, W)."""

    def __init__(self, weights: dict[str, dict[str, jax.Array]]):
        self.weights = weights

    def read(self, x: Any) -> jax.Array:
        return x

    def conv(self, name, x, stride=1, padding=0, dilation=1, groups=1):
        layer = self.weights[name]
        y = lax.conv_general_dilated(
            x,
            layer["weight"],
            (stride, stride),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )
        return y + layer["bias"][:, None, None] if "bias" in layer else y

    def dense(self, name, x):
        layer = self.weights[name]
        y = x @ layer["weight"].T
        return y + layer["bias"] if "bias" in layer else y

    def norm(self, name, x):
        layer = {k: v.reshape(-1, *(1 for _ in x.shape[2:])) for k, v in self.weights[name].items()}
        scale = layer["weight"] / jnp.sqrt(layer["running_var"] + 1e-5)
        return (x - layer["running_mean"]) * scale + layer["bias"]

    def _pool(self, x, initial, operation, size, stride, padding):
        pads = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
        return lax.reduce_window(
            x, initial, operation, (1, 1, size, size), (1, 1, stride, stride), pads
        )

    def max_pool(self, x, size, stride, padding):
        return self._pool(x, -jnp.inf, lax.max, size, stride, padding)

    def avg_pool(self, x, size, stride, padding):
        return self._pool(x, 0.0, lax.add, size, stride, padding) / size**2

    def mean(self, x):
        return x.mean((2, 3))

    def flatten(self, x):
        return x.reshape(len(x), -1)


def _run_lax(weights, x, *, body):
    return body(_LaxLayers(weights), x)


def _by_layer(weights: dict[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
    tree: dict[str, dict[str, jax.Array]] = {}
    for key, value in weights.items():
        layer, _, leaf = key.rpartition(".")
        tree.setdefault(layer, {})[leaf] = value
    return tree


class _Linen(nn.Module):
    """A network of linen layers, of (N, H, W, C) inside."""

    body: Callable[[Any, Any], jax.Array]
    widths: Any

    @nn.compact
    def __call__(self, x):
        return self.body(_LinenLayers(self.widths), x)


class _LinenLayers:
    def __init__(self, widths: dict[str, tuple[int, bool]]):
        self.widths = widths

    def read(self, x: Any) -> jax.Array:
        return jnp.transpose(x, (0, 2, 3, 1)) if x.ndim == 4 else x

    def conv(self, name, x, stride=1, padding=0, dilation=1, groups=1):
        width, bias = self.widths[name]
        kernel = {1: (1, 1), 3: (3, 3)}[self.widths[f"{name} size"]]
        return nn.Conv(
            width,
            kernel,
            stride,
            [(padding, padding)] * 2,
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=bias,
            name=_linen_name(name),
        )(x)

    def dense(self, name, x):
        width, bias = self.widths[name]
        return nn.Dense(width, use_bias=bias, name=_linen_name(name))(x)

    def norm(self, name, x):
        return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=_linen_name(name))(x)

    def max_pool(self, x, size, stride, padding):
        return nn.max_pool(x, (size, size), (stride, stride), [(padding, padding)] * 2)

    def avg_pool(self, x, size, stride, padding):
        return nn.avg_pool(x, (size, size), (stride, stride), [(padding, padding)] * 2)

    def mean(self, x):
        return x.mean((1, 2))

    def flatten(self, x):
        return jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)


def _linen_name(name: str) -> str:
    return name.replace(".", "_")


def _widths(weights: dict[str, jax.Array]) -> Any:
    widths: dict[str, Any] = {}
    for name, layer in _by_layer(weights).items():
        widths[name] = (len(layer["weight"]), "bias" in layer)
        widths[f"{name} size"] = layer["weight"].shape[-1]
    return nn.FrozenDict(widths)


_LINEN_LEAVES = {"weight": "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def _variables(weights: dict[str, jax.Array]) -> dict[str, Any]:
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, layer in _by_layer(weights).items():
        for leaf, value in layer.items():
            statistic = leaf.startswith("running")
            known = _LINEN_LEAVES[leaf] if value.ndim > 1 or leaf != "weight" else "scale"
            if value.ndim == 4:
                value = jnp.transpose(value, (2, 3, 1, 0))
            collection = variables["batch_stats" if statistic else "params"]
            collection.setdefault(_linen_name(name), {})[known] = (
                value.T if value.ndim == 2 else value
            )
    return variables


# ------------------------------------------------------------------------------- the architectures


def _sequential(ops, layers, x):
    """A list of operations in PyTorch's words."""
    x = layers.read(x)
    for op in ops:
        match op["op"]:
            case "conv2d":
                keys = ("stride", "padding", "dilation", "groups")
                x = layers.conv(op["name"], x, **{k: op[k] for k in keys})
            case "dense":
                x = layers.dense(op["name"], x)
            case "batchnorm1d" | "batchnorm2d":
                x = layers.norm(op["name"], x)
            case "act":
                x = ACTIVATIONS[op["fn"]](x)
            case "maxpool2d":
                x = layers.max_pool(x, op["kernel_size"], op["stride"], op["padding"])
            case "avgpool2d":
                x = layers.avg_pool(x, op["kernel_size"], op["stride"], op["padding"])
            case "flatten":
                x = layers.flatten(x)
    return x


def _res_plain(layers, x):
    """Two residual blocks without normalisation, with biases."""
    relu = jax.nn.relu
    h = relu(layers.conv("stem", layers.read(x), padding=1))
    y = relu(layers.conv("conv_a", h, padding=1))
    h = relu(h + layers.conv("conv_b", y, padding=1))
    y = relu(layers.conv("conv_c", h, 2, 1))
    h = relu(layers.conv("skip", h, 2) + layers.conv("conv_d", y, padding=1))
    return layers.dense("fc", layers.mean(h))


def _resnet(block, layers, x):
    """The ResNet of torchvision with two blocks."""
    h = jax.nn.relu(layers.norm("bn1", layers.conv("conv1", layers.read(x), padding=1)))
    h = layers.max_pool(h, 3, 2, 1)
    h = jax.nn.relu(h + block(layers, "layer1.0", h, 1))
    y = block(layers, "layer2.0", h, 2)
    shortcut = layers.norm("layer2.0.downsample.1", layers.conv("layer2.0.downsample.0", h, 2))
    return layers.dense("fc", layers.mean(jax.nn.relu(shortcut + y)))


def _basic(layers, name, x, stride):
    y = layers.norm(f"{name}.bn1", layers.conv(f"{name}.conv1", x, stride, 1))
    y = layers.conv(f"{name}.conv2", jax.nn.relu(y), padding=1)
    return layers.norm(f"{name}.bn2", y)


def _bottleneck(layers, name, x, stride):
    y = jax.nn.relu(layers.norm(f"{name}.bn1", layers.conv(f"{name}.conv1", x)))
    y = jax.nn.relu(layers.norm(f"{name}.bn2", layers.conv(f"{name}.conv2", y, stride, 1)))
    return layers.norm(f"{name}.bn3", layers.conv(f"{name}.conv3", y))


# -------------------------------------------------------------------------------- the transformers


def _layer_norm(layer, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / jnp.sqrt(variance + eps) * layer["weight"] + layer["bias"]


def _rms_norm(layer, x, eps=1e-6):
    return layer["weight"] * (x * lax.rsqrt((x**2).mean(-1, keepdims=True) + eps))


def _heads(x, count):
    """(N, T, count * d) to (N, count, T, d)."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], count, -1), 1, 2)


def _attention(q, k, v, *, causal):
    """Attention of (N, heads, T, d), to (N, T, heads * d)."""
    scores = q @ jnp.swapaxes(k, 2, 3) * q.shape[-1] ** -0.5
    if causal:
        scores = jnp.where(jnp.tri(scores.shape[-1], dtype=bool), scores, -jnp.inf)
    y = jax.nn.softmax(scores) @ v
    return jnp.swapaxes(y, 1, 2).reshape(y.shape[0], y.shape[2], -1)


_gelu = functools.partial(jax.nn.gelu, approximate=False)


def _transformer(config, layers, x):
    """Pre-norm, on continuous tokens; a mean over tokens, or the last one if causal."""
    dense, causal = layers.dense, config.get("causal", False)

    def norm(name, x):
        layer = layers.weights[name]
        return _rms_norm(layer, x) if config.get("norm") == "rms" else _layer_norm(layer, x, 1e-5)

    for i in range(config["L"]):
        h = norm(f"l{i}_n1", x)
        q, k, v = (_heads(dense(f"l{i}_{part}", h), config["H"]) for part in "qkv")
        x = x + dense(f"l{i}_o", _attention(q, k, v, causal=causal))
        h = norm(f"l{i}_n2", x)
        up = dense(f"l{i}_up", h)
        gated = config.get("mlp") == "swiglu"
        h = jax.nn.silu(dense(f"l{i}_gate", h)) * up if gated else _gelu(up)
        x = x + dense(f"l{i}_down", h)
    x = norm("nf", x)
    return dense("head", x[:, -1] if causal else x.mean(1))


def _gpt2(config, layers, x):
    """Hugging Face's GPT2LMHeadModel on embeddings; its weights are (in, out)."""
    weights = layers.weights

    def dense(name, x):
        return x @ weights[name]["weight"] + weights[name]["bias"]

    x = x + weights["transformer.wpe"]["weight"][: x.shape[1]]
    for i in range(config["n_layer"]):
        block = f"transformer.h.{i}"
        h = _layer_norm(weights[f"{block}.ln_1"], x, 1e-5)
        parts = jnp.split(dense(f"{block}.attn.c_attn", h), 3, -1)
        q, k, v = (_heads(part, config["n_head"]) for part in parts)
        x = x + dense(f"{block}.attn.c_proj", _attention(q, k, v, causal=True))
        h = _layer_norm(weights[f"{block}.ln_2"], x, 1e-5)
        h = jax.nn.gelu(dense(f"{block}.mlp.c_fc", h), approximate=True)
        x = x + dense(f"{block}.mlp.c_proj", h)
    return layers.dense("lm_head", _layer_norm(weights["transformer.ln_f"], x[:, -1], 1e-5))


def _llama(config, layers, x):
    """Hugging Face's LlamaForCausalLM on embeddings."""
    weights, dense = layers.weights, layers.dense
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["head_dim"]
    frequencies = config["rope_theta"] ** (-jnp.arange(0, size, 2) / size)
    angles = jnp.tile(jnp.outer(jnp.arange(x.shape[1]), frequencies), 2)

    def rotated(x):
        a, b = jnp.split(x, 2, -1)
        return x * jnp.cos(angles) + jnp.concatenate([-b, a], -1) * jnp.sin(angles)

    def norm(name, x):
        return _rms_norm(weights[name], x, config["rms_norm_eps"])

    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}"
        h = norm(f"{block}.input_layernorm", x)
        q = rotated(_heads(dense(f"{block}.self_attn.q_proj", h), heads))
        k = rotated(_heads(dense(f"{block}.self_attn.k_proj", h), shared))
        v = _heads(dense(f"{block}.self_attn.v_proj", h), shared)
        k, v = (jnp.repeat(part, heads // shared, 1) for part in (k, v))
        x = x + dense(f"{block}.self_attn.o_proj", _attention(q, k, v, causal=True))
        h = norm(f"{block}.post_attention_layernorm", x)
        gate = jax.nn.silu(dense(f"{block}.mlp.gate_proj", h))
        x = x + dense(f"{block}.mlp.down_proj", gate * dense(f"{block}.mlp.up_proj", h))
    return dense("lm_head", norm("model.norm", x[:, -1]))


def _vit(config, layers, x):
    """The VisionTransformer of torchvision with patches of 8."""
    del config
    weights = layers.weights

    x = layers.conv("conv_proj", x, stride=8)
    x = jnp.swapaxes(x.reshape(*x.shape[:2], -1), 1, 2)
    token = jnp.broadcast_to(weights[""]["class_token"], (len(x), 1, x.shape[-1]))
    x = jnp.concatenate([token, x], 1) + weights["encoder"]["pos_embedding"]
    for i in range(2):
        block = f"encoder.layers.encoder_layer_{i}"
        h = _layer_norm(weights[f"{block}.ln_1"], x, 1e-6)
        project = weights[f"{block}.self_attention"]
        kernels = jnp.split(project["in_proj_weight"], 3)
        biases = jnp.split(project["in_proj_bias"], 3)
        q, k, v = (_heads(h @ w.T + b, 2) for w, b in zip(kernels, biases, strict=True))
        h = layers.dense(f"{block}.self_attention.out_proj", _attention(q, k, v, causal=False))
        x = x + h
        h = _layer_norm(weights[f"{block}.ln_2"], x, 1e-6)
        h = _gelu(layers.dense(f"{block}.mlp.0", h))
        x = x + layers.dense(f"{block}.mlp.3", h)
    return layers.dense("heads.head", _layer_norm(weights["encoder.ln"], x, 1e-6)[:, 0])
