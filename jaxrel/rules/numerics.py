"""Divisions that stay finite, and the slope of a function between two points.

Zeros, ties and saturation are where backward rules break. Everything that divides in jaxrel does so
here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def wide(x: jax.Array) -> jax.Array:
    """X in float32 at least, the type to add up in; what is no float is left alone."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x


def sign(z: jax.Array) -> jax.Array:
    """sgn+(z): the sign of z with sgn+(0) = +1, in z's dtype; z / |z| for complex z."""
    if jnp.issubdtype(z.dtype, jnp.complexfloating):
        return jnp.where(z == 0, 1, jnp.sign(z))
    return jnp.where(z < 0, -1, 1).astype(z.dtype)


def register(cls: type, leaves: Sequence[str], static: Sequence[str]) -> None:
    """Makes a frozen dataclass a pytree; unchecked, since jax unflattens with placeholders."""

    def flatten(node: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(node, f) for f in leaves), tuple(getattr(node, f) for f in static)

    def flatten_with_keys(node: Any):
        children, structure = flatten(node)
        keys = map(jax.tree_util.GetAttrKey, leaves)
        return tuple(zip(keys, children, strict=True)), structure

    def unflatten(structure: Any, children: Iterable[Any]) -> Any:
        node = object.__new__(cls)
        for name, value in zip((*leaves, *static), (*children, *structure), strict=True):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def check_number(rule: Any, name: str, low: float, why: str) -> None:
    """Refuses a Python number below ``low``; what is traced, or an array, passes.

    Args:
      rule: what has the number as an attribute of this name; its class is named.
      name: of the attribute.
      low: the least that is allowed.
      why: what it is for, and what holds from there on.

    Raises:
      ValueError: it is smaller.
    """
    value = getattr(rule, name)
    if isinstance(value, int | float) and not value >= low:
        raise ValueError(f"{type(rule).__name__}: {name} >= {low:g} is needed, got {value}: {why}.")


def check_type(rule: Any, name: str, default: Any) -> None:
    """Refuses what is no number, where by default there is one; arrays and stabilisers pass.

    Raises:
      TypeError: it is text, nothing, a list; or a part of a number where whole ones count.
    """
    value = getattr(rule, name)
    whole = type(default) is int
    if whole and not hasattr(value, "__index__"):
        raise TypeError(f"{type(rule).__name__}: {name} is a whole number, not {value!r}.")
    number = isinstance(value, int | float | Stabilizer) or hasattr(value, "dtype")
    if isinstance(default, float) and not number:
        raise TypeError(
            f"{type(rule).__name__}: {name} is a number, such as {default:g}, not {value!r} of "
            f"type {type(value).__name__}."
        )


@dataclasses.dataclass(frozen=True)
class Stabilizer:
    """S(z): z moved away from 0, so that something can be divided by it.

    Rules take one wherever they take the number ``eps``, which means ``Stabilizer(eps)``.

    Attributes:
      eps: how far, in units of z (``rms``: of its root mean square).
      mode: ``"add"``: z + eps sgn+(z). ``"clip"``: sgn+(z) max(|z|, eps). ``"rms"``:
        z + eps sgn+(z) sqrt(mean z^2), the mean over all dimensions but the first.

    Raises:
      ValueError: there is no such mode; or eps is a negative number, with which a denominator could
        become 0.
    """

    eps: float | jax.Array = 1e-6
    mode: str = "add"

    def __post_init__(self):
        """Checks the mode, and the type and sign of eps."""
        check_type(self, "eps", 1e-6)
        check_number(self, "eps", 0, NO_POLE)
        if self.mode not in ("add", "clip", "rms"):
            raise ValueError(f"Stabilizer: mode is add, clip or rms, not {self.mode!r}.")

    def __call__(self, z: jax.Array) -> jax.Array:
        """S(z), in z's shape and dtype."""
        eps = jnp.asarray(self.eps).astype(z.dtype)
        if self.mode == "clip":
            return sign(z) * jnp.maximum(jnp.abs(z), eps)
        if self.mode == "rms":
            axes = tuple(range(1, z.ndim)) or None
            eps = eps * jnp.sqrt(jnp.mean(z * z, axes, keepdims=True))
        return z + eps * sign(z)


register(Stabilizer, ["eps"], ["mode"])

NO_POLE = "a stabiliser moves a denominator away from 0"

