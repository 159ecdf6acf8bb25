"""References of every shape, a few at a time; and the multipliers of R = (x - x0) m."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

from jaxrel import (
    RuleError,
    audit,
    expected,
    integrated,
    relevance,
    relevance_vjp,
    rulesets,
    smooth,
    value_and_relevance,
)
from tests import covering

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(12, 5)))
V = jnp.asarray(RNG.normal(size=5))
X = jnp.asarray(RNG.normal(size=(3, 2, 6)))  # a batch of three pictures, 2 x 6
RESCALE = "deeplift_rescale"


def network(x, w=W):
    """Pictures (B, 2, 6) -> (B,), with kinks."""
    return jax.nn.relu(x.reshape(len(x), -1) @ w + 0.1) @ V


def against(x0, x=X):
    """Relevance against one reference for each example."""
    return relevance(network, RESCALE, baseline=jnp.broadcast_to(x0, x.shape))(x)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("shape", [(), (6,), (2, 6), (2, 1), (1, 2, 6), (1, 1, 1), (3, 2, 6)])
def test_what_broadcasts_is_one_reference(shape):
    """As a batch of them along x's own axis it is paired with the examples."""
    x0 = jnp.asarray(RNG.normal(size=shape))
    found = relevance(network, RESCALE, baseline=x0)(X)
    full = jnp.broadcast_to(x0, X.shape)
    close(found, jnp.concatenate([against(full[k], X[k : k + 1]) for k in range(3)]))


@pytest.mark.parametrize(
    "shape", [(4, 2, 6), (4, 1, 6), (4, 6), (4, 1), (4, 1, 2, 6), (4, 3, 2, 6), (4, 1, 1, 1)]
)
@pytest.mark.parametrize("jit", [False, True])
def test_what_does_not_is_many(shape, jit):
    """Whether each is for one example or the batch, or of a lower rank; as ``expected`` has it."""
    many = jnp.asarray(RNG.normal(size=shape))
    explain = relevance(network, RESCALE, baseline=many)
    found = (jax.jit(explain) if jit else explain)(X)
    close(found, sum(against(x0) for x0 in many) / 4)
    one = lambda x0: relevance(network, RESCALE, baseline=x0)  # noqa: E731
    close(expected(one, many)(X), found)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_an_axis_says_which_is_meant(batch):
    """As many references as examples are one for each; [:, None] makes them many for any batch."""
    x = jnp.asarray(RNG.normal(size=(batch, 2, 6)))
    three = jnp.asarray(RNG.normal(size=(3, 2, 6)))
    many = relevance(network, RESCALE, baseline=three[:, None])(x)
    close(many, sum(against(x0, x) for x0 in three) / 3)
    found = relevance(network, RESCALE, baseline=three)(x)
    if batch == 3:
        close(found, jnp.concatenate([against(x0, x[k][None]) for k, x0 in enumerate(three)]))
        close(relevance(network, RESCALE, baseline=three[None])(x), found)
    else:
        close(found, many)


def test_an_unbatched_argument():
    x = X[0]
    fun = lambda x: network(x[None])[0]  # noqa: E731
    many = jnp.asarray(RNG.normal(size=(5, 2, 6)))
    found = relevance(fun, RESCALE, baseline=many)(x)
    close(found, sum(against(x0, x[None])[0] for x0 in many) / 5)
    scalars = relevance(jnp.tanh, baseline=jnp.arange(4.0))(jnp.asarray(0.5))
    close(scalars, np.tanh(0.5) - np.tanh(np.arange(4.0)).mean())


def of_tree(tree, scale):
    return network(tree["x"]) * tree["y"].sum(-1) * scale


TREE = {"x": X, "y": jnp.asarray(RNG.normal(size=(3, 4)))}


@pytest.mark.parametrize(
    "given", [0.25, (0.25, 0.25), [0.25, 0.25], ({"x": 0.25, "y": 0.25}, 0.25)]
)
def test_a_prefix_of_the_tree(given):
    scale = jnp.asarray(2.0)
    full = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.25), (TREE, scale))
    explain = lambda x0: relevance(of_tree, None, (0, 1), baseline=x0)(TREE, scale)  # noqa: E731
    jax.tree.map(close, explain(given), explain(full))


