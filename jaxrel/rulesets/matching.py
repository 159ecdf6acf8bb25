"""What the rules of a rule set are matched by, and which match wins.

From the most to the least specific: a layer path (glob), the position ``First()``, a primitive or
call name, a variant (``Kind("conv")``), a kind (``Kind("matmul")``), the row of the rule set. Of
two equally specific matches the later one wins.
"""

from __future__ import annotations

import dataclasses

from .._plan.paths import matches_path
from .._plan.steps import Step
from ..errors import did_you_mean

KINDS = (
    "matmul",
    "nonlinearity",
    "maximum",
    "product",
    "quotient",
    "normalization",
    "softmax",
    "sum",
    "linear",
    "other",
)
VARIANTS = {
    "dense": "matmul",
    "conv": "matmul",
    "attention": "product",
    "gate": "product",
    "selection": "maximum",
    "scatter": "maximum",
    "scale": "normalization",
    "pool": "linear",
    "affine": "linear",
    "elementwise": "other",
    "polynomial": "other",
    "decomposition": "other",
    "solve": "other",
}
"""Variants and the kind each belongs to."""


@dataclasses.dataclass(frozen=True)
class First:
    """Matches the matmul that reads the explained input, through whatever structural operations.

    Normalising, transposing, padding and cutting into patches come before it. (The product rule
    that gives all to the first factor is :class:`jaxrel.rules.First`.)

    Attributes:
      variant: ``"conv"`` or ``"dense"``: only if it is of this variant.

    Raises:
      ValueError: the variant is neither.
    """

    variant: str = ""

    def __post_init__(self):
        """Checks the variant."""
        if self.variant not in ("", "conv", "dense"):
            raise ValueError(f'First({self.variant!r}): "conv", "dense" or nothing.')

    def __str__(self) -> str:
        """As written."""
        return f'First("{self.variant}")' if self.variant else "First()"


@dataclasses.dataclass(frozen=True)
class Kind:
    """Matches steps of a kind, or of a variant of it.

    Attributes:
      name: a kind (``"matmul"``, ``"nonlinearity"`` ...) or a variant (``"conv"``, ``"dense"``,
        ``"attention"``, ``"gate"``, ``"selection"``, ``"scale"``,
        ``"pool"``,
        ``"affine"``).

    Raises:
      ValueError: the name is neither.
    """

    name: str

    def __post_init__(self):
        """Checks the name."""
        if self.name not in (*KINDS, *VARIANTS):
            known = ", ".join((*KINDS, *VARIANTS))
            hint = did_you_mean(str(self.name), (*KINDS, *VARIANTS))
            raise ValueError(f"Kind({self.name!r}): no such kind of step; there are {known}{hint}")

    def __str__(self) -> str:
        """As written."""
        return f'Kind("{self.name}")'


Match = str | First | Kind


def specificity(match: Match, step: Step) -> int:
    """How specifically ``match`` means ``step``; 0: not at all."""
    match match:
        case First(variant):
            return 4 if step.first and variant in ("", step.variant) else 0
        case Kind(name):
            return 2 if name == step.variant else int(name == step.kind)
        case str():
            if matches_path(match, step.path):
                return 5
            return 3 if match in step.names else 0


def kinds_of(match: Match) -> frozenset[str]:
    """Kinds of the steps that ``match`` can mean; empty: any."""
    match match:
        case First():
            return frozenset({"matmul"})
        case Kind(name):
            return frozenset({VARIANTS.get(name, name)})
        case _:
            return frozenset()
