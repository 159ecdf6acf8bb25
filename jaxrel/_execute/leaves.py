"""Arguments that are leaves, such as parameters: relevance ends at them, and is not shared there.

    m = vjp(fun', w)(1),  R = w m

where fun' is the function rewritten by the rules for its other arguments. With respect to anything
else every step keeps its plain VJP: where a weight w meets a live value a, that is a times the
multiplier of what they make, and R = w a m.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._call.arguments import Arguments
from ..rulesets.assign import assign
from ..rulesets.ruleset import RuleSet
from .evaluate import evaluate
from .explanation import trace
from .pullback import Asked, pull


def beside_leaves(
    fun: Callable[..., Any],
    args: tuple,
    kwargs: Mapping[str, Any],
    argnums: int | Sequence[int],
    asked: Asked,
    multiples: bool,
) -> tuple[Any, Any]:
    """What a function returns and the relevances asked for, some of the arguments being leaves.

    Raises:
      ValueError: they are not among those explained, or there is a baseline.
      TypeError: nothing is left that the function could be explained by.
    """
    every, leaves = (Arguments(fun, args, kwargs, given) for given in (argnums, asked.leaves))
    if not set(leaves.argnums) <= set(every.argnums):
        raise ValueError(
            f"leaves: {asked.leaves!r} are not all among argnums={argnums!r}, the arguments that "
            "are explained."
        )
    if asked.baseline is not None:
        raise ValueError(
            "leaves: there is no baseline of parameters, which stay as they are. Explain them "
            'without: relevance(fun, "slope", argnums=argnums, leaves=leaves).'
        )
    leaves.check()
    live = Arguments(fun, args, kwargs, _live(args, every.argnums, leaves.argnums))
    out, pullback = pull(live, asked, multiples)
    found = pullback(jnp.ones_like(out[0] if asked.has_aux else out))
    made = dict(zip(live.argnums, found.arguments, strict=True))
    made |= _of_leaves(leaves, live, asked.rules, multiples)
    whole = dataclasses.replace(found, arguments=[made[k] for k in every.argnums])
    return out, whole.of(every, asked)


def _live(args: tuple, explained: Sequence[int], leaves: Sequence[int]) -> tuple[int, ...]:
    """The arguments that rules explain the function by.

    Raises:
      TypeError: there are none.
    """
    if not set(explained) <= set(leaves):
        return tuple(k for k in explained if k not in leaves)
    others = [k for k in range(len(args)) if k not in leaves]
    found = tuple(k for k in others if all(map(_is_float, jax.tree.leaves(args[k]))))
    if not found:
        raise TypeError(
            f"leaves: beside {tuple(leaves)} there is no argument of floats that the function "
            "could be explained by. Give it what is looked up (embeddings, say) as an argument."
        )
    return found


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _of_leaves(
    leaves: Arguments, live: Arguments, rules: RuleSet, multiples: bool
) -> dict[int, Any]:
    """R = w m, or m, by argument."""

    def value(given: list[Any]) -> Any:
        args = list(leaves.args)
        for k, tree in zip(leaves.argnums, leaves.restore(given), strict=True):
            args[k] = tree
        call = Arguments(live.fun, tuple(args), live.kwargs, live.argnums)
        plan, _ = trace(call, rules, explained=1)
        return evaluate(plan, assign(plan, rules, explained=1), call.leaves)[0]

    out, pullback = jax.vjp(value, leaves.leaves)
    (m,) = pullback(jnp.ones_like(out))
    found = m if multiples else list(map(jnp.multiply, leaves.leaves, m))
    return dict(zip(leaves.argnums, leaves.restore(found), strict=True))
