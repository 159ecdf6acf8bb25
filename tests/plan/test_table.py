"""Each row of the table of primitives is taken at its word, by numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrel._plan import primitives
from jaxrel._plan.primitives import ALL, TABLE, of
from tests.execute.test_primitives import CASES

X = jnp.array([0.2, 0.35, 0.7, 0.05])
UNARY = sorted(name for name, row in TABLE.items() if row.unary)


def function(name):
    """A primitive of one operand as a function."""
    public = {
        "integer_pow": lambda x: lax.integer_pow(x, 3),
        "one_minus_square": lambda x: 1 - x * x,
    }
    return public.get(name) or getattr(lax, name, None)


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_value(name):
    row, f = of(name), function(name)
    if f is None or (name == "integer_pow"):
        assert name in (
            "integer_pow",
            "log2",
        )  # no public name on one of the versions, or none of its own
        return
    shift = 1.5 if name == "acosh" else 0.0
    y = f(X + shift)
    if row.zero is not None:
        np.testing.assert_allclose(f(jnp.zeros(())), row.zero, atol=1e-15)
    elif name not in ("acosh",):
        assert not jnp.isfinite(f(jnp.zeros(())))
    if row.parity:
        np.testing.assert_allclose(f(-X), row.parity * f(X), rtol=1e-14)
    if row.degree is not None:
        for c in (0.25, 3.0):
            np.testing.assert_allclose(f(c * X), c**row.degree * f(X), rtol=1e-14)
    if row.sign == ">=0":
        assert (f(X - (0.4 if row.zero is not None and name != "sqrt" else 0)) >= 0).all()
    if row.sign == "keeps":
        assert (y >= 0).all()
    if row.exponential:
        np.testing.assert_allclose(f(X), row.exponential**X, rtol=1e-14)
    if row.logarithm:
        np.testing.assert_allclose(row.logarithm ** f(X), X, rtol=1e-14)
    if row.dead:
        assert (jax.vmap(jax.grad(f))(X) == 0).all()
    # element by element: another element changes nothing
    np.testing.assert_array_equal(f((X + shift).at[0].set(0.9 + shift))[1:], y[1:])


LINEAR = sorted(set(CASES) & {n for n, row in TABLE.items() if row.linear == (ALL,)})


@pytest.mark.parametrize("name", LINEAR)
def test_linear_in_what_is_explained(name):
    """f(x + y) - f(x) = f(y) - f(0): affine in the live operand of its line."""
    case = CASES[name]
    y = jax.tree.map(lambda a: jnp.cos(3 * a + 1), case.x)
    zero = jax.tree.map(jnp.zeros_like, case.x)
    both = jax.tree.map(jnp.add, case.x, y)
    f, near = case.fun, 1e-6 if name == "convert_element_type" else 1e-9  # to 32 bits and back
    np.testing.assert_allclose(f(both) - f(case.x), f(y) - f(zero), rtol=near, atol=near)


MOVES = {
    "broadcast_in_dim": lambda x: jnp.broadcast_to(x, (3, 4)),
    "reshape": lambda x: x.reshape(2, 2),
    "transpose": lambda x: x.reshape(2, 2).T,
    "rev": lambda x: x[::-1],
    "slice": lambda x: x[1:3],
    "squeeze": lambda x: lax.squeeze(x[None], (0,)),
    "concatenate": lambda x: jnp.concatenate([x, x]),
    "gather": lambda x: x[jnp.array([2, 0])],
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1,), (2,)),
    "pad": lambda x: lax.pad(x, x[0], [(1, 0, 0)]),
    "copy": jnp.copy,
    "optimization_barrier": lax.optimization_barrier,
    "reduce_precision": lambda x: lax.reduce_precision(x, 11, 52),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_values_gives_nothing_else(name):
    assert of(name).moves
    y = MOVES[name](X)
    assert np.isin(y, X).all()
    if of(name).identity:
        np.testing.assert_array_equal(y, X)


@pytest.mark.parametrize(
    ("name", "fun"),
    [
        ("sub", lambda x: lax.sub(*x)),
        ("add", lambda x: lax.add(*x)),
        ("mul", lambda x: lax.mul(*x)),
        ("dot_general", lambda x: lax.dot(*x)),
        ("div", lambda x: lax.div(*x)),
        ("max", lambda x: lax.max(*x)),
        ("min", lambda x: lax.min(*x)),
    ],
)
def test_signs(name, fun):
    """Coefficients are >= 0, but where the row says minus; values >= 0 stay so where it says."""
    row = of(name)
    if row.signed and ALL in row.linear:
        for k in range(2):
            unit = [jnp.zeros(()), jnp.zeros(())]
            unit[k] = jnp.ones(())
            assert (fun(unit) >= 0) != (k in row.negated)
    if row.sign == "keeps":
        assert (fun([X, X + 1]) >= 0).all()
    if row.sign == "any":
        assert (fun([X, -X]) >= 0).all() and (fun([-X, X]) >= 0).all()


def test_no_feature_keeps_a_list_of_its_own():
    """Whole columns are read off the rows."""
    assert {n for n, r in TABLE.items() if r.linear == (ALL,)} - primitives.SUM == primitives.LINEAR
    assert {n for n, r in TABLE.items() if r.moves} == primitives.STRUCTURAL
    assert all(TABLE[name].name == name for name in TABLE)
    assert of("no such primitive").linear == ()
