"""The command line that experiments share: what is impossible is told at once, in a line."""

import argparse
import importlib
import os
import pkgutil

import numpy as np
import pytest

import experiments
from experiments import blame_the_bias, command, idsds
from experiments.backgrounds import report
from experiments.data import records
from jaxrel import rulesets

SCRIPTS = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]
NEEDED = {"train_your_own": ["--images", "pictures", "--masks", "masks"]}
AGAINST_BASELINE = ["compare_to_baseline", "deeplift_rescale", "deeplift_reveal_cancel"]


@pytest.mark.every_case
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_output_that_cannot_be_written_is_told_before_the_work(name, tmp_path, capsys):
    """And the user who interrupts is answered by a line."""
    script = importlib.import_module(f"experiments.{name}")
    (tmp_path / "file").touch()
    needed = NEEDED.get(name, [])
    assert script.main([*needed, "--output", str(tmp_path / "file" / "there.png")]) == 2
    captured = capsys.readouterr()
    assert "there.png" in captured.err and captured.err.count("\n") == 1 and not captured.out

    def interrupt(options):
        raise KeyboardInterrupt

    assert command.main(script._parser, interrupt)(needed) == 130
    assert capsys.readouterr().err == f"{name}: interrupted\n"


def test_a_closed_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # nothing is closed to root
    with pytest.raises(PermissionError, match="may not be written"):
        command.writable(tmp_path / "a.md")
    with pytest.raises(ValueError, match="may not be written into"):
        records.folder(tmp_path)


def test_a_picture_has_a_format(tmp_path):
    for name in ("a.jpg", "a.JPEG", "a.png", "a.pdf", "a"):
        assert command.picture(tmp_path / name).name == name
    with pytest.raises(ValueError, match=r"no format '.txt'; there are .*png"):
        command.picture(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="a folder; expected the name of a file"):
        command.picture(tmp_path)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_seeds(parser, 5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(words)


def test_what_is_asked_for_counts_beside_quick():
    assert command.seeds(parsed()) == 5 and command.seeds(parsed("--quick")) == 1
    assert command.seeds(parsed("--quick", "--seeds", "2")) == 2
    assert command.given(parsed("--quick", "--epochs", "7"), "epochs", 1, 20) == 7
    assert command.given(parsed("--quick"), "epochs", 1, 20) == 1
    for wrong in (["--seeds", "0"], ["--quick", "--seeds", "-1"]):
        with pytest.raises(ValueError, match="--seeds: expected a positive number"):
            command.seeds(parsed(*wrong))


def test_rules_that_compare_need_a_baseline():
    every = ",".join(set(rulesets.presets.__all__) - {"preset", "epsilon_gamma_box"})
    compared = [name for name, made in command.rule_sets(every).items() if command.compares(made)]
    assert sorted(compared) == AGAINST_BASELINE
    for name in AGAINST_BASELINE:
        with pytest.raises(ValueError, match=f"{name} compares with a baseline.*take slope"):
            command.rule_sets(f"slope,{name}", compared=False)


def test_one_seed_has_no_spread(tmp_path):
    assert records.spread([1.0]) is None and records.spread([1.0, 3.0]) == 1.0
    facts = {"chosen": True, "recipe": "plain", "information": "none", "lambda": 0.0}
    one = [{**facts, "seed": 0, "worst_group": 0.5}]
    assert "±" not in report.markdown(one, {"worst_group": "worst group"})
    two = [*one, {**facts, "seed": 1, "worst_group": 0.7}]
    assert "60.0 ± 10.0" in report.markdown(two, {"worst_group": "worst group"})
    scores = {name: np.array([0.1, 0.3]) for name in (*idsds.RIVALS, "random", "slope")}
    assert {row[6] for row in idsds.table("cnn", scores, scores, 1)} == {None}
    assert all(row[6] >= 0 for row in idsds.table("cnn", scores, scores, 2))
    share = blame_the_bias.Share("mlp", 0, "logit", "slope", "bias", *([0.5] * 6))
    assert blame_the_bias.share_table([share]).splitlines()[1].count("±") == 1
    assert blame_the_bias.share_table([share, share]).splitlines()[1].count("±") == 2
    records.write_table(tmp_path / "a.csv", ["spread"], [[None]])
    assert (tmp_path / "a.csv").read_text() in ('spread\n""\n', "spread\n\n")
