"""A picture explained against itself: what is compared with is the picture without a part of it.

Against x0 = x without part k, a comparison shares f(x) - f(x0) among the pixels of part k alone,
for nothing else differs. Parts that cover the picture make a map of it; what each part gets is what
the answer loses without it, to rounding (or to the accuracy of an integral). The parts are half the
squares of a checkerboard, or a quarter of them: few maps, and a reference that is nearer than black
to a picture of which a cell is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

import jaxrel
from experiments.cells.explained import STEPS, Explain, by_rules
from experiments.cells.networks import CELLS
from jaxrel import metrics, rulesets

GAMMA = 0.03
"""Chosen among .01, .02, .03, .05, .1 on pictures for choosing, the first seed, the CNN."""
OTHER = 7
"""Squares along a side that are not the cells of the score: 4 x 4 pixels, the ViT's patches."""


def halves(squares: int = CELLS) -> jax.Array:
    """(2, 28, 28, 1) whether a pixel is on a black, on a white square of a checkerboard."""
    row, column = _squares(squares)
    return jnp.stack([(row + column) % 2 == k for k in range(2)])


def quarters(squares: int = CELLS) -> jax.Array:
    """(4, 28, 28, 1) whether a pixel is in an even or odd row, and column, of squares."""
    row, column = _squares(squares)
    return jnp.stack([row % 2 * 2 + column % 2 == k for k in range(4)])


def _squares(along: int) -> tuple[jax.Array, jax.Array]:
    """The row and the column of each pixel's square, (28, 28, 1)."""
    square = metrics.grid((28, 28), along)[0][..., None]
    return square // along, square % along


def compared(parts: jax.Array) -> Explain:
    """`compare_to_baseline` against the picture without each part: as many passes as parts."""

    def explain(fun: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        def against(x0: jax.Array) -> Callable[..., jax.Array]:
            return jaxrel.relevance(fun, "compare_to_baseline", baseline=x0)

        return len(parts) * jaxrel.expected(against, _without(parts))(x)

    return explain


def integrated(parts: jax.Array) -> Explain:
    """Integrated gradients from the picture without each part, `STEPS` passes for each."""

    def explain(fun: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        gradient = jaxrel.relevance(fun, "gradient")
        chunk = len(parts) * STEPS  # no loop, for in one XLA would run convolutions on one core
        found = jaxrel.expected(gradient, _without(parts), steps=STEPS, chunk=chunk)(x)
        return len(parts) * found

    return explain


def _without(parts: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A function of pictures (N, 28, 28, 1) that gives them without each part, 0 in its place."""
    return lambda x: jnp.where(parts[:, None], 0, x)


METHODS: dict[str, tuple[Explain, int]] = {
    f"compare_to_baseline, gamma {GAMMA}": (
        by_rules(rulesets.compare_to_baseline(gamma=GAMMA), against_black=True),
        1,
    ),
    "compare_to_baseline, own halves": (compared(halves()), 2),
    "compare_to_baseline, own quarters": (compared(quarters()), 4),
    "compare_to_baseline, own halves of other cells": (compared(halves(OTHER)), 2),
    "integrated gradients, own halves": (integrated(halves()), 2 * STEPS),
    "integrated gradients, own quarters": (integrated(quarters()), 4 * STEPS),
    "integrated gradients, own halves of other cells": (integrated(halves(OTHER)), 2 * STEPS),
}
"""And how many gradients, or comparisons, a map takes."""
