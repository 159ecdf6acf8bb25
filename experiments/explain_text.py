"""Why are two sentences similar? `python -m experiments.explain_text --help`.

all-MiniLM-L6-v2 embeds both sentences; what is explained is the cosine similarity of the two
embeddings. Each rule set answers four questions:

* words: which tokens of either sentence? The relevance of their embeddings, halved between the two
  sentences. Beside it, for comparison, what masking a token one at a time takes away.
* pairs: which token of one with which of the other? BiLRP (Eberle et al. 2020,
  https://arxiv.org/abs/2003.05286): the similarity is a sum over the features of the embeddings,
  relevances of a feature are multiplied, the products summed.
* heads: which heads of attention, by what their values contribute to the residual stream?
* positions: what is due to where tokens stand? Positions are learned constants, so biases.

Into the folder go `words.html`, `words.png` and `inside.png` (pairs, heads, positions). What is
printed is the whole account: words, positions and all other constants of the network.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

import jaxrel
from experiments import command
from experiments.data import records
from experiments.networks.minilm import (
    LAYERS,
    WIDTH,
    MiniLM,
    encode,
    load_tokenizer,
    load_variables,
)

DEFAULT_RULES = "gradient,slope,cp_lrp"
_SIDES = ("first", "second")  # sentences, and the scopes in which they are embedded
_MASK = "[MASK]"


class Answer(NamedTuple):
    """What a rule set says, in units of the similarity.

    Attributes:
        words: Relevance of each token, one array for each sentence.
        positions: Relevance of each position, one array for each sentence.
        others: The sum over all other constants.
        heads: (layers, heads), both sentences added.
        pairs: (tokens of the first, tokens of the second).
    """

    words: list[np.ndarray]
    positions: list[np.ndarray]
    others: float
    heads: np.ndarray
    pairs: np.ndarray


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("explain_text", __doc__)
    parser.add_argument(
        "sentences",
        metavar="SENTENCE",
        nargs="*",
        default=["A dog is running on the grass.", "The animal runs outside."],
        help="two English sentences (default: one about a dog, one about an animal)",
    )
    command.add_rules(parser, DEFAULT_RULES)
    command.add_folder(parser, "explain_text", "the pictures")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; `OSError` or `ValueError` if it asks the impossible."""
    # Everything that the user may have mistyped is checked before the slow part.
    rules = command.rule_sets(options.rules, compared=False)
    if len(options.sentences) != 2:
        raise ValueError(f"expected two sentences in quotes, got {len(options.sentences)}")
    output = records.folder(options.output)
    tokenizer = load_tokenizer()
    split = [encode(tokenizer, sentence) for sentence in options.sentences]
    pieces, ids = [words for words, _ in split], [jnp.asarray(of) for _, of in split]

    variables = load_variables()
    value = float(similarity(variables, *ids)[0])
    print(f"similarity {value:.4f}: {' | '.join(options.sentences)}")
    masked = masking(variables, ids, int(encode(tokenizer, _MASK)[1][0, 1]))
    print(f"{'':20s}{'words':>10s}{'positions':>11s}{'constants':>11s}{'sum':>10s}{'pairs':>10s}")
    answers = {}
    for name, rule_set in rules.items():
        start = time.perf_counter()
        answers[name] = answer = explain(variables, ids, rule_set)
        parts = [sum(map(np.sum, answer.words)), sum(map(np.sum, answer.positions)), answer.others]
        print(
            f"{name:20s}{parts[0]:10.4f}{parts[1]:11.4f}{parts[2]:11.4f}{sum(parts):10.4f}", end=""
        )
        seconds = time.perf_counter() - start
        print(f"{answer.pairs.sum():10.4f}  ({seconds:.1f} s)", flush=True)

    rows = {name: np.concatenate(answer.words) for name, answer in answers.items()}
    rows["masked, one at a time"] = np.concatenate(masked)
    words = jaxrel.plot.tokens([*pieces[0], *pieces[1]], rows, unit="of the similarity")
    words.save(output / "words.html")
    words.save(output / "words.png")
    draw(output / "inside.png", pieces, answers, value)
    print(f"wrote words.html, words.png and inside.png into {output}")


def similarity(variables: dict[str, Any], first: jax.Array, second: jax.Array) -> jax.Array:
    """Compare sentences by the cosine between their embeddings.

    Args:
        variables: The variables of `MiniLM()`.
        first: (batch, tokens) token ids; its layers are places `"first/MiniLM/..."`.
        second: (batch, tokens) token ids, of another number perhaps; `"second/MiniLM/..."`.

    Returns:
        (batch,) cosine similarities.
    """
    with jax.named_scope("first"):
        a = jnp.asarray(MiniLM().apply(variables, first))
    with jax.named_scope("second"):
        b = jnp.asarray(MiniLM().apply(variables, second))
    return (a * b).sum(-1)


