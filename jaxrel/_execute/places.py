"""Relevance at places: what passes an inner value on the way back, read off or held back.

A place is a tap (:mod:`jaxrel._execute.taps`) on a whole bundle. Its probe is of the value's own
shape and gets R = (a - a0) m, whatever R is made of: a multiplier, a companion's relevance, the two
multipliers of parts. What goes on may be masked, held back, or added to:

    keep     of conditional relevance: what the mask lets pass, R included
    direct   nothing goes on: then what arrives anywhere has passed no other place

The value that goes on is caught too, and handed out of loops and calls beside their results: so it
can be looked at, and a multiplier can begin there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .. import _compat
from .._plan.graph import STARTS
from .._plan.places import Pattern, pattern
from .._plan.steps import Plan, Step
from ..rules.numerics import difference
from .bundle import Bundle
from .taps import NO_TAPS, Key, Probes, Taps, sum_type, worth


class Place(NamedTuple):
    """An inner value that is explained.

    Attributes:
      name: as users write it; ``""``: it only is where relevance starts.
      key: of its probe.
      aval: shape and dtype of the value.
      loops: lengths of the loops, and of the axes of devices, around it, outermost first.
      live: whether relevance may arrive.
    """

    name: str
    key: Key
    aval: Any
    loops: tuple[int, ...]
    live: bool

    @property
    def pattern(self) -> Pattern:
        """Its name, taken apart."""
        return pattern(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its relevance."""
        return (*self.loops, *self.aval.shape)

    @property
    def dtype(self) -> Any:
        """Of its relevance; that of the real part of a complex value."""
        return jnp.finfo(self.aval.dtype).dtype

    def probe(self) -> jax.Array:
        """Zeros, whose cotangent is its relevance."""
        return _compat.zeros_behind(self.loops, self.aval, sum_type(self.aval.dtype))


class Mark(NamedTuple):
    """What is handed to a place; all with the loops' axes in front.

    Attributes:
      probe: zeros, whose cotangent is R.
      keep: what the multiplier is multiplied by; None: 1.
    """

    probe: Any
    keep: Any = None


def places(plan: Plan) -> Iterator[Place]:
    """The places of a plan, nested ones included."""
    return _places(plan, ())


def _places(plan: Plan, loops: tuple[int, ...]) -> Iterator[Place]:
    for step in plan.steps:
        if step.kind == "place":
            (eqn,) = (node.eqn for node in step.nodes)
            aval = eqn.outvars[0].aval
            live = bool(step.live) or step.nodes[0].name == STARTS
            name, key = eqn.params["name"], Key(id(step), "place")
            yield Place(name, key, aval, loops, live)
        for body in step.bodies:
            yield from _places(body, (*loops, *_compat.repeats(step.nodes[0].eqn)))


@dataclasses.dataclass(frozen=True)
class Marked(Taps):
    """Reads relevance off at places, beside what other taps read off.

    Attributes:
      inner: the other taps.
      direct: whether nothing goes on from places.
      multiples: whether multipliers are read off instead of relevance.
    """

    inner: Taps = NO_TAPS
    direct: bool = False
    multiples: bool = False

    def having(self, probes: Probes) -> Marked:
        """The same inside a control step."""
        inner = self.inner.having(probes)
        return dataclasses.replace(self, probes=probes, inner=inner, caught={})

    def inputs(self, *operands: Any) -> Any:
        """As the other taps."""
        return self.inner.inputs(*operands)

    def companions(self, *operands: Any) -> Any:
        """As the other taps."""
        return self.inner.companions(*operands)

    def outputs(self, *operands: Any) -> Any:
        """As the other taps."""
        return self.inner.outputs(*operands)

    def ends(self, *operands: Any) -> Any:
        """As the other taps."""
        return self.inner.ends(*operands)

    def place(self, step: Step, bundle: Bundle) -> Bundle:
        """The bundle of a place, marked."""
        key = Key(id(step), "place")
        mark = self.probes.get(key)
        if mark is None:
            return bundle
        mark = jax.tree.map(lambda v: _compat.vary_like(v, bundle.value), mark)
        self.caught[key] = bundle.value
        return _mark((self.direct, self.multiples), bundle, mark)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mark(how: tuple[bool, bool], bundle: Bundle, mark: Mark) -> Bundle:
    del how, mark
    return bundle


def _mark_forward(how: tuple[bool, bool], bundle: Bundle, mark: Mark):
    del how
    x, x0 = bundle.value, bundle.twin
    return bundle, (x if x0 is None else difference(x, x0), bundle.parts or (), mark)


def _mark_backward(how: tuple[bool, bool], kept: Any, cotangent: Bundle):
    (direct, multiples), (d, parts, mark) = how, kept
    m, companion, pair = cotangent.value, cotangent.companion, cotangent.parts
    m, companion, pair = jax.tree.map(lambda c: _kept(c, mark.keep), (m, companion, pair))
    # read twice from here: XLA would compute a cheap chain that leads to it twice
    m, companion, pair = lax.optimization_barrier((m, companion, pair))
    dtype = mark.probe.dtype
    found = m.real.astype(dtype) if multiples else worth(d, m, dtype)
    if companion is not None:
        found = found + companion.astype(dtype)
    for part, c in zip(parts, pair or (), strict=True):
        found = found + worth(part, c, dtype)
    if direct:
        m, companion, pair = jax.tree.map(jnp.zeros_like, (m, companion, pair))
    zeros = jax.tree.map(jnp.zeros_like, mark)
    return cotangent._replace(value=m, companion=companion, parts=pair), zeros._replace(probe=found)


def of_device(probes: Probes, axes: Sequence[str]) -> dict[Key, Any]:
    """Probes within a ``shard_map``: of a place the row of this device."""
    row = tuple(map(lax.axis_index, axes))
    return {
        key: jax.tree.map(lambda v: v[row], probe) if isinstance(probe, Mark) else probe
        for key, probe in probes.items()
    }


def by_device(value: jax.Array, axes: Sequence[str]) -> jax.Array:
    """The value of a place within a ``shard_map``, to be handed out with a row for each device."""
    return _compat.vary_over(value, axes).reshape((*(1 for _ in axes), *value.shape))


def _kept(m: jax.Array, keep: jax.Array | None) -> jax.Array:
    """What a mask lets pass; nothing of what is infinite where it is 0."""
    return m if keep is None else jnp.where(keep == 0, 0, m * keep.astype(m.dtype)).astype(m.dtype)


_mark.defvjp(_mark_forward, _mark_backward)
