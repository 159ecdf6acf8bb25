"""What is printed of an epoch: is the network right, and is the explanation?

accuracy     of validation pictures
flips        of those with a mask, how many get another answer on the background of a picture of
             another class
in mask      mean share of absolute relevance on the object, by the rules that are trained
gap          in mask - (1 - flips), the Goodhart gap: how much better the explanation looks than
             the network is. No test data is needed for it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.own.folder import Pictures
from jaxrel import RuleSet, relevance, training

GAP = 0.2
"""From here on the penalty is being gamed. Networks that are trained without end below 0."""


class Watched(NamedTuple):
    """The numbers of an epoch, as fractions."""

    accuracy: float
    flips: float
    in_mask: float

    @property
    def gap(self) -> float:
        """How much better the explanation looks than the network is."""
        return self.in_mask - (1 - self.flips)

    def __str__(self) -> str:
        """In one line."""
        names = ("accuracy", "flips", "in mask", "gap")
        values = (*self, self.gap)
        return "   ".join(f"{name} {100 * x:5.1f}" for name, x in zip(names, values, strict=True))

    def advice(self) -> str:
        """What to do about it; empty: nothing."""
        if self.gap < GAP:
            return ""
        return (
            "  the explanation looks better than the network is: the penalty is being gamed. What "
            "helps: --reference swap with --penalty outside_sum_squared; a larger --weight; a "
            "--tolerance, if masks are loose"
        )


def watcher(
    apply: Callable[[Any, jax.Array], jax.Array],
    rules: RuleSet,
    compared: bool,
    data: Pictures,
    reach: int,
) -> Callable[[Any], Watched]:
    """A function from parameters to the numbers of an epoch.

    Args:
        apply: From parameters and pictures to logits.
        rules: The rule set that is trained.
        compared: Whether it compares to a reference; then relevance is that against pictures of
            another class: against the swapped background it is on it by definition.
        data: Validation pictures.
        reach: How far masks are eroded before an object is cut out, in pixels.
    """
    masked = data.take(np.flatnonzero(data.known))
    masks, labels = jnp.asarray(masked.masks), jnp.asarray(masked.labels)
    sure = training.erode_at_random(jax.random.key(1), masks, reach, reach)
    x = jnp.asarray(masked.images)
    swapped = training.swap_background(jax.random.key(0), x, sure, labels)
    others = x[training.another(jax.random.key(2), labels)]

    @jax.jit
    def answers(params: Any, x: jax.Array) -> jax.Array:
        return apply(params, x).argmax(1)

    @functools.partial(jax.jit)
    def share(params: Any) -> jax.Array:
        value = lambda x: training.margin(apply(params, x), labels)  # noqa: E731
        explain = relevance(value, rules, baseline=others if compared else None)
        return training.in_mask_share(explain(x), masks).mean()

    def watch(params: Any) -> Watched:
        right = np.asarray(answers(params, jnp.asarray(data.images))) == data.labels
        flips = answers(params, x) != answers(params, swapped)
        return Watched(float(right.mean()), float(flips.mean()), float(share(params)))

    return watch
