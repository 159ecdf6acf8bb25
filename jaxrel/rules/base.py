"""What a rule is, and what it sees of the step it is applied to.

A rule maps the multiplier m = R / x of a step's output to those of its live inputs. It is a
function ``rule(view, m) -> multipliers``; the ones here are small frozen dataclasses, registered as
pytrees whose leaves are the hyper-parameters, so that these can be traced, swept by ``vmap`` and
trained.
Rules know no jaxpr: everything they may ask of their step is in a :class:`View`.

A rule of one's own is any callable of that signature:

    def half_gradient(view, m):
        return tuple(0.5 * v for v in view.vjp(m))

    relevance(fun, RuleSet() | {"tanh": half_gradient})

It is applied forwards only: it is never differentiated into a wrong answer, since the residuals it
reads (``view.inputs``, ``view.output``) carry the true derivatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from .numerics import NO_POLE, check_number, difference, far, finite, register


@dataclasses.dataclass(frozen=True)
class View:
    """What a rule sees of its step, in float32 at least whatever the step's own type.

    Attributes:
      function: the step as a function of its live inputs, everything else being constant.
      inputs: values of the live inputs. For a product that has attention weights or a gate on one
        side, that side comes first.
      output: value of the step; a tuple for steps with several outputs.
      candidates: for a maximum, the linear map from the inputs to a stack ``(k, *output.shape)`` of
        the values it is taken of (padding is -inf for max, +inf for min); else None.
      minimum: whether the maximum is a minimum.
      variant: ``"dense"``, ``"conv"``, ``"attention"``, ``"gate"``, ``"selection"``,
        ``"scatter"``, ``"scale"``, ``"elementwise"``, ``"polynomial"``,
        ``"decomposition"``, ``"solve"`` or ``""``.
      factor: for a nonlinearity of the form f(x) = x g(x) (gelu, silu ...) g; else None.
      nonneg: for each input whether it is known to be >= 0.
      homogeneous: for a nonlinearity whether f(c x) = c f(x) for every c > 0.
      quotient: whether the step divides its first input by its second, or by a power of it; a
        normalization does.
      power: the power of the second input that is divided by.
      rounded: whether the step itself computes in fewer than 32 bits: ``output`` was rounded there
        (but that of a nonlinearity, which is computed again), while all else here is in float32.
      plain: for a step that is linear or bilinear, and rounded, its VJP in its own type: the
        gradient's; else None.
      affine: for a matmul, what takes it apart into weights and bias
        (:class:`jaxrel._execute.affine.Affine`); else None.
      selection: for ``sort`` and ``top_k``, along which axis and in which order; else None.
      exponentials: for a softmax what takes it apart (:class:`Exponentials`); else None.
      system: for the solution y of A y = b, what takes it apart into A and b
        (:class:`jaxrel._execute.systems.System`); else None.
      baseline: the same step at the baseline, if there is one; else None.
    """

    function: Callable[..., Any]
    inputs: tuple[jax.Array, ...]
    output: Any
    candidates: Callable[..., jax.Array] | None = None
    minimum: bool = False
    variant: str = ""
    factor: Callable[[jax.Array], jax.Array] | None = None
    nonneg: tuple[bool, ...] = ()
    homogeneous: bool = False
    quotient: bool = False
    power: float = 1.0
    rounded: bool = False
    plain: Callable[[Any], Sequence[jax.Array]] | None = None
    affine: Callable[[], Affine] | None = None
    selection: Selection | None = None
    exponentials: Callable[[], Exponentials] | None = None
    system: Callable[[], System] | None = None
    baseline: View | None = None

    @property
    def origins(self) -> tuple[jax.Array, ...]:
        """What the inputs are compared to: their values at the baseline, or 0."""
        if self.baseline is None:
            return tuple(jnp.zeros_like(x) for x in self.inputs)
        return self.baseline.inputs

    @property
    def differences(self) -> tuple[jax.Array, ...]:
        """Inputs minus those at the baseline; the inputs themselves if there is none."""
        if self.baseline is None:
            return self.inputs
        return tuple(map(difference, self.inputs, self.baseline.inputs))

    @property
    def change(self) -> Any:
        """Output minus that at the baseline; the output itself if there is none."""
        if self.baseline is None:
            return self.output
        return jax.tree.map(difference, self.output, self.baseline.output)

    def of_differences(self) -> View:
        """An affine step as the linear map from differences to differences."""
        affine = self.affine

        def unbiased() -> Affine:
            assert affine is not None
            return affine().without_bias()

        return dataclasses.replace(
            self,
            inputs=self.differences,
            output=self.change,
            nonneg=(False,) * len(self.inputs),
            affine=None if affine is None else unbiased,
            baseline=None,
        )

    def vjp(self, m: Any) -> tuple[jax.Array, ...]:
        """The plain VJP: what the gradient would send to each input.

        Of what is linear in the step's own type, as the gradient has it: m alone is rounded.
        """
        if self.plain is not None:
            return tuple(self.plain(m))
        _, pullback = jax.vjp(self.function, *self.inputs)
        return pullback(m)


class Affine(Protocol):
    """z = linear(x, weight) + bias; see :class:`jaxrel._execute.affine.Affine`."""

    @property
    def linear(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The map (x, weight) -> z without bias; linear in each."""
        ...

    @property
    def weight(self) -> jax.Array:
        """Effective weights, scales folded in."""
        ...

    @property
    def bias(self) -> jax.Array | None:
        """Effective bias in z's shape; None where nothing is added."""
        ...

    @property
    def of_ones(self) -> Callable[[jax.Array], jax.Array]:
        """The map weight -> linear(1, weight)."""
        ...

    def back(self, like: jax.Array, weight: jax.Array, s: jax.Array) -> jax.Array:
        """The transpose of ``linear`` with the given weights, applied to ``s``."""
        ...

    def sums(
        self, xs: Sequence[jax.Array], weights: Sequence[Sequence[jax.Array]]
    ) -> list[jax.Array]:
        """The sums sum_r linear(x_r, W_rk), by one contraction where there is one."""
        ...

    def backs(
        self, like: jax.Array, weights: Sequence[Sequence[jax.Array]], s: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """The transpose of ``sums``: sum_k W_rk^T s_k."""
        ...

    def without_bias(self) -> Affine:
        """The same with None for the bias."""
        ...


@dataclasses.dataclass(frozen=True)
class Selection:
    """How ``sort`` or ``top_k`` orders its operand.

    Attributes:
      axis: along which it is sorted.
      descending: the largest first.
      exact: there is one operand, and what is returned are its first in that order; not so for
        several, and for ``approx_top_k``.
    """

    axis: int
    descending: bool
    exact: bool


@dataclasses.dataclass(frozen=True)
class Exponentials:
    """A softmax, or a log-sum-exp, y = q(exp(u)).

    Attributes:
      of: q, from exponentials to the step's output.
      total: from exponentials to the sum that they are divided by.
      log_base: logarithm of the base, 1 for exp; None: the step's input are the exponentials.
      is_share: whether q divides by the total (softmax); else it takes its logarithm.
    """

    of: Callable[[jax.Array], jax.Array]
    total: Callable[[jax.Array], jax.Array]
    log_base: float | None
    is_share: bool


class System(Protocol):
    """A y = b, where A and b are made of some of a step's inputs.

    See :mod:`jaxrel._execute.systems`.
    """

    @property
    def matrix(self) -> tuple[int, ...]:
        """Which of the view's inputs A is made of."""
        ...

    @property
    def rhs(self) -> tuple[tuple[int, int], ...]:
        """Which of the view's inputs are parts of b, and which parts they are."""
        ...

    @property
    def solution(self) -> list[jax.Array]:
        """The parts of y."""
        ...

    @property
    def back(self) -> Callable[[Any], list[jax.Array]]:
        """The transposed solution: multipliers of the step's output -> of the parts of b."""
        ...

    @property
    def apply(self) -> Callable[[Sequence[jax.Array], Sequence[jax.Array]], list[jax.Array]]:
        """A y: values for the inputs that A is made of, the parts of a y -> parts of A y."""
        ...


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
        """Checks what hyper-parameters there are that are Python numbers."""
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
    return sum(parts, start=jnp.zeros(()))


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
        _, pullback = jax.vjp(lambda v: view.function(v, *rest), value)
        return (*pullback(m), *(None for _ in rest))