def test_leaves_that_are_one_for_all_and_leaves_that_are_many():
    many = jnp.asarray(RNG.normal(size=(4, 2, 6)))
    explain = lambda x0: relevance(of_tree, baseline=x0)(TREE, 2.0)  # noqa: E731
    found = explain({"x": many, "y": 0.5})
    each = [explain({"x": jnp.broadcast_to(x0, X.shape), "y": 0.5}) for x0 in many]
    jax.tree.map(lambda got, *rows: close(got, sum(rows) / 4), found, *each)


def test_as_many_as_examples_beside_as_many_references_is_refused():
    """With three references for y, three for x may be one for each example, or references."""
    y = jnp.ones((3, 1, 4))
    explain = lambda x: relevance(of_tree, baseline={"x": x, "y": y})(TREE, 2.0)  # noqa: E731
    with pytest.raises(
        ValueError, match=r"baseline\['x'\]: shape \(3, 2, 6\) is one reference for"
    ):
        explain(X / 2)
    paired, many = explain(X[None] / 2), explain(X[:, None] / 2)
    assert not np.allclose(paired["x"], many["x"])


@pytest.mark.parametrize(
    ("x0", "words"),
    [
        (jnp.ones(5), r"baseline: shape \(5,\) does not fit .*\(3, 2, 6\).* shape \(5, 1\)"),
        (jnp.ones((4, 3, 2, 5)), r"shape \(4, 3, 2, 5\) does not fit"),
        (jnp.ones((4, 2, 2, 6)), "does not fit"),
        (jnp.ones((2, 4, 3, 2, 6)), "does not fit"),
        (jnp.ones((0, 2, 6)), r"shape \(0, 2, 6\): 0 references"),
    ],
)
def test_shapes_that_fit_neither(x0, words):
    for transform in (relevance, value_and_relevance, audit):
        with pytest.raises(ValueError, match=words):
            transform(network, baseline=x0)(X)
    with pytest.raises(ValueError, match=r"baseline\[0\]: "):
        relevance_vjp(network, X, baseline=(jnp.ones(5),))


def test_integrated_takes_one():
    with pytest.raises(ValueError, match=r"4 baselines; jaxrel\.expected averages"):
        integrated(relevance(network, "gradient"), jnp.ones((4, 2, 6)))(X)


# ------------------------------------------------------------------------------------ some at once

MANY = jnp.asarray(RNG.normal(size=(7, 2, 6)))


def mean(x, many, chunk, rules=RESCALE, w=W):
    return relevance(functools.partial(network, w=w), rules, baseline=many, chunk=chunk)(x)


@pytest.mark.parametrize("rules", [RESCALE, "compare_to_baseline", "deeplift_reveal_cancel"])
@pytest.mark.parametrize("chunk", [2, 7, 100])
def test_chunks_change_nothing(rules, chunk):
    by_ones = jax.jit(functools.partial(mean, chunk=1, rules=rules))(X, MANY)
    at_once = jax.jit(functools.partial(mean, chunk=chunk, rules=rules))(X, MANY)
    close(at_once, by_ones)
    close(by_ones.sum((1, 2)), network(X) - network(MANY).mean())


def test_values_are_those_of_the_function():
    value, _ = jax.jit(value_and_relevance(network, baseline=MANY))(X)
    np.testing.assert_array_equal(value, jax.jit(network)(X))
    fun = lambda x: (network(x), {"aux": x + 1, "n": 3})  # noqa: E731
    (value, aux), _ = value_and_relevance(fun, baseline=MANY, has_aux=True)(X)
    np.testing.assert_array_equal(value, network(X))
    assert aux["n"] == 3


def test_audits_and_pullbacks_are_means_too():
    books = audit(network, RESCALE, baseline=MANY, chunk=3)(X).total()
    np.testing.assert_allclose(books.relevance_in, network(X).sum() - 3 * network(MANY).mean())
    np.testing.assert_allclose(books.relevance_out, books.relevance_in)
    value, pullback = relevance_vjp(network, X, rules=RESCALE, baseline=(MANY,), chunk=2)
    rows = jax.jit(jax.vmap(lambda m: pullback(m)[0]))(jnp.eye(3))
    close(rows.sum(0), mean(X, MANY, 1))
    assert value.shape == (3,)
    for k in range(3):
        assert not np.delete(rows[k], k, 0).any()


