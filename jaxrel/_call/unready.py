"""Models that are not ready to be called, told by what their framework raises, with the way out.

A model in training mode changes its own state when it is called: statistics of BatchNorm, counts
of random numbers. Frameworks refuse that within a trace by words about traces, where what is to be
done is to explain the model in the mode in which it predicts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_TRAINS = (
    "it is in training mode and changes its own state when it is called. Explain it in evaluation "
    "mode: {mode}."
)
_NNX = _TRAINS.format(mode="model.eval() of nnx, before it is explained")
_LINEN = _TRAINS.format(
    mode="use_running_average=True, train=False or whatever its call takes; or return the new "
    "state as well, with has_aux=True"
)
_NO_RANDOM = (
    "it draws random numbers, as dropout does in training, and has no key. Explain it in "
    "evaluation mode: deterministic=True, train=False or whatever its call takes; or give rngs."
)
_UNBOUND = (
    "a flax module has no parameters of its own. Explain a function: lambda x: "
    "model.apply(variables, x)."
)
_WAYS_OUT = {
    "TraceContextError": _NNX,
    "ModifyScopeVariableError": _LINEN,
    "InvalidRngError": _NO_RANDOM,
    "CallCompactUnboundModuleError": _UNBOUND,
}
"""By the name of the error, of flax."""


@contextlib.contextmanager
def told_apart(fun: Any) -> Iterator[None]:
    """Says what is to be done where a model cannot be called as it is.

    Args:
      fun: what is called within.

    Raises:
      ValueError: in its name, from the framework's error.
    """
    try:
        yield
    except Exception as error:
        of_flax = type(error).__module__.partition(".")[0] == "flax"
        way_out = _WAYS_OUT.get(type(error).__name__) if of_flax else None
        if way_out is None:
            raise
        name = getattr(fun, "__name__", type(fun).__name__)
        raise ValueError(f"{name} cannot be explained as it is: {way_out}") from error
