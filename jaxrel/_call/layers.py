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
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

Path = tuple[str, ...]


def leaf_paths(fun: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[int, Path]:
    """Names the layers of the array leaves that ``fun`` reads, by ``id`` of the leaf.

    Args:
      fun: a module that is a pytree, a bound method, a partial, or a function that reaches such
        things by its closure or by globals.
      args, kwargs: what it is called with.

    Returns:
      ``id`` of the leaf -> path of keys, indices and attributes to its layer.
    """
    names: dict[int, Path] = {}
    for root in (*reachable(fun), *args, *kwargs.values()):
        root = root.variables if getattr(root, "scope", None) is not None else root  # bound linen
        for path, leaf in _leaves(root):
            names.setdefault(id(leaf), _layer(path))
    return names


def _leaves(root: Any, depth: int = 2) -> Iterator[tuple[Path, Any]]:
    """Array leaves with their paths; objects that are no pytrees are looked into by attribute."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(root):
        path = tuple(_key_name(key) for key in keys)
        if hasattr(leaf, "shape"):
            yield path, leaf
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, _NO_HOLDERS):
            for name, held in vars(leaf).items():
                yield from (((*path, name, *p), x) for p, x in _leaves(held, depth - 1))


_NO_HOLDERS = (type, types.ModuleType, types.FunctionType)


def _layer(path: Path) -> Path:
    """The layer of a leaf: without the collection before it and the parameter's name after it."""
    path = tuple(name for name in path if not name.startswith("_"))  # of wrappers
    after = len(path) - path[::-1].index("params") if "params" in path[:-1] else 0
    layer = path[after:]
    layer = layer[:-1] if layer[-1:] == ("value",) else layer
    return layer[:-1] if len(layer) > 1 or len(layer) < len(path) else layer


def _key_name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def reachable(fun: Any, depth: int = 4) -> Iterator[Any]:
    """What a callable holds: itself, its ``self``, closure, globals, and those of what it wraps."""
    if not inspect.isfunction(fun):
        yield fun
    if depth == 0:
        return
    if isinstance(fun, functools.partial):
        yield from (*fun.args, *fun.keywords.values())
        yield from reachable(fun.func, depth - 1)
    if inspect.ismethod(fun):
        yield fun.__self__
    for cell in getattr(fun, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            content = cell.cell_contents
            yield from reachable(content, depth - 1) if callable(content) else (content,)
    yield from _globals(fun)
    wrapped = getattr(fun, "__wrapped__", None)
    if wrapped is not None:
        yield from reachable(wrapped, depth - 1)


def _globals(fun: Any) -> Iterator[Any]:
    """The globals that a function's code names, but for modules, classes and functions."""
    code = getattr(fun, "__code__", None)
    if code is None or _is_library(fun):
        return
    codes = [code]
    while codes:
        code = codes.pop()
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
        held = (fun.__globals__.get(name) for name in code.co_names)
        yield from (value for value in held if not isinstance(value, _NO_HOLDERS))


def _is_library(fun: Any) -> bool:
    return str(getattr(fun, "__module__", "")).split(".")[0] in ("jax", "flax", "equinox", "haiku")


_modules: contextvars.ContextVar[dict[int, tuple[Any, Path]] | None]
_modules = contextvars.ContextVar("jaxrel_nnx_modules", default=None)
_current: contextvars.ContextVar[Path] = contextvars.ContextVar("jaxrel_nnx_path", default=())
_lock = threading.RLock()
_tracing = 0
_saved: list[tuple[type, str, Any]] = []


@contextlib.contextmanager
def named_modules(roots: Iterable[Any] = ()) -> Iterator[set[str]]:
    """Opens scopes for the modules of linen and nnx for the time of a trace.

    Yields:
      A set that gets the scope names of the linen models that are called in that time.

    Args:
      roots: what the function reaches; nnx models among them are the roots of their modules' paths.
        Any other nnx model is known by the first of its modules that is called.

    Methods of nnx module classes are wrapped while any thread is inside, and only act in threads
    (contexts) that are.
    """
    models: set[str] = set()
    if "flax" not in sys.modules:
        yield models
        return
    from flax import linen

    def note(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if module.scope is not None and not module.path:
            models.add(module.name or type(module).__name__)
        return method(*args, **kwargs)

    modules: dict[int, tuple[Any, Path]] = {}
    if "flax.nnx" in sys.modules:
        from flax import nnx

        for root in roots:
            if isinstance(root, nnx.Module):
                _path_of(root, modules)
    token, path_token = _modules.set(modules), _current.set(())
    _install()
    try:
        with linen.override_named_call(True), linen.intercept_methods(note):
            yield models
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
