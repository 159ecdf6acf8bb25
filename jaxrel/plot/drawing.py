"""matplotlib, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any


def matplotlib_module(module: str) -> Any:
    """Imports ``matplotlib.<module>``, an extra, when the first picture is drawn.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        message = 'jaxrel.plot draws with matplotlib: pip install "jaxrel[plot]"'
        raise ImportError(message) from error
