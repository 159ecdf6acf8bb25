"""A plan as a table for people: path, kind, operation, shapes, rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .steps import Plan, Step


class Row(NamedTuple):
    """One step.

    Attributes:
      path: layer path.
      kind: ``matmul:conv``, ``nonlinearity`` ...
      operation: ``silu``, ``dot_general+add`` ...
      shapes: ``f32[2,8] -> f32[2,4]``.
      rule: the rule it gets; empty for control flow.
      depth: how many loops, branches and calls it is nested in.
    """

    path: str
    kind: str
    operation: str
    shapes: str
    rule: str
    depth: int


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a plan; printed, a table.

    Attributes:
      rows: one for each step.
    """

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, plan: Plan, rule_of: Callable[[Step], str]) -> Table:
        """Lists the steps of ``plan`` with the rule that ``rule_of`` names for each."""
        return cls(tuple(_rows(plan, rule_of, 0)))

    def __iter__(self) -> Iterator[Row]:
        """Iterates over the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __str__(self) -> str:
        """A table with a header."""
        cells = [("path", "kind", "operation", "shapes", "rule")]
        cells += [("  " * r.depth + (r.path or "-"), *r[1:5]) for r in self.rows]
        widths = [max(len(row[k]) for row in cells) for k in range(5)]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(lines)

    __repr__ = __str__


def _rows(plan: Plan, rule_of: Callable[[Step], str], depth: int) -> Iterator[Row]:
    for step in plan.steps:
        if step.kind == "constant":
            continue
        rule = rule_of(step)
        yield Row(step.location, _kind(step), step.operation, _shapes(step), rule, depth)
        if step.kind == "control" and not rule:
            for body in step.bodies:
                yield from _rows(body, rule_of, depth + 1)


def _kind(step: Step) -> str:
    shown: Any = step.variant if step.kind != "control" else ""
    return f"{step.kind}:{shown}" if shown else step.kind


def _shapes(step: Step) -> str:
    inputs, outputs = step.shapes
    return f"{', '.join(inputs)} -> {', '.join(outputs)}"
