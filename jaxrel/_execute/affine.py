"""W and b of an affine step, for rules that change them.

The step is a matmul and a chain of constant operations. Its scales (BatchNorm, query scaling) are
folded into the weights, its additive constants are b, and what is left of it, transposes and casts,
carries on:

    z = S(x @ (W c)) + b
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.affine import is_arithmetic
from .._plan.facts import is_contractionless
from .._plan.graph import Node
from .._plan.primitives import ALL, of
from .._plan.steps import Step
from ..rules.numerics import wide
from .contraction import one_example, stacked
from .wide import bind


@dataclasses.dataclass(frozen=True)
class Affine:
    """An affine step taken apart: z = linear(x, weight) + bias.

    Attributes:
      linear: (x, weight) -> z without bias, of z's shape; linear in each.
      weight: effective weights, scales folded in, in the shape of the matmul's own operand.
      bias: effective bias in z's shape; None where nothing is added.
      of_ones: weight -> linear(1, weight), the sums of the weights that each output reads.
      stacked: (xs, weights) -> sum_r linear(x_r, weight_r), by one contraction; None where it
        takes one for each.
    """

    linear: Callable[[jax.Array, jax.Array], jax.Array]
    weight: jax.Array
    bias: jax.Array | None
    of_ones: Callable[[jax.Array], jax.Array]
    stacked: Callable[[jax.Array, jax.Array], jax.Array] | None

    def sums(self, xs: Sequence[jax.Array], weights: Sequence[Sequence[jax.Array]]) -> list:
        """The sums z_k = sum_r linear(x_r, W_rk), by one contraction where there is one.

        Args:
          xs: of x's shape.
          weights: a row for each of ``xs``, an entry for each result.
        """
        columns = list(zip(*weights, strict=True))
        if self.stacked is None:
            pairs = [zip(xs, column, strict=True) for column in columns]
            return [sum(self.linear(x, w) for x, w in column) for column in pairs]
        if len(xs) == 1:
            found = jax.vmap(self.linear, (None, 0))(xs[0], jnp.stack([w for (w,) in columns]))
        else:
            both = jnp.stack([jnp.stack(column) for column in columns])
            found = jax.vmap(self.stacked, (None, 0))(jnp.stack(xs), both)
        return list(found)

    def backs(
        self, like: jax.Array, weights: Sequence[Sequence[jax.Array]], s: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """The transpose of :meth:`sums`: sum_k W_rk^T s_k for each row r."""
        rows = [like] * len(weights)
        return list(jax.linear_transpose(lambda *xs: self.sums(xs, weights), *rows)(list(s)))

    def back(self, like: jax.Array, weight: jax.Array, s: jax.Array) -> jax.Array:
        """The transpose W^T s.

        Args:
          like: anything of x's shape and dtype.
          weight: of the shape of ``self.weight``.
          s: of z's shape.
        """
        return jax.linear_transpose(lambda x: self.linear(x, weight), like)(s)[0]

    def without_bias(self) -> Affine:
        """The same with None for the bias."""
        return dataclasses.replace(self, bias=None)


def take_apart(step: Step, values: Sequence[Any]) -> Affine:
    """Takes the matmul ``step`` apart, its operands having these values."""
    env = dict(zip(step.operands, values, strict=True))
    first, *chain = step.nodes
    live = first.operands.index(step.operands[step.live[0]])

    def matmul(x: jax.Array, weight: jax.Array) -> jax.Array:
        operands = [env.get(v) for v in first.operands]
        operands[live], operands[1 - live] = x, weight
        return bind(first.eqn, operands)[0]

    def run(u: jax.Array, arithmetic: bool) -> jax.Array:
        """The chain from the matmul's result, leaving out arithmetic if it is not asked for."""
        value = first.results[0]
        for node in chain:
            if is_arithmetic(node) and not arithmetic:
                if is_contractionless(node):  # it may move the value
                    ones = (u if v == value else jnp.ones_like(env[v]) for v in node.operands)
                    u = _compat.bind(node.eqn, list(ones))[0]
            elif not of(node.name).identity or _compat.is_transposable(node.eqn.primitive):
                operands = [u if v == value else env[v] for v in node.operands]
                u = bind(node.eqn, operands)[0]
            value = node.results[0]
        return u

    x, weight = env[step.operands[step.live[0]]], env[first.operands[1 - live]]
    if any(_scales(node, step) for node in chain):
        head, tail = chain[: _reshaped(chain)], chain[_reshaped(chain) :]
        sign = (-1) ** sum(_scales(node, step) for node in tail)  # nothing else scales there
        weight = weight * sign * _scale(first, head, env, live, jnp.shape(weight), weight.dtype)
    bias = None
    if any(_adds(node) for node in chain):
        bias = run(wide(_compat.zeros(_compat.type_of(matmul, x, weight))), arithmetic=True)

    def of_ones(weight: jax.Array) -> jax.Array:
        u = matmul(one_example(first.eqn, live, x), weight)
        return run(jnp.broadcast_to(u, first.eqn.outvars[0].aval.shape), arithmetic=False)

    contract = stacked(first.eqn, live)
    return Affine(
        linear=lambda x, w: run(matmul(x, w), arithmetic=False),
        weight=weight,
        bias=bias,
        of_ones=of_ones,
        stacked=contract and (lambda xs, ws: run(contract(xs, ws), arithmetic=False)),
    )


