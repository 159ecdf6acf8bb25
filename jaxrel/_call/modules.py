"""Scopes for the layers of frameworks that open none, while a function is traced.

linen and haiku open a ``named_scope`` for every module. nnx opens none and equinox one by the name
of a class, so the methods of their modules are wrapped for the time of one trace to open the scope
of the module's place in its model (``blocks/0/attn``). What stands in a module is then known to do
so, whether it reads parameters or not. For stax see :mod:`jaxrel._call.combinators`.

A module is known by its identity, among what the function reaches or within a module that is being
called. One that was made anew on the way (by ``jit``, ``scan`` over stacked layers, ``nnx.merge``,
``eqx.combine``) is not: it opens a scope of an unknown place, ``?7``, and the plan finds the place
by the parameters that are read there; see :mod:`jaxrel._plan.layers`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import CellType
from typing import Any, NamedTuple

import jax

from .combinators import combined, scoped_layers
from .layers import Path, key_name, leaves_of, reachable

_modules: contextvars.ContextVar[dict[int, Path] | None]
_modules = contextvars.ContextVar("jaxrel_modules", default=None)
_current: contextvars.ContextVar[Path] = contextvars.ContextVar("jaxrel_path", default=())
_unknown = itertools.count()
_ITSELF = "~"
"""The scope of a model within itself, which is no layer."""
# jaxprs that jit has kept from before have no scopes, and may have others
_named = jax.make_user_context(False)
_lock = threading.RLock()
_tracing = 0
_saved: list[tuple[Any, str, Any]] = []
_wrapped: dict[int, tuple[Any, Any]] = {}


class _Framework(NamedTuple):
    """Modules that open no scopes.

    Attributes:
      base: the class of all modules.
      layers: the package of the framework's own layers.
      inside: from an object to the modules in it and their paths.
    """

    base: type
    layers: str
    inside: Callable[[Any], Iterable[tuple[Path, Any]]]


def _frameworks() -> Iterator[_Framework]:
    if "flax.nnx" in sys.modules:
        from flax import nnx

        def inside(root: Any) -> Iterable[tuple[Path, Any]]:
            found = nnx.iter_modules(root) if isinstance(root, nnx.Module) else ()
            return ((tuple(map(str, path)), module) for path, module in found)

        yield _Framework(nnx.Module, "flax.", inside)
    if "equinox" in sys.modules:
        import equinox

        yield _Framework(equinox.Module, "equinox.nn.", lambda root: _nodes(root, equinox.Module))


def _nodes(root: Any, base: type) -> Iterator[tuple[Path, Any]]:
    """Nodes of a pytree that are of a class, with their paths."""
    if isinstance(root, base):
        yield (), root
    below = leaves_of(root, lambda node: node is not root and isinstance(node, base))
    for keys, node in below:
        if isinstance(node, base):
            names = [name for name in map(key_name, keys) if not name.startswith("_")]
            yield from (((*names, *path), inner) for path, inner in _nodes(node, base))


@contextlib.contextmanager
def named_modules(fun: Any, args: Iterable[Any]) -> Iterator[set[str]]:
    """Opens scopes for the modules of linen, nnx, equinox and stax for the time of a trace.

    Yields:
      A set that gets the scope names of the linen models that are called in that time.

    Args:
      fun, args: what is traced. The modules that it reaches, and those in its arguments, are known.

    Methods of module classes are wrapped while any thread is inside, and only act in threads
    (contexts) that are.
    """
    models: set[str] = set()
    frameworks = list(_frameworks())
    cells = list(combined(fun)) if "jax.example_libraries.stax" in sys.modules else []
    modules: dict[int, Path] = {}
    roots = (*reachable(fun), *args)  # some made here; an id is one's own for as long as it lives
    for root, framework in itertools.product(roots, frameworks):
        for path, module in framework.inside(root):
            modules.setdefault(id(module), path)
    token, path_token = _modules.set(modules), _current.set(())
    _install(frameworks, cells)
    try:
        with _linen_scopes(models), _named(bool(frameworks or cells)):
            yield models
    finally:
        _uninstall()
        _modules.reset(token)
        _current.reset(path_token)


def own_scope(fun: Any) -> contextlib.AbstractContextManager:
    """The scope of the model itself for its method that was bound before methods were wrapped."""
    bases = tuple(framework.base for framework in _frameworks())
    while fun is not None and not isinstance(getattr(fun, "__self__", None), bases):
        fun = getattr(fun, "__wrapped__", getattr(fun, "func", None))
    return contextlib.nullcontext() if fun is None else jax.named_scope(_ITSELF)


@contextlib.contextmanager
def _linen_scopes(models: set[str]) -> Iterator[None]:
    if "flax" not in sys.modules:
        yield
        return
    from flax import linen

    def note(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if module.scope is not None and not module.path:
            models.add(module.name or type(module).__name__)
        return method(*args, **kwargs)

    with linen.override_named_call(True), linen.intercept_methods(note):
        yield


def _install(frameworks: Iterable[_Framework], cells: Iterable[CellType]) -> None:
    global _tracing
    with _lock:
        _tracing += 1
        for cell in cells:
            if all(holder is not cell for holder, _, _ in _saved):
                _put(cell, "cell_contents", scoped_layers(cell, _modules.get, _unknown))
        if _tracing > 1:
            return
        for framework in frameworks:
            for cls in _subclasses(framework.base):
                for name, method in list(vars(cls).items()):
                    if _is_method(framework, cls, name, method):
                        _put(cls, name, _scoped(method, framework))


def _put(holder: Any, name: str, value: Any) -> None:
    before = vars(holder)[name] if isinstance(holder, type) else getattr(holder, name)
    _saved.append((holder, name, before))
    setattr(holder, name, value)


def _uninstall() -> None:
    global _tracing
    with _lock:
        _tracing -= 1
        while _tracing == 0 and _saved:
            setattr(*_saved.pop())


def _is_method(framework: _Framework, cls: type, name: str, method: Any) -> bool:
    """Tells whether it is one that the user calls: of a layer ``__call__``, of the user's own any.

    It may be a function, or one that was jitted.
    """
    if not callable(method) or isinstance(method, type | staticmethod | classmethod):
        return False
    if not hasattr(type(method), "__get__") or name in getattr(cls, "__dataclass_fields__", ()):
        return False
    where = f"{cls.__module__}."
    package = framework.layers.split(".")[0]
    if where.startswith(f"{package}."):
        return name == "__call__" and where.startswith(framework.layers)
    return name == "__call__" or not name.startswith("_")


def module_path() -> Path:
    """The path of the module that is called, while :func:`named_modules` names them."""
    return _current.get()


def _subclasses(cls: type) -> set[type]:
    found: set[type] = set()
    stack = [cls]
    while stack:
        new = [sub for sub in stack.pop().__subclasses__() if sub not in found]
        found.update(new)
        stack.extend(new)
    return found


def _scoped(method: Any, framework: _Framework) -> Any:
    """A method that opens the scopes of its module, the same for the same method."""
    if id(method) not in _wrapped:

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            modules = _modules.get()
            if modules is None or not isinstance(self, framework.base):
                return method(self, *args, **kwargs)
            with _inside(self, modules, framework):
                return method(self, *args, **kwargs)

        _wrapped[id(method)] = method, call
    return _wrapped[id(method)][1]


@contextlib.contextmanager
def _inside(module: Any, modules: dict[int, Path], framework: _Framework) -> Iterator[None]:
    """Within the scopes of a module; those in it are known for as long as it is being called."""
    here = _current.get()
    met: dict[int, Path] = {}
    if id(module) not in modules:
        unknown = (*here, f"?{next(_unknown)}")
        for path, inner in framework.inside(module):
            if id(inner) not in modules:
                met.setdefault(id(inner), (*unknown, *path))
    modules.update(met)
    path = modules[id(module)]
    below = path[len(here) :] if path[: len(here)] == here else path
    token = _current.set(path)
    try:
        with contextlib.ExitStack() as stack:
            for name in below or (_ITSELF,):
                stack.enter_context(jax.named_scope(name))
            yield
    finally:
        _current.reset(token)
        for key in met:
            del modules[key]
