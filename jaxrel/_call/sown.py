"""Values that flax modules ``sow`` or ``perturb``, named in a jaxpr while a function is traced.

A jaxpr shows nothing of either: a sown value is put aside, a perturbed one has something added that
is usually not there. For the time of one trace both give the value a name as
``jax.ad_checkpoint.checkpoint_name`` does, ``"Block_0/hidden"``: the module's path and the name.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from .layers import Path
from .modules import module_path

_active: contextvars.ContextVar[bool]
_active = contextvars.ContextVar("jaxrel_sown", default=False)
_lock = threading.RLock()
_inside = 0
_saved: list[tuple[type, str, Any]] = []


@contextlib.contextmanager
def sown_names() -> Iterator[None]:
    """Names sown and perturbed values for the time of a trace, in this thread alone."""
    token = _active.set(True)
    _install()
    try:
        yield
    finally:
        _uninstall()
        _active.reset(token)


def _install() -> None:
    global _inside
    with _lock:
        _inside += 1
        if _inside > 1:
            return
        if "flax" in sys.modules:
            from flax import linen

            _wrap(linen.Module, "sow", 2, lambda module: tuple(module.path))
            _wrap(linen.Module, "perturb", 1, lambda module: tuple(module.path))
        if "flax.nnx" in sys.modules:
            from flax import nnx

            _wrap(nnx.Module, "sow", 2, lambda _: module_path())
            _wrap(nnx.Module, "perturb", 1, lambda _: module_path())


def _uninstall() -> None:
    global _inside
    with _lock:
        _inside -= 1
        while _inside == 0 and _saved:
            cls, name, method = _saved.pop()
            setattr(cls, name, method)


def _wrap(cls: type, method: str, position: int, path: Callable[[Any], Path]) -> None:
    """Wraps a method whose value is at ``position``, after the name it gets."""
    original = getattr(cls, method)

    @functools.wraps(original)
    def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _active.get():
            return original(self, *args, **kwargs)
        args_ = list(args)
        name = args_[position - 1] if len(args_) >= position else kwargs["name"]
        value = args_[position] if len(args_) > position else kwargs["value"]
        value = jax.tree.map(lambda x: _named(x, "/".join((*path(self), name))), value)
        if len(args_) > position:
            args_[position] = value
        else:
            kwargs["value"] = value
        return original(self, *args_, **kwargs)

    _saved.append((cls, method, original))
    setattr(cls, method, named)


def _named(x: Any, name: str) -> Any:
    is_float = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)
    return checkpoint_name(x, name) if is_float else x
