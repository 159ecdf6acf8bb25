"""Architectures of public packages in tiny configurations, as functions of real arrays.

Each is made by a function without arguments, so that a package that is not there costs nothing. It
returns the function, one number for each example, and what it is called with. Token models are
explained at their embedding; no token of theirs is one that a package takes for padding, whose
positions move with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)
PICTURES = jax.random.uniform(KEY, (2, 32, 32, 3), jnp.float32)
TOKENS = jnp.array([[3, 7, 4, 7, 5, 9], [8, 6, 5, 3, 5, 8]], jnp.int32)


class Model(NamedTuple):
    """A model as it is explained.

    Attributes:
        fun: Returns (N,).
        x: Its argument.
        at: The place that is explained in place of tokens; empty: x itself.
    """

    fun: Callable[..., Any]
    x: jax.Array
    at: str = ""


TINY = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def transformers_text(name: str, at: str, **options: Any) -> Callable[[], Model]:
    """`FlaxNAMEModel` on tokens."""

    def make() -> Model:
        package = importlib.import_module("transformers")
        config = getattr(package, f"{name}Config")(**options)
        model = getattr(package, f"Flax{name}Model")(config, seed=0)
        fun = lambda ids: model(ids, params=model.params)[0][:, -1, 1]  # noqa: E731
        return Model(fun, TOKENS, at)

    return make


def transformers_vision(name: str, **options: Any) -> Callable[[], Model]:
    """`FlaxNAMEModel` on pictures."""

    def make() -> Model:
        package = importlib.import_module("transformers")
        config = getattr(package, f"{name}Config")(**options)
        model = getattr(package, f"Flax{name}Model")(config, input_shape=(1, 32, 32, 3), seed=0)

        def fun(x: jax.Array) -> jax.Array:
            found = model(jnp.moveaxis(x, -1, 1), params=model.params)[0]
            found = found.reshape(len(x), -1)
            return found @ jnp.linspace(-1, 1, found.shape[1], dtype=found.dtype)

        return Model(fun, PICTURES)

    return make


def keras_vision(name: str, size: int = 32, **options: Any) -> Callable[[], Model]:
    """`keras.applications.NAME`, without trained weights."""

    def make() -> Model:
        import os

        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        given = {"weights": None, "classes": 5, "classifier_activation": None, **options}
        model = getattr(keras.applications, name)(input_shape=(size, size, 3), **given)
        rng = np.random.default_rng(0)
        for weight in model.weights:  # as they would be after training: no zeros
            if len(weight.shape) == 1 and "variance" not in weight.path:
                weight.assign(np.asarray(weight) + 0.1 * rng.normal(size=weight.shape))
        x = jax.random.uniform(KEY, (1, size, size, 3))
        return Model(lambda x: model(x, training=False)[:, 1], x)

    return make


def haiku_vision(name: str, **options: Any) -> Callable[[], Model]:
    """`haiku.nets.NAME` on pictures."""

    def make() -> Model:
        import haiku as hk

        def call(x: jax.Array, training: bool) -> Any:
            return getattr(hk.nets, name)(num_classes=4, **options)(x, is_training=training)

        net = hk.without_apply_rng(hk.transform_with_state(call))
        params, state = net.init(jax.random.PRNGKey(0), PICTURES, True)
        params = jax.tree.map(lambda w: w + 0.02 * jax.random.normal(KEY, w.shape), params)  # no 0
        return Model(lambda x: net.apply(params, state, x, False)[0][:, 1], PICTURES)

    return make


def haiku_recurrent(name: str) -> Callable[[], Model]:
    """A recurrent core of haiku, unrolled by its scan."""

    def make() -> Model:
        import haiku as hk

        def call(x: jax.Array) -> Any:
            core = getattr(hk, name)(6)
            return hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0][-1]

        x = jax.random.normal(KEY, (5, 2, 4))
        net = hk.without_apply_rng(hk.transform(call))
        params = net.init(jax.random.PRNGKey(0), x)
        return Model(lambda x: net.apply(params, x)[:, 1], x)

    return make


def equinox_mlp() -> Model:
    """Equinox's MLP, mapped over examples."""
    import equinox as eqx

    model = eqx.nn.MLP(6, 3, 8, 2, jax.nn.gelu, key=KEY)
    return Model(lambda x: jax.vmap(model)(x)[:, 1], jax.random.normal(KEY, (2, 6)))


def equinox_attention() -> Model:
    """Equinox's multi-head attention, on itself."""
    import equinox as eqx

    layer = eqx.nn.MultiheadAttention(2, 8, use_query_bias=True, key=KEY)
    fun = lambda x: jax.vmap(lambda x: layer(x, x, x))(x)[:, -1, 1]  # noqa: E731
    return Model(fun, jax.random.normal(KEY, (2, 5, 8)))


def diffrax_ode() -> Model:
    """A neural differential equation of diffrax, with an MLP of equinox."""
    import diffrax
    import equinox as eqx

    field = eqx.nn.MLP(4, 4, 8, 1, jnp.tanh, key=KEY)

    def solve(y: jax.Array) -> jax.Array:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: field(y)),
            diffrax.Heun(),
            t0=0.0,
            t1=1.0,
            dt0=0.25,
            y0=y,
            max_steps=8,
            adjoint=diffrax.DirectAdjoint(),
        )
        assert found.ys is not None
        return found.ys[-1, 1]

    return Model(jax.vmap(solve), jax.random.normal(KEY, (2, 4)))


