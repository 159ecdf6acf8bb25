"""Where relevance goes: what every step gets, hands on, leaves to biases, loses or creates.

    print(audit(fun, "epsilon")(images))

For each step: relevance that arrives, sum z m; relevance handed on to its live inputs, sum x m_x
(and the unit input's); relevance of its additive constants; and the rest, which the stabiliser took
or the rule created or destroyed. A constant that a loop, a branch or the whole function gives has a
row of its own, of kind ``constant``. What rounding took in 16 bits is told apart
(:mod:`jaxrel._execute.rounding`). Over a whole network with the value f(x) at its start,

    f(x) = sum R + biases + stabiliser + rules + rounding

holds exactly: nothing is estimated.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._call.arguments import Arguments, check_function
from ._call.averages import count
from ._execute.apart import carries_parts
from ._execute.books import Books, Row, rows, zeros
from ._execute.constants import Constant, constants
from ._execute.evaluate import evaluate
from ._execute.explanation import Explanation, explain
from ._execute.rounding import is_rounded
from ._execute.taps import Key, Probes, sum_type
from ._plan.steps import Step
from ._show.tables import Sheet
from .api import Rules, default_rules
from .errors import RuleError
from .rules import Gradient
from .rulesets.assign import Assignment
from .rulesets.presets import preset
from .rulesets.ruleset import RuleSet, describe


class Label(NamedTuple):
    """What a row of an audit is about.

    Attributes:
      path: layer path.
      kind: kind of the step; ``constant`` for what is no step's: an initial carry, a branch or a
        result that is constant.
      operation: as :func:`jaxrel.summary` shows it.
      rule: its rule.
      stabilized: whether the rule has a stabiliser, so that what is lost is lost to that.
      rounded: whether the step computes in 16 bits.
    """

    path: str
    kind: str
    operation: str
    rule: str
    stabilized: bool
    rounded: bool = False


class Account(NamedTuple):
    """Relevance of one layer, or of one step; floats, in units of the function's value.

    Attributes:
      path: layer path.
      relevance_in: what arrived.
      relevance_out: what was handed on to live inputs.
      bias: what went to additive constants.
      stabilizer: what was lost to the stabiliser.
      rule: what the rule destroyed (negative: created).
      rounding: what was lost to rounding in 16 bits; 0 in others, whose rounding is the rule's.
    """

    path: str
    relevance_in: float
    relevance_out: float
    bias: float
    stabilizer: float
    rule: float
    rounding: float = 0.0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value", "explained", "amounts", "rounding"],
    meta_fields=["labels"],
)
@dataclasses.dataclass(frozen=True)
class Audit:
    """The books of an explanation; a pytree, so it can be made under ``jit``.

    Printed or in a notebook it is a table.

    Attributes:
      value: sum of the function's value.
      explained: sum of the relevance of the explained arguments.
      amounts: for each row an array ``(..., 3)``: relevance in, out, and to biases, in float32 at
        least; leading axes are the iterations of the loops around the step.
      rounding: for each row an array ``(...)``: relevance that rounding took.
      labels: what the rows are about.
    """

    value: jax.Array
    explained: jax.Array
    amounts: tuple[jax.Array, ...]
    rounding: tuple[jax.Array, ...]
    labels: tuple[Label, ...]

    def steps(self) -> list[Account]:
        """One account for each step, in order of execution; loops are summed over iterations."""
        rows = zip(self.labels, self.amounts, self.rounding, strict=True)
        return [_account(*row) for row in rows]

    def layers(self) -> list[Account]:
        """One account for each layer, in order of first execution.

        ``relevance_in`` and ``relevance_out`` are sums over the layer's steps, so the difference is
        what the layer as a whole kept.
        """
        found: dict[str, list[Account]] = {}
        for account in self.steps():
            found.setdefault(account.path, []).append(account)
        return [Account(path, *np.sum([a[1:] for a in rows], 0)) for path, rows in found.items()]

    def total(self) -> Account:
        """The whole: in is the function's value, out the explained relevance.

        Rounding in 16 bits is also that between steps, where multipliers of a value that several
        read are added.
        """
        kept = np.sum([a[3:] for a in self.steps()], 0) if self.labels else np.zeros(4)
        value, explained = float(self.value), float(self.explained)
        if any(label.rounded for label in self.labels):
            kept[3] = value - explained - kept[:3].sum()
        return Account("", value, explained, *map(float, kept))

    def __str__(self) -> str:
        """A table of the steps and the total."""
        return self._sheet().text()

    def _repr_html_(self) -> str:
        return self._sheet().html()

    def _sheet(self) -> Sheet:
        names = ("path", "kind", "operation", "rule", *_COLUMNS)
        names = names if any(label.rounded for label in self.labels) else names[:-1]
        rows = [
            (label.path or "-", label.kind, label.operation, label.rule, *_numbers(account))
            for label, account in zip(self.labels, self.steps(), strict=True)
        ]
        total = ("total", "", "", "", *_numbers(self.total()))
        shown = len(names)
        return Sheet(names, [row[:shown] for row in rows], total[:shown], words=4)


def _account(label: Label, amounts: Any, rounding: Any) -> Account:
    arrived, handed_on, bias = np.asarray(amounts, np.float64).reshape(-1, 3).sum(0)
    rounded = np.asarray(rounding, np.float64).sum()
    rest = arrived - handed_on - bias - rounded
    stabilizer, rule = (rest, 0.0) if label.stabilized else (0.0, rest)
    return Account(label.path, arrived, handed_on, bias, stabilizer, rule, rounded)


_COLUMNS = (
    "relevance in",
    "relevance out",
    "to biases",
    "to stabilisers",
    "by rules",
    "by rounding",
)
"""What a printed account shows: positive is what is taken from relevance, as in the waterfall."""


def _numbers(account: Account) -> list[str]:
    return [f"{amount:.5g}" for amount in account[1:]]


def audit(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    has_aux: bool = False,
    chunk: int = 1,
) -> Callable[..., Audit]:
    """Returns a function that keeps the books of an explanation.

    Args:
      fun, rules, argnums, baseline, has_aux, chunk: as for :func:`jaxrel.relevance`. Against a
        baseline the books are about f(x) - f(x0), and no constant has a part in it.

    Returns:
      A function with the signature of ``fun`` that returns an :class:`Audit`; it can be jitted.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`jaxrel.relevance`.
      RuleError: rules that carry positive and negative differences apart.
    """
    check_function("audit", fun)
    rule_set = preset(default_rules(rules, baseline))
    chunk = count("audit", chunk=chunk)

    @functools.wraps(fun)
    def audited(*args: Any, **kwargs: Any) -> Audit:
        call = Arguments(fun, args, kwargs, argnums)
        made = explain(call, rule_set, has_aux, baseline)
        if carries_parts(made.chosen):
            raise RuleError(
                "audit: RevealCancel carries two parts of every difference; there are no books of "
                "those. Audit deeplift_rescale."
            )
        blamed = constants(made.plan, made.chosen, 1) if baseline is None else {}
        account = rows(made.plan, made.chosen, blamed)
        labels = tuple(_label(row, blamed, made.chosen, rule_set) for row in account)
        references = made.baseline

        def books(leaves: list[Any], twins: list[Any] | None) -> Any:
            return _books(made.of(leaves), blamed, account, twins)

        read = books(call.leaves, None) if references is None else references.mean(books, chunk)
        value, explained, amounts, rounding = read
        return Audit(value, explained, amounts, rounding, labels)

    return audited


def _books(
    made: Explanation,
    blamed: Mapping[Key, Constant],
    account: Sequence[Row],
    twins: list[Any] | None,
):
    """Value, explained relevance, the amounts of every row and what rounding took of them."""
    probes = zeros(made.plan, made.chosen, blamed)

    def run(leaves: list[Any], companions: Any, probes: Any) -> Any:
        return made.value(leaves, companions, twins, Books(probes, blamed))[0]

    with made.mesh():
        value, pullback = jax.vjp(run, made.call.leaves, made.companions, probes)
        m, units, read = pullback(jnp.ones_like(value))
    found = made.combine(m, units, twins)
    explained = sum((jnp.sum(r, dtype=sum_type(r.dtype)) for r in found), jnp.zeros(()))
    if twins is not None:
        value = value - evaluate(made.plan, Assignment(), twins)[0]
    both = [_amounts(row, blamed, read) for row in account]
    value = jnp.sum(value, dtype=sum_type(value.dtype))
    return value, explained, tuple(a for a, _ in both), tuple(r for _, r in both)


def _amounts(row: Row, blamed: Mapping[Key, Constant], read: Probes) -> tuple[jax.Array, jax.Array]:
    """Relevance in, out, and to biases; and what rounding took; by iteration of the loops."""

    def whole(key: Key) -> jax.Array:
        return jnp.sum(read[key], tuple(range(len(blamed[key].loops), read[key].ndim)))

    bias = sum(map(whole, row.constants), jnp.zeros(()))
    none = jnp.zeros_like(bias)
    arrived, handed_on, missing = (
        (bias, none, none) if row.flow is None else jnp.moveaxis(read[row.flow], -1, 0)
    )
    rounded = row.step is not None and is_rounded(row.step)
    rounding = arrived - handed_on - bias - missing if rounded else none
    return jnp.stack(jnp.broadcast_arrays(arrived, handed_on, bias), -1), rounding


def _label(row: Row, blamed: Mapping[Key, Constant], chosen: Assignment, rules: RuleSet) -> Label:
    if row.step is None:
        constant = blamed[row.constants[0]]
        return Label(constant.path, "constant", constant.operation, "", False)
    rule, override = rules.choose(row.step)
    if row.step.kind == "control" and override is None:  # a call with the derivative it declares
        rule = chosen[id(row.step)] or Gradient()
    step, stabilized = row.step, _stabilized(rule, row.step)
    return Label(
        step.location, step.kind, step.operation, describe(rule), stabilized, is_rounded(step)
    )


def _stabilized(rule: Any, step: Step) -> bool:
    return step.kind in ("matmul", "sum", "linear") and (
        hasattr(rule, "eps") or hasattr(rule, "blip")
    )
