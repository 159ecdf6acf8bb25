"""Networks without cells, the scores of presets on them, and rules that are learned."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import idsds, learn_rules, sanity
from experiments.cells import explained, learned
from experiments.cells.networks import GRID, NETWORKS, without_cells
from experiments.networks.digits import Digits
from jaxrel import metrics, rulesets

FEW = ("integrated gradients", "gradient", "slope", "random")


@pytest.fixture
def few(monkeypatch):
    """Four methods instead of all."""
    methods = {name: explained.methods()[name] for name in FEW}
    monkeypatch.setattr(idsds, "METHODS", methods)
    monkeypatch.setattr(sanity, "METHODS", methods)


def test_half_of_the_pictures_lack_one_cell():
    images = jnp.ones((2000, 28, 28, 1))
    lacking = np.asarray(without_cells(jax.random.key(0), images) == 0)[..., 0]
    sizes = lacking.sum((1, 2))
    assert set(sizes) == {0, 49}
    assert 0.45 < (sizes > 0).mean() < 0.55
    cells = {tuple(np.unique(GRID[0][picture])) for picture in lacking if picture.any()}
    assert cells == {(k,) for k in range(16)}


def test_every_preset_is_judged():
    presets = set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"}
    assert set(explained.methods()) == presets | {"integrated gradients", "random"}


def test_the_best_preset_is_chosen_on_other_pictures():
    chosen = {"integrated gradients": 0.9, "gradient": 0.8, "a": 0.7, "b": 0.6, "random": 0.0}
    test = {"integrated gradients": 0.5, "gradient": 0.4, "a": 0.6, "b": 0.7, "random": 0.8}
    noise = np.linspace(-0.1, 0.1, 20)
    rows = idsds.table("cnn", *({m: s + noise for m, s in of.items()} for of in (chosen, test)), 2)
    assert [row[1] for row in rows] == ["random", "b", "a", "integrated gradients", "gradient"]
    assert [row[1] for row in rows if row[-1]] == ["a"]
    over = dict(zip(idsds.COLUMNS, rows[1], strict=True))
    np.testing.assert_allclose(over["over integrated gradients"], 0.2)
    np.testing.assert_allclose(over["over integrated gradients, standard error"], 0, atol=1e-12)


def test_the_hand_is_chosen_on_other_pictures():
    noise = np.linspace(-0.1, 0.1, 20)
    hands = dict(zip(learned.HANDS, (0.5, 0.9, 0.7, 0.6, 0.8, 0.2), strict=True))
    chosen = {"slope": 0.4 + noise, "gradient": 0.3 + noise} | {
        h: s + noise for h, s in hands.items()
    }
    test = {name: 1 - values for name, values in chosen.items()}
    rows = learn_rules.table("cnn", [(chosen, test, {hand: {} for hand in hands})] * 2)
    assert [row[1] for row in rows] == ["slope", *hands]
    assert [row[1] for row in rows if row[-2]] == ["slope", "gammas by layer and sign"]
    np.testing.assert_allclose(
        [row[4] for row in rows], [0, -0.1, -0.5, -0.3, -0.2, -0.4, 0.2], atol=1e-7
    )


@pytest.mark.parametrize("softer", [0.0, 1.0])
def test_soft_gates_and_pools_that_are_hard_are_the_gradient(softer):
    """At large betas; and they are not where betas are small."""
    variables = NETWORKS["cnn"].init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    images = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))
    fun = learned.label_logit("cnn", variables, jnp.arange(2))
    explain, start = learned.HANDS["soft gates by channel"]
    numbers = {key: value * 0 + 16 * ("beta" in key) * (1 - softer) for key, value in start.items()}
    found = explain(jax.tree.map(jnp.asarray, numbers), fun, images)
    alike = metrics.pearson(
        found.reshape(2, -1), (images * jax.grad(lambda x: fun(x).sum())(images)).reshape(2, -1)
    )
    assert (np.asarray(alike) > 0.99).all() == (softer == 0)


@pytest.mark.full
@pytest.mark.parametrize("hand", learned.HANDS)
def test_learning_finds_what_the_relevance_should_be(hand, monkeypatch):
    """Drops that are the relevance of some numbers: learning brings the maps nearer to them."""
    monkeypatch.setattr(learned, "STEPS", 10)
    monkeypatch.setattr(learned, "BATCH", 10)
    variables = NETWORKS["cnn"].init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    images = jax.random.uniform(jax.random.key(1), (20, 28, 28, 1))
    digits = Digits(images, np.arange(20, dtype=np.int32) % 10)
    explain, start = learned.HANDS[hand]
    numbers = {key: jnp.asarray(value) for key, value in start.items()}
    moved = ("gamma", "log beta", "shift")
    other = {key: value + 2 * key.startswith(moved) for key, value in numbers.items()}
    fun = learned.label_logit("cnn", variables, jnp.asarray(digits.labels))
    lost = metrics.part_sums(explain(other, fun, images), GRID)
    learned.learner.cache_clear()
    found = learned.learner("cnn", hand)(variables, digits, lost, jax.random.key(2))
    learned.learner.cache_clear()

    def alike(numbers):
        return float(metrics.surrogate(explain(numbers, fun, images), lost, GRID).mean())

    assert alike(found) > alike(numbers)


@pytest.mark.full
@pytest.mark.usefixtures("default_precision", "few")
def test_from_the_command_line(tmp_path, capsys):
    assert idsds.main(["--quick", "--networks", "cnn", "--output", str(tmp_path / "idsds")]) == 0
    with (tmp_path / "idsds" / "idsds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(FEW)
    assert (tmp_path / "idsds" / "idsds.png").exists()
    assert sanity.main(["--quick", "--output", str(tmp_path / "sanity")]) == 0
    with (tmp_path / "sanity" / "sanity.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert 0 < float(rows["gradient"]["up to a sign, down to conv_1"]) < 0.5
    assert (
        float(rows["random"]["up to a sign, down to conv_1"]) == 1
    )  # the same draws, whatever f is
    capsys.readouterr()


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (idsds.main, ["--networks", "cnn,gru"], "--networks: no 'gru'; there are cnn"),
        (idsds.main, ["--seeds", "0"], "--seeds: expected a positive number, got 0"),
        (learn_rules.main, ["--seeds", "-1"], "--seeds: expected a positive number, got -1"),
        (sanity.main, ["--output", "missing/folder"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
