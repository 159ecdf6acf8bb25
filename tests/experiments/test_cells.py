"""Networks without cells, the scores of presets on them, and rules that are learned."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from experiments import idsds, learn_rules, sanity
from experiments.cells import explained, learned, references
from experiments.cells.networks import GRID, NETWORKS, without_cells
from experiments.networks.digits import Digits
from jaxrel import metrics, rulesets

FEW = ("integrated gradients", "integrated gradients, own halves", "gradient", "slope", "random")


@pytest.fixture
def few(monkeypatch):
    """Few methods instead of all."""
    methods = {name: idsds.METHODS[name] for name in FEW}
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


def test_the_best_preset_is_chosen_on_other_pictures(monkeypatch):
    """One of one pass, and one of all; rivals are no presets, whatever they compare with."""
    ig, halves, own = "integrated gradients", "integrated gradients, own halves", "b, own halves"
    chosen = {ig: 0.9, halves: 0.95, "gradient": 0.85, "a": 0.7, "b": 0.6, own: 0.8, "random": 0.0}
    test = {ig: 0.5, halves: 0.3, "gradient": 0.4, "a": 0.6, "b": 0.7, own: 0.1, "random": 0.8}
    noise = np.linspace(-0.1, 0.1, 20)
    monkeypatch.setitem(idsds.PASSES, own, 2)
    rows = idsds.table("cnn", *({m: s + noise for m, s in of.items()} for of in (chosen, test)), 2)
    assert [row[1] for row in rows] == ["random", "b", "a", ig, "gradient", halves, own]
    assert {row[1]: row[-1] for row in rows if row[-1]} == {"a": "of one pass", own: "of all"}
    over = {row[1]: dict(zip(idsds.COLUMNS, row, strict=True)) for row in rows}
    assert over["random"]["passes"] == 0 and over[ig]["passes"] == 24 and over[own]["passes"] == 2
    np.testing.assert_allclose(over["b"]["over integrated gradients"], 0.2)
    np.testing.assert_allclose(over["b"]["over integrated gradients, own halves"], 0.4)
    np.testing.assert_allclose(over["b"]["over integrated gradients against the same"], 0.2)
    np.testing.assert_allclose(over[own]["over integrated gradients against the same"], -0.2)
    np.testing.assert_allclose(over["b"]["over gradient, standard error"], 0, atol=1e-12)
    assert "<- best of all" in idsds.report(rows).splitlines()[-1]


@pytest.fixture(scope="module")
def untrained():
    """A CNN's function of two pictures, and these."""
    variables = NETWORKS["cnn"].init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    variables = jax.tree.map(lambda leaf: leaf + 0.02, variables)  # biases that are not 0
    images = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))
    return explained_by(variables), images


def explained_by(variables):
    return lambda x: NETWORKS["cnn"].apply(variables, x)[:, 3]


@pytest.mark.parametrize("squares", [4, 7])
def test_parts_cover_a_picture_square_by_square(squares):
    """Each pixel is in one part; squares beside each other are in different ones."""
    for parts in (references.halves(squares), references.quarters(squares)):
        np.testing.assert_array_equal(parts.sum(0), 1)
        side = 28 // squares
        at = np.asarray(parts)[:, ::side, ::side, 0]
        np.testing.assert_array_equal(at.repeat(side, 1).repeat(side, 2)[..., None], parts)
        assert not (at[:, 1:] & at[:, :-1]).any() and not (at[:, :, 1:] & at[:, :, :-1]).any()


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("compare_to_baseline, own halves", references.halves()),
        ("compare_to_baseline, own quarters", references.quarters()),
        ("compare_to_baseline, own halves of other cells", references.halves(7)),
    ],
)
def test_each_part_gets_what_the_answer_loses_without_it(method, parts, untrained):
    fun, images = untrained
    explain, passes = references.METHODS[method]
    assert passes == len(parts)
    found = jax.jit(lambda x: explain(fun, x))(images)
    for part in parts:
        loses = fun(images) - fun(images * ~part)
        np.testing.assert_allclose((found * part).sum((1, 2, 3)), loses, rtol=1e-5, atol=1e-5)


def test_integrated_gradients_of_parts_are_the_sum_of_those_from_each(untrained):
    fun, images = untrained
    explain, passes = references.METHODS["integrated gradients, own halves"]
    assert passes == 2 * explained.STEPS
    gradient = jaxrel.relevance(fun, "gradient")
    expected = sum(
        jaxrel.integrated(gradient, images * ~part, explained.STEPS)(images)
        for part in references.halves()
    )
    np.testing.assert_allclose(explain(fun, images), expected, rtol=1e-4, atol=1e-6)


def test_the_row_with_gamma_compares_with_black(untrained):
    """It adds up as without gamma, and is another map."""
    fun, images = untrained
    explain, _ = references.METHODS["compare_to_baseline, gamma 0.03"]
    found = explain(fun, images)
    loses = fun(images) - fun(images * 0)
    np.testing.assert_allclose(found.sum((1, 2, 3)), loses, rtol=1e-4)
    plain = jaxrel.relevance(fun, "compare_to_baseline", baseline=0.0)(images)
    assert 1e-3 < np.abs(found - plain).max() / np.abs(plain).max() < 0.5


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