def jraph_network(name: str) -> Callable[[], Model]:
    """A graph network of jraph, of the features of the nodes."""

    def make() -> Model:
        import jraph

        rng = np.random.default_rng(0)
        w, v = (jnp.asarray(rng.normal(size=(4, 4)), jnp.float32) for _ in range(2))
        senders, receivers = jnp.array([0, 1, 2, 3, 0]), jnp.array([1, 2, 3, 0, 2])
        if name == "convolution":
            net = jraph.GraphConvolution(lambda n: jnp.tanh(n @ w), add_self_edges=True)
        else:
            net = jraph.GAT(
                lambda n: n @ w,
                lambda s, r, e: jax.nn.leaky_relu((s @ v + r @ v).sum(-1, keepdims=True)),
            )

        def fun(nodes: jax.Array) -> jax.Array:
            count = jnp.array([len(nodes)]), jnp.array([len(senders)])
            graph = jraph.GraphsTuple(nodes, None, receivers, senders, None, *count)
            return net(graph).nodes[:, 1]

        return Model(fun, jnp.asarray(rng.normal(size=(4, 4)), jnp.float32))

    return make


def stax_convolutions() -> Model:
    """The digit network of jax's examples, in stax."""
    from jax.example_libraries import stax

    init, apply = stax.serial(
        stax.Conv(4, (3, 3), padding="SAME"),
        stax.Relu,
        stax.MaxPool((2, 2), strides=(2, 2)),
        stax.Flatten,
        stax.Dense(6),
        stax.Relu,
        stax.Dense(3),
        stax.LogSoftmax,
    )
    _, params = init(jax.random.PRNGKey(0), (-1, 8, 8, 1))
    x = jax.random.uniform(KEY, (2, 8, 8, 1))
    return Model(lambda x: apply(params, x)[:, 1], x)


def penzai_mlp() -> Model:
    """An MLP of penzai, of named arrays inside."""
    from penzai import pz
    from penzai.models import simple_mlp

    model = simple_mlp.MLP.from_config(KEY, [6, 8, 3])

    def fun(x: jax.Array) -> jax.Array:
        return model(pz.nx.wrap(x).tag("batch", "features")).unwrap("batch", "features")[:, 1]

    return Model(fun, jax.random.normal(KEY, (2, 6)))


ALL: dict[str, Callable[[], Model]] = {
    "transformers Bert": transformers_text("Bert", "**/word_embeddings", **TINY),
    "transformers Roberta": transformers_text("Roberta", "**/word_embeddings", **TINY),
    "transformers Electra": transformers_text(
        "Electra", "**/word_embeddings", **TINY, embedding_size=16
    ),
    "transformers Albert": transformers_text(
        "Albert", "**/word_embeddings", **TINY, embedding_size=16
    ),
    "transformers RoFormer": transformers_text("RoFormer", "**/word_embeddings", **TINY),
    "transformers DistilBert": transformers_text(
        "DistilBert", "**/word_embeddings",
        vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=32,
    ),
    "transformers GPT2": transformers_text(
        "GPT2", "**/wte", vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32
    ),
    "transformers GPTJ": transformers_text(
        "GPTJ", "**/wte", vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32,
        rotary_dim=4,
    ),
    "transformers GPTNeo": transformers_text(
        "GPTNeo", "**/wte", vocab_size=30, hidden_size=16, num_layers=2, num_heads=2,
        max_position_embeddings=32, attention_types=[[["global", "local"], 1]], window_size=4,
    ),
    "transformers Llama": transformers_text("Llama", "**/embed_tokens", **TINY),
    "transformers Mistral": transformers_text(
        "Mistral", "**/embed_tokens", **TINY, num_key_value_heads=1
    ),
    "transformers Gemma": transformers_text(
        "Gemma", "**/embed_tokens", **TINY, num_key_value_heads=1, head_dim=8
    ),
    "transformers OPT": transformers_text(
        "OPT", "**/embed_tokens", vocab_size=30, hidden_size=16, num_hidden_layers=2, ffn_dim=24,
        num_attention_heads=2, max_position_embeddings=32, word_embed_proj_dim=16,
    ),
    "transformers ViT": transformers_vision(
        "ViT", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=32, patch_size=8,
    ),
    "transformers Beit": transformers_vision(
        "Beit", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=32, patch_size=8,
    ),
    "transformers ResNet": transformers_vision(
        "ResNet", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    ),
    "transformers RegNet": transformers_vision(
        "RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4
    ),
    "keras MobileNetV2": keras_vision("MobileNetV2", alpha=0.35),
    "keras EfficientNetB0": keras_vision("EfficientNetB0"),
    "haiku ResNet18": haiku_vision("ResNet18"),
    "haiku MobileNetV1": haiku_vision("MobileNetV1", channels=(4, 8), strides=(1, 2)),
    "haiku LSTM": haiku_recurrent("LSTM"),
    "haiku GRU": haiku_recurrent("GRU"),
    "equinox MLP": equinox_mlp,
    "equinox MultiheadAttention": equinox_attention,
    "diffrax neural ODE": diffrax_ode,
    "jraph GraphConvolution": jraph_network("convolution"),
    "jraph GAT": jraph_network("attention"),
    "penzai MLP": penzai_mlp,
    "stax convolutions": stax_convolutions,
}  # fmt: skip
