"""The rule for whatever can be differentiated and has no rule of its own.

Relevance of a function between a baseline x0 and x is the integral of its gradient on the straight
line between the two (Aumann and Shapley 1974; *integrated gradients* of one step):

    m_x = integral over t in [0, 1] of J(x0 + t (x - x0))^T m dt        x0 = 0 without a baseline

so that sum((x - x0) m_x) = sum((f(x) - f(x0)) m), whatever f is. The integral is taken by
Gauss-Legendre quadrature, in s with t = s^2: what begins like a root at the baseline (cholesky,
norms, powers) is a polynomial in s.

Sharp edges:

* What quadrature leaves is added where it cannot mix examples: elementwise functions, and
  decompositions of matrices with a baseline. It goes to the inputs in proportion to x - x0, the
  smallest change that makes the step complete. Elsewhere (``reduce``, ``cumlogsumexp`` ...) the
  error of quadrature stays: 1e-10 and less for smooth functions, more where the line passes a pole
  or a jump.
* Without a baseline f(0) is what the function gives at 0, and 0 where that is not finite, as for
  ``Slope``. For decompositions it is the limit on the line towards 0: eigenvectors, the same all
  the way, get R = 0.
* The line must not leave the domain: from an indefinite baseline ``cholesky`` is not defined.
  Multipliers that are not finite at some point of the line count as 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import Rule, rule, total
from .completion import completed, wide
from .numerics import check_number, finite
from .view import System, View


@rule()
class PathIntegral(Rule):
    """m_x = integral of J(x0 + t (x - x0))^T m over t in [0, 1]; for a step of any kind.

    Products of many factors take as many points as make them exact (up to 64). Solutions y of
    A y = b are not integrated: without a baseline b gets all, and A, where it alone is live, what
    a denominator gets (f(x) / x); with one y - y0 is divided exactly and symmetrically.

    Attributes:
      order: points of the quadrature, each the cost of one VJP.
    """

    order: int = 16

    def __post_init__(self):
        """Checks that there are points."""
        super().__post_init__()
        check_number(self, "order", 1, "it is how many points the quadrature has")

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if view.system is not None:
            return _solution(view, m)
        if view.variant == "elementwise":
            return _elementwise(view, m, self.order)
        x, x0 = view.inputs, view.origins
        if view.variant == "polynomial":
            points = gauss(min(64, (_degree(view) + 1) // 2), root=False)
            return integral(view.function, x0, x, m, points)
        found = integral(view.function, x0, x, m, gauss(self.order))
        if view.variant == "decomposition" and view.baseline is not None:
            examples = x[0].ndim - 2
            found = completed(found, x, x0, view.output, view.baseline.output, m, examples)
        return found

    def to_bias(self, view: View, m: Any) -> jax.Array:
        """f(0) m; for decompositions its limit on the line to 0, in all."""
        if view.system is not None:
            return jnp.zeros(())
        if view.variant != "decomposition":
            return super().to_bias(view, m)
        return total(view.output, m) - total(view.inputs, self(view, m))


def _degree(view: View) -> int:
    """How many factors a product has at most."""
    (x, *_), y = view.inputs, view.output
    return x.size // max(y.size, 1) if x.size > y.size else max(x.shape, default=1)


def gauss(order: int, root: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Points in [0, 1] and weights of the quadrature; ``root``: in s with t = s^2."""
    points, weights = np.polynomial.legendre.leggauss(order)
    points, weights = (points + 1) / 2, weights / 2
    return (points * points, 2 * points * weights) if root else (points, weights)


def integral(
    function: Callable[..., Any],
    x0: Sequence[jax.Array],
    x: Sequence[jax.Array],
    m: Any,
    points: tuple[np.ndarray, np.ndarray],
) -> tuple[jax.Array, ...]:
    """Integrates the VJP of a function from ``x0`` to ``x``.

    By ``lax.map``: the function is traced once, not once for each point, and only one point's
    intermediate values are alive at a time. Only its VJP is asked for, so that functions with
    nothing but a ``custom_vjp`` do.
    """

    def weighted(point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        t, weight = point
        here = (a0 + (t * (a - a0)).astype(a.dtype) for a, a0 in zip(x, x0, strict=True))
        _, pullback = jax.vjp(function, *here)
        parts = (finite(part.astype(wide(part))) for part in pullback(m))
        return tuple(part * weight.astype(part.dtype) for part in parts)

    real = jnp.finfo(wide(x[0])).dtype
    parts = lax.map(weighted, tuple(jnp.asarray(p, real) for p in points))
    return tuple(part.sum(0) for part in parts)


def _elementwise(view: View, m: jax.Array, order: int) -> tuple[jax.Array, ...]:
    """Each input in the shape of the output, so that every element is on its own."""
    y = view.output

    def broadcast(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.broadcast_to(a, y.shape) for a in inputs)

    x, pullback = jax.vjp(broadcast, *view.inputs)
    x0 = broadcast(*view.origins)
    found = integral(view.function, x0, x, m, gauss(order))
    found = completed(found, x, x0, y, _start(view), m, y.ndim)
    # the sum over what an input was broadcast to is in the input's own type
    return pullback(tuple(part.astype(a.dtype) for part, a in zip(found, x, strict=True)))


def _start(view: View) -> jax.Array:
    if view.baseline is not None:
        return view.baseline.output
    return finite(view.function(*map(jnp.zeros_like, view.inputs)))


def _solution(view: View, m: Any) -> tuple[jax.Array | None, ...]:
    """For y with A y = b, where A is made of some of the inputs and b of others.

        y - y0 = A^-1  ((b - b0) - (A - A0) y0)
               = A0^-1 ((b - b0) - (A - A0) y)

    both exact; their mean treats the two points alike. Without a baseline b gets all. If only A is
    live, the line from 0 begins at a pole; the one from infinity, where y is 0, gives
    m_A = -vjp(m), which is what ``Slope`` gives for c / x.
    """
    assert view.system is not None
    baseline = view.baseline
    system: System = view.system()
    back = system.back(m)
    matrix = tuple(view.inputs[k] for k in system.matrix)
    if baseline is None:
        to_rhs, to_matrix = back, [None for _ in matrix]
        if not system.rhs:
            _, pullback = jax.vjp(lambda *a: system.apply(a, system.solution), *matrix)
            to_matrix = pullback(back)
    else:
        assert baseline.system is not None
        start: System = baseline.system()
        back0 = start.back(m)
        to_rhs = [(a + b) / 2 for a, b in zip(back, back0, strict=True)]
        matrix0 = tuple(baseline.inputs[k] for k in start.matrix)
        # exact for coefficients of degree up to 4 in what they are made of
        parts = [
            integral(lambda *a, y=y: system.apply(a, y), matrix0, matrix, w, gauss(2, root=False))
            for y, w in ((start.solution, back), (system.solution, back0))
            if matrix
        ]
        to_matrix = [-(a + b) / 2 for a, b in zip(*parts, strict=True)] if matrix else []
    sent: list[Any] = [None] * len(view.inputs)
    for k, part in zip(system.matrix, to_matrix, strict=True):
        sent[k] = part
    for k, leaf in system.rhs:
        sent[k] = to_rhs[leaf]
    return tuple(sent)