Eps = float | jax.Array | Stabilizer


def stabilize(z: jax.Array, eps: Eps) -> jax.Array:
    """S(z) for a stabiliser or its eps."""
    return eps(z) if isinstance(eps, Stabilizer) else Stabilizer(eps)(z)


def divide(a: jax.Array, b: jax.Array, otherwise: jax.Array | float = 0.0) -> jax.Array:
    """A / b, and ``otherwise`` where b = 0; derivatives are finite there too."""
    zero = b == 0
    return jnp.where(zero, jnp.asarray(otherwise, a.dtype), a / jnp.where(zero, 1, b))


def finite(x: jax.Array) -> jax.Array:
    """X, and 0 where it is not finite."""
    return jnp.where(jnp.isfinite(x), x, 0)


def far(x: jax.Array) -> jax.Array:
    """X with a large number for infinity: far from all, but it can be squared and divided by.

    A logit masked by -inf at one of two points has a share of what changes that is finite. What is
    no real float is left alone.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    bound = max(float(jnp.finfo(x.dtype).max) ** 0.25, 256)
    return jnp.where(jnp.isinf(x), bound * lax.sign(x), x)


def difference(x: jax.Array, x0: jax.Array) -> jax.Array:
    """X - x0, where infinity is no more than :func:`far`: 0 between two of one sign."""
    return far(x) - far(x0)


def kept_share(z: jax.Array, eps: Eps) -> jax.Array:
    """Z / S(z), the share of relevance that a stabiliser keeps; 1 at z = 0 with eps = 0.

    A z that overflowed counts as the largest number: what comes of it may still be finite (tanh).
    """
    largest = float(jnp.finfo(z.dtype).max)
    if not jnp.iscomplexobj(z):
        z = jnp.clip(z, -largest, largest)
    return divide(z, stabilize(z, eps), otherwise=1.0)


def secant(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, x0: jax.Array, y: jax.Array, y0: jax.Array
) -> jax.Array:
    """(f(x) - f(x0)) / (x - x0), and the mean of f' between the two where they are close.

    The quotient loses digits as x nears x0, its derivative twice as many. There the mean slope is
    the two-point Gauss-Legendre quadrature of f' (exact to fourth order in the distance), so that
    value and derivative of the result are smooth across the switch: both errors stay below 1e-5
    (float32) and 1e-10 (float64), on whatever scale f varies.

    How close is close, f' itself tells: over a smooth stretch its difference between the ends is
    sqrt(3) times that between the nodes, to third order; over a kink it is not, wherever that lies.
    Where the quotient has lost half its digits, a bend as small as f' is rounded is none (f
    saturates); where x0 is 0, or a number of another size, it has not, and the bend is small on the
    scale of f alone. f(x) - f(x0) is asked only whether f jumps: it may have lost its digits within
    f, as in log(1 + exp(x)), whose derivative has not. So (x - x0) secant = y - y0 to rounding for
    all f.

    At a pole of f' (sqrt at 0) the quotient is the slope, and 0 where the two points meet there:
    nothing changed, and there is nothing to hand on.

    Args:
      f: elementwise.
      x, x0: the two points, one shape, in float32 at least.
      y, y0: f(x) and f(x0), or what is to count for them at a pole of f; elsewhere they tell their
        size alone, since at a pole of f' nothing can be differentiated by them.

    Returns:
      The slope, in the shape and dtype of ``x``.
    """
    x, x0 = far(x), far(x0)
    # the ends may be poles of f': nothing is to be differentiated there, nor near them
    (z0, start), (z, end) = (lax.stop_gradient(_tangent(f, lax.stop_gradient(v))) for v in (x0, x))
    tame, unused, low, high = _points(x, x0, start, end)
    rise = difference(_value(f, x, y, z, unused), _value(f, x0, y0, z0, unused))
    slopes = start, end, _tangent(f, low)[1], _tangent(f, high)[1]
    return _mean_slope(x, x0, y, y0, rise, tame, slopes)


_traced_once = functools.partial(jax.jit, inline=True)
"""For what is the same for every f: jax traces it once, and its operations are the caller's."""


@_traced_once
def _points(x: jax.Array, x0: jax.Array, start: jax.Array, end: jax.Array) -> tuple[jax.Array, ...]:
    """Where f' is finite at both ends; where f is not needed; and the two nodes between."""
    tame = jnp.isfinite(start) & jnp.isfinite(end)
    middle, arm = x / 2 + x0 / 2, (x - x0) / (2 * 3**0.5)
    low, high = (jnp.where(tame, v, _ORDINARY) for v in (middle - arm, middle + arm))
    return tame, (x - x0 == 0) & ~tame, low, high


