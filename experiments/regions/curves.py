"""How far an answer falls while regions go, in two orders, and the size of the heatmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cells.explained import methods
from experiments.networks.digits import Digits
from experiments.regions.subjects import KINDS, PER_STEP, SIDE, STEPS, logit
from jaxrel import metrics


class Judged(NamedTuple):
    """What a method's heatmaps of N pictures are worth.

    Attributes:
        morf: (N, STEPS + 1) the logit, most relevant first, less what it was.
        lerf: The same, least relevant first.
        size: (N,) of the heatmap as a grey PNG, in bytes.
    """

    morf: np.ndarray
    lerf: np.ndarray
    size: np.ndarray

    @property
    def aopc(self) -> np.ndarray:
        """(N,) Samek's area over the perturbation curve, in logits."""
        return np.asarray(metrics.aopc(jnp.asarray(self.morf)))

    @property
    def abpc(self) -> np.ndarray:
        """(N,) the area between both curves, in logits."""
        return np.asarray(metrics.abpc(jnp.asarray(self.morf), jnp.asarray(self.lerf)))


@functools.cache
def of(kind: str) -> Mapping[str, Any]:
    """The methods, with what a kind's pixels are bounded by."""
    return methods(KINDS[kind].low, KINDS[kind].high)


def judge(kind: str, method: str, variables: Any, pictures: Digits, key: jax.Array) -> Judged:
    """Explain pictures and take regions away, the replacements the same for all methods.

    Args:
        kind: One of `KINDS`.
        method: One of `of(kind)`.
        variables: Of the network.
        pictures: And their classes.
        key: For the noise.
    """
    relevance = _explained(kind, method)(variables, pictures)
    return Judged(*map(np.asarray, _flipped(kind)(variables, pictures, relevance, key)))


@functools.cache
def _explained(kind: str, method: str) -> Callable[[Any, Digits], jax.Array]:
    """One program for all seeds."""

    @jax.jit
    def run(variables: Any, pictures: Digits) -> jax.Array:
        fun = logit(KINDS[kind].apply, variables, jnp.asarray(pictures.labels))
        return of(kind)[method](fun, jnp.asarray(pictures.images))

    return run


@functools.cache
def _flipped(kind: str) -> Callable[..., tuple[jax.Array, ...]]:
    """One program for all methods: both curves, and the size."""
    apply, low, high = KINDS[kind].quick or KINDS[kind].apply, KINDS[kind].low, KINDS[kind].high

    @jax.jit
    def run(variables: Any, pictures: Digits, relevance: jax.Array, key: jax.Array) -> Any:
        x = jnp.asarray(pictures.images)
        curves = (
            metrics.pixel_flipping(
                logit(apply, variables, jnp.asarray(pictures.labels)),
                x,
                relevance.sum(-1),
                steps=STEPS,
                per_step=PER_STEP,
                order=order,
                patch=x.shape[1] // SIDE,
                replacement=metrics.uniform(key, x, low, high) if KINDS[kind].noise else 0.0,
                chunk=KINDS[kind].chunk,
            )
            for order in ("morf", "lerf")
        )
        return *(curve - curve[:, :1] for curve in curves), metrics.file_size(relevance)

    return run


def joined(parts: list[Judged]) -> Judged:
    """The pictures of several seeds, one after another."""
    return Judged(*map(np.concatenate, zip(*parts, strict=True)))
