"""Programs compiled to transformers, and what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compiled
from experiments.rasp.explained import methods
from experiments.rasp.programs import PROGRAMS
from tests.checks import needs

BY_NAME = {program.name: program for program in PROGRAMS}


def test_what_matters_is_what_would_change_the_output():
    reverse = BY_NAME["reverse"].matters(lambda tokens: tokens[::-1], list("abcab"))
    np.testing.assert_array_equal(reverse, np.eye(5, dtype=bool)[::-1])
    share = BY_NAME["share of a before"]
    shares = lambda t: [float(np.mean(np.array(t[: k + 1]) == "a")) for k in range(5)]  # noqa: E731
    np.testing.assert_array_equal(
        share.matters(shares, list("abcab")),
        [[c == "a" and p <= k for p, c in enumerate("abcab")] for k in range(5)],
    )
    distinct = BY_NAME["sort, distinct"]
    assert all(len(set(s)) == 4 for s in distinct.sequences(0, 20))
    # 6 in the place of 2 goes to the end: all from there on move up
    changed = distinct.matters(sorted, [1, 2, 3, 4])[:, 1]
    np.testing.assert_array_equal(changed, [False, True, True, True])


def test_there_are_programs_of_every_kind():
    assert len(PROGRAMS) >= 20 and len(BY_NAME) == len(PROGRAMS)
    kinds = {program.needs for program in PROGRAMS}
    assert kinds == {"none", "positions", "means", "counts", "values"}


@needs("tracr-pypi")
@pytest.mark.usefixtures("default_precision")
def test_a_program_that_moves_tokens_is_explained(monkeypatch):
    chosen = {name: methods()[name] for name in ("cp_lrp", "slope", "random")}
    monkeypatch.setattr(compiled, "METHODS", chosen)
    name, _, outputs, *scores = compiled.judge(BY_NAME["reverse"], 0, 4)
    assert (name, outputs) == ("reverse", 20)
    assert scores[:2] == [1, 1] and scores[2] < 0.9


@needs("tracr-pypi")
@pytest.mark.usefixtures("default_precision")
def test_nothing_of_the_transformer_is_a_constant_of_the_program():
    """XLA would compute with it while it compiles, and not always the same."""
    program = BY_NAME["next letter"]
    made, model = compiled.compiled(program)
    asked, right = compiled.ask(model, made, program.sequences(0, 2), program.tokens)
    assert right.all() and jax.tree.leaves(asked.params)
    closed = jax.make_jaxpr(methods()["slope"])(asked)
    assert max((np.size(constant) for constant in closed.consts), default=0) <= 1


def test_rounding_is_no_order():
    found = compiled._rounded(np.array([[1.0, 1e-7, -2e-7, 0.5]]))
    assert jnp.array_equal(found, jnp.array([[1.0, 0, 0, 0.5]]))
