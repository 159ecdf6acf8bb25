"""Solutions of linear systems: A y = b taken apart into A and b.

``triangular_solve``, ``tridiagonal_solve`` and ``custom_linear_solve`` (behind
``jnp.linalg.solve``, ``inv``, ``cg``) are linear in b and a quotient in A. A rule needs two things
that their VJP alone does not give: the transposed solution of any right-hand side, and A applied to
the solution of another A.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._plan.kinds import solve_operands
from .._plan.steps import Step
from .wide import run_jaxpr


@dataclasses.dataclass(frozen=True)
class System:
    """A y = b at some values; see :class:`jaxrel.rules.view.System`."""

    matrix: tuple[int, ...]
    rhs: tuple[tuple[int, int], ...]
    solution: list[jax.Array]
    back: Callable[[Any], list[jax.Array]]
    apply: Callable[[Sequence[jax.Array], Sequence[jax.Array]], list[jax.Array]]


def take_system(
    step: Step, values: Sequence[Any], results: Sequence[Any], run: Callable[..., list[Any]]
) -> System:
    """Takes a step of the variant ``solve`` apart.

    Args:
      step: its only node is one of the three primitives.
      values: of its operands.
      results: its values.
      run: the step as a function of its operands' values.
    """
    eqn = step.nodes[0].eqn
    matrix, rhs = solve_operands(eqn)
    at = {position: k for k, position in enumerate(step.live)}

    def solve(*b: jax.Array) -> Any:
        out = run(step, [*values[: rhs[0]], *b])
        return out[0] if len(out) == 1 else tuple(out)

    def back(m: Any) -> list[jax.Array]:
        return list(jax.vjp(solve, *(values[k] for k in rhs))[1](m))

    def apply(live: Sequence[jax.Array], y: Sequence[jax.Array]) -> list[jax.Array]:
        coefficients = [values[k] for k in matrix]
        for k, value in zip((k for k in matrix if k in at), live, strict=True):
            coefficients[matrix.index(k)] = value
        return _APPLY[eqn.primitive.name](eqn.params, coefficients, list(y))

    return System(
        matrix=tuple(at[k] for k in matrix if k in at),
        rhs=tuple((at[k], leaf) for leaf, k in enumerate(rhs) if k in at),
        solution=list(results[: len(rhs)]),
        back=back,
        apply=apply,
    )


def _triangular(params: dict[str, Any], coefficients: list[Any], y: list[Any]) -> list[Any]:
    (a,) = coefficients
    a = jnp.tril(a) if params["lower"] else jnp.triu(a)
    if params["unit_diagonal"]:
        one = jnp.eye(a.shape[-1], dtype=a.dtype)
        a = a * (1 - one) + one
    if params["transpose_a"]:
        a = jnp.matrix_transpose(a)
    if params["conjugate_a"]:
        a = a.conj()
    return [a @ y[0] if params["left_side"] else y[0] @ a]


def _tridiagonal(params: dict[str, Any], coefficients: list[Any], y: list[Any]) -> list[Any]:
    del params
    lower, diagonal, upper = (c[..., None] for c in coefficients)
    z = diagonal * y[0]
    z = z.at[..., 1:, :].add(lower[..., 1:, :] * y[0][..., :-1, :])
    return [z.at[..., :-1, :].add(upper[..., :-1, :] * y[0][..., 1:, :])]


def _custom(params: dict[str, Any], coefficients: list[Any], y: list[Any]) -> list[Any]:
    return run_jaxpr(params["jaxprs"].matvec, [*coefficients, *y])


_APPLY = {
    "triangular_solve": _triangular,
    "tridiagonal_solve": _tridiagonal,
    "custom_linear_solve": _custom,
}
