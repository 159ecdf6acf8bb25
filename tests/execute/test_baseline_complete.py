"""Compared to a baseline, relevance adds up: sum(R) = f(x) - f(x0), for every program.

The errors of sums are relative to |f(x) - f(x0)|, example by example. Only where that cancels (it
is a hundredth of |f(x)| + |f(x0)| or less) are they relative to a hundredth of the latter: f itself
is not known better.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxrel
from jaxrel import rules, rulesets
from tests import covering
from tests.checks import assert_same_type, is_finite
from tests.models import NAMES, build

# jax.nn.dot_product_attention makes its softmax in float32, whatever the dtype.
SINGLE = ("dot_product_attention", "nnx_transformer")

RULES = {
    "compare_to_baseline": rulesets.compare_to_baseline(),
    "deeplift_rescale": rulesets.deeplift_rescale(),
    "softmax_limit": rulesets.compare_to_baseline(rules.SoftmaxLimit()),
}

# Those of the zoo in which the rule for maxima matters.
MAXIMA = (
    "cnn",
    "resnet_basic",
    "resnet_bottleneck",
    "pytree_input",
    "nnx_cnn",
    "equinox_cnn",
    "lax_plain",
    "lax_attention",
)


def elsewhere(x: Any, seed: int) -> Any:
    """Numbers of x's kind, no two of them alike."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), x)


def per_example(tree: Any) -> np.ndarray:
    """Sums over everything but the first axis, in float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.sum([leaf.reshape(len(leaf), -1).sum(1) for leaf in leaves], axis=0)


def assert_complete(relevance: Any, value: Any, there: Any, tolerance: float) -> None:
    """Each example's relevances add up to its difference."""
    change = per_example(value) - per_example(there)
    size = per_example(jnp.abs(value)) + per_example(jnp.abs(there))
    error = np.abs(per_example(relevance) - change)
    assert (error <= tolerance * np.maximum(np.abs(change), size / 100)).all(), error / size


@cache
def explained(name: str, preset: str, dtype: Any) -> Callable[[Any, Any, Any], Any]:
    """Value and relevance of a model, compiled."""
    model = build(name, dtype=dtype)

    @jax.jit
    def run(params: Any, x: Any, x0: Any) -> Any:
        explain = jaxrel.value_and_relevance(model.fun, RULES[preset], 1, baseline=x0)
        return explain(params, x)

    return run


def check(name: str, preset: str, dtype: Any, tolerance: float) -> None:
    """Completeness both ways, and that examples do not meet."""
    model, run = build(name, dtype=dtype), explained(name, preset, dtype)
    x, x0 = model.x, elsewhere(model.x, 3)
    value, relevance = run(model.params, x, x0)
    there, opposite = run(model.params, x0, x)
    assert_same_type(relevance, x)
    assert_complete(relevance, value, there, tolerance)
    assert_complete(opposite, there, value, tolerance)

    def spoiled(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.at[1:].set(jnp.nan), tree)

    _, alone = run(model.params, spoiled(x), spoiled(x0))
    first = [jax.tree.map(lambda leaf: leaf[0], tree) for tree in (alone, relevance)]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), *first)


@pytest.mark.parametrize("name", NAMES)
def test_float64(name: str) -> None:
    check(name, "compare_to_baseline", jnp.float64, 1e-6 if name in SINGLE else 1e-10)


@pytest.mark.parametrize(
    ("name", "preset"), covering.covering(MAXIMA, ["deeplift_rescale", "softmax_limit"])
)
def test_other_maxima(name: str, preset: str) -> None:
    check(name, preset, jnp.float64, 1e-10)


# test_compare_to_baseline.py has others
@pytest.mark.parametrize("name", covering.every(9, NAMES, 4))
def test_float32(name: str) -> None:
    check(name, "compare_to_baseline", jnp.float32, 1e-4)


def test_where_there_is_no_maximum_the_presets_are_one() -> None:
    for name in NAMES:
        model = build(name)
        summarize = jaxrel.summary(model.fun, "compare_to_baseline", 1, baseline=0)
        kinds = {row.kind for row in summarize(model.params, model.x)}
        assert ("maximum" in kinds) <= (name in MAXIMA), name


def test_a_gradient_is_not_complete() -> None:
    x, x0 = jnp.array([[1.0, -2.0]]), jnp.array([[0.3, 1.0]])
    gradient = jaxrel.relevance(jnp.tanh, "gradient", baseline=x0)(x)
    assert abs(gradient.sum() - (jnp.tanh(x) - jnp.tanh(x0)).sum()) > 0.1


