"""Scopes for the layers of stax, while a function is traced.

A layer of stax is a pair of functions, and a combinator (``serial``, ``parallel``) a function that
holds those of its layers in its closure. For the time of one trace it holds others in their place,
which open the scope of the layer's index: that of its parameters in theirs.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, MutableMapping
from types import CellType
from typing import Any

import jax

from .layers import Path, held_globals

_HELD = "apply_funs"


def combined(fun: Any) -> Iterator[CellType]:
    """The cells in which the combinators that a function reaches hold their layers."""
    stack, seen = [fun], set()
    while stack:
        held = stack.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        if isinstance(held, tuple | list):
            stack.extend(part for part in held if callable(part) or isinstance(part, tuple | list))
            continue
        if isinstance(held, functools.partial):
            stack.extend((held.func, *held.args))
        held = getattr(held, "__func__", held)
        stack.append(getattr(held, "__wrapped__", None))
        if not inspect.isfunction(held):
            continue
        cells = dict(zip(held.__code__.co_freevars, held.__closure__ or (), strict=True))
        if held.__module__ == "jax.example_libraries.stax" and _HELD in cells:
            yield cells[_HELD]
        stack.extend(content for cell in cells.values() for content in _contents(cell))
        stack.extend(held_globals(held))


def _contents(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # empty
        return ()


def scoped_layers(
    cell: CellType,
    known: Callable[[], MutableMapping[int, Path] | None],
    unknown: Iterator[int],
) -> tuple[Any, ...]:
    """The layers in a cell, with scopes.

    Args:
      cell: of a combinator.
      known: gives the modules that are known in this trace; None outside of one.
      unknown: numbers for modules of unknown place. Where the combinator's parameters are in
        those of the function is for the plan to find.
    """

    def scoped(layer: Any, index: int) -> Any:
        @functools.wraps(layer)
        def call(*args: Any, **kwargs: Any) -> Any:
            modules = known()
            if modules is None:
                return layer(*args, **kwargs)
            if index == 0:
                modules[id(cell)] = (f"?{next(unknown)}",)
            with jax.named_scope(*modules[id(cell)]), jax.named_scope(str(index)):
                return layer(*args, **kwargs)

        return call

    return tuple(map(scoped, cell.cell_contents, itertools.count()))
