"""Tables of text: aligned for a terminal, or Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading; all columns but the first stand at the right where they are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numbers: bool = True

    def text(self) -> str:
        """For a terminal."""
        lines = [self.title, *self._aligned()]
        return "\n".join([*lines, f"  {self.note}"] if self.note else lines)

    def markdown(self) -> str:
        """For a page."""
        marks = ["---", *["--:" if self.numbers else "---"] * (len(self.header) - 1)]
        lines = [f"### {self.title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (self.header, marks, *self.rows)]
        return "\n".join([*lines, "", self.note] if self.note else lines)

    def _aligned(self) -> list[str]:
        rows = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.header))]
        lines = []
        for row in rows:
            first, *rest = row
            justify = str.rjust if self.numbers else str.ljust
            cells = [justify(cell, width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join(["  " + first.ljust(widths[0]), *cells]).rstrip())
        return lines


def times(ratio: float | None) -> str:
    """A ratio with three digits that count, such as ``1.05x``."""
    if ratio is None:
        return "-"
    digits = 0 if ratio >= 99.5 else 1 if ratio >= 9.95 else 2 if ratio >= 0.0995 else 3
    return f"{ratio:.{digits}f}x"


def number(value: float | None) -> str:
    """A figure with three digits that count, and thousands apart."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
