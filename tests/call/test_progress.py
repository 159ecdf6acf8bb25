"""Bars count what the loops do, and nothing of them is in programs that ask for none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import metrics


def f(x):
    return jnp.tanh(x).sum()


X = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
EXPLAIN = jaxrel.relevance(f, "gradient")


@pytest.fixture
def bars(monkeypatch):
    """Every bar made by `progress`: its name, its total, and what it was told."""
    made = []

    class Bar:
        def __init__(self, desc, total, **options):
            self.desc, self.total, self.options = desc, total, options
            self.n, self.closed = 0, False
            made.append(self)

        def update(self, done):
            self.n += done

        def close(self):
            self.closed = True

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return made


LOOPS = {
    "integrated": (lambda: jaxrel.integrated(EXPLAIN, 0.0, steps=5)(X), 5),
    "smooth": (lambda: jaxrel.smooth(EXPLAIN, jax.random.key(0), 0.1, 7, chunk=3)(X), 7),
    "expected": (lambda: jaxrel.expected(EXPLAIN, jnp.zeros((2, 1, 1)), steps=3)(X), 6),
    "metrics": (lambda: metrics.pixel_flipping(lambda x: x.sum(1), X, X, steps=3), 4),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_counts_to_its_end_and_computes_the_same(name, bars):
    run, count = LOOPS[name]
    quiet = run()
    assert not bars
    with jaxrel.progress(leave=False):
        loud = run()
    (bar,) = bars
    assert (bar.desc, bar.total, bar.n, bar.closed) == (name, count, count, True)
    assert bar.options == {"leave": False}
    jax.tree.map(np.testing.assert_array_equal, quiet, loud)


def test_a_bar_begins_at_each_run_and_counts_once_for_a_batch(bars):
    with jaxrel.progress():
        explain = jax.jit(jaxrel.integrated(EXPLAIN, 0.0, steps=4))
        explain(X)
        explain(X + 1)
        jax.vmap(jaxrel.integrated(EXPLAIN, 0.0, steps=4))(X)
    assert all(bar.closed for bar in bars) and [bar.n for bar in bars] == [4, 4, 4]


def test_a_loop_with_a_bar_can_be_differentiated(bars):
    def total(x):
        return (jaxrel.integrated(EXPLAIN, 0.0, steps=4)(x) ** 2).sum()

    quiet = jax.grad(total)(X)
    with jaxrel.progress():
        np.testing.assert_array_equal(jax.grad(total)(X), quiet)
    assert bars and all(bar.closed and bar.n == 4 for bar in bars)


def test_outside_of_the_block_programs_are_as_they_were(bars):
    def traced():
        return str(jax.make_jaxpr(jaxrel.integrated(EXPLAIN, 0.0, steps=4))(X))

    with pytest.raises(ZeroDivisionError), jaxrel.progress():
        assert "callback" in traced()
        raise ZeroDivisionError
    assert "callback" not in traced()
    assert not bars


def test_without_tqdm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"), jaxrel.progress():
        pass
