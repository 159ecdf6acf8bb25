"""What stands in a jaxpr: its parts, names, source lines, calls."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.extend import source_info_util

Jaxpr = Any
"""An open or closed jaxpr; :func:`open_jaxpr` tells them apart."""


JaxprEqn = jex_core.JaxprEqn


Literal = jex_core.Literal


Var = jex_core.Var


def open_jaxpr(jaxpr: Jaxpr) -> tuple[Any, Sequence[Any]]:
    """Returns the open jaxpr and its constants, whichever class ``jaxpr`` is of."""
    if isinstance(jaxpr, jex_core.ClosedJaxpr):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, ()


def is_jaxpr(value: Any) -> bool:
    """Tells whether a parameter is a jaxpr, open or closed."""
    return isinstance(value, jex_core.ClosedJaxpr | jex_core.Jaxpr)


def scan_arity(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many operands of a ``scan`` are constants and how many are carries."""
    if "ft_in" in params:
        constants, carries, _ = (len(part) for part in params["ft_in"].unpack())
        return constants, carries
    return params["num_consts"], params["num_carry"]


def scopes(eqn: JaxprEqn) -> tuple[str, ...]:
    """Returns the names of the ``named_scope`` s around an equation, outermost first.

    Transformations (``vmap``, ``jvp``) stand in the same stack and are left out.
    """
    stack = eqn.source_info.name_stack.stack
    return tuple(entry.name for entry in stack if type(entry).__name__ == "Scope")


# the user's line is the last one that is neither jax's nor ours
source_info_util.register_exclusion(str(pathlib.Path(__file__).parents[1]))


def source_line(eqn: JaxprEqn) -> str:
    """Returns ``file:line (function)`` of the user's code that made an equation, or ``""``."""
    line = source_info_util.summarize(eqn.source_info)
    return line if ":" in line else ""


def call_name(jaxpr: Jaxpr) -> str:
    """Returns the name of the Python function that a call's jaxpr was traced from."""
    return open_jaxpr(jaxpr)[0].debug_info.func_name


def is_unspecified(sharding: Any) -> bool:
    """Tells whether a sharding parameter of ``jit`` leaves the choice to the compiler."""
    return sharding is None or type(sharding).__name__ == "UnspecifiedValue"


@contextlib.contextmanager
def at_source(eqn: JaxprEqn) -> Iterator[None]:
    """Blames what is traced inside on the user's line that made ``eqn``."""
    with source_info_util.user_context(eqn.source_info.traceback):
        yield


def device_axes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The axes of the mesh that a ``shard_map`` runs over."""
    manual = eqn.params["newly_manual_axes"]
    return tuple(name for name in eqn.params["mesh"].axis_names if name in manual)


def repeats(eqn: JaxprEqn) -> tuple[int, ...]:
    """How often what an equation holds is executed: iterations of a loop, devices of a mesh."""
    if eqn.primitive.name == "scan":
        return (eqn.params["length"],)
    if eqn.primitive.name == "shard_map":
        return tuple(eqn.params["mesh"].shape[name] for name in device_axes(eqn))
    return ()


_CALL_JAXPR = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "composite": "jaxpr",
    "jit": "jaxpr",
    "remat_opt": "fwd_jaxpr",
    "xla_metadata_call": "jaxpr",
}


def call_jaxpr(eqn: JaxprEqn) -> Jaxpr:
    """Returns the jaxpr that a call equation holds."""
    return eqn.params[_CALL_JAXPR[eqn.primitive.name]]


def custom_call_name(eqn: JaxprEqn) -> str:
    """Returns the Python name of a call's function (``"relu"``), ``""`` for other equations."""
    if eqn.primitive.name not in _CALL_JAXPR:
        return ""
    return str(eqn.params.get("name") or call_name(call_jaxpr(eqn)))


_OF_JAX = str(pathlib.Path(str(jax.__file__)).parent)


def is_of_jax(eqn: JaxprEqn) -> bool:
    """Tells whether the function of a call is one of jax's own."""
    return _OF_JAX in written_at(call_jaxpr(eqn))


def written_at(jaxpr: Jaxpr) -> str:
    """Returns ``name at file:line`` of the Python function that a call's jaxpr was traced from."""
    return str(open_jaxpr(jaxpr)[0].debug_info.func_src_info)