def explain(
    variables: dict[str, Any], ids: Sequence[jax.Array], rules: jaxrel.RuleSet | str
) -> Answer:
    """Explain the similarity of two sentences.

    Args:
        variables: The variables of `MiniLM()`.
        ids: Token ids of either sentence, (1, tokens).
        rules: A rule set, or the name of a preset of `jaxrel.rulesets`.
    """
    words = [f"{side}/MiniLM/embeddings/word" for side in _SIDES]
    heads = [
        [f"{side}/MiniLM/layer_{k}/attention/output:in" for k in range(LAYERS)] for side in _SIDES
    ]
    places = [*words, *heads[0], *heads[1]]

    def compare(first: jax.Array, second: jax.Array) -> jax.Array:
        return similarity(variables, first, second)

    explained = jaxrel.relevance(compare, rules, argnums=(), at=places, biases=True)
    found, biases = jax.device_get(jax.jit(explained)(*ids))
    # Added to words under the scope of both: learned positions have a row for each token.
    positions = [biases.pop(f"{side}/MiniLM/embeddings").sum(-1) for side in _SIDES]
    return Answer(
        [found[place][0].sum(-1) for place in words],
        positions,
        float(sum(of.sum() for of in jax.tree.leaves(biases))),
        np.sum([[found[place].sum((0, 1, 3)) for place in side] for side in heads], axis=0),
        np.einsum("fa,fb->ab", *(features(variables, of, rules) for of in ids)),
    )


def features(variables: dict[str, Any], ids: jax.Array, rules: jaxrel.RuleSet | str) -> np.ndarray:
    """Explain every feature of a sentence's embedding, with one forward pass.

    Returns:
        (384 features, tokens) relevance in units of the features.
    """

    def relevances(ids: jax.Array) -> jax.Array:
        value, pullback = jaxrel.relevance_vjp(
            lambda ids: jnp.asarray(MiniLM().apply(variables, ids)),
            ids,
            rules=rules,
            argnums=(),
            at="embeddings/word",
        )
        one = jnp.eye(WIDTH, dtype=value.dtype)[:, None]
        return jax.vmap(pullback)(one)[:, 0].sum(-1)

    return np.asarray(jax.jit(relevances)(ids))


def masking(variables: dict[str, Any], ids: Sequence[jax.Array], mask: int) -> list[np.ndarray]:
    """How much similarity is lost where one token is replaced by the mask token.

    Returns:
        For each sentence (tokens,): positive where the token makes them similar.
    """
    embed = jax.jit(MiniLM().apply)
    whole = [np.asarray(embed(variables, of))[0] for of in ids]
    lost = []
    for of, own, other in zip(ids, whole, whole[::-1], strict=True):
        without = jnp.where(jnp.eye(of.size, dtype=bool), mask, of)
        lost.append(own @ other - np.asarray(embed(variables, without)) @ other)
    return lost


def draw(
    path: Path, pieces: Sequence[Sequence[str]], answers: Mapping[str, Answer], value: float
) -> None:
    """Draw a row for each rule set: pairs of tokens, heads, positions."""
    first, second = pieces
    height = max(2.6, 0.24 * len(first) + 1.2)
    figure, axes = pyplot.subplots(
        len(answers),
        3,
        figsize=(4.2 + 0.3 * len(second) + 7.5, height * len(answers)),
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(f"What makes the similarity {value:.2f}?  red: more, blue: less")
    for row, (name, answer) in zip(axes, answers.items(), strict=True):
        _image(row[0], answer.pairs)
        row[0].set_title(f"{name}: pairs of tokens, sum {answer.pairs.sum():+.2f}")
        row[0].set_yticks(range(len(first)), first)
        row[0].set_xticks(
            range(len(second)), second, rotation=60, ha="right", rotation_mode="anchor"
        )
        _image(row[1], answer.heads)
        row[1].set(title=f"{name}: heads", xlabel="head", ylabel="layer")
        row[1].set_xticks(range(answer.heads.shape[1]))
        for side, positions, color in zip(_SIDES, answer.positions, ("C0", "C1"), strict=True):
            shift = 0.2 if side == "second" else -0.2
            at = np.arange(len(positions)) + shift
            row[2].bar(at, positions, 0.4, label=f"{side}, sum {positions.sum():+.2f}", color=color)
        row[2].axhline(0, color="0.5", linewidth=0.8)
        row[2].set(title=f"{name}: positions", xlabel="position")
        row[2].margins(y=0.3)  # room for the legend
        row[2].legend(loc="best")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _image(axes: Axes, values: np.ndarray) -> None:
    """Draw numbers as colours, zero white."""
    limit = float(np.abs(values).max()) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.figure.colorbar(image, ax=axes)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
