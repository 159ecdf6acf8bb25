"""Explanations of transformers that were compiled from programs, judged by what is known of them.

    python -m experiments.compiled
    python -m experiments.compiled --quick

24 programs in RASP are compiled by tracr (Lindner et al. 2023) to transformers that compute them
exactly. The interpreter tells which tokens an output depends on, by putting a token that occurs
nowhere in the place of each. A method is right about an output where it gives the tokens that
matter more relevance (by size) than those that do not: the area under the ROC curve, averaged over
outputs to which some tokens matter and some do not. Programs are told apart by what they need of
attention: nothing, positions alone, means, counts, or values. `compiled.csv` has all numbers;
`compiled.png` shows them.
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments import command
from experiments.data import records
from experiments.rasp.explained import ask, methods
from experiments.rasp.programs import PROGRAMS, Program, compiled
from jaxrel import metrics

METHODS = methods()
SEQUENCES = 24
COLUMNS = ("program", "needs", "outputs", *METHODS)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("compiled", __doc__)
    command.add_folder(parser, "compiled")
    parser.add_argument("--seed", type=int, default=0, help="of the sequences (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a program of each kind, 8 sequences")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    if options.seed < 0:
        raise ValueError(f"--seed: expected a number >= 0, got {options.seed}")
    output = records.folder(options.output)
    chosen = list({p.needs: p for p in PROGRAMS}.values()) if options.quick else PROGRAMS
    rows = []
    for program in chosen:
        rows.append(judge(program, options.seed, 8 if options.quick else SEQUENCES))
        print(report(rows[-1:]), flush=True)
    records.write_table(output / "compiled.csv", COLUMNS, rows)
    draw(rows).savefig(output / "compiled.png", dpi=120)
    records.write_origin(
        output / "compiled.json",
        f"python -m experiments.compiled --seed {options.seed}"
        + (" --quick" if options.quick else ""),
        ("tracr-pypi", "dm-haiku"),
        sequences=SEQUENCES,
    )
    for needs in dict.fromkeys(row[1] for row in rows):
        own = np.array([row[3:] for row in rows if row[1] == needs])
        right = [name for name, low in zip(METHODS, own.min(0), strict=True) if low == 1]
        print(f"needs {needs}: always right {', '.join(right) or 'none'}")
    print(f"results in {output}")


def judge(program: Program, seed: int, many: int) -> tuple:
    """A row of the table: how often tokens that matter come before those that do not."""
    made, model = compiled(program)
    sequences = program.sequences(seed, many)
    asked, right = ask(model, made, sequences, program.tokens)
    truth = np.concatenate([program.matters(made, sequence) for sequence in sequences])
    said = [one for sequence in sequences for one in made(list(sequence))]
    told = truth.any(1) & ~truth.all(1) & np.array([one is not None for one in said])
    told &= right
    scores = []
    for explain in METHODS.values():
        relevance = np.abs(jax.jit(explain)(asked))[:, 1:]
        found = metrics.auc(_rounded(relevance)[told], jnp.asarray(truth[told]))
        scores.append(float(found.mean()))
    return (program.name, program.needs, int(told.sum()), *scores)


def _rounded(relevance: np.ndarray) -> jax.Array:
    """Relevance without what rounding makes of 0, so that nothing is before nothing."""
    size = np.abs(relevance).max(1, keepdims=True)
    return jnp.asarray(np.where(np.abs(relevance) < 1e-4 * size, 0, relevance))


def report(rows: Sequence[tuple]) -> str:
    """Rows as text."""
    return "\n".join(
        f"{name:24s}{needs:12s}{outputs:4d}  " + "  ".join(f"{score:.2f}" for score in scores)
        for name, needs, outputs, *scores in rows
    )


def draw(rows: Sequence[tuple]) -> Figure:
    """A table in colours: programs by methods."""
    scores = np.array([row[3:] for row in rows])
    figure, axes = pyplot.subplots(figsize=(10, 1.8 + 0.3 * len(rows)), layout="constrained")
    image = axes.imshow(scores, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
    for row, column in np.ndindex(scores.shape):
        score = scores[row, column]
        color = "black" if score > 0.8 else "white"
        axes.text(column, row, f"{score:.2f}", ha="center", va="center", color=color, fontsize=7)
    axes.set_yticks(range(len(rows)), [f"{row[0]} ({row[1]})" for row in rows], fontsize=8)
    axes.set_xticks(range(len(METHODS)), list(METHODS), rotation=40, ha="right", fontsize=8)
    axes.set_title("Do the tokens that matter come first? 24 programs compiled to transformers")
    figure.colorbar(image, ax=axes, label="area under the ROC curve")
    return figure


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
