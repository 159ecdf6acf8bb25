"""A plan as a table for people: path, kind, operation, shapes, rule."""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .._show.tables import Cells, Group, Sheet
from .splits import splits
from .steps import UNRULED, Plan, Step


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
    """The rows of a plan; printed or in a notebook, a table.

    Steps of a layer that follow each other stand under one heading, with their rules; in a notebook
    that is a line that opens.

    Attributes:
      rows: one for each step.
      notes: what is split by the border of a call or loop, and so is not read as one thing.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, rule_of: Callable[[Step], str]) -> Table:
        """Lists the steps of ``plan`` with the rule that ``rule_of`` names for each."""
        return cls(tuple(_rows(plan, rule_of, 0)), tuple(dict.fromkeys(splits(plan))))

    def __iter__(self) -> Iterator[Row]:
        """Iterates over the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __str__(self) -> str:
        """A table with a header, and notes below."""
        return "\n".join([self._sheet().text(), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = (f"<p>{html.escape(note)}</p>" for note in self.notes)
        return "".join([self._sheet().html(), *notes])

    def _sheet(self) -> Sheet:
        runs = itertools.groupby(self.rows, key=lambda row: (row.depth, row.path))
        head = ("path", "kind", "operation", "shapes", "rule")
        return Sheet(head, [line for _, run in runs for line in _lines(tuple(run))])


def _lines(run: tuple[Row, ...]) -> Iterator[Cells | Group]:
    """The lines of neighbouring rows of one path: of a layer's several steps, a group."""
    indent, path = "  " * run[0].depth, run[0].path
    if path and len(run) > 1:
        rules = dict.fromkeys(row.rule for row in run if row.rule)
        heading = (indent + path, f"{len(run)} steps", "", "", ", ".join(rules))
        yield Group(heading, [(indent, *row[1:5]) for row in run])
    else:
        yield from ((indent + (path or "-"), *row[1:5]) for row in run)


def _rows(plan: Plan, rule_of: Callable[[Step], str], depth: int) -> Iterator[Row]:
    for step in plan.steps:
        if step.kind in UNRULED:
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
