"""Curves: what the function answers while more and more of its input is taken away, or given back.

    curve = jax.jit(lambda x, r: pixel_flipping(fun, x, r, steps=100))(images, heatmaps)
    aopc(curve).mean()

The function is called with the whole batch at every step, in its order, so that it may close over
what belongs to each example (a label). The steps are one loop: one compiled program, of the size of
one forward pass, and with ``steps + 1`` of them; several at once by ``chunk``. Curves can be
differentiated by what the function and x depend on, not by the order.

Ties are taken in the order of positions, row by row. An example whose relevance has a NaN has a
curve of NaN.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._call.averages import count
from . import borders
from .borders import Function
from .parts import Parts, Patch, Replacement, parts_of, replaced

Order = Literal["morf", "lerf", "random"]


def pixel_flipping(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    steps: int,
    order: Order = "morf",
    replacement: Replacement = 0.0,
    patch: Patch = None,
    per_step: int | None = None,
    key: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Takes parts away in the order of their relevance (Bach et al. 2015; Samek et al. 2015).

    x_0 = x, x_k = x with the first n_k parts of the order replaced; the curve is f(x_k).

    Args:
      fun: from x to (N,), the value that was explained; any callable.
      x: (N, ...), floats or integers.
      relevance: in x's shape, or without its last axes (or with 1 there): then what it sums over
        is replaced together.
      steps: how many.
      order: ``"morf"`` most relevant first, ``"lerf"`` least relevant first, ``"random"`` (by
        ``key``): what any explanation has to beat.
      replacement: of what is taken away; see :mod:`jaxrel.metrics.replacements`.
      patch: what a part is; see :mod:`jaxrel.metrics.parts`.
      per_step: how many parts each step takes; None: all are gone after the last one.
      key: a random key, for ``order="random"``.
      chunk: how many steps are computed at once.

    Returns:
      (N, steps + 1), f(x) first, in units of f, in float32 at least.

    Raises:
      ValueError: shapes that do not fit; more steps than parts; no such order.
      TypeError: ``fun`` is no function.
    """
    taken = _taken("pixel_flipping", order, key)
    return _curve(taken, fun, x, relevance, (steps, per_step), replacement, patch, chunk)


