"""Rules for y = max_i a_i: over two values, an axis, a window, or a running maximum.

Each rule here is a function from the stack of candidates ``(k, *shape)`` to factors of the same
shape, m_i = factor_i m; a minimum is min a = -max -a. Padding is -inf and gets factor 0. With
``Gradient`` the winner takes all, and ties are split as JAX's own VJP splits them. ``sort`` and
``top_k`` hand on every value whole, so every rule is the gradient there.

With a baseline factors are functions of both stacks, and sum_i factor_i (a_i - a0_i) = y - y0.
There ``sort`` and ``top_k`` are networks of maxima and minima of two values, by
:class:`AbsoluteValue` for every rule.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .base import Rule, rule
from .completion import completed
from .numerics import check_number, divide, finite, homogeneous_secant, secant
from .view import View


class MaximumRule(Rule):
    """A rule given by its factors."""

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """For ``sort`` and ``top_k`` without a baseline."""
        return variant == "selection"

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if view.variant == "selection":
            assert view.selection is not None
            return (sorted_multiplier if view.selection.exact else selected_multiplier)(view, m)
        if view.variant == "scatter" and view.baseline is not None:
            return scattered_multiplier(view, m)
        assert view.candidates is not None
        a, pullback = jax.vjp(view.candidates, *view.inputs)
        sign = -1 if view.minimum else 1
        if view.baseline is None:
            factors = self.factors(sign * a, sign * view.output[None])
        else:
            there = view.candidates(*view.baseline.inputs), view.baseline.output[None]
            factors = self.factors_between(
                sign * a, sign * view.output[None], *(sign * v for v in there)
            )
        return pullback(factors * m[None])

    def to_bias(self, view: View, m: Any) -> jax.Array:
        """What candidates that are constant get."""
        if view.variant == "selection":
            return super().to_bias(view, m)
        assert view.candidates is not None
        a, of_live = jax.jvp(view.candidates, view.inputs, view.inputs)
        sign = -1 if view.minimum else 1
        factors = self.factors(sign * a, sign * view.output[None])
        return (finite(a - of_live) * factors * m[None]).sum(0)

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """m_i / m for candidates ``a`` of shape (k, *shape), their maximum ``y`` (1, *shape)."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def factors_between(
        self, a: jax.Array, y: jax.Array, a0: jax.Array, y0: jax.Array
    ) -> jax.Array:
        """The same against a baseline, where candidates and maximum are ``a0`` and ``y0``."""
        raise TypeError(f"{type(self).__name__} is abstract")


def _ratio(y: jax.Array, a: jax.Array) -> jax.Array:
    """Quotients y / a_i of candidates <= 0: in [0, 1]; the winner's is 1, padding's 0."""
    return jnp.where(a == y, 1, divide(y, a))


@rule("maximum")
class Radial(MaximumRule):
    """Shares by size, with 0 as a special point.

    Some a > 0: a_i gets the share a_i+ / sum_j a_j+ of the relevance. All negative: the share
    (1/|a_i|) / sum_j 1/|a_j|. So shares are >= 0 and sum to 1, a negative value contributes nothing
    to a positive maximum, the only positive one gets all, and shares are constant along rays. The
    source text describes the rule by these properties (its formula was an image and is lost); this
    is our reading.
    """

    baseline = frozenset({False})

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        positive = jnp.maximum(a, 0)
        above = jnp.where(a > 0, divide(y, positive.sum(0, keepdims=True)), 0)
        ratio = _ratio(jnp.minimum(y, 0), jnp.minimum(a, 0))
        below = ratio * ratio / ratio.sum(0, keepdims=True)
        return jnp.where(y > 0, above, below)


@rule("maximum")
class Shapley(MaximumRule):
    """The Shapley value of each candidate in the game max(0, ...) with absent players at 0.

    With the positive values sorted, p_1 <= ... <= p_k and p_0 = 0, the share of p_j is sum over
    l <= j of (p_l - p_{l-1}) / (k - l + 1), over p_k. Negatives get 0; all negative: 1/n each.
    """

    baseline = frozenset({False})

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        positive = jnp.maximum(a, 0)
        order = jnp.argsort(positive, axis=0)
        ascending = jnp.take_along_axis(positive, order, 0)
        steps = jnp.diff(jnp.concatenate([jnp.zeros_like(ascending[:1]), ascending]), axis=0)
        left = jnp.arange(len(a), 0, -1, dtype=a.dtype).reshape(-1, *(1 for _ in y.shape[1:]))
        worth = jnp.take_along_axis(jnp.cumsum(steps / left, 0), jnp.argsort(order, axis=0), 0)
        # share y / a_i with share = worth / y
        return jnp.where(y > 0, divide(worth, positive), _uniform(a, y))


