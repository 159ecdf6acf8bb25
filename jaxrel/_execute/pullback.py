"""From multipliers to relevances of a call: what all transformations at the top are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._call.arguments import Arguments
from ..errors import RuleError
from ..rulesets.assign import Assignment
from ..rulesets.ruleset import RuleSet
from .apart import carries_parts
from .blame import by_layer, total
from .books import implicit, rows
from .constants import constants
from .evaluate import evaluate
from .explanation import Explanation, explain
from .inside import NOTHING, Inside
from .size import CHANGE, check_size


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of a function is to be explained, and how.

    Attributes:
      rules: the rule set.
      has_aux: whether the function returns a pair of its value and auxiliary data.
      baseline: what is compared to; None: nothing.
      biases: whether constants are explained, and whether each, ``"total"``, or ``"all"`` that is
        not the arguments'.
      chunk: how many of many references at once.
      inside: places and masks.
      leaves: which of the explained arguments are leaves.
    """

    rules: RuleSet
    has_aux: bool = False
    baseline: Any = None
    biases: bool | str = False
    chunk: int = 1
    inside: Inside = NOTHING
    leaves: int | Sequence[int] = ()

    def __post_init__(self):
        """Checks that there are biases to explain."""
        if self.biases not in (True, False, "total", "all"):
            raise ValueError(
                f'biases: expected True, False, "total" or "all", got {self.biases!r}.'
            )
        if self.biases in (True, "total") and self.baseline is not None:
            raise ValueError(
                "biases: against a baseline constants cancel; none has any relevance. What rules "
                'create is told by biases="all".'
            )

    def call(
        self, fun: Any, args: tuple, kwargs: Mapping[str, Any], argnums: int | Sequence[int]
    ) -> tuple[Arguments, Asked]:
        """The call, and what is asked of it.

        Where nothing but places is explained, a baseline is one of all arguments.
        """
        call = Arguments(fun, args, kwargs, argnums)
        if call.argnums or self.baseline is None or not self.inside:
            return call, self
        given = self.baseline(*args, **kwargs) if callable(self.baseline) else self.baseline
        given = given if isinstance(given, tuple) and len(args) > 1 else (given,)
        if len(given) != len(args):
            raise TypeError(
                f"baseline: with argnums=() it is one for each of {len(args)} arguments, a tuple, "
                f"None for those that stay as they are; got {len(given)}."
            )
        moved = tuple(k for k, x0 in enumerate(given) if x0 is not None)
        call = Arguments(fun, args, kwargs, moved, explains=False)
        return call, dataclasses.replace(self, baseline=tuple(given[k] for k in moved))


@dataclasses.dataclass(frozen=True)
class Relevances:
    """What a multiplier of the value comes to.

    Attributes:
      arguments: of the explained arguments.
      places: of places; None: none was asked for.
      biases: of constants.
    """

    arguments: list[Any]
    places: Any
    biases: Any

    def of(self, call: Arguments, asked: Asked) -> Any:
        """As they are returned: what is asked for, side by side."""
        return self.beside(call.select(self.arguments), asked)

    def beside(self, arguments: Any, asked: Asked) -> Any:
        """Relevances of arguments as given, and beside them what else was asked for."""
        found = arguments
        if asked.inside.at:
            found = (arguments, self.places) if self.arguments else self.places
        return (found, self.biases) if asked.biases else found


def pull(
    call: Arguments, asked: Asked, multiples: bool = False
) -> tuple[Any, Callable[[Any], Relevances]]:
    """``jax.vjp`` of the rewritten call, and from multipliers to relevances at its end.

    With ``multiples`` to multipliers.
    """
    made = explain(call, asked.rules, asked.has_aux, asked.baseline, asked.inside)
    if multiples:
        made.check_multiples()

    def relevances(found: list[Any], inside: Mapping[Any, Any], blamed: Any = None) -> Relevances:
        places = made.places.relevances(inside) if asked.inside.at else None
        if CHANGE in inside:
            check_size((found, places), inside[CHANGE])
        return Relevances(call.restore(found) if found else [], places, blamed)

    references, ledger = made.baseline, asked.biases == "all"
    if ledger and carries_parts(made.chosen):
        raise RuleError(
            'biases="all": RevealCancel carries two parts of every difference; there are no books '
            "of those. Take deeplift_rescale."
        )
    if references is not None and references.many is not None:
        value = evaluate(made.plan, Assignment(), call.leaves)

        def mean(m: Any) -> Relevances:
            def against(leaves: list[Any], twins: list[Any]) -> tuple[list[Any], dict[Any, Any]]:
                return made.of(leaves).vjp(twins, {}, multiples, ledger)[1](m)

            found, amounts = references.mean(against, asked.chunk)
            return relevances(found, amounts, _left(made, {}, amounts) if ledger else None)

        return made.output.restore(value), mean
    blames = asked.biases and references is None
    blamed = constants(made.plan, made.chosen, 1) if blames else {}
    twins = None if references is None else references.at(0)
    first, pullback, rest = made.vjp(twins, blamed, multiples, ledger)

    def once(m: Any) -> Relevances:
        found, amounts = pullback(m)
        own = {key: amounts[key] for key in blamed}
        whole = total(own, first.dtype) if asked.biases == "total" else by_layer(blamed, own)
        whole = whole | _left(made, blamed, amounts) if ledger else whole
        return relevances(found, amounts, whole)

    return made.output.restore([first, *rest]), once


def _left(made: Explanation, blamed: Mapping[Any, Any], amounts: Mapping[Any, Any]) -> Any:
    """What is neither the arguments' nor a constant's."""
    return {"implicit": implicit(rows(made.plan, made.chosen, blamed), amounts)}
