"""Rules for z = a b, bilinear in two live values: gates, attention scores, attention output.

Where one side is attention weights or a gate (the variants ``attention`` and ``gate``), it is a and
the value is b; otherwise a and b are in the order of the program.
"""

from __future__ import annotations

from typing import Any

from .base import Rule, View, rule


@rule("product")
class Half(Rule):
    """m_a = vjp_a(m) / 2, m_b = vjp_b(m) / 2.

    The uniform rule of AttnLRP (Achtibat et al. 2024): of an attention layer's relevance the values
    get 1/2, queries and keys 1/4 each. The gradient in full would hand on twice what arrives.
    """

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return tuple(v / 2 for v in view.vjp(m))


@rule("product")
class First(Rule):
    """All to a; b is a constant."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.vjp(m)[0], None


@rule("product")
class Second(Rule):
    """All to b; a is a constant: with a gate or attention weights, all to the value (CP-LRP)."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return None, view.vjp(m)[1]
