"""One step with its rule: a ``jax.custom_vjp`` around the original operations.

Two things keep relevance differentiable:

* The forward pass calls the *original* operations, not the custom_vjp function itself.
  Differentiating the residuals then follows the true derivative; calling itself would follow the
  rule, silently.
* Everything a rule reads, its hyper-parameters included, is an explicit argument: it may be a
  tracer of an outer grad, vmap or scan.

Operands that are not live (weights) get the plain VJP, and only when somebody differentiates them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from .. import _compat
from .._plan.graph import Node
from .._plan.kinds import solve_operands
from .._plan.primitives import of
from .._plan.steps import Step
from ..errors import RuleError, place, shown
from ..rules import Rule, Unit, View
from ..rulesets.ruleset import describe
from .affine import take_apart
from .candidates import candidates, reduced_windows, selection_of
from .exponentials import find_exponentials
from .sharing import Compute, alike, placeless, shared
from .systems import take_system
from .wide import bind, is_narrow, run_call, widen


def scope(step: Step) -> AbstractContextManager[Any]:
    """The named scope of a step's layer, for profiles of the compiled program."""
    return jax.named_scope(step.location) if step.path else nullcontext()


def run_nodes(step: Step, values: Sequence[Any]) -> list[Any]:
    """Executes the nodes of a step on the values of its operands, as they are."""

    def execute(node: Node, operands: list[Any]) -> list[Any]:
        if step.by_rows:
            return _compat.by_rows(_compat.bind(node.eqn, _compat.by_rows(operands)))
        return _compat.bind(node.eqn, operands)

    return _run(step, values, execute)


def run_wide(step: Step, values: Sequence[Any]) -> list[Any]:
    """Executes the nodes of a step in float32 at least, as its rule sees them.

    Calls that declare another derivative than their body's have that of their body here.
    """

    def execute(node: Node, operands: list[Any]) -> list[Any]:
        call = step.by_value and of(node.name).own_derivative and step.kind != "other"
        return run_call(node.eqn, operands) if call else bind(node.eqn, operands)

    return _run(step, values, execute)


def _run(
    step: Step, values: Sequence[Any], execute: Callable[[Node, list[Any]], list[Any]]
) -> list[Any]:
    if step.operands == step.nodes[0].operands and len(step.nodes) == 1:
        return execute(step.nodes[0], list(values))  # it may read one value twice, as h @ h.T does
    env = dict(zip(step.operands, values, strict=True))
    for node in step.nodes:
        results = execute(node, [env[value] for value in node.operands])
        env.update(zip(node.results, results, strict=True))
    return [env[value] for value in step.results]


def _factor(step: Step, values: Sequence[Any], x: jax.Array) -> Any:
    """g(x) of f(x) = x g(x): the step with 1 in place of the read of x that it is linear in."""
    assert step.linear_read is not None
    env = dict(zip(step.operands, values, strict=True))
    env.update((step.operands[k], x) for k in step.live)
    for position, node in enumerate(step.nodes):
        operands = [env[value] for value in node.operands]
        if position == step.linear_read[0]:
            k = step.linear_read[1]
            operands[k] = jnp.ones_like(operands[k])
        env.update(zip(node.results, bind(node.eqn, operands), strict=True))
    return env[step.results[0]]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is asked for on the way back, kept with the residuals.

    Attributes:
      operands: which of them an enclosing differentiation asks for.
      units: how many companions there are.
    """

    operands: tuple[bool, ...]
    units: int


Base = tuple[list[Any], list[Any]]
"""Values of a step's operands at the baseline, and of its results."""


def apply_rule(
    step: Step,
    rule: Any,
    values: list[Any],
    companions: list[Any],
    base: Base | None,
    own: dict[Any, Any],
) -> list[Any]:
    """Runs ``step`` with ``rule`` for its VJP.

    Args:
      step: not one of control flow, unless its rule is for the call as a whole.
      rule: any :class:`~jaxrel.rules.RuleFunction`.
      values: of its operands.
      companions: of its live operands, for rules that emit to the unit input; see
        :mod:`jaxrel._execute.units`.
      base: if relevance is against a baseline, the step there.
      own: what equal steps of this explanation share; see :mod:`jaxrel._execute.sharing`.

    Returns:
      The step's results.
    """
    leaves, rebuild = hyperparameters(rule)
    companions = companions if getattr(rule, "emits_unit", False) else []
    operands = leaves, values, companions, base
    is_staged = _compat.is_staged()
    like = alike(step, rule, own)
    if like is None or not (like.lasting or is_staged):
        return _ruled(step, _sender(step, rebuild))(*operands)
    share = functools.partial(shared, like, own=own)
    name = f"{type(rule).__name__}_{step.operation}"
    send = share(name, lambda: _sender(placeless(step), rebuild), inline=False)
    whole = None
    if send is not None and is_staged and _is_ours(rule):
        make, inline = lambda: _ruled(placeless(step), send), not _is_call(step)
        whole = share(step.operation, make, inline=inline)
    return (whole or _ruled(step, send or _sender(step, rebuild)))(*operands)


