"""`experiments.decoy_digits`: its patches, its files, and its command line."""

import gzip

import numpy as np
import pytest

from experiments import decoy_digits
from experiments.decoys import digits

pytestmark = pytest.mark.usefixtures("default_precision")


@pytest.fixture
def plain(rng):
    images = rng.integers(0, 255, (40, 28, 28)).astype(np.uint8)
    return digits.Digits(images, np.arange(40, dtype=np.int32) % 10)


def test_a_patch_in_a_random_corner(plain):
    found = digits.decoy(plain, digits.telling(plain.labels), 0, "ross")
    outside = 1 - found.masks[..., 0]
    assert (outside.sum((1, 2)) == 16).all()
    corners = [outside[:, y, x] for y in (0, 27) for x in (0, 27)]
    assert (np.sum(corners, axis=0) == 1).all() and all(c.any() for c in corners)
    greys = (found.images[..., 0] * outside).sum((1, 2)) / 16
    np.testing.assert_allclose(greys, (255 - 25 * plain.labels) / 255, rtol=1e-5)
    kept = found.images[..., 0] * (1 - outside) * 255
    np.testing.assert_allclose(kept, plain.images * (1 - outside), rtol=1e-5)


def test_half_a_decoy(plain):
    found = digits.decoy(plain, digits.random(plain.labels, 0), 0, "half")
    assert (1 - found.masks).mean() == 0.5
    with pytest.raises(ValueError, match="no protocol is called 'whole'; there are ross, half"):
        digits.decoy(plain, plain.labels, 0, "whole")


def test_a_composite_has_another_patch(plain):
    found = digits.decoy(plain, digits.telling(plain.labels), 0, "ross")
    filled = decoy_digits.other_patch(found.images, found.masks)
    np.testing.assert_allclose(filled[:, 5, 5, 0], (255 - 25 * plain.labels) / 255, rtol=1e-5)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix, plain):
    for name, array in zip(
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), plain, strict=True
    ):
        write_idx(tmp_path / f"{name}{suffix}", array)
        write_idx(tmp_path / f"{name.replace('train', 't10k')}{suffix}", array)
    found = digits.load(tmp_path)
    assert [len(found[part].labels) for part in ("train", "validation", "test")] == [36, 4, 40]
    np.testing.assert_array_equal(found["test"].images, plain.images)


def test_files_that_are_none(tmp_path, capsys):
    assert decoy_digits.main(["--mnist", str(tmp_path)]) == 2
    assert "there is no train-images-idx3-ubyte" in capsys.readouterr().err
    (tmp_path / "a").write_bytes(b"text")
    with pytest.raises(ValueError, match="a: not an IDX file of bytes"):
        digits.read_idx(tmp_path / "a")
    (tmp_path / "b").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]))
    with pytest.raises(ValueError, match=r"b: 9 bytes do not hold an array of shape \[9\]"):
        digits.read_idx(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "mlp,vit"], "--networks: no 'vit'; there are mlp, cnn"),
        (["--protocols", "all"], "--protocols: no 'all'; there are ross, half"),
        (["--recipes", "magic"], "--recipes: no 'magic'; there are plain, oracle"),
        (["--epochs", "0"], "expected positive numbers"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert decoy_digits.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


@pytest.mark.full
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    few = digits.Digits(
        rng.integers(0, 255, (500, 28, 28)).astype(np.uint8), np.arange(500, dtype=np.int32) % 10
    )
    monkeypatch.setattr(
        digits, "load", lambda folder: dict.fromkeys(("train", "validation", "test"), few)
    )
    arguments = ["--quick", "--recipes", "plain", "--protocols", "ross", "--epochs", "1"]
    assert decoy_digits.main([*arguments, "--output", str(tmp_path)]) == 0
    assert "| mlp | ross | plain | none |" in capsys.readouterr().out
    assert (tmp_path / "decoy_digits.csv").read_text().count("\n") == 2
    assert (tmp_path / "decoy_digits.png").exists()
