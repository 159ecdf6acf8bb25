"""Does an explanation change when the network does: every preset under cascading randomisation.

    python -m experiments.sanity
    python -m experiments.sanity --quick

From the logits down, layer after layer of a digit CNN gets weights that have learned nothing
(Adebayo et al. 2018), and each map is compared with that of the trained network: Spearman's
correlation over pixels, of maps with their signs, of maps up to one sign for the whole (its
magnitude: rules that favour what is positive hand the sign of the logit to all pixels), and of
absolute values (which on digits is high for every map that is 0 where the picture is). A map that
stays the same does not show what the network has learned. Beside it the efficient test (Hedström et
al. 2024: by how much the histogram of a map gets richer when all is random) and the map of another
class (Sixt et al. 2020). The test pictures, three networks; `sanity.csv` has means, and their
spread over networks, `sanity.png` the curves.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import command
from experiments.cells.explained import methods
from experiments.cells.networks import NETWORKS, label_logit, subject
from experiments.data import records
from experiments.networks.digits import Digits
from jaxrel import metrics

METHODS = methods()
CURVES = ("signed", "up to a sign", "absolute")
NETWORK, LAYERS = "cnn", ("dense_4", "dense_3", "conv_2", "conv_1")
SAME = 0.5
"""A map that is as like the original as this, up to its sign, with all weights fresh is marked."""


class Row(NamedTuple):
    """How a method fares: means over pictures and networks, and the spread of networks.

    Attributes:
        method: Its name.
        signed: Correlation after each layer from the top, maps with their signs.
        either: The magnitude of that correlation.
        absolute: Correlation of absolute values.
        spread: Of the last of `either`, over networks; None of one.
        complexity: The efficient test's score.
        other_class: Correlation with the map of another class.
    """

    method: str
    signed: tuple[float, ...]
    either: tuple[float, ...]
    absolute: tuple[float, ...]
    spread: float | None
    complexity: float
    other_class: float


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("sanity", __doc__)
    command.add_folder(parser, "sanity")
    command.add_seeds(parser, 3)
    parser.add_argument(
        "--quick", action="store_true", help="one network, three epochs, 150 pictures"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    output = records.folder(options.output)
    seeds = command.seeds(options)
    size = (150, 3) if options.quick else (450, 10)
    found: dict[str, list[Any]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        on = subject(NETWORK, seed, *size)
        print(f"network {seed}: {on.accuracy:.1%} of the test digits", flush=True)
        fresh = NETWORKS[NETWORK].init(jax.random.key(1000 + seed), on.test.images[:1])
        others = metrics.other_classes(jax.random.key(seed), jnp.asarray(on.test.labels), 10)
        for name in METHODS:
            found[name].append(jax.device_get(judge(name)(on.variables, fresh, on.test, others)))
    rows = [_row(name, results) for name, results in found.items()]
    rows.sort(key=lambda row: row.either[-1])
    _write(output, rows, seeds, options.quick)
    print(report(rows))
    print(f"results in {output}")


@functools.cache
def judge(method: str) -> Callable[[Any, Any, Digits, jax.Array], Any]:
    """One program: the three curves, rise of complexity, another class."""
    explain = METHODS[method]

    def of(variables: Any, labels: jax.Array, x: jax.Array) -> jax.Array:
        return explain(label_logit(NETWORK, variables, labels), x)

    def absolute(a: jax.Array, b: jax.Array) -> jax.Array:
        return metrics.spearman(jnp.abs(a), jnp.abs(b))

    @jax.jit
    def run(variables: Any, fresh: Any, digits: Digits, others: jax.Array) -> Any:
        x, labels = jnp.asarray(digits.images), jnp.asarray(digits.labels)
        explained = lambda variables, x: of(variables, labels, x)  # noqa: E731
        signed, unsigned = (
            metrics.cascading(explained, variables, fresh, x, LAYERS, similarity=alike)
            for alike in (metrics.spearman, absolute)
        )
        richer = metrics.efficient_mprt(explained, variables, fresh, x).mean()
        other = metrics.random_logit(
            lambda x, labels: of(variables, labels, x), x, labels, others
        ).mean()
        return *(c.mean(1) for c in (signed, jnp.abs(signed), unsigned)), richer, other

    return run


def _row(name: str, results: Sequence[Any]) -> Row:
    signed, either, absolute, richer, other = (
        np.array(part) for part in zip(*results, strict=True)
    )
    return Row(
        name,
        tuple(map(float, signed.mean(0)[1:])),
        tuple(map(float, either.mean(0)[1:])),
        tuple(map(float, absolute.mean(0)[1:])),
        records.spread(either[:, -1]),
        float(richer.mean()),
        float(other.mean()),
    )


def _write(output: Any, rows: Sequence[Row], seeds: int, quick: bool) -> None:
    names = ["method"]
    names += [f"{kind}, down to {layer}" for kind in CURVES for layer in LAYERS]
    names += ["spread of networks", "efficient MPRT", "another class"]
    cells = [
        (r.method, *r.signed, *r.either, *r.absolute, r.spread, r.complexity, r.other_class)
        for r in rows
    ]
    records.write_table(output / "sanity.csv", names, cells)
    command_line = f"python -m experiments.sanity{' --quick' if quick else ''}"
    records.write_origin(
        output / "sanity.json", command_line, ("flax", "optax", "mlxtend"), seeds=seeds
    )
    draw(rows).savefig(output / "sanity.png", dpi=120)


def report(rows: Sequence[Row]) -> str:
    """The table as text; what hardly changes is marked."""
    head = "".join(f"{layer:>9s}" for layer in LAYERS)
    lines = [f"{'up to a sign, fresh down to':28s}{head}   signed  absolute  richer  another class"]
    for row in rows:
        curve = "".join(f"{value:9.2f}" for value in (*row.either, row.signed[-1]))
        lines.append(
            f"{row.method:28s}{curve}{row.absolute[-1]:10.2f}{row.complexity:8.2f}"
            f"{row.other_class:10.2f}" + ("   <- stays" if row.either[-1] > SAME else "")
        )
    return "\n".join(lines)


def draw(rows: Sequence[Row]) -> Figure:
    """Curves from the trained network to one that has learned nothing."""
    figure, panels = pyplot.subplots(1, 3, figsize=(14, 5), layout="constrained", sharey=True)
    figure.suptitle("Maps against those of the trained network, as layers forget what they learned")
    at = range(len(LAYERS) + 1)
    colors = pyplot.get_cmap("viridis")(np.linspace(0, 0.95, len(rows)))
    all_curves = zip(*((row.signed, row.either, row.absolute) for row in rows), strict=True)
    titles = ("maps with their signs", "up to a sign of the whole", "absolute values")
    for axes, title, curves in zip(panels, titles, all_curves, strict=True):
        for row, curve, color in zip(rows, curves, colors, strict=True):
            axes.plot(at, (1, *curve), color=color, marker="o", markersize=3, label=row.method)
        axes.set(title=title, xlabel="fresh from the logits down to")
        axes.set_xticks(at, ["none", *LAYERS])
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Spearman's correlation over pixels")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8)
    return figure


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
