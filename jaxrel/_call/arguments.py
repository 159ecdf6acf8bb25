"""What a transformed function is called with and what it returns, checked as ``jax.grad`` checks.

Only the explained arguments are flattened and traced. All others are handed to the function as they
are, so that they may be models, strings or whatever it likes.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import shown


class Arguments:
    """A call of ``fun`` with the explained arguments taken apart.

    Attributes:
      fun, args, kwargs: the call.
      argnums: indices of the explained arguments, none negative.
      leaves: their leaves.
      explains: False: they are not explained themselves, but only differ at a baseline. Then they
        may be integers.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple,
        kwargs: Mapping[str, Any],
        argnums: int | Sequence[int],
        explains: bool = True,
    ):
        """Takes the call apart.

        Raises:
          ValueError: ``argnums`` is out of range or names an argument twice.
          TypeError: ``argnums`` is neither an integer nor a sequence of integers.
        """
        self.fun, self.args, self.kwargs, self.explains = fun, args, kwargs, explains
        self.single = hasattr(argnums, "__index__")
        self.argnums = _indices(argnums, len(args), _name(fun))
        explained = [args[k] for k in self.argnums]
        self.leaves: list[Any]
        self.leaves, self.tree = jax.tree.flatten(explained)

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Calls ``fun`` with other leaves for the explained arguments."""
        args = list(self.args)
        for k, value in zip(self.argnums, self.restore(leaves), strict=True):
            args[k] = value
        return self.fun(*args, **self.kwargs)

    def having(self, leaves: Sequence[Any]) -> Arguments:
        """The same call with other leaves for the explained arguments."""
        other = copy.copy(self)
        other.leaves = list(leaves)
        return other

    def names(self) -> list[str]:
        """A name for each explained leaf: ``x``, or ``params['w']``."""
        if not self.explains:
            return []
        try:
            known = list(inspect.signature(self.fun).parameters)
        except (TypeError, ValueError):  # what has no signature
            known = []
        found = []
        for k in self.argnums:
            name = known[k] if k < len(known) else f"argument {k}"
            leaves = jax.tree_util.tree_leaves_with_path(self.args[k])
            found += [f"{name}{jax.tree_util.keystr(keys)}" for keys, _ in leaves]
        return found

    def restore(self, leaves: Sequence[Any]) -> list[Any]:
        """Puts leaves together to the explained arguments."""
        return jax.tree.unflatten(self.tree, leaves)

    def select(self, results: list[Any]) -> Any:
        """One result for an integer ``argnums``, a tuple for a sequence."""
        return results[0] if self.single else tuple(results)

    def check(self) -> None:
        """Checks that every explained leaf is a real floating point array, or a number.

        Raises:
          TypeError: naming argument, leaf and dtype.
        """
        explained = [self.args[k] for k in self.argnums]
        for k, tree in zip(self.argnums, explained, strict=True):
            for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
                if self.explains:
                    _check_leaf(leaf, f"argument {k}{jax.tree_util.keystr(keys)}", _name(self.fun))
        shapes = jax.ShapeDtypeStruct  # what is only traced may be told by shape and dtype
        self.leaves = [x if isinstance(x, shapes) else jnp.asarray(x) for x in self.leaves]


def check_function(name: str, fun: Any) -> None:
    """Checks that what a transformation is given is a function.

    Raises:
      TypeError: in ``name`` 's name, it is not.
    """
    if _is_model_class(fun):
        raise TypeError(
            f"{name}: {fun.__name__} is the class of a model, not a model; make one: "
            f"{fun.__name__}(...)."
        )
    if not callable(fun):
        raise TypeError(
            f"{name}: expected a function, got {type(fun).__name__}: {shown(fun)}. It is called as "
            f"{_CALLS.get(name, f'{name}(fun, rules)(x)')}."
        )


def _is_model_class(fun: Any) -> bool:
    """Tells whether calling it makes a model, which is called in its turn."""
    return isinstance(fun, type) and any("__call__" in vars(base) for base in fun.__mro__)


_CALLS = {
    "relevance_vjp": "relevance_vjp(fun, x, rules=rules)",
    "integrated": "integrated(relevance(fun, rules), baseline)(x)",
    "smooth": "smooth(relevance(fun, rules), key, sigma)(x)",
    "with_multipliers": "with_multipliers(relevance_fn, multipliers)",
    "relevance_loss": "relevance_loss(fun, rules, penalty)(params, x, labels, mask)",
    "relevance_loss: penalty": "penalty(relevance, mask)",
    "relevance_loss: explained": "explained(logits, labels)",
    "relevance_loss: task": "task(logits, labels)",
    "smooth: noise": "noise(key, shape, dtype)",
    "expected": "expected(relevance(fun, rules), baselines)(x)",
}
"""How transformations are called that take more than a function and rules."""


def _name(fun: Any) -> str:
    return getattr(fun, "__name__", type(fun).__name__)


def _indices(argnums: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    try:
        one = hasattr(argnums, "__index__")
        wanted = [operator.index(k) for k in ((argnums,) if one else argnums)]  # type: ignore
    except TypeError:
        raise TypeError(
            f"argnums: expected an int or a sequence of ints, got {argnums!r}."
        ) from None
    for k in wanted:
        if not -count <= k < count:
            raise ValueError(
                f"argnums: {k} is out of range; {name} was called with {count} positional "
                "arguments, and only those can be explained."
            )
    indices = tuple(k % count for k in wanted)
    if len(set(indices)) < len(indices):
        raise ValueError(f"argnums: {argnums!r} names an argument twice.")
    return indices


def _check_leaf(leaf: Any, where: str, name: str) -> None:
    try:
        dtype = jnp.result_type(leaf)
    except TypeError:
        meant = f" Rules are given by name: rules={leaf!r}." if isinstance(leaf, str) else ""
        raise TypeError(
            f"relevance of {name}: {where} is of type {type(leaf).__name__}; only arrays of floats "
            f"can be explained.{meant}"
        ) from None
    if jnp.issubdtype(dtype, jnp.complexfloating):
        way_out = "Explain its real and imaginary parts, two real arguments."
    elif not jnp.issubdtype(dtype, jnp.floating):
        way_out = (
            "A picture is made floats by x.astype(jnp.float32). Of a token explain what is looked "
            'up with it, a float: at="**/Embed_0" (the layer\'s path) with '
            "argnums=()."
        )
    else:
        return
    raise TypeError(
        f"relevance of {name}: {where} has dtype {dtype}; relevance needs real floating point "
        f"inputs. {way_out}"
    )


def check_multiplier(m: Any, value: jax.Array) -> None:
    """Checks what a pullback is called with.

    Raises:
      ValueError: it has not the value's shape.
    """
    if jnp.shape(m) != value.shape:
        raise ValueError(
            f"pullback: the value has shape {value.shape}, its multiplier {jnp.shape(m)}; "
            "jnp.ones_like(value) explains all of it."
        )


class SplitOutput:
    """Splits what a function returns into arrays and the rest, and puts it together again."""

    def __init__(self):
        """Nothing is known before the function is traced."""
        self.tree: Any = None
        self.static: dict[int, Any] = {}
        self.shapes: list[Any] = []  # the arrays themselves would outlive their trace

    def split(self, out: Any) -> list[Any]:
        """Flattens ``out``, keeping aside the leaves that are no arrays."""
        leaves, self.tree = jax.tree.flatten(out)
        # numbers of auxiliary data stay what they are; one that is to be explained is an array
        numbers = bool | int | float | complex
        self.static = {k: v for k, v in enumerate(leaves) if k and isinstance(v, numbers)}
        self.static |= {k: v for k, v in enumerate(leaves) if not _is_array(v)}
        arrays = [v for k, v in enumerate(leaves) if k not in self.static]
        self.shapes = [jax.typeof(v) for v in arrays]
        return arrays

    def restore(self, arrays: Sequence[Any]) -> Any:
        """Puts other arrays in the places of those split off."""
        rest = iter(arrays)
        total = len(self.static) + len(self.shapes)
        leaves = [self.static[k] if k in self.static else next(rest) for k in range(total)]
        return jax.tree.unflatten(self.tree, leaves)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | bool | int | float | complex) or hasattr(leaf, "dtype")


def check_output(fun: Callable[..., Any], output: SplitOutput, has_aux: bool) -> None:
    """Checks that the value of ``fun`` to be explained is one array of real floats.

    Raises:
      TypeError: it is not, or ``has_aux`` is given and it is no pair.
    """
    value = output.tree
    if has_aux:
        parts = value.children()
        if len(parts) != 2:
            raise TypeError(f"has_aux=True: {_name(fun)} must return a pair (array, auxiliary).")
        value = parts[0]
    if not jax.tree_util.treedef_is_leaf(value) or value.num_leaves != 1 or 0 in output.static:
        hint = "" if has_aux else " (return the rest as auxiliary data with has_aux=True)"
        got = type(output.static[0]).__name__ if 0 in output.static else value
        raise TypeError(f"{_name(fun)} must return one array of floats{hint}; got {got}.")
    aval = output.shapes[0]
    if not jnp.issubdtype(aval.dtype, jnp.floating):
        raise TypeError(
            f"{_name(fun)} returned dtype {aval.dtype}; only real floating point values can be "
            "explained."
        )
