"""Blame the bias: the relevance of every additive constant.

The source text's first answer to biases: give the network a list of ones, and let each additive
constant c enter as c * one. The relevance of c is then what its one gets, and

    sum(R) + sum(biases) = f(x)

for every rule set that conserves. :mod:`jaxrel._execute.constants` finds the constants: biases,
offsets, shifts of a BatchNorm, positions and class tokens, padding and fills, f(0) of
nonlinearities, the initial carry of a loop, a branch or a result that is constant.

A *probe* of zeros in the constant's own shape, which enters nothing, is handed to the step; its
cotangent is the relevance. So biases are one more ``jax.vjp``, and work under jit, vmap, in
branches and per iteration of a scan.

A rule leaves relevance r to the constants of a step together, in the shape of its result z. With b
what the constants make of z, c_i gets c_i b_i'^T (r / b), where b_i' is the linear map from c_i to
z. What no one operand makes of z gets the rest, so nothing is lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.primitives import MATMUL
from .._plan.steps import Plan, Step
from ..rules import Gradient
from ..rules.numerics import divide, far, finite
from .constants import Constant
from .step import hyperparameters, view_of
from .taps import Key, Probes, Taps, sum_type, worth
from .wide import bind, widen


@dataclasses.dataclass(frozen=True)
class Blamed(Taps):
    """Hands probes to the steps of a plan as it is executed.

    Attributes:
      found: the constants.
    """

    found: Mapping[Key, Constant] = dataclasses.field(default_factory=dict)

    def inputs(
        self, step: Step, values: list[Any], companions: list[Any], twins: Sequence[Any], env: Any
    ):
        """Blames operands that are constant outside of a control step and live inside."""
        del twins
        keys = (Key(id(step), "operand", k) for k in range(len(values)))
        return self._wholes(keys, values, env), companions

    def outputs(
        self,
        step: Step,
        rule: Any,
        values: Sequence[Any],
        others: Sequence[Any],
        results: list[Any],
        twins: Sequence[Any],
        env: Any,
    ):
        """Blames the constants that a step adds."""
        del others, twins
        keys = [k for n in range(len(values)) if (k := Key(id(step), "step", n)) in self.found]
        rest = Key(id(step), "rest")
        if not keys and rest not in self.found:
            return results
        found = [self.found[key] for key in keys]
        given = [jnp.asarray(env[c.source]) for c in found]
        probes = [self.probes[key] for key in keys], self.probes.get(rest)
        return _blame(step, rule, found, values, given, results, probes)

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Blames results of a plan that are constant there and live outside."""
        keys = (Key(id(plan), "output", k) for k in range(len(outputs)))
        return self._wholes(keys, outputs, env)

    def _wholes(self, keys: Any, values: Sequence[Any], env: Any) -> list[Any]:
        """Blames values that are one constant, c, which gets c m."""
        return [
            _blame_whole(self.found[key], value, env[self.found[key].source], self.probes[key])
            if key in self.found
            else value
            for key, value in zip(keys, values, strict=True)
        ]


def _blame_whole(constant: Constant, value: Any, c: Any, probe: jax.Array) -> Any:
    @jax.custom_vjp
    def run(value: Any, c: Any, probe: Any) -> Any:
        del c, probe
        return value

    def backward(kept: Any, m: Any):
        c, probe = kept
        (c, part) = widen([c, m])
        _, pullback = jax.vjp(constant.place, c)
        return m, None, _compat.cotangent(worth(c, pullback(part)[0], probe.dtype), probe)

    run.defvjp(lambda value, c, probe: (value, (c, probe)), backward)
    return run(value, jnp.asarray(c), probe)


