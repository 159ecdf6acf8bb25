"""Pictures of tetrominoes are what the protocol says, and maps are judged by the truth."""

import numpy as np
import pytest

from experiments import xai_tris
from experiments.tetrominoes import maps
from experiments.tetrominoes.maps import Score
from experiments.tetrominoes.pictures import NOISES, SCENARIOS, L, T, draw, parts
from jaxrel import rulesets


def _shape(mask: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pictures(scenario, noise):
    pictures = draw(scenario, noise, 0, 400)
    assert pictures.images.shape == (400, 8, 8, 1) and np.abs(pictures.images).max() == 1
    assert pictures.labels.sum() == 200
    if scenario != "translations":
        assert (pictures.masks == pictures.masks[0]).all() and pictures.masks[0].sum() == 8
        return
    for mask, label in zip(pictures.masks, pictures.labels, strict=True):
        turned = [np.rot90((T, L)[label] > 0, turns) for turns in range(4)]
        assert any(np.array_equal(_shape(mask), shape) for shape in turned)


def test_classes_differ_on_the_truth_alone():
    pictures = draw("linear", "white", 1, 10_000)
    first, second = (pictures.images[pictures.labels == k, ..., 0].mean(0) for k in (0, 1))
    apart = np.abs(first - second)
    assert apart[pictures.masks[0]].min() > 3 * apart[~pictures.masks[0]].max()


def test_signs_of_an_xor_tell_nothing_alone():
    pictures = draw("xor", "white", 2, 10_000)
    by_class = [pictures.images[pictures.labels == k, ..., 0] for k in (0, 1)]
    together = [(part[:, 1, 1] * part[:, 4, 5]).mean() for part in by_class]
    assert together[0] > 0.01 and together[1] < -0.01
    assert max(np.abs(part.mean(0)).max() for part in by_class) < 0.02


def test_correlated_noise_is_smooth_and_seeds_differ():
    def roughness(noise):
        images = draw("linear", noise, 0, 1000).images
        return np.abs(np.diff(images, axis=1)).mean() / np.abs(images).mean()

    assert roughness("correlated") < 0.2 < 1 < roughness("white")
    assert (draw("linear", "white", 0, 10).images != draw("linear", "white", 1, 10).images).any()
    assert [len(part.labels) for part in parts(draw("xor", "white", 0, 100))] == [80, 10, 10]
    with pytest.raises(ValueError, match="no scenario 'and'"):
        draw("and", "white", 0)


def test_scores():
    mask = np.zeros((3, 8, 8), bool)
    mask[:, 2, :4] = True
    relevance = np.zeros((3, 8, 8))
    relevance[0][mask[0]] = (-4, 3, -2, 1)  # all, whatever the sign
    relevance[1, 2, 0], relevance[1, 5, 5] = 1, -3  # half of the magnitude that is largest
    found = maps.score(relevance, mask)  # and nothing at all
    np.testing.assert_allclose(found.precision, [1, 0.25, 0])
    np.testing.assert_allclose(found.outside, [0, 0.75, 1])
    flat = maps.score(np.ones((2000, 8, 8)), np.repeat(mask[:1], 2000, 0))
    assert abs(flat.precision.mean() - 4 / 64) < 0.01  # equals come by chance


def test_the_preset_is_chosen_on_other_pictures():
    noise = np.linspace(-0.1, 0.1, 20)
    test = {name: 0.3 for name in maps.EXPLANATIONS} | {
        "slope": 0.5, "gim": 0.7, "Sobel": 0.2, "Laplace": 0.4, "abs(x)": 0.1, "random": 0.0,
    }  # fmt: skip
    choosing = test | {"slope": 0.9, "integrated gradients": 1.0}
    scores = [{name: Score(v + noise, 1 - v + noise) for name, v in of.items()}
              for of in (choosing, test)]  # fmt: skip
    cell = xai_tris.Cell(("linear", "white", "mlp"), *scores, np.arange(20) % 2)
    rows = xai_tris.table(cell)
    assert [row[3] for row in rows][:3] == ["gim", "slope", "Laplace"]
    assert [row[3] for row in rows if row[-1]] == ["slope"]
    np.testing.assert_allclose(rows[1][7:10], [0.1, 0, 0.5], atol=1e-12)
    assert "+0.100" in xai_tris.report(rows)


def test_every_preset_takes_part():
    presets = set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"}
    assert set(maps.PRESETS) == presets | {maps.CLASS_MEAN}


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_from_the_command_line(tmp_path, capsys):
    arguments = ["--quick", "--scenarios", "xor", "--output", str(tmp_path / "tris")]
    assert xai_tris.main(arguments) == 0
    assert {path.suffix for path in (tmp_path / "tris").iterdir()} == {".csv", ".json", ".png"}
    assert "xor, white, mlp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenarios", "linear,and"], "--scenarios: no 'and'; there are linear"),
        (["--seeds", "0"], "--seeds: expected a positive number, got 0"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert xai_tris.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
