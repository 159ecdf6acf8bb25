"""Robustness: does an explanation change when its input hardly does?

``explain`` is any function from x to a relevance, (N, ...), such as ``jaxrel.relevance(fun)``.
Noise comes as an array, (draws, N, ...), so that draws are explicit:
``jax.random.uniform(key, (10, *x.shape), minval=-0.2, maxval=0.2)``. ``keep``, (draws, N), tells
which draws count (as a rule those that leave the predicted class as it is); an example without any
has NaN. All are one loop of ``draws + 1`` explanations, ``chunk`` of them at once.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..rules.numerics import divide
from . import borders
from .borders import Function

Norm = Literal["l1", "l2", "max"]


def max_sensitivity(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    *,
    norm: Norm = "l2",
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Maximum sensitivity (Yeh et al. 2019, definition 3.1), relative to the explanation's size.

    max over draws of abs(R(x + n) - R(x)) / abs(R(x)); abs(R(x)) = 0 counts as 1.

    Args:
      explain: from x to relevance; any callable.
      x: (N, ...), floats.
      noise: (draws, N, ...), in units of x.
      norm: of relevance: ``"l1"``, ``"l2"`` (Frobenius), ``"max"``.
      keep: (draws, N), which draws count.
      chunk: how many draws are explained at once.

    Returns:
      (N,), without a unit: low is good.

    Raises:
      ValueError: shapes that do not fit; no such norm.
      TypeError: ``explain`` is no function.
    """
    return _worst(_relative_change(explain, x, noise, norm, chunk), keep)


def average_sensitivity(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    *,
    norm: Norm = "l2",
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Average sensitivity (Bhatt et al. 2020, definition 2): the mean in place of the maximum.

    Args:
      explain, x, noise, norm, keep, chunk: as for :func:`max_sensitivity`.

    Returns:
      (N,), without a unit: low is good.

    Raises:
      ValueError, TypeError: as :func:`max_sensitivity`.
    """
    found = _relative_change(explain, x, noise, norm, chunk)
    keep = _kept(keep, found)
    return jnp.where(keep, found, 0).sum(0) / keep.sum(0)


def local_lipschitz(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    *,
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Local Lipschitz estimate (Alvarez-Melis and Jaakkola 2018, eq. 6).

    max over draws of |R(x + n) - R(x)|_2 / |n|_2.

    Args:
      explain, x, noise, keep, chunk: as for :func:`max_sensitivity`.

    Returns:
      (N,), in units of relevance by x: low is good.

    Raises:
      ValueError, TypeError: as :func:`max_sensitivity`.
    """
    before, after = _explained(explain, x, noise, chunk)
    distance = _norm(noise.reshape(*noise.shape[:2], -1), "l2")
    return _worst(divide(_norm(after - before, "l2"), distance), keep)


def relative_input_stability(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    *,
    eps: float = 1e-6,
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Relative input stability (Agarwal et al. 2022, eq. 2).

    max over draws of |(R - R') / R|_2 / max(|(x - x') / x|_2, eps), divided element by element.

    Args:
      explain, x, noise, keep, chunk: as for :func:`max_sensitivity`.
      eps: also in the place of each element that is divided by and is 0.

    Returns:
      (N,), without a unit: low is good.

    Raises:
      ValueError, TypeError: as :func:`max_sensitivity`.
    """
    return _stability(explain, x, noise, lambda x: x, eps, keep, chunk)


def relative_output_stability(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    logits: Function,
    *,
    eps: float = 1e-6,
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Relative output stability (Agarwal et al. 2022, eq. 5).

    max over draws of |(R - R') / R|_2 / max(|h(x) - h(x')|_2, eps), h all logits (a difference,
    not a relative one).

    Args:
      explain, x, noise, eps, keep, chunk: as for :func:`relative_input_stability`.
      logits: from x to (N, classes).

    Returns:
      (N,), in 1 / units of the logits: low is good.

    Raises:
      ValueError, TypeError: as :func:`max_sensitivity`.
    """
    return _stability(explain, x, noise, logits, eps, keep, chunk, divided=False)


def relative_representation_stability(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    representation: Function,
    *,
    eps: float = 1e-6,
    keep: jax.Array | None = None,
    chunk: int = 1,
) -> jax.Array:
    """Relative representation stability (Agarwal et al. 2022, eq. 3).

    max over draws of |(R - R') / R|_2 / max(|(L(x) - L(x')) / L(x)|_2, eps).

    Args:
      explain, x, noise, eps, keep, chunk: as for :func:`relative_input_stability`.
      representation: from x to (N, ...), the values of a layer:
        ``lambda x: jaxrel.capture(fun, "Dense_0")(x)[1]``.

    Returns:
      (N,), without a unit: low is good.

    Raises:
      ValueError, TypeError: as :func:`max_sensitivity`.
    """
    return _stability(explain, x, noise, representation, eps, keep, chunk)


def _explained(
    explain: Function, x: Any, noise: Any, chunk: int, *beside: Function
) -> tuple[Any, ...]:
    """What functions give at x, (N, M), and at all noisy x, (draws, N, M), one after the other."""
    x = borders.batch("x", x)
    noise = borders.with_shape("noise", noise, (None, *x.shape), "(draws, *x.shape)")
    both = jnp.concatenate([jnp.zeros_like(noise[:1]), noise])

    def at(n: jax.Array) -> list[jax.Array]:
        moved = (x + n).astype(x.dtype)
        return [borders.explained(each, moved) for each in (explain, *beside)]

    found = borders.mapped(at, both, chunk)
    return tuple(part for each in found for part in (each[0], each[1:]))


def _relative_change(
    explain: Function, x: jax.Array, noise: jax.Array, norm: Norm, chunk: int
) -> jax.Array:
    """(draws, N)."""
    before, after = _explained(explain, x, noise, chunk)
    size = _norm(before, norm)
    return _norm(after - before, norm) / jnp.where(size == 0, 1, size)


def _stability(
    explain: Function,
    x: jax.Array,
    noise: jax.Array,
    beside: Function,
    eps: float,
    keep: jax.Array | None,
    chunk: int,
    divided: bool = True,
) -> jax.Array:
    before, after, there, moved = _explained(explain, x, noise, chunk, beside)
    change = moved - there
    if divided:
        change = change / jnp.where(there == 0, eps, there)
    relative = (after - before) / jnp.where(before == 0, eps, before)
    return _worst(_norm(relative, "l2") / jnp.maximum(_norm(change, "l2"), eps), keep)


def _norm(x: jax.Array, norm: str) -> jax.Array:
    """Over the last axis."""
    if norm not in ("l1", "l2", "max"):
        raise ValueError(f"norm: expected 'l1', 'l2' or 'max', got {norm!r}.")
    orders = {"l1": 1, "l2": 2, "max": jnp.inf}
    return jnp.linalg.norm(x, ord=orders[norm], axis=-1)


def _worst(found: jax.Array, keep: jax.Array | None) -> jax.Array:
    """The largest of the draws that count."""
    keep = _kept(keep, found)
    return jnp.where(keep.any(0), jnp.where(keep, found, -jnp.inf).max(0), jnp.nan)


def _kept(keep: Any, found: jax.Array) -> jax.Array:
    if keep is None:
        return jnp.ones(found.shape, bool)
    return borders.with_shape("keep", keep, found.shape, "(draws, N)").astype(bool)
