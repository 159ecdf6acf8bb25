"""Blame the bias: the relevance of every additive constant.

The source text's first answer to biases: give the network a list of ones, and let each additive
constant c enter as c * one. The relevance of c is then what its one gets, and

    sum(R) + sum(biases) = f(x)

for every rule set that conserves. Constants are found where a value that is not live meets a live
one additively: biases, offsets, shifts of a BatchNorm, positions and class tokens, padding and
fills, f(0) of nonlinearities, the initial carry of a loop, a branch or a result that is constant.

A *probe* of zeros in the constant's own shape, which enters nothing, is handed to the step; its
cotangent is the relevance. So biases are one more ``jax.vjp``, and work under jit, vmap, in
branches and per iteration of a scan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat
from .._plan.graph import Node
from .._plan.paths import normalise
from .._plan.primitives import MATMUL, ODD
from .._plan.steps import Plan, Step
from ..rules import Gradient
from ..rules.numerics import divide
from ..rulesets.assign import Assignment
from .step import hyperparameters, view_of

_ADDS = frozenset(
    "add sub add_any concatenate pad select_n dynamic_update_slice scatter scatter-add "
    "scatter-sub".split()
)
"""Linear operations on live values and constants side by side."""

_RESHAPES = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims transpose convert_element_type copy".split()
)
"""What a constant may go through and still be the same one."""

Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Constant:
    """An additive constant.

    Attributes:
      path: of its layer.
      operation: what it enters by.
      source: number of its value before it was broadcast; None: f(0) of a nonlinearity, a number.
      nodes: operations from the source to the operand, last first.
      operand: number of the value that meets a live one.
      shape, dtype: its own.
      loops: lengths of the loops around it, outermost first.
    """

    path: str
    operation: str
    source: int | None
    nodes: tuple[Node, ...]
    operand: int | None
    shape: tuple[int, ...]
    dtype: Any
    loops: tuple[int, ...]

    def place(self, c: jax.Array) -> jax.Array:
        """The operand, made of the source's value ``c``."""
        for node in reversed(self.nodes):
            (c,) = _compat.bind(node.eqn, [c])
        return c


def constants(plan: Plan, chosen: Assignment, goals: int) -> dict[Key, Constant]:
    """Finds every additive constant of a plan, nested ones included.

    Args:
      plan: the plan.
      chosen: the rules.
      goals: how many of its first outputs are explained.

    Returns:
      Constants by what they enter: a step's, an operand's, or an output's.
    """
    found = dict(_of_plan(plan, chosen, ()))
    sources = _Sources(plan)
    for k in range(goals):
        if not plan.live_outputs[k]:
            found[id(plan), "output", k] = sources.constant(plan.outputs[k], "", "output", ())
    return {key: c for key, c in found.items() if c is not None}