def _present(a: jax.Array) -> jax.Array:
    """1 for candidates, 0 for padding; in their dtype."""
    return jnp.isfinite(a).astype(a.dtype)


def _uniform(a: jax.Array, y: jax.Array) -> jax.Array:
    """Factors that give every candidate the same share of a maximum <= 0."""
    present = _present(a)
    return present * _ratio(jnp.minimum(y, 0), jnp.minimum(a, 0)) / present.sum(0, keepdims=True)


@rule("maximum")
class SoftmaxLimit(MaximumRule):
    """Through (1/beta) log mean_i exp(beta a_i), each of its parts by ``Slope`` against 0.

    With e_i = exp(beta a_i) and M their mean, exp gives (e_i - 1) / (beta a_i), log (which is at
    M = 1 where all a_i are 0) log M / (M - 1). The relevance of the soft maximum is conserved,
    which is at most log(n) / beta below the maximum's. beta = inf in closed form: the winner (ties
    share); all negative: 1/n each.

    With a baseline exp and log take their secants between the two; at beta = inf all goes to the
    winner at x where y > y0, and to the winner at the baseline where y < y0.

    Attributes:
      beta: hardness, in units of 1 / a.
    """

    beta: float | jax.Array = float("inf")

    def __post_init__(self):
        """Checks the sign of beta."""
        super().__post_init__()
        check_number(self, "beta", 0, "below 0 the soft maximum is a minimum")

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        ties = (a == y).astype(a.dtype)
        limit = jnp.where(y > 0, ties / ties.sum(0, keepdims=True), _uniform(a, y))
        if isinstance(self.beta, float) and self.beta == float("inf"):
            return limit
        beta = jnp.asarray(self.beta, a.dtype)  # it may be traced, and inf then as well
        # So far out the limit is exact to rounding: of two values one is negligible, or they tie.
        hard = jnp.isinf(beta) | (jnp.abs(beta * y) > float(jnp.finfo(a.dtype).eps) ** -2)
        return jnp.where(hard, limit, _soft(a, y, jnp.where(hard, 0, beta)))

    def factors_between(
        self, a: jax.Array, y: jax.Array, a0: jax.Array, y0: jax.Array
    ) -> jax.Array:
        """See :class:`MaximumRule`."""
        if isinstance(self.beta, float) and self.beta == float("inf"):
            return CrossMax().factors_between(a, y, a0, y0)
        hard = jnp.isinf(jnp.asarray(self.beta))
        beta = jnp.where(hard, 1, jnp.asarray(self.beta, a.dtype))
        soft = _soft_factors(beta, a, y, a0, y0)
        return jnp.where(hard, CrossMax().factors_between(a, y, a0, y0), soft)


def _soft(a: jax.Array, y: jax.Array, beta: jax.Array) -> jax.Array:
    """Factors through the soft maximum, where beta y is no larger than 1 / eps^2."""
    largest, present = float(jnp.finfo(a.dtype).max), _present(a)
    a = jnp.where(present > 0, a, y)
    u, top, n = jnp.clip(beta * a, -largest, largest), beta * y, present.sum(0, keepdims=True)
    # A difference of products would be rounded in units of top, which may be anything.
    gap = jnp.maximum(jnp.where(a > y, 0, a - y), -largest)
    below = jnp.clip(beta * gap, -largest, largest)
    shift = jnp.where(top > 0, top, 0)  # sums are in units of exp(shift)
    excess = jnp.where(
        jnp.abs(u) < 1,
        jnp.expm1(_within(u, 1)) * jnp.exp(-shift),
        jnp.exp(jnp.where(top > 0, below, u)) - jnp.exp(-shift),
    )
    mean_excess = (present * excess).sum(0, keepdims=True) / n
    mean = (present * jnp.exp(below)).sum(0, keepdims=True) / n
    unit = jnp.exp(jnp.minimum(shift, 40))
    small = mean_excess * unit  # M - 1, where that can be small
    log_mean = jnp.where(jnp.abs(small) < 0.5, jnp.log1p(_within(small, 0.5)), top + jnp.log(mean))
    near = float(jnp.finfo(a.dtype).eps) ** 0.25
    s, v, flat = _within(small, near), _within(u, near), jnp.abs(u) < near
    log_slope = _quotient(
        log_mean, mean_excess, jnp.abs(small) < near, unit * (1 - s / 2 + s * s / 3)
    )
    exp_slope = _quotient(
        excess / jnp.where(flat, 1, beta), a, flat, jnp.exp(-shift) * (1 + v / 2 + v * v / 6)
    )
    return present * log_slope * exp_slope / n


