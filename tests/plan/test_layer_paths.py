"""Softmax, norms, activations and gates go by the layer they stand in, in every framework."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax
from jax.example_libraries import stax

from jaxrel import relevance, rulesets, summary
from jaxrel.rules import Detach

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (5, 8))


def paths(fun, *args):
    """The layer path of every step that computes something, the explained value given last."""
    rows = summary(fun, "gradient", argnums=len(args) - 1)(*args)
    kept = [row for row in rows if row.kind.split(":")[0] not in ("linear", "control")]
    return [(row.path, row.operation) for row in kept]


def of(found, *operations):
    """The paths of certain operations."""
    return [path for path, name in found if name.split("+")[0] in operations]


# ----------------------------------------------------------------------------------- equinox


class Block(eqx.Module):
    """A transformer block: norms with and without parameters, attention, an MLP, an activation."""

    norm: eqx.nn.LayerNorm
    attn: eqx.nn.MultiheadAttention
    rms: eqx.nn.RMSNorm
    mlp: eqx.nn.MLP
    act: eqx.nn.Lambda

    def __init__(self, key):
        self.norm = eqx.nn.LayerNorm(8, use_weight=False, use_bias=False)
        self.attn = eqx.nn.MultiheadAttention(2, 8, key=key)
        self.rms = eqx.nn.RMSNorm(8, use_weight=False, use_bias=False)
        self.mlp = eqx.nn.MLP(8, 8, 8, 1, activation=jax.nn.gelu, key=key)
        self.act = eqx.nn.Lambda(jnp.tanh)

    def __call__(self, x):
        """Maps (tokens, width) to the same."""
        h = jax.vmap(self.norm)(x)
        x = x + self.attn(h, h, h)
        return jax.nn.relu(self.act(x + jax.vmap(self.mlp)(jax.vmap(self.rms)(x))))


class Net(eqx.Module):
    """Two blocks and a head."""

    layers: list
    head: eqx.nn.Linear

    def __init__(self):
        self.layers = [Block(key) for key in jax.random.split(KEY, 2)]
        self.head = eqx.nn.Linear(8, 3, key=KEY)

    def blocks(self, x):
        """All but the head."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __call__(self, x):
        """Maps (tokens, width) to probabilities."""
        return jax.nn.softmax(self.head(self.blocks(x).mean(0)))


class JittedBlocks(Net):
    """Each block in a jit of its own, which are one to jit."""

    def blocks(self, x):
        """All but the head."""
        run = eqx.filter_jit(lambda layer, x: layer(x))
        for layer in self.layers:
            x = run(layer, x)
        return x


class JittedMethod(Net):
    """The method is jitted: its module is made anew within."""

    @eqx.filter_jit
    def __call__(self, x):
        """Maps (tokens, width) to probabilities."""
        return super().__call__(x)


NET = Net()
IN_BLOCK = [
    ("norm", "sub"), ("norm", "square"), ("norm", "max"), ("norm", "rsqrt+mul"),
    ("attn/query_proj", "dot_general"), ("attn/key_proj", "dot_general"),
    ("attn/value_proj", "dot_general"), ("attn", "dot_general"),
    ("attn", "exp+reduce_sum+div"), ("attn", "dot_general"), ("attn/output_proj", "dot_general"),
    ("", "add"), ("rms", "integer_pow"), ("rms", "rsqrt+mul"),
    ("mlp/layers/0", "dot_general+add"), ("mlp", "gelu"), ("mlp/layers/1", "dot_general+add"),
    ("", "add"), ("act", "tanh"), ("", "relu"),
]  # fmt: skip


def at(path, found):
    """Paths below a layer."""
    return [("/".join(filter(None, (path, below))), operation) for below, operation in found]


