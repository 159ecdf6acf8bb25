"""What a rule set is: one rule for each kind of step, and overrides by match.

A value: frozen, composable by ``|``, printable, and a pytree of its rules' hyper-parameters.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Self, TypeVar, overload

import jax

from .._plan.steps import Step
from .._show.tables import Sheet
from ..errors import did_you_mean, shown
from ..rules import ByDegree, Detach, Gradient, PathIntegral, Rule, RuleFunction, Slope
from . import hints, interchange, words
from .matching import First, Kind, Match, kinds_of, specificity

# Mappings are invariant in their keys: to a type checker {"a": rule} is no Mapping[Match, ...].
_Match = TypeVar("_Match", bound=Match)


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """One rule for each kind of step, and overrides for the steps that a match means.

    A pytree: its leaves are the hyper-parameters of its rules.

    Attributes:
      matmul: z = W x + b: dense and convolution layers with what affine follows them.
      nonlinearity: y = f(x), elementwise.
      maximum: max or min of several live values: pools, reductions, sorting.
      product: of two live values: gates, attention.
      quotient: by a live value.
      normalization: scaling by a statistic of the value itself: layer, RMS, group norm. What makes
        the statistic (squares, means, a root) are steps of their own kinds.
      softmax: attention weights, logsumexp.
      sum: of two live values: residual connections.
      linear: everything else that is linear.
      other: any other differentiable primitive: decompositions, products along an axis, functions
        of several values; None: raise, unless a match names it.
      overrides: pairs (match, rule), later ones first among equals.
      fold: whether the constant affine operations that follow a matmul (running-average BatchNorm,
        scales) belong to it. False: it takes one bias add, and they are ``linear`` steps of their
        own, of the variant ``affine``.
      parts: whether softmaxes whose denominator has a constant are taken apart into quotients and
        nonlinearities, each by its own rule.
      optional: how many of the first overrides may match nothing without a warning: a preset's own.

    Raises:
      TypeError: a rule is given to a kind it has no formula for, or is no rule; or a match is none.
    """

    matmul: RuleFunction = Gradient()
    nonlinearity: RuleFunction = Slope()
    maximum: RuleFunction = Gradient()
    product: RuleFunction = ByDegree()
    quotient: RuleFunction = Detach()
    normalization: RuleFunction = Detach()
    softmax: RuleFunction = Slope()
    sum: RuleFunction = Gradient()
    linear: RuleFunction = Gradient()
    other: RuleFunction | None = PathIntegral()
    overrides: tuple[tuple[Match, RuleFunction], ...] = ()
    fold: bool = True
    parts: bool = False
    optional: int = 0

    def __new__(cls, *args: Any, **rows: Any) -> Self:
        """Says what is meant by a row that is none, before Python says less."""
        for name in set(rows) - set(_DEFAULTS) - {"overrides"}:
            raise TypeError(f"RuleSet: there is no row {name!r}{hints.for_row(name, _DEFAULTS)}")
        return super().__new__(cls)

    def __post_init__(self):
        """Checks that each rule suits its row."""
        for kind in _ROWS:
            _check(kind, getattr(self, kind), frozenset({kind}))
        for match, rule in self.overrides:
            if not isinstance(match, str | First | Kind):
                raise TypeError(
                    "A rule set is overridden by a layer path glob, First(), Kind(...), a "
                    f"primitive or a call name; got {shown(match)} of type {type(match).__name__}"
                    f"{hints.for_match(match)}"
                )
            _check(match, rule, kinds_of(match))

    @property
    def is_gradient(self) -> bool:
        """Whether every rule is the plain VJP."""
        rules = (*(getattr(self, kind) for kind in _ROWS), *(rule for _, rule in self.overrides))
        return all(isinstance(rule, Gradient) for rule in rules)

    @overload
    def __or__(self, overrides: Mapping[Match, RuleFunction]) -> RuleSet: ...
    @overload
    def __or__(self, overrides: Mapping[_Match, RuleFunction]) -> RuleSet: ...
    def __or__(self, overrides: Mapping[Any, RuleFunction]) -> RuleSet:
        """This rule set with other rules where the given matches apply.

        Args:
          overrides: maps a layer path glob (``"**/Conv_*"``), ``First()``, ``Kind(...)``, or a
            primitive or call name (``"silu"``) to a rule.

        Raises:
          TypeError: it is no mapping, or has what is no match or no rule.
        """
        if isinstance(overrides, RuleSet):
            raise TypeError(
                "A rule set is overridden by a mapping, not by a rule set, which has a rule for "
                "every kind of step: rules | dict(other.overrides) takes another's overrides."
            )
        if not isinstance(overrides, Mapping):
            raise TypeError(
                "A rule set is overridden by a mapping, rules | {match: rule}; got "
                f"{type(overrides).__name__}."
            )
        kept = [k for k, (match, _) in enumerate(self.overrides) if match not in overrides]
        merged = (*(self.overrides[k] for k in kept), *overrides.items())
        optional = sum(k < self.optional for k in kept)
        return dataclasses.replace(self, overrides=merged, optional=optional)

    def choose(self, step: Step) -> tuple[RuleFunction | None, int | None]:
        """The rule for ``step``, and the index of the override it comes from (None: its row).

        An override that has no formula for the step's kind passes it by: ``"Block_0/**":
        Epsilon()`` means the matmuls of the block. Control flow has no rule, only what it holds
        has; but a call may be given one as a whole, by its function's name.
        """
        best, rank, index = getattr(self, step.kind, None), 0, None
        for k, (match, rule) in enumerate(self.overrides):
            kinds = getattr(rule, "kinds", None)
            if kinds and step.kind not in kinds:
                continue
            if step.kind == "control" and match not in step.names:
                continue
            found = specificity(match, step)
            if found and found >= rank:
                best, rank, index = rule, found, k
        return best, index

    def to_dict(self) -> dict[str, Any]:
        """This rule set as plain data that ``json.dumps`` takes: every rule, every override.

        Returns:
          For each kind of step ``{"rule": name, hyper-parameter: number, ...}``, pairs of match and
          rule under ``"overrides"``, and the flags.

        Raises:
          TypeError: a rule is a function or a class of one's own, or a number is traced.
        """
        made = {kind: interchange.written_rule(kind, getattr(self, kind)) for kind in _ROWS}
        pairs = [
            [interchange.written_match(match), interchange.written_rule(match, rule)]
            for match, rule in self.overrides
        ]
        return {**made, "overrides": pairs, **{flag: getattr(self, flag) for flag in _FLAGS}}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> RuleSet:
        """The rule set that :meth:`to_dict` wrote; what it does not mention is as by default.

        Args:
          written: what :meth:`to_dict` returned, or ``json.loads`` made of it.

        Raises:
          TypeError: it is no mapping, or a rule or match in it is none.
          ValueError: there is no such kind of step, rule or hyper-parameter.
        """
        if not isinstance(written, Mapping):
            raise TypeError(
                f"from_dict: expected what to_dict returns, got {type(written).__name__}"
                f"{'; json.loads makes it of text.' if isinstance(written, str) else '.'}"
            )
        known = (*_ROWS, "overrides", *_FLAGS)
        for name in written:
            if name not in known:
                raise ValueError(
                    f"from_dict: a rule set has no {name!r}{did_you_mean(str(name), known)}"
                )
        rows = {k: interchange.read_rule(k, written[k]) for k in _ROWS if k in written}
        pairs = tuple(map(interchange.read_override, written.get("overrides", ())))
        return cls(**rows, overrides=pairs, **{k: written[k] for k in _FLAGS if k in written})

    def describe(self) -> str:
        """What this rule set does, in words: a line for each kind of step and for each override."""
        lines = [words.line(kind, getattr(self, kind)) for kind in _ROWS]
        lines += [words.line(match, rule) for match, rule in self.overrides]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The call that makes it: code, in the names of jaxrel (``RuleSet``, ``rules`` ...)."""
        return interchange.code(self, _DEFAULTS)

    def __str__(self) -> str:
        """A table: kind or match, rule."""
        return self._sheet().text()

    def _repr_html_(self) -> str:
        return self._sheet().html()

    def _sheet(self) -> Sheet:
        rows = [(kind, getattr(self, kind)) for kind in _ROWS]
        rows += [(str(match), rule) for match, rule in self.overrides]
        return Sheet((), [(name, describe(rule)) for name, rule in rows])


