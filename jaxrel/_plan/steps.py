"""The data of a plan: facts about values, groups of nodes, steps.

A :class:`Step` is what one rule applies to. It is plain data, can be printed, and is tested without
running anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from .graph import Node, Path


class Role(NamedTuple):
    """What a value is when it meets another in a product.

    Attributes:
      name: ``"weights"``: a linear combination of shares, of a softmax say; ``"sigmoid"``;
        ``"nonlinear"``: an elementwise function that is not linear.
      axes: of weights, the dimensions along which the shares add up; None: not known.
    """

    name: str
    axes: frozenset[int] | None = None


class Fact(NamedTuple):
    """What is known of a value before anything runs.

    Attributes:
      live: depends on an explained input through something differentiable.
      depends: depends on an explained input in any way (a comparison, an argmax ...).
      nonneg: every element is known to be >= 0.
      first: reads an explained input through no layer with parameters: it was moved, scaled,
        shifted, resized.
      origin: path of the parameter leaf it was made from alone, where that has a name.
      made: made of literals and counting alone: no parameter is in it.
      role: see :class:`Role`.
      data: depends on an argument, where relevance starts at places; see
        :class:`~jaxrel._plan.places.Marks`.
    """

    live: bool = False
    depends: bool = False
    nonneg: bool = False
    first: bool = False
    origin: Path = ()
    made: bool = False
    role: Role | None = None
    data: bool = False


CONSTANT = Fact()
INPUT = Fact(live=True, depends=True, first=True)


class Shares(NamedTuple):
    """Where a softmax has its parts.

    Attributes:
      exponential: position in the step's nodes of what makes the exponentials; None: the step's
        live operand is what is shared out.
      total: number of the value that is their sum.
      is_share: whether it is divided by (else its logarithm is taken).
      guarded: number of the value that is divided by, if that is their sum and a constant, or no
        less than one; None: it is their sum.
      along: where shares are shared out again, the axes along which they were before.
    """

    exponential: int | None
    total: int
    is_share: bool
    guarded: int | None = None
    along: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Nodes that one step executes together.

    Attributes:
      kind: kind of the step.
      variant: finer kind within ``kind``, or ``""``.
      nodes: indices into the graph's nodes, in order; the last one makes the results.
      live: value numbers of the step's live operands; empty: the live operands of its only node.
      homogeneous: f(cx) = c f(x) for every c > 0, and f' is the derivative of that.
      linear_read: (node, operand) positions of a read of x that f is linear in, if there is one.
      power: of a quotient a / v^power.
      shares: of a softmax.
      by_value: it holds calls whose declared derivative may not be that of their body; what counts
        is the body's.
    """

    kind: str
    nodes: tuple[int, ...]
    live: tuple[int, ...] = ()
    variant: str = ""
    homogeneous: bool = False
    linear_read: tuple[int, int] | None = None
    power: float = 1.0
    shares: Shares | None = None
    by_value: bool = False


UNRULED = frozenset({"constant", "place"})
"""Kinds of steps that have no rule."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One thing to execute, and what a rule set can match it by.

    Attributes:
      kind: ``matmul``, ``nonlinearity``, ``maximum``, ``product``, ``quotient``,
        ``normalization``, ``softmax``, ``sum``, ``linear``, ``other``, ``control``, ``place`` (see
        :mod:`jaxrel._plan.places`), or ``constant`` (nothing live goes in or comes out).
      variant: ``dense`` or ``conv`` (matmul), ``attention`` or ``gate`` (product), ``selection``
        or ``scatter`` (maximum), ``scale`` (normalization), ``pool`` (linear: a mean), ``affine``
        (linear: scales and shifts that were not folded), ``elementwise``, ``polynomial``,
        ``decomposition`` or ``solve`` (other), or ``""``.
      operation: how a person would name it, ``silu`` or ``dot_general+add``.
      names: primitive and call names by which a rule set may match it.
      path: layer path; by scopes alone until :mod:`jaxrel._plan.layers` has seen the plan.
      origin: path of the parameter leaf that it reads, where that has a name.
      nodes: what is executed, in order.
      operands: value numbers read; of a node on its own those of its equation, in order.
      live: positions of the live operands in ``operands``, in the order rules see them.
      results: value numbers made.
      first: a matmul that reads an explained input through no other layer.
      nonneg: for each live operand whether it is known to be >= 0.
      homogeneous, linear_read, power, shares, by_value: see :class:`Group`.
      by_rows: it is computed on rows in memory, among others that are computed on columns.
      begins: of a nonlinearity, see :func:`jaxrel._plan.chains.beginning`.
      bodies: nested plans of a control step.
      shapes: shapes of the live operands and of the results, for people.
    """

    kind: str
    variant: str
    operation: str
    names: frozenset[str]
    path: Path
    nodes: tuple[Node, ...]
    operands: tuple[int, ...]
    live: tuple[int, ...]
    results: tuple[int, ...]
    origin: Path = ()
    first: bool = False
    nonneg: tuple[bool, ...] = ()
    homogeneous: bool = False
    linear_read: tuple[int, int] | None = None
    power: float = 1.0
    shares: Shares | None = None
    by_value: bool = False
    begins: int = 1
    by_rows: bool = False
    bodies: tuple[Plan, ...] = ()
    shapes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def source(self) -> str:
        """``file:line (function)`` of the user's code that made it."""
        return self.nodes[-1].source

    @property
    def location(self) -> str:
        """The layer path as text, ``"Block_0/Dense_1"``."""
        return "/".join(self.path)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Steps in order of execution, and where values come from and go to.

    Attributes:
      steps: what to do.
      inputs: value numbers of the arguments.
      outputs: value numbers of the results.
      constants: literals and closed-over values by number.
      live_inputs: for each input whether it is live.
      live_outputs: for each output whether it is live.
      avals: shape and dtype of each value number.
      jaxpr: what was read, to be executed as it is where no step has a rule of its own; None: there
        is none, the steps are some of another plan's.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, Any]
    live_inputs: tuple[bool, ...]
    live_outputs: tuple[bool, ...]
    avals: dict[int, Any]
    jaxpr: Any

    def walk(self) -> Iterator[Step]:
        """Every step that a rule can apply to, nested ones after the step that holds them."""
        for step in self.steps:
            if step.kind not in UNRULED:
                yield step
            for body in step.bodies:
                yield from body.walk()
