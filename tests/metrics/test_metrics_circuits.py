"""Circuits: interventions on edges, and the areas under what they leave."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import metrics

A = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
B = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
X = jnp.asarray(np.random.default_rng(2).normal(size=(4, 5)))
CORRUPTED = jnp.asarray(np.random.default_rng(3).normal(size=(4, 5)))
NODES = {"a": -1, "b": -1}  # nodes: x, a[0 to 2], b[0 to 2]; the last column is the output


def fun(x: jax.Array) -> jax.Array:
    with jax.named_scope("a"):
        a = x @ A
    with jax.named_scope("b"):
        b = jnp.tanh(a) @ B
    return (jnp.tanh(b) + a**2).sum(-1)


def by_hand(kept: np.ndarray) -> jax.Array:
    """What each unit reads of those before, one after the other."""
    a0, names = CORRUPTED @ A, range(3)
    b0 = jnp.tanh(a0) @ B
    a = [(jnp.where(kept[0, 1 + j], X, CORRUPTED) @ A)[:, j] for j in names]
    read = lambda of, of0, first, column: [  # noqa: E731
        of[i] if kept[first + i, column] else of0[:, i] for i in names
    ]
    b = [(jnp.tanh(jnp.stack(read(a, a0, 1, 4 + j), 1)) @ B)[:, j] for j in names]
    ends = jnp.stack(read(a, a0, 1, 7), 1), jnp.stack(read(b, b0, 4, 7), 1)
    return (jnp.tanh(ends[1]) + ends[0] ** 2).sum(-1)


def test_edges_are_cut_one_by_one():
    run = jax.jit(metrics.patch_edges(fun, NODES, X, CORRUPTED))
    every = np.ones((7, 8), bool)
    np.testing.assert_allclose(run(every), fun(X), rtol=1e-12)
    np.testing.assert_allclose(run(~every), fun(CORRUPTED), rtol=1e-12)
    for seed in range(5):
        kept = np.random.default_rng(seed).random((7, 8)) < 0.6
        np.testing.assert_allclose(run(kept), by_hand(kept), rtol=1e-12)


def test_the_edges_of_a_graph_make_circuits():
    """Of a linear function relevance is what edges carry: the best circuit of every size."""
    scale = jnp.array([8.0, -4.0, 2.0])

    def linear(x: jax.Array) -> jax.Array:
        with jax.named_scope("a"):
            a = x @ A
        return a @ scale

    graph = jax.jit(jaxrel.graph(linear, "slope", {"a": -1}, baseline=CORRUPTED[0]))(X[0])
    run = metrics.patch_edges(linear, {"a": -1}, X[0], CORRUPTED[0])
    there = graph.edges != 0
    assert int(there.sum()) == 6  # into each unit and out of it
    sizes = np.arange(7) / 6
    curve = metrics.circuit_curve(run, graph.edges, among=there, fractions=sizes, chunk=3)
    np.testing.assert_allclose(curve[jnp.array([0, 6])], [0, 1], atol=1e-12)
    carried = ((X[0] - CORRUPTED[0]) @ A) * scale
    order = np.argsort(-abs(np.asarray(carried)))
    expected = np.cumsum(np.asarray(carried)[order]) / carried.sum()
    np.testing.assert_allclose(curve[jnp.array([2, 4, 6])], expected, rtol=1e-9)
    signed = metrics.circuit_curve(run, graph.edges, among=there, fractions=[1 / 3], absolute=False)
    np.testing.assert_allclose(signed, [carried.max() / carried.sum()], rtol=1e-9)


def test_tokens_and_examples():
    """Tokens are no node; one number for each example gives one curve for each."""
    table = jnp.asarray(np.random.default_rng(4).normal(size=(6, 5)))
    tokens, others = jnp.array([[1, 2], [0, 3]]), jnp.array([[4, 2], [5, 3]])

    def talk(tokens: jax.Array) -> jax.Array:
        with jax.named_scope("embed"):
            e = table[tokens]
        return fun(e.sum(1))

    nodes = {"embed": 1, "a": None}
    run = jax.jit(metrics.patch_edges(talk, nodes, tokens, others))
    every = np.ones((3, 4), bool)
    np.testing.assert_allclose(run(every), talk(tokens), rtol=1e-12)
    first = every.copy()
    first[0, 2] = False  # what the first position hands to layer a
    swapped = tokens.at[:, 0].set(others[:, 0])
    np.testing.assert_allclose(run(first), talk(swapped), rtol=1e-12)
    curve = metrics.circuit_curve(run, jnp.ones((3, 4)), fractions=[0.0, 0.5, 1.0])
    assert curve.shape == (3, 2)


def test_areas():
    curve = jnp.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    fractions = [0.0, 0.5, 1.0]
    np.testing.assert_allclose(metrics.cpr(curve, fractions), [1, 1])
    np.testing.assert_allclose(metrics.cmd(curve, fractions), [0.5, 0])
    np.testing.assert_allclose(metrics.cpr(jnp.ones(10)), 0.999)


def test_what_does_not_fit_is_told():
    run = metrics.patch_edges(fun, NODES, X, CORRUPTED)
    with pytest.raises(ValueError, match=r"kept: expected \(7, 8\), \(nodes, nodes \+ 1\)"):
        run(jnp.ones((3, 3), bool))
    with pytest.raises(ValueError, match="no place 'c' in this function"):
        metrics.patch_edges(fun, "c", X, CORRUPTED)
    with pytest.raises(ValueError, match="no axis 5 to be cut by"):
        metrics.patch_edges(fun, {"a": 5}, X, CORRUPTED)
    with pytest.raises(ValueError, match=r"x \(4, 5\) and corrupted \(5,\) differ"):
        metrics.patch_edges(fun, NODES, X, CORRUPTED[0])
    with pytest.raises(ValueError, match="fractions: expected numbers between 0 and 1"):
        metrics.circuit_curve(run, jnp.ones((7, 8)), fractions=[20.0])
    with pytest.raises(ValueError, match=r"first axis \(3,\) and fractions \(10,\) differ"):
        metrics.cpr(jnp.ones(3))

    def looped(x: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            with jax.named_scope("layer"):
                return jnp.tanh(x @ jnp.eye(5)), None

        return jax.lax.scan(step, x, None, 2)[0].sum(-1)

    with pytest.raises(ValueError, match="'layer' stands in a loop"):
        metrics.patch_edges(looped, "layer", X, CORRUPTED)
