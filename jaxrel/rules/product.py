"""Rules for z = a b, bilinear in two live values: gates, attention scores, attention output.

Where one side is attention weights or a gate (the variants ``attention`` and ``gate``), it is a and
the value is b; otherwise a and b are in the order of the program.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, View, rule
from .numerics import divide, secant


@rule("product")
class Half(Rule):
    """m_a = vjp_a(m) / 2, m_b = vjp_b(m) / 2.

    The uniform rule of AttnLRP (Achtibat et al. 2024): of an attention layer's relevance the values
    get 1/2, queries and keys 1/4 each. The gradient in full would hand on twice what arrives.

    With a baseline :class:`Midpoint`, which this is where the baseline is 0.
    """

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if view.baseline is not None:
            return Midpoint()(view, m)
        return tuple(v / 2 for v in view.vjp(m))


@rule("product", "quotient", "normalization")
class Midpoint(Rule):
    """With a baseline: each factor meets the mean of the other's two values.

    m_a = vjp_a(m) at (b + b0) / 2 and m_b = vjp_b(m) at (a + a0) / 2: complete and symmetric.

    A quotient y = a / b is solved from that product, y b = a, never from the mean of reciprocals,
    which explodes where b0 is nearly 0, as behind every norm of a zero embedding. With bbar =
    (b + b0) / 2 and ybar = (y + y0) / 2

        y - y0 = ((a - a0) - ybar (b - b0)) / bbar

    so m_a = m / bbar and m_b = -m ybar / bbar. Where b = v^p the step has v as its input, and
    m_v = m_b (b - b0) / (v - v0).
    """

    baseline = frozenset({True})

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.baseline is not None
        if view.quotient:
            return _solved(view, m)
        pairs = tuple(zip(view.inputs, view.baseline.inputs, strict=True))
        _, pullback = jax.vjp(view.function, *(x / 2 + x0 / 2 for x, x0 in pairs))
        return pullback(m)


def _solved(view: View, m: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Multipliers of a and v in y = c a / v^p, whatever moves and scales c stand between.

    The step is linear in a, so its derivative at v*, where v*^p is bbar, has all of c in it; and
    so has that by v, which is y / bbar there but for the slope of the power.
    """
    assert view.baseline is not None
    (a, v), (a0, v0), p = view.inputs, view.baseline.inputs, view.power
    b, b0 = _power(v, p), _power(v0, p)
    middle = b / 2 + b0 / 2
    between = _power(middle, 1 / p)
    _, of_a = jax.vjp(lambda a: view.function(a, between), a)
    _, of_v = jax.vjp(lambda v: view.function(a, v), between)
    _, of_v0 = jax.vjp(lambda v: view.function(a0, v), between)
    sent = divide(middle, 2 * b) * of_v(m)[0] + divide(middle, 2 * b0) * of_v0(m)[0]
    if p not in (0.5, 1.0):
        slope = secant(lambda v: _power(v, p), v, v0, b, b0)
        sent = sent * slope * divide(between, p * middle)
    return of_a(m)[0], sent


def _power(v: jax.Array, p: float) -> jax.Array:
    if p in (0.5, 1.0, 2.0):
        return {0.5: jnp.sqrt, 1.0: lambda v: v, 2.0: jnp.square}[p](v)
    return v**p


@rule("product")
class First(Rule):
    """All to a; b is a constant."""

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.vjp(m)[0], None


@rule("product")
class Second(Rule):
    """All to b; a is a constant: with a gate or attention weights, all to the value (CP-LRP)."""

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """The second."""
        return (1,)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return None, view.vjp(m)[1]
