"""`at=`: inner values explained as if the function were split there."""

import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxrel
from experiments.networks import ViT
from jaxrel import relevance
from tests import covering
from tests.models import NAMES, build

RULES = ("slope", "epsilon", "epsilon_plus", "epsilon_alpha2_beta1_flat", "attn_lrp", "lrp")


def _calls(model):
    """The outputs of a linen model's modules, as they are called: (path, value), in order."""
    calls = []

    def note(method, args, kwargs, context):
        out = method(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            calls.append((context.module.path, out))
        return out

    with nn.intercept_methods(note):
        model.fun(model.params, model.x)
    return calls


def _split(model, wanted):
    """The function of the output of one call, the `wanted`-th."""

    def rest(h):
        count = iter(range(10**6))

        def replace(method, args, kwargs, context):
            out = method(*args, **kwargs)
            if context.method_name == "__call__" and context.module.path:
                return h if next(count) == wanted else out
            return out

        with nn.intercept_methods(replace):
            return model.fun(model.params, model.x)

    return rest


def _is_traced(value):
    return isinstance(value, jax.core.Tracer)


def _name(calls, k):
    """The place of the k-th call; None: it gives more than an array, or is of a loop."""
    path, out = calls[k]
    is_array = hasattr(out, "dtype") and jnp.issubdtype(out.dtype, jnp.floating)
    if not is_array or _is_traced(out):
        return None
    paths = [p for p, _ in calls]
    which = f"#{paths[:k].count(path)}" if paths.count(path) > 1 else ""
    return "/".join(path) + which


LINEN = [
    name
    for name in NAMES
    if "nnx" not in name and build(name, dtype=jnp.float32).fun.__qualname__.startswith("linen")
]


SOME = ("cnn", "mlp_mixed", "siamese", "shared_weights")


@pytest.mark.parametrize("name", [covering.case(name, full=name not in SOME) for name in LINEN])
def test_every_layer_of_the_zoo_is_as_if_split_there(name):
    model = build(name, dtype=jnp.float64)
    calls, compared = _calls(model), 0
    for k, (_, h) in enumerate(calls):
        place = _name(calls, k)
        if place is None:
            continue
        rules = RULES[k % len(RULES)]
        fun = functools.partial(model.fun, model.params)
        got = relevance(fun, rules, at=place, argnums=())(model.x)
        want = relevance(_split(model, k), rules)(h)
        if isinstance(got, dict):  # what it gives is read as several values
            assert len(got) > 1
            continue
        assert got.shape == h.shape and got.dtype == h.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())
        compared += 1
    assert compared or not calls


def _dense(key, n, m):
    return jax.random.normal(jax.random.key(key), (n, m))


W, V, U, B = _dense(0, 6, 5), _dense(1, 5, 5), _dense(2, 5, 3), _dense(3, 1, 5)[0]
X = _dense(4, 4, 6)


def _net(x):
    with jax.named_scope("embed"):
        h = jnp.tanh(x @ W + B)
    with jax.named_scope("block"):
        g = jax.nn.silu(checkpoint_name(h, "hidden") @ V + B) + h
    return g @ U


def test_a_result_beside_arguments_and_alone():
    h = jnp.tanh(X @ W + B)
    beside = relevance(_net, "epsilon", at="embed")(X)
    np.testing.assert_allclose(beside[0], relevance(_net, "epsilon")(X), rtol=1e-12)
    alone = relevance(_net, "epsilon", at="embed", argnums=())(X)
    want = relevance(lambda h: (jax.nn.silu(h @ V + B) + h) @ U, "epsilon")(h)
    np.testing.assert_allclose(alone, want, rtol=1e-12)
    np.testing.assert_allclose(beside[1], want, rtol=1e-12)
    assert set(relevance(_net, at="*", argnums=())(X)) == {"embed", "block", "hidden"}
    assert set(relevance(_net, at=["embed"], argnums=())(X)) == {"embed"}


def test_what_a_layer_reads_is_only_what_passes_the_layer():
    h = jnp.tanh(X @ W + B)
    got = relevance(_net, "slope", at="block:in", argnums=())(X)
    np.testing.assert_allclose(got, relevance(_net, "slope", at="embed", argnums=())(X))
    named = relevance(_net, "slope", at="hidden", argnums=())(X)
    np.testing.assert_allclose(named, got)
    net = lambda h: (h @ V) @ U + h @ _dense(5, 5, 3)  # noqa: E731

    def scoped(h):
        with jax.named_scope("first"):
            g = h @ V
        return g @ U + h @ _dense(5, 5, 3)

    through = relevance(scoped, "slope", at="first:in", argnums=())(h)
    np.testing.assert_allclose(through, relevance(lambda h: (h @ V) @ U, "slope")(h), rtol=1e-12)
    assert not np.allclose(through, relevance(net, "slope")(h))


