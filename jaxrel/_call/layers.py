"""Names for layers by their parameters.

Parameters that are plain pytrees know their places: a layer is known by the parameter leaf that
feeds a step, found by identity among the leaves of what the function closes over or is called with.
Modules' own names are in :mod:`jaxrel._call.modules`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

Path = tuple[str, ...]


def leaf_paths(fun: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[int, Path]:
    """Names the layers of the array leaves that ``fun`` reads, by ``id`` of the leaf.

    Args:
      fun: a module that is a pytree, a bound method, a partial, or a function that reaches such
        things by its closure or by globals.
      args, kwargs: what it is called with.

    Returns:
      ``id`` of the leaf -> path of keys, indices and attributes to its layer.
    """
    names: dict[int, Path] = {}
    for root in (*reachable(fun), *args, *kwargs.values()):
        root = root.variables if getattr(root, "scope", None) is not None else root  # bound linen
        for path, leaf in _leaves(root):
            names.setdefault(id(leaf), _layer(path))
    return names


def _leaves(root: Any, depth: int = 2) -> Iterator[tuple[Path, Any]]:
    """Array leaves with their paths; objects that are no pytrees are looked into by attribute."""
    for keys, leaf in leaves_of(root):
        path = tuple(key_name(key) for key in keys)
        if hasattr(leaf, "shape"):
            yield path, leaf
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, _NO_HOLDERS):
            for name, held in vars(leaf).items():
                yield from (((*path, name, *p), x) for p, x in _leaves(held, depth - 1))


def leaves_of(
    held: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[tuple[Any, ...], Any]]:
    """Leaves of what a function happens to hold, with their paths.

    None where it is no tree to jax, such as a dictionary whose keys have no order.
    """
    try:
        return jax.tree_util.tree_leaves_with_path(held, is_leaf=is_leaf)
    except Exception:  # whatever its author raises
        return []


_NO_HOLDERS = (type, types.ModuleType, types.FunctionType)


def _layer(path: Path) -> Path:
    """The layer of a leaf: without the collection before it and the parameter's name after it."""
    path = tuple(name for name in path if not name.startswith("_"))  # of wrappers
    after = len(path) - path[::-1].index("params") if "params" in path[:-1] else 0
    layer = path[after:]
    layer = layer[:-1] if layer[-1:] == ("value",) else layer
    return layer[:-1] if len(layer) > 1 or len(layer) < len(path) else layer


def key_name(key: Any) -> str:
    """The name, key or index that a key of a pytree's path stands for."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def reachable(fun: Any, depth: int = 4) -> Iterator[Any]:
    """What a callable holds: itself, its ``self``, closure, globals; before them what it wraps.

    A wrapper may hold the leaves of what it wraps in a form of its own.
    """
    wrapped = getattr(fun, "__wrapped__", None) if depth else None
    if wrapped is not None:
        yield from reachable(wrapped, depth - 1)
    if not inspect.isfunction(fun):
        yield fun
    if depth == 0:
        return
    if isinstance(fun, functools.partial):
        yield from (*fun.args, *fun.keywords.values())
        yield from reachable(fun.func, depth - 1)
    if inspect.ismethod(fun):
        yield fun.__self__
    for cell in getattr(fun, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            content = cell.cell_contents
            yield from reachable(content, depth - 1) if callable(content) else (content,)
    yield from (held for held in held_globals(fun) if not isinstance(held, _NO_HOLDERS))


def held_globals(fun: Any) -> Iterator[Any]:
    """The globals that the code of a function names, where it is no library's."""
    code = getattr(fun, "__code__", None)
    if code is None or _is_library(fun):
        return
    codes = [code]
    while codes:
        code = codes.pop()
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
        yield from (fun.__globals__.get(name) for name in code.co_names)


def _is_library(fun: Any) -> bool:
    return str(getattr(fun, "__module__", "")).split(".")[0] in ("jax", "flax", "equinox", "haiku")
