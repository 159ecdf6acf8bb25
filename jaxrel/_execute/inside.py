"""What is asked of the inside of a function: places, masks, and what may pass beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._call.arguments import Arguments
from .._plan.places import CUT, Marks, Pattern, pattern
from ..errors import did_you_mean, shown
from .places import Mark, Place
from .taps import Key


@dataclasses.dataclass(frozen=True)
class Inside:
    """What is asked of the inside of a function.

    Attributes:
      at: places that are explained.
      single: whether that is one place, given by its name.
      through: places that only what a mask lets pass is to pass, and the masks.
      direct: whether only what passes no other place counts.
      parallel: whether what passes beside the masked places counts.
    """

    at: tuple[Pattern, ...] = ()
    single: bool = False
    through: tuple[tuple[Pattern, Any], ...] = ()
    direct: bool = False
    parallel: bool = True

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return bool(self.at or self.through)

    def marks(self, call: Arguments) -> Marks:
        """What is to be marked in the graph of a call."""
        given = (*call.args, *call.kwargs.values())
        arrays = [x for x in given if hasattr(x, "dtype")] or jax.tree.leaves(given)
        data = frozenset(map(id, arrays))
        starts = not (call.explains and call.argnums)
        masked = tuple(p for p, _ in self.through)
        alone = () if self.parallel else masked
        return Marks((*self.at, *masked), starts, alone, data)

    def axis(self, place: Place, axes: Mapping[str, int | None]) -> int | None:
        """The axis by which a place is cut into nodes, of those given by pattern; None: it is one.

        Raises:
          ValueError: it has no such axis.
        """
        axis = next(axes[p.text] for p in self.at if p.means(place.pattern))
        if axis is not None and not -len(place.shape) <= axis < len(place.shape):
            raise ValueError(
                f"nodes: {place.name!r} has shape {place.shape}, and no axis {axis} to be cut by."
            )
        return axis

    def find(self, there: Iterable[Place], seen: Iterable[str]) -> Places:
        """The places that are meant, of those there are.

        Raises:
          ValueError: a pattern means none, or none that relevance arrives at; or a mask does not
            fit.
        """
        there = list(there)
        at = [place for p in self.at for place in _meant("at", p, there, seen)]
        keep: dict[Key, Any] = {}
        for p, mask in self.through:
            for place in _meant("through", p, there, seen):
                mask = _fitted(mask, place) * keep.get(place.key, 1)
                keep[place.key] = mask
        keep |= {place.key: jnp.zeros(()) for place in there if place.name == CUT}
        keep |= {p.key: jnp.broadcast_to(keep[p.key], p.shape) for p in there if p.key in keep}
        wanted = {place.key for place in at}
        marked = tuple(place for place in there if place.key in wanted or place.key in keep)
        return Places(marked, frozenset(wanted), keep, self.single, self.direct)


NOTHING = Inside()


@dataclasses.dataclass(frozen=True)
class Places:
    """The places of a plan that are explained or masked.

    Attributes:
      marked: all of them.
      wanted: those explained, by the key of their probe.
      keep: masks by key.
      single: whether one place is asked for by its name.
      direct: whether nothing goes on from a place.
    """

    marked: tuple[Place, ...]
    wanted: frozenset[Key]
    keep: Mapping[Key, Any]
    single: bool
    direct: bool

    def probes(self) -> dict[Key, jax.Array]:
        """Zeros, whose cotangents are relevances."""
        return {place.key: place.probe() for place in self.marked}

    def marked_by(self, probes: Mapping[Key, Any]) -> dict[Key, Any]:
        """Probes, with what else places are handed."""
        keys = {place.key for place in self.marked}
        return {
            key: Mark(probe, self.keep.get(key)) if key in keys else probe
            for key, probe in probes.items()
        }

    def relevances(self, found: Mapping[Key, jax.Array]) -> Any:
        """What is returned of what probes got."""
        return self.named({p.key: found[p.key].astype(p.dtype) for p in self.marked})

    def named(self, found: Mapping[Key, jax.Array]) -> Any:
        """What is returned of arrays by key: the one for a single place, else a dictionary."""
        by_name = {p.name: found[p.key] for p in self.marked if p.key in self.wanted}
        return next(iter(by_name.values())) if self.single and len(by_name) == 1 else by_name


def _meant(what: str, wanted: Pattern, places: list[Place], seen: Iterable[str]) -> list[Place]:
    found = [
        place for place in places if place.name not in ("", CUT) and wanted.means(place.pattern)
    ]
    live = [place for place in found if place.live]
    if live:
        return live
    if found:
        raise ValueError(
            f"{what}: {wanted.text!r} does not depend on what is explained. With argnums=() "
            "relevance starts at the places themselves."
        )
    names = list(seen)
    if wanted.path in names:
        raise ValueError(
            f"{what}: {wanted.text!r} is made of no argument, so that there is nothing to explain; "
            "or it gives no floats. Hand what it is made of to the function as an argument."
        )
    some = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    there = f"There are {some}." if names else "Nothing in it has a name."
    hint = did_you_mean(wanted.text, names)
    raise ValueError(
        f"{what}: no place {wanted.text!r} in this function{hint} {there} A place is a layer path, "
        "as summary(fun, rules)(*args) shows it, 'path:in' what the layer reads, or a name given "
        "by jax.ad_checkpoint.checkpoint_name."
    )


def _fitted(mask: jax.Array, place: Place) -> jax.Array:
    try:
        return jnp.broadcast_to(mask, place.shape)
    except ValueError:
        raise ValueError(
            f"through[{place.name!r}]: a mask of shape {mask.shape} does not broadcast to "
            f"{place.shape}, the shape of that place."
        ) from None


def read_inside(at: Any, through: Any, direct: bool, parallel: bool = True) -> Inside:
    """Reads the arguments of :func:`jaxrel.relevance` about what is inside.

    Raises:
      TypeError: ``at`` is no string or sequence of strings, or ``through`` no mapping from strings
        to arrays.
      ValueError: ``direct`` without places, or not ``parallel`` without masks.
    """
    names = [] if at is None else [at] if isinstance(at, str) else at
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"at: expected a place or a sequence of places, strings; got {shown(at)}.")
    if through is not None and not isinstance(through, Mapping):
        raise TypeError(f"through: expected a mapping from places to masks, got {shown(through)}.")
    if direct and not names:
        raise ValueError("direct: only what passes no place counts, and at= names none.")
    if not parallel and not through:
        raise ValueError("parallel: nothing passes beside a mask, and through= has none.")
    patterns = tuple(map(pattern, names))
    masks = tuple((pattern(name), _mask(name, mask)) for name, mask in (through or {}).items())
    single = isinstance(at, str) and patterns[0].is_exact
    return Inside(patterns, single, masks, bool(direct), bool(parallel))


def _mask(name: Any, mask: Any) -> jax.Array:
    if not isinstance(name, str):
        raise TypeError(f"through: a place is a string, got {shown(name)}.")
    try:
        found = jnp.asarray(mask)
    except TypeError:
        raise TypeError(f"through[{name!r}]: expected an array, got {shown(mask)}.") from None
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(found.dtype, kind) for kind in kinds):
        raise TypeError(f"through[{name!r}]: expected real numbers, got {shown(found)}.")
    return found.astype(jnp.result_type(found, jnp.bfloat16)) if found.dtype == bool else found
