"""What a table is: its format, its rows, and what can be wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import counted

Cell = str | int | float | bool | None
"""What a cell holds. All cells of a CSV file are text."""

MAX_PROBLEMS = 20
"""How many problems of a file are shown; the others are counted."""


class Line(int):
    """A line of a file, with the number of the row in a spreadsheet, which shows no lines.

    A cell may have several lines. Where the numbers differ a sentence says both.
    """

    row: int

    @classmethod
    def at(cls, line: int, row: int) -> Self:
        """Make one of both numbers, from 1."""
        made = cls(line)
        made.row = row
        return made

    def __format__(self, spec: str) -> str:
        line = format(int(self), spec)
        return line if self.row == self else f"{line} (row {self.row:{spec}} in a spreadsheet)"


@attrs.frozen
class Format:
    """How a file was written, so that another can be written alike."""

    kind: str = "csv"
    """``csv`` or ``xlsx``."""
    delimiter: str = ","
    newline: str = "\n"
    has_bom: bool = False
    """Whether it began with a byte order mark, or was not UTF-8: Excel needs the mark then."""


@attrs.frozen
class Row:
    """A row of a table, with as many cells as the table has columns."""

    number: int
    """From 0; the header is not counted."""
    line: Line
    """The line of the file on which it begins, from 1, with its number in a spreadsheet."""
    cells: list[Cell] = attrs.field(repr=False)

    def text(self, column: int) -> str:
        """Return a cell as text, without blanks around it."""
        return text_of(self.cells[column]).strip()

    @property
    def is_blank(self) -> bool:
        """Whether nothing is in any of its cells."""
        return is_blank(self.cells)


class TableError(ConfigurationError):
    """Something is wrong with a file that a person gave: all that was found, with the lines."""

    def __init__(self, title: str, problems: Iterable[str], more: int = 0) -> None:
        self.title = title
        self.problems: tuple[str, ...] = (*problems, *([f"and {more:,} more"] if more else []))
        """Sentences without their full stop; the last one counts those that are left out."""
        count = len(self.problems) - bool(more) + more
        if count == 1:
            super().__init__(f"{title}, {self.problems[0]}.")
        else:
            listed = "; ".join(self.problems)
            super().__init__(f"{title} has {counted(count, 'problem')}: {listed}.")


class Problems:
    """The problems of a file, collected; no more of them are kept than are shown."""

    def __init__(self) -> None:
        self.count: int = 0
        self._shown: list[str] = []

    def add(self, line: int, what: str) -> None:
        """Take note of one."""
        self.count += 1
        if self.count <= MAX_PROBLEMS:
            self._shown.append(f"line {line:,}: {what}")

    def refuse(self, title: str) -> None:
        """Raise `TableError` if there was any."""
        if self.count:
            raise TableError(title, self._shown, self.count - len(self._shown))


def text_of(cell: Cell) -> str:
    """Return a cell as text: a number in full, as a spreadsheet shows it in a wide column."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).upper()
    return str(cell)


def is_blank(cells: Iterable[Cell]) -> bool:
    """Return whether nothing can be seen in any cell."""
    return not any(cell is not None and text_of(cell).strip() for cell in cells)
