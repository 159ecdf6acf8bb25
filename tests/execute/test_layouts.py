"""Operations that lie in memory by rows beside those that lie by columns, on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrel import relevance

X = jax.random.normal(jax.random.key(0), (4, 4))
I3 = jnp.eye(4) * 3


def power(x):
    """A filter of rows."""
    return jnp.fft.irfft(jnp.fft.rfft(x) ** 2, 4)


PROGRAMS = {
    "a sum": lambda x: jnp.linalg.solve(I3 + x, x) + power(x),
    "mapped": lambda x: jax.vmap(lambda x: jnp.linalg.qr(x)[0] * power(x))(x[None]),
    "filtered afterwards": lambda x: power(jnp.linalg.inv(I3 + x)),
    "filtered before": lambda x: jnp.linalg.inv(I3 + jnp.fft.ifft(jnp.fft.fft(x) * 1j).imag),
    "in a loop": lambda x: lax.scan(
        lambda x, _: (jnp.linalg.solve(I3 + x, power(x)), None), x, None, 2
    )[0],
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("rules", ["slope", "epsilon_plus"])
def test_fft_beside_linear_algebra(name, rules):
    """XLA gives an fft the layout of its neighbours, and its fft for CPUs refuses to run by it."""
    fun = relevance(PROGRAMS[name], rules)
    np.testing.assert_allclose(jax.jit(fun)(X), fun(X), rtol=1e-9, atol=1e-12)


def test_layouts_can_be_mapped_and_differentiated():
    loss = lambda x: (relevance(PROGRAMS["a sum"], "epsilon")(x) ** 2).sum()  # noqa: E731
    found = jax.jit(jax.vmap(jax.grad(loss)))(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(found[1], jax.grad(loss)(2 * X), rtol=1e-8, atol=1e-12)
