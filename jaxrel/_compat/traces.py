"""What is known of a value and of the trace it is in."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import core as jax_core
from jax.extend import core as jex_core
from jax.interpreters import ad


def strong(x: Any) -> Any:
    """``x`` without the weak type that a Python number gives; in value the same."""
    is_weak = getattr(jax.typeof(x), "weak_type", False)
    return jax.lax.convert_element_type(x, jax.numpy.result_type(x)) if is_weak else x


def is_differentiable(primitive: Any) -> bool:
    """Tells whether jax has any derivative of a primitive, a derivative of zero included."""
    return any(primitive in table for table in (ad.primitive_jvps, ad.primitive_transposes))


def is_transposable(primitive: Any) -> bool:
    """Tells whether jax can transpose a primitive by itself."""
    return primitive in ad.primitive_transposes


def is_tracer(value: Any) -> bool:
    """Tells whether a value is known only to an outer transformation."""
    return isinstance(value, jax_core.Tracer)


def is_staged() -> bool:
    """Tells whether what is computed becomes part of a program, and is not executed at once.

    It is asked of every step, and answered once for each trace.
    """
    state = jex_core.get_opaque_trace_state()
    trace, staged = _last_asked[0]
    if trace != state:
        staged = is_tracer(jax.numpy.asarray(np.float32(0)))
        _last_asked[0] = state, staged  # at once: other threads ask too
    return staged


_last_asked: list[tuple[Any, bool]] = [(None, False)]
