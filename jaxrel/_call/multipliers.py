"""The multipliers m = R / x, or R / (x - x0), that a relevance function carries with it.

They cannot be had from R where that is 0, so :func:`jaxrel.relevance` attaches them to what it
returns, as the attribute ``multipliers``. ``functools.wraps``, and with it ``jax.jit`` and
``jax.vmap``, copy attributes to what they wrap. A jitted relevance has the same multipliers, a
vmapped one has not: so an attachment remembers whose it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import jax

from .arguments import check_function


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """The multipliers of a relevance function: relevance is x times what this returns.

    Attributes:
      fun: a function of the arguments of ``of``, which returns m of the explained ones.
      of: the relevance function.
      argnums: which arguments are explained.
      compared: whether relevance is against a baseline: (x - x0) times what this returns.
    """

    fun: Callable[..., Any]
    of: Callable[..., Any]
    argnums: int | Sequence[int]
    compared: bool = False

    @property
    def __name__(self) -> str:
        """The name of the relevance function, for messages."""
        return getattr(self.of, "__name__", type(self.of).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns m of the explained arguments, in their tree."""
        return self.fun(*args, **kwargs)


class RelevanceFunction(Protocol):
    """A function that returns relevance, and carries its multipliers."""

    multipliers: Multipliers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the relevance of the explained arguments."""


def with_multipliers(
    relevance_fn: Callable[..., Any],
    multipliers: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    compared: bool = False,
) -> RelevanceFunction:
    """Attaches multipliers to a relevance function.

    Args:
      relevance_fn: a function, which gets an attribute.
      multipliers: of the same arguments; returns R / x of the explained ones.
      argnums: which are explained.
      compared: whether it compares to a baseline of its own, R = (x - x0) m; its multipliers have
        no integral then.

    Returns:
      ``relevance_fn``.

    Raises:
      TypeError: either is no function.
    """
    check_function("with_multipliers", relevance_fn)
    check_function("with_multipliers", multipliers)
    vars(relevance_fn)["multipliers"] = Multipliers(multipliers, relevance_fn, argnums, compared)
    return cast(RelevanceFunction, relevance_fn)


def multipliers_of(relevance_fn: Any) -> Multipliers | None:
    """Returns what is attached to a relevance function or to one inside ``jax.jit``."""
    owners = [relevance_fn]
    if isinstance(relevance_fn, type(jax.jit(lambda: None))):
        owners.append(getattr(relevance_fn, "__wrapped__", None))
    found = getattr(relevance_fn, "multipliers", None)
    owned = isinstance(found, Multipliers) and any(found.of is owner for owner in owners)
    return found if owned else None


def argnums_of(fun: Any) -> int | Sequence[int]:
    """Returns which arguments a function explains, as the relevance function inside it says."""
    while fun is not None:
        found = fun if isinstance(fun, Multipliers) else getattr(fun, "multipliers", None)
        if isinstance(found, Multipliers):
            return found.argnums
        fun = getattr(fun, "__wrapped__", None)
    return 0
