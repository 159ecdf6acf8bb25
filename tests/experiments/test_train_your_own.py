"""`experiments.train_your_own` on a folder of made-up pictures: the background tells the class."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments import train_your_own
from experiments.own import folder
from experiments.own.watched import Watched

pytestmark = pytest.mark.usefixtures("default_precision")


@pytest.fixture
def pictures(tmp_path):
    """Two classes of 20: a square or a bar, on dark or bright noise; masks, and boxes.csv."""
    rng = np.random.default_rng(0)
    lines = ["file,x0,y0,x1,y1"]
    for label, name in enumerate(("bar", "square")):
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
        for number in range(20):
            picture = rng.integers(0, 90, (40, 36, 3)) + 150 * label
            mask = np.zeros((40, 36), np.uint8)
            x, y = rng.integers(2, 20, 2)
            width, height = (12, 12) if label else (4, 16)
            mask[y : y + height, x : x + width] = 255
            picture[mask > 0] = rng.integers(0, 255, 3)
            Image.fromarray(picture.astype(np.uint8)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
            if number % 4:
                Image.fromarray(mask).save(tmp_path / "masks" / name / f"{number}.png")
                lines.append(f"{name}/{number}.png,{x},{y},{x + width},{y + height}")
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_what_is_read(pictures):
    by_masks = folder.read(pictures / "images", pictures / "masks", None, 24)
    by_boxes = folder.read(pictures / "images", None, pictures / "boxes.csv", 24)
    assert by_masks.images.shape == (40, 24, 24, 3) and by_masks.known.sum() == 30
    assert by_masks.classes == ["bar", "square"] and by_masks.labels.tolist() == [0] * 20 + [1] * 20
    for mine, other in zip(by_masks[:4], by_boxes[:4], strict=True):
        np.testing.assert_array_equal(mine, other)  # of rectangles both are the same
    assert by_masks.names[0] == "bar/0.png" and not by_masks.masks[~by_masks.known].any()


def test_masks_are_refined(pictures, capsys):
    true = folder.read(pictures / "images", pictures / "masks", None, 24)
    moved = true._replace(masks=np.roll(true.masks, (2, 1), (1, 2)))
    made = train_your_own._refined(moved, are_boxes=False)
    assert "masks moved -2 down, -1 right, eroded by 0" in capsys.readouterr().out
    assert (made.masks * true.masks).sum() > 0.9 * true.masks.sum()
    assert not made.masks[~made.known].any()
    train_your_own._refined(true, are_boxes=True)
    assert "moved" not in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_from_the_command_line(pictures, capsys, library):
    arguments = ["--images", str(pictures / "images"), "--output", str(pictures / "out")]
    arguments += ["--size", "24", "--epochs", "2", "--batch", "8", "--network", library]
    masks = ["--masks", str(pictures / "masks"), "--tolerance", "0-1"]
    assert train_your_own.main([*arguments, *masks]) == 0
    printed = capsys.readouterr().out
    assert "32 pictures to train, 8 to validate; 75% with a mask" in printed
    assert printed.count("gap") >= 2
    with (pictures / "out" / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["in_mask"]) <= 1 for row in rows)
    with Image.open(pictures / "out" / "explained.png") as picture:
        assert picture.width > 200
    with np.load(pictures / "out" / "parameters.npz") as saved:
        assert sum(saved[name].size for name in saved) > 10_000
    assert sorted(path.name for path in (pictures / "out").iterdir()) == [
        "epochs.csv",
        "explained.png",
        "parameters.npz",
    ]


def test_advice_is_given_where_the_explanation_is_better_than_the_network():
    assert "--reference swap" in Watched(0.9, flips=0.9, in_mask=0.8).advice()
    assert not Watched(0.9, flips=0.1, in_mask=0.5).advice()
    assert "gap  70.0" in str(Watched(0.9, flips=0.9, in_mask=0.8))


@pytest.mark.every_case
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected either --masks or --boxes"),
        (["--masks", "nowhere"], "nowhere: there is no such folder"),
        (["--boxes", "{}/bad.csv"], "bad.csv, line 2: expected four numbers"),
        (["--masks", "{}/masks", "--tolerance", "3"], "expected LOW-HIGH in pixels, got '3'"),
        (["--masks", "{}/masks", "--rules", "slope"], "--rules slope --reference none"),
        (["--masks", "{}/masks", "--epochs", "0"], "expected positive numbers"),
        (["--masks", "{}/images/bar"], "none of 40 pictures has a mask"),
    ],
)
def test_what_is_refused(pictures, capsys, arguments, message):
    (pictures / "bad.csv").write_text("file,x0,y0,x1,y1\nbar/1.png,a,2,3,4\n")
    given = [word.format(pictures) for word in arguments]
    output = str(pictures / "out")
    start = ["--images", str(pictures / "images"), "--output", output]
    assert train_your_own.main([*start, *given]) == 2
    assert message in capsys.readouterr().err