@_traced_once
def _mean_slope(
    x: jax.Array,
    x0: jax.Array,
    y: jax.Array,
    y0: jax.Array,
    rise: jax.Array,
    tame: jax.Array,
    slopes: tuple[jax.Array, ...],
) -> jax.Array:
    """What :func:`secant` returns, of the slopes at x0, at x and at the two nodes."""
    start, end, low, high = slopes
    distance = x - x0
    eps = float(jnp.finfo(x.dtype).eps)
    # where a quotient is not used its operands must still be harmless: 0 / 1
    still = distance == 0
    mean = jnp.where(tame, low / 2 + high / 2, 0)
    size = jnp.abs(low) + jnp.abs(high) + jnp.abs(start) + jnp.abs(end)
    length, of_x, of_y = jnp.abs(distance), jnp.abs(x) + jnp.abs(x0), jnp.abs(y) + jnp.abs(y0)
    bend = jnp.abs((end - start) - 3**0.5 * (high - low))
    close = length < eps ** (1 / 3) * of_x
    steepness = jnp.where(close, 1, jnp.minimum(divide(of_y, of_x, otherwise=1), 1))
    lost = jnp.where(length < eps ** (1 / 3) * (1 + of_x), 64 * eps * steepness, 0)
    straight = tame & (bend <= eps**0.55 * size + lost)
    unit = jnp.where(close, 1, jnp.minimum(size / 4, 1))
    agrees = jnp.abs(mean * distance - rise) <= 32 * eps * (unit * (1 + of_x) + of_y)
    near = length < (1 + of_x) / 4
    smooth = still | (near & straight & agrees)
    steep = _quotient(jnp.where(smooth, 0, rise), jnp.where(smooth, 1, distance))
    return jnp.where(smooth, mean, steep)


def _value(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array, z: jax.Array, unused: jax.Array
) -> jax.Array:
    """f(x), and y at a pole of f, where z = f(x) is infinite.

    It can be differentiated where it is not ``unused``.
    """
    pole = ~jnp.isfinite(z)
    return jnp.where(pole, lax.stop_gradient(y), f(jnp.where(unused | pole, _ORDINARY, x)))


_ORDINARY = 0.5
"""A point where elementwise functions are not at a pole, for what is not used to be finite."""


def factor(g: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """G(x), the slope x g(x) / x; 0 where x is 0 and a pole of g (log, in x log x).

    ``x`` goes through a barrier: XLA would otherwise keep g from the forward pass beside x, where x
    is all that is needed.
    """
    pole = (x == 0) & ~jnp.isfinite(lax.stop_gradient(g(jnp.zeros_like(x))))
    return jnp.where(pole, 0, g(jnp.where(pole, _ORDINARY, lax.optimization_barrier(x))))


def homogeneous_secant(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, x0: jax.Array, y: jax.Array, y0: jax.Array
) -> jax.Array:
    """:func:`secant` for f(c x) = c f(x), c > 0 (relu, abs): no digits are lost anywhere.

    Between two values of one sign f is linear; between two of different signs, y - y0 and x - x0
    are sums without cancellation.

    Args:
      f, x, x0, y, y0: as for :func:`secant`.
    """
    if jnp.issubdtype(x.dtype, jnp.complexfloating):  # abs, which is no line between any two
        return secant(f, x, x0, y, y0)
    apart = (x > 0) != (x0 > 0)
    steep = _quotient(jnp.where(apart, y - y0, 0), jnp.where(apart, x - x0, 1))
    return jnp.where(apart, steep, _tangent(f, x / 2 + x0 / 2)[1])


@jax.custom_jvp
def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """A / b, b not 0; its derivative is finite where 1 / b^2 is not."""
    return a / b


@_quotient.defjvp
def _quotient_jvp(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]):
    (a, b), (da, db) = primals, tangents
    q = _quotient(a, b)
    return q, (da - q * db) / b


def _tangent(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f(x) and f'(x); by vjp, since a user's custom_vjp function has no jvp."""
    y, pullback = jax.vjp(f, x)
    return y, pullback(jnp.ones_like(y))[0]