BLOCKS = [step for k in (0, 1) for step in at(f"layers/{k}", IN_BLOCK)]
EXPECTED = [*BLOCKS, ("head", "dot_general+add"), ("", "exp+reduce_sum+div")]


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (NET, ()),
        (lambda x: NET(x), ()),
        (jax.jit(lambda x: NET(x)), ()),
        (eqx.filter_jit(NET), ()),
        (lambda model, x: model(x), (NET,)),
        (eqx.filter_jit(lambda model, x: model(x)), (NET,)),
        (functools.partial(lambda model, x: model(x), NET), ()),
        (eqx.filter_checkpoint(NET), ()),
        (lambda x: jax.vmap(NET)(x[None]), ()),
        (lambda x: eqx.filter_vmap(NET)(x[None]), ()),
        (lambda x: eqx.nn.inference_mode(NET)(x), ()),
        (lambda x: eqx.combine(*eqx.partition(NET, eqx.is_array))(x), ()),
        (JittedBlocks(), ()),
        (eqx.filter_jit(JittedBlocks()), ()),
        (JittedMethod(), ()),
    ],
    ids=["itself", "closure", "jit", "filter_jit", "argument", "filter_jit argument", "partial",
         "checkpoint", "vmap", "filter_vmap", "inference", "combine", "jitted blocks",
         "jitted twice", "jitted method"],
)  # fmt: skip
def test_equinox(fun, args):
    assert paths(fun, *args, X) == EXPECTED


def test_equinox_within_containers():
    models = {"encoder": NET, "decoders": [NET.head]}

    def fun(models, x):
        return models["decoders"][0](models["encoder"].blocks(x).mean(0))

    expected = [*at("encoder", BLOCKS), ("decoders/0", "dot_general+add")]
    models["decoders"][0] = eqx.nn.Linear(8, 3, key=KEY)
    assert paths(fun, models, X) == paths(eqx.filter_jit(fun), models, X) == expected


def test_equinox_methods():
    assert paths(NET.blocks, X) == paths(eqx.filter_jit(NET.blocks), X) == BLOCKS
    assert paths(lambda x: NET.layers[1](x), X) == at("layers/1", IN_BLOCK)


def test_equinox_layers_in_a_scan():
    stack = eqx.filter_vmap(Block)(jax.random.split(KEY, 3))

    def fun(model, x):
        arrays, rest = eqx.partition(model["stack"], eqx.is_array)
        x, _ = lax.scan(lambda x, layer: (eqx.combine(layer, rest)(x), None), x, arrays)
        return model["head"](x.mean(0))

    model = {"stack": stack, "head": NET.head}
    expected = [*at("stack", IN_BLOCK), ("head", "dot_general+add")]
    assert paths(fun, model, X) == paths(eqx.filter_jit(fun), model, X) == expected
    assert paths(functools.partial(fun, model), X) == expected


def test_equinox_cells_and_group_norm():
    class Recurrent(eqx.Module):
        gru: eqx.nn.GRUCell
        lstm: eqx.nn.LSTMCell
        norm: eqx.nn.GroupNorm

        def __call__(self, x):
            h, ys = lax.scan(lambda h, x: (self.gru(x, h),) * 2, jnp.zeros(4), x)
            (h, _), _ = lax.scan(lambda h, y: (self.lstm(y, h), None), (h, h), ys)
            return self.norm(h[:, None])

    model = Recurrent(
        eqx.nn.GRUCell(8, 4, key=KEY), eqx.nn.LSTMCell(4, 4, key=KEY), eqx.nn.GroupNorm(2, 4)
    )
    for fun in (model, eqx.filter_jit(model)):
        found = [path for path, _ in paths(fun, X)]
        assert found == sorted(found, key=["gru", "lstm", "norm"].index)
        assert set(found) == {"gru", "lstm", "norm"}


def test_an_override_by_path_finds_the_softmax():
    rules = rulesets.slope()
    by_path = relevance(NET.blocks, rules | {"**/attn": Detach()})(X)
    by_kind = relevance(NET.blocks, dataclasses.replace(rules, softmax=Detach()))(X)
    assert (by_path == by_kind).all()
    assert (by_path != relevance(NET.blocks, rules)(X)).any()


