"""`experiments.cost_of_training`: its steps, its table, and its command line."""

import jax
import jax.numpy as jnp
import pytest

from experiments import cost_of_training
from experiments.cost_of_training import PENALTY, PLAIN, Cost

pytestmark = pytest.mark.usefixtures("default_precision")


def test_ratios_are_of_the_same_turn():
    costs = {
        PLAIN: Cost([1.0, 2.0, 1.0], 10.0),
        PENALTY: Cost([2.0, 4.0, 9.0], 20.0),
        "slope": Cost([3.0, 6.0, 2.0], 22.0),
    }
    lines = cost_of_training.table(costs).splitlines()
    assert lines[3] == "| gradient penalty | 4000.0 | 2.00 | 1.00 | 2.00 | 1.00 |"
    assert lines[4] == "| slope | 3000.0 | 3.00 | 1.50 | 2.20 | 1.10 |"


@pytest.mark.full
def test_the_recipe_is_the_same_either_way():
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    masks = jnp.zeros_like(x).at[:, :, :4].set(1)
    batch = cost_of_training.Batch(x, x * masks + x[::-1] * (1 - masks), jnp.arange(4) % 2, masks)
    weights = jax.random.normal(jax.random.key(1), (64, 2))
    found = cost_of_training.losses(lambda p, x: jnp.tanh(x.reshape(len(x), -1) @ p))
    one, other = (jax.grad(found[name])(weights, batch) for name in list(found)[-2:])
    assert jnp.abs(one).max() > 0.01 and jnp.allclose(one, other, atol=1e-5)


@pytest.mark.full
def test_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "cost.md"
    arguments = ["--networks", "patches", "--repeats", "2", "--output", str(path)]
    assert cost_of_training.main(arguments) == 0
    assert capsys.readouterr().out.startswith(path.read_text())
    rows = [line.split(" | ") for line in path.read_text().splitlines() if "ms" not in line]
    flops = {row[0].strip("| "): float(row[-1].strip("| ")) for row in rows if len(row) == 6}
    assert flops["slope"] <= 1.1 and flops["lrp"] <= 1.1 and flops["recipe"] <= 1.1
    assert flops["recipe, as relevance"] <= 1.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "vgg"], "--networks: no 'vgg'; there are cnn, patches, efficientnet"),
        (["--repeats", "-1"], "--repeats: expected 0 or more, got -1"),
        (["--output", "nowhere/at/all.md"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, message, capsys):
    assert cost_of_training.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
