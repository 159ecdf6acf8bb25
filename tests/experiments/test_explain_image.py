"""The command line of `experiments.explain_image`: what it writes and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.explain_image import DEFAULT_RULES, main, rule_set
from jaxrel import RuleSet, rulesets


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small picture file."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(path)
    return path


def test_one_png_is_written(picture, tmp_path, capsys):
    output = tmp_path / "heatmaps.png"
    arguments = ["--image", str(picture), "--rules", "gradient", "--output", str(output)]
    assert main([*arguments, "--class", "tabby"]) == 0
    with Image.open(output) as image:
        assert image.format == "PNG" and image.width > image.height
    printed = capsys.readouterr().out
    assert "picture.png:" in printed and printed.count("%") == 5


def test_every_preset_can_be_asked_for():
    presets = set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"}
    assert presets > set(DEFAULT_RULES.split(","))
    assert all(isinstance(rule_set(name), RuleSet) for name in presets)


@pytest.mark.parametrize("name", ["epsilon_gamma_box", "deep_taylor"])
def test_the_box_reaches_from_black_to_white(name):
    _, box = rule_set(name).overrides[-1]
    assert (box.low, box.high) == (-127 / 128, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "missing.png"], "missing.png: there is no such file"),
        (["--image", __file__], "test_explain_image.py: not a readable picture"),
        (["--rules", "gradient,magic"], "No preset is called 'magic'"),
        (["--rules", ","], "--rules names nothing"),
        (["--class", "flying saucer"], "no class name contains 'flying saucer'"),
        (["--class", "crane"], "2 classes fit 'crane'"),
        (["--output", "missing/heatmaps.png"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--image", "--class", "--rules", "--output"))