@pytest.mark.parametrize("chunk", [3, covering.case(1, full=True), covering.case(7, full=True)])
def test_they_are_transformed_as_any_function(chunk):
    explain = jax.jit(functools.partial(mean, chunk=chunk))
    each = jax.vmap(lambda x: explain(x[None], MANY)[0])(X)
    close(each, explain(X, MANY))
    over = jax.vmap(explain, (None, 0))(X, jnp.stack([MANY, -MANY]))
    close(over[1], explain(X, -MANY))
    total = lambda x, many, w: (mean(x, many, chunk, w=w) ** 2).sum()  # noqa: E731
    check_grads(jax.jit(total), (X, MANY, W), 1, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_within_shard_map():
    mesh = jax.make_mesh((3,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("d")
    for chunk, many in ((1, MANY), (2, MANY), (7, MANY), (1, 0.0), (1, W[0, 0])):
        explain = lambda x, many=many, chunk=chunk: mean(x, many, chunk)  # noqa: E731
        local = jax.jit(jax.shard_map(explain, mesh=mesh, in_specs=spec, out_specs=spec))(X)
        close(local, mean(X, many, 1))


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("many", [MANY, X / 2, MANY[:, None]], ids=["many", "paired", "axis"])
def test_on_a_mesh(kind, many):
    mesh = jax.make_mesh((3,), ("d",), axis_types=(jax.sharding.AxisType[kind],))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, jax.sharding.NamedSharding(mesh, PartitionSpec("d")))
        found = jax.jit(lambda x: mean(x, many, 2))(x)
    close(found, mean(X, many, 1))


@pytest.mark.parametrize(
    "transform",
    ["relevance", "derivative", *(covering.case(t, full=True) for t in ("multipliers", "audit"))],
)
def test_memory_is_that_of_a_chunk(transform):
    def deep(x):
        for _ in range(4):
            x = jnp.tanh(x @ jnp.ones((64, 64)) / 64)
        return x.sum(-1)

    def memory(references, chunk):
        def explain(x, many):
            if transform == "multipliers":
                return relevance(deep, baseline=many, chunk=chunk).multipliers(x)
            if transform == "audit":
                return audit(deep, baseline=many, chunk=chunk)(x).explained
            return relevance(deep, baseline=many, chunk=chunk)(x)

        fun = (
            jax.grad(lambda *a: (explain(*a) ** 2).sum()) if transform == "derivative" else explain
        )
        shapes = jax.ShapeDtypeStruct((500, 64), "f8"), jax.ShapeDtypeStruct((references, 64), "f8")
        return jax.jit(fun).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    small = memory(4, 1)
    assert memory(64, 1) < 1.1 * small
    assert memory(64, 64) > 4 * small


@pytest.mark.parametrize("transform", ["relevance", "expected", "audit", "multipliers"])
def test_fifty_references_take_the_memory_of_one(transform):
    """Nothing of the pictures alone is kept while the references are gone through."""
    kernels = [jnp.ones((3, 3, 3, 8), "f4"), jnp.ones((3, 3, 8, 16), "f4")]

    def pictures(x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = flax.linen.max_pool(jax.nn.relu(x), (2, 2), (2, 2))
        return jnp.tanh(x).sum((1, 2, 3))

    def explain(x, many):
        one = lambda x0: relevance(pictures, RESCALE, baseline=x0)  # noqa: E731
        if transform == "expected":
            return expected(one, many)(x)
        if transform == "audit":
            return audit(pictures, RESCALE, baseline=many)(x).explained
        return one(many).multipliers(x) if transform == "multipliers" else one(many)(x)

    def memory(references):
        shapes = [jax.ShapeDtypeStruct((n, 64, 64, 3), "f4") for n in (64, references)]
        return jax.jit(explain).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert memory(50) < 1.1 * memory(1)


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunks_of_nothing(chunk):
    calls = (
        lambda: relevance(network, chunk=chunk),
        lambda: value_and_relevance(network, chunk=chunk),
        lambda: relevance_vjp(network, X, chunk=chunk),
        lambda: audit(network, chunk=chunk),
    )
    for call in calls:
        with pytest.raises(ValueError, match=f"chunk must be at least 1, got {chunk}"):
            call()
    with pytest.raises(TypeError, match=r"chunk must be an int, got 2\.5"):
        relevance(network, chunk=2.5)  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------------------------- multipliers


def rescaled(x, x0):
    """DeepLIFT's multipliers of the network, by hand."""
    z, z0 = (v.reshape(len(v), -1) @ W + 0.1 for v in (x, x0))
    slopes = (jnp.maximum(z, 0) - jnp.maximum(z0, 0)) / (z - z0)
    return (slopes * V @ W.T).reshape(x.shape)


@pytest.mark.parametrize("jit", [False, True])
def test_multipliers_are_deeplifts(jit):
    """Also where x equals its reference, as bases of a one-hot sequence do."""
    x0 = jnp.asarray(RNG.normal(size=X.shape)).at[:, 1].set(X[:, 1])
    explain = relevance(network, RESCALE, baseline=x0)
    m = (jax.jit(explain) if jit else explain).multipliers(X)
    m = (jax.jit(explain.multipliers) if jit else explain.multipliers)(X)
    close(m, rescaled(X, x0))
    close((X - x0) * m, explain(X))
    assert abs(m[0, 1]).min() > 0
    # what another input would have got, base by base
    for other in (X + 1, 2 * x0):
        assert np.isfinite((other - x0) * m).all()


def test_multipliers_of_many_are_their_mean():
    for chunk in (1, 3):
        explain = relevance(network, RESCALE, baseline=MANY[:, None], chunk=chunk)
        close(explain.multipliers(X), sum(rescaled(X, x0 + 0 * X) for x0 in MANY) / 7)


def test_multipliers_of_every_kind_of_step():
    """Products, norms, softmax: R = (x - x0) m wherever relevance is such."""

    def fun(x, y):
        u = x * y - x.mean(-1, keepdims=True)
        u = u / jnp.sqrt((u * u).mean(-1, keepdims=True) + 1e-3)
        return (jax.nn.softmax(u) * jnp.tanh(x)).max(-1).sum(), "aux"

    x, y = X, X[::-1] + 0.5
    explain = relevance(fun, argnums=(0, 1), baseline=(0.1, 0.2), has_aux=True)
    (m, n), aux = explain.multipliers(x, y)
    (r, s), _ = explain(x, y)
    assert aux == "aux"
    close((x - 0.1) * m, r)
    close((y - 0.2) * n, s)


@pytest.mark.parametrize(
    ("explain", "words"),
    [
        (
            relevance(network, rulesets.epsilon_plus_flat(), baseline=0.0),
            r"\(eps=1e-06\) on .* at .*as Flat, WSquare or ZBox do",
        ),
        (
            relevance(network, rulesets.deep_taylor(), baseline=MANY),
            r"\(eps=1e-06\) on .* at .*as Flat, WSquare or ZBox do",
        ),
        (
            relevance(network, "deeplift_reveal_cancel", baseline=0.0),
            r"RevealCancel\(\) on .* at .*test_ref.* has two",
        ),
        (
            relevance(network, "deeplift_reveal_cancel", baseline=MANY),
            r"RevealCancel\(\) on .* at .*test_ref.* has two",
        ),
    ],
)
def test_relevance_that_is_no_multiple_of_the_difference(explain, words):
    with pytest.raises(RuleError, match=words):
        explain.multipliers(X)


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit])
def test_averages_refuse_what_compares_already(wrap):
    explain = wrap(relevance(network, RESCALE, baseline=0.0))
    words = r"network compares to a baseline of its own.* lambda x0: jaxrel\.relevance"
    with pytest.raises(TypeError, match=f"integrated: {words}"):
        integrated(explain, 0.0)
    with pytest.raises(TypeError, match=f"expected: {words}"):
        expected(explain, MANY)


def test_noise_around_multipliers():
    explain = relevance(network, RESCALE, baseline=0.0)
    found = smooth(explain.multipliers, jax.random.key(0), 0.0, 2)(X)
    close(found, rescaled(X, 0 * X))
