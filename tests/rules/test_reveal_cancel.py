"""RevealCancel: the paper's examples, a restatement in numpy, completeness, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import relu
from jax.sharding import PartitionSpec as P

from jaxrel import audit, relevance, rulesets
from jaxrel.errors import RuleError
from jaxrel.rules import Rescale
from tests import covering, models

REVEAL = "deeplift_reveal_cancel"
COVERING = "mlp_mixed graph control_flow haiku_net lstm".split()
SINGLE = {"nnx_transformer", "dot_product_attention"}  # jax takes their softmax in float32


def minimum(x):
    """min(i1, i2) as the paper writes it (figure 2): i1 - relu(i1 - i2)."""
    return x[0] - relu(x[0] - x[1])


@pytest.mark.parametrize("x", [(10.0, 6.0), (6.0, 10.0), (3.0, 3.0)])
def test_the_minimum_of_two(x):
    """Both get half of it; Rescale, like the gradient, gives all to one."""
    x = jnp.array(x)
    np.testing.assert_allclose(relevance(minimum, REVEAL, baseline=0.0)(x), 2 * [min(x) / 2])
    rescaled = relevance(minimum, "deeplift_rescale", baseline=0.0)(x)
    np.testing.assert_allclose(rescaled, [min(x) * (x[0] <= x[1]), min(x) * (x[0] > x[1])])


@pytest.mark.parametrize(
    ("x", "expected"), [((1, 1), (0.5, 0.5)), ((1, 0), (0, 0)), ((0, 0), (0, 0))]
)
def test_and_of_two(x, expected):
    """relu(i1 + i2 - 1) and min(i1, i2) are two ways to write it, and agree."""
    x = jnp.array(x, float)
    for fun in (minimum, lambda x: relu(x[0] + x[1] - 1)):
        np.testing.assert_allclose(relevance(fun, REVEAL, baseline=0.0)(x), expected, atol=1e-12)


def restated(weights, biases, f, x, x0):
    """Numpy: forwards the parts, backwards their multipliers, layer by layer."""
    p, n, z0, kept = np.maximum(x - x0, 0), np.minimum(x - x0, 0), x0, []
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        p, n, z0 = p @ up + n @ down, n @ up + p @ down, z0 @ w + b
        if k < len(weights) - 1:
            alone, beside = f(z0 + p) - f(z0), f(z0 + p + n) - f(z0 + n)
            dp = (alone + beside) / 2
            alone, beside = f(z0 + n) - f(z0), f(z0 + p + n) - f(z0 + p)
            dn = (alone + beside) / 2
            kept.append((dp / p, dn / n))
            p, n, z0 = dp, dn, f(z0)
    mp = mn = np.ones(len(biases[-1]))
    for w in weights[::-1]:
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        mp, mn = mp @ up.T + mn @ down.T, mn @ up.T + mp @ down.T
        if kept:
            sp, sn = kept.pop()
            mp, mn = sp * mp, sn * mn
    return np.maximum(x - x0, 0) * mp + np.minimum(x - x0, 0) * mn


@pytest.mark.parametrize(("f", "g"), [(jnp.tanh, np.tanh), (relu, lambda z: z * (z > 0))])
def test_restated_in_numpy(f, g):
    """Three layers with biases."""
    rng = np.random.default_rng(0)
    sizes = (5, 7, 6, 3)
    weights = [rng.normal(size=s) for s in zip(sizes, sizes[1:], strict=False)]
    biases = [rng.normal(size=s) for s in sizes[1:]]
    x, x0 = rng.normal(size=5), rng.normal(size=5)

    def fun(x):
        for w, b in zip(weights[:-1], biases, strict=False):
            x = f(x @ w + b)
        return x @ weights[-1] + biases[-1]

    found = relevance(fun, REVEAL, baseline=x0)(jnp.asarray(x))
    np.testing.assert_allclose(found, restated(weights, biases, g, x, x0), rtol=1e-10)


@pytest.mark.parametrize(
    "name", [covering.case(n, full=n not in COVERING, id=n) for n in models.NAMES]
)
def test_complete_on_every_kind_of_program(name):
    """sum(R) = f(x) - f(x0), relative to |f(x)| + |f(x0)|, for each example."""
    model = models.build(name, dtype=jnp.float64)
    x0 = jax.tree.map(lambda v: 0.3 * jnp.cos(jnp.arange(v.size)).reshape(v.shape), model.x)

    def fun(x):
        return model.fun(model.params, x)

    found = jax.jit(relevance(fun, REVEAL, baseline=x0))(model.x)
    y, y0 = (jnp.asarray(fun(v)) for v in (model.x, x0))
    each = sum(r.reshape(len(y), -1).sum(1) for r in jax.tree.leaves(found))
    rise, size = (v.reshape(len(y), -1).sum(1) for v in (y - y0, abs(y) + abs(y0)))
    if name == "graph":  # its nodes are not examples
        each, rise, size = each.sum(), rise.sum(), size.sum()
    assert (abs(each - rise) <= (1e-6 if name in SINGLE else 1e-10) * size).all()


def test_linear_steps_of_every_sign():
    """Negation, subtraction, scaling, sums, masks, fft: parts change places where they should."""
    key = jax.random.key(0)
    x, x0 = jax.random.normal(key, (2, 3, 8))
    c = jax.random.normal(key, (8,))

    def fun(x):
        x = jnp.concatenate([3 - x * c, -x / c, x[::-1] - jnp.cumsum(x, 1)])
        x = jnp.tanh(jnp.where(c > 0, x, 2.0) - jnp.pad(x, [(0, 0), (1, 0)])[:, 1:] / 2)
        x = jnp.sin(jnp.fft.rfft(x).real) + jnp.fft.irfft(jnp.fft.rfft(x)).sum(1, keepdims=True)
        return jnp.sort(x, -1) @ jnp.arange(5.0)

    found = jax.jit(relevance(fun, REVEAL, baseline=x0))(x)
    np.testing.assert_allclose(found.sum(), (fun(x) - fun(x0)).sum(), rtol=1e-10)


def test_a_loss_on_it_can_be_differentiated():
    """In x, in the baseline and in the parameters, through a scan."""
    keys = jax.random.split(jax.random.key(0), 4)
    w, x, x0 = (
        jax.random.normal(k, s) for k, s in zip(keys, [(3, 4, 4), (2, 4), (2, 4)], strict=False)
    )
    c = jax.random.normal(keys[3], (2, 4))

    def loss(w, x, x0):
        def fun(x):
            return lax.scan(lambda x, w: (jnp.tanh(x @ w + 0.1), None), x, w)[0]

        return jnp.sum(jnp.sin(3 * c * relevance(fun, REVEAL, baseline=x0)(x)))

    at = w, x, x0
    way = tuple(
        jax.random.normal(jax.random.fold_in(keys[0], k), v.shape) for k, v in enumerate(at)
    )
    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*at)
    run = jax.jit(loss)

    def moved(h):
        return run(*(v + h * u for v, u in zip(at, way, strict=True)))

    h = 1e-4
    steps = (8 * (moved(h) - moved(-h)) - moved(2 * h) + moved(-2 * h)) / (12 * h)
    slope = sum(jnp.vdot(g, u) for g, u in zip(gradients, way, strict=True))
    np.testing.assert_allclose(slope, steps, rtol=1e-6)


def test_transformations_and_many_references():
    """Jit and vmap change nothing; many references are averaged."""
    model = models.build("mlp", dtype=jnp.float64)

    def explain(x, x0):
        return relevance(model.fun, REVEAL, 1, baseline=x0)(model.params, x)

    x0 = jnp.stack([model.x[::-1], 0 * model.x])
    each = jax.vmap(jax.jit(explain), (None, 0))(model.x, x0)
    np.testing.assert_allclose(explain(model.x, x0), each.mean(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "dtype",
    [covering.case(d, full=d != jnp.float16) for d in (jnp.float32, jnp.bfloat16, jnp.float16)],
)
def test_finite_where_nothing_differs(dtype):
    """X = x0 gives 0, zeros and low precision no NaN."""
    model = models.build("resnet_basic", dtype=dtype)
    explain = jax.jit(lambda x, x0: relevance(model.fun, REVEAL, 1, baseline=x0)(model.params, x))
    for x, x0 in ((model.x, model.x), (model.x, 0 * model.x), (0 * model.x, 0 * model.x)):
        found = explain(x, x0)
        assert found.dtype == dtype
        assert jnp.isfinite(found).all()
        assert (x is not x0) or not found.any()


def test_what_it_needs():
    """A baseline; and an audit has no books of two parts."""
    with pytest.raises(RuleError, match="no formula without a baseline"):
        relevance(jnp.tanh, REVEAL)(jnp.ones(2))
    with pytest.raises(RuleError, match="two parts"):
        audit(jnp.tanh, rulesets.deeplift_reveal_cancel(), baseline=0.0)(jnp.ones(2))


WEIGHTS = jnp.array([[1.0, -0.4, 0.3], [0.2, 0.9, -1.1], [-0.7, 0.5, 0.8]])


@pytest.mark.parametrize(
    ("fun", "x"),
    [
        (lambda x: jnp.sqrt(jnp.sum((x @ WEIGHTS) ** 2)), (2.0, -1.0, 3.0)),
        (lambda x: jnp.log(1.0 + x[0] + x[1]), (4.0, -3.0, 0.0)),
        (lambda x: 1 / (1.0 + x[0] + x[1]), (4.0, -3.0, 0.0)),
        (lambda x: jnp.tanh(jnp.exp(x[0] + x[1])), (60.0, -60.5, 0.0)),
    ],
    ids=["sqrt", "log", "reciprocal", "exp"],
)
def test_where_one_part_alone_would_leave_the_domain(fun, x):
    """There both parts get the same slope, and nothing is NaN or lost in rounding."""
    x0 = jnp.array([0.0, 0.0, 0.5])
    found = relevance(fun, REVEAL, baseline=x0)(jnp.array(x))
    rise = fun(jnp.array(x)) - fun(x0)
    np.testing.assert_allclose(found.sum(), rise, rtol=1e-12)


def test_a_mean_is_a_matmul():
    """Steps of several operations keep the parts apart like those of one."""
    x = jnp.array([2.0, -1.0, 0.5])
    pooled = relevance(lambda x: relu(x.mean()), REVEAL, baseline=0.0)(x)
    multiplied = relevance(lambda x: relu(jnp.ones(3) / 3 @ x), REVEAL, baseline=0.0)(x)
    np.testing.assert_allclose(pooled, multiplied, rtol=1e-12)
    # p = 5/6, n = -1/3: dy+ = (5/6 + 1/2) / 2, dy- = (0 + 1/2 - 5/6) / 2
    np.testing.assert_allclose(pooled, [8 / 15, -1 / 6, 2 / 15])


@pytest.mark.parametrize("f", [lax.sinh, lax.erfc])
def test_parts_pass_nonlinearities_of_other_rules(f):
    """By Rescale both parts are multiplied by one slope; where that falls they change places."""
    rules = rulesets.deeplift_reveal_cancel() | {f.__name__: Rescale()}
    x = jnp.array([2.0, -1.0])
    explain = relevance(lambda x: relu(f(x[0] + x[1]) - f(0.0)), rules, baseline=0.0)
    found = jax.jit(explain)(x)
    a, b = (f(1.0) - f(0.0)) * x  # between 0 and 1, of both parts
    expected = [(relu(a) + relu(a + b) - relu(b)) / 2, (relu(b) + relu(a + b) - relu(a)) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_selections_and_branches_of_another_condition():
    """What jumps because the baseline selects something else is sent to the live operands."""
    x, x0 = jnp.array([1.5, -0.5, 0.4]), jnp.array([-1.0, 1.0, 0.8])

    def selected(x):
        return jnp.where(x[::-1] > 0.1, jnp.tanh(x), 2.0)

    def branched(x):
        return lax.cond(x[0] > 0, lambda x: jnp.tanh(x @ WEIGHTS), lambda x: 3 * x, x)

    for fun in (selected, branched):
        found = relevance(fun, REVEAL, baseline=x0)(x)
        np.testing.assert_allclose(found.sum(), (fun(x) - fun(x0)).sum(), rtol=1e-10)


def test_shards_and_custom_derivatives():
    """Parts go through shard_map, and through a call that declares another derivative."""
    x, x0 = jax.random.normal(jax.random.key(0), (2, 8, 3))
    mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Auto,))

    def fun(x):
        return jnp.tanh(jnp.tanh(x @ WEIGHTS) @ WEIGHTS)

    sharded = jax.shard_map(fun, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    expected = relevance(fun, REVEAL, baseline=x0)(x)
    found = jax.jit(relevance(sharded, REVEAL, baseline=x0))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    @jax.custom_vjp
    def summed(x):
        return x.sum(1)

    summed.defvjp(lambda x: (x.sum(1), x), lambda x, m: (jnp.zeros_like(x) + 5 * m[:, None],))
    np.testing.assert_allclose(relevance(summed, REVEAL, baseline=x0)(x), x - x0)
