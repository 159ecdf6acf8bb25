"""Executes and makes equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import core as jax_core
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jax.experimental.layout import Layout, with_layout_constraint

from .jaxprs import Jaxpr, JaxprEqn, Var, is_jaxpr, open_jaxpr
from .meshes import axes_of, vary, varying, zeros


def bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Executes one equation on other operands, in its own context, and returns all results."""
    primitive = eqn.primitive
    if primitive.name == "pvary":
        return [vary(operands[0], frozenset(eqn.params["axes"]) - varying(operands[0]))]
    operands = _varying_together(eqn, operands)
    with eqn.ctx.manager:
        out = primitive.bind(*operands, **primitive.get_bind_params(eqn.params))
    return list(out) if primitive.multiple_results else [out]


def by_rows(values: Sequence[Any]) -> list[Any]:
    """The same values, in the memory of a CPU by rows.

    XLA lets the operands of an operation have the layout that its neighbours want, columns where
    they are LAPACK's, and its fft for CPUs then refuses them.
    """
    if jax.default_backend() != "cpu":
        return list(values)
    layouts = [Layout(major_to_minor=tuple(range(np.ndim(x)))) for x in values]
    return list(map(with_layout_constraint, values, layouts))


def _varying_together(eqn: JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Operands that vary over the mesh axes within ``shard_map`` that the equation's own did.

    Others in their places (zeros, ones, bounds of a rule) need not, and jax lets no two mix: each
    varies over what any other does, but for those of calls, and of sums over the mesh itself.
    """
    axes = [axes_of(atom.aval) for atom in eqn.invars]
    if not _is_call(eqn) and not _names_axes(eqn):
        axes = [frozenset[str]().union(*axes, *map(varying, operands))] * len(operands)
    if not any(axes):
        return operands
    return [vary(x, over - varying(x)) for x, over in zip(operands, axes, strict=True)]


def _is_call(eqn: JaxprEqn) -> bool:
    return any(map(is_jaxpr, jax.tree.leaves(eqn.params, is_leaf=is_jaxpr)))


def _names_axes(eqn: JaxprEqn) -> bool:
    axes = eqn.params.get("axis_name", eqn.params.get("axes", ()))
    return any(isinstance(name, str) for name in jax.tree.leaves(axes))


def has_derivative(eqn: JaxprEqn) -> bool:
    """Tells whether an equation can be differentiated, by trying: a call may refuse."""
    aval: list[Any] = [atom.aval for atom in eqn.invars]
    floats = [k for k, a in enumerate(aval) if jax.numpy.issubdtype(a.dtype, jax.numpy.inexact)]

    def derivative(*operands: Any) -> Any:
        def run(*live: Any) -> Any:
            replaced = dict(zip(floats, live, strict=True))
            return bind(eqn, [replaced.get(k, v) for k, v in enumerate(operands)])

        out, pullback = jax.vjp(run, *(operands[k] for k in floats))
        return pullback([zeros(jax.typeof(z)) for z in out])

    try:
        jax.eval_shape(derivative, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in aval))
    except Exception:  # whatever its author raises
        return False
    return True


def instantiate(cotangent: Any) -> Any:
    """Returns a symbolic zero as an array of zeros, anything else as it is."""
    if isinstance(cotangent, SymbolicZero):
        aval: Any = cotangent.aval
        if aval.dtype == jax.dtypes.float0:
            return np.zeros(aval.shape, aval.dtype)
        return zeros(aval)
    return cotangent


def run_jaxpr(jaxpr: Jaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Executes a jaxpr as it is."""
    inner, consts = open_jaxpr(jaxpr)
    return jax_core.eval_jaxpr(inner, consts, *arguments)


def type_of(fun: Any, *operands: Any) -> Any:
    """Returns the abstract value of ``fun(*operands)``, mesh axes over which it varies included."""
    return open_jaxpr(jax.make_jaxpr(fun)(*operands))[0].outvars[0].aval


def trace_on(fun: Any, avals: Sequence[Any]) -> Jaxpr:
    """Traces ``fun`` to a jaxpr on values of these shapes and dtypes.

    Which mesh axes they vary over within ``shard_map`` shows when an equation is bound.
    """
    shapes = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False))
        for a in avals
    ]
    return jax.make_jaxpr(fun)(*shapes)


def named_identity(aval: Any, name: str) -> JaxprEqn:
    """Returns an equation that gives what it reads, a value of this type, by a name."""
    jaxpr = jax.make_jaxpr(lambda x: checkpoint_name(x, name))(np.float32(0))
    (eqn,) = jaxpr.jaxpr.eqns
    return eqn.replace(invars=[Var(aval)], outvars=[Var(aval)])
