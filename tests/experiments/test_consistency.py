"""The claims of the source text, and what `experiments.consistency` writes about them."""

import csv
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import consistency
from experiments.claims import forms, maximum
from experiments.claims.judged import Finding, agreeing, judge, measure
from experiments.claims.naive import Affine, Elementwise, Pairs, propagate
from jaxrel import RuleSet, relevance, rules, rulesets


@pytest.fixture(scope="module")
def measured():
    """With another seed than the published results."""
    return measure(1, 20)


def test_every_claim_holds(measured):
    findings = judge(measured)
    assert {finding.claim for finding in findings} == set("abcdef")
    assert [finding for finding in findings if not finding.holds] == []


@pytest.mark.parametrize("relation", ["<=", ">="])
def test_nothing_is_true_of_a_nan(relation):
    assert not Finding("a", "", math.nan, relation, 1.0, "new").holds
    assert Finding("a", "", 1.0, relation, 1.0, "new").holds


def test_relevance_leaves_where_the_biases_are(measured):
    """Going down, sum R changes below a layer with biases, and the ones take the difference."""
    rows = [row for row in measured.levels if row.setting == "biases as ones"]
    changes = {
        b.boundary: b.multiplier - a.multiplier for a, b in zip(rows, rows[1:], strict=False)
    }
    taken = {b.boundary: b.ones - a.ones for a, b in zip(rows, rows[1:], strict=False)}
    assert {name for name, change in changes.items() if abs(change) > 1e-9} == {
        "conv",
        "dense",
        "head",
    }
    for name, change in changes.items():
        assert abs(change + taken[name]) < 1e-12


def test_the_naive_form_by_hand():
    """Two inputs, one unit with a bias, relu, one output."""
    layers = [
        Affine(np.array([[1.0, 2.0]]), np.array([1.0])),
        Elementwise("relu"),
        Affine(np.array([[3.0]]), np.array([0.0])),
    ]
    x = np.array([1.0, 1.0])  # z = 4, f = 12
    found, ones = propagate(layers, x)
    np.testing.assert_allclose(found[0], [3.0, 6.0])
    assert ones == pytest.approx([3.0, 0.0, 0.0])
    np.testing.assert_allclose(propagate(layers, x, bias=False)[0][0], [4.0, 8.0])
    np.testing.assert_allclose(
        propagate(layers, x, blip=1.0)[0][0], np.array([1.0, 2.0]) / 5 * 12 * 12 / 13
    )
    compared, _ = propagate(layers, x, baseline=np.array([0.0, 0.5]))
    np.testing.assert_allclose(compared[0], [3.0, 3.0])


def test_the_naive_maximum_of_two_by_hand():
    layers = [Pairs()]
    x, origin = np.array([3.0, 1.0]), np.array([0.0, 2.0])
    np.testing.assert_allclose(propagate(layers, x)[0][0], [3.0, 0.0])
    np.testing.assert_allclose(propagate(layers, x, baseline=origin)[0][0], [1.5, -0.5])


def test_which_rules_agree_on_scaling(measured):
    matrices, nonlinearities = agreeing(measured.scaled)
    assert nonlinearities == ["Gradient", "Slope", "Pass", "Repeat"]
    assert set(matrices) == {
        "Gradient",
        "Normalized(0)",
        "Gamma(0.25)",
        "GeneralizedGamma(0.25)",
        "WSquare",
        "Pass",
    }


@pytest.mark.parametrize("name", list(maximum.MAXIMUM))
def test_shares_that_sum_to_one_cannot_be_the_slope(name):
    """Of two negative values slope wants q / p and 1 (as a share), or 1 and 1 (as relevance)."""
    q = -np.random.default_rng(0).uniform(0.1, 1, 50)
    p = q - np.random.default_rng(1).uniform(0.1, 1, 50)
    y = np.maximum(p, q)
    run = jax.jit(relevance(jnp.maximum, RuleSet(maximum=maximum.MAXIMUM[name]), (0, 1)))
    of_p, of_q = (np.asarray(r) / y for r in run(jnp.asarray(p), jnp.asarray(q)))
    np.testing.assert_allclose(of_p + of_q, 1, rtol=1e-12)
    assert (y / p + y / q > 1).all()


def test_as_relevance_slope_gives_all_to_the_one_value():
    x, a = -np.random.default_rng(0).uniform(0.1, 1, (2, 50))
    found = jax.jit(relevance(lambda x: jnp.maximum(x, a), "slope"))(jnp.asarray(x))
    np.testing.assert_allclose(found, np.maximum(x, a), rtol=1e-12)


