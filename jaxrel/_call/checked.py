"""Assertions of chex at the borders of metrics and training, in the words of the one who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def checked(
    said: str, assertion: Callable[..., Any], *args: Any, error: type[Exception] = ValueError
) -> None:
    """Checks shapes or ranks, with one sentence where they are wrong.

    Args:
      said: the sentence.
      assertion: of chex.
      *args: what it is called with.
      error: what is raised.
    """
    try:
        assertion(*args)
    except AssertionError:
        raise error(said) from None
