"""Rules for z = a b, bilinear in two live values: gates, attention scores, attention output.

Where one side is attention weights or a gate (the variants ``attention`` and ``gate``), it is a and
the value is b; otherwise a and b are in the order of the program.
"""

from __future__ import annotations

from typing import Any

import jax

from .base import Rule, View, rule


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


@rule("product", "quotient")
class Midpoint(Rule):
    """With a baseline: each factor meets the mean of the other's two values.

    m_a = vjp_a(m) at (b + b0) / 2 and m_b = vjp_b(m) at (a + a0) / 2: complete and symmetric. A
    quotient a / b is a product with 1 / b, whose secant slope is -1 / (b b0).
    """

    baseline = frozenset({True})

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.baseline is not None
        pairs = tuple(zip(view.inputs, view.baseline.inputs, strict=True))
        if view.quotient:
            (a, a0), (b, b0) = pairs
            sent = m * (1 / b + 1 / b0) / 2, -m * (a / b / b0 + a0 / b0 / b) / 2
            return tuple(_sum_to(s, x) for s, x in zip(sent, view.inputs, strict=True))
        _, pullback = jax.vjp(view.function, *(x / 2 + x0 / 2 for x, x0 in pairs))
        return pullback(m)


def _sum_to(s: jax.Array, x: jax.Array) -> jax.Array:
    """Sums over the dimensions along which ``x`` was broadcast."""
    if x.ndim < s.ndim:  # a scalar
        return s.sum()
    axes = tuple(k for k, (n, size) in enumerate(zip(s.shape, x.shape, strict=True)) if n > size)
    return s.sum(axes, keepdims=True)


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
