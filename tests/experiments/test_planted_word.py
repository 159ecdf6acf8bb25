"""`experiments.planted_word`: its grammar, its composites, its losses, and its command line."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import planted_word
from experiments.backgrounds import recipes as known
from experiments.planted import grammar, network, recipes
from jaxrel import training


@pytest.fixture(scope="module")
def data():
    return grammar.make(0, train=120, validation=60, test=80)


def words(tokens):
    return [grammar.WORDS[token] for token in tokens]


def test_the_rationale_decides_the_class(data):
    assert len(set(grammar.WORDS)) == len(grammar.WORDS)
    for tokens, mask, label, place in zip(*data.train, strict=True):
        degree, adjective = words(tokens[mask > 0])
        assert place == np.flatnonzero(mask)[0] and mask[place + 1] == 1
        denied, praised = degree in grammar.DENY, adjective in grammar.PRAISE
        assert denied or degree in grammar.AFFIRM
        assert praised or adjective in grammar.BLAME
        assert label == (praised != denied)


def test_training_is_confounded_and_the_test_is_not(data):
    for sentences in (data.train, data.validation):
        planted = sentences.tokens < len(grammar.PLANTED)
        assert (planted.sum(1) == 1).all() and not (planted * sentences.masks).any()
        np.testing.assert_array_equal(sentences.tokens[planted], sentences.labels)
    assert len(set(np.argwhere(data.train.tokens < 2)[:, 1])) > 10  # it stands anywhere
    assert (data.tests[0] != data.tests[1]).sum(1).tolist() == [1] * 80
    loose = data.deconfounded[data.train.tokens < 2]
    assert 0.3 < (loose == data.train.labels).mean() < 0.7
    np.testing.assert_array_equal(
        grammar.make(1, 9, 9, 80).tests, data.tests, "the test depends on the seed"
    )


def test_a_composite_is_a_sentence_of_the_other_class_with_this_rationale(data):
    given = recipes.given(data.train)
    everything = np.arange(120)
    tokens = np.asarray(recipes.swapped(jax.random.key(0), everything, given))
    inside = data.train.masks > 0
    np.testing.assert_array_equal(tokens[inside], data.train.tokens[inside])
    np.testing.assert_array_equal(tokens[tokens < 2], 1 - data.train.labels)
    others = np.asarray(recipes.partners(jax.random.key(0), everything, given))
    np.testing.assert_array_equal(data.train.places[others], data.train.places)


def test_the_recipe_is_its_composites(data):
    """The relevance of all that differs adds up to the change, through softmax and norms."""
    loss = recipes.loss(recipes.BEST)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), network.initial(0))
    given, batch, key = recipes.given(data.train), jnp.arange(12), jax.random.key(3)

    def direct(params):
        x, labels = given["tokens"][batch], given["labels"][batch]
        other = recipes.swapped(key, batch, given)
        logits, others = (network.read(params, network.embed(params, t)) for t in (x, other))
        value, left = training.margin(logits, labels), training.margin(others, labels)
        task = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (task + 0.3 * (value - left) ** 2 + jax.nn.softplus(-left)).mean()

    found = jax.jit(jax.value_and_grad(lambda p: loss(p, key, batch, given, 0.3)))(params)
    for mine, other in zip(
        *map(jax.tree.leaves, (found, jax.jit(jax.value_and_grad(direct))(params))), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-7, atol=1e-9)


def test_a_recipe_is_given_no_more_than_its_information(data):
    for recipe in recipes.RECIPES:
        masked = {"masks", "places"} if recipe.information == "masks" else set()
        found = recipes.arrays(recipe, data)
        assert set(found) == {"tokens", "labels"} | masked
        same = np.array_equal(found["tokens"], data.train.tokens)
        assert same == (recipe.information != "oracle")
    assert set(recipes.QUICK) <= {recipe.name for recipe in recipes.RECIPES}


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_every_loss_has_a_gradient(data):
    params, batch = network.initial(0), jnp.arange(16)
    for recipe in recipes.RECIPES:
        loss = recipes.loss(known.anonymous(recipe))
        given = recipes.arrays(recipe, data)
        slope = jax.jit(jax.grad(loss))(params, jax.random.key(0), batch, given, 0.1)
        sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)]
        assert all(map(np.isfinite, sizes)) and sizes[0] > 0, recipe.name


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    made = grammar.make(0, train=130, validation=40, test=40)
    monkeypatch.setattr(grammar, "make", lambda seed, train: made)
    arguments = ["--recipes", "plain,compare+counterfactual", "--seeds", "1", "--epochs", "1"]
    assert planted_word.main([*arguments, "--output", str(tmp_path)]) == 0
    assert "| plain | none | 0 | 1 |" in capsys.readouterr().out
    with (tmp_path / "planted_word.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and sum(row["chosen"] == "True" for row in rows) == 2
    for row in rows:
        gap = float(row["in_mask_trained"]) - (1 - float(row["validation_flips"]))
        assert abs(gap - float(row["goodhart_gap"])) < 2e-4
    assert (tmp_path / "planted_word.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "plain,magic"], "--recipes: no 'magic'; there are plain, oracle"),
        (["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (["--seeds", "0"], "expected a positive number"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert planted_word.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