def _blame(
    step: Step,
    rule: Any,
    found: Sequence[Constant],
    values: Sequence[Any],
    given: Sequence[Any],
    results: list[Any],
    probes: tuple[Sequence[jax.Array], jax.Array | None],
) -> list[Any]:
    """The step's results; the probes get what the rule leaves to its constants."""
    leaves, rebuild = hyperparameters(Gradient() if rule is None else rule)

    @jax.custom_vjp
    def run(leaves: Any, values: Any, given: Any, results: list[Any], probes: Any) -> list[Any]:
        del leaves, values, given, probes
        return results

    def backward(kept: Any, m: list[Any]):
        leaves, values, given, results, (own, rest) = kept
        to_bias = getattr(rebuild(leaves), "to_bias", Gradient().to_bias)
        view, arrived = view_of(step, values, results), widen(m)
        r = to_bias(view, arrived[0] if len(results) == 1 else tuple(arrived))
        values, given = widen(values), widen(given)
        shares = _shares(step, found, values, given, r, view)
        parts = [
            _compat.cotangent(worth(c, share, probe.dtype), probe)
            for c, share, probe in zip(given, shares, own, strict=True)
        ]
        if rest is not None:
            whole = _compat.cotangent(jnp.sum(r.real.astype(rest.dtype)), rest)
            rest = whole - sum(map(jnp.sum, parts))
        return None, None, None, m, (parts, rest)

    run.defvjp(lambda *operands: (operands[3], operands), backward)
    return run(leaves, list(values), list(given), list(results), probes)


def _shares(
    step: Step,
    found: Sequence[Constant],
    values: Sequence[Any],
    given: Sequence[Any],
    r: Any,
    view: Any,
) -> Sequence[Any]:
    """The multipliers of the constants that have relevance r together."""
    if not found:
        return []
    # the live operands too: jax cannot transpose pad in its padding value alone
    live = [values[k] for k in step.live]
    if step.kind != "maximum":
        live = [jnp.zeros_like(x) for x in live]
    z, pullback = jax.vjp(lambda x, cs: _together(step, found, values, x, cs), live, given)
    b = Gradient().to_bias(view, jnp.ones_like(z)) if step.kind == "maximum" else z
    return pullback(divide(r, finite(far(b))).astype(z.dtype))[1]


def _together(
    step: Step, found: Sequence[Constant], values: Sequence[Any], live: Sequence[Any], cs: Any
) -> Any:
    """The step's result at other values of its live operands, and of its constants."""
    env = dict(zip(step.operands, values, strict=True))
    env.update((step.operands[k], x) for k, x in zip(step.live, live, strict=True))
    added = {(c.entry, c.operand): c.place(v) for c, v in zip(found, cs, strict=True)}
    for k, node in enumerate(step.nodes):
        if k == 0 and node.name in MATMUL:  # W 0 = 0, without multiplying
            results = widen([_compat.zeros(node.eqn.outvars[0].aval)])
        else:
            results = bind(node.eqn, [added.get((k, v), env[v]) for v in node.operands])
        env.update(zip(node.results, results, strict=True))
    return env[step.results[0]]


def zero_probes(found: Mapping[Key, Constant]) -> dict[Key, jax.Array]:
    """Probes for constants."""
    return {key: jnp.zeros((*c.loops, *c.shape), sum_type(c.dtype)) for key, c in found.items()}


def by_layer(found: Mapping[Key, Constant], relevances: Probes) -> dict[str, jax.Array]:
    """Relevances of constants by layer path, in their own dtypes.

    Those of one layer and one shape are added. One of another shape, and one outside of any layer,
    goes by ``path/operation``.
    """
    layers: dict[str, jax.Array] = {}
    dtypes: dict[str, Any] = {}
    for key, c in found.items():
        r = relevances[key]
        named = "/".join(filter(None, (c.path, c.operation)))
        names = chain([c.path or named, named], (f"{named}_{k}" for k in count(1)))
        name = next(n for n in names if n not in layers or layers[n].shape == r.shape)
        layers[name] = layers[name] + r if name in layers else r
        with jax.numpy_dtype_promotion("standard"):
            dtypes[name] = jnp.promote_types(c.dtype, dtypes.get(name, c.dtype))
    return {name: r.astype(dtypes[name]) for name, r in layers.items()}


def total(relevances: Probes, dtype: Any) -> jax.Array:
    """The relevance of the single 1 that all constants share."""
    start = jnp.zeros((), sum_type(dtype))
    return sum((jnp.sum(r) for r in relevances.values()), start).astype(dtype)