def _is_ours(rule: Any) -> bool:
    """Whether a rule makes no mistakes that must be reported with the place of its step."""
    return type(rule).__module__.startswith(Rule.__module__.rpartition(".")[0])


def run_plain(
    step: Step, values: Sequence[Any], own: dict[Any, Any], is_twin: bool = False
) -> list[Any]:
    """Runs ``step`` with the VJP that it has, which equal steps share.

    Args:
      step: any step.
      values: of its operands.
      own: what equal steps of this explanation share.
      is_twin: whether the values are those at a baseline, which are not differentiated.
    """
    several = len(step.nodes) > 1
    gains = several or _is_call(step) or not is_twin
    if not step.live or not gains or not _compat.is_staged():
        return run_nodes(step, values)
    like = alike(step, None, own)
    if like is None:
        return run_nodes(step, values)
    name, inline = step.nodes[0].name, several or not _is_call(step)
    made = shared(like, name, lambda: _runner(placeless(step)), own, inline)
    return run_nodes(step, values) if made is None else made(*values)


def _is_call(step: Step) -> bool:
    """Whether the step is a call, lowered once for all that are equal as jax does."""
    return any(_compat.is_jaxpr(part) for part in step.nodes[-1].eqn.params.values())


def _runner(step: Step) -> Compute:
    return lambda *values: run_nodes(step, values)


def _ruled(step: Step, send: Compute) -> Compute:
    """The step with ``send`` for its VJP."""

    @jax.custom_vjp
    def run(leaves: list[Any], values: list[Any], companions: list[Any], base: Base | None):
        del leaves, companions, base
        return run_nodes(step, values)

    def forward(leaves: list[Any], values: list[Any], companions: list[Any], base: Base | None):
        asked = _Asked(tuple(v.perturbed for v in values), len(companions))
        leaves, values = [v.value for v in leaves], [v.value for v in values]
        base = jax.tree.map(lambda v: v.value, base, is_leaf=lambda v: hasattr(v, "perturbed"))
        results = run_nodes(step, values)  # never run(): see the module's docstring
        return results, (leaves, values, results, base, asked)

    def backward(residuals: Any, m: list[Any]):
        m = [_compat.instantiate(part) for part in m]
        with scope(step):
            try:
                sent, units = send(*residuals, m)
            except _Malformed as error:
                where = place(step.location, step.source)
                raise RuleError(f"{error}, {step.operation!r} {where}.") from None
        return None, sent, units, None

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run


