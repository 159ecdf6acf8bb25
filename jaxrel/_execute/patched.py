"""A function with values at places replaced: what interventions on its graph are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .._call.arguments import Arguments
from .._plan.steps import Plan, Step
from ..rulesets.assign import Assignment
from .bundle import Bundle
from .evaluate import evaluate
from .explanation import trace
from .inside import read_inside
from .places import Place, places
from .taps import Key, Taps


@dataclasses.dataclass(frozen=True)
class _Replaced(Taps):
    """Catches the values of places, and hands on their probes instead; None: what they have."""

    def place(self, step: Step, bundle: Bundle) -> Bundle:
        """Another value instead of the bundle's, if there is one."""
        key = Key(id(step), "place")
        self.caught[key] = bundle.value
        value = self.probes.get(key)
        return bundle if value is None else bundle._replace(value=value)


@dataclasses.dataclass(frozen=True)
class Patched:
    """A traced function of one argument, with places.

    Attributes:
      plan: of the function.
      places: in the order of execution.
      axes: by which each is cut into nodes; None: it is one.
    """

    plan: Plan
    places: tuple[Place, ...]
    axes: tuple[int | None, ...]

    def __call__(self, leaves: Sequence[Any], values: Mapping[Key, Any]) -> tuple[Any, Any]:
        """Runs it.

        Args:
          leaves: of the argument.
          values: what places hand on in the stead of what they have.

        Returns:
          Its value, and for each place what it has, before it is replaced.
        """
        taps = _Replaced({place.key: values.get(place.key) for place in self.places})
        value, *_ = evaluate(self.plan, Assignment(), leaves, taps=taps)
        return value, {place.key: taps.caught[place.key] for place in self.places}


def patched(
    fun: Callable[[Any], Any], x: jax.Array, nodes: Mapping[str, int | None], explains: bool
) -> Patched:
    """Traces ``fun(x)`` with places.

    Args:
      fun: of one argument.
      x: the argument.
      nodes: places, and the axes that cut them.
      explains: whether x is a node too.

    Raises:
      ValueError: there is no such place or axis; or it stands in a loop, where it is many values.
    """
    inside = read_inside(list(nodes), None, False)
    call = Arguments(fun, (x,), {}, 0, explains)
    marks = inside.marks(call)
    plan, _ = trace(call, marks=marks)
    found = inside.find(places(plan), marks.seen).marked
    looped = [place.name for place in found if place.loops]
    if looped:
        raise ValueError(
            f"nodes: {looped[0]!r} stands in a loop, so that it is a value for each iteration; "
            "unroll the loop."
        )
    return Patched(plan, found, tuple(inside.axis(place, nodes) for place in found))
