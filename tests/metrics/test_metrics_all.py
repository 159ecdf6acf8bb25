"""What holds for every metric: batches, jit, vmap, NaN, 16 bits, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrel import metrics

SHAPE = (3, 4, 4, 1)
KEY = jax.random.key(0)
WEIGHTS = jax.random.normal(jax.random.key(1), (16, 2))


def hidden(x: jax.Array) -> jax.Array:
    return jnp.tanh(x.reshape(len(x), -1) @ WEIGHTS.astype(x.dtype))


def fun(x: jax.Array) -> jax.Array:
    return hidden(x).sum(-1)


def explain(x: jax.Array) -> jax.Array:
    return x * jax.grad(lambda x: fun(x).sum())(x)


def of_params(params: jax.Array, x: jax.Array) -> jax.Array:
    return params["layer"]["w"].astype(x.dtype) * jnp.sin(x)  # type: ignore[index]


def of_labels(x: jax.Array, labels: jax.Array) -> jax.Array:
    return x * jnp.cos(x * labels.reshape(-1, 1, 1, 1))


PARAMS = {"layer": {"w": jnp.linspace(-1, 1, 16).reshape(4, 4, 1)}}
FRESH = {"layer": {"w": jnp.cos(jnp.arange(16.0)).reshape(4, 4, 1)}}
MASK = np.zeros((1, 4, 4, 1))
MASK[:, :2, 1:] = 1


def noise(x: jax.Array) -> jax.Array:
    return 0.1 * jax.random.normal(KEY, (3, *x.shape), x.dtype)


Metric = Callable[[jax.Array, jax.Array], jax.Array]
OF_BOTH: dict[str, Metric] = {
    "pixel_flipping": lambda x, r: metrics.pixel_flipping(fun, x, r, steps=4),
    "pixel_flipping_lerf": lambda x, r: metrics.pixel_flipping(
        fun, x, r, steps=3, per_step=2, order="lerf", replacement=metrics.mean(x)
    ),
    "pixel_flipping_random": lambda x, r: metrics.pixel_flipping(
        fun, x, r, steps=4, order="random", key=KEY
    ),
    "region_perturbation": lambda x, r: metrics.region_perturbation(
        fun, x, r, patch=2, steps=3, replacement=metrics.uniform(KEY, x), chunk=2
    ),
    "deletion": lambda x, r: metrics.deletion(fun, x, r, steps=8, replacement=metrics.neighbours),
    "insertion": lambda x, r: metrics.insertion(
        fun, x, r, steps=4, replacement=metrics.blur(x, 1.0)
    ),
    "idsds": lambda x, r: metrics.idsds(fun, x, r, cells=2),
    "faithfulness_estimate": lambda x, r: metrics.faithfulness_estimate(fun, x, r, per_step=3),
    "faithfulness_correlation": lambda x, r: metrics.faithfulness_correlation(
        fun, x, r, size=4, runs=6, key=KEY, replacement=metrics.noise(KEY, x)
    ),
    "sensitivity_n": lambda x, r: metrics.sensitivity_n(fun, x, r, sizes=(1, 5), key=KEY, runs=5),
    "monotonicity": lambda x, r: metrics.monotonicity(fun, x, r, per_step=3),
    "monotonicity_correlation": lambda x, r: metrics.monotonicity_correlation(
        fun, x, r, per_step=4, samples=3, key=KEY
    ),
    "infidelity": lambda x, r: metrics.infidelity(fun, x, r, noise(x), normalize=True),
    "completeness": lambda x, r: metrics.completeness(fun, x, r, 0.0),
    "non_sensitivity": lambda x, r: metrics.non_sensitivity(fun, x, r, threshold=0.1),
}
OF_RELEVANCE: dict[str, Metric] = {
    "surrogate": lambda x, r: metrics.surrogate(
        r, jnp.cos(jnp.arange(len(x) * 4.0)).reshape(-1, 4), 2
    ),
    "sufficiency": lambda x, r: metrics.sufficiency(r, jnp.arange(len(x)) % 2),
    "pointing_game": lambda x, r: metrics.pointing_game(r, MASK),
    "relevance_mass_accuracy": lambda x, r: metrics.relevance_mass_accuracy(r, MASK),
    "relevance_rank_accuracy": lambda x, r: metrics.relevance_rank_accuracy(r, MASK),
    "top_k_intersection": lambda x, r: metrics.top_k_intersection(r, MASK, 3),
    "auc": lambda x, r: metrics.auc(r, MASK),
    "attribution_localisation": lambda x, r: metrics.attribution_localisation(r, MASK),
    "entropy": lambda x, r: metrics.entropy(r),
    "gini": lambda x, r: metrics.gini(r),
    "effective_complexity": lambda x, r: metrics.effective_complexity(r, 0.1),
    "histogram_entropy": lambda x, r: metrics.histogram_entropy(r, 5),
    "file_size": lambda x, r: metrics.file_size(r),
    "pearson": lambda x, r: metrics.pearson(r, x),
    "spearman": lambda x, r: metrics.spearman(r, x),
    "ssim": lambda x, r: metrics.ssim(r, x.astype(r.dtype), window=3),
}
OF_INPUT: dict[str, Metric] = {
    "max_sensitivity": lambda x, r: metrics.max_sensitivity(explain, x, noise(x)),
    "average_sensitivity": lambda x, r: metrics.average_sensitivity(explain, x, noise(x)),
    "local_lipschitz": lambda x, r: metrics.local_lipschitz(explain, x, noise(x), chunk=2),
    "relative_input_stability": lambda x, r: metrics.relative_input_stability(explain, x, noise(x)),
    "relative_output_stability": lambda x, r: metrics.relative_output_stability(
        explain, x, noise(x), hidden
    ),
    "relative_representation_stability": lambda x, r: metrics.relative_representation_stability(
        explain, x, noise(x), hidden
    ),
    "cascading": lambda x, r: metrics.cascading(of_params, PARAMS, FRESH, x, ["layer"]).T,
    "efficient_mprt": lambda x, r: metrics.efficient_mprt(of_params, PARAMS, FRESH, x, bins=4),
    "random_logit": lambda x, r: metrics.random_logit(
        of_labels, x, jnp.arange(len(x)), metrics.other_classes(KEY, jnp.arange(len(x)), 5)
    ),
    "input_invariance": lambda x, r: metrics.input_invariance(explain, explain, x, 0.5),
    "implementation_invariance": lambda x, r: metrics.implementation_invariance(
        explain, lambda x: 2 * explain(x), x
    ),
}
EVERY = OF_BOTH | OF_RELEVANCE | OF_INPUT


@pytest.fixture
def given(rng: np.random.Generator) -> tuple[jax.Array, jax.Array]:
    x = rng.uniform(0.2, 1, SHAPE) * rng.choice([-1, 1], SHAPE)
    relevance = rng.uniform(0.2, 1, SHAPE) * rng.choice([-1, 1], SHAPE)
    return jnp.asarray(x, jnp.float32), jnp.asarray(relevance, jnp.float32)


@pytest.mark.every_case
@pytest.mark.usefixtures("default_precision")
def test_every_public_metric_is_tested_here():
    made_of = {"abpc", "aopc", "area", "blur", "grid", "mean", "neighbours", "noise", "uniform"}
    parts = {"part_drops", "part_sums", "other_classes"}
    circuits = {"circuit_curve", "cmd", "cpr", "patch_edges"}
    assert set(metrics.__all__) <= set(EVERY) | made_of | parts | circuits


@pytest.mark.every_case
@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("name", EVERY)
def test_one_for_each_example_compiled_once(name, given):
    """In float32, traced once; an example with a NaN in its relevance has no score."""
    x, relevance = given
    compiled = jax.jit(chex.assert_max_traces(EVERY[name], n=1))
    found = compiled(x, relevance)
    assert found.shape[0] == len(x) and found.dtype == jnp.float32
    assert bool(jnp.isfinite(found).all())
    if name in OF_INPUT or name == "sufficiency":  # which compares with all the others
        return
    without = compiled(x, relevance.at[1, 2, 3].set(jnp.nan))
    assert bool(jnp.isnan(without[1]).all())
    np.testing.assert_array_equal(without[::2], found[::2])


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("name", EVERY)
def test_compiled_or_not(name, given):
    metric = EVERY[name]
    np.testing.assert_allclose(jax.jit(metric)(*given), metric(*given), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.usefixtures("default_precision")
def test_batches_of_batches(name, given):
    x, relevance = (jnp.stack([v, v[::-1]]) for v in given)
    metric = jax.jit(EVERY[name])
    expected = [metric(*pair) for pair in zip(x, relevance, strict=True)]
    found = jax.jit(jax.vmap(metric))(x, relevance)
    np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.usefixtures("default_precision")
def test_16_bits(name, given):
    """Networks and relevances in bfloat16; sums are in float32."""
    x, relevance = (v.astype(jnp.bfloat16) for v in given)
    found = jax.jit(EVERY[name])(x, relevance)
    assert found.dtype == jnp.float32
    assert bool(jnp.isfinite(found).all())


AUTO, EXPLICIT, _ = jax.sharding.AxisType
SHARDED = [(name, AUTO) for name in EVERY]
SHARDED += [(name, EXPLICIT) for name in EVERY if name != "deletion"]  # by neighbours: a solver


@pytest.mark.parametrize("name, kind", SHARDED)
@pytest.mark.usefixtures("default_precision")
def test_a_sharded_batch(name, kind, given):
    """On four devices, also where the mesh has Explicit axes."""
    operands = [jnp.concatenate([v, v[:1]]) for v in given]
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(kind,), devices=jax.devices()[:4])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    found = jax.jit(EVERY[name])(*jax.device_put(operands, rows))
    expected = jax.jit(EVERY[name])(*operands)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.every_case
@pytest.mark.parametrize("name", EVERY)
def test_an_empty_batch_is_told(name):
    empty = jnp.zeros((0, 4, 4, 1))
    with pytest.raises(ValueError, match=r"examples in front, \(N, ...\) with N > 0, got"):
        EVERY[name](empty, empty)


@pytest.mark.parametrize("name", OF_BOTH)
def test_what_fun_returns_is_told(name, given):
    """All logits in the place of one of them."""
    x, relevance = given
    metric = EVERY[name]
    names = metric.__globals__  # the metrics above call this module's fun
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(names, "fun", hidden)
        with pytest.raises(ValueError, match=r"fun: expected one number .* shape \(3,\), got \(3"):
            metric(x, relevance)
        patch.setitem(names, "fun", x)
        with pytest.raises(TypeError, match=r"fun: expected a function, called as fun\(x\)"):
            metric(x, relevance)


def test_what_does_not_fit_is_told(given):
    x, relevance = given
    with pytest.raises(ValueError, match=r"relevance: expected that of x, \(3, 4, 4, 1\).*\(3, 5"):
        metrics.pixel_flipping(fun, x, jnp.ones((3, 5)), steps=2)
    with pytest.raises(ValueError, match=r"pixel_flipping: 20 steps, but there are 16 parts"):
        metrics.pixel_flipping(fun, x, relevance, steps=20)
    with pytest.raises(ValueError, match=r"region_perturbation: 5 steps of 1, but there are 4"):
        metrics.region_perturbation(fun, x, relevance, patch=2, steps=5)
    with pytest.raises(ValueError, match="order is 'morf', 'lerf' or 'random', got 'most'"):
        metrics.pixel_flipping(fun, x, relevance, steps=2, order="most")  # type: ignore
    with pytest.raises(ValueError, match="order='random' needs a key"):
        metrics.pixel_flipping(fun, x, relevance, steps=2, order="random")
    with pytest.raises(ValueError, match=r"replacement: \(7,\) does not broadcast to x"):
        metrics.pixel_flipping(fun, x, relevance, steps=2, replacement=jnp.zeros(7))
    with pytest.raises(TypeError, match="chunk must be an int"):
        metrics.pixel_flipping(fun, x, relevance, steps=2, chunk=1.5)  # type: ignore
    with pytest.raises(ValueError, match=r"mask: \(3, 4\) does not broadcast to the relevance"):
        metrics.pointing_game(relevance, jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="give one of key and subsets, got none"):
        metrics.faithfulness_correlation(fun, x, relevance, size=3)
    with pytest.raises(ValueError, match="sets of 17, but there are 16 parts"):
        metrics.sensitivity_n(fun, x, relevance, sizes=[17], key=KEY)
    with pytest.raises(ValueError, match=r"subsets: expected \(any, 3, any\)"):
        metrics.faithfulness_correlation(fun, x, relevance, subsets=jnp.zeros((2, 2, 2), int))
    with pytest.raises(ValueError, match=r"changes: expected \(any, 3, 4, 4, 1\)"):
        metrics.infidelity(fun, x, relevance, x)
    with pytest.raises(ValueError, match=r"noise: expected \(any, 3, 4, 4, 1\)"):
        metrics.max_sensitivity(explain, x, x)
    with pytest.raises(ValueError, match="norm: expected 'l1', 'l2' or 'max', got 'fro'"):
        metrics.max_sensitivity(explain, x, noise(x), norm="fro")  # type: ignore
    with pytest.raises(ValueError, match="explain: expected 3 examples"):
        metrics.max_sensitivity(lambda x: x[:2], x, noise(x))
    with pytest.raises(ValueError, match=r"no parameters of 'layr'; did you mean 'layer'\?"):
        metrics.cascading(of_params, PARAMS, FRESH, x, ["layr"])
    with pytest.raises(ValueError, match=r"params\['layer'\]\['w'\] .* and fresh.* differ"):
        metrics.cascading(of_params, PARAMS, {"layer": {"w": jnp.ones(3)}}, x, ["layer"])
    with pytest.raises(ValueError, match="fresh: expected the structure of params"):
        metrics.efficient_mprt(of_params, PARAMS, {"w": 1}, x)
    with pytest.raises(ValueError, match="curve: an area needs two points"):
        metrics.area(jnp.ones((3, 1)))
    with pytest.raises(TypeError, match="relevance: expected real numbers, got complex"):
        metrics.entropy(relevance + 1j)
    with pytest.raises(ValueError, match="there is no other of 1"):
        metrics.other_classes(KEY, jnp.zeros(3, int), 1)
    with pytest.raises(ValueError, match="k is 17, but there are 16"):
        metrics.top_k_intersection(relevance, MASK, 17)


def test_parts_that_do_not_fit_are_told(given):
    x, relevance = given
    with pytest.raises(ValueError, match=r"cells: 5 do not fit an axis of 4"):
        metrics.grid((4, 4), 5)
    with pytest.raises(ValueError, match=r"segments \(4, 4\) do not fit x \(3, 4, 4, 1\)"):
        metrics.part_drops(fun, x, patch=np.zeros((4, 4), int))
    with pytest.raises(TypeError, match="patch: expected an int, ints, or an array of segment"):
        metrics.part_drops(fun, x, patch=np.zeros((1, 4, 4)))
    with pytest.raises(TypeError, match="segments must be known when the function is traced"):
        jax.jit(lambda ids: metrics.part_drops(fun, x, patch=ids))(jnp.zeros((1, 4, 4), int))
    with pytest.raises(ValueError, match=r"parts along 2 axes need a relevance with as many"):
        metrics.pixel_flipping(fun, x, relevance.sum((2, 3)), steps=2, patch=2)
    with pytest.raises(ValueError, match="patch must be at least 1, got 0"):
        metrics.part_drops(fun, x, patch=0)
