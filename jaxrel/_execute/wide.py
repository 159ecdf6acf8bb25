"""Steps in float32 at least: what rules compute with, whatever the dtype of their step.

A step in 16 bits has two faces. It is *executed* as it is, values and plain VJP bit for bit. A rule
sees it read again: the same operations with float32 wherever there are floats of 16 bits or fewer.
So shares, secants and integrals are computed once in enough digits, and rounded once, when the
multiplier is handed on. Steps that are in 32 or 64 bits anyway have one face.

Calls with a derivative of their own (``custom_jvp``, ``custom_vjp``) keep it: values are those of
their body, the derivative is the declared one, both read in float32. An operation that holds other
programs (a loop, a solver), or means its 16 bits (``bitcast_convert_type``), is executed as it is
on rounded operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._plan.primitives import of
from ..rules.numerics import wide


def is_narrow(value: Any) -> bool:
    """Tells whether something with a dtype is made of floats of fewer than 32 bits."""
    dtype = value if isinstance(value, np.dtype) else getattr(value, "dtype", None)
    floats = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    return floats and jnp.finfo(dtype).bits < 32


def widen(values: Sequence[Any]) -> list[Any]:
    """The values, in float32 those that are narrow."""
    return [wide(v) if is_narrow(v) else v for v in values]


def bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Executes one equation on operands in float32 at least; its results are so too."""
    if not any(is_narrow(atom.aval) for atom in (*eqn.invars, *eqn.outvars)):
        return _compat.bind(eqn, operands)
    operands = widen(operands)
    row = of(eqn.primitive.name)
    if row.own_derivative:
        forwards = eqn.primitive.name == "custom_jvp_call"
        return (_with_own_jvp if forwards else _with_own_vjp)(eqn, operands)
    if row.body:
        return run_call(eqn, operands)
    if any(map(_compat.is_jaxpr, jax.tree.leaves(eqn.params, is_leaf=_compat.is_jaxpr))):
        return _as_it_is(eqn, operands)
    params = {name: _wide_type(value) for name, value in eqn.params.items()}
    results = _compat.bind(eqn.replace(params=params), operands)
    types = [(r.shape, r.dtype) for r in results]
    if types == [(v.aval.shape, _wide_type(v.aval.dtype)) for v in eqn.outvars]:
        return results
    return _as_it_is(eqn, operands)


def run_call(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Executes what a call holds, with the derivative that this has by itself."""
    return run_jaxpr(_compat.call_jaxpr(eqn), operands)


def run_jaxpr(jaxpr: Any, arguments: Sequence[Any], consts: Sequence[Any] = ()) -> list[Any]:
    """Executes a jaxpr on arguments in float32 at least; an open one has its constants beside."""
    inner, own = _compat.open_jaxpr(jaxpr)
    env = dict(zip(inner.constvars, widen([*own, *consts]), strict=True))
    env.update(zip(inner.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, _compat.Literal):
            aval: Any = atom.aval
            (value,) = widen([np.asarray(atom.val, aval.dtype)])
            return value
        return env[atom]

    for eqn in inner.eqns:
        env.update(zip(eqn.outvars, bind(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in inner.outvars]


def _wide_type(value: Any) -> Any:
    """Float32 for a dtype that is narrow; anything else as it is."""
    return np.dtype(np.float32) if isinstance(value, np.dtype) and is_narrow(value) else value


def _as_it_is(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    return widen(_compat.bind(eqn, _rounded(eqn, operands)))


def _rounded(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Operands in the types that an equation was traced for."""
    return _like(operands, [v.aval for v in eqn.invars])


def _like(values: Sequence[Any], avals: Sequence[Any]) -> list[Any]:
    pairs = zip(values, avals, strict=True)
    return [v.astype(aval.dtype) if is_narrow(aval) else v for v, aval in pairs]


def _with_own_jvp(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """A ``custom_jvp`` call, its derivative the one that it declares."""
    floats = _floats(eqn)

    @jax.custom_jvp
    def run(*operands: Any) -> tuple[Any, ...]:
        return tuple(run_jaxpr(_compat.call_jaxpr(eqn), operands))

    def declared(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        f, points = _of_floats(eqn, primals)
        return jax.jvp(f, points, tuple(tangents))

    @run.defjvp
    def _(primals: Sequence[Any], tangents: Sequence[Any]):
        moved = [tangents[k] for k in floats]
        avals = [eqn.invars[k].aval for k in floats]
        traced = jax.make_jaxpr(declared)(_rounded(eqn, primals), _like(moved, avals))
        out = run_jaxpr(traced, [*primals, *moved])
        count = len(eqn.outvars)
        return tuple(out[:count]), tuple(out[count:])

    return list(run(*operands))


def _with_own_vjp(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """A ``custom_vjp`` call, its derivative the one that it declares."""
    floats = _floats(eqn)

    @jax.custom_vjp
    def run(*operands: Any) -> tuple[Any, ...]:
        return tuple(run_jaxpr(_compat.call_jaxpr(eqn), operands))

    def declared(primals: Sequence[Any], m: Any) -> Any:
        f, points = _of_floats(eqn, primals)
        return jax.vjp(f, *points)[1](m)

    def forward(*operands: Any):
        return tuple(run_jaxpr(_compat.call_jaxpr(eqn), operands)), operands

    def backward(operands: Sequence[Any], m: Any):
        cotangents = tuple(_like(m, [v.aval for v in eqn.outvars]))
        traced = jax.make_jaxpr(declared)(_rounded(eqn, operands), cotangents)
        sent = dict(zip(floats, run_jaxpr(traced, [*operands, *m]), strict=True))
        return tuple(sent.get(k) for k in range(len(operands)))

    run.defvjp(forward, backward)
    return list(run(*operands))


def _floats(eqn: Any) -> list[int]:
    """Positions of the operands that a derivative is taken by."""
    return [k for k, v in enumerate(eqn.invars) if jnp.issubdtype(v.aval.dtype, jnp.inexact)]


def _of_floats(eqn: Any, operands: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """An equation as a function of its floating point operands, and these."""
    floats = _floats(eqn)

    def f(*points: Any) -> tuple[Any, ...]:
        replaced = list(operands)
        for k, value in zip(floats, points, strict=True):
            replaced[k] = value
        return tuple(_compat.bind(eqn, replaced))

    return f, tuple(operands[k] for k in floats)
