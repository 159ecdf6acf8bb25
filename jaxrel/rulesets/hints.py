"""What was meant: the ends of messages about what is no rule set, no match, no rule."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from .. import rules
from ..errors import did_you_mean, nearest
from .matching import KINDS, VARIANTS, First, Kind


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
    if isinstance(given, types.ModuleType):
        return "; did you mean rulesets.slope()?"
    if given is rule_set:
        return f"; did you mean {rule_set.__name__}()?"
    if callable(given):
        kinds = getattr(given, "kinds", None) or KINDS
        kind = next(kind for kind in KINDS if kind in kinds)
        name = f"{given.__name__}(...)" if _is_rule_class(given) else _name(given)
        return (
            f". One rule is no rule set; say where it applies: RuleSet({kind}={name}), or "
            f'rulesets.slope() | {{Kind("{kind}"): {name}}}.'
        )
    if isinstance(given, Mapping) and all(map(callable, given.values())):
        return ". A mapping overrides a rule set: rulesets.slope() | {...}."
    leaves = jax.tree.leaves(given)
    if any(hasattr(leaf, "shape") or isinstance(leaf, float) for leaf in leaves):
        return ". What fun is called with goes into what is returned: relevance(fun, rules)(x)."
    if isinstance(given, int | tuple | list):
        return f"; did you mean argnums={given!r}?"
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
    if callable(given) and _name(given).isidentifier():
        return f'; did you mean its name, "{_name(given)}"?'
    return "."


def for_rule(given: Any) -> str:
    """The end of a message about what was given in the place of a rule."""
    if _is_rule_class(given):
        return f"; did you mean {given.__name__}()?"
    if isinstance(given, str):
        name = nearest(given, (n for n in dir(rules) if _is_rule_class(getattr(rules, n))))
        return f"; did you mean rules.{name}()?" if name else "."
    if isinstance(given, First | Kind):
        return ". That is a match, the key: {match: rule}."
    if hasattr(given, "overrides"):
        return ". A rule set has one for each kind of step: rules.matmul, say."
    return "."


def for_row(name: str, rows: Iterable[str]) -> str:
    """The end of a message about a row that no rule set has."""
    if name in VARIANTS:
        return f'; a variant overrides: RuleSet(...) | {{Kind("{name}"): rule}}.'
    return did_you_mean(name, rows)


def for_unused(match: Any, names: Iterable[str], paths: Iterable[str]) -> str:
    """The end of a message about a match that matched nothing.

    Args:
      match: the match.
      names: names of the primitives and calls there are.
      paths: the layer paths there are.
    """
    if not isinstance(match, str):
        return "."
    if match in (*KINDS, *VARIANTS):
        return f'; did you mean Kind("{match}")?'
    deeper = [path for path in paths if path.endswith(f"/{match}") or f"/{match}/" in path]
    if deeper:
        within = "" if any(path.endswith(match) for path in deeper) else "/**"
        return f'; did you mean "**/{match}{within}"?'
    return did_you_mean(match, (*names, *paths))


def takes_view_and_multiplier(rule: Callable[..., Any]) -> bool:
    """Tells whether a callable can be called as a rule is; what hides its signature may be."""
    try:
        inspect.signature(rule).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _name(given: Any) -> str:
    return getattr(given, "__name__", repr(given))


def _is_rule_class(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, rules.Rule) and given is not rules.Rule