def _adds(node: Node) -> bool:
    """Tells whether a node of a chain adds a constant."""
    return is_arithmetic(node) and of(node.name).linear == (ALL,) and len(node.operands) > 1


def _scales(node: Node, step: Step) -> bool:
    """Tells whether a node of a chain scales the value, a change of sign included."""
    if not is_arithmetic(node):
        return False
    made = {value for other in step.nodes for value in other.results}
    position = next(k for k, value in enumerate(node.operands) if value in made)
    return not _adds(node) or position in of(node.name).negated


def _reshaped(chain: Sequence[Node]) -> int:
    """Where in the chain the first reshape is: scales come before it."""
    return next((k for k, node in enumerate(chain) if of(node.name).reshapes), len(chain))


def _scale(first, chain, env, live: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The product of the chain's scales, in a shape that multiplies the weights.

    The scales vary along channels only, so they are found on one element of all other dimensions;
    by the transpose, since the chain may permute dimensions.
    """
    params = first.eqn.params
    if first.name == "conv_general_dilated" and live == 0:
        numbers = params["dimension_numbers"]
        rank = len(shape)
        places = {numbers.out_spec[1]: numbers.rhs_spec[0]}
    elif first.name == "dot_general":
        contracted, batch = params["dimension_numbers"]
        weights = 1 - live
        used = {*contracted[weights], *batch[weights]}
        free = [k for k in range(len(shape)) if k not in used]
        rank = first.eqn.outvars[0].aval.ndim
        shared = len(batch[0])
        start = shared if weights == 0 else rank - len(free)
        places = dict(enumerate(batch[weights])) | {start + i: k for i, k in enumerate(free)}
    else:
        rank, places = first.eqn.outvars[0].aval.ndim, {}
    small = [shape[places[d]] if d in places else 1 for d in range(rank)]

    def scaled(u: jax.Array) -> jax.Array:
        value = first.results[0]
        for node in chain:
            if _adds(node):
                u = -u if node.operands.index(value) in of(node.name).negated else u
            elif is_arithmetic(node) or node.name in ("transpose", "convert_element_type"):
                operands = [u if v == value else env[v] for v in node.operands]
                u = bind(node.eqn, operands)[0]
            value = node.results[0]
        return u

    ones = wide(jnp.ones(small, first.eqn.outvars[0].aval.dtype))
    out, pullback = jax.vjp(scaled, _compat.vary_like(ones, *env.values()))
    (scale,) = pullback(jnp.ones_like(out))
    order = sorted(places, key=lambda d: places[d])
    rest = [d for d in range(rank) if d not in places]
    placed = jnp.transpose(scale, (*order, *rest)).reshape(
        [shape[k] if k in places.values() else 1 for k in range(len(shape))]
    )
    return placed.astype(dtype)
