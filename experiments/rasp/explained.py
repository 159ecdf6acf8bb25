"""How the methods explain what a compiled program says at a position, token by token."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments.rasp.programs import BOS


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "tokens", "beside", "weights", "fresh", "others"],
    meta_fields=["run"],
)
@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked of a transformer: for each sequence why it says what it does at each position.

    A pytree, to be an argument of what is compiled: of parameters that are constants XLA computes
    what it can beforehand, and on a busy machine such programs came out different, with NaN.

    Attributes:
        params: Of the transformer.
        tokens: (N, 1 + T, d) embeddings of the tokens, that of the beginning in front.
        beside: (N, 1 + T, d) those of positions.
        weights: (N, 1 + T, d) 1 where the residual stream has what is explained, 0 else; all 0
            where the program says nothing.
        fresh: (d,) that of a token which occurs nowhere.
        others: (V, d) that of each token of the vocabulary.
        run: From parameters and embeddings to the residual stream.
    """

    params: Any
    tokens: jax.Array
    beside: jax.Array
    weights: jax.Array
    fresh: jax.Array
    others: jax.Array
    run: Callable[[Any, jax.Array], jax.Array]

    def value(self, embedded: jax.Array) -> jax.Array:
        """What is explained of embeddings of tokens (N, 1 + T, d), (N,)."""
        return (self.run(self.params, embedded + self.beside) * self.weights).sum((1, 2))


def ask(
    model: Any, program: Any, sequences: Sequence[Sequence[Any]], tokens: Sequence[Any]
) -> tuple[Questions, np.ndarray]:
    """Ask a compiled program for all that it says.

    Args:
        model: The transformer.
        program: The same for the interpreter.
        sequences: Of equal length.
        tokens: The vocabulary, the fresh one last.

    Returns:
        Questions, and (N,) whether the transformer says what the program does.

    Raises:
        ValueError: The transformer hardly ever says what the interpreter says.
    """
    import haiku as hk

    length = len(sequences[0])
    encode = model.input_encoder.encode
    ids = np.array([encode([BOS, *sequence]) for sequence in sequences])
    apart = hk.without_apply_rng(hk.transform(lambda ids: model.get_compiled_model().embed(ids)))
    table = np.asarray(model.params["token_embed"]["embeddings"])
    positions = apart.apply(model.params, ids) - table[ids]
    others = table[[encode([BOS, token])[1] for token in tokens]]
    rows = np.repeat(np.arange(len(sequences)), length)
    wanted = np.zeros((len(rows), length + 1, table.shape[1]), np.float32)
    for row, sequence in enumerate(sequences):
        for place, said in enumerate(program(list(sequence))):
            if said is None:  # attention to nothing
                continue
            wanted[row * length + place, place + 1, _unit(model, program, said)] = 1

    def forward(embedded: jax.Array) -> jax.Array:
        mask = jnp.ones(embedded.shape[:2])
        return model.get_compiled_model().transformer(embedded, mask, use_dropout=False).output

    run = hk.without_apply_rng(hk.transform(forward)).apply
    asked = Questions(
        params=model.params,
        tokens=jnp.asarray(table[ids[rows]]),
        beside=jnp.asarray(positions[rows]),
        weights=jnp.asarray(wanted),
        fresh=jnp.asarray(others[-1]),
        others=jnp.asarray(others),
        run=run,
    )
    found = np.asarray(jax.jit(lambda asked: asked.value(asked.tokens))(asked))
    return asked, _right(model, program, sequences, found)


def _unit(model: Any, program: Any, said: Any) -> int:
    """The residual unit that stands for an output."""
    labels = model.residual_labels
    return labels.index(
        f"{program.label}:{said}" if f"{program.label}:{said}" in labels else program.label
    )


def _right(model: Any, program: Any, sequences: Any, found: np.ndarray) -> np.ndarray:
    said = np.array([program(list(sequence)) for sequence in sequences], object).ravel()
    categorical = any(label.startswith(f"{program.label}:") for label in model.residual_labels)
    nothing = said == None  # noqa: E711 - element by element
    said = np.where(nothing, 0, said)
    expected = np.where(nothing, 0, 1) if categorical else said.astype(float)
    right = np.abs(found - expected) < 0.05
    if right.mean() < 0.5:
        raise ValueError(f"the transformer does not say what {program.label} does")
    return right


Method = Callable[[Questions], jax.Array]
"""Maps questions to the relevance of tokens, (N, 1 + T)."""


def methods() -> dict[str, Method]:
    """By name: rule sets, those against a fresh token or every token, and two that are none."""
    plain = ("gradient", "lrp", "slope", "attn_lrp", "cp_lrp", "gim")
    found: dict[str, Method] = {name: _by_rules(name) for name in plain}
    for name in ("compare_to_baseline", "deeplift_rescale"):
        found[f"{name}, fresh token"] = _by_rules(name, lambda asked: asked.fresh)
    found["compare_to_baseline, each token"] = _against_each
    found["integrated gradients, fresh token"] = _integrated
    found["random"] = lambda asked: jax.random.normal(jax.random.key(0), asked.tokens.shape[:2])
    return found


def _by_rules(rules: str, against: Callable[[Questions], jax.Array] | None = None) -> Method:
    def explain(asked: Questions) -> jax.Array:
        baseline = None if against is None else against(asked)
        return jaxrel.relevance(asked.value, rules, baseline=baseline)(asked.tokens).sum(-1)

    return explain


def _against_each(asked: Questions) -> jax.Array:
    """The mean size of relevance against sequences of one and the same token."""

    def against(token: jax.Array) -> jax.Array:
        explain = jaxrel.relevance(asked.value, "compare_to_baseline", baseline=token)
        return jnp.abs(explain(asked.tokens).sum(-1))

    return jax.lax.map(against, asked.others).mean(0)


def _integrated(asked: Questions) -> jax.Array:
    gradient = jaxrel.relevance(asked.value, "gradient")
    return jaxrel.integrated(gradient, asked.fresh, 24)(asked.tokens).sum(-1)
