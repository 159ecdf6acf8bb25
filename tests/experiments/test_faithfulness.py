"""Regions are taken as Samek et al. did, Fashion-MNIST is read, and the table adds up."""

import gzip
import io
import json
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import faithfulness
from experiments.data import fashion
from experiments.regions import curves, subjects
from experiments.regions.curves import Judged
from experiments.regions.subjects import STEPS


def _idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return gzip.compress(head + values.tobytes())


def test_fashion_is_read_out_of_its_package(tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    labels = np.array([9, 3], np.uint8)
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w:xz") as archive:
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = _idx(values)
            member = tarfile.TarInfo(f"./usr/share/datasets/fashion-mnist/t10k-{name}-ubyte.gz")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    parts = {"debian-binary": b"2.0", "data.tar.xz": inside.getvalue()}  # an odd size is padded
    package = tmp_path / "fashion.deb"
    package.write_bytes(
        b"!<arch>\n"
        + b"".join(
            f"{name:16s}{'0':12s}{'0':6s}{'0':6s}{'100644':8s}{len(content):<10d}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
            for name, content in parts.items()
        )
    )
    found = fashion.load(package)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)


def test_another_file_is_no_fashion(tmp_path):
    (tmp_path / "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(ValueError, match="SHA-256"):
        fashion.fetch(tmp_path)
    with pytest.raises(ValueError, match=r"no data\.tar\.xz"):
        fashion.load(tmp_path / "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb")


@pytest.fixture
def sums(monkeypatch):
    """The network is a sum of pixels with weights, and its gradient the truth."""
    weights = np.random.default_rng(0).uniform(size=(28, 28, 1)).astype(np.float32)
    kind = subjects.Kind(
        lambda variables, x: jnp.stack([(x * variables).sum((1, 2, 3))] * 2, 1),
        lambda seed, pictures, epochs: subjects.Subject(
            weights, subjects.Digits(np.ones((4, 28, 28, 1), np.float32), np.arange(4) % 2), 1.0
        ),
        noise=False,
    )
    methods = {name: curves.methods()[name] for name in ("gradient", "random")}
    kinds = {"sums": kind}
    monkeypatch.setattr(curves, "KINDS", kinds)
    monkeypatch.setattr(faithfulness, "KINDS", kinds)
    monkeypatch.setattr(curves, "of", lambda kind: methods)
    curves._explained.cache_clear()
    curves._flipped.cache_clear()
    return weights


def test_the_gradient_is_the_truth_of_a_sum(sums):
    found, accuracies = faithfulness._judged("sums", 2, quick=True)
    assert accuracies == [1.0, 1.0]
    regions = np.sort(sums.reshape(14, 2, 14, 2).sum((1, 3)).ravel())
    gone = np.r_[0, np.cumsum(regions[::-1].reshape(49, 4).sum(1))[:STEPS]]
    left = np.r_[0, np.cumsum(regions.reshape(49, 4).sum(1))[:STEPS]]
    np.testing.assert_allclose(found["gradient"].morf, np.tile(-gone, (8, 1)), rtol=1e-4)
    np.testing.assert_allclose(found["gradient"].lerf, np.tile(-left, (8, 1)), rtol=1e-4)
    rows = faithfulness.table("sums", found, 2)
    assert [row[1] for row in rows] == ["gradient", "random"]
    cells = dict(zip(faithfulness.COLUMNS, rows[0], strict=True))
    np.testing.assert_allclose(cells["AOPC"], gone.mean(), rtol=1e-4)
    np.testing.assert_allclose(cells["ABPC"], (gone - left).mean(), rtol=1e-4)
    assert rows[1][4] == 0 < cells["over random"]
    assert "gradient" in faithfulness.report(rows)


def test_results_of_two_machines_are_put_together(sums, tmp_path, monkeypatch):
    """Rows, curves and origins one after another, to the last digit, and a figure of them."""
    monkeypatch.setitem(faithfulness.KINDS, "again", faithfulness.KINDS["sums"])
    folders = [tmp_path / "a", tmp_path / "b"]
    for network, folder in zip(("sums", "again"), folders, strict=True):
        made = ["--quick", "--networks", network, "--output", str(folder)]
        assert faithfulness.main(made) == 0
    both = tmp_path / "both"
    assert faithfulness.main(["--join", *map(str, folders), "--output", str(both)]) == 0
    for name in ("faithfulness.csv", "faithfulness_curves.csv"):
        first, second = ((folder / name).read_text() for folder in folders)
        assert (both / name).read_text() == first + second.split("\n", 1)[1]
    origin = json.loads((both / "faithfulness.json").read_text())
    assert [part["command"].rpartition(" ")[2] for part in origin["parts"]] == ['"sums"', '"again"']
    assert (both / "faithfulness.png").exists()


def test_what_is_joined_has_to_be_there(tmp_path, capsys):
    assert faithfulness.main(["--join", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "faithfulness.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("digits,gradient", "in more than one folder: digits"),
        ("fashion,slope", "digits, fashion were not asked the same methods"),
    ],
)
def test_what_is_joined_has_to_fit(second, message, tmp_path, capsys):
    for folder, row in (("a", "digits,gradient"), ("b", second)):
        (tmp_path / folder).mkdir()
        for name in ("faithfulness.csv", "faithfulness_curves.csv"):
            (tmp_path / folder / name).write_text(f"network,method\n{row}\n")
    folders = [str(tmp_path / folder) for folder in "ab"]
    assert faithfulness.main(["--join", *folders, "--output", str(tmp_path / "c")]) == 2
    assert message in capsys.readouterr().err


def test_squares_of_a_photograph_have_its_middle():
    """All are squares within the photograph, as many as are said, and no two are the same."""
    photograph = np.arange(100 * 161 * 3).reshape(100, 161, 3)
    found = subjects.crops(photograph)
    assert [square.shape for square in found] == [(100, 100, 3)] + [(80, 80, 3)] * 5
    assert len(found) == subjects.CROPS == len({square.tobytes() for square in found})
    assert all(photograph[50, 80, 0] in square for square in found)


def test_squares_of_a_photograph_are_not_independent(sums, monkeypatch):
    """Nor are draws of noise: the error is that of the photographs' means."""
    kind = faithfulness.KINDS["sums"]._replace(trained=False, alike=3)
    monkeypatch.setitem(faithfulness.KINDS, "squares", kind)
    photographs = np.array([1.0, 2.0, 4.0])
    squares = np.repeat(photographs, 3) + np.tile([-0.5, 0.0, 0.5], 3)
    draws = np.concatenate([squares - 1, squares + 1])
    mean, error = faithfulness._mean(draws, 2, "squares")
    np.testing.assert_allclose(mean, photographs.mean())
    np.testing.assert_allclose(error, photographs.std(ddof=1) / np.sqrt(3))


def test_pictures_of_seeds_are_put_together():
    a, b = (Judged(np.full((2, 3), k), np.zeros((2, 3)), np.full(2, k)) for k in (1, 2))
    np.testing.assert_array_equal(curves.joined([a, b]).size, [1, 1, 2, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "digits,gru"], "--networks: no 'gru'; there are digits"),
        (["--seeds", "0"], "--seeds: expected a positive number, got 0"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert faithfulness.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
