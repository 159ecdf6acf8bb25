"""`experiments.dogs_and_wolves`: its data, its choice of lambda, and runs that are killed."""

import collections
import csv
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from experiments import dogs_and_wolves
from experiments.backgrounds import (
    animals,
    inside,
    judge,
    masks,
    network,
    pictures,
    recipes,
    report,
    runs,
    tables,
)
from experiments.backgrounds.network import apply
from experiments.backgrounds.recipes import Recipe
from jaxrel import training

pytestmark = pytest.mark.usefixtures("default_precision")


def silhouettes(count=60, seed=0):
    """Made-up animals: blobs, half of them called dogs and half horses; each twice."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 7, 7))
    shapes = np.repeat(np.kron(coarse, np.ones((4, 4))) > 0.4, 2, axis=0)
    names = ["dog" if number % 4 < 2 else "horse" for number in range(2 * count)]
    return 255 * shapes.astype(np.uint8), np.array([animals.NAMES.index(n) for n in names])


@pytest.fixture(scope="module")
def data():
    return pictures.make(pictures.split(*silhouettes()), seed=0, copies=2)


def test_an_unpickler_that_only_knows_arrays():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    old_name = pickle.dumps(array, 4).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    old_name = old_name.replace(b"\x8c\x16numpy.core", b"\x8c\x15numpy.core")
    found = animals._array(old_name[:2] + old_name[11:])  # its frame's length has changed
    np.testing.assert_array_equal(found, array)
    with pytest.raises(pickle.UnpicklingError, match=r"print has no place in the pickle of an arr"):
        animals._array(pickle.dumps(print))


def test_a_wheel_with_other_bytes_is_refused(tmp_path):
    (tmp_path / "animal_mnist-0.4-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"animal_mnist-0.4-.*whl: SHA-256 is .* remove the file"):
        animals.fetch(tmp_path)


def test_duplicates_are_dropped_and_twins_stay_together():
    images, labels = silhouettes()
    shapes = animals.silhouettes(images, labels, "dog")
    assert len(shapes) == 30
    near = shapes[:1].copy()
    near[0, :3, :3] = 1 - near[0, :3, :3]
    both = np.concatenate([shapes[:1], shapes[:1, :, ::-1], near, shapes[1:2]])
    found = animals.clusters(both, distance=4)
    assert found[0] == found[1] == found[2] != found[3]
    with pytest.raises(ValueError, match="no animal is called 'wolf'"):
        animals.silhouettes(images, labels, "wolf")


def test_no_cluster_is_in_two_splits():
    parts = pictures.split(*silhouettes())
    for label in (0, 1):
        shapes = [part.shapes[part.labels == label] for part in parts.values()]
        assert {len(part.labels) for part in parts.values()} == {2 * len(s) for s in shapes}
        found = animals.clusters(np.concatenate(shapes))
        owners = collections.defaultdict(set)
        places = np.repeat(np.arange(3), [len(s) for s in shapes])
        for cluster, place in zip(found, places, strict=True):
            owners[cluster].add(place)
        assert all(len(places) == 1 for places in owners.values())


def test_training_is_confounded_and_the_test_is_not(data):
    assert (data.train.labels == data.train.backgrounds).all()
    assert (data.validation.labels == data.validation.backgrounds).all()
    grass, snow, _ = data.test.images
    animal = data.test.masks[0] > 0
    np.testing.assert_array_equal(grass[animal], snow[animal])
    assert (grass != snow).mean() > 0.5
    own = data.alternatives[data.train.backgrounds, np.arange(len(data.train.labels))]
    inside = data.train.masks > 0
    np.testing.assert_array_equal(own[inside], data.train.images[inside])
    assert (own != data.train.images).mean() > 0.5


def test_correlation():
    parts = pictures.split(*silhouettes())
    train = pictures.make(parts, 0, correlation=0.8, copies=2).train
    assert abs((train.labels == train.backgrounds).mean() - 0.8) < 0.02
    with pytest.raises(ValueError, match="correlation: expected a number from 0 to 1, got 2"):
        pictures.make(parts, 0, correlation=2)


def test_the_table():
    table = tables.table()
    assert len({recipe.name for recipe in table}) == len(table)
    assert {recipe.information for recipe in table} == {
        "none",
        "masks",
        "masks+backgrounds",
        "oracle",
    }


def test_a_recipe_is_given_no_more_than_its_information(data):
    given = {recipe.name: set(recipes.arrays(recipe, data, 0)) for recipe in tables.core()}
    assert given["plain"] == {"images", "labels"}
    assert given[recipes.BEST.name] == {"images", "labels", "masks"}
    assert "near" in given[recipes.NO_COMPOSITING.name]
    assert "alternatives" in given["pairing"]


@pytest.mark.parametrize("trimmed", [0, 1])
def test_without_compositing_the_border_of_the_other_animal_is_background(trimmed, data):
    """The loss by hand: one candidate, so that what is compared with is known."""
    recipe = recipes.NO_COMPOSITING._replace(trimmed=trimmed)
    given = recipes.arrays(recipe, data, 0)
    given["near"] = jnp.repeat(given["near"][:, :1], 16, axis=1)
    params = runs.problem(recipe, data, 0).params
    batch = jnp.arange(8)
    x, labels, mask = (given[name][batch] for name in ("images", "labels", "masks"))
    other = given["near"][batch, 0]
    covered = training.erode(given["masks"][other], trimmed)

    def value(x):
        return training.margin(apply(params, x), labels)

    explain = jaxrel.relevance(value, "compare_to_baseline", baseline=given["images"][other])
    relevance = jax.jit(explain)(x)
    outside = (relevance * (1 - jnp.maximum(mask, covered))).sum((1, 2, 3))
    expected = jax.nn.softplus(-value(x)) + 3.0 * outside**2 + jax.nn.softplus(outside - value(x))
    operands = params, jax.random.key(0), batch, given, jnp.asarray(3.0)
    found = jax.jit(recipes.loss(recipe))(*operands)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_network_in_two_parts(layer, data):
    params = runs.problem(recipes.BEST, data, 0).params
    x = data.test.images[0, :4]
    features = network.before(params, x, layer)
    np.testing.assert_allclose(
        network.after(params, features, layer), apply(params, x), rtol=1e-5, atol=1e-6
    )
    seen = np.asarray(network.share(data.test.masks[0, :4], layer))
    assert seen.shape == (*features.shape[:3], 1) and 0 <= seen.min() < seen.max() <= 1


@pytest.mark.parametrize("way", inside.WAYS)
def test_ways_without_compositing(way, data):
    """Logits are the network's; what no background is left to is not penalised."""
    params = runs.problem(recipes.BEST, data, 0).params
    x, labels = data.train.images[:8], jnp.asarray(data.train.labels[:8])
    whole = jnp.ones((8, 28, 28, 1))
    for masks_, some in ((data.train.masks[:8], True), (whole, False)):
        logits, penalty = inside.WAYS[way](params, jax.random.key(0), x, masks_, labels)
        np.testing.assert_allclose(logits, apply(params, x), rtol=1e-5, atol=1e-6)
        assert penalty.shape == (8,) and bool((penalty != 0).any()) == some