_SIGNATURE = inspect.signature(RuleSet.__init__)
RuleSet.__signature__ = _SIGNATURE.replace(  # type: ignore[attr-defined] - not that of __new__
    parameters=list(_SIGNATURE.parameters.values())[1:]
)
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(RuleSet) if f.name != "overrides"}
_FLAGS = ("fold", "parts", "optional")
_ROWS = tuple(name for name in _DEFAULTS if name not in _FLAGS)


def describe(rule: RuleFunction | None) -> str:
    """A rule as a person would write it: ``Epsilon(eps=1e-06)``."""
    if rule is None:
        return "(error)"
    if isinstance(rule, Rule) and dataclasses.is_dataclass(rule):
        shown = []
        for field in dataclasses.fields(rule):
            value = getattr(rule, field.name)
            if not isinstance(value, bool | str | tuple) or value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(rule).__name__}({', '.join(shown)})"
    if dataclasses.is_dataclass(rule):
        return repr(rule)
    return getattr(rule, "__name__", repr(rule))


def _check(where: Any, rule: Any, kinds: frozenset[str]) -> None:
    if rule is None and where == "other":
        return
    if isinstance(rule, type) or not callable(rule):
        raise TypeError(f"{where}: expected a rule, got {shown(rule)}{hints.for_rule(rule)}")
    if not hints.takes_view_and_multiplier(rule):
        raise TypeError(
            f"{where}: {describe(rule)} is no rule: it cannot be called as rule(view, m), which "
            "returns the multipliers of the step's inputs."
        )
    domain = getattr(rule, "kinds", None)
    if domain and kinds and kinds.isdisjoint(domain):
        raise TypeError(
            f"{where}: {describe(rule)} is a rule for {', '.join(sorted(domain))} steps only."
        )