def test_a_reference_may_be_of_integers():
    table, tokens, other = _dense(6, 10, 5), jnp.array([[1, 2, 3]]), jnp.array([[1, 7, 3]])

    def net(tokens):
        with jax.named_scope("embed"):
            h = table[tokens]
        with jax.named_scope("act"):
            g = jnp.tanh(h @ V + B)
        return (g * h).sum(-1)

    got = relevance(net, at="*", argnums=(), baseline=other)(tokens)
    difference = net(tokens).sum() - net(other).sum()
    np.testing.assert_allclose(got["embed"].sum(), difference, rtol=1e-10)
    assert (np.abs(got["embed"][0, [0, 2]]) == 0).all()
    alone = relevance(net, at="act", argnums=(), baseline=other)(tokens)
    np.testing.assert_allclose(alone, got["act"], rtol=1e-12)
    want = relevance(lambda h: (jnp.tanh(h @ V + B) * h).sum(-1), baseline=table[other])
    np.testing.assert_allclose(got["embed"], want(table[tokens]), rtol=1e-10)
    with pytest.raises(TypeError, match="argnums="):
        relevance(net)(tokens)


def test_inside_loops_with_a_row_for_each_iteration():
    weights = jnp.stack([_dense(k, 5, 5) for k in (7, 8, 9)])

    def looped(x):
        def body(h, w):
            with jax.named_scope("layer"):
                return jnp.tanh(h @ w + B), None

        return jax.lax.scan(body, x @ W, weights)[0] @ U

    def unrolled(x):
        h = x @ W
        for k in range(3):
            with jax.named_scope(f"layer_{k}"):
                h = jnp.tanh(h @ weights[k] + B)
        return h @ U

    for rules in ("slope", "epsilon_plus_flat"):
        got = relevance(looped, rules, at="layer")(X)
        want = relevance(unrolled, rules, at="layer_*")(X)
        assert got[1].shape == (3, 4, 5)
        np.testing.assert_allclose(got[1], jnp.stack(list(want[1].values())), rtol=1e-10)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-10)
    compared = relevance(looped, "deeplift_reveal_cancel", at="layer", baseline=0.5)(X)
    want = relevance(unrolled, "deeplift_reveal_cancel", at="layer_*", baseline=0.5)(X)
    np.testing.assert_allclose(compared[1], jnp.stack(list(want[1].values())), rtol=1e-9)
    remat = relevance(jax.checkpoint(_net), at="embed", argnums=())(X)
    np.testing.assert_allclose(remat, relevance(_net, at="embed", argnums=())(X), rtol=1e-12)


def test_in_shard_map_with_a_row_for_each_device():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    sharded = jax.shard_map(_net, mesh=mesh, in_specs=spec, out_specs=spec)
    got = relevance(sharded, "epsilon", at="embed", argnums=())(X)
    want = relevance(_net, "epsilon", at="embed", argnums=())(X)
    assert got.shape == (4, 1, 5)
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-12)


def test_under_jit_vmap_and_grad():
    explain = relevance(_net, "epsilon", at="embed", argnums=())
    want = explain(X)
    np.testing.assert_allclose(jax.jit(explain)(X), want, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(explain)(X), want, rtol=1e-12)
    loss = lambda x: jnp.square(explain(x)).sum()  # noqa: E731
    direction = _dense(11, 4, 6)
    step = 1e-6
    slope = (loss(X + step * direction) - loss(X - step * direction)) / (2 * step)
    np.testing.assert_allclose((jax.grad(loss)(X) * direction).sum(), slope, rtol=1e-6)


def test_multipliers_and_biases_at_places():
    h = jnp.tanh(X @ W + B)
    explain = relevance(_net, "slope", at="embed", argnums=())
    np.testing.assert_allclose(explain.multipliers(X) * h, explain(X), rtol=1e-12)
    found, biases = relevance(_net, "epsilon", at="embed", argnums=(), biases=True)(X)
    total = found.sum() + sum(b.sum() for b in biases.values())
    np.testing.assert_allclose(total, _net(X).sum(), rtol=1e-5)
    _, pullback = jaxrel.relevance_vjp(_net, X, rules="slope", at="embed", argnums=())
    one_hot = jnp.zeros((3, 4, 3)).at[jnp.arange(3), :, jnp.arange(3)].set(1.0)
    every = jax.vmap(pullback)(one_hot)
    np.testing.assert_allclose(every.sum(0), explain(X), rtol=1e-10)


def test_direct_is_what_passes_no_other_place():
    found = relevance(_net, "slope", at=["embed", "block"], argnums=(), direct=True)(X)
    assert not found["embed"].any()
    np.testing.assert_allclose(found["block"].sum(), _net(X).sum(), rtol=1e-12)


def test_through_a_mask_is_the_multiplier_at_zero_elsewhere():
    h = jnp.tanh(X @ W + B)
    mask = jnp.array([1.0, 0, 1, 0, 0])
    rest = lambda h: (jax.nn.silu(h @ V + B) + h) @ U  # noqa: E731
    m = relevance(rest, "epsilon").multipliers(h) * mask
    front, pullback = jax.vjp(jaxrel.rewrite(lambda x: jnp.tanh(x @ W + B), "epsilon"), X)
    want = X * pullback(m.astype(front.dtype))[0]
    got = relevance(_net, "epsilon", through={"embed": mask})(X)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    both = relevance(_net, "epsilon", at="embed", through={"embed": mask})(X)
    np.testing.assert_allclose(both[1], h * m, rtol=1e-12)
    each = jax.vmap(lambda mask: relevance(_net, "epsilon", through={"embed": mask})(X))(jnp.eye(5))
    np.testing.assert_allclose(each.sum(0), relevance(_net, "epsilon")(X), rtol=1e-12)


