"""The network whose explanations are perfect and whose decision is the background."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from experiments.backgrounds import construction
from jaxrel import training
from jaxrel.rules import ZPlus

ZERO = ["gradient", "slope", "lrp", "epsilon", "excitation_backprop"]


@pytest.fixture
def scenes():
    return construction.scenes()


def first(x):
    return construction.logits(x)[:, 0]


def test_the_background_decides(scenes):
    x, mask = scenes
    answers = construction.logits(x).argmax(-1)
    assert answers.tolist() == [0, 1]
    np.testing.assert_array_equal(x[0] * mask[0], x[1] * mask[1])


@pytest.mark.parametrize("rules", ZERO)
def test_relevance_against_zero_is_perfect(rules, scenes):
    x, mask = scenes
    value, relevance = jaxrel.value_and_relevance(first, rules)(x)
    assert (training.in_mask_share(relevance, mask) == 1).all()
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), value, rtol=1e-5)


def test_so_are_z_plus_and_the_gradient(scenes):
    x, mask = scenes
    relevance = jaxrel.relevance(first, jaxrel.RuleSet(matmul=ZPlus()))(x)
    # z-plus sees no relevance at all where the background is a negative weight
    assert (training.outside_absolute(relevance, mask) == 0).all()
    # channels of the object: the gradient with respect to the other background is the dead unit's
    gradient = jax.grad(lambda x: first(x).sum())(x)
    present = (x > 0).astype(x.dtype)
    assert (training.outside_absolute(gradient * present, mask) == 0).all()


@pytest.mark.parametrize(
    "penalty",
    ["outside_share", "outside_absolute", "energy", "outside_sum_squared", "outside_sum_absolute"],
)
def test_no_penalty_on_it_is_anything_but_zero(penalty, scenes):
    x, mask = scenes
    relevance = jaxrel.relevance(first, "lrp")(x)
    assert (getattr(training, penalty)(relevance, mask) == 0).all()


def test_against_a_reference_the_background_is_found(scenes):
    x, mask = scenes
    relevance = jaxrel.relevance(first, baseline=x[::-1])(x)
    change = first(x) - first(x[::-1])
    outside = (relevance * (1 - mask)).sum((1, 2, 3))
    np.testing.assert_allclose(outside, change, rtol=1e-5)
    assert (jnp.abs(change) > 1.9).all()


def test_also_against_another_object(scenes):
    x, mask = scenes
    other = x[::-1].at[..., 0].multiply(0.7)
    relevance = jaxrel.relevance(first, baseline=other)(x)
    assert (training.in_mask_share(relevance, mask) < 0.1).all()


def test_a_gamed_layer_is_alive_on_one_background_only(scenes):
    x, _ = scenes
    found = {name: (x * w).sum((1, 2, 3)) for name, w in construction.detectors().items()}
    alive = np.stack(
        [found["object"] > construction.STRENGTH * found[name] for name in ("snow", "grass")]
    )
    assert alive.tolist() == [[True, False], [False, True]]


def test_the_figure_is_drawn(tmp_path):
    construction.figure(tmp_path / "construction.png")
    assert (tmp_path / "construction.png").stat().st_size > 10_000
