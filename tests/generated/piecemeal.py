"""A function executed operation by operation, each compiled once for all programs.

Programs run once, and compiling one takes longer than all else about it. Traced as a whole and
executed by the operation, calls entered and loops unrolled, it compiles only what no program
before it had. What computes nothing and only moves values is done by numpy, without compiling.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxrel import _compat

_BODIES = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Calls whose body is their value, and the parameter that holds it."""

_MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": lambda x, *, shape, broadcast_dimensions, **_: np.broadcast_to(
        np.expand_dims(x, [k for k in range(len(shape)) if k not in broadcast_dimensions]), shape
    ),
    "concatenate": lambda *xs, dimension, **_: np.concatenate(xs, dimension),
    "reshape": lambda x, *, new_sizes, dimensions, **_: np.reshape(
        x if dimensions is None else np.transpose(x, dimensions), new_sizes
    ),
    "layout_constraint": lambda x, **_: x,
    "rev": lambda x, *, dimensions, **_: np.flip(x, dimensions),
    "slice": lambda x, *, start_indices, limit_indices, strides: x[
        tuple(map(slice, start_indices, limit_indices, strides or [1] * x.ndim))
    ],
    "squeeze": lambda x, *, dimensions: np.squeeze(x, dimensions),
    "stop_gradient": lambda x, **_: x,
    "transpose": lambda x, *, permutation: np.transpose(x, permutation),
}
"""What only moves values, by numpy."""


def piecemeal(fun: Callable) -> Callable:
    """`fun`, executed operation by operation."""

    def run(*args: Any) -> Any:
        jaxpr, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
        leaves = map(jnp.asarray, _run(jaxpr, jax.tree.leaves(args)))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return run


def _run(jaxpr: Any, operands: Sequence[Any]) -> list[Any]:
    inner, constants = _compat.open_jaxpr(jaxpr)
    env = dict(zip((*inner.constvars, *inner.invars), (*constants, *operands), strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            aval: Any = atom.aval
            return np.asarray(atom.val, aval.dtype)
        return env[atom]

    for eqn in inner.eqns:
        results = _execute(eqn, list(map(read, eqn.invars)))
        env.update(zip(eqn.outvars, results, strict=True))
    return list(map(read, inner.outvars))


def _execute(eqn: Any, operands: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in _BODIES:
        return _run(params[_BODIES[name]], operands)
    if name == "cond":
        branches = params["branches"]
        return _run(branches[min(max(int(operands[0]), 0), len(branches) - 1)], operands[1:])
    if name == "scan" and params["length"]:
        return _scan(params, operands)
    if name in _MOVES:
        return [_MOVES[name](*map(np.asarray, operands), **params)]
    if name == "select_n" and len(operands) == 3:
        which, no, yes = map(np.asarray, operands)
        return [np.where(which, yes, no)]
    if name == "pad" and min(min(edges) for edges in params["padding_config"]) >= 0:
        x, filling = map(np.asarray, operands)
        return [_pad(x, filling, params["padding_config"])]
    return _compat.bind(eqn, operands)


def _pad(x: Any, filling: Any, edges: Sequence[tuple[int, int, int]]) -> Any:
    shape, places = [], []
    for size, (low, high, inner) in zip(x.shape, edges, strict=True):
        spread = size + max(size - 1, 0) * inner
        shape.append(low + spread + high)
        places.append(slice(low, low + spread, inner + 1))
    out = np.full(shape, filling, x.dtype)
    out[tuple(places)] = x
    return out


def _scan(params: dict[str, Any], operands: list[Any]) -> list[Any]:
    constants, carries = _compat.scan_arity(params)
    before, carry = operands[:constants], operands[constants : constants + carries]
    order = list(range(params["length"]))[:: -1 if params["reverse"] else 1]
    rows: list[Any] = [None] * len(order)
    for k in order:
        here = [x[k] for x in operands[constants + carries :]]
        out = _run(params["jaxpr"], [*before, *carry, *here])
        carry, rows[k] = out[:carries], out[carries:]
    return [*carry, *map(jnp.stack, zip(*rows, strict=True))]