def test_radial_and_slope_meet_at_zero_and_far_away_only(measured):
    radial, slope = (measured.shares[k] for k in ("Radial", "slope, as a share"))
    gap, x = np.abs(radial - slope), maximum.GRID
    assert gap[x > 0].max() == 0
    assert abs(x[gap.argmax()] + 1) < 0.01 and gap.max() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(radial[x < 0], 1 / (1 + np.abs(x[x < 0])), rtol=1e-12)
    np.testing.assert_allclose(slope[x < 0], np.minimum(1, 1 / np.abs(x[x < 0])), rtol=1e-12)


@pytest.mark.parametrize("rule", [rules.AbsoluteValue(), rules.SoftmaxLimit(), rules.CrossMax()])
def test_against_a_baseline_completeness_forces_the_slope(rule):
    """Constants have no difference, so all of y - y0 is x's."""
    rng = np.random.default_rng(0)
    x, x0 = (jnp.asarray(v) for v in rng.normal(size=(2, 100)))
    constants = tuple(jnp.full_like(x, a) for a in rng.normal(size=3))

    def value(x, *constants):
        return jnp.stack([x, *constants]).max(0)

    run = relevance(value, RuleSet(maximum=rule), (0, 1, 2, 3), baseline=(x0, *constants))
    found = jax.jit(run)(x, *constants)
    np.testing.assert_allclose(found[0], value(x, *constants) - value(x0, *constants), atol=1e-12)
    assert not np.any(found[1:])


def test_two_ways_to_take_a_maximum_by_hand():
    x, x0 = (jnp.array(v) for v in maximum.WORKED)
    for rule, expected in ((rules.AbsoluteValue(), [1.5, -0.5]), (rules.SoftmaxLimit(), [1, 0])):
        chosen = rulesets.compare_to_baseline(rule)
        found = jax.jit(relevance(lambda v: v.max(), chosen, baseline=x0))(x)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_log_sum_exp_as_a_whole_becomes_the_absolute_value():
    """Where the order changes the winner at x has the factor |d| / (|d| + |d0|)."""
    x, x0 = np.random.default_rng(0).normal(size=(2, 200, 2))
    d, d0 = x[:, 0] - x[:, 1], x0[:, 0] - x0[:, 1]
    rows = (d * d0 < 0) & (np.abs(d) > 0.3) & (np.abs(d0) > 0.3)
    beta = 100.0

    def soft(v):
        return jax.scipy.special.logsumexp(beta * v, axis=-1) / beta

    found = np.asarray(jax.jit(relevance(soft, baseline=x0))(jnp.asarray(x)))
    factor = np.abs(np.where(d > 0, d, d0)) / (np.abs(d) + np.abs(d0))
    np.testing.assert_allclose(found[rows, 0], (factor * (x - x0)[:, 0])[rows], atol=1e-10)
    assert rows.sum() > 50


def test_lrp_differs_from_slope_by_the_blip(measured):
    for gaps in measured.limits.values():
        assert (np.diff(np.median(gaps, 1)) > 0).all()


@pytest.fixture
def prepared(measured, monkeypatch):
    """The program with the measurement already made."""
    asked = []
    monkeypatch.setattr(consistency, "measure", lambda *args: asked.append(args) or measured)
    return asked


def test_what_is_written(prepared, tmp_path, capsys):
    output = tmp_path / "results"
    assert consistency.main(["--output", str(output), "--seed", "1", "--count", "20"]) == 0
    assert prepared == [(1, 20)]
    printed = capsys.readouterr().out
    with (output / "consistency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["holds"] == "True" and row["case"] in printed for row in rows)
    with (output / "consistency_levels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 7 * len(forms.SETTINGS)
    origin = json.loads((output / "consistency.json").read_text())
    assert origin["versions"]["jax"] == jax.__version__ and origin["seed"] == 1
    pictures = sorted(output.glob("*.png"))
    assert len(pictures) == 4
    assert all(10_000 < picture.stat().st_size < 300_000 for picture in pictures)


def test_a_claim_that_fails_is_told(prepared, tmp_path, monkeypatch, capsys):
    broken = Finding("a", "false", 1.0, "<=", 0.0, "confirmed")
    monkeypatch.setattr(consistency, "judge", lambda measured: [broken])
    monkeypatch.setattr(consistency, "write", lambda *args: None)
    assert consistency.main(["--output", str(tmp_path)]) == 1
    assert "0 of 1 hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed: expected a number >= 0, got -1"),
        (["--count", "3"], "--count: expected at least 10 inputs, got 3"),
        (["--output", __file__], "not a folder"),
        (["--output", "missing/results"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert consistency.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        consistency.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--output", "--seed", "--count"))