def test_what_passes_beside_a_mask_can_be_cut():
    mask = jnp.array([1.0, 0, 1, 0, 0])

    def net(x):
        h = jnp.tanh(x @ W + B)
        with jax.named_scope("branch"):
            g = jax.nn.silu(h @ V + B)
        return (g + h) @ U + x[:, :3]

    for rules in ("slope", "epsilon_plus"):
        explain = lambda mask, r=rules, **how: relevance(net, r, through={"branch": mask}, **how)(X)  # noqa: E731
        want = explain(mask) - explain(0.0 * mask)
        np.testing.assert_allclose(explain(mask, parallel=False), want, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="through= has none"):
        relevance(net, parallel=False)


class Sowing(nn.Module):
    """Sows what is inside, and perturbs it."""

    @nn.compact
    def __call__(self, x):
        """Maps rows to rows."""
        h = nn.relu(nn.Dense(5)(x))
        self.sow("intermediates", "hidden", h)
        return nn.Dense(3)(self.perturb("shaken", h))


class NNXSowing(nnx.Module):
    """The same in nnx."""

    def __init__(self):
        self.first, self.last = (
            nnx.Linear(6, 5, rngs=nnx.Rngs(0)),
            nnx.Linear(5, 3, rngs=nnx.Rngs(1)),
        )

    def __call__(self, x):
        """Maps rows to rows."""
        h = nnx.relu(self.first(x))
        self.sow(nnx.Intermediate, "hidden", h)
        return self.last(h)


def test_names_that_flax_gives():
    model = Sowing()
    variables = model.init(jax.random.key(0), X)
    got = relevance(functools.partial(model.apply, variables), at="*", argnums=())(X)
    assert {"hidden", "shaken", "Dense_0", "Dense_1"} <= set(got)
    np.testing.assert_allclose(got["hidden"].sum(), got["shaken"].sum(), rtol=1e-12)
    graph, state = nnx.split(NNXSowing())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flax asks for nnx.capture
        found = relevance(lambda x: nnx.merge(graph, state)(x), at="*", argnums=())(X)
    assert {"hidden", "first", "last"} <= set(found)


def test_a_table_that_is_also_the_head_is_not_halved():
    table = _dense(12, 7, 5)

    def net(tokens):
        with jax.named_scope("embed"):
            h = table[tokens]
        return jnp.tanh(h) @ table.T

    tokens = jnp.array([1, 4, 4])
    got = relevance(net, at="embed", argnums=())(tokens)
    want = relevance(lambda h: jnp.tanh(h) @ table.T)(table[tokens])
    assert got.shape == (3, 5)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_layers_called_again_have_a_place_for_each_call():
    def layer(h):
        with jax.named_scope("layer"):
            return jnp.tanh(h @ V)

    net = lambda x: layer(layer(x @ W) * 2.0) @ U  # noqa: E731
    found = relevance(net, at="layer", argnums=())(X)
    assert set(found) == {"layer#0", "layer#1"}
    np.testing.assert_allclose(relevance(net, at="layer#1", argnums=())(X), found["layer#1"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"at": "embd"}, ValueError, "did you mean 'embed'"),
        ({"at": 3}, TypeError, "expected a place"),
        ({"at": "embed", "through": {"embed": jnp.ones(4)}}, ValueError, "does not broadcast"),
        ({"through": jnp.ones(4)}, TypeError, "expected a mapping"),
        ({"direct": True}, ValueError, "at= names none"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        relevance(_net, **arguments)(X)


FUSED = ("compare_to_baseline",) if jax.__version_info__ >= (0, 11) else ()
"""Rules whose elementwise work an older XLA does twice: it drops barriers before it fuses."""


@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("rules", ["epsilon", covering.case("slope", full=True), *FUSED])
def test_ten_places_cost_little(rules):
    """A multiplier is computed once, whether it is read off or not, and R = (a - a0) m is cheap."""
    net = ViT(depth=1, width=192, heads=2, classes=10)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    baseline = 0.0 if rules == "compare_to_baseline" else None
    layers = "up down mlp_norm attention_norm attention/query attention/key attention/value"
    places = ["embedding", "layer0", "head", *(f"layer0/{layer}" for layer in layers.split())]

    def flops(at):
        def explain(variables, x):
            fun = lambda x: net.apply(variables, x)[:, 3]  # noqa: E731
            return relevance(fun, rules, at=at, baseline=baseline)(x)

        return jax.jit(explain).lower(variables, x).compile().cost_analysis()["flops"]

    assert flops(places) < 1.02 * flops(None)
