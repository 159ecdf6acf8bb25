"""Every audit balances, and what it gives to constants is what ``biases=`` tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxrel import audit, relevance, value_and_relevance
from tests import covering

X = jnp.array([[1.0, -2.0, 0.5], [0.75, 3.0, -1.25]])
C = jnp.array([[2.5, -1.0, 0.3], [-0.5, 1.5, 2.0]])
B = C[0]
W = jnp.array([[1.0, 2.0, -1.0], [0.5, -1.5, 1.0], [2.0, 1.0, 1.25]])
KERNEL = jnp.array([[0.5, -1.0], [2.0, 0.25]])[..., None, None]


@jax.custom_jvp
def layer(x, w, b):
    return x @ w + b


layer.defjvp(lambda p, t: jax.jvp(lambda *a: a[0] @ a[1] + a[2], p, t))


@jax.custom_vjp
def shifted_tanh(x, b):
    return jnp.tanh(x + b) + 1


shifted_tanh.defvjp(
    lambda x, b: jax.vjp(lambda x, b: jnp.tanh(x + b) + 1, x, b), lambda pullback, m: pullback(m)
)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x) + 0.25


straight_through.defvjp(lambda x: (jnp.round(x) + 0.25, None), lambda _, m: (m,))


def picture(x):
    return x.reshape(1, 2, 3, 1)


def carried(x):
    return lax.scan(lambda h, t: (jnp.tanh(h + t), h + 1), B, x)


def overwritten(x):
    """A carry that is live and then a constant, in each iteration anew."""
    return lax.scan(lambda h, t: ((2 * B, h[0]), h[1] * t), (x[0], B), x)[1]


def nested(x):
    def outer(h, row):
        return lax.scan(lambda c, t: (c + t * h.sum(), None), 0.5 * h, jnp.stack([row, B]))[0], h

    return lax.scan(outer, B, x)


def branched(x):
    small, large = (lambda x: B), (lambda x: x[0] @ W + B)
    return lax.cond(x.sum() > 9, large, small, x) + lax.switch(1, [small, large], x)


def attention(x):
    scores = jnp.where(jnp.tri(2, dtype=bool), (x + C) @ x.T, -jnp.inf)
    return jax.nn.softmax(scores) @ (x @ W + B)


def normed(x):
    x = x @ W + B
    x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 0.1)
    return x * B + C


CONSERVED = {
    "a bias": lambda x: x @ W + B,
    "from a constant": lambda x: B - x @ W,
    "a folded norm": lambda x: ((x @ W + B) - C[1]) * 2.0 * W[0] + W[1],
    "a convolution": lambda x: (
        lax.conv_general_dilated(
            picture(x), KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        + 0.5
    ),
    "two constants that cancel": lambda x: (x @ W + B) - B,
    "a scale and a shift": lambda x: 3 - x * C / 2,
    "an integer": lambda x: x.at[0].set(7) + 3,
    "stack": lambda x: jnp.stack([x, C]) @ W,
    "concatenate": lambda x: jnp.concatenate([C, x, 2 * C]).cumsum(0),
    "pad": lambda x: lax.pad(x, 7.0, [(1, 0, 1), (0, 0, 0)]),
    "pad by infinity": lambda x: jnp.exp(-lax.pad(x, jnp.inf, [(1, 1, 0), (0, 0, 0)])),
    "pad by nan": lambda x: lax.pad(x, jnp.nan, [(1, 1, 0), (0, 0, 0)])[1:3] + C,
    "where": lambda x: jnp.where(x > 0, x, C) + jnp.where(jnp.tri(2, 3) > 0, x, 4),
    "a gather's fill": lambda x: jnp.take(x, jnp.array([1, 9]), 0, mode="fill", fill_value=-2.5),
    "a filled get": lambda x: x.at[:, jnp.array([0, 5])].get(mode="fill", fill_value=1.5) * 2,
    "scatter": lambda x: x.at[0].set(B).at[:, 1].add(C[:, 0]).at[1, 2].subtract(0.5),
    "scatter onto a constant": lambda x: C.at[jnp.array([1, 1])].add(x),
    "dynamic update": lambda x: lax.dynamic_update_slice(x, C[:1], (1, 0)),
    "scatter-max": lambda x: x.at[:, 0].max(jnp.array([5.0, 0.1])),
    "scatter-min onto a constant": lambda x: C.at[1].min(x[0]).at[1].min(x[1]),
    "sort beside a constant": lambda x: sum(lax.sort((-x, C))),
    "complex": lambda x: jnp.abs(lax.complex(x, C)),
    "a complex bias": lambda x: jnp.abs(x + 1j * C) + (x + 1j * C).imag,
    "a filter with a bias": lambda x: jnp.fft.ifft(jnp.fft.fft(x) * B + (1 + 2j) * C).real,
    "side by side": lambda x: sum(lax.optimization_barrier((x, C))),
    "clip": lambda x: jnp.clip(x, 0.25, 1.5) + jnp.maximum(x, C) - jnp.minimum(x, B),
    "f(0)": lambda x: jax.nn.sigmoid(x) + jnp.cos(x) + jax.nn.softplus(x) + 2.0**x,
    "f of a constant": lambda x: jnp.arctan2(x, C) + jnp.logaddexp(x, C) + (x**2 + 1) ** C,
    "poles": lambda x: 1 / (x + 10 * B) + jnp.log(jnp.abs(x) + 2),
    "a product with constants": lambda x: jnp.prod(jnp.concatenate([x, C]), 1),
    "reduce from a constant": lambda x: lax.reduce(x, 3.0, lax.add, (1,)),
    "a solution": lambda x: jnp.linalg.solve(W, (x + C).T),
    "an average and a maximum": lambda x: (x + C).mean(0) + jnp.max(x, 0, initial=0.75),
    "an initial carry": carried,
    "an overwritten carry": overwritten,
    "nested loops": nested,
    "a counted loop": lambda x: lax.fori_loop(0, 3, lambda k, h: h * 0.5 + B, x),
    "a constant branch": branched,
    "a constant result": lambda x: jnp.full((2,), 3.0),
    "checkpoint": jax.checkpoint(lambda x: jnp.tanh(x @ W + B) @ W.T + C),
    "a constant argument of a checkpoint": lambda x: jax.checkpoint(jnp.add)(C, x),
    "a call with its derivative": lambda x: layer(x, W, B),
    "a shifted function with its derivative": lambda x: shifted_tanh(x, B),
    "calls in a loop": lambda x: lax.scan(
        lambda h, t: (shifted_tanh(h, B) + layer(t, W, B), h), B, x
    ),
    "a gradient of its author's": lambda x: straight_through(x @ W),
    "no element": lambda x: lax.scan(lambda h, t: (h + t, jnp.tanh(h)), B, x[:0]),
    "zero size": lambda x: jnp.concatenate([x[:0], C[:0]]) @ W + B,
}
DESTROYED = {"attention": attention, "normed": normed, "prod": lambda x: jnp.prod(x + C, 1) ** 2}
PROGRAMS = {**CONSERVED, **DESTROYED}
RULES = ["slope", "cp_lrp", "epsilon", "lrp"]


def flat(fun):
    """All results of ``fun`` in one array."""
    return lambda x: jnp.concatenate([jnp.ravel(z) for z in jax.tree.leaves(fun(x))])


def sides(fun, rules, x):
    """The account of an audit, its scale, and R and biases in all."""
    value, (explained, biases) = value_and_relevance(fun, rules, biases=True)(x)
    books = audit(fun, rules)(x)
    total, steps = books.total(), np.array([step[1:] for step in books.steps()]).reshape(-1, 6)
    scale = np.abs(steps).sum() + np.nansum(np.abs(value)) + 1e-300
    given = float(sum(map(jnp.sum, biases.values())))
    return total, steps, scale, float(jnp.nansum(explained)), given


@pytest.mark.parametrize(("name", "rules"), covering.covering(list(PROGRAMS), RULES))
def test_every_audit_balances_and_every_constant_is_blamed(name, rules):
    """In each row, in all, and R + biases + stabiliser + rule = f."""
    fun = flat(PROGRAMS[name])
    total, steps, scale, explained, given = sides(fun, rules, X)
    close = {"rtol": 0, "atol": 1e-12 * scale}
    np.testing.assert_allclose(steps[:, 0], steps[:, 1:].sum(1), **close)
    np.testing.assert_allclose(total.relevance_in, sum(total[2:]), **close)
    np.testing.assert_allclose(total.relevance_in, jnp.sum(fun(X)), **close)
    np.testing.assert_allclose([total.relevance_out, total.bias], [explained, given], **close)
    if name in CONSERVED:
        np.testing.assert_allclose(total.rule, 0, **close)
        np.testing.assert_allclose(explained + given + total.stabilizer, jnp.sum(fun(X)), **close)


def row(x):
    """One example: a bias, a fill, f(0), constants beside live values, one in an inner loop."""
    x = jnp.concatenate([jnp.tanh(x @ W + B), C[1, :1]])
    x = jnp.take(x, jnp.array([0, 3, 1, 8]), mode="fill", fill_value=0.5)
    start = C[0, 0] + 0 * lax.stop_gradient(x[0])  # varies over shards, where x does
    x = lax.scan(lambda h, t: (jax.nn.sigmoid(h * t), h), start, x)[1]
    return x + W.sum()


def sharded(check):
    """Examples over two devices, constants on both; within, one is made on each alone."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    def one(x):
        return jax.vmap(row)(x)

    return jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check)


