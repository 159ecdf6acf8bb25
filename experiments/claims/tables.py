"""Tables of numbers, and when two arrays are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Table = Mapping[str, Mapping[str, float]]
"""Numbers by row and column."""


def differ(a: Any, b: Any) -> float:
    """The largest |a - b|, in units of the largest of either."""
    a, b = np.asarray(a), np.asarray(b)
    largest = max(np.abs(a).max(), np.abs(b).max())
    return float(np.abs(a - b).max() / largest) if largest else 0.0