MASK = jnp.array([True, True, False, True, True])
W = jnp.arange(1.0, 6.0)


def _by_hand(x: jax.Array) -> jax.Array:
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _live(x: jax.Array) -> jax.Array:
    e = jnp.exp(x)
    return e * (1 / e.sum(-1, keepdims=True))


def _exp2(x: jax.Array) -> jax.Array:
    e = jnp.exp2(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def _plus_one(x: jax.Array) -> jax.Array:
    e = jnp.exp(x)
    return e / (1 + e.sum(-1, keepdims=True))


def _routed(x: jax.Array) -> jax.Array:
    """A mixture of the two largest, as routers of experts have it."""
    least = lax.top_k(x, 2)[0][:, -1:]
    return nn.softmax(jnp.where(x >= least, x, -jnp.inf))


def _pools(x: jax.Array) -> jax.Array:
    over = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3), (1, 1), "SAME")
    apart = lax.reduce_window(x, jnp.inf, lax.min, (1, 2), (1, 2), ((0, 0), (1, 0)))
    return jnp.concatenate([over, apart], 1)


PROGRAMS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "softmax": nn.softmax,
    "by_hand": _by_hand,
    "live": _live,
    "exp2": _exp2,
    "plus_one": _plus_one,
    "routed": _routed,
    "log_softmax": nn.log_softmax,
    "masked": lambda x: nn.softmax(jnp.where(MASK, x, -jnp.inf)),
    "where": lambda x: nn.softmax(x, where=MASK),
    "masked_by_x": lambda x: nn.softmax(jnp.where(x > -0.5, x, -1e30)),
    "logsumexp": lambda x: nn.logsumexp(x, axis=-1, keepdims=True),
    "logsumexp_by_hand": lambda x: jnp.log(jnp.exp(x).sum(-1, keepdims=True)),
    "logsumexp_weighted": lambda x: nn.logsumexp(x, axis=-1, b=W, keepdims=True),
    "logaddexp": lambda x: jnp.logaddexp(x, x[:, ::-1]),
    "standardize": nn.standardize,
    "unit_length": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "rms": lambda x: x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6),
    "std": lambda x: x.std(-1, keepdims=True),
    "quotient": lambda x: x[:, :1] / (2 + x**2),
    "by_a_scalar": lambda x: x / lax.squeeze(x[:1, :1], (0, 1)),
    "product": lambda x: x * x[:, ::-1],
    "cubic": lambda x: (x @ x.T) @ x,
    "glu": lambda x: nn.glu(jnp.concatenate([x, x[:, ::-1]], -1)),
    "geglu": lambda x: nn.gelu(x) * x[:, ::-1],
    "hypot": lambda x: jnp.hypot(x, x[:, ::-1]),
    "clip": lambda x: jnp.clip(x, x[:, ::-1] - 0.1, 0.5),
    "maximum": lambda x: jnp.maximum(x, x[:, ::-1]),
    "minimum": lambda x: jnp.minimum(x, x[:, ::-1]),
    "max": lambda x: x.max(-1, keepdims=True),
    "min": lambda x: x.min(-1, keepdims=True),
    "pools": _pools,
    "cummax": lambda x: lax.cummax(x, axis=1),
    "cummin": lambda x: lax.cummin(x, axis=1, reverse=True),
    "sort": lambda x: jnp.sort(x, -1),
    "descending": lambda x: jnp.sort(x, -1, descending=True),
    "top_k": lambda x: lax.top_k(x, 3)[0],
    "median": lambda x: jnp.median(x, -1, keepdims=True),
    "quantile": lambda x: jnp.quantile(x, 0.3, axis=-1, keepdims=True),
    "where_other": lambda x: jnp.where(x > 0, x[:, ::-1], x**2),
    "masked_other": lambda x: x[:, ::-1] * (x > 0),
    "masked_dense": lambda x: (x @ jnp.ones((5, 5))) * (x > 0),
    "signed": lambda x: x[:, ::-1] * jnp.sign(x),
    "by_a_floor": lambda x: x[:, ::-1] / (7 + jnp.floor(x)),
    "relu_by_hand": lambda x: x * (x > 0),
    "straight_through": lambda x: x + lax.stop_gradient(jnp.round(x) - x),
    "branches": lambda x: lax.cond(x.sum() > 0, jnp.tanh, jnp.square, x),
}
"""Steps of every kind that differ at a baseline, of an array (3, 5)."""

OF_MAXIMA = "by_hand maximum minimum max min pools cummax cummin clip logaddexp".split()
"""Those in which the rule for maxima matters."""


