"""Tables as text: as wide as they are for a program that reads them; for a terminal, no wider than it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from i2v_lab.errors import printable

GAP = "  "
WRAPPED_MIN = 28  # the narrowest last column whose texts are broken into lines
_NUMBER = re.compile(r"[-+<]?[\d.,]+(e[-+]?\d+)?%?|no|-|", re.IGNORECASE)


def lay_out(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int | None) -> list[str]:
    """The lines of a table, its heads first. Columns of numbers end on one line.

    Args:
        width: of the terminal, in cells; None: the table may be as wide as it is. Where it is too wide, the texts of the last
            column are broken into lines; where that is not enough, the columns go on in a second table below, and so on, each of
            which begins with the first column.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in zip(*cells, strict=True)]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
    if width is None or total <= width:
        return _lines(cells, widths, right)
    if not right[-1] and width - (total - widths[-1]) >= WRAPPED_MIN:
        return _lines(cells, widths, right, width - (total - widths[-1]))
    lines: list[str] = []
    place = 1
    while place < len(widths):
        chosen, used = [0], widths[0]
        while place < len(widths) and (len(chosen) == 1 or used + len(GAP) + widths[place] <= width):
            chosen, used, place = [*chosen, place], used + len(GAP) + widths[place], place + 1
        part = [[row[number] for number in chosen] for row in cells]
        own = [widths[number] for number in chosen]
        own[-1] = min(own[-1], max(8, width - sum(own[:-1]) - len(GAP) * (len(own) - 1)))
        lines += [*([""] if lines else []), *_lines(part, own, [right[number] for number in chosen], own[-1])]
    return lines


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool], last: int | None = None) -> list[str]:
    """The rows as lines; texts of the last column are broken where they are longer than `last` cells."""
    lines = []
    for row in cells:
        parts = wrapped(row[-1], last) if last else [row[-1]]
        before = [_padded(cell, width, end) for cell, width, end in zip(row[:-1], widths, right, strict=False)]
        for number, part in enumerate(parts):
            shown = before if number == 0 else [" " * width for width in widths[:-1]]
            lines.append(GAP.join([*shown, _padded(part, widths[-1], True) if right[-1] else part]).rstrip())
    return lines


def _padded(cell: str, width: int, end: bool) -> str:
    return " " * (width - cell_len(cell)) + cell if end else set_cell_size(cell, width)


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many cells, broken between words."""
    return [str(line).rstrip() for line in Text(text).wrap(Console(width=width), width)] or [""]
