"""What travels with a value: its twin, its companion, its parts.

One bundle a value, which is a pytree: so a loop carries it, a branch returns it, a checkpoint, a
``jit`` with shardings and a ``shard_map`` hand it on, all of it by the same line of code. What is
made for a bundle is made of its value (``zeros_like``), so it has its sharding, its mesh axes and
its dtype.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..rules.numerics import difference
from .units import meet

Pair = tuple[Any, Any]
"""A positive and a negative part."""


class Bundle(NamedTuple):
    """A value and its company; None where there is none.

    Attributes:
      value: what the function computes.
      twin: what it computes at the baseline; None where that is the same.
      companion: where relevance arrives that is not proportional to the value; see
        :mod:`jaxrel._execute.units`.
      parts: what increased and what decreased the value since the baseline, for rules that tell
        them apart; see :mod:`jaxrel._execute.apart`.
    """

    value: Any
    twin: Any = None
    companion: Any = None
    parts: Pair | None = None

    @property
    def varies(self) -> bool:
        """Whether it may be another at the baseline."""
        return self.twin is not None

    @property
    def company(self) -> tuple[Any, Any, Pair | None]:
        """All that travels with the value."""
        return self[1:]

    @property
    def origin(self) -> Any:
        """The value at the baseline, whether it is another there or not."""
        return self.value if self.twin is None else self.twin

    @property
    def difference(self) -> Pair:
        """Its parts; those of a value that brought none with it get nothing sent back."""
        return self.parts or parts_of(difference(self.value, self.origin))


def fitted(bundle: Bundle, varies: bool, unit: bool, apart: bool) -> Bundle:
    """A bundle with the company it is to have, and no other.

    What goes round a loop, and what branches return, must have the same each time.

    Args:
      bundle: any.
      varies: whether it is to have a twin.
      unit: whether it is to have a companion.
      apart: whether what varies is to have parts; integers never have.
    """
    value, twin, companion, parts = bundle
    twin = bundle.origin if varies else None
    parts = bundle.difference if apart and varies and is_float(value) else None
    if unit and companion is None:
        if parts is None:
            value, companion = meet(value, twin)
        else:
            _, companion = meet(join(value, *parts), twin)
    return Bundle(value, twin, companion if unit else None, parts)


def is_float(value: Any) -> bool:
    """Tells whether a value can differ by a part of itself."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def parts_of(d: jax.Array) -> Pair:
    """A difference by its sign; of a complex number the positive part is all."""
    if jnp.issubdtype(d.dtype, jnp.complexfloating):
        return d, jnp.zeros_like(d)
    return jnp.maximum(d, 0), jnp.minimum(d, 0)


@jax.custom_vjp
def join(x: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
    """Returns x; both parts of x - x0 get its multiplier."""
    del p, n
    return x


join.defvjp(lambda x, p, n: (x, None), lambda _, m: (None, m, m))


@jax.custom_vjp
def split(z: jax.Array, d: jax.Array) -> Pair:
    """The parts of d = z - z0; z gets the multiplier of the part that d is in."""
    del z
    return parts_of(d)


def _split_backward(d: jax.Array, m: Pair):
    if jnp.issubdtype(d.dtype, jnp.complexfloating):
        return m[0], None
    return jnp.where(d > 0, m[0], jnp.where(d < 0, m[1], (m[0] + m[1]) / 2)), None


split.defvjp(lambda z, d: (parts_of(d), d), _split_backward)
