"""The table of presets: what is conserved, what it costs, and scores of other tables."""

import csv

import pytest

from experiments import presets
from jaxrel import rulesets


@pytest.fixture
def results(tmp_path):
    """Tables of which one line is known."""
    for script, column, (network, *_) in presets.JUDGED:
        (tmp_path / f"{script}.csv").write_text(f"network,method,{column}\n{network},slope,0.5\n")
    return tmp_path


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_what_is_conserved_and_what_it_costs():
    slope, repeated = rulesets.slope(), rulesets.deconvnet()
    assert presets.created("cnn", slope, False) < presets.NEGLIGIBLE
    assert presets.created("cnn", repeated, False) > 0.1
    assert presets.cost("cnn", slope, False) == pytest.approx(1, abs=0.02)


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_against_black():
    compared = rulesets.compare_to_baseline()
    assert presets.created("vit", compared, True) < presets.NEGLIGIBLE
    assert 1 < presets.cost("vit", compared, True) < 2.5


def test_from_the_command_line(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presets, "created", lambda *_: 0.25)
    monkeypatch.setattr(presets, "cost", lambda *_: 2.0)
    output = tmp_path / "presets"
    arguments = ["--quick", "--results", str(results), "--output", str(output)]
    assert presets.main(arguments) == 0
    with (output / "presets.csv").open() as file:
        rows = {row["preset"]: row for row in csv.DictReader(file)}
    gamma = "compare_to_baseline, gamma 0.03"
    assert set(rows) == {gamma, *rulesets.presets.__all__} - {"preset"}
    assert rows["slope"]["idsds, cnn"] == "0.5" and rows["gim"]["idsds, cnn"] == ""
    assert "| `slope` | no (0.25) | 2.00 | 0.50 | +0.50 |" in capsys.readouterr().out


def test_a_table_that_is_missing_is_told_in_one_line(tmp_path, capsys):
    arguments = ["--results", str(tmp_path), "--output", str(tmp_path / "presets")]
    assert presets.main(arguments) == 2
    captured = capsys.readouterr()
    assert "idsds.csv" in captured.err and captured.err.count("\n") == 1
