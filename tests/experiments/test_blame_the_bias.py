"""How much of a decision is bias: the measurement, and a quick run of the experiment."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.blame_the_bias import main
from experiments.claims import shares_of_bias
from experiments.networks.digits import Digits, Mlp, load_digits, train
from jaxrel import rulesets


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Tables of a quick run."""
    output = tmp_path_factory.mktemp("quick")
    arguments = ["--quick", "--networks", "mlp_softplus", "--seeds", "0", "1", "--digits", "10"]
    assert main([*arguments, "--output", str(output)]) == 0
    return output


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.full
def test_the_parts_add_up_to_the_value(quick):
    found = {}
    for row in rows_of(quick / "blame_the_bias.csv"):
        key = row["seed"], row["target"], row["rule"]
        found.setdefault(key, {})[row["part"]] = float(row["whole"])
    assert len(found) == 2 * 2 * 5
    for (_, _, rule), parts in found.items():
        assert sum(parts.values()) == pytest.approx(1, abs=1e-4)
        layers = {"dense_1", "softplus_1", "dense_2", "softplus_2", "dense_3"}
        expected = {
            "slope, ones": {"pixels"} | layers,
            "epsilon(0.25)": {"pixels", "blip"} | layers,
            "normalized(1e-6)": {"pixels", "blip"},
        }
        assert set(parts) == expected.get(rule, {"pixels", "f(x0)"})


def test_what_is_written(quick):
    rows = rows_of(quick / "blame_the_bias_blowup.csv")
    assert {row["rule"] for row in rows} == {*shares_of_bias.FAMILIES, "slope, ones"}
    assert all(float(row["sum|R|/|f| 100%"]) >= float(row["sum|R|/|f| 50%"]) for row in rows)
    origin = json.loads((quick / "blame_the_bias.json").read_text())
    assert origin["seeds"] == [0, 1] and "--quick" in origin["command"]
    pictures = {path.name: path.stat().st_size for path in quick.glob("*.png")}
    assert set(pictures) == {
        "blame_the_bias_shares.png",
        "blame_the_bias_blowup.png",
        "blame_the_bias_mlp_softplus.png",
    }
    assert all(10_000 < size < 300_000 for size in pictures.values())


@pytest.fixture(scope="module")
def all_bias():
    """A network whose first layer sees next to nothing of its input: its biases decide."""
    network, images = Mlp(), np.random.default_rng(0).uniform(size=(10, 28, 28, 1))
    variables = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    first = variables["params"]["dense_1"]
    first["kernel"], first["bias"] = 1e-6 * first["kernel"], first["bias"] + 1
    return shares_of_bias.subject("all bias", 0, network, variables, images, images[0], 0.0)


def test_only_leaving_biases_out_finds_pixels_that_decide_nothing(all_bias):
    """Slope gives all to the ones; the normalized rule scales up what is negligible."""
    value, pixels, ones = shares_of_bias.explain(all_bias, rulesets.slope(), "logit")
    np.testing.assert_allclose(sum(ones.values()) + pixels.sum((1, 2)), value, rtol=1e-10)
    assert (np.abs(pixels).sum((1, 2)) < 1e-4 * np.abs(value)).all()
    scaled = shares_of_bias.explain(all_bias, shares_of_bias.normalized(1e-12), "logit")
    np.testing.assert_allclose(scaled.relevance.sum((1, 2)), value, rtol=1e-3)
    assert (np.abs(scaled.relevance).sum((1, 2)) > np.abs(value)).all()


def test_a_large_blip_swallows_all(all_bias):
    sizes = list(shares_of_bias.sizes(all_bias, [1e-12, 1e6]))
    by_blip = {(size.rule, size.blip): size.lost for size in sizes}
    for rule in shares_of_bias.FAMILIES:
        np.testing.assert_allclose(by_blip[rule, 1e6], 1, atol=1e-3)
        np.testing.assert_allclose(by_blip[rule, 1e-12], 0, atol=1e-3)


def test_against_a_baseline_the_rest_is_the_value_there(all_bias):
    for name, parts in shares_of_bias.dissected(all_bias, "lead"):
        if name.startswith("against"):
            np.testing.assert_allclose(parts["pixels"] + parts["f(x0)"], parts["value"], rtol=1e-8)


def test_the_lead_is_of_the_first_over_the_second(all_bias):
    logits = np.sort(all_bias.network.apply(all_bias.variables, all_bias.images), axis=1)
    found = shares_of_bias.explain(all_bias, rulesets.slope(), "lead")
    np.testing.assert_allclose(found.value, logits[:, -1] - logits[:, -2], rtol=1e-10)


def test_the_split_has_all_digits_once():
    training, test = load_digits(0, held_out=100)
    assert training.images.shape == (4900, 28, 28, 1) and test.images.max() == 1
    assert (np.bincount(test.labels) == 10).all() and (np.bincount(training.labels) == 490).all()


def test_wrong_sizes_are_told():
    with pytest.raises(ValueError, match="multiple of 10"):
        load_digits(0, held_out=15)
    few = Digits(np.zeros((3, 28, 28, 1), np.float32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="3 digits and 1 epochs make no batch of 50"):
        train(Mlp(), few, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "--seeds: expected different numbers >= 0, got [1, 1]"),
        (["--digits", "5"], "--digits: expected 10 to 1000, got 5"),
        (["--output", __file__], "not a folder"),
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
    options = ("--output", "--networks", "--seeds", "--digits", "--quick")
    assert all(option in printed for option in options)
