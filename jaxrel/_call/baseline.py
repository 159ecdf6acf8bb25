"""What an input is compared to: one reference, or many, checked and put in the input's shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import Arguments


@dataclasses.dataclass(frozen=True)
class Baseline:
    """References for the leaves of the explained arguments.

    Attributes:
      leaves: of the leaves' shapes and dtypes; with ``many`` there is one more axis in front.
      many: how many references there are; None: a single one.
    """

    leaves: list[jax.Array]
    many: int | None

    def mean(self, explain: Callable[[list[jax.Array]], Any]) -> Any:
        """``explain`` of the one reference, or its mean over all, by ``vmap``."""
        if self.many is None:
            return explain(self.leaves)
        return jax.tree.map(lambda r: jnp.mean(r, 0), jax.vmap(explain)(self.leaves))

    def one(self) -> list[jax.Array]:
        """One reference: the first."""
        return self.leaves if self.many is None else [leaf[0] for leaf in self.leaves]


def read_baseline(call: Arguments, given: Any) -> Baseline:
    """Reads the ``baseline`` argument of :func:`jaxrel.relevance`.

    Args:
      call: the call that is explained, checked.
      given: a tree like the explained argument (a tuple for a sequence of ``argnums``), of arrays
        that broadcast to its leaves, or have one more axis in front, the same for all; or a
        function of the call's arguments that returns such a tree.

    Raises:
      TypeError: another tree, or leaves that are no real numbers.
      ValueError: shapes that do not fit.
    """
    if callable(given):
        given = given(*call.args, **call.kwargs)
    trees = [given] if call.single else given
    try:
        trees = list(trees)
        parts = jax.tree.structure(trees).flatten_up_to(trees)
        del parts
        leaves = call.tree.flatten_up_to(trees)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "baseline: expected a tree like that of the explained arguments "
            f"({call.tree}), got {jax.tree.structure(given)}: {error}"
        ) from None
    read = [_read(x, leaf) for x, leaf in zip(call.leaves, leaves, strict=True)]
    counts = {x0.shape[0] for x, x0 in zip(call.leaves, read, strict=True) if x0.ndim > x.ndim}
    if len(counts) > 1:
        raise ValueError(
            f"baseline: the leaves have {sorted(counts)} references; expected one number."
        )
    (many,) = counts or {None}
    if many == 0:
        raise ValueError("baseline: there are 0 references along the leading axis.")
    lead = () if many is None else (many,)
    shaped = [
        jnp.broadcast_to(x0 if x0.ndim > x.ndim else jnp.broadcast_to(x0, x.shape), lead + x.shape)
        for x, x0 in zip(call.leaves, read, strict=True)
    ]
    return Baseline([x0.astype(x.dtype) for x, x0 in zip(call.leaves, shaped, strict=True)], many)


def _read(x: jax.Array, leaf: Any) -> jax.Array:
    try:
        x0 = jnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"baseline: {leaf!r} is no array of numbers.") from None
    if jnp.issubdtype(x0.dtype, jnp.complexfloating) or not jnp.issubdtype(x0.dtype, jnp.number):
        raise TypeError(f"baseline: dtype {x0.dtype}; expected real numbers.")
    fits = x0.shape[1:] == x.shape if x0.ndim > x.ndim else _broadcasts(x0.shape, x.shape)
    if not fits:
        raise ValueError(
            f"baseline: shape {x0.shape} does not fit an explained array of shape {x.shape}; "
            f"expected {x.shape}, something that broadcasts to it, or (references, *{x.shape})."
        )
    return x0


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(shape[::-1], to[::-1], strict=False)
    return len(shape) <= len(to) and all(n in (1, size) for n, size in pairs)
