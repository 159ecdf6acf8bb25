"""The general rule, and what it shares the missing part by: derivatives, examples, types, edges.

Lines of `tests/test_primitives.py` are used again; there each is only added up.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse, xla_metadata

from jaxrel import RuleSet, UnsupportedPrimitive, relevance, rulesets
from jaxrel import rules as r
from tests.checks import is_finite
from tests.execute.test_primitives import CASES, DEFINITE, SYSTEM, SYSTEM0, X0, C, W, X

rng = np.random.default_rng(1)


def explain(fun: Callable, x: jax.Array, x0: jax.Array | None = None, rules=None) -> jax.Array:
    """A relevance, in one program."""
    return jax.jit(lambda x, x0: relevance(fun, rules, baseline=x0)(x))(x, x0)


DERIVATIVES = "pow cumprod cholesky eigh custom_linear_solve scatter-max"


@pytest.mark.parametrize("name", DERIVATIVES.split())
def test_derivatives_of_relevance(name: str) -> None:
    case = CASES[name]
    weights = jnp.asarray(rng.normal(size=case.x.shape))

    def score(x: jax.Array, x0: jax.Array) -> jax.Array:
        alone = relevance(case.fun)(x)
        return jnp.sum(weights * (alone + relevance(case.fun, baseline=x0)(x)))

    score = jax.jit(score)
    direction = 1e-5 * jnp.asarray(rng.normal(size=(2, *case.x.shape)))
    if name in ("cholesky", "eigh"):
        direction = direction + jnp.matrix_transpose(direction)
    _, got = jax.jvp(score, (case.x, case.x0), tuple(direction))
    points = [(case.x + s * direction[0], case.x0 + s * direction[1]) for s in (-1, 1)]
    low, high = (score(*point) for point in points)
    np.testing.assert_allclose(got, (high - low) / 2, rtol=2e-6)


@pytest.mark.parametrize("name", ["pow", "clamp", "rem", "atan2"])
def test_every_element_is_complete(name: str) -> None:
    case = CASES[name]

    def sums(x0: jax.Array | None) -> jax.Array:
        def of_element(m: jax.Array) -> jax.Array:
            return relevance(lambda x: m * case.fun(x), baseline=x0)(case.x).sum()

        return jax.jit(jax.vmap(of_element))(jnp.eye(6).reshape(6, 2, 3))

    at0 = jnp.nan_to_num(case.fun(jnp.zeros_like(case.x)))
    for x0, start in ((None, at0), (case.x0, case.fun(case.x0))):
        np.testing.assert_allclose(sums(x0), (case.fun(case.x) - start).ravel(), rtol=1e-10)


@pytest.mark.parametrize("name", ["cholesky", "eig", "qr", "approx_top_k", "reduce_prod"])
def test_examples_are_apart(name: str) -> None:
    """A decomposition that crosses a jump, whose error is shared out, above all."""
    case = CASES[name]
    x0 = case.x0[::-1]
    got = explain(case.fun, case.x, x0)
    alone = jax.vmap(lambda x, x0: explain(case.fun, x[None], x0[None])[0])(case.x, x0)
    np.testing.assert_allclose(got, alone, rtol=1e-10, atol=1e-12)
    sums = got.sum(tuple(range(1, got.ndim)))
    value, value0 = (case.fun(a).reshape(2, -1).sum(1) for a in (case.x, x0))
    np.testing.assert_allclose(sums, value - value0, rtol=1e-8)


@pytest.mark.parametrize("name", ["pow", "cholesky", "triangular_solve", "scatter-max"])
def test_at_the_baseline_itself(name: str) -> None:
    """R is 0 there, and its derivative the gradient."""
    case = CASES[name]
    against = jax.jit(relevance(case.fun, baseline=case.x))
    assert not against(case.x).any()
    expected = jax.grad(lambda x: case.fun(x).sum())(case.x)
    got = jax.grad(lambda x: against(x).sum())(case.x)
    if name == "scatter-max":  # the share of one that may win is not differentiable there
        assert is_finite(got)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_narrow_types(dtype: str) -> None:
    tolerance = {"float32": 1e-5}.get(dtype, 0.05)
    for name in ("pow", "clamp", "cumprod", "reduce", "cumlogsumexp"):
        case = CASES[name]
        x, x0 = case.x.astype(dtype), case.x0.astype(dtype)
        got = explain(case.fun, x, x0)
        assert got.dtype == x.dtype
        expected = case.fun(case.x).sum() - case.fun(case.x0).sum()
        np.testing.assert_allclose(
            got.astype(float).sum(), expected, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", ["pow", "rem", "igamma", "cumprod", "reduce_prod", "reduce"])
def test_zeros(name: str) -> None:
    x = jnp.zeros_like(CASES[name].x)
    for x0 in (None, x, x + 1):
        assert is_finite(explain(CASES[name].fun, x, x0))


def test_products_of_many_factors_are_exact() -> None:
    x, x0 = (1 + 0.1 * jnp.asarray(rng.normal(size=100)) for _ in range(2))
    for fun in (jnp.prod, lambda x: jnp.cumprod(x)[::9]):
        got = explain(fun, x, x0)
        np.testing.assert_allclose(got.sum(), fun(x).sum() - fun(x0).sum(), rtol=1e-10)
        np.testing.assert_allclose(explain(fun, x).sum(), fun(x).sum(), rtol=1e-10)
    got = explain(jnp.prod, x)
    np.testing.assert_allclose(got, jnp.full(100, jnp.prod(x) / 100), rtol=1e-10)


def test_order_is_static() -> None:
    assert not jax.tree.leaves(r.PathIntegral(order=4))
    case = CASES["cumlogsumexp"]
    errors = []
    for order in (2, 4, 8):
        rules = RuleSet(other=r.PathIntegral(order=order))
        alone = explain(case.fun, case.x, rules=rules)
        errors.append(abs(alone.sum() - (case.fun(case.x).sum() - 2 * np.log(6))))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_of_any_kind() -> None:
    """It is the integrated gradient of one step, also where there is a better rule."""
    steps = np.linspace(0, 1, 2001)[:-1] + 1 / 4000
    for name, one in {"nonlinearity": jnp.tanh, "product": lambda x: x * x[::-1]}.items():
        rules = RuleSet(**{name: r.PathIntegral()})
        grads = jax.vmap(lambda t, f=one: jax.grad(lambda x: f(x).sum())(X0 + t * (X - X0)))
        expected = (X - X0) * grads(steps).mean(0)
        np.testing.assert_allclose(explain(one, X, X0, rules), expected, rtol=1e-6)


@jax.custom_vjp
def backwards_only(x):
    """A function that jax differentiates in one direction."""
    return jnp.tanh(x) * x.sum()


backwards_only.defvjp(
    lambda x: (backwards_only(x), x), lambda x, m: jax.vjp(lambda x: jnp.tanh(x) * x.sum(), x)[1](m)
)


def test_functions_with_a_custom_vjp_as_a_whole() -> None:
    rules = RuleSet() | {"backwards_only": r.PathIntegral()}
    got = explain(backwards_only, X, X0, rules)
    expected = backwards_only(X).sum() - backwards_only(X0).sum()
    np.testing.assert_allclose(got.sum(), expected, rtol=1e-10)


SOLVERS = {
    "solve": lambda a: jnp.linalg.solve(a[0], a[1]),
    "matrix alone": lambda a: jnp.linalg.inv(a[0]),
    "right-hand side alone": lambda a: jnp.linalg.solve(DEFINITE, a[1]),
    "cg": lambda a: jax.scipy.sparse.linalg.cg(lambda y: a[0, 0] @ y, a[1, 0, 0], tol=1e-14)[0],
    "unit": lambda a: lax.linalg.triangular_solve(a[1], a[0], unit_diagonal=True),
    "transposed": lambda a: lax.linalg.triangular_solve(
        a[0], a[1], left_side=True, lower=True, transpose_a=True
    ),
    "complex": lambda a: jnp.real(
        lax.linalg.triangular_solve(
            a[0] * (1 + 1j), a[1] + 2j * a[0], left_side=True, transpose_a=True, conjugate_a=True
        )
    ),
    "determinant": lambda a: jnp.linalg.det(a[0]),
    "logarithm": lambda a: jnp.linalg.slogdet(a[0])[1],
}


@pytest.mark.parametrize("name", SOLVERS)
def test_linear_algebra(name: str) -> None:
    fun = SOLVERS[name]

    @jax.jit
    def both(x: jax.Array, x0: jax.Array):
        return relevance(fun)(x), relevance(fun, baseline=x0)(x), fun(x), fun(x0)

    alone, compared, value, value0 = both(SYSTEM, SYSTEM0)
    np.testing.assert_allclose(alone.sum(), value.sum(), rtol=1e-8)
    np.testing.assert_allclose(compared.sum(), value.sum() - value0.sum(), rtol=1e-8)
    if name in ("solve", "cg", "transposed"):  # without a baseline the matrix is a denominator
        assert not alone[0].any()
        assert compared[0].any()


SELECTIONS = {
    "payload": lambda x: sum(lax.sort((x, x[::-1]), dimension=1, num_keys=1)),
    "payload alone": lambda x: lax.sort((C, x), dimension=1, num_keys=1)[1],
    "median": lambda x: jnp.median(x, axis=1),
    "segments": lambda x: jax.ops.segment_max(x.ravel(), jnp.array([0, 1, 0, 1, 1, 0]), 2),
    "segments of rows": lambda x: jax.ops.segment_min(x.T, jnp.array([0, 0, 1]), 2),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections(name: str) -> None:
    fun = SELECTIONS[name]
    np.testing.assert_allclose(explain(fun, X).sum(), fun(X).sum(), rtol=1e-12)
    got = explain(fun, X, X0)
    np.testing.assert_allclose(got.sum(), fun(X).sum() - fun(X0).sum(), rtol=1e-10)


COMPLEX = {
    "spectrum": lambda x: jnp.abs(jnp.fft.fft(x)),
    "power": lambda x: jnp.real(jnp.fft.rfft2(x) * jnp.conj(jnp.fft.rfft2(x))),
    "there and back": lambda x: jnp.real(jnp.fft.ifft(jnp.tanh(jnp.fft.fft(x)))),
    "sign": lambda x: jnp.real(jnp.sign(lax.complex(x, x[::-1]))),
    "angle": lambda x: jnp.angle(lax.complex(x, x[::-1])),
    "layer": lambda x: jnp.abs(x @ (W + 1j * W[::-1])),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_values_on_the_way(name: str) -> None:
    fun = COMPLEX[name]
    got = explain(fun, X)
    assert got.dtype == X.dtype
    np.testing.assert_allclose(got.sum(), fun(X).sum(), rtol=1e-10)
    got = explain(fun, X, X0)
    np.testing.assert_allclose(got.sum(), fun(X).sum() - fun(X0).sum(), rtol=1e-9)


def test_the_stabiliser_of_a_complex_layer() -> None:
    got = explain(COMPLEX["layer"], X, rules=rulesets.epsilon(0.1))
    z = COMPLEX["layer"](X)
    np.testing.assert_allclose(got.sum(), (z * z / (z + 0.1)).sum(), rtol=1e-10)


CALLS = {
    "linear call": lambda x: jax.custom_derivatives.linear_call(
        lambda r, x: r * x, lambda r, m: r * m, 2.0, x
    ),
}
if hasattr(xla_metadata, "xla_metadata_call"):
    CALLS["metadata"] = xla_metadata.xla_metadata_call(a="b")(lambda x: jnp.tanh(x) * 2)


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    np.testing.assert_allclose(relevance(CALLS[name])(X), CALLS[name](X), rtol=1e-12)


@jax.custom_vjp
def cubed(x):
    """A function whose forward pass is a call of its own when it is differentiated."""
    return x**3


cubed.defvjp(lambda x: (x**3, x), lambda x, m: (3 * x**2 * m,), optimize_remat=True)


def test_the_derivative_of_a_call_that_saves_nothing() -> None:
    """jax.grad itself cannot differentiate it once more; what is inside can be."""

    def fun(x: jax.Array) -> jax.Array:
        value, pullback = jax.vjp(cubed, x)
        return value + pullback(jnp.ones_like(x))[0]

    assert "remat_opt" in str(jax.make_jaxpr(fun)(X))
    np.testing.assert_allclose(relevance(fun)(X), X**3 + 3 * X**2, rtol=1e-10)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: sparse.linalg.spsolve(x.ravel(), jnp.arange(6), jnp.arange(7), jnp.ones(6)),
        lambda x: lax.polygamma(x, x[::-1]),
        lambda x: lax.linalg.hessenberg(x.T @ x)[0],
    ],
)
def test_what_has_no_derivative(fun: Callable) -> None:
    with pytest.raises(UnsupportedPrimitive, match="cannot be differentiated by"):
        relevance(fun)(X)