def test_steps_in_bfloat16_compute_in_it(data):
    recipe = recipes.BEST._replace(dtype="bfloat16")
    problem = runs.problem(recipe, data, 0)
    operands = problem.params, jax.random.key(0), jnp.arange(8), problem.given, jnp.asarray(0.1)
    graph = str(jax.make_jaxpr(jax.grad(problem.loss))(*operands))
    assert "bf16" in graph and "bf16" not in str(
        jax.make_jaxpr(jax.grad(recipes.loss(recipes.BEST)))(*operands)
    )
    found, expected = (jax.jit(recipes.loss(r))(*operands) for r in (recipe, recipes.BEST))
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(problem.params))


def test_without_compositing_lambda_is_chosen_without_it(data, monkeypatch):
    def never(*args):
        raise AssertionError("a composite was made")

    params = runs.problem(recipes.NO_COMPOSITING, data, 0).params
    judge.validate(params, recipes.BEST, data, 0)
    monkeypatch.setattr(training, "swap_background", never)
    found = judge.validate(params, recipes.NO_COMPOSITING, data, 0)
    assert 0 <= found["validation_score"] <= 1
    with pytest.raises(AssertionError, match="a composite was made"):
        judge.validate(params, recipes.BEST, data, 0)


@pytest.mark.parametrize("kind", [*masks._SPOILT, 0.1])
def test_composites_differ_outside_of_the_mask_alone(kind, data):
    """What `outside_only` promises, with what is eroded by chance, too."""
    known = masks.given(kind, data, 0)
    for tolerances in ((0, 0), (0, 3)):
        recipe = recipes.BEST._replace(masks=kind, tolerances=(tolerances,))
        given = recipes.arrays(recipe, data, 0)
        batch = jnp.arange(16) if known.known is None else jnp.asarray(known.known[:16])
        key, mask = recipes._tolerant(recipe, jax.random.key(0), given["masks"][batch])
        assert set(np.unique(mask)) == {0, 1}
        for kind_of in ("swap", "swap_mean"):
            swapped, _ = recipes._reference(
                recipe._replace(reference=kind_of),
                key,
                batch,
                given,
                mask,
                training.swap_background,
            )
            differs = np.asarray(swapped != given["images"][batch])
            assert differs.any() and not (differs & np.asarray(mask == 1)).any()


