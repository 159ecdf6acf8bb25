"""What a rule is.

A rule maps the multiplier m = R / x of a step's output to those of its live inputs. It is a
function ``rule(view, m) -> multipliers``; the ones here are small frozen dataclasses, registered as
pytrees whose leaves are the hyper-parameters, so that these can be traced, swept by ``vmap`` and
trained.
Rules know no jaxpr: everything they may ask of their step is in a
:class:`~jaxrel.rules.View`.

A rule of one's own is any callable of that signature:

    def half_gradient(view, m):
        return tuple(0.5 * v for v in view.vjp(m))

    relevance(fun, RuleSet() | {"tanh": half_gradient})

It is applied forwards only: it is never differentiated into a wrong answer, since the residuals it
reads (``view.inputs``, ``view.output``) carry the true derivatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from .numerics import NO_POLE, check_number, check_type, far, finite, register
from .view import View


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a rule returns whose relevance is not all proportional to x.

    Each value has a companion that is worth 1 and enters nothing; its multiplier is relevance
    itself: R = x multiplier + 1 relevance. Exact at x = 0.

    Attributes:
      multiplier: what is proportional to x, or None.
      relevance: what is not; of x's shape.
    """

    multiplier: jax.Array | None
    relevance: jax.Array


class RuleFunction(Protocol):
    """The signature of a rule."""

    def __call__(self, view: View, m: Any, /) -> Any:
        """Maps the multiplier of the output to those of the inputs.

        Args:
          view: the step.
          m: multiplier of the output, of its shape; a tuple for several outputs.

        Returns:
          A tuple with one multiplier for each of ``view.inputs``, of its shape (None for zero); or
          the multiplier itself where there is one input.
        """
        ...


class Rule:
    """Base class of the rules in this package; a :class:`RuleFunction` with a declared domain.

    Attributes:
      kinds: kinds of steps the rule has a formula for; empty: any.
      emits_unit: whether it returns a :class:`Unit`.
      baseline: whether it has a formula with a baseline, and without one.
    """

    kinds: ClassVar[frozenset[str]] = frozenset()
    emits_unit: ClassVar[bool] = False
    baseline: ClassVar[frozenset[bool]] = frozenset({True, False})

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """Tells whether the rule is the plain VJP on a step with these properties.

        Such steps are executed as they are: nothing is added to what ``jax.grad`` does.
        """
        del homogeneous, variant
        return False

    def __post_init__(self):
        """Checks that hyper-parameters are numbers, and what there are that are Python's."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            check_type(self, field.name, field.default)
        for name in ("eps", "blip"):
            if hasattr(self, name):
                check_number(self, name, 0, NO_POLE)

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """Positions of the live inputs that get anything, of a step of a kind with so many.

        What is reached by none of its readers need not be explained.
        """
        del kind, variant
        return tuple(range(inputs))

    def to_bias(self, view: View, m: Any) -> jax.Array:
        """Relevance that goes to the step's additive constants, in the output's shape or in all.

        By default f(0) m: what the plain VJP, and the slope, leave to them. A pole at 0 is
        worth nothing, nor is NaN; what is infinite at x too is no more than
        :func:`~jaxrel.rules.numerics.far`. A maximum leaves to them what they win: f(x) - J x.
        """
        if view.candidates is not None or view.selection is not None:
            z, of_live = jax.jvp(view.function, view.inputs, view.inputs)
            f0 = jax.tree.map(lambda a, b: a if b.dtype == jax.dtypes.float0 else a - b, z, of_live)
        elif view.affine is not None:  # W 0 = 0, without multiplying
            f0 = view.affine().bias
            f0 = jnp.zeros_like(view.output) if f0 is None else f0
        else:
            f0 = view.function(*(jnp.zeros_like(x) for x in view.inputs))
        f0 = jax.tree.map(lambda a, z: finite(jnp.where(a == z, far(a), a)), f0, view.output)
        return total(f0, m) if isinstance(f0, tuple) else m * f0

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        raise TypeError(f"{type(self).__name__} is abstract")


def total(values: Any, m: Any) -> jax.Array:
    """The relevance of values with these multipliers, in all; integers have none."""
    pairs = zip(jax.tree.leaves(values), jax.tree.leaves(m), strict=True)
    parts = (jnp.sum((z * w).real) for z, w in pairs if w.dtype != jax.dtypes.float0)
    return sum(parts, start=jnp.asarray(0.0))


T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def rule(*kinds: str) -> Callable[[type[T]], type[T]]:
    """Makes a class a rule: a frozen dataclass and a pytree, for steps of the given kinds.

    Fields whose annotation is ``bool``, ``str`` or ``int`` choose between formulas and are static;
    all others are hyper-parameters and leaves of the pytree.
    """

    def decorate(cls: type[T]) -> type[T]:
        cls.kinds = frozenset(kinds)  # type: ignore[attr-defined]
        cls = dataclasses.dataclass(frozen=True)(cls)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        static = [f.name for f in fields if _is_static(f.type)]
        leaves = [f.name for f in fields if f.name not in static]
        register(cls, leaves, static)
        return cls

    return decorate


def _is_static(annotation: Any) -> bool:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return set(name.split(" | ")) <= {"bool", "str", "int"}


@rule()
class Gradient(Rule):
    """m_x = vjp(m): what ``jax.grad`` does. For a step of any kind; LRP-0 on a matmul."""

    def is_gradient(self, homogeneous: bool, variant: str) -> bool:
        """Always."""
        return True

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        return view.vjp(m)


@rule("quotient", "normalization", "softmax")
class Detach(Rule):
    """Part of the step is a constant and gets nothing.

    quotient: the denominator; all goes to the numerator. normalization: the statistic (the mean
    that is subtracted stays linear; whatever else reads the statistic keeps its own). softmax: the
    logits, so the attention weights are constants (CP-LRP, Ali et al. 2022).
    """

    def reached(self, kind: str, variant: str, inputs: int) -> tuple[int, ...]:
        """The numerator, if it is live."""
        return (0,) if inputs > 1 else ()

    def __call__(self, view: View, m: Any, /) -> Any:
        """See :class:`RuleFunction`."""
        if len(view.inputs) == 1:  # logits, or the denominator below a constant
            return (None,)
        value, *rest = view.inputs
        function = view.guarded(m)
        _, pullback = jax.vjp(lambda v: function(v, *rest), value)
        return (*pullback(m), *(None for _ in rest))
