"""What a rule sees of its step: a :class:`View`, and what takes steps of some kinds apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .numerics import difference


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
      begins: of a nonlinearity, 1: it is the first of a chain of elementwise functions, which is
        one activation; 0: another comes before it; -1: the first of a mirrored chain, -f(-x).
      quotient: whether the step divides its first input by its second, or by a power of it; a
        normalization does.
      power: the power of the second input that is divided by.
      elementwise: whether an element of the output is made of that element of the inputs alone.
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
    begins: int = 1
    quotient: bool = False
    power: float = 1.0
    elementwise: bool = False
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

    def guarded(self, m: Any) -> Callable[..., Any]:
        """The function, which is not asked, if it is elementwise, where no multiplier arrives.

        There 0 times an infinite factor would be NaN.
        """
        if not self.elementwise:
            return self.function
        return lambda *inputs: self.function(*(jnp.where(m == 0, 1, x) for x in inputs))


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
      guarded: from exponentials to the total and a constant, or to no less than one, where it is
        that which is divided by; else None.
      along: where exponentials are shares of another softmax, the axes that it went along.
    """

    of: Callable[[jax.Array], jax.Array]
    total: Callable[[jax.Array], jax.Array]
    log_base: float | None
    is_share: bool
    guarded: Callable[[jax.Array], jax.Array] | None = None
    along: tuple[int, ...] = ()

    @property
    def whole(self) -> Callable[[jax.Array], jax.Array]:
        """From exponentials to what is divided by."""
        return self.guarded or self.total


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