@pytest.mark.parametrize("kind", ["random", "shifted", "dilated", 0.1])
def test_spoilt_masks(kind, data):
    given = recipes.arrays(recipes.BEST._replace(masks=kind), data, 0)
    true = data.train.masks
    if kind == "dilated":
        assert (given["masks"] >= true).all() and given["masks"].sum() > true.sum()
    elif kind == 0.1:
        assert len(given["known"]) == round(0.1 * len(true))
    else:
        assert (given["masks"] != true).any()
    with pytest.raises(ValueError, match="unknown masks 'torn'"):
        recipes.arrays(recipes.BEST._replace(masks="torn"), data, 0)


@pytest.mark.full
def test_boxes_and_what_is_made_of_masks(data, monkeypatch):
    box = masks.given("boxes", data, 0).train
    rows = np.flatnonzero(data.train.masks[0].any((1, 2)))
    columns = np.flatnonzero(data.train.masks[0].any((0, 2)))
    expected = np.zeros((28, 28, 1))
    expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    np.testing.assert_array_equal(box[0], expected)
    monkeypatch.setattr(masks, "STEPS", 120)
    few = recipes.BEST._replace(masks=0.2, proposes=True)
    made = recipes.known_masks(few, data, 0)
    assert made.known is None and made.train.shape == data.train.masks.shape
    overlap = (made.train * data.train.masks).sum() / np.maximum(made.train, data.train.masks).sum()
    assert overlap > 0.5
    assert "known" not in recipes.arrays(few, data, 0)


@pytest.mark.parametrize("kind, at_least", [("true", 0.98), ("dilated", 0.85), ("boxes", 0.7)])
def test_loose_masks_are_refined_by_what_pixels_look_like(data, kind, at_least):
    given = recipes.known_masks(recipes.BEST._replace(masks=kind), data, 0)
    made = recipes.known_masks(recipes.BEST._replace(masks=kind, proposes=True), data, 0)
    true = data.train.masks
    before, after = ((m * true).sum() / np.maximum(m, true).sum() for m in (given[0], made[0]))
    assert after > at_least and (kind == "true" or after > before + 0.2)
    assert made.validation.shape == given.validation.shape and made.known is None


