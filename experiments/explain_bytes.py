r"""Which bytes make this file a PDF? `python -m experiments.explain_bytes`.

Magika (`experiments.networks.magika`; `pip install --no-deps magika`) tells the type of a file by
its first and last 1024 bytes. The logit of what it says is explained by the embeddings of the
bytes, compared to a file without any: to 2048 times the token for no byte. A rule set that is
complete shares out all of the difference. `explain_bytes.png` has a row for each file and a column
for each rule set, with the first and the last 128 bytes: red ones speak for the type.

    python -m experiments.explain_bytes --files paper.pdf,photo.jpg --rules slope,cp_lrp
    python -m experiments.explain_bytes --table

`--table` judges every preset on files that the installed packages bring (`explain_bytes.csv`): how
often another type is told without the bytes of largest relevance, how often the same of nothing
but them, and how much of the relevance, in absolute numbers, lies at both ends. Bytes taken at
random are judged beside.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

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
from experiments.networks.magika import HALF, PADDING, Magika, encode, load_types, load_variables
from jaxrel import rulesets

DEFAULT_RULES = "gradient,slope,compare_to_baseline,deeplift_reveal_cancel"
PRESETS = sorted(set(rulesets.__all__) - {"First", "Kind", "RuleSet", "preset"})

DEFAULT_FILES = (
    ("matplotlib", "matplotlib/mpl-data/images/hand.pdf"),
    ("matplotlib", "matplotlib/mpl-data/images/hand.svg"),
    ("scikit-image", "skimage/data/rocket.jpg"),
)
"""Distributions and what lies in them."""

_JUDGED = (
    ("matplotlib", "matplotlib/mpl-data/images/*.pdf"),
    ("matplotlib", "matplotlib/mpl-data/images/*.svg"),
    ("matplotlib", "matplotlib/mpl-data/fonts/ttf/*.ttf"),
    ("matplotlib", "matplotlib/axes/*.py"),
    ("scikit-image", "skimage/data/*.png"),
    ("scikit-image", "skimage/data/*.jpg"),
    ("scikit-image", "skimage/data/*.gif"),
    ("scikit-image", "skimage/data/*.tif"),
)
_EACH = 6  # files of a pattern
_COUNTS = (4, 16, 64)  # bytes taken away, or left
_END = 64  # bytes at either end
_ROWS, _COLUMNS = 4, 32  # of the picture: bytes at either end


class Judgement(NamedTuple):
    """How the bytes of largest relevance decide.

    Attributes:
        rules: The preset.
        changed_4, changed_16, changed_64: Shares of the files that are told to be something else
            without so many bytes.
        kept_4, kept_16, kept_64: Shares that are told to be the same of nothing but them.
        first, last: Shares of the relevance, in absolute numbers, of the 64 bytes at either end.
    """

    rules: str
    changed_4: float
    changed_16: float
    changed_64: float
    kept_4: float
    kept_16: float
    kept_64: float
    first: float
    last: float


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser(
        "explain_bytes", "Explain the type that a network tells of a file by the file's bytes."
    )
    parser.add_argument(
        "--files", metavar="PATHS", help="comma-separated (default: three of installed packages)"
    )
    command.add_rules(parser, DEFAULT_RULES)
    parser.add_argument(
        "--table",
        action="store_true",
        help="judge every preset on files of installed packages; some minutes",
    )
    command.add_folder(parser, "explain_bytes", "the picture and the table")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    rules = command.rule_sets(options.rules)
    output = records.folder(options.output)
    variables, types = load_variables(), load_types()
    if options.files is None:
        paths = [path for one in DEFAULT_FILES for path in _installed(*one)]
    else:
        paths = [Path(name) for name in command.names("--files", options.files)]
    tokens = np.stack([encode(path.read_bytes()) for path in paths])

    said = np.asarray(tell(variables, tokens)).argmax(1)
    maps = {name: explain(variables, tokens, said, one) for name, one in rules.items()}
    names = [f"{path.name}: {types[k]}" for path, k in zip(paths, said, strict=True)]
    for k, name in enumerate(names):
        print(name)
        for rule, relevance in maps.items():
            print(f"  {rule:24s}{spelled(tokens[k], relevance[k])}")
    figure = draw(names, tokens, maps)
    figure.savefig(output / "explain_bytes.png", dpi=130)
    pyplot.close(figure)
    if options.table:
        _judge_all(variables, types, output)
    print(f"wrote {output}")


def tell(variables: Any, tokens: np.ndarray) -> jax.Array:
    """The logits of files, (files, types)."""
    return jax.jit(Magika().apply)(variables, tokens)


def explain(
    variables: Any, tokens: np.ndarray, types: np.ndarray, rules: jaxrel.RuleSet
) -> np.ndarray:
    """Explain the logits of types by bytes, compared to files without any.

    Args:
        variables: Of `Magika()`.
        tokens: (files, 2048), as of `encode`.
        types: (files,) which logits to explain.
        rules: A rule set.

    Returns:
        (files, 2048) float32 relevance in units of logits.

    Raises:
        RuleError: A rule has no formula with a reference.
    """

    def explained(variables: Any, tokens: jax.Array, nothing: jax.Array) -> jax.Array:
        def logits(tokens: jax.Array) -> jax.Array:
            whole = jnp.asarray(Magika().apply(variables, tokens))
            return whole[jnp.arange(len(types)), types]

        explain = jaxrel.relevance(logits, rules, at="bytes", argnums=(), baseline=nothing)
        return explain(tokens).sum(-1)

    # operands all of them: XLA would compute what they are constants of while it compiles
    return np.asarray(jax.jit(explained)(variables, tokens, np.full_like(tokens, PADDING)))


def without(tokens: np.ndarray, relevance: np.ndarray, count: int) -> np.ndarray:
    """Files without their `count` bytes of largest relevance."""
    return np.where(_rank(relevance) < count, PADDING, tokens)


def alone(tokens: np.ndarray, relevance: np.ndarray, count: int) -> np.ndarray:
    """Files of nothing but their `count` bytes of largest relevance."""
    return np.where(_rank(relevance) < count, tokens, PADDING)


def _rank(relevance: np.ndarray) -> np.ndarray:
    """How many bytes of the file have larger relevance."""
    return (-relevance).argsort(1, kind="stable").argsort(1)


def judge(
    variables: Any, tokens: np.ndarray, types: np.ndarray, name: str, relevance: np.ndarray
) -> Judgement:
    """Judge by their consequences which bytes are said to be relevant."""

    def same(changed: np.ndarray) -> float:
        return float((np.asarray(tell(variables, changed)).argmax(1) == types).mean())

    share = np.abs(relevance) / np.abs(relevance).sum(1, keepdims=True)
    changed = [1 - same(without(tokens, relevance, count)) for count in _COUNTS]
    kept = [same(alone(tokens, relevance, count)) for count in _COUNTS]
    ends = (float(part.sum(1).mean()) for part in (share[:, :_END], share[:, -_END:]))
    return Judgement(name, *changed, *kept, *ends)


def spelled(tokens: np.ndarray, relevance: np.ndarray, count: int = 12) -> str:
    """The most relevant bytes in their order, neighbours together: `0:'%PDF-1.4'`."""
    found = np.sort((-relevance).argsort(kind="stable")[:count])
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    first = [int(run[0]) - (2 * HALF if run[0] >= HALF else 0) for run in runs]
    words = ["".join(map(_letter, tokens[run])) for run in runs]
    return " ".join(f"{at}:{word!r}" for at, word in zip(first, words, strict=True))


def _letter(token: int) -> str:
    """A byte as a letter; a dot where it is none."""
    return chr(token) if 32 < token < 127 else {32: "_", PADDING: " "}.get(int(token), "\u00b7")


def draw(names: Sequence[str], tokens: np.ndarray, maps: Mapping[str, np.ndarray]) -> Figure:
    """Draw the bytes at both ends of each file, by each rule set, with a scale of its own."""
    figure, panels = pyplot.subplots(
        len(names),
        len(maps),
        figsize=(0.13 * (_COLUMNS + 2) * len(maps), 0.19 * (2 * _ROWS + 3) * len(names)),
        layout="constrained",
        squeeze=False,
    )
    half = _ROWS * _COLUMNS
    ends = np.r_[:half, -half:0]
    for k, name in enumerate(names):
        for axes, (title, relevance) in zip(panels[k], maps.items(), strict=True):
            _draw_ends(axes, tokens[k, ends], relevance[k, ends])
            axes.set_title(f"{name}, {title}", fontsize=8)
    label = f"the first and the last {half} bytes; red: for the type, blue: against it"
    figure.supxlabel(label, fontsize=8)
    return figure


def _draw_ends(axes: Axes, tokens: np.ndarray, relevance: np.ndarray) -> None:
    grid = relevance.reshape(-1, _COLUMNS)
    jaxrel.plot.heatmap(grid, axes)
    axes.set_aspect("auto")
    axes.axhline(_ROWS - 0.5, color="black", linewidth=0.8)
    dark = np.abs(grid) > np.abs(grid).max() / 2
    for (row, column), token in np.ndenumerate(tokens.reshape(grid.shape)):
        color = "white" if dark[row, column] else "black"
        style: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace"}
        axes.text(column, row, _letter(token).replace("$", r"\$"), color=color, fontsize=6, **style)


def _installed(package: str, pattern: str) -> list[Path]:
    """Files of an installed distribution, at most so many as are judged."""
    root = Path(str(metadata.distribution(package).locate_file("")))
    return sorted(root.glob(pattern))[:_EACH]


def _judge_all(variables: Any, types: Sequence[str], output: Path) -> None:
    """Judge every preset; print, and write, the table."""
    paths = [path for one in _JUDGED for path in _installed(*one)]
    tokens = np.stack([encode(path.read_bytes()) for path in paths])
    said = np.asarray(tell(variables, tokens)).argmax(1)
    noise = np.random.default_rng(0).random(tokens.shape)
    rows = [judge(variables, tokens, said, "(random)", np.where(tokens == PADDING, 0, noise))]
    left_out = []
    for name in tqdm(PRESETS, "rule sets", disable=None):
        try:
            relevance = explain(variables, tokens, said, rulesets.preset(name))
        except (jaxrel.RuleError, TypeError) as error:
            left_out.append(f"{name}: {error}")
            continue
        rows.append(judge(variables, tokens, said, name, relevance))
    rows = sorted(rows, key=lambda row: -row.changed_16 - row.kept_16)
    print(f"{'':28s}" + "".join(f"{name:>12s}" for name in Judgement._fields[1:]))
    for row in rows:
        print(f"{row.rules:28s}" + "".join(f"{x:12.3f}" for x in row[1:]))
    records.write_table(output / "explain_bytes.csv", Judgement._fields, rows)
    records.write_origin(
        output / "explain_bytes.json",
        "python -m experiments.explain_bytes --table",
        ("flax", "magika", "matplotlib", "scikit-image"),
        files=len(paths),
        types={types[k]: int((said == k).sum()) for k in sorted(set(said.tolist()))},
        left_out=left_out,
    )


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
