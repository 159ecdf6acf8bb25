"""What was meant: the ends of messages about what is no rule set, no match, no rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from .. import rules
from ..errors import nearest
from .matching import KINDS, First, Kind


def for_rule_set(given: Any, presets: Iterable[Callable[..., Any]], rule_set: type) -> str:
    """The end of a message about what was given in the place of a rule set.

    Args:
      given: neither a rule set nor a string.
      presets: the functions that make presets.
      rule_set: the class of rule sets.
    """
    if any(given is make for make in presets):
        name = given.__name__
        return f'; did you mean rulesets.{name}(), or "{name}"?'
    if given is rule_set:
        return f"; did you mean {rule_set.__name__}()?"
    leaves = jax.tree.leaves(given)
    if any(hasattr(leaf, "shape") or isinstance(leaf, float) for leaf in leaves):
        return "; did you mean relevance(fun, rules)(x)? That returns a function."
    if isinstance(given, int | tuple | list):
        return f"; did you mean argnums={given!r}?"
    if isinstance(given, Mapping):
        return ". A mapping overrides a rule set: rulesets.slope() | {...}."
    if callable(given):
        kinds = getattr(given, "kinds", None) or KINDS
        kind = next(kind for kind in KINDS if kind in kinds)
        name = getattr(given, "__name__", repr(given)) + "()" * _is_rule_class(given)
        return (
            f". One rule is no rule set; say where it applies: RuleSet({kind}={name}), or "
            f'rulesets.slope() | {{Kind("{kind}"): {name}}}.'
        )
    return "."


def for_match(given: Any) -> str:
    """The end of a message about what was given in the place of a match."""
    if isinstance(given, rules.First) or given is rules.First:
        return ". rules.First() is the product rule; the first layer's match is jaxrel.First()."
    if given is First:
        return "; did you mean First()?"
    if given is Kind:
        return '; did you mean Kind("conv")?'
    if isinstance(given, rules.Rule) or _is_rule_class(given):
        return ". A rule is the value, not the key: {match: rule}."
    if isinstance(given, tuple | list | set | frozenset):
        return ". Give each match an entry of its own."
    name = getattr(given, "__name__", "")
    return f'; did you mean its name, "{name}"?' if callable(given) and name else "."


def for_rule(given: Any) -> str:
    """The end of a message about what was given in the place of a rule."""
    if _is_rule_class(given):
        return f"; did you mean {given.__name__}()?"
    if isinstance(given, str):
        name = nearest(given, (n for n in dir(rules) if _is_rule_class(getattr(rules, n))))
        return f"; did you mean rules.{name}()?" if name else "."
    if isinstance(given, First | Kind):
        return ". That is a match, the key: {match: rule}."
    return "."


def takes_view_and_multiplier(rule: Callable[..., Any]) -> bool:
    """Tells whether a callable can be called as a rule is; what hides its signature may be."""
    try:
        inspect.signature(rule).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _is_rule_class(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, rules.Rule) and given is not rules.Rule