def test_tolerance_is_swept_with_lambda():
    scores = {(0, 0): 0.5, (1, 3): 0.8, (0, 2): 0.79}

    def run(recipe, weight, seed):
        (tolerance,) = recipe.tolerances
        return {"lambda": weight, "tolerance": tolerance, "validation_score": scores[tolerance]}

    some = Recipe("some", "masks", weights=(0.1, 1.0), tolerances=tuple(scores))
    rows = runs.sweep(run, some, 2, quick=False)
    assert len(rows) == 7
    chosen = [(row["lambda"], row["tolerance"]) for row in rows if row["chosen"]]
    assert chosen == [(1.0, (1, 3)), (1.0, (1, 3))]
    assert len({recipe.name for recipe in tables.loose()}) == len(tables.loose())


def test_lambda_is_the_largest_of_those_that_are_about_best():
    scores = {0.1: 0.80, 1.0: 0.79, 10.0: 0.5}

    def run(recipe, weight, seed):
        return {"lambda": weight, "seed": seed, "validation_score": scores[weight]}

    rows = runs.sweep(run, Recipe("some", "masks", weights=(0.1, 1.0, 10.0)), 3, quick=False)
    chosen = [(row["lambda"], row["seed"]) for row in rows if row["chosen"]]
    assert chosen == [(1.0, 0), (1.0, 1), (1.0, 2)] and len(rows) == 5


@pytest.mark.full
def test_a_run_that_was_killed_goes_on_to_the_same_numbers(data, tmp_path):
    recipe = Recipe("composites", "masks")
    problem = runs.problem(recipe, data, 0)
    per_epoch = len(data.train.labels) // 16
    assert per_epoch >= 3
    settings = {"batch": 16, "every": 3, "checkpoints": tmp_path / "run"}

    class Killed(Exception):
        pass

    def kill(step):
        if step == per_epoch + 1:  # in the middle of the second epoch
            raise Killed

    with pytest.raises(Killed):
        runs.train(problem, 0.0, 0, 3, **settings, after_step=kill)
    steps = []
    resumed = runs.train(problem, 0.0, 0, 3, **settings, after_step=steps.append)
    assert 1 < steps[0] <= per_epoch + 1 and steps[-1] == 3 * per_epoch
    assert not (tmp_path / "run").exists()
    unbroken = runs.train(problem, 0.0, 0, 3, batch=16)
    jax.tree.map(np.testing.assert_array_equal, resumed, unbroken)
    assert judge.validate(resumed, recipe, data, 0) == judge.validate(unbroken, recipe, data, 0)


@pytest.mark.full
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(animals, "fetch", lambda cache: cache)
    monkeypatch.setattr(animals, "load", lambda wheel: silhouettes(240))
    arguments = ["--recipes", "oracle,random", "--seeds", "1", "--epochs", "1"]
    arguments += ["--output", str(tmp_path)]
    assert dogs_and_wolves.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| oracle | oracle | 0 | 1 |" in printed
    with (tmp_path / "dogs_and_wolves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == ["oracle", "random-background"]
    assert set(report.COLUMNS) == set(rows[0])
    assert all(0 <= float(row["worst_group"]) <= 1 for row in rows)
    for name in ("dogs_and_wolves.png", "dogs_and_wolves_construction.png"):
        assert (tmp_path / name).stat().st_size > 10_000

    kept = sorted((tmp_path / "runs").iterdir())
    kept[0].write_text(json.dumps(json.loads(kept[0].read_text()) | {"accuracy": 0.125}))
    assert dogs_and_wolves.main(arguments) == 0  # reads what is finished
    assert "| 12.5 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "2/2"], "--share: expected I/N with 0 <= I < N, got '2/2'"),
        (["--seeds", "0"], "expected a positive number"),
        (["--recipes", "plain,magic"], "no recipe begins with 'magic'"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert dogs_and_wolves.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
