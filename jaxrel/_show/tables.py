"""Tables for people: aligned text for a terminal, plain HTML without scripts for a notebook.

What a table holds is text, of the user's as well (layer names, names of functions): in HTML all of
it is escaped. Rows that belong together are a :class:`Group`: in text they stand indented under a
heading, in HTML the heading is a line that opens.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Cells = Sequence[str]


class Group(NamedTuple):
    """Rows under a heading.

    Attributes:
      heading: its cells, in the table's columns.
      rows: the rows; their first cells may be empty, for the heading has said it.
    """

    heading: Cells
    rows: Sequence[Cells]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Cells in columns.

    Attributes:
      head: names of the columns; empty: none are shown.
      rows: rows, and groups of rows.
      foot: a last row, apart from the others; empty: none.
      words: so many leading columns are words, which begin at the left; the others are numbers,
        which end at the right.
    """

    head: Cells
    rows: Sequence[Cells | Group]
    foot: Cells = ()
    words: int = 99

    def text(self) -> str:
        """Lines of aligned columns."""
        body = list(self._lines())
        lines = [row for row in (self.head, *body, self.foot) if row]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * width for width in widths]
        ordered = [self.head, rule] if self.head else []
        ordered += [*body, rule, self.foot] if self.foot else body
        return "\n".join(self._aligned(row, widths) for row in ordered)

    def html(self) -> str:
        """A ``<table>``; a group is a ``<details>`` in a row of its own."""
        parts = [_TABLE]
        if self.head:
            parts.append(f"<thead>{self._row(self.head, 'th')}</thead>")
        parts.append("<tbody>")
        parts.extend(
            self._details(row) if isinstance(row, Group) else self._row(row) for row in self.rows
        )
        parts.append("</tbody>")
        if self.foot:
            parts.append(f"<tfoot>{self._row(self.foot, 'th')}</tfoot>")
        return "\n".join([*parts, "</table>"])

    def _lines(self) -> Iterator[Cells]:
        for row in self.rows:
            if isinstance(row, Group):
                yield row.heading
                yield from (("  " + first, *rest) for first, *rest in row.rows)
            else:
                yield row

    def _aligned(self, row: Cells, widths: Sequence[int]) -> str:
        cells = zip(row, widths, strict=True)
        aligned = (
            f"{cell:<{width}}" if k < self.words else f"{cell:>{width}}"
            for k, (cell, width) in enumerate(cells)
        )
        return "  ".join(aligned).rstrip()

    def _row(self, row: Cells, tag: str = "td") -> str:
        cells = (
            f'<{tag} style="{_WORD if k < self.words else _NUMBER}">{html.escape(cell)}</{tag}>'
            for k, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    def _details(self, group: Group) -> str:
        heading = html.escape("  ".join(cell for cell in group.heading if cell))
        rows = "\n".join(self._row(row) for row in group.rows)
        return (
            f'<tr><td colspan="{len(group.heading)}" style="{_WORD}"><details>'
            f"<summary>{heading}</summary>\n{_TABLE}\n<tbody>\n{rows}\n</tbody></table>"
            "</details></td></tr>"
        )


_TABLE = '<table style="border-collapse: collapse">'
# Spaces are kept: they say how deep a row is nested. Colours are those of the page around.
_WORD = "text-align: left; white-space: pre; padding: 0.1em 0.7em"
_NUMBER = "text-align: right; white-space: pre; padding: 0.1em 0.7em"