BATCHED = {
    "vmap": jax.vmap(row),
    "jit": jax.jit(jax.vmap(row)),
    "checkpoint": jax.checkpoint(jax.vmap(row)),
    "map": lambda x: lax.map(row, x),
    "cond": lambda x: lax.cond(x[0, 0] > 0, jax.vmap(row), lambda x: jnp.zeros((2, 4)), x),
    "shard_map": sharded(True),
    "unchecked shard_map": sharded(False),
    "checkpointed scan": lambda x: lax.scan(
        lambda c, x: (c, jax.checkpoint(row)(x)), None, x
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHED)
def test_books_are_the_same_however_examples_are_run(name):
    """Also jitted, and one example at a time."""
    each = [sides(row, "epsilon", x) for x in X]
    explain, books = (jax.jit(f(BATCHED[name], "epsilon", **o)) for f, o in (
        (relevance, {"biases": "total"}), (audit, {})
    ))  # fmt: skip
    explained, given = explain(X)
    total = books(X).total()
    np.testing.assert_allclose(explained.sum(), sum(s[3] for s in each), rtol=1e-12)
    np.testing.assert_allclose(given, sum(s[4] for s in each), rtol=1e-12)
    for k in range(1, 5):
        np.testing.assert_allclose(total[k], sum(s[0][k] for s in each), rtol=1e-12, atol=1e-14)


def test_books_under_vmap_are_one_example_each():
    books = jax.vmap(audit(row, "epsilon"))(X)
    for k, x in enumerate(X):
        alone = audit(row, "epsilon")(x)
        for many, one in zip(books.amounts, alone.amounts, strict=True):
            np.testing.assert_allclose(many[k], one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rules", ["slope", "cp_lrp"])
def test_what_is_taken_from_logits_is_blamed_unless_it_is_their_maximum(rules):
    """Distances are a constant like any other, however they enter."""
    far = jnp.abs(jnp.arange(3.0)[:, None] - jnp.arange(3.0))
    x = jnp.concatenate([X, C[:1]])

    def books(scores):
        _, biases = relevance(lambda x: jax.nn.softmax(scores(x @ x.T)) @ x, rules, biases=True)(x)
        return list(biases.values())

    (less, *uniform), (more, *_) = books(lambda s: s - far), books(lambda s: s + (-far))
    assert less.shape == far.shape
    np.testing.assert_allclose(less, more, rtol=1e-12, atol=1e-15)
    assert len(books(lambda s: s)) == len(uniform) == (rules == "slope")


def test_a_call_that_keeps_its_derivative_is_one_row():
    """By the gradient it is not entered: what is no part of R is its f(0)."""
    fun = flat(CONSERVED["a call with its derivative"])
    explained, biases = relevance(fun, "gradient", biases=True)(X)
    np.testing.assert_allclose(explained.sum() + sum(biases.values()), fun(X).sum(), rtol=1e-12)
    (label,) = (label for label in audit(fun, "gradient")(X).labels if label.kind == "control")
    assert (label.operation, label.rule) == ("layer", "Gradient()")


def narrow_net(x):
    """Dense, residual, an average over many, a loop, a checkpoint, a value that two read."""
    w, v = (jax.random.normal(jax.random.key(k), (64, 64), x.dtype) / 8 for k in (1, 2))
    b = jax.random.normal(jax.random.key(3), (64,), x.dtype)
    h = jnp.tanh(x @ w + b) + x
    h = lax.scan(lambda h, t: (jax.nn.gelu(h @ v) + t, h.sum(-1)), h, jnp.stack([b, 2 * b]))
    scores = h[0].max(-1) * jax.checkpoint(jax.nn.softplus)(h[0] - b).mean(-1)
    return scores + h[1].sum(0)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["cp_lrp", "slope", "epsilon_plus_flat", "to a baseline"])
def test_in_16_bits_a_rule_creates_nothing_by_rounding(name, dtype):
    """Rows, biases and totals are those of float32; what rounding took is told apart."""
    x = jax.random.normal(jax.random.key(0), (8, 64), dtype)
    options = {"baseline": jnp.ones_like(x)} if name == "to a baseline" else {"rules": name}
    books = jax.jit(audit(narrow_net, **options))(x)
    steps = np.array([step[1:] for step in books.steps()])
    np.testing.assert_allclose(steps[:, 0], steps[:, 1:].sum(1), rtol=1e-6, atol=1e-6)
    size = np.abs(steps[:, :3]).sum(1) + 8
    assert (np.abs(steps[:, 3:5]) <= 4e-6 * size[:, None]).all()
    assert np.abs(steps[:, 5]).max() > 1e-3  # more than a thousand times that
    total = books.total()
    np.testing.assert_allclose(total.relevance_in, sum(total[2:]), rtol=1e-6)
    assert "by rounding" in str(books)
    assert "by rounding" not in str(audit(narrow_net, "slope")(x.astype(jnp.float32)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_biases_of_many_examples_in_16_bits_are_rounded_once(dtype):
    """Against the same numbers in float64: a sum over 512 examples, over shapes, over a loop."""

    def fun(x, b, c):
        h = jnp.tanh(x + b) * 0.25
        return lax.scan(lambda h, t: (h * 0.5 + t, None), h, c)[0]

    args = [v.astype(dtype) for v in (jax.random.normal(jax.random.key(0), (512, 3)), B, C)]
    eps, wide = float(jnp.finfo(dtype).eps), [v.astype(float) for v in args]
    total, whole = (relevance(fun, "slope", biases="total")(*a)[1] for a in (args, wide))
    np.testing.assert_allclose(total.astype(float), whole, rtol=eps)
    found, exact = (relevance(fun, "slope", biases=True)(*a)[1] for a in (args, wide))
    for name, r in found.items():
        assert r.dtype == dtype
        np.testing.assert_allclose(r.astype(float), exact[name], rtol=eps)