def hyperparameters(rule: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The leaves of a rule that are arrays (they may be tracers), and how to put them back.

    Python numbers stay in the rule: there is nothing to differentiate or batch, and a rule may look
    at them.
    """
    leaves, structure = jax.tree.flatten(rule)
    arrays = [k for k, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]
    fixed = [None if k in arrays else leaf for k, leaf in enumerate(leaves)]

    def rebuild(values: Sequence[Any]) -> Any:
        new = list(fixed)
        for k, value in zip(arrays, values, strict=True):
            new[k] = value
        return jax.tree.unflatten(structure, new)

    return [leaves[k] for k in arrays], rebuild


def view_of(
    step: Step, values: Sequence[Any], results: Sequence[Any], base: Base | None = None
) -> View:
    """What a rule sees of ``step`` at these values of its operands and results.

    With a baseline, what is linear is seen as a map of differences, which has no bias: so every
    rule for such steps is one for differences as it stands. All others see both points.
    """
    view = _view(step, values, results)
    if base is None:
        return view
    view = dataclasses.replace(view, baseline=_view(step, *base))
    return view.of_differences() if step.kind in ("matmul", "linear", "sum") else view


def _view(step: Step, values: Sequence[Any], results: Sequence[Any]) -> View:
    """In float32 at least; see :mod:`jaxrel._execute.wide`."""
    own, single = values, len(results) == 1
    narrow = any(map(is_narrow, (*values, *results)))
    values, results = widen(values), widen(results)

    def function(*live: Any) -> Any:
        replaced = list(values)
        for k, value in zip(step.live, live, strict=True):
            replaced[k] = value
        windows = step.nodes[-1].name == "reduce_window"
        out = reduced_windows(eqn, replaced) if windows else run_wide(step, replaced)
        return out[0] if single else tuple(out)

    def plain(m: Any) -> list[jax.Array]:
        """The VJP that the gradient has."""
        return widen(_vjp(step, own, step.live, m if isinstance(m, tuple) else (m,)))

    eqn = step.nodes[-1].eqn
    is_matmul = step.kind == "matmul"
    is_solution = step.variant == "solve"
    selects = step.variant == "selection"
    is_maximum = step.kind == "maximum" and not selects
    inputs = tuple(values[k] for k in step.live)
    if narrow and step.kind == "nonlinearity":
        results = [function(*inputs)]
    return View(
        function=function,
        inputs=inputs,
        output=results[0] if single else tuple(results),
        rounded=narrow,
        plain=plain if narrow and step.kind in ("matmul", "linear", "sum", "product") else None,
        candidates=candidates(eqn, values, step.live) if is_maximum else None,
        minimum=eqn.primitive.name.endswith("min"),
        variant=step.variant,
        factor=None if step.linear_read is None else lambda x: _factor(step, values, x),
        nonneg=step.nonneg,
        homogeneous=step.homogeneous,
        begins=step.begins,
        selection=selection_of(eqn) if selects else None,
        quotient=step.kind in ("quotient", "normalization"),
        power=step.power,
        elementwise=all(of(node.name).elementwise for node in step.nodes),
        exponentials=(lambda: find_exponentials(step, values)) if step.kind == "softmax" else None,
        affine=functools.cache(lambda: take_apart(step, values)) if is_matmul else None,
        system=functools.cache(lambda: take_system(step, values, results, run_wide))
        if is_solution
        else None,
    )


class _Malformed(Exception):
    """What a rule returned is not what it should have; the place is still to be told."""


def _sender(step: Step, rebuild: Callable[[Sequence[Any]], Any]) -> Compute:
    """What a rule sends to a step's operands and to their companions, as a function of arrays."""

    def send(
        leaves: Sequence,
        values: Sequence,
        results: Sequence,
        base: Base | None,
        asked: _Asked,
        m: list,
    ) -> tuple[list[Any], list[Any]]:
        sent, units = _apply(step, rebuild(leaves), values, results, m, base)
        sent.update(_plain(step, values, m, asked))
        return [sent.get(k) for k in range(len(values))], units[: asked.units]

    return send


def _apply(
    step: Step, rule: Any, values: Sequence, results: Sequence, m: list, base: Base | None
) -> tuple[dict[int, Any], list[Any]]:
    """What ``rule`` sends to each live operand, by position, and to their companions; checked."""
    view, m = view_of(step, values, results, base), widen(m)
    sent = rule(view, m[0] if len(results) == 1 else tuple(m))
    sent = sent if isinstance(sent, tuple | list) else (sent,)
    units = [part.relevance for part in sent if isinstance(part, Unit)]
    sent = [part.multiplier if isinstance(part, Unit) else part for part in sent]
    if len(sent) != len(view.inputs):
        raise _Malformed(
            f"{describe(rule)} returned {len(sent)} multipliers for the {len(view.inputs)} live "
            f"inputs of a {step.kind} step"
        )
    for part in sent:
        if part is not None and not hasattr(part, "astype"):
            raise _Malformed(
                f"{describe(rule)} returned {shown(part)} where an array or None is expected, for "
                f"an input of a {step.kind} step"
            )
    for given, x in (*zip(sent, view.inputs, strict=True), *zip(units, view.inputs, strict=False)):
        if given is not None and given.shape != x.shape:
            raise _Malformed(
                f"{describe(rule)} returned a multiplier of shape {given.shape} for an input of "
                f"shape {x.shape} of a {step.kind} step"
            )
    inputs = [values[k] for k in step.live]
    cast = [None if g is None else _narrow(g, x) for g, x in zip(sent, inputs, strict=True)]
    units = [_narrow(r, x) for r, x in zip(units, inputs, strict=False)]
    return dict(zip(step.live, cast, strict=True)), units


def _narrow(m: Any, like: Any) -> Any:
    """``m`` in the type of ``like``; in float16, where R fits and R / x may not, saturated."""
    if m.dtype == jax.dtypes.float0:
        return m
    m = _compat.cotangent(m, like)
    if like.dtype != jnp.float16:
        return m.astype(like.dtype)
    limit = float(jnp.finfo(like.dtype).max)
    return jnp.clip(m, -limit, limit).astype(like.dtype)


def _plain(step: Step, values: Sequence, m: list, asked: _Asked) -> dict[int, Any]:
    """The plain VJP for operands that are not live but are differentiated all the same."""
    others = [k for k, wanted in enumerate(asked.operands) if wanted and k not in step.live]
    if step.variant == "solve":  # jax cannot differentiate a solution by what only helps to find it
        others = [k for k in others if any(k in part for part in solve_operands(step.nodes[0].eqn))]
    return dict(zip(others, _vjp(step, values, others, m), strict=True)) if others else {}


def _vjp(step: Step, values: Sequence, positions: Sequence[int], m: Sequence) -> Sequence[Any]:
    """The plain VJP of a step, as it is, by its operands at these positions."""

    def function(*operands: Any) -> list[Any]:
        replaced = list(values)
        for k, value in zip(positions, operands, strict=True):
            replaced[k] = value
        return run_nodes(step, replaced)

    out, pullback = jax.vjp(function, *(values[k] for k in positions))
    return pullback([_narrow(part, z) for part, z in zip(m, out, strict=True)])
