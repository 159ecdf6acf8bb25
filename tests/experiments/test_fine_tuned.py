"""`experiments.fine_tuned`: its pictures, the two parts of its network, and its command line."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import fine_tuned
from experiments.backgrounds import animals
from experiments.backgrounds import pictures as small
from experiments.networks.efficientnet import EfficientNetLite0
from experiments.tuned import network, pictures, recipes
from tests.experiments.test_dogs_and_wolves import silhouettes

pytestmark = pytest.mark.usefixtures("default_precision")


@pytest.fixture(scope="module")
def split():
    return small.split(*silhouettes(120))


def test_pictures_differ_by_the_background_alone(split):
    made = pictures.make(split["train"], np.random.default_rng(0), 8)
    assert made.images.shape == (3, 8, 96, 96, 3) and made.labels.tolist() == [0] * 4 + [1] * 4
    assert 0 <= made.images.min() < 0.2 and 0.8 < made.images.max() <= 1
    inside = np.broadcast_to(made.masks > 0, made.images[0].shape)
    for one, other in zip(made.images, made.images[[1, 2, 0]], strict=True):
        np.testing.assert_array_equal(one[inside], other[inside])
        assert (one[~inside] != other[~inside]).mean() > 0.9
    np.testing.assert_array_equal(made.confounded()[:4], made.images[0, :4])
    np.testing.assert_array_equal(made.confounded()[4:], made.images[1, 4:])
    grass, snow, _ = pictures.backgrounds().mean((1, 2))
    assert grass.argmax() == 1 and snow.min() > 0.5  # green, and bright


def test_the_test_has_crops_of_its_own(split):
    """No row of background pixels is in both halves of a texture."""
    rng = np.random.default_rng
    train = pictures.make(split["train"], rng(0), 20).images[0].reshape(-1, 96 * 3)
    test = pictures.make(split["test"], rng(0), 20, test=True).images[0].reshape(-1, 96 * 3)
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


@pytest.mark.full
@pytest.mark.parametrize("block", [1, 5, 16])
def test_two_parts_are_the_whole(block):
    x = jax.random.normal(jax.random.key(0), (2, 40, 32, 3))
    variables = jax.jit(EfficientNetLite0(classes=3).init)(jax.random.key(1), x)
    first, second = EfficientNetLite0(stop=block), EfficientNetLite0(classes=3, start=block)
    both = jax.jit(lambda v, x: second.apply(v, first.apply(v, x)))
    whole = jax.jit(EfficientNetLite0(classes=3).apply)
    np.testing.assert_allclose(both(variables, x), whole(variables, x), rtol=1e-5, atol=1e-6)


def test_what_is_trained():
    names = set(network.trained())
    assert {"classifier/bias", "head/conv/kernel", "block_5/depthwise/norm/scale"} <= names
    for kept in (
        "stem/conv/kernel",
        "block_4/expand/conv/kernel",
        "block_5/depthwise/conv/kernel",
    ):
        assert kept not in names
    assert not np.any(network.trained()["classifier/kernel"])


@pytest.mark.full
def test_from_the_command_line(split, tmp_path, monkeypatch, capsys):
    def scaled(images):
        return images[:, ::8, ::8].repeat(2, -1)

    def logits(params, features):
        return jnp.tanh(features.mean((1, 2)) @ params["weights"])

    monkeypatch.setattr(animals, "fetch", lambda cache: cache)
    monkeypatch.setattr(animals, "load", lambda wheel: silhouettes(240))
    for room in (network, recipes):
        monkeypatch.setattr(room, "features", scaled)
        monkeypatch.setattr(room, "logits", logits)
    monkeypatch.setattr(recipes, "_logits", jax.jit(logits))
    weights = jax.random.normal(jax.random.key(0), (6, 2))
    monkeypatch.setattr(network, "trained", lambda: {"weights": weights})
    arguments = ["--quick", "--pictures", "48", "--output", str(tmp_path)]
    for _ in range(2):  # the second reads what is finished
        assert fine_tuned.main(arguments) == 0
        assert "| plain | none | 0 | 1 |" in capsys.readouterr().out
    with (tmp_path / "fine_tuned.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == [recipe.name for recipe in recipes.RECIPES]
    for row in rows:
        gap = float(row["in_mask_trained"]) - (1 - float(row["validation_flips"]))
        assert abs(gap - float(row["goodhart_gap"])) < 2e-4
    assert (tmp_path / "fine_tuned.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "magic"], "--recipes: no 'magic'; there are plain, oracle"),
        (["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (["--pictures", "-3"], "--pictures: expected a positive number, got -3"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert fine_tuned.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