class _Sources:
    """Where constants of a plan come from."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.makers = {v: step for step in plan.steps if not step.live for v in step.results}

    def constant(
        self, value: int, path: str, operation: str, loops: tuple[int, ...]
    ) -> Constant | None:
        """The constant that ``value`` is; None if it is no float, or known to be 0."""
        operand = value
        ways: list[tuple[int, tuple[Node, ...]]] = [(value, ())]
        while value in self.makers and _is_reshaping(self.makers[value]):
            node = self.makers[value].nodes[0]
            (value,) = node.operands
            ways.append((value, (*ways[-1][1], node)))
        # a parameter's shape, not that of a row cut out of one: as few dimensions as there are
        value, nodes = min(ways[::-1], key=lambda way: len(self.plan.avals[way[0]].shape))
        aval = self.plan.avals[value]
        content = self.plan.constants.get(value)
        if isinstance(content, int | float | np.generic | np.ndarray) and not np.any(content):
            return None
        if not jnp.issubdtype(aval.dtype, jnp.floating):
            return None
        return Constant(path, operation, value, nodes, operand, aval.shape, aval.dtype, loops)


def _is_reshaping(step: Step) -> bool:
    return (
        len(step.nodes) == 1
        and len(step.operands) == 1
        and len(step.results) == 1
        and step.nodes[0].name in _RESHAPES
        and jnp.issubdtype(step.nodes[0].eqn.invars[0].aval.dtype, jnp.floating)
    )


def _of_plan(
    plan: Plan, chosen: Assignment, loops: tuple[int, ...]
) -> Iterator[tuple[Key, Constant | None]]:
    sources = _Sources(plan)
    shifted = {step.operands[step.live[0]] for step in plan.steps if _is_share(step)}
    for step in plan.steps:
        # what is subtracted from all logits of a softmax enters nothing
        if step.kind == "constant" or (step.operation == "sub" and step.results[0] in shifted):
            continue
        if step.bodies and id(step) not in chosen:
            yield from _of_control(step, sources, chosen, loops)
        elif step.kind in ("nonlinearity", "other") and not _is_zero_at_zero(step):
            aval = step.nodes[-1].eqn.outvars[0].aval
            dtype = jnp.finfo(aval.dtype).dtype  # relevance is real where values are complex
            found = Constant(step.location, step.operation, None, (), None, (), dtype, loops)
            yield (id(step), 0), found
        elif step.kind in ("matmul", "linear") and len(step.results) == 1:
            for k, (node, value) in enumerate(_added(step)):
                path = _path(step, node)
                yield (id(step), k), sources.constant(value, path, step.operation, loops)


def _is_share(step: Step) -> bool:
    return step.kind == "softmax" and step.nodes[-1].name != "log"


def _of_control(step: Step, sources: _Sources, chosen: Assignment, loops: tuple[int, ...]):
    """What is constant outside and live inside, and what is constant in one branch alone."""
    is_scan = step.variant == "scan"
    inner = (*loops, step.nodes[0].eqn.params["length"]) if is_scan else loops
    shift = int(step.variant == "cond")
    lives = [any(live) for live in zip(*(b.live_outputs for b in step.bodies), strict=True)]
    if is_scan:
        first, count = _compat.scan_arity(step.nodes[0].eqn.params)
        carried = step.bodies[0].live_inputs[first : first + count]
        lives = [a or b for a, b in zip(lives, (*carried, *lives[count:]), strict=True)]
    for body in step.bodies:
        for k, live in enumerate(body.live_inputs):
            if live and k + shift not in step.live:
                value = step.operands[k + shift]
                key = (id(step), "operand", k + shift)
                yield key, sources.constant(value, step.location, step.operation, loops)
        within = _Sources(body)
        for k, live in enumerate(lives):
            if live and not body.live_outputs[k]:
                found = within.constant(body.outputs[k], step.location, step.operation, inner)
                yield (id(body), "output", k), found
        yield from _of_plan(body, chosen, inner)


def _added(step: Step) -> list[tuple[Node, int]]:
    """The nodes of a step that add a constant, and the constant's value number."""
    inside = {v for node in step.nodes for v in node.results}
    lives = {step.operands[k] for k in step.live}
    found = []
    for node in step.nodes:
        if node.name in _ADDS:
            others = [v for v in dict.fromkeys(node.operands) if v not in inside | lives]
            found += [(node, v) for v in others]
    return found


def _path(step: Step, node: Node) -> str:
    """The layer a constant belongs to: a BatchNorm's own, where it follows a convolution."""
    own, first = normalise(node.path), normalise(step.nodes[0].path)
    return "/".join(own) if own != first else step.location


def _is_zero_at_zero(step: Step) -> bool:
    odd = len(step.nodes) == 1 and step.nodes[0].name in ODD
    return step.homogeneous or step.linear_read is not None or odd


@dataclasses.dataclass(frozen=True)
class Blamed:
    """Hands probes to the steps of a plan as it is executed; see :mod:`jaxrel._execute.taps`.

    Attributes:
      found: the constants.
      probes: zeros of their shapes, with the loops around in front.
      around: how many loops have been entered.
    """

    found: Mapping[Key, Constant]
    probes: Mapping[Key, jax.Array]
    around: int = 0

    def at(self, index: jax.Array) -> Blamed:
        """The probes inside one iteration of a loop."""
        deep = [key for key, c in self.found.items() if len(c.loops) > self.around]
        inner = {key: self.probes[key][index] for key in deep}
        return Blamed(self.found, {**self.probes, **inner}, self.around + 1)

    def inputs(self, step: Step, values: list[Any], companions: list[Any], twins: Any, env: Any):
        """Blames operands that are constant outside of a control step and live inside."""
        del twins
        keys = [(k, (id(step), "operand", k)) for k in range(len(values))]
        values = list(values)
        for k, key in keys:
            if key in self.found:
                values[k] = self._whole(key, values[k], env)
        return values, companions

    def companions(self, step: Step, companions: list[Any]) -> list[Any]:
        """Nothing is read off there."""
        del step
        return companions

    def outputs(self, step: Step, rule: Any, values: Any, results: list[Any], twins: Any, env: Any):
        """Blames the constants that a step adds."""
        del twins
        keys = [key for k in range(len(values) + 1) if (key := (id(step), k)) in self.found]
        if not keys:
            return results
        found, probes = [self.found[key] for key in keys], [self.probes[key] for key in keys]
        given = [env[c.source] for c in found if c.source is not None]
        return _blame(step, rule, found, values, given, results, probes)

    def ends(self, plan: Plan, outputs: list[Any], env: Any) -> list[Any]:
        """Blames results of a plan that are constant there and live outside."""
        return [
            self._whole(key, out, env) if (key := (id(plan), "output", k)) in self.found else out
            for k, out in enumerate(outputs)
        ]

    def _whole(self, key: Key, value: Any, env: Any) -> Any:
        """Blames a value that is one constant, c, which gets c m."""
        c = self.found[key]
        return _blame_whole(c, value, env[c.source], self.probes[key])