def _flatten(rules: RuleSet) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    rows = tuple(getattr(rules, kind) for kind in _ROWS)
    plain = [rule for _, rule in rules.overrides]
    matches = tuple(match for match, _ in rules.overrides)
    parts = [_split(rule) for rule in (*rows, *plain)]
    functions = tuple(function for _, function in parts)
    return tuple(tree for tree, _ in parts), (
        matches,
        functions,
        rules.fold,
        rules.parts,
        rules.optional,
    )


def _split(rule: Any) -> tuple[Any, Any]:
    """A rule that is a pytree goes among the leaves, a plain function into the structure."""
    return (None, rule) if jax.tree_util.all_leaves([rule]) else (rule, None)


def _unflatten(structure: Any, children: Any) -> RuleSet:
    matches, functions, fold, parts, optional = structure
    rules = [f if f is not None else tree for tree, f in zip(children, functions, strict=True)]
    new = object.__new__(RuleSet)  # unchecked: jax unflattens with placeholders for leaves
    for kind, rule in zip(_ROWS, rules, strict=False):
        object.__setattr__(new, kind, rule)
    overrides = tuple(zip(matches, rules[len(_ROWS) :], strict=True))
    object.__setattr__(new, "overrides", overrides)
    object.__setattr__(new, "fold", fold)
    object.__setattr__(new, "parts", parts)
    object.__setattr__(new, "optional", optional)
    return new


jax.tree_util.register_pytree_node(RuleSet, _flatten, _unflatten)
