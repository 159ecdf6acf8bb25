"""Around a relevance function: integrated along a path, smoothed, expected over baselines.

A relevance function has the signature of ``fun`` and returns the relevance of its arguments, as
:func:`jaxrel.relevance` makes them. The functions here take one and return another:

    integrated(R, x0)       (x - x0) * integral over t in [0, 1] of m(x0 + t (x - x0))
    smooth(R, key, s, n)    mean of R(x + s * noise)
    expected(R, baselines)  mean over baselines of integrated(R, x0)

The integral needs the multiplier m = R / x, and needs it where x is 0. So nothing is divided: what
``relevance`` returns carries its multipliers with it, as the attribute ``multipliers``.

    explain = jaxrel.integrated(jaxrel.relevance(fun, "gradient"), 0.0)
    explain(x).sum()    # fun(x) - fun(0), to the accuracy of the integral

All of them sum over points (of a path, of the noise, baselines), ``chunk`` of them at once. Memory
is that of ``chunk`` relevances, whatever the number of points; under differentiation too. Sums are
made in float32 at least.

Sharp edges. What is explained at a point is the sum of all outputs, so the examples of a batch
share one t or one baseline at a time, but each has its own noise. ``jax.jit`` may stand inside or
outside; ``jax.vmap`` goes outside of ``integrated``, whose path it would not know about.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._call.arguments import Arguments, check_function
from ._call.averages import count, mean, quadrature, total, wide
from ._call.baseline import read_baseline
from ._call.like import leaves_like
from ._call.multipliers import Multipliers, argnums_of, multipliers_of


def integrated(
    relevance_fn: Callable[..., Any],
    baseline: Any,
    steps: int = 50,
    method: str = "gauss_legendre",
    *,
    chunk: int = 1,
) -> Callable[..., Any]:
    """Integrates multipliers along the straight path from a baseline to the input.

    R = (x - x0) * integral over t in [0, 1] of m(x0 + t (x - x0)) dt

    With the rule set ``"gradient"`` these are integrated gradients (Sundararajan, Taly, Yan 2017),
    and the relevances add up to fun(x) - fun(x0) as ``steps`` grows. Of any other rule set it is
    the same mean of its multipliers.

    Args:
      relevance_fn: what :func:`jaxrel.relevance` returned, jitted or not.
      baseline: x0, one reference as for :func:`jaxrel.relevance`: a tree like the explained
        argument (a tuple for a sequence of ``argnums``) or a prefix of it, of arrays that broadcast
        to its leaves, such as 0.0, or a function of the arguments that returns one.
      steps: number of points of the path.
      method: ``"gauss_legendre"``, by far the best where multipliers are smooth; or an equidistant
        sum: ``"left"``, ``"right"`` (Zennit), ``"middle"``, ``"trapezoid"``. Weights add up to 1,
        those of the trapezoid too (Captum's add up to (steps - 1) / steps).
      chunk: how many points are computed at once.

    Returns:
      A function with the signature of ``relevance_fn``, whose result has the tree, shapes and
      dtypes of the explained argument, in units of the explained value.

    Raises:
      TypeError: ``relevance_fn`` carries no multipliers, or its relevance is no multiple of x: it
        compares to a baseline of its own, or the first layer has a rule such as ``Flat``; the
        baseline is another tree, or not real.
      ValueError: ``steps`` or ``chunk`` is too small, there is no such method, shapes of the
        baseline do not fit.

    Example:
      >>> import jax.numpy as jnp, jaxrel
      >>> explain = integrated(jaxrel.relevance(lambda x: x[0] * x[1], "gradient"), 0.0, steps=4)
      >>> explain(jnp.array([2.0, 3.0]))
      Array([3., 3.], dtype=float32)
    """
    check_function("integrated", relevance_fn)
    multipliers = multipliers_of(relevance_fn)
    if multipliers is None:
        raise TypeError(
            f"integrated: {_name(relevance_fn)} carries no multipliers R / x to integrate. Give "
            "what jaxrel.relevance returned (jax.vmap goes around integrated, not inside), or "
            "attach multipliers of your own by jaxrel.with_multipliers."
        )
    _check_multiples("integrated", multipliers)
    nodes, weights = quadrature("integrated", steps, method)
    chunk = count("integrated", chunk=chunk)

    @functools.wraps(relevance_fn, updated=())
    def integrated_fun(*args: Any, **kwargs: Any) -> Any:
        call = _call(multipliers, multipliers.argnums, args, kwargs)
        origin = read_baseline(call, baseline)
        if origin.many is not None:
            raise ValueError(
                f"integrated: got {origin.many} baselines; jaxrel.expected averages over many."
            )

        start = origin.at(0)

        def point(k: jax.Array) -> tuple[list[Any], Any, Any]:
            return start, jnp.asarray(nodes)[k], jnp.asarray(weights)[k]

        return _contributions("integrated", call, point, steps, chunk)

    return integrated_fun


def smooth(
    relevance_fn: Callable[..., Any],
    key: jax.Array,
    sigma: Any,
    n: int = 50,
    *,
    relative: bool | int | Sequence[int] = False,
    noise: Callable[..., jax.Array] = jax.random.normal,
    argnums: int | Sequence[int] | None = None,
    chunk: int = 1,
) -> Callable[..., Any]:
    """Averages relevance over inputs with noise (SmoothGrad, Smilkov et al. 2017).

    R = 1/n sum over k of relevance_fn(x + sigma * noise_k)

    The relevances of rules that conserve add up to the mean of fun over the noise. To average the
    multipliers instead, as SmoothGrad does with the gradient, smooth
    ``relevance(fun, rules).multipliers``; any function of arrays will do, ``jax.grad(fun)`` too.

    Args:
      relevance_fn: a function whose results are trees of floats.
      key: a key of ``jax.random``. The same key gives the same noise at every call.
      sigma: standard deviation of the noise: a number; or an array for each leaf, which broadcasts
        to it (one sigma for each example: shape (batch, 1, 1, 1)), in a tree like the arguments
        with noise or a prefix of it.
      n: number of noisy inputs.
      relative: False: sigma is in units of x. True: in units of max(x) - min(x) of each leaf, for
        which Smilkov et al. recommend 0.1 to 0.2. An axis or several: of the range over these axes
        of the leaves (for a batch of images ``(1, 2, 3)``).
      noise: ``noise(key, shape, dtype)`` draws noise with a standard deviation of 1.
      argnums: which arguments get noise; None: those that ``relevance_fn`` explains, or else the
        first.
      chunk: how many noisy inputs are computed at once.

    Returns:
      A function with the signature and the results of ``relevance_fn``.

    Raises:
      TypeError: ``key`` is no key; arguments with noise or results are not floats; sigma is
        another tree.
      ValueError: ``n`` or ``chunk`` is below 1; shapes of sigma do not fit.
    """
    check_function("smooth", relevance_fn)
    check_function("smooth: noise", noise)
    key = _one_key("smooth", key)
    n, chunk = count("smooth", n=n), count("smooth", chunk=chunk)
    varied = argnums_of(relevance_fn) if argnums is None else argnums

    @functools.wraps(relevance_fn, updated=())
    def smooth_fun(*args: Any, **kwargs: Any) -> Any:
        call = _call(relevance_fn, varied, args, kwargs)
        scales = leaves_like(call, sigma, "smooth: sigma")
        if isinstance(sigma, int | float) and not sigma >= 0:
            raise ValueError(f"smooth: sigma >= 0 is needed, a standard deviation; got {sigma}.")
        if relative is not False:
            axes = None if relative is True else relative
            pairs = zip(scales, call.leaves, strict=True)
            scales = [scale * _range(x, axes) for scale, x in pairs]
        pairs = zip(scales, call.leaves, strict=True)
        scales = [jnp.broadcast_to(scale, x.shape) for scale, x in pairs]

        def at(k: jax.Array) -> Any:
            keys = jax.random.split(jax.random.fold_in(key, k), len(call.leaves))
            noisy = [
                (x + scale * noise(one, x.shape, wide(x))).astype(x.dtype)
                for x, scale, one in zip(call.leaves, scales, keys, strict=True)
            ]
            return call(noisy)

        return mean("smooth", at, n, chunk)

    return smooth_fun


def expected(
    relevance_fn: Callable[..., Any],
    baselines: Any,
    key: jax.Array | None = None,
    n: int = 200,
    *,
    steps: int = 50,
    method: str = "gauss_legendre",
    argnums: int | Sequence[int] = 0,
    chunk: int = 1,
) -> Callable[..., Any]:
    """Averages relevance over many baselines.

    Of the multipliers of a relevance function, this is the mean over baselines x0 of
    :func:`integrated`: Expected Gradients (Erion et al. 2021) for the rule set ``"gradient"``. The
    relevances add up to fun(x) minus the mean of fun over the baselines.

    * Without a key, every baseline is integrated with ``steps`` points.
    * With a key, the mean is estimated from ``n`` draws of a baseline and of a t uniform in
      [0, 1], which costs n relevances for any number of baselines.

    For rules that compare to a baseline themselves, give a function of one baseline that returns a
    relevance function, and the mean is over its relevances, as in DeepSHAP (Lundberg, Lee 2017):

        expected(lambda x0: relevance(fun, "deeplift_rescale", baseline=x0), background)

    Args:
      relevance_fn: what :func:`jaxrel.relevance` returned, jitted or not; or a function of one
        baseline that returns a function of the arguments, whose results are trees of floats.
      baselines: a tree like the explained argument (a tuple for a sequence of ``argnums``) or a
        prefix of it, of arrays with the axis of the baselines in front. The other axes broadcast
        to x: baselines (50, 28, 28) for images (8, 28, 28). Or a function of the arguments that
        returns one. They are never paired with examples: 8 baselines for 8 images are 8 for each,
        where ``relevance(..., baseline=)`` would take one for each.
      key: a key of ``jax.random``, or None: all baselines.
      n: number of draws, with a key.
      steps, method: of the integral, as for :func:`integrated`, without a key.
      argnums: which arguments have baselines, if ``relevance_fn`` is a function of a baseline.
      chunk: how many points are computed at once.

    Returns:
      A function with the signature of the relevance function and its results.

    Raises:
      TypeError: ``key`` is no key; ``relevance_fn`` is neither, or its relevance is no multiple of
        x; baselines are another tree, or not real.
      ValueError: ``n``, ``steps`` or ``chunk`` is too small, no such method; shapes of the
        baselines do not fit, or their leaves have different numbers of baselines.
    """
    check_function("expected", relevance_fn)
    key = None if key is None else _one_key("expected", key)
    n, chunk = count("expected", n=n), count("expected", chunk=chunk)
    nodes, weights = quadrature("expected", steps, method)
    multipliers = multipliers_of(relevance_fn)
    if multipliers is None:
        varied = argnums
        nodes, weights = np.zeros(1), np.ones(1)
    else:
        varied = multipliers.argnums
        _check_multiples("expected", multipliers)

    @functools.wraps(relevance_fn, updated=())
    def expected_fun(*args: Any, **kwargs: Any) -> Any:
        call = _call(multipliers or relevance_fn, varied, args, kwargs)
        found = leaves_like(call, baselines, "expected: baselines", leading=True)
        many = len(found[0]) if found else 1
        if key is None:
            points, draw = many * len(nodes), _in_order(nodes, weights / many)
        else:
            points, draw = n, _at_random(key, many, n)

        def against_one(k: jax.Array) -> Any:
            j, _, _ = draw(k)
            one = [
                jnp.broadcast_to(leaf[j], x.shape).astype(x.dtype)
                for leaf, x in zip(found, call.leaves, strict=True)
            ]
            # of x alone as little is kept from one baseline to the next as of both
            leaves, one = lax.optimization_barrier((call.leaves, one))
            explain = _given(relevance_fn, call.select(call.restore(one)))
            return Arguments(explain, args, kwargs, call.argnums)(leaves)

        def point(k: jax.Array) -> tuple[list[Any], Any, Any]:
            j, t, weight = draw(k)
            return [leaf[j] for leaf in found], t, weight

        if multipliers is None:
            return mean("expected", against_one, points, chunk)
        return _contributions("expected", call, point, points, chunk)

    return expected_fun


# ------------------------------------------------------------------------------------------ points

Draw = Callable[[jax.Array], tuple[Any, Any, Any]]
"""From k to a baseline, or its number; t; and weight."""


def _in_order(nodes: np.ndarray, weights: np.ndarray) -> Draw:
    """All points of the path from the first baseline, then all from the second ..."""

    def draw(k: jax.Array) -> tuple[Any, Any, Any]:
        step = k % len(nodes)
        return k // len(nodes), jnp.asarray(nodes)[step], jnp.asarray(weights)[step]

    return draw


def _at_random(key: jax.Array, many: int, n: int) -> Draw:
    def draw(k: jax.Array) -> tuple[Any, Any, Any]:
        index, time = jax.random.split(jax.random.fold_in(key, k))
        return jax.random.randint(index, (), 0, many), jax.random.uniform(time), 1 / n

    return draw


def _given(relevance_fn: Callable[..., Any], baseline: Any) -> Callable[..., Any]:
    """The relevance function that a function of a baseline returns."""
    found = relevance_fn(baseline)
    if callable(found):
        return found
    raise TypeError(
        f"expected: {_name(relevance_fn)} carries no multipliers, as what jaxrel.relevance returns "
        "does, so it must be a function of one baseline that returns a relevance function; it "
        f"returned {'an array' if hasattr(found, 'shape') else type(found).__name__}."
    )


def _contributions(name: str, call: Arguments, draw: Draw, points: int, chunk: int) -> Any:
    """Sums w (x - x0) m(x0 + t (x - x0)) over points k, where ``draw(k)`` is (x0, t, w)."""

    def at(k: jax.Array) -> list[Any]:
        origin, t, weight = draw(k)
        pairs = zip(origin, call.leaves, strict=True)
        origin = [jnp.broadcast_to(x0, x.shape) for x0, x in pairs]
        pairs = zip(call.leaves, origin, strict=True)
        differences = [x.astype(wide(x)) - x0 for x, x0 in pairs]
        pairs = zip(origin, differences, call.leaves, strict=True)
        there = [(x0 + _to(d, t) * d).astype(x.dtype) for x0, d, x in pairs]
        m = call(there)
        tree = jax.tree.structure(call.select(call.restore(there)))
        if jax.tree.structure(m) != tree:
            raise TypeError(
                f"{_name(call.fun)}: multipliers must have the tree of what is explained, {tree}; "
                f"got {jax.tree.structure(m)}. Auxiliary values (has_aux=True) have no integral."
            )
        pairs = zip(differences, jax.tree.leaves(m), strict=True)
        return [_to(d, weight) * d * m for d, m in pairs]

    sums = total(name, at, points, chunk)
    results = [s.astype(x.dtype) for s, x in zip(sums, call.leaves, strict=True)]
    return call.select(call.restore(results))


def _call(fun: Callable[..., Any], argnums: Any, args: tuple, kwargs: dict) -> Arguments:
    call = Arguments(fun, args, kwargs, argnums)
    call.check()
    return call


def _check_multiples(name: str, multipliers: Multipliers) -> None:
    """Checks that R = x m: what an integral of m is about."""
    if multipliers.compared:
        raise TypeError(
            f"{name}: {multipliers.__name__} compares to a baseline of its own, so its relevance "
            "is no multiple of x. For the mean over many baselines give jaxrel.expected a function "
            "of one: lambda x0: jaxrel.relevance(fun, rules, baseline=x0)."
        )


def _name(fun: Any) -> str:
    return getattr(fun, "__name__", type(fun).__name__)


def _one_key(name: str, key: Any) -> jax.Array:
    """Checks a key of ``jax.random``, of the old kind (two integers, say) or the new."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        got = type(key).__name__ if dtype is None else f"an array of {dtype}"
        raise TypeError(f"{name}: key must be a key such as jax.random.key(0), got {got}.")
    if key.ndim != (0 if typed else 1):
        raise TypeError(
            f"{name}: key must be a single key, got an array of shape {key.shape}; "
            f"use jax.vmap for several."
        )
    return key


def _to(x: jax.Array, number: Any) -> jax.Array:
    """A number in the dtype of x."""
    return jnp.asarray(number).astype(x.dtype)


def _range(x: jax.Array, axes: Any) -> jax.Array:
    try:
        return jnp.ptp(x.astype(wide(x)), axes, keepdims=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"smooth: relative={axes!r} are no axes: {error}.") from None
