"""absLRP, restated densely in relevance form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import RuleSet, rules
from tests import oracle

RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 4))
B = RNG.normal(size=4)


def absolute(
    x: np.ndarray, W: np.ndarray, b: np.ndarray, R: np.ndarray, eps: float
) -> oracle.Split:
    """The paper's rule before it is scaled: W of shape (outputs, inputs), R that of the outputs."""
    z = W * x
    s = R / (np.abs(z.sum(1) + b) + eps)
    return oracle.Split((z + np.abs(z)).T @ s, (b + np.abs(b)) * s)


def relevance(fun, x, **options):
    return jaxrel.relevance(fun, RuleSet(matmul=rules.Absolute(**options)))(x)


@pytest.mark.parametrize("eps", [1e-9, 0.5])
@pytest.mark.parametrize("relu", [False, True])
def test_dense(eps, relu):
    """Each example is scaled to what arrives there; a relu in front tells that x >= 0."""
    x, m = RNG.normal(size=(3, 6)), RNG.normal(size=(3, 4))
    fun = lambda x: ((jax.nn.relu(x) if relu else x) @ W + B) * m  # noqa: E731
    own = np.maximum(x, 0) if relu else x
    R = (own @ W + B) * m
    splits = [absolute(a, W.T, B, r, eps) for a, r in zip(own, R, strict=True)]
    unscaled = np.array([split.inputs for split in splits])
    expected = unscaled * oracle.ratio(R.sum(1), unscaled.sum(1))[:, None]
    np.testing.assert_allclose(relevance(fun, x, eps=eps), expected, rtol=1e-9, atol=1e-12)
    found = relevance(fun, x, eps=eps, normalize=False)
    np.testing.assert_allclose(found, unscaled, rtol=1e-9, atol=1e-12)
    given = RuleSet(matmul=rules.Absolute(eps, normalize=False))
    _, biases = jaxrel.relevance(fun, given, biases="total")(x)
    np.testing.assert_allclose(biases, sum(split.bias.sum() for split in splits), rtol=1e-9)


def test_convolution_by_its_matrix():
    image, kernel = RNG.normal(size=(5, 5, 2)), RNG.normal(size=(3, 3, 2, 3))

    def fun(x):
        return lax.conv_general_dilated(
            x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]

    matrix, bias = oracle.dense(fun, image.shape)
    split = absolute(image.ravel(), matrix, bias, (matrix @ image.ravel()), 1e-9)
    found = relevance(lambda x: fun(x[0])[None], image[None], normalize=False)
    np.testing.assert_allclose(found.ravel(), split.inputs, rtol=1e-9)


def test_examples_do_not_mix():
    """In a batch, under vmap, and one at a time; and where there are no more dimensions."""
    x = RNG.normal(size=(3, 2, 6))
    fun = lambda x: jax.nn.relu(x @ W + B) @ W.T  # noqa: E731
    together = relevance(fun, x)
    np.testing.assert_allclose(together.sum((1, 2)), fun(x).sum((1, 2)), rtol=1e-12)
    apart = jax.vmap(lambda x: relevance(fun, x, examples=0))(x)
    np.testing.assert_allclose(apart, together, rtol=1e-12)
    alone = relevance(fun, x[0, 0])
    np.testing.assert_allclose(relevance(fun, x[:, :1])[0, 0], alone, rtol=1e-12)


def test_zeros():
    """Where nothing is positive, or nothing is there at all, there is nobody to hand it to."""
    for x in (jnp.zeros((2, 6)), jnp.ones((2, 6))):
        assert np.isfinite(relevance(lambda x: x @ -np.abs(W), x)).all()
        derivative = jax.grad(lambda x: relevance(lambda x: x @ -np.abs(W), x).sum())(x)
        assert np.isfinite(derivative).all()
    np.testing.assert_array_equal(relevance(lambda x: x @ -np.abs(W), jnp.ones((2, 6))), 0)