def region_perturbation(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    patch: Patch,
    steps: int,
    order: Order = "morf",
    replacement: Replacement = 0.0,
    key: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Region perturbation (Samek et al. 2015, eq. 9 to 11): one patch in each step.

    The paper takes 9 x 9 patches, 100 steps, and replaces by :func:`uniform` noise.

    Args:
      fun, x, relevance, patch, steps, order, replacement, key, chunk: as for
        :func:`pixel_flipping`; patches are ordered by the sum of their relevance.

    Returns:
      (N, steps + 1), f(x) first.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    taken = _taken("region_perturbation", order, key)
    return _curve(taken, fun, x, relevance, (steps, 1), replacement, patch, chunk)


def deletion(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    steps: int,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Deletion (Petsiuk et al. 2018): most relevant first until all is gone; a low area is good.

    Args:
      fun, x, relevance, steps, replacement, patch, chunk: as for :func:`pixel_flipping`; the paper
        takes probabilities for ``fun``, and :func:`area` of the curve.

    Returns:
      (N, steps + 1), f(x) first.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    taken = _taken("deletion", "morf", None)
    return _curve(taken, fun, x, relevance, (steps, None), replacement, patch, chunk)


def insertion(
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    *,
    steps: int,
    replacement: Replacement = 0.0,
    patch: Patch = None,
    chunk: int = 1,
) -> jax.Array:
    """Insertion (Petsiuk et al. 2018): from nothing, most relevant first; a high area is good.

    Args:
      fun, x, relevance, steps, patch, chunk: as for :func:`deletion`.
      replacement: what there is at the beginning; the paper takes ``blur(x)``.

    Returns:
      (N, steps + 1), f(x) last.

    Raises:
      ValueError, TypeError: as :func:`pixel_flipping`.
    """
    given = _taken("insertion", "morf", None)._replace(back=True)
    return _curve(given, fun, x, relevance, (steps, None), replacement, patch, chunk)


def aopc(curve: jax.Array) -> jax.Array:
    """Area over the perturbation curve: mean over k = 0 ... L of f(x_0) - f(x_k).

    Samek et al. 2015, eq. 12, of each example; the paper averages over them.

    Args:
      curve: (N, L + 1), of :func:`pixel_flipping`, f(x) first.

    Returns:
      (N,), in units of f: high for ``"morf"``, low for ``"lerf"``.

    Raises:
      ValueError: it has not two axes.
    """
    curve = _checked("curve", curve)
    return (curve[:, :1] - curve).mean(1)


def abpc(morf: jax.Array, lerf: jax.Array) -> jax.Array:
    """Area between the perturbation curves: mean over k of f(x_k, LeRF) - f(x_k, MoRF).

    Samek et al. 2015, section III-C.

    Args:
      morf, lerf: (N, L + 1), curves of both orders.

    Returns:
      (N,), in units of f: high is good, 0 is random.

    Raises:
      ValueError: they do not have one shape of two axes.
    """
    morf, lerf = _checked("morf", morf), _checked("lerf", lerf)
    borders.same_shape("morf", morf, "lerf", lerf)
    return (lerf - morf).mean(1)


def area(curve: jax.Array) -> jax.Array:
    """Area under a curve by trapezoids, over 0 to 1: (f_0 / 2 + f_1 + ... + f_L / 2) / L.

    Petsiuk et al. 2018.

    Args:
      curve: (N, L + 1).

    Returns:
      (N,), in units of f.

    Raises:
      ValueError: it has not two axes, or L is 0.
    """
    curve = _checked("curve", curve)
    if curve.shape[1] < 2:
        raise ValueError(f"curve: an area needs two points, got shape {curve.shape}.")
    return ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)


class _Taken(NamedTuple):
    """In which order parts are taken away, or given back, in whose name."""

    name: str
    order: Order
    key: jax.Array | None
    back: bool = False

    def rank(self, parts: Parts, relevance: jax.Array) -> jax.Array:
        """The place of each part in the order, (N, P)."""
        sums = parts.sums(relevance)
        if self.key is not None and self.order == "random":
            return parts.order(jnp.zeros_like(sums) + jax.random.uniform(self.key, sums.shape))
        return parts.order(sums, ascending=self.order == "lerf")


def _taken(name: str, order: Order, key: jax.Array | None) -> _Taken:
    if order not in ("morf", "lerf", "random"):
        raise ValueError(f"{name}: order is 'morf', 'lerf' or 'random', got {order!r}.")
    if order == "random" and key is None:
        raise ValueError(f"{name}: order='random' needs a key.")
    return _Taken(name, order, key)


def _curve(
    taken: _Taken,
    fun: Function,
    x: jax.Array,
    relevance: jax.Array,
    sizes: tuple[int, int | None],
    replacement: Replacement,
    patch: Patch,
    chunk: int,
) -> jax.Array:
    """The function's answers while parts go, or come."""
    x = borders.batch("x", x)
    relevance = borders.features(x, relevance)
    parts = parts_of(x, relevance.shape, patch)
    rank = parts.spread(taken.rank(parts, relevance))

    def answer(n: jax.Array) -> jax.Array:
        gone = rank >= n if taken.back else rank < n
        return borders.values(fun, replaced(x, gone, replacement))

    counts = jnp.asarray(_counts(taken.name, *sizes, parts.count))
    return borders.poisoned(borders.mapped(answer, counts, chunk).T, relevance)


def _counts(name: str, steps: int, per_step: int | None, parts: int) -> np.ndarray:
    """How many parts are gone after each step, 0 first."""
    steps = count(name, steps=steps)
    if per_step is None:
        if steps > parts:
            raise ValueError(f"{name}: {steps} steps, but there are {parts} parts.")
        return np.arange(steps + 1) * parts // steps
    per_step = count(name, per_step=per_step)
    if (steps - 1) * per_step >= parts:
        raise ValueError(f"{name}: {steps} steps of {per_step}, but there are {parts} parts.")
    return np.minimum(np.arange(steps + 1) * per_step, parts)


def _checked(name: str, curve: jax.Array) -> jax.Array:
    return borders.with_shape(name, borders.relevances(name, curve), (None, None), "(N, steps + 1)")
