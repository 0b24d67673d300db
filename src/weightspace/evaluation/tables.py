"""Tables as Markdown: a header, a rule and rows, the same wherever figures are written down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["markdown_table", "records"]

_BAR = re.compile(r"(?<!\\)\|")
"""Between two cells; a bar in a cell is escaped."""


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table without a newline at its end, its cells as they are: a `|` in one has to be escaped already.

    Args:
        header: what stands above each column.
        rows: as many cells each as the header has. None is a column that says nothing of this row, written as one
            space; an empty text is a value that is missing, written as two.
    Raises:
        ValueError: if a row has more cells than the header, or fewer.
    """
    lines = [_line(header), "|---" * len(header) + "|"]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells stands in a table of {len(header)} columns: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def records(table: str) -> list[dict[str, str]]:
    """The rows of a table that `markdown_table` made, each cell by its header and without its bold marks.

    A text that is no table, such as one figure, is one row of one cell named `value`.
    """
    if not table.startswith("|"):
        return [{"value": table}]
    header, _, *rows = ([cell.strip().strip("*") for cell in _BAR.split(line)[1:-1]] for line in table.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def _line(cells: Sequence[object]) -> str:
    return "|" + "|".join(" " if cell is None else f" {cell} " for cell in cells) + "|"
