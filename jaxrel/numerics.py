"""Divisions that stay finite, and the slope of a function between two points.

Zeros, ties and saturation are where backward rules break. Everything that divides in jaxrel does so
here.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def sign(z: jax.Array) -> jax.Array:
    """sgn+(z): the sign of z with sgn+(0) = +1, in z's dtype."""
    return jnp.where(z < 0, -1, 1).astype(z.dtype)


def stabilize(z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """S(z) = z + eps sgn+(z): moved away from 0, in z's dtype."""
    return z + jnp.asarray(eps).astype(z.dtype) * sign(z)


def divide(a: jax.Array, b: jax.Array, otherwise: jax.Array | float = 0.0) -> jax.Array:
    """A / b, and ``otherwise`` where b = 0; derivatives are finite there too."""
    zero = b == 0
    return jnp.where(zero, jnp.asarray(otherwise, a.dtype), a / jnp.where(zero, 1, b))


def kept_share(z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Z / S(z), the share of relevance that a stabiliser keeps; 1 at z = 0 with eps = 0."""
    return divide(z, stabilize(z, eps), otherwise=1.0)


def secant(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, x0: jax.Array, y: jax.Array, y0: jax.Array
) -> jax.Array:
    """(f(x) - f(x0)) / (x - x0), and the mean of f' between the two where they are close.

    The quotient loses digits as x nears x0, its derivative twice as many. There the mean slope is
    the two-point Gauss-Legendre quadrature of f' (exact to fourth order in the distance), so that
    value and derivative of the result are smooth across the switch: both errors stay below 1e-6
    (float32) and 1e-11 (float64) for functions that vary on the scale of 1.

    Args:
      f: elementwise.
      x, x0: the two points, one shape.
      y, y0: f(x) and f(x0).

    Returns:
      The slope, in the shape and dtype of ``x``.
    """
    distance = x - x0
    near = jnp.abs(distance) < _near(x.dtype)
    # where a quotient is not used its operands must still be harmless: 0 / 1
    steep = jnp.where(near, 0, y - y0) / jnp.where(near, 1, distance)
    middle, arm = (x + x0) / 2, distance / (2 * 3**0.5)
    return jnp.where(near, (_slope(f, middle - arm) + _slope(f, middle + arm)) / 2, steep)


def _slope(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """f'(x); by vjp, since a user's custom_vjp function has no jvp."""
    y, pullback = jax.vjp(f, x)
    return pullback(jnp.ones_like(y))[0]


def _near(dtype: jnp.dtype) -> float:
    """Where cancellation (eps / d^2 in the derivative) meets the truncation (d^4 / 4320)."""
    return float(jnp.finfo(dtype).eps) ** (1 / 6) / 2
