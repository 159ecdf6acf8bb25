"""Trees given beside explained arguments, in their tree: baselines, widths of noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import Arguments
from .averages import wide


def leaves_like(call: Arguments, tree: Any, what: str, leading: bool = False) -> list[jax.Array]:
    """Checks a tree of arrays that broadcast to the explained arguments.

    Args:
      call: the call with these arguments.
      tree: in their tree, or a prefix of it; or a function of the call's arguments that returns it.
      what: what to call it in messages.
      leading: whether every leaf has an axis in front of what broadcasts.

    Returns:
      One array for each leaf of the explained arguments.
    """
    tree = tree(*call.args, **call.kwargs) if callable(tree) else tree
    full = call.select(call.restore(call.leaves))
    try:
        spread = jax.tree.map(lambda leaf, part: [leaf] * len(jax.tree.leaves(part)), tree, full)
    except ValueError:
        raise TypeError(
            f"{what}: must have the tree of the explained argument, {jax.tree.structure(full)}, "
            f"or a prefix of it; got {jax.tree.structure(tree)}."
        ) from None
    places = [jax.tree_util.keystr(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(full)]
    leaves = jax.tree.leaves(spread)
    rows = zip(leaves, call.leaves, places, strict=True)
    found = [_leaf_like(leaf, x, what + place, leading) for leaf, x, place in rows]
    if leading and len({len(leaf) for leaf in found}) > 1:
        sizes = ", ".join(
            f"{len(leaf)} at {place}" for leaf, place in zip(found, places, strict=True)
        )
        raise ValueError(f"{what}: leaves have different numbers of baselines: {sizes}.")
    return found


def _leaf_like(leaf: Any, x: jax.Array, what: str, leading: bool) -> jax.Array:
    try:
        found = jnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"{what}: expected an array, got {type(leaf).__name__}.") from None
    if not any(jnp.issubdtype(found.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"{what}: has dtype {found.dtype}; it must be real.")
    shape = found.shape
    if leading and (not shape or not shape[0]):
        raise ValueError(
            f"{what}: has shape {shape}; its first axis must be that of the baselines, at least 1."
        )
    if not _broadcasts(shape[leading:], x.shape):
        rest = " after the axis of the baselines" if leading else ""
        raise ValueError(
            f"{what}: has shape {shape}, which does not broadcast{rest} to {x.shape}, the shape of "
            "what is explained."
        )
    return found.astype(wide(x))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
