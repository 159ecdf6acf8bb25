"""Combinations for `pytest.mark.parametrize`: all of them with `--full`, and a few without it.

>>> [case.values for case in covering("ab", "xyz") if not case.marks]
[('a', 'x'), ('a', 'z'), ('b', 'y')]
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def case(*values: Any, full: bool = False, **options: Any) -> Any:
    """A case, which may be one of those for `--full` only."""
    return pytest.param(*values, marks=[pytest.mark.full] if full else [], **options)


def every(step: int, values: Sequence[Any], start: int = 0) -> list[Any]:
    """One of `step` values, and the others for `--full` only."""
    return [case(value, full=k % step != start) for k, value in enumerate(values)]


def covering(*axes: Sequence[Any]) -> list[Any]:
    """The product of some axes, each value of which is in a case that runs without `--full`.

    These are the cases on the diagonal of the product, which starts again at the end of an axis.
    """
    diagonal = {tuple(k % len(axis) for axis in axes) for k in range(max(map(len, axes)))}
    indices = product(*(range(len(axis)) for axis in axes))
    return [
        case(*(axis[k] for axis, k in zip(axes, index, strict=True)), full=index not in diagonal)
        for index in indices
    ]
