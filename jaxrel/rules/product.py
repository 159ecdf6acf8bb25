"""Rules for z = a b, bilinear in two live values: gates, attention scores, attention output.

Where one side is attention weights or a gate (the variants ``attention`` and ``gate``), it is a and
the value is b; otherwise a and b are in the order of the program.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .base import Rule, rule
from .general import gauss, integral
from .numerics import divide, secant
from .view import View


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
        return tuple(v / 2 for v in _factors(view, m))


@rule("product")
class ByDegree(Rule):
    """m_a = vjp_a(m) p / (p + q), m_b = vjp_b(m) q / (p + q): by the degrees p of a and q of b.

    That is how many factors each is made of, as a polynomial in what is explained, so that a
    product of n factors gives 1/n to each in whatever order it is taken: (x y) z, x (y z) and
    ``jnp.prod``, (Q K^T) V and Q (K^T V). ``Half`` gives equal programs different relevance (You et
    al. 2025, arXiv 2510.18810). For multilinear functions it is the integral of the gradient on the
    line from 0, R_i = x_i df/dx_i / n.

    Degrees are read off the plan, see :mod:`jaxrel.rulesets.degrees`; where none is known, halves.

    With a baseline it is the integral of the gradient on the line from there, of all factors that a
    product has through linear operations between (:mod:`jaxrel.rulesets.multilinear`); of two that
    is :class:`Midpoint`.

    Attributes:
      degrees: p and q; (): those of the plan.
    """

    degrees: tuple[float | jax.Array, ...] = ()

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """What has a degree above 0: a constant of the rules (detached weights) has none."""
        numbers = [isinstance(d, int | float) for d in self.degrees]
        if len(numbers) != inputs or not all(numbers) or not any(self.degrees):
            return tuple(range(inputs))
        return tuple(k for k, degree in enumerate(self.degrees) if degree > 0)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if view.baseline is not None:
            return self._between(view, m)
        sent, reached = _factors(view, m), self.reached("product", "", len(view.inputs))
        shares = self._shares(len(sent))
        pairs = zip(sent, shares, strict=True)
        return tuple(_times(v, s) if k in reached else None for k, (v, s) in enumerate(pairs))

    def _between(self, view: View, m: jax.Array) -> Any:
        """The integral of the gradient from the baseline on; of two factors at the midpoint."""
        factors = [d for d in self.degrees if isinstance(d, int)]
        if sum(factors) <= 2 or len(factors) != len(view.inputs):
            return Midpoint()(view, m)
        points = gauss((min(sum(factors), 128) + 1) // 2, root=False)
        return integral(view.function, view.origins, view.inputs, m, points)

    def _shares(self, inputs: int) -> list[Any]:
        """What each gets of the whole."""
        whole = sum(self.degrees)
        if not self.degrees or (isinstance(whole, int | float) and whole == 0):
            return [1 / inputs] * inputs
        return [degree / whole for degree in self.degrees]


@rule("product", "quotient", "normalization")
class Midpoint(Rule):
    """With a baseline: each factor meets the mean of the other's two values.

    m_a = vjp_a(m) at (b + b0) / 2 and m_b = vjp_b(m) at (a + a0) / 2: complete and symmetric.

    A quotient y = a / b is solved from its product y b = a,

        y - y0 = [(a - a0) - (y + y0) / 2 (b - b0)] / ((b + b0) / 2)

    which stays of the size of y where b0 is nearly 0: the norm of nothing. By the mean of the two
    reciprocals relevance would grow there by 1 / b0. Where b is a power of what is live, a root
    above all, b - b0 is the change of that times its slope. Only where b changes its sign, and the
    mean of b can be 0, is it the mean of the reciprocals.
    """

    baseline = frozenset({True})

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        assert view.baseline is not None
        if view.quotient:
            return _solved(dataclasses.replace(view, function=view.guarded(m)), m)
        pairs = zip(view.inputs, view.baseline.inputs, strict=True)
        _, pullback = jax.vjp(view.guarded(m), *(x / 2 + x0 / 2 for x, x0 in pairs))
        return pullback(m)


def _factors(view: View, m: jax.Array) -> tuple[jax.Array, ...]:
    """What each side gets in full."""
    if not view.elementwise:
        return view.vjp(m)
    _, pullback = jax.vjp(view.guarded(m), *view.inputs)
    return pullback(m)


def _times(v: jax.Array, share: Any) -> jax.Array:
    return v * (share.astype(v.dtype) if hasattr(share, "astype") else share)


def _solved(view: View, m: jax.Array) -> tuple[jax.Array, ...]:
    """The multipliers of a / v^p, or of v alone where a is a constant.

    With b = v^p and u^p = (b + b0) / 2, vjp_v at (a, u) is -p a m / (u u^p). Of it at a and at a0

        m_v = s u / (2 p b) vjp_v(a, u) + s u / (2 p b0) vjp_v(a0, u),    s = (b - b0) / (v - v0)

    is -m (y + y0) / (b + b0) s, whatever else the step does with its values.
    """
    assert view.baseline is not None
    (*a, v), (*a0, v0), p = view.inputs, view.baseline.inputs, view.power
    b, b0 = _power(v, p), _power(v0, p)
    keeps = (b >= 0) == (b0 >= 0)
    mean = jnp.where(b + b0 == 0, 1, b / 2 + b0 / 2)
    u = jnp.where(keeps, _power(mean, 1 / p), v)

    def by_v(*a: jax.Array) -> jax.Array:
        return jax.vjp(lambda v: view.function(*a, v), u)[1](m)[0]

    reach = mean if p == 0.5 else u  # s u / p
    if p not in (0.5, 1):
        reach = u / p * secant(lambda v: _power(v, p), v, v0, b, b0)
    here, there = divide(reach / 2, jnp.where(keeps, b, b0)), divide(reach / 2, b0)
    sent = here * by_v(*a) + there * by_v(*a0)
    if not a:
        return (sent,)
    between = jnp.where(keeps, u, _power(b / mean * b0, 1 / p))
    _, pullback = jax.vjp(lambda a: view.function(a, between), *a)
    return *pullback(m), sent


def _power(v: jax.Array, p: float) -> jax.Array:
    """The power v^p, by the operation that is made for it; of v < 0 that of an odd function."""
    if p in (0.5, 1, 2):
        return {0.5: jnp.sqrt, 1: lambda v: v, 2: jnp.square}[p](v)
    return v**p if p == round(p) else jnp.sign(v) * jnp.abs(v) ** p


@rule("product")
class First(Rule):
    """All to a; b is a constant."""

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return _factors(view, m)[0], None


@rule("product")
class Second(Rule):
    """All to b; a is a constant: with a gate or attention weights, all to the value (CP-LRP)."""

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """The second."""
        return (1,)

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return None, _factors(view, m)[1]
