"""Complexity: can an explanation be taken in? No function is called; sparse is simple."""

from __future__ import annotations

import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._call.averages import count
from ..rules.numerics import divide
from . import borders


def entropy(relevance: jax.Array) -> jax.Array:
    """The entropy of shares: - sum p log p, p = abs(R) / sum abs(R) (Bhatt et al. 2020, def. 4).

    Args:
      relevance: (N, ...), any unit.

    Returns:
      (N,), in nats, from 0 (all in one place) to log of the size; 0 where there is no relevance.
      Differentiable.

    Raises:
      ValueError: it is no batch.

    Example:
      >>> entropy(jnp.array([[2.0, 0.0, 0.0], [1.0, -1.0, 0.0]]))
      Array([0.       , 0.6931472], dtype=float32)
    """
    magnitude = jnp.abs(borders.flat(borders.relevances("relevance", relevance)))
    share = divide(magnitude, magnitude.sum(1, keepdims=True))
    return _entropy(share)


def gini(relevance: jax.Array) -> jax.Array:
    """The Gini index of abs(R) (Hurley and Rickard 2009; Chalasani et al. 2020, section 5).

    sum_i (2 i - n - 1) v_i / (n sum v), v sorted ascending.

    Args:
      relevance: (N, ...), any unit.

    Returns:
      (N,), from 0 (all alike) to 1 - 1 / n (all in one place); 0 where there is no relevance.

    Raises:
      ValueError: it is no batch.
    """
    relevance = borders.flat(borders.relevances("relevance", relevance))
    ordered = jnp.sort(jnp.abs(relevance), axis=1)
    size = ordered.shape[1]
    weights = (2 * jnp.arange(1, size + 1) - size - 1) / size
    return divide((weights.astype(ordered.dtype) * ordered).sum(1), ordered.sum(1))


def effective_complexity(relevance: jax.Array, threshold: float | jax.Array = 1e-5) -> jax.Array:
    """How many values are not negligible: abs(R) > threshold (Nguyen and Martinez 2020, sec. 4.3).

    Args:
      relevance: (N, ...).
      threshold: in the relevance's unit, one number or one for each example. Relative to the
        largest: divide the relevance by it before.

    Returns:
      (N,), a number of values.

    Raises:
      ValueError: shapes that do not fit.
    """
    relevance = borders.flat(borders.relevances("relevance", relevance))
    threshold = jnp.asarray(threshold)
    if threshold.ndim:
        threshold = borders.with_shape("threshold", threshold, (len(relevance),), "(N,)")[:, None]
    larger = (jnp.abs(relevance) > threshold).sum(1)
    return borders.poisoned(larger.astype(relevance.dtype), relevance)


def histogram_entropy(relevance: jax.Array, bins: int = 100) -> jax.Array:
    """The entropy of the distribution of values: - sum h log h over equal bins from min to max.

    The image entropy of Samek et al. 2015 (section III-D), and what :func:`efficient_mprt` compares
    (Hedström et al. 2024).

    Args:
      relevance: (N, ...), any unit.
      bins: how many.

    Returns:
      (N,), in nats, from 0 (one value) to log(bins).

    Raises:
      ValueError, TypeError: it is no batch; bins is no positive integer.
    """
    relevance = borders.flat(borders.relevances("relevance", relevance))
    bins = count("histogram_entropy", bins=bins)

    def of_row(row: jax.Array) -> jax.Array:
        return jnp.histogram(row, bins)[0] / row.size

    with _compat.under_mesh([relevance]):
        share = jax.vmap(of_row)(relevance).astype(relevance.dtype)
    return borders.poisoned(_entropy(share), relevance)


def file_size(relevance: jax.Array) -> jax.Array:
    """The size of the heatmap as a picture file (Samek et al. 2015, section III-D).

    A grey PNG of 8 bits a pixel, lossless: relevance from - max abs(R) to max abs(R), each row as
    differences from pixel to pixel, deflated. (The paper's files are JPEG; so do not compare
    numbers with theirs.) It is computed by the host, also within ``jax.jit`` and ``jax.vmap``.

    Args:
      relevance: (N, H, W), or (N, H, W, C), which is summed over its channels.

    Returns:
      (N,), in bytes, float32; 0 has no derivative.

    Raises:
      ValueError: it is no batch of pictures.
    """
    relevance = borders.relevances("relevance", relevance)
    if relevance.ndim == 4:
        relevance = relevance.sum(-1)
    shape, means = (None, None, None), "(N, H, W), pictures"
    relevance = borders.with_shape("relevance", jax.lax.stop_gradient(relevance), shape, means)
    largest = jnp.abs(relevance).max((1, 2), keepdims=True)
    grey = jnp.round(127.5 + 127.5 * divide(relevance, largest))
    result = jax.ShapeDtypeStruct(relevance.shape[:1], jnp.float32)
    sizes = jax.pure_callback(_sizes, result, grey.astype(jnp.uint8), vmap_method="broadcast_all")
    return borders.poisoned(sizes, relevance)


def _sizes(pictures: np.ndarray) -> np.ndarray:
    pictures = np.asarray(pictures)
    found = [len(_png(p)) for p in pictures.reshape(-1, *pictures.shape[-2:])]
    return np.asarray(found, np.float32).reshape(pictures.shape[:-2])


def _png(picture: np.ndarray) -> bytes:
    """A grey picture of 8 bits as a PNG file, every row with the filter Sub."""
    height, width = picture.shape
    before = np.pad(picture, ((0, 0), (1, 0)))[:, :-1]
    rows = np.pad(picture - before, ((0, 0), (1, 0)), constant_values=1)

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _entropy(share: jax.Array) -> jax.Array:
    """- sum p log p, 0 log 0 = 0."""
    return -(share * jnp.log(jnp.where(share == 0, 1, share))).sum(1)
