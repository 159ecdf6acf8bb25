"""What an input is compared to: one reference, or many, in shapes that are told apart by one rule.

    x0 broadcasts to x                  one reference; of x's own shape: one for each example
    else x0.shape[1:] broadcasts to x   many references, one after the other along the first axis

So for pictures (B, H, W, C) an array (n, H, W, C) is n references for all examples, as
``jaxrel.expected`` has it; but for n = B, where it is one for each: what a training step means by
``baseline=swapped``. ``x0[:, None]`` says that they are many, whatever B is, and ``x0[None]`` that
they are not. What is n numbers, (n,), is more often a mistake, and refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .arguments import Arguments
from .averages import mean
from .like import Beside, beside, broadcasts


@dataclasses.dataclass(frozen=True)
class Baseline:
    """References for the leaves of the explained arguments.

    Attributes:
      given: in the leaves' dtypes, and broadcast to them; where there are many, behind an axis of
        these (of length 1 for what is the same for all).
      like: the leaves.
      many: how many references there are; None: a single one.
    """

    given: list[jax.Array]
    like: list[jax.Array]
    many: int | None

    def at(self, k: int | jax.Array) -> list[jax.Array]:
        """The reference of this number, in the leaves' shapes and sharded alike.

        It depends on them as far as XLA can see. It would otherwise compute the network at a
        constant reference when it compiles, by a slow interpreter, where parameters are constants.
        """
        chosen = self.given
        if self.many is not None:
            chosen = [x0[k if len(x0) > 1 else 0] for x0 in self.given]
        pairs = zip(self.like, chosen, strict=True)
        filled = [jnp.zeros_like(x) + jnp.broadcast_to(x0, x.shape) for x, x0 in pairs]
        return lax.optimization_barrier((filled, self.like))[0]

    def mean(self, explain: Callable[[list[Any], list[Any]], Any], chunk: int) -> Any:
        """``explain`` of leaves and the one reference, or its mean over all.

        ``chunk`` of them are computed at once. What the function computes of the leaves alone is
        computed anew with each, or else all of it would be kept as long as the loop runs.
        """
        if self.many is None:
            return explain(self.like, self.at(0))

        def against(k: jax.Array) -> Any:
            return explain(*lax.optimization_barrier((self.like, self.at(k))))

        return mean("baseline", against, self.many, chunk)


def read_baseline(call: Arguments, given: Any) -> Baseline:
    """Reads the ``baseline`` argument of :func:`jaxrel.relevance`.

    Args:
      call: the call that is explained, checked.
      given: a tree like the explained argument (a tuple for a sequence of ``argnums``) or a prefix
        of it, of arrays that broadcast to its leaves, or do so behind an axis of references in
        front; or a function of the call's arguments that returns such a tree.

    Raises:
      TypeError: another tree, or leaves that are no real numbers.
      ValueError: shapes that do not fit; leaves with different numbers of references.
    """
    rows = list(beside(call, given, "baseline"))
    counts = {row.name: _references(row) for row in rows}
    many = _number(counts)
    found = [row.given.astype(row.x.dtype) for row in rows]
    if many is not None:
        for row in rows:
            _check_sides(row, counts[row.name], many)
        pairs = zip(found, rows, strict=True)
        found = [x0 if counts[row.name] else x0[None] for x0, row in pairs]
    return Baseline(found, [row.x for row in rows], many)


def _references(row: Beside) -> int | None:
    """How many references an array is; None: one."""
    name, (many, *each), x = row.name, row.given.shape or (1,), row.x
    if broadcasts(row.given.shape, x.shape):
        return None
    if broadcasts(tuple(each), x.shape) and (each or not x.ndim):
        if not many:
            raise ValueError(f"{name}: has shape {row.given.shape}: 0 references.")
        return many
    numbers = f" For {many} numbers as references: shape ({many}, 1)." if not each else ""
    raise ValueError(
        f"{name}: shape {row.given.shape} does not fit an explained array of shape {x.shape}; "
        f"expected {x.shape}, something that broadcasts to it, or many of these: (references, "
        f"*{x.shape}) or something that broadcasts to that.{numbers}"
    )


def _number(counts: dict[str, int | None]) -> int | None:
    """How many references there are; a leaf with one is the same for all."""
    numbers = {count for count in counts.values() if count is not None}
    several = numbers - {1}
    if len(several) > 1:
        each = ", ".join(f"{count} at {name}" for name, count in counts.items() if count)
        raise ValueError(
            f"baseline: the leaves have {sorted(several)} references; expected one number: {each}."
        )
    return max(numbers, default=None)


def _check_sides(row: Beside, count: int | None, many: int) -> None:
    """Refuses one for each example beside as many references: either may be meant."""
    shape = row.given.shape
    if count is None and many > 1 and len(shape) == row.x.ndim and shape[:1] == (many,):
        raise ValueError(
            f"{row.name}: shape {shape} is one reference for each of {many} examples, or {many} "
            "references as the other leaves have. Say which: x0[None] for one for each example, "
            "x0[:, None] for references."
        )
