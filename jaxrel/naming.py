"""Names for layers whose framework gives them none, while a function is traced.

linen and haiku open a ``named_scope`` for every module. nnx opens none, so its modules' methods are
wrapped for the time of one trace to open the scope of the module's place in its model
(``blocks/0/attn``). equinox modules are plain pytrees: their layers are known by the parameter leaf
that feeds a step, found by identity among the leaves of what the function closes over or is called
with.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

Path = tuple[str, ...]


def leaf_paths(fun: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[int, Path]:
    """Names the array leaves that ``fun`` reads, by ``id``.

    Args:
      fun: a module that is a pytree, a bound method, a partial, or a closure over such things.
      args, kwargs: what it is called with.

    Returns:
      ``id`` of the leaf -> path of keys, indices and attributes to it.
    """
    names: dict[int, Path] = {}
    for root in (*_reachable(fun), *args, *kwargs.values()):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(root):
            if keys and hasattr(leaf, "shape"):
                names.setdefault(id(leaf), tuple(_key_name(key) for key in keys))
    return names


def _key_name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _reachable(fun: Any, depth: int = 4) -> Iterator[Any]:
    """What a callable holds: itself, its ``self``, its closure, and those of what it wraps."""
    if not inspect.isfunction(fun):
        yield fun
    if depth == 0:
        return
    if isinstance(fun, functools.partial):
        yield from (*fun.args, *fun.keywords.values())
        yield from _reachable(fun.func, depth - 1)
    if inspect.ismethod(fun):
        yield fun.__self__
    held = [cell for cell in getattr(fun, "__closure__", None) or ()]
    for cell in held:
        with contextlib.suppress(ValueError):  # an empty cell
            content = cell.cell_contents
            yield from _reachable(content, depth - 1) if callable(content) else (content,)
    wrapped = getattr(fun, "__wrapped__", None)
    if wrapped is not None:
        yield from _reachable(wrapped, depth - 1)


_modules: contextvars.ContextVar[dict[int, tuple[Any, Path]] | None]
_modules = contextvars.ContextVar("jaxrel_nnx_modules", default=None)
_current: contextvars.ContextVar[Path] = contextvars.ContextVar("jaxrel_nnx_path", default=())
_lock = threading.RLock()
_tracing = 0
_saved: list[tuple[type, str, Any]] = []


@contextlib.contextmanager
def named_modules() -> Iterator[None]:
    """Opens scopes for the modules of linen and nnx for the time of a trace.

    Methods of nnx module classes are wrapped while any thread is inside, and only act in threads
    (contexts) that are.
    """
    if "flax" not in sys.modules:
        yield
        return
    from flax import linen

    token, path_token = _modules.set({}), _current.set(())
    _install()
    try:
        with linen.override_named_call(True):
            yield
    finally:
        _uninstall()
        _modules.reset(token)
        _current.reset(path_token)


def _install() -> None:
    global _tracing
    with _lock:
        _tracing += 1
        if _tracing > 1 or "flax.nnx" not in sys.modules:
            return
        from flax import nnx

        for cls in _subclasses(nnx.Module):
            for name, method in list(vars(cls).items()):
                own = not cls.__module__.startswith("flax.") and not name.startswith("_")
                if (name == "__call__" or own) and inspect.isfunction(method):
                    _saved.append((cls, name, method))
                    setattr(cls, name, _scoped(method))


def _uninstall() -> None:
    global _tracing
    with _lock:
        _tracing -= 1
        while _tracing == 0 and _saved:
            cls, name, method = _saved.pop()
            setattr(cls, name, method)


def _subclasses(cls: type) -> set[type]:
    found: set[type] = set()
    stack = [cls]
    while stack:
        new = [sub for sub in stack.pop().__subclasses__() if sub not in found]
        found.update(new)
        stack.extend(new)
    return found


def _scoped(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        modules = _modules.get()
        if modules is None:
            return method(self, *args, **kwargs)
        path, here = _path_of(self, modules), _current.get()
        below = path[len(here) :] if path[: len(here)] == here else path
        token = _current.set(path)
        try:
            with contextlib.ExitStack() as stack:
                for name in below:
                    stack.enter_context(jax.named_scope(name))
                return method(self, *args, **kwargs)
        finally:
            _current.reset(token)

    return call


def _path_of(module: Any, modules: dict[int, tuple[Any, Path]]) -> Path:
    """Place of a module in its model; the first one called is the model itself."""
    if id(module) not in modules:
        from flax import nnx

        for path, inner in nnx.iter_modules(module):
            modules.setdefault(id(inner), (inner, tuple(str(part) for part in path)))
        modules.setdefault(id(module), (module, ()))
    return modules[id(module)][1]