def test_methods_are_left_as_they_were():
    before = Net.__call__, JittedMethod.__dict__["__call__"], eqx.nn.Linear.__call__
    paths(NET, X)
    assert before == (Net.__call__, JittedMethod.__dict__["__call__"], eqx.nn.Linear.__call__)


@pytest.mark.usefixtures("little_garbage")
def test_nothing_traced_is_kept():
    with jax.checking_leaks():
        assert paths(eqx.filter_jit(lambda model, x: model(x)), NET, X) == EXPECTED


# --------------------------------------------------------------------------------------- nnx


class Pair(nnx.Module):
    """A layer and an activation."""

    def __init__(self, rngs):
        self.fc = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        """One after the other."""
        return jnp.tanh(self.fc(x))


class Pairs(nnx.Module):
    """Two pairs."""

    def __init__(self, rngs):
        self.a, self.b = Pair(rngs), Pair(rngs)

    def __call__(self, x):
        """One after the other, and an activation."""
        return nnx.relu(self.b(self.a(x)))


def test_nnx_traced_before_or_made_anew():
    model = Pairs(nnx.Rngs(0))
    graph, state = nnx.split(model)
    expected = [
        ("a/fc", "dot_general+add"), ("a", "tanh"), ("b/fc", "dot_general+add"), ("b", "tanh"),
        ("", "relu"),
    ]  # fmt: skip
    jitted = jax.jit(lambda x: model(x))
    jitted(X)  # jit keeps what it has traced
    assert paths(jitted, X) == expected
    merged = jax.jit(lambda states, x: nnx.merge(graph, states["net"])(x))
    assert paths(merged, {"net": state}, X) == at("net", expected[:-1]) + [("net", "relu")]


# -------------------------------------------------------------------------------------- stax

INNER = stax.serial(stax.Dense(6), stax.Tanh, stax.Dense(8))
STAX = stax.serial(
    stax.Dense(8), stax.Relu, stax.FanOut(2), stax.parallel(INNER, stax.Identity), stax.FanInSum,
    stax.Relu, stax.BatchNorm(axis=(0,)), stax.Gelu, stax.Dense(3), stax.Softmax,
)  # fmt: skip
APPLY = STAX[1]
PARAMS = STAX[0](KEY, (-1, 8))[1]
STAX_PATHS = [
    ("0", "dot_general+add"), ("1", "relu"), ("3/0/0", "dot_general+add"), ("3/0/1", "tanh"),
    ("3/0/2", "dot_general+add"), ("4", "add"), ("5", "relu"), ("6", "square"), ("6", "square"),
    ("6", "sub"), ("6", "max"), ("6", "sub"), ("6", "rsqrt+mul"), ("7", "gelu"),
    ("8", "dot_general+add"), ("9", "exp+reduce_sum+div"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (APPLY, (PARAMS,)),
        (jax.jit(APPLY), (PARAMS,)),
        (lambda x: APPLY(PARAMS, x), ()),
        (lambda x: jax.jit(STAX[1])(PARAMS, x), ()),
        (functools.partial(APPLY, PARAMS), ()),
        (lambda x: jax.vmap(lambda x: APPLY(PARAMS, x))(x[None]), ()),
    ],
    ids=["argument", "jit", "global", "of a pair", "partial", "vmap"],
)
def test_stax(fun, args):
    assert paths(fun, *args, X) == STAX_PATHS


def test_stax_within_containers():
    _, other = STAX[0](jax.random.key(1), (-1, 8))

    def fun(params, x):
        return APPLY(params["b"], APPLY(params["a"], x) @ jnp.ones((3, 8)))

    found = paths(jax.jit(fun), {"a": PARAMS, "b": other}, X)
    assert found == [*at("a", STAX_PATHS), *at("b", STAX_PATHS)]


