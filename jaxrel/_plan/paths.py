"""Layer paths: what a module is called from the outside.

jaxprs carry ``named_scope`` names. linen and haiku open a scope for every module, equinox one by
class name, nnx none; :mod:`jaxrel._call.modules` opens them for nnx and equinox. Here the raw stack
of scopes is made into the path of the parameters: ``("Net", "Net.encode", "blocks_0", "Dense_0")``
is ``("blocks_0", "Dense_0")``.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator, Sequence

Path = tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def normalise(scopes: Path, roots: frozenset[str] = frozenset()) -> Path:
    """Makes a stack of scope names into a layer path.

    Dropped are a linen model's own name at the root, ``name.method`` entries beside their module,
    einsum specifications, and equinox's class names (they tell no layer from another).

    Args:
      scopes: names from the outside in.
      roots: names of the models that were called as the program was traced.
    """
    entries = [part for part in _entries(scopes) if part != "~"]
    root = entries[0].split(".")[0] if entries else ""
    if root in roots:
        while entries and entries[0].split(".")[0] == root:
            entries = entries[1:]
    return tuple(name for i in range(len(entries)) if (name := _module(entries, i)))


def is_scoped(scopes: Path) -> bool:
    """Tells whether there is a scope of a module around, if only that of the whole model."""
    return any(True for _ in _entries(scopes))


def _entries(scopes: Path) -> Iterator[str]:
    parts = (part for scope in scopes for part in scope.split("/") if part)
    return (p for p in parts if "->" not in p and not p.startswith(("eqx.", "_", "<")))


def _module(entries: Sequence[str], index: int) -> str:
    """The module that an entry stands for: ``inner.encode`` for ``inner``, unless that is there."""
    head, dot, _ = entries[index].partition(".")
    beside = entries[max(index - 1, 0) : index + 2]
    return "" if dot and head in beside else head


def prefer(scoped: Path, layer: Path) -> Path:
    """Chooses between the path by scopes and the layer of a parameter leaf.

    Args:
      scoped: path by scopes; empty where the framework opens none.
      layer: that of the parameter leaf that feeds the step, ``("layers", "0")``; empty: not known.
    """
    # a linen root that was given a name of its own stands before the parameters' path
    holds = scoped[-len(layer) :] == layer or layer[: len(scoped)] == scoped
    return layer if layer and holds else scoped


def matches_path(pattern: str, path: Path) -> bool:
    """Tells whether a glob such as ``"**/Conv_*"`` matches a layer path.

    ``*`` and ``?`` stay within one name, ``**`` is any number of names, none included.
    """
    return bool(path) and _matches(tuple(pattern.strip("/").split("/")), path)


@functools.lru_cache(maxsize=4096)
def _matches(pattern: tuple[str, ...], path: Path) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(pattern[1:], path[k:]) for k in range(len(path) + 1))
    if not path or not fnmatch.fnmatchcase(path[0], pattern[0]):
        return False
    return _matches(pattern[1:], path[1:])
