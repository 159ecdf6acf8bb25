"""The errors and warnings of jaxrel: sentences that name what, where, and the way out."""

from __future__ import annotations

import difflib
import importlib
import pathlib
import sys
import warnings
from collections.abc import Iterable

import jax


class UnsupportedPrimitive(NotImplementedError):  # noqa: N818 - a name of the public interface
    """A step on a live value (one that depends on an explained input) that no rule explains.

    Attributes:
      primitive: name of the jax primitive.
      path: layer path, ``""`` outside any layer.
      source: ``file:line (function)`` of the code that called it.
    """

    def __init__(self, primitive: str, path: str, source: str, reason: str, way_out: str):
        """Composes the message from its parts."""
        self.primitive, self.path, self.source = primitive, path, source
        super().__init__(f"{primitive!r} {place(path, source)}: {reason} {way_out}")


def place(path: str, source: str) -> str:
    """Where something stands: in which layer, at which line of whose code."""
    where = f"in layer {path!r}" if path else "outside any named layer"
    return f"{where}, at {source}" if source else where


class RuleError(TypeError):
    """A rule was given to a step of a kind it has no formula for, or returned the wrong thing."""


class UnusedMatchWarning(UserWarning):
    """A match of a rule set matched no step of the function that was explained."""


class LargeRelevanceWarning(UserWarning):
    """Relevance against a baseline is out of all proportion to what the value changed by."""


def warn(message: str, category: type[Warning]) -> None:
    """Warns, pointing to the line of the user's code: the last one outside of jaxrel and jax."""
    inside = tuple(str(pathlib.Path(file).parent) for file in (__file__, str(jax.__file__)))
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like another, whatever its case; ``""`` if none is."""
    spelt = {word.lower(): word for word in known}
    found = difflib.get_close_matches(name.lower(), spelt, n=1)
    return spelt[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a misspelt name: a question, or a full stop."""
    found = nearest(name, known)
    return f"; did you mean {found!r}?" if found else "."


def no_attribute(door: str, name: str) -> AttributeError:
    """What is raised where a module is asked for a name that it has not.

    Args:
      door: the module, ``jaxrel`` or one of its public parts.
      name: what it is asked for; where another part has it, that is said.
    """
    known = vars(sys.modules[door])["__all__"]
    hint = did_you_mean(name, known)
    if not name.startswith("_"):
        others = [(p, word) for p in _DOORS for word in vars(importlib.import_module(p))["__all__"]]
        exact = [f"{part}.{word}" for part, word in others if word == name]
        alike = [f"{part}.{word}" for part, word in others if word.lower() == name.lower()]
        found = exact or (alike if hint == "." else [])
        hint = f"; did you mean {found[0]}?" if found else hint
    return AttributeError(f"module {door!r} has no attribute {name!r}{hint}")


_DOORS = tuple(
    f"jaxrel{part}" for part in ("", ".rules", ".rulesets", ".metrics", ".training", ".plot")
)


def shown(value: object, letters: int = 120) -> str:
    """A value as Python prints it, in one line and cut where it is long; an array by its type."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{dtype}[{', '.join(map(str, shape))}]"
    text = " ".join(repr(value).split())
    return text if len(text) <= letters else f"{text[:letters]} ..."
