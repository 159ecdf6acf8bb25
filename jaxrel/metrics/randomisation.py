"""Randomisation: an explanation of a network has to change when the network does.

    fresh = model.init(jax.random.key(1), x)                 weights that have learned nothing
    rows = cascading(explain, params, fresh, x, ["Dense_2", "Dense_1", "Dense_0"])

``explain(params, x)`` gives relevances: ``jaxrel.relevance(fun, rules, 1)`` of ``fun(params, x)``.
Parameters are any tree; a layer is named by keys of their paths in a row, with ``/`` between them:
``"Dense_0"`` has ``params/Dense_0/kernel``. One program with one loop over the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import did_you_mean
from ..rules.numerics import divide
from . import borders
from .complexity import histogram_entropy
from .similarity import spearman

Explain = Callable[[Any, jax.Array], jax.Array]
Similarity = Callable[[jax.Array, jax.Array], jax.Array]


def cascading(
    explain: Explain,
    params: Any,
    fresh: Any,
    x: jax.Array,
    layers: Sequence[str],
    *,
    together: bool = True,
    similarity: Similarity = spearman,
) -> jax.Array:
    """Model parameter randomisation test (Adebayo et al. 2018, section 3).

    Layer after layer gets fresh weights; each time the map is compared with the original one.

    Args:
      explain: from (params, x) to relevance; any callable.
      params, fresh: trees of one structure: the weights, and others of the same distribution as
        before training.
      x: (N, ...).
      layers: which layers, in this order: from the output to the input is the paper's, top-down.
      together: layers stay fresh (cascading); False: one at a time (independent).
      similarity: from two relevances, (N, M), to (N,): :func:`spearman`, :func:`pearson`,
        :func:`ssim`. Give it absolute values for the paper's other variant.

    Returns:
      (1 + layers, N): the map against itself, and after each layer. What stays near 1 does not
      explain this network.

    Raises:
      ValueError: trees that differ, or no parameters of a layer.
      TypeError: ``explain`` is no function.
    """
    x = borders.batch("x", x)
    owners = _owners(params, fresh, layers)

    def stage(k: jax.Array) -> jax.Array:
        def weights(owner: int, old: Any, new: Any) -> Any:
            if owner < 0:
                return old
            is_fresh = k > owner if together else k == owner + 1
            return jnp.where(is_fresh, new, old)

        changed = jax.tree.map(weights, owners, params, fresh)
        return borders.explained(lambda x: explain(changed, x), x)

    maps = borders.mapped(stage, jnp.arange(len(layers) + 1), 1)
    return jax.vmap(lambda changed: similarity(maps[0], changed))(maps)


def efficient_mprt(
    explain: Explain, params: Any, fresh: Any, x: jax.Array, *, bins: int = 100
) -> jax.Array:
    """Efficient MPRT (Hedström et al. 2024, eq. 6): the relative rise of the maps' complexity.

    (H(R of fresh weights) - H(R)) / H(R), H the :func:`histogram_entropy`: one fully random network
    in place of all the layers.

    Args:
      explain, params, fresh, x: as for :func:`cascading`.
      bins: of the histogram.

    Returns:
      (N,): high is good.

    Raises:
      ValueError, TypeError: as :func:`cascading`.
    """
    x = borders.batch("x", x)
    _owners(params, fresh, [])
    both = [borders.explained(lambda x, p=p: explain(p, x), x) for p in (params, fresh)]
    before, after = (histogram_entropy(each, bins) for each in both)
    return divide(after - before, before)


def random_logit(
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    labels: jax.Array,
    others: jax.Array,
    *,
    similarity: Similarity = spearman,
) -> jax.Array:
    """Random logit test (Sixt, Granz, Landgraf 2020, section 4): maps of two classes, compared.

    Args:
      explain: from (x, labels) to relevance, of the logits of (N,) labels.
      x: (N, ...).
      labels: (N,) integers, the explained classes.
      others: (N,), other classes, as by :func:`other_classes`.
      similarity: as for :func:`cascading`.

    Returns:
      (N,): what stays near 1 does not tell classes apart.

    Raises:
      ValueError: shapes that do not fit.
      TypeError: ``explain`` is no function.
    """
    x = borders.batch("x", x)
    labels = borders.with_shape("labels", labels, (len(x),), "a class for each example")
    others = borders.with_shape("others", others, (len(x),), "another class for each example")
    return similarity(borders.explained(explain, x, labels), borders.explained(explain, x, others))


def other_classes(key: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
    """Another class for each example, uniformly.

    Args:
      key: a random key.
      labels: (N,) integers.
      classes: how many there are, at least 2.

    Raises:
      ValueError: there is only one.
    """
    if classes < 2:
        raise ValueError(f"other_classes: there is no other of {classes}.")
    labels = jnp.asarray(labels)
    further = jax.random.randint(key, labels.shape, 1, classes, labels.dtype)
    return (labels + further) % classes


def _owners(params: Any, fresh: Any, layers: Sequence[str]) -> Any:
    """For each leaf the number of the layer that it belongs to, -1: none."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    if jax.tree.structure(fresh) != tree:
        raise ValueError("fresh: expected the structure of params.")
    for (path, old), new in zip(leaves, jax.tree.leaves(fresh), strict=True):
        name = jax.tree_util.keystr(path)
        borders.same_shape(f"params{name}", jnp.asarray(old), f"fresh{name}", jnp.asarray(new))
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    found = [-1] * len(paths)
    for number, layer in enumerate(layers):
        own = [k for k, path in enumerate(paths) if f"/{layer}/" in f"/{path}/"]
        if not own:
            hint = did_you_mean(layer, {path.rpartition("/")[0] for path in paths})
            raise ValueError(f"layers: no parameters of {layer!r}{hint}")
        for k in own:
            found[k] = number
    return jax.tree.unflatten(tree, found)