def _blame_whole(constant: Constant, value: Any, c: Any, probe: jax.Array) -> Any:
    @jax.custom_vjp
    def run(value: Any, c: Any, probe: Any) -> Any:
        del c, probe
        return value

    def backward(c: Any, m: Any):
        _, pullback = jax.vjp(constant.place, c)
        return m, None, _worth(c, pullback(m)[0])

    run.defvjp(lambda value, c, probe: (value, c), backward)
    return run(value, c, probe)


def _blame(
    step: Step,
    rule: Any,
    found: Sequence[Constant],
    values: Sequence[Any],
    given: Sequence[Any],
    results: list[Any],
    probes: Sequence[jax.Array],
) -> list[Any]:
    """The step's results; the probes get what the rule leaves to its constants.

    That is relevance r in the shape of the result z, for all of them together. Each gets its part
    of z: with b what the constants make of z, c_i gets c_i b_i'^T (r / b), where b_i' is the map
    from c_i to z.
    """
    leaves, rebuild = hyperparameters(Gradient() if rule is None else rule)

    @jax.custom_vjp
    def run(leaves: Any, values: Any, given: Any, results: list[Any], probes: Any) -> list[Any]:
        del leaves, values, given, probes
        return results

    def backward(kept: Any, m: list[Any]):
        leaves, values, given, results = kept
        to_bias = getattr(rebuild(leaves), "to_bias", Gradient().to_bias)
        view = view_of(step, values, results)
        relevance = to_bias(view, m[0] if len(results) == 1 else tuple(m))
        if not given:
            return None, None, None, m, [jnp.sum(relevance.real).astype(p.dtype) for p in probes]
        # the zeros are operands too: jax cannot transpose pad in its padding value alone
        zeros = [jnp.zeros_like(values[k]) for k in step.live]
        b, pullback = jax.vjp(lambda x, cs: _bias(step, found, values, x, cs), zeros, given)
        _, parts = pullback(divide(relevance, b).astype(b.dtype))
        return None, None, None, m, [_worth(c, s) for c, s in zip(given, parts, strict=True)]

    run.defvjp(lambda *operands: (operands[3], operands[:4]), backward)
    return run(leaves, list(values), list(given), list(results), list(probes))


def _worth(c: Any, m: Any) -> Any:
    """The relevance c m; a fill by infinity that gets no multiplier is worth nothing."""
    return jnp.where(m == 0, 0, c * m)


def _bias(
    step: Step, found: Sequence[Constant], values: Sequence[Any], zeros: Sequence[Any], cs: Any
) -> jax.Array:
    """What the constants make of the step's result: its value where the live operands are 0."""
    env = dict(zip(step.operands, values, strict=True))
    env.update((step.operands[k], zero) for k, zero in zip(step.live, zeros, strict=True))
    for constant, value in zip(found, cs, strict=True):
        if constant.operand is not None:
            env[constant.operand] = constant.place(value)
    nodes = step.nodes
    if nodes[0].name in MATMUL:  # W 0 = 0, without multiplying
        aval = nodes[0].eqn.outvars[0].aval
        env[nodes[0].results[0]], nodes = jnp.zeros(aval.shape, aval.dtype), nodes[1:]
    for node in nodes:
        results = _compat.bind(node.eqn, [env[v] for v in node.operands])
        env.update(zip(node.results, results, strict=True))
    return env[step.results[0]]


def zero_probes(found: Mapping[Key, Constant]) -> dict[Key, jax.Array]:
    """Probes for constants."""
    return {key: jnp.zeros((*c.loops, *c.shape), c.dtype) for key, c in found.items()}


def by_layer(
    found: Mapping[Key, Constant], relevances: Mapping[Key, jax.Array]
) -> dict[str, jax.Array]:
    """Relevances of constants by layer path.

    Those of one layer and one shape are added. One of another shape, and one outside of any layer,
    goes by ``path/operation``.
    """
    layers: dict[str, jax.Array] = {}
    for key, c in found.items():
        r = relevances[key]
        named = "/".join(filter(None, (c.path, c.operation)))
        names = [c.path or named, named, *(f"{named}_{k}" for k in range(1, len(found) + 1))]
        name = next(n for n in names if n not in layers or layers[n].shape == r.shape)
        layers[name] = layers[name] + r if name in layers else r
    return layers


def total(relevances: Mapping[Key, jax.Array], dtype: Any) -> jax.Array:
    """The relevance of the single 1 that all constants share."""
    return sum((jnp.sum(r).astype(dtype) for r in relevances.values()), jnp.zeros((), dtype))