def _soft_factors(
    beta: jax.Array, a: jax.Array, y: jax.Array, a0: jax.Array, y0: jax.Array
) -> jax.Array:
    """L(e_i, e0_i) / L(sum e, sum e0), e = exp(beta a) and L the logarithmic mean."""
    present, top = _present(a), jnp.maximum(y, y0)
    u, u0 = (beta * (jnp.where(present > 0, b, top) - top) for b in (a, a0))
    v, v0 = (
        beta * (w - top) + jnp.log((present * jnp.exp(beta * (b - w))).sum(0, keepdims=True))
        for b, w in ((a, y), (a0, y0))
    )
    numerator = secant(jnp.exp, u, u0, jnp.exp(u), jnp.exp(u0))
    return present * numerator / secant(jnp.exp, v, v0, jnp.exp(v), jnp.exp(v0))


def _within(x: jax.Array, bound: float) -> jax.Array:
    """The values x of magnitude below a bound, 0 for others: harmless where it is not used."""
    return jnp.where(jnp.abs(x) < bound, x, 0)


def _quotient(a: jax.Array, b: jax.Array, near: jax.Array, series: jax.Array) -> jax.Array:
    """A quotient a / b, and its series where ``near``."""
    return jnp.where(near, series, a / jnp.where(near, 1, b))


@rule("maximum")
class CrossMax(MaximumRule):
    """DeepLIFT's max pooling, between the winners at x and at the baseline.

    With c = max(y, y0), the winner at x gets (c - y0) m and the winner at the baseline (y - c) m,
    over their differences. One of the two is 0; where one candidate wins at both its factor is 1.
    Ties go to the first. Windows that overlap add up.
    """

    baseline = frozenset({True})

    def factors_between(
        self, a: jax.Array, y: jax.Array, a0: jax.Array, y0: jax.Array
    ) -> jax.Array:
        """See :class:`MaximumRule`."""
        here, there = (jax.nn.one_hot(v.argmax(0), len(v), axis=0, dtype=v.dtype) for v in (a, a0))
        rises = y > y0
        winner = jnp.where(rises, here, there)
        change = (winner * jnp.where(jnp.isfinite(a), a - a0, 0)).sum(0, keepdims=True)
        same = (here * there).sum(0, keepdims=True) > 0
        return winner * jnp.where(same, 1, divide(y - y0, change))


@rule("maximum")
class AbsoluteValue(MaximumRule):
    """Through max(a, b) = (a + b) / 2 + |a - b| / 2, the absolute value by ``Slope``.

    More than two are reduced in pairs, neighbours first. Without a baseline this is the gradient,
    but for ties, which it splits in halves. With one the slope of |d| between d0 and d lies between
    -1 and 1, and both of a pair get a part where their order changes.
    """

    def factors(self, a: jax.Array, y: jax.Array) -> jax.Array:
        """See :class:`MaximumRule`."""
        del y
        return _tournament(a, None)

    def factors_between(
        self, a: jax.Array, y: jax.Array, a0: jax.Array, y0: jax.Array
    ) -> jax.Array:
        """See :class:`MaximumRule`."""
        del y, y0
        return _tournament(a, a0)


def _tournament(a: jax.Array, a0: jax.Array | None) -> jax.Array:
    """Factors of candidates whose maximum is found in rounds, two by two."""
    if len(a) == 1:
        return jnp.ones_like(a)
    if len(a) % 2:
        return _tournament(_padded(a), None if a0 is None else _padded(a0))[:-1]
    first, second = a[0::2], a[1::2]
    distance = _distance(first, second)
    origin = jnp.zeros_like(distance) if a0 is None else _distance(a0[0::2], a0[1::2])
    half = (1 + _abs_slope(distance, origin)) / 2
    winners = None if a0 is None else jnp.maximum(a0[0::2], a0[1::2])
    above = _tournament(jnp.maximum(first, second), winners)
    return jnp.stack([half * above, (1 - half) * above], 1).reshape(a.shape)


def _padded(v: jax.Array) -> jax.Array:
    return jnp.pad(v, [(0, 1)] + [(0, 0)] * (v.ndim - 1), constant_values=-jnp.inf)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """A difference a - b; padding, -inf, loses by a distance of 1, and is no match for itself."""
    present = jnp.isfinite(a) & jnp.isfinite(b)
    walkover = _present(a) - _present(b)
    return jnp.where(present, jnp.where(present, a, 0) - jnp.where(present, b, 0), walkover)


