"""Trees given beside explained arguments, in their tree: references, widths of noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments
from .averages import wide


class Beside(NamedTuple):
    """An array given beside an explained leaf.

    Attributes:
      name: what to call it in messages: ``baseline['a'][0]``.
      given: the array, of real numbers.
      x: the explained leaf.
    """

    name: str
    given: jax.Array
    x: jax.Array


def beside(call: Arguments, tree: Any, what: str) -> Iterator[Beside]:
    """Reads a tree of arrays, one beside each explained leaf; of any shape.

    Args:
      call: the call with these arguments.
      tree: in their tree (a tuple or a list for a sequence of ``argnums``), or a prefix of it; or
        a function of the call's arguments that returns it.
      what: what to call it in messages.

    Raises:
      TypeError: another tree, or leaves that are no real numbers.
    """
    full = call.select(call.restore(call.leaves))
    given = jax.tree.structure(tree)
    is_tree = not jax.tree_util.treedef_is_leaf(given) and given == jax.tree.structure(full)
    if callable(tree) and not is_tree:  # a model may be both
        tree = _made(tree, call, what)
    tree = tuple(tree) if isinstance(tree, list) and not call.single else tree
    try:
        spread = jax.tree.map(lambda leaf, part: [leaf] * len(jax.tree.leaves(part)), tree, full)
    except ValueError:
        sequence = isinstance(tree, list | tuple)
        hint = " A list is a tree; jnp.asarray makes it an array." if sequence else ""
        raise TypeError(
            f"{what}: expected a tree like that of what is explained, "
            f"{jax.tree.structure(full)}, or a prefix of it; got {jax.tree.structure(tree)}.{hint}"
        ) from None
    places = [jax.tree_util.keystr(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(full)]
    for place, leaf, x in zip(places, jax.tree.leaves(spread), call.leaves, strict=True):
        yield Beside(what + place, _real(leaf, what + place), x)


def _made(function: Callable[..., Any], call: Arguments, what: str) -> Any:
    try:
        inspect.signature(function).bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise TypeError(
            f"{what}: a function is called with the arguments of the explained one, and "
            f"{getattr(function, '__name__', function)!r} cannot be: {error}."
        ) from None
    except ValueError:  # what has no signature
        pass
    return function(*call.args, **call.kwargs)


def _real(leaf: Any, name: str) -> jax.Array:
    try:
        found = jnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"{name}: expected an array, got {type(leaf).__name__}.") from None
    if not any(jnp.issubdtype(found.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"{name}: has dtype {found.dtype}; expected real numbers.")
    return found


def leaves_like(call: Arguments, tree: Any, what: str, leading: bool = False) -> list[jax.Array]:
    """Checks a tree of arrays that broadcast to the explained arguments.

    Args:
      call, tree, what: as for :func:`beside`.
      leading: whether every leaf has an axis in front of what broadcasts.

    Returns:
      One array for each leaf of the explained arguments.

    Raises:
      TypeError: as :func:`beside`.
      ValueError: shapes that do not fit.
    """
    rows = list(beside(call, tree, what))
    for name, given, x in rows:
        shape = given.shape
        if leading and (not shape or not shape[0]):
            raise ValueError(
                f"{name}: has shape {shape}; its first axis must be that of the baselines, at "
                "least 1."
            )
        if not broadcasts(shape[leading:], x.shape):
            rest = " after the axis of the baselines" if leading else ""
            raise ValueError(
                f"{name}: has shape {shape}, which does not broadcast{rest} to {x.shape}, the "
                "shape of what is explained."
            )
    if leading and len({len(given) for _, given, _ in rows}) > 1:
        sizes = ", ".join(f"{len(given)} at {name.removeprefix(what)}" for name, given, _ in rows)
        raise ValueError(f"{what}: leaves have different numbers of baselines: {sizes}.")
    return [given.astype(wide(x)) for _, given, x in rows]


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tells whether an array of one shape broadcasts to another."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
