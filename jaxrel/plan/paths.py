"""Layer paths: what a module is called from the outside.

jaxprs carry ``named_scope`` names. linen and haiku open a scope for every module, equinox one by
class name, nnx none; :mod:`jaxrel.naming` opens them for nnx and names the leaves of equinox
modules. Here the raw stack of scopes is made into the path of the parameters:
``("Net", "Net.encode", "blocks_0", "Dense_0")`` is ``("blocks_0", "Dense_0")``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

Path = tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def normalise(scopes: Path) -> Path:
    """Makes a stack of scope names into a layer path.

    Dropped are the class name of a linen model at the root, ``name.method`` entries beside their
    module, einsum specifications, and equinox's class names (they tell no layer from another).
    """
    entries = [part for scope in scopes for part in scope.split("/") if part not in ("", "~")]
    entries = [e for e in entries if "->" not in e and not e.startswith("eqx.")]
    if entries and entries[0].split(".")[0] in _linen_classes():
        root = entries[0].split(".")[0]
        entries = [e for e in entries[1:] if e.split(".")[0] != root or "." not in e]
    return tuple(e for i, e in enumerate(entries) if not _is_method(entries, i))


def _is_method(entries: Sequence[str], index: int) -> bool:
    head, dot, _ = entries[index].partition(".")
    neighbours = entries[max(index - 1, 0) : index + 2]
    return bool(dot) and head in neighbours


def _linen_classes() -> frozenset[str]:
    linen = sys.modules.get("flax.linen")
    if linen is None:
        return frozenset()
    names, stack = set(), [linen.Module]
    while stack:
        for cls in stack.pop().__subclasses__():
            names.add(cls.__name__)
            stack.append(cls)
    return frozenset(names)


def prefer(scoped: Path, origins: Sequence[Path]) -> Path:
    """Chooses between the path by scopes and the layer of a parameter leaf.

    Args:
      scoped: path by scopes; empty where the framework opens none.
      origins: paths of the parameter leaves that feed the step, ``("layers", "0", "weight")``.
    """
    if scoped or not origins:
        return scoped
    return origins[0][:-1] or origins[0]
