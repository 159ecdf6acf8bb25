"""The small figures of the reference: one of each rule, and what they show is what it conserves."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import rule_figures
from experiments.rule_figures import EXAMPLES, Bars
from jaxrel import rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rules.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]
CONSERVES = [
    name
    for row in ROWS
    if re.search(r"\| yes(, (x >= 0|f\(0\) .*))? \|", row)
    for name in re.findall(r"`(\w+)`", row.split("|")[1])
    if isinstance(EXAMPLES[name][2], Bars)
]


def test_every_rule_of_the_library_has_a_figure_on_its_page():
    every = {
        name
        for name in rules.__all__
        if inspect.isclass(kind := getattr(rules, name)) and issubclass(kind, rules.Rule)
    } - {"Rule"}
    shown = set(re.findall(r"experiments/results/rules/(\w+)\.png", PAGE))
    assert set(EXAMPLES) == shown == every
    assert {path.stem for path in (ROOT / "experiments/results/rules").glob("*.png")} == every


def test_rules_that_conserve_are_many():
    assert len(CONSERVES) >= 15


@pytest.mark.parametrize("name", CONSERVES)
def test_what_is_drawn_adds_up_where_the_page_says_so(name):
    _, _, shown = EXAMPLES[name]
    assert isinstance(shown, Bars)
    x0 = None if shown.x0 is None else np.array(shown.x0)
    explained = shown.fun(np.array(shown.x)) - (0.0 if x0 is None else shown.fun(x0))
    found, _ = rule_figures.numbers(name)
    np.testing.assert_allclose(found.sum(), explained, rtol=1e-5)


def test_the_command_draws_them(tmp_path, monkeypatch):
    few = {name: EXAMPLES[name] for name in ("Epsilon", "Slope", "Repeat")}
    monkeypatch.setattr(rule_figures, "EXAMPLES", few)
    assert rule_figures.main(["--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in few}