def weighted(fun: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """``fun``, no two of its outputs worth the same: what is shared out evenly is found out."""

    def run(x: jax.Array) -> jax.Array:
        y = fun(x)
        return y * jnp.arange(1.0, y.shape[1] + 1)

    return run


@cache
def _points(x: str) -> jax.Array:
    return jnp.zeros((3, 5)) if x == "zeros" else elsewhere(jnp.zeros((3, 5)), int(x))


@pytest.mark.full
@pytest.mark.parametrize("there", ["1", "zeros", "0"])
def test_every_step(there: str, compiled: Callable) -> None:
    """Each program, by the presets that differ; against itself relevance is 0."""
    for key, (value, reference, results) in compiled(_points("0"), _points(there)).items():
        change = float((value - reference).sum())
        if np.isnan(change):
            assert there == "zeros" and key in ("unit_length", "by_a_scalar")  # 0 / 0
            continue
        size = float(jnp.abs(value).sum() + jnp.abs(reference).sum())
        for result in results:
            # against 0, standardize and rms have slopes of 1 / sqrt(epsilon)
            tolerance = 1e-12 if there == "zeros" else 1e-14
            np.testing.assert_allclose(result.sum(), change, 0, tolerance * size, err_msg=key)
            assert there != "0" or not np.any(result), key


@pytest.fixture(scope="module")
def compiled() -> Callable:
    """For each program its value, that at the baseline, and relevances."""
    funs = {key: weighted(fun) for key, fun in PROGRAMS.items()}

    @jax.jit
    def run(x: jax.Array, x0: jax.Array) -> Any:
        def explain(key: str, fun: Callable) -> list[jax.Array]:
            chosen = RULES.values() if key in OF_MAXIMA else [RULES["compare_to_baseline"]]
            return [jaxrel.relevance(fun, rule_set, baseline=x0)(x) for rule_set in chosen]

        return {key: (fun(x), fun(x0), explain(key, fun)) for key, fun in funs.items()}

    return run


# functions, or derivatives of functions, that are not finite themselves
INFINITE = ("unit_length", "by_a_scalar", "live", "plus_one", "logsumexp_by_hand", "cubic")
INFINITE += ("std", "hypot", "product", "quotient", "where_other", "branches")


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in INFINITE])
def test_finite_at_zeros_ties_and_saturation(name: str) -> None:
    """Whatever the two points are, relevance is finite, and so is its derivative."""
    some = _points("0")
    inputs = {
        "zero": jnp.zeros((3, 5)),
        "ties": jnp.ones((3, 5)),
        "tiny": 1e-30 * some,
        "denormal": jnp.full((3, 5), 3e-45),
        "large": 1e4 * some,
        "some": _points("1"),
    }
    inputs = {key: value.astype(jnp.float32) for key, value in inputs.items()}

    @jax.jit
    def run(x: jax.Array, x0: jax.Array) -> Any:
        explain = lambda x, x0: jaxrel.relevance(PROGRAMS[name], baseline=x0)(x)  # noqa: E731
        result, pullback = jax.vjp(explain, x, x0)
        return result, pullback(jnp.ones_like(result))

    for here, x in inputs.items():
        for there, x0 in inputs.items():
            assert is_finite(run(x, x0)), (here, there)


@pytest.mark.parametrize(
    ("name", "dtype"),
    covering.covering(["mlp_mixed", "cnn", "lax_attention"], [jnp.float16, jnp.bfloat16]),
)
def test_16_bits(name: str, dtype: Any) -> None:
    model, run = build(name, dtype=dtype), explained(name, "compare_to_baseline", dtype)
    for x in (jnp.zeros_like(model.x), jnp.ones_like(model.x), model.x, 64 * model.x):
        for x0 in (jnp.zeros_like(model.x), elsewhere(model.x, 3), model.x):
            value, relevance = run(model.params, x, x0)
            there, _ = run(model.params, x0, x0)
            if not is_finite(value):
                continue
            assert_same_type(relevance, x)
            assert is_finite(relevance)
            terms = (value, there, relevance)
            size = sum(per_example(jnp.abs(term)).sum() for term in terms)
            error = np.abs(per_example(relevance) - per_example(value) + per_example(there)).sum()
            assert error <= 40 * float(jnp.finfo(dtype).eps) * size


def test_an_empty_batch() -> None:
    fun = lambda x: nn.softmax(jnp.tanh(x) @ jnp.ones((5, 5)))  # noqa: E731
    assert jaxrel.relevance(fun, baseline=0)(jnp.zeros((0, 5))).shape == (0, 5)