def _abs_slope(d: jax.Array, d0: jax.Array) -> jax.Array:
    """The secant slope of |d| between d0 and d; 0 where both are 0."""
    return homogeneous_secant(_abs, d, d0, jnp.abs(d), jnp.abs(d0))


def _abs(d: jax.Array) -> jax.Array:
    """|d| with derivative 0 at 0."""
    return d * lax.stop_gradient(jnp.sign(d))


def selected_multiplier(view: View, m: Any) -> tuple[jax.Array, ...]:
    """Sends the multipliers of values selected along an axis home, where no network is known.

    The mean of the gradients at the two points, each exact as long as the order stays; what a
    change of the order leaves is shared along the axis, see :func:`.completion.completed`.
    """
    assert view.selection is not None
    assert view.baseline is not None
    axis, examples = view.selection.axis, view.inputs[0].ndim - 1

    def last(v: Any) -> Any:
        return v if v.dtype == jax.dtypes.float0 else jnp.moveaxis(v, axis, -1)

    both = zip(view.vjp(m), view.baseline.vjp(m), strict=True)
    found = [last((a + b) / 2) for a, b in both]
    points = (view.inputs, view.baseline.inputs, view.output, view.baseline.output, m)
    x, x0, y, y0, m = (jax.tree.map(last, tree) for tree in points)
    found = completed(found, x, x0, y, y0, m, examples)
    return tuple(jnp.moveaxis(part, -1, axis) for part in found)


def scattered_multiplier(view: View, m: jax.Array) -> tuple[jax.Array, ...]:
    """Sends the multiplier of ``x.at[i].max(u)`` home, between the two winners.

    As in :class:`CrossMax`: with c = max(y, y0), the winner at x gets (c - y0) m of relevance and
    the winner at x0 (y - c) m. The VJP finds them, however many updates an element has.
    """
    assert view.baseline is not None
    y, y0 = view.output, view.baseline.output
    top = (jnp.minimum if view.minimum else jnp.maximum)(y, y0)
    parts = zip(view.vjp((top - y0) * m), view.baseline.vjp((y - top) * m), strict=True)
    return tuple(divide(a + b, d) for (a, b), d in zip(parts, view.differences, strict=True))


def sorted_multiplier(view: View, m: Any) -> tuple[jax.Array]:
    """Sends the multiplier of sorted values home, through a network of comparisons of two.

    Odd-even transposition: in round r the neighbours (i, i + 1) with i = r mod 2 are put in order.
    Each is a maximum and a minimum by :class:`AbsoluteValue`, so the whole is complete. Of what
    else is sorted along (``top_k``'s indices, payloads), nothing is sent back.
    """
    assert view.selection is not None
    assert view.baseline is not None
    axis, sign = view.selection.axis, -1 if view.selection.descending else 1
    a, a0 = (jnp.moveaxis(sign * v.inputs[0], axis, -1) for v in (view, view.baseline))
    n = a.shape[-1]
    m = jnp.moveaxis(m[0] if isinstance(m, tuple) else m, view.selection.axis, -1)
    m = jnp.pad(m, [(0, 0)] * (m.ndim - 1) + [(0, n - m.shape[-1])])
    place = jnp.arange(n)

    def partner(r: jax.Array) -> jax.Array:
        other = jnp.where((place - r) % 2 == 0, place + 1, place - 1)
        return jnp.where((other < 0) | (other >= n), place, other)

    def compare(pair: tuple[jax.Array, jax.Array], r: jax.Array):
        other = partner(r)
        upper = jnp.sign(place - other)[(None,) * (a.ndim - 1)].astype(a.dtype)
        met = [v[..., other] for v in pair]
        slope = _abs_slope(*(v - w for v, w in zip(pair, met, strict=True)))
        kept = jnp.where(upper == 0, 1, (1 + upper * slope) / 2).astype(a.dtype)
        new, new0 = (
            jnp.where(upper > 0, jnp.maximum(v, w), jnp.minimum(v, w))
            for v, w in zip(pair, met, strict=True)
        )
        return (new, new0), kept

    def back(m: jax.Array, x: tuple[jax.Array, jax.Array]):
        kept, r = x
        return kept * m + ((1 - kept) * m)[..., partner(r)], None

    rounds = jnp.arange(n)
    _, kept = lax.scan(compare, (a, a0), rounds)
    m, _ = lax.scan(back, m, (kept, rounds), reverse=True)
    return (jnp.moveaxis(m, -1, view.selection.axis),)