def test_stax_is_left_as_it_was():
    before = [cell.cell_contents for cell in APPLY.__closure__]
    paths(APPLY, PARAMS, X)
    assert before == [cell.cell_contents for cell in APPLY.__closure__]


# ------------------------------------------------------------------------ functions, as in jraph

SENDERS, RECEIVERS = (v.ravel() for v in jnp.meshgrid(jnp.arange(5), jnp.arange(5)))
GRAPH_PARAMS = {
    "query": {"w": jnp.ones((8, 4))}, "logit": {"w": jnp.ones((8, 1))},
    "out": {"w": jnp.ones((4, 2))},
}  # fmt: skip


def attend(query, logit, update):
    """A graph attention layer made of functions of the user."""

    def apply(nodes):
        nodes = query(nodes)
        logits = logit(nodes[SENDERS], nodes[RECEIVERS])
        logits = jnp.exp(logits - jax.ops.segment_max(logits, RECEIVERS, 5)[RECEIVERS])
        weights = logits / jax.ops.segment_sum(logits, RECEIVERS, 5)[RECEIVERS]
        messages = nodes[SENDERS] * weights
        return update(jax.ops.segment_sum(messages, RECEIVERS, 5))

    return apply


def graph_attention(params, nodes):
    """The layer on plain parameters."""
    return attend(
        lambda n: n @ params["query"]["w"],
        lambda a, b: jax.nn.leaky_relu(jnp.concatenate([a, b], -1) @ params["logit"]["w"]),
        lambda n: jax.nn.elu(n @ params["out"]["w"]),
    )(nodes)


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.checkpoint])
def test_functions_go_by_the_layer_that_feeds_them(around):
    found = paths(around(graph_attention), GRAPH_PARAMS, X)
    assert of(found, "leaky_relu", "exp", "elu") == ["logit", "logit", "out"]
    assert of(found, "mul") == [""]  # of two layers that have nothing in common


def test_what_two_layers_feed_goes_by_what_they_have_in_common():
    params = {"attn": {"q": {"w": jnp.ones((8, 4))}, "k": {"w": jnp.ones((8, 4))}}}

    def fun(params, x):
        scores = (x @ params["attn"]["q"]["w"]) @ (x @ params["attn"]["k"]["w"]).T
        return jax.nn.softmax(scores) @ x

    assert of(paths(fun, params, X), "exp") == ["attn"]


def test_what_follows_a_layer_inside_a_loop():
    stack = {"stack": {"w": jnp.ones((3, 8, 8))}}

    def fun(params, x):
        x, _ = lax.scan(lambda x, p: (jnp.tanh(x @ p["w"]), None), x, params["stack"])
        return jnp.exp(x)

    assert of(paths(fun, stack, X), "tanh", "exp") == ["stack", "stack"]


def test_inputs_unnamed_layers_and_sums_name_nothing():
    found = paths(lambda p, x: jnp.exp(jnp.tanh(x) @ jnp.ones((8, 8))), GRAPH_PARAMS, X)
    assert of(found, "tanh", "exp") == ["", ""]
    found = paths(lambda p, x: x @ p["query"]["w"] + x[:, :4], GRAPH_PARAMS, X)
    assert of(found, "add") == [""]


def test_what_a_function_holds_need_not_be_a_tree():
    """Names are looked for in it, and that is all."""

    @jax.tree_util.register_pytree_node_class
    class Broken:
        def tree_flatten(self):
            raise RuntimeError("not now")

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls()

    words, broken, scale = {"a": 1, 2: jnp.ones(2)}, Broken(), {"layer": jnp.full(2, 3.0)}

    class Holder:
        def __init__(self):
            self.words, self.broken = words, broken

        def __call__(self, x):
            return x * scale["layer"] * words[2]

    for fun in (lambda x: x * scale["layer"] * words[2] + 0 * (broken is None), Holder()):
        assert relevance(fun)(jnp.ones(2)).tolist() == [3, 3]
