"""What the rows of an output look like: a person's columns, and ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from rm_voucher.cli.output import csv_line, table_cell
from rm_voucher.cli.tables.columns import OURS, name_ours
from rm_voucher.cli.tables.model import Cell, text_of
from rm_voucher.cli.tables.read import Table
from rm_voucher.cli.tables.write import harmless, without_controls
from rm_voucher.exceptions import ConfigurationError


class Layout:
    """What the rows of an output look like: a person's columns, and ours after them.

    In the output of an earlier run ours are where they were.
    """

    def __init__(self, table: Table | None, ours: Sequence[str]) -> None:
        self.table = table
        self.ours: tuple[str, ...] = tuple(ours)
        self.column: str = "recipient"
        """The name of the column that says whose row it is."""
        if table is None:
            self.header: tuple[str, ...] = self.ours
            self._places: tuple[int, ...] = tuple(range(len(ours)))
            self.exact: set[str] = {"recipient", "code"} & {*ours}
            return
        if table.results is not None and self.ours == OURS:
            self.header = table.header
            self._places = table.results.columns
        else:
            self.header = (*table.header, *name_ours(ours, table.header))
            self._places = tuple(range(len(table.header), len(self.header)))
        called = dict(zip(self.ours, (self.header[at] for at in self._places), strict=True))
        self.exact = {called["code"]} if "code" in called else set()
        if table.column is not None:
            self.column = table.header[table.column]
            self.exact.add(self.column)
        self._is_ours = [index in self._places for index in range(len(self.header))]
        self._is_exact = [name in self.exact for name in self.header]

    def cells(self, number: int | None, ours: Mapping[str, str]) -> list[Cell]:
        """Return the cells of a row: theirs as they are, ours by their names.

        Of a result that belongs to no row there is the recipient alone. Raises
        `ConfigurationError` when the copy of the table can't be read any more.
        """
        if self.table is None:
            return [ours.get(name, "") for name in self.ours]
        if number is not None:
            cells = self.table.row(number).cells
            if self.table.column is not None:  # an id is text, also one of digits alone
                cells[self.table.column] = text_of(cells[self.table.column])
        else:
            cells = [None] * len(self.table.header)
            cells[self.table.column or 0] = ours.get("recipient")
        cells += [""] * (len(self.header) - len(cells))
        for name, place in zip(self.ours, self._places, strict=True):
            cells[place] = ours.get(name, "")
        return cells

    def cells_at_least(self, number: int | None, ours: Mapping[str, str]) -> list[Cell]:
        """Return the cells of a row: a code is kept even if theirs can't be read any more."""
        try:
            return self.cells(number, ours)
        except ConfigurationError:
            return self.cells(None, ours)

    def line(self, number: int | None, ours: Mapping[str, str]) -> str:
        """Return a row as a line of CSV that neither a terminal nor a spreadsheet obeys."""
        safe = {name: table_cell(name, text) for name, text in ours.items()}
        cells = self.cells_at_least(number, safe)
        if self.table is None:
            return csv_line(tuple(map(text_of, cells)))
        return csv_line(
            tuple(
                text_of(cell)
                if is_ours
                else (without_controls if is_exact else harmless)(text_of(cell))
                for cell, is_ours, is_exact in zip(
                    cells, self._is_ours, self._is_exact, strict=True
                )
            )
        )

    def read(self, line: str) -> list[str]:
        """Return the cells of a line that `line` made."""
        return next(csv.reader(io.StringIO(line, newline="")))

    def ours_in(self, cells: Sequence[str]) -> dict[str, str]:
        """Return our columns of a row."""
        return {name: cells[at] for name, at in zip(self.ours, self._places, strict=True)}
