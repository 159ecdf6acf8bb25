"""Rule sets as plain data, which ``json.dumps`` takes, and as code that evaluates to them.

    {"matmul": {"rule": "Epsilon", "eps": 1e-06, "bias": true}, ...,
     "overrides": [["**/Conv_*", {"rule": "ZPlus", ...}], [{"kind": "pool"}, ...]],
     "fold": true, "parts": false, "optional": 0}

A match is a string, ``{"kind": name}`` or ``{"first": variant}``. JSON has no numbers that are
infinite or NaN, so these are words; arrays are ``{"array": nested lists, "dtype": name}``. What
only Python holds, a function as a rule or numbers under a transformation, is refused by name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _compat, rules
from ..errors import did_you_mean, shown
from .matching import First, Kind, Match

_RULES = {
    name: made
    for name in rules.__all__
    if isinstance(made := getattr(rules, name), type)
    and issubclass(made, rules.Rule)
    and dataclasses.is_dataclass(made)
}


# ------------------------------------------------------------------------------------------ to


def written_rule(where: Any, rule: Any) -> dict[str, Any] | None:
    """A rule as plain data.

    Raises:
      TypeError: it is a function or a class of the user's own, or holds a traced number.
    """
    if rule is None:
        return None
    name = type(rule).__name__
    if _RULES.get(name) is not type(rule):
        called = getattr(rule, "__name__", None) or shown(rule)
        raise TypeError(
            f"to_dict: the rule of {str(where)!r}, {called}, is none of jaxrel.rules, and code is "
            "no data. Write the rule set without it, and give it back: RuleSet.from_dict(written) "
            f"| {{{_match_code(where)}: {called}}}."
        )
    fields = dataclasses.fields(rule)
    numbers = {f.name: _written(f"{name}.{f.name}", getattr(rule, f.name)) for f in fields}
    return {"rule": name, **numbers}


def written_match(match: Any) -> Any:
    """A match as plain data: a string is itself.

    Raises:
      TypeError: it is none that has a name.
    """
    if isinstance(match, str):
        return str(match)
    if isinstance(match, First):
        return {"first": match.variant}
    if isinstance(match, Kind):
        return {"kind": match.name}
    called = getattr(match, "__name__", None) or shown(match)
    raise TypeError(
        f"to_dict: the match {called} of type {type(match).__name__} cannot be written; match by "
        "a layer path, a primitive or call name, First() or Kind(...)."
    )


def _written(where: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, tuple | list):
        return [_written(where, each) for each in value]
    if isinstance(value, rules.Stabilizer):
        return {"eps": _written(f"{where}.eps", value.eps), "mode": value.mode}
    if _compat.is_tracer(value) or not hasattr(value, "dtype"):
        raise TypeError(
            f"to_dict: {where} is {shown(value)} of type {type(value).__name__}, which has no "
            "value that could be written; write a rule set of numbers, outside of jit."
        )
    array = np.asarray(value)
    return {"array": _written(where, array.tolist()), "dtype": array.dtype.name}


# ---------------------------------------------------------------------------------------- from


def read_rule(where: Any, written: Any) -> Any:
    """A rule from what :func:`written_rule` made.

    Raises:
      ValueError: there is no such rule, or no such hyper-parameter.
      TypeError: it is no rule as written.
    """
    if written is None:
        return None
    if not isinstance(written, Mapping) or not isinstance(written.get("rule"), str):
        raise TypeError(
            f'from_dict: {where}: expected a rule, {{"rule": name, ...}}, got {shown(written)}.'
        )
    name, numbers = written["rule"], {k: v for k, v in written.items() if k != "rule"}
    if name not in _RULES:
        raise ValueError(
            f"from_dict: {where}: no rule is called {name!r}{did_you_mean(name, _RULES)}"
        )
    fields = {field.name: field for field in dataclasses.fields(_RULES[name])}
    for given in numbers:
        if given not in fields:
            raise ValueError(
                f"from_dict: {where}: {name} has no {given!r}{did_you_mean(str(given), fields)}"
            )
    missing = [
        key
        for key, field in fields.items()
        if key not in numbers and field.default is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"from_dict: {where}: {name} needs {', '.join(missing)}.")
    return _RULES[name](
        **{k: _read(f"{where}: {name}.{k}", v, fields[k]) for k, v in numbers.items()}
    )


def read_override(written: Any) -> tuple[Match, Any]:
    """A pair (match, rule).

    Raises:
      TypeError: it is none as written.
      ValueError: there is no such kind, rule or hyper-parameter.
    """
    if not isinstance(written, Sequence) or isinstance(written, str) or len(written) != 2:
        raise TypeError(f"from_dict: expected a pair [match, rule], got {shown(written)}.")
    match written[0]:
        case str(match):
            found: Match = match
        case {"first": str(variant), **rest} if not rest:
            found = First(variant)
        case {"kind": str(name), **rest} if not rest:
            found = Kind(name)
        case _:
            raise TypeError(
                'from_dict: expected a match, a string, {"first": variant} or {"kind": name}, got '
                f"{shown(written[0])}."
            )
    return found, read_rule(found, written[1])


def _read(where: str, written: Any, field: dataclasses.Field) -> Any:
    text = isinstance(written, str) and "str" in str(field.type).split(" | ")
    if text or isinstance(written, bool):
        return written
    return _number(where, written)


def _number(where: str, written: Any) -> Any:
    match written:
        case int() | float():
            return written
        case str() if written in ("inf", "-inf", "nan"):
            return float(written)
        case list() | tuple():
            return tuple(_number(where, each) for each in written)
        case {"array": values, "dtype": str(dtype)}:
            numbers = jax.tree.map(float, values) if "float" in dtype else values
            return jnp.asarray(numbers, dtype)
        case {"eps": eps, "mode": str(mode)}:
            return rules.Stabilizer(_number(where, eps), mode)
    raise TypeError(f"from_dict: {where}: expected a number, got {shown(written)}.")


# ---------------------------------------------------------------------------------------- code


def code(made: Any, defaults: Mapping[str, Any]) -> str:
    """A rule set as the call that makes it, with what is not as by default.

    What evaluates it needs the names of jaxrel: ``RuleSet``, ``First``, ``Kind``, ``rules``. Arrays
    come by ``RuleSet.from_dict``; a function stands there by its name.
    """
    shown_rules = [*(getattr(made, name) for name in defaults), *(r for _, r in made.overrides)]
    if any(map(_has_array, jax.tree.leaves(shown_rules))):
        try:
            return f"RuleSet.from_dict({made.to_dict()!r})"
        except TypeError:
            pass  # what cannot be written is shown as far as it can be
    parts = [
        f"{name}={_rule_code(value)}"
        for name, default in defaults.items()
        if not _same(value := getattr(made, name), default)
    ]
    if made.overrides:
        pairs = [f"({_match_code(match)}, {_rule_code(r)})" for match, r in made.overrides]
        parts.append(f"overrides=({', '.join(pairs)}{',' if len(pairs) == 1 else ''})")
    return f"RuleSet({', '.join(parts)})"


def _same(value: Any, default: Any) -> bool:
    """Tells whether two are equal, without comparing what is traced."""
    traced = isinstance(value, rules.Rule) and jax.tree.leaves(value)
    return type(value) is type(default) and not traced and value == default


def _has_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and not isinstance(leaf, float)


def _rule_code(value: Any) -> str:
    if _RULES.get(type(value).__name__) is type(value):
        parts = []
        for field in dataclasses.fields(value):
            given = getattr(value, field.name)
            if not (isinstance(given, bool | str | int | float | tuple) and given == field.default):
                parts.append(f"{field.name}={_value_code(given)}")
        return f"rules.{type(value).__name__}({', '.join(parts)})"
    return getattr(value, "__name__", repr(value))


def _value_code(value: Any) -> str:
    if isinstance(value, rules.Stabilizer):
        return f"rules.Stabilizer({_value_code(value.eps)}, {value.mode!r})"
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
    if isinstance(value, tuple):
        return f"({''.join(f'{_value_code(each)}, ' for each in value)})"
    return repr(value)


def _match_code(match: Any) -> str:
    return repr(match) if isinstance(match, str) else str(match)
