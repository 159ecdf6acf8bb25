"""What every preset conserves, what it costs, and how faithful it is: one table.

    python -m experiments.presets

Conserved: the sum of relevance and what biases get (against a baseline: the sum of relevance), less
what is explained, relative to its magnitude, in float64 on a CNN and a small vision transformer
with weights and biases drawn at random, for eight logits together. Cost: FLOPs as XLA counts
them, over those of the gradient on the same network. Faithfulness is read off the tables that
`experiments.idsds` and `experiments.faithfulness` left in experiments/results. `presets.csv`, and
the table as Markdown on standard output.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxrel
from experiments import command
from experiments.cells.explained import AGAINST_BLACK, rules_by_name
from experiments.cells.networks import NETWORKS, label_logit
from experiments.cells.references import GAMMA
from experiments.data import records
from jaxrel import rulesets

ON = ("cnn", "vit")
RESULTS = Path(__file__).parent / "results"
PICTURES = ("digits", "digits to black", "fashion", "fashion to black", "efficientnet")
JUDGED = (("idsds", "score", ON), ("faithfulness", "over random", PICTURES))
COLUMNS = (
    "preset",
    *(f"not conserved, {name}" for name in ON),
    *(f"cost, {name}" for name in ON),
    *(f"{script}, {name}" for script, _, names in JUDGED for name in names),
)
NEGLIGIBLE = 1e-5
"""As much as stabilisers of 1e-6 take of a sum that is conserved."""


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("presets", __doc__)
    command.add_folder(parser, "presets")
    parser.add_argument(
        "--results", metavar="FOLDER", type=Path, default=RESULTS, help="where scores are read"
    )
    parser.add_argument("--quick", action="store_true", help="the CNN alone: to see it run")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    output = records.folder(options.output)
    judged = {script: scores(options.results, script, column) for script, column, _ in JUDGED}
    rows = []
    networks = ON[:1] if options.quick else ON
    for name, rules in _rule_sets().items():
        against_black = name.startswith(AGAINST_BLACK)
        kept = [created(network, rules, against_black) for network in networks]
        costs = [cost(network, rules, against_black) for network in networks]
        faithful = [
            judged[script].get((network, name)) for script, _, names in JUDGED for network in names
        ]
        missing = [None] * (len(ON) - len(networks))
        rows.append((name, *kept, *missing, *costs, *missing, *faithful))
        print(name, *kept, *costs, file=sys.stderr, flush=True)
    records.write_table(output / "presets.csv", COLUMNS, rows)
    records.write_origin(output / "presets.json", "python -m experiments.presets", ("flax",))
    print(markdown(rows))
    print(f"results in {output}")


def _rule_sets() -> dict[str, jaxrel.RuleSet]:
    """Every preset, and the one with an option that `experiments.idsds` judges."""
    name, gamma = f"compare_to_baseline, gamma {GAMMA}", rulesets.compare_to_baseline(gamma=GAMMA)
    return rules_by_name(0.0, 1.0) | {name: gamma}


def scores(folder: Path, script: str, column: str) -> dict[tuple[str, str], float]:
    """A column of an experiment's table, by network and method.

    Raises:
        OSError: There is no such table.
    """
    with (folder / f"{script}.csv").open() as file:
        return {(row["network"], row["method"]): float(row[column]) for row in csv.DictReader(file)}


def created(network: str, rules: jaxrel.RuleSet, against_black: bool) -> float:
    """What a rule set creates or destroys of eight logits, relative to their magnitudes."""

    @jax.jit
    def run(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        fun = label_logit(network, variables, labels)
        if against_black:
            found, biases = jaxrel.relevance(fun, rules, baseline=0.0)(images), 0
            expected = fun(images) - fun(jnp.zeros_like(images))
        else:
            found, biases = jaxrel.relevance(fun, rules, biases="total")(images)
            expected = fun(images)
        return jnp.abs(found.sum() + biases - expected.sum()) / jnp.abs(expected).sum()

    with jax.enable_x64(True):
        return float(run(*_example(network, jnp.float64)))


def cost(network: str, rules: jaxrel.RuleSet, against_black: bool) -> float:
    """FLOPs of a relevance over those of the gradient."""
    example = _example(network, jnp.float32)

    def by(rules: jaxrel.RuleSet | str, *baseline: Any) -> Callable[..., jax.Array]:
        def run(variables: Any, images: jax.Array, labels: jax.Array, *x0: Any) -> jax.Array:
            fun = label_logit(network, variables, labels)
            return jaxrel.relevance(fun, rules, baseline=x0[0] if x0 else None)(images)

        return run

    def flops(run: Callable[..., jax.Array], *operands: Any) -> float:
        costs: Any = jax.jit(run).lower(*operands).compile().cost_analysis()
        return costs["flops"]

    against = (jnp.zeros_like(example[1]),) if against_black else ()
    return flops(by(rules), *example, *against) / flops(by("gradient"), *example)


def _example(network: str, dtype: Any) -> tuple[Any, jax.Array, jax.Array]:
    """Weights and biases, eight pictures and their classes, all at random."""
    images = jax.random.uniform(jax.random.key(0), (8, 28, 28, 1), dtype)
    variables = NETWORKS[network].init(jax.random.key(1), images)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.1 * jax.random.normal(k, v.shape, dtype) for k, v in zip(keys, leaves, strict=True)]
    moved = [jnp.asarray(v, dtype) + n for v, n in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(tree, moved), images, jnp.arange(8, dtype=jnp.int32)


def markdown(rows: Sequence[tuple]) -> str:
    """The table for a page of documentation."""

    def cell(column: str, value: Any) -> str:
        if value is None or isinstance(value, str):
            return f"`{value}`" if value else ""
        if column.startswith("not conserved"):
            return "yes" if value < NEGLIGIBLE else f"no ({value:.2g})"
        return f"{value:+.2f}" if column.startswith("faithfulness") else f"{value:.2f}"

    judged = [any(row[k] is not None for row in rows) for k in range(len(COLUMNS))]
    kept = [(k, column) for k, column in enumerate(COLUMNS) if judged[k]]
    lines = [[column.removeprefix("not ") for _, column in kept], ["---"] * len(kept)]
    lines += [[cell(column, row[k]) for k, column in kept] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
