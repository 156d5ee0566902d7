"""Opens a table of any format: read once, whole, into a private copy.

What was checked is what is used: the file may change meanwhile.
"""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import orjson

from rm_voucher.cli.tables.columns import RECIPIENT_NAMES, Ours, choose_column, find_ours
from rm_voucher.cli.tables.csv_reader import CsvReader
from rm_voucher.cli.tables.json_reader import JsonReader
from rm_voucher.cli.tables.model import (
    Cell,
    Format,
    Line,
    Problems,
    Row,
    TableError,
    is_blank,
    text_of,
)
from rm_voucher.cli.tables.source import IN_MEMORY_BYTES, kind_by_bytes, open_source, title_of
from rm_voucher.cli.tables.xlsx_reader import XlsxReader
from rm_voucher.exceptions import ConfigurationError

__all__ = ["Row", "Table", "TableError", "open_table"]

MAX_ROWS = 2_000_000


class Table:
    """A person's table, with a private copy of its rows, which `close` gives up.

    Blank rows between others are rows as well, so that a column of the results can be put beside
    the person's own; blank rows at the end are not, nor are unnamed, empty columns there.
    """

    def __init__(self, path: Path, title: str, source: Format) -> None:
        self.path = path
        self.title = title
        """How the file is called in a sentence."""
        self.format = source
        """How it was written."""
        self.header: tuple[str, ...] = ()
        """The names of the columns as they stand there: blank, or twice, if they are."""
        self.column: int | None = None
        """The index of the column that was chosen."""
        self.results: Ours | None = None
        """Where a run of ours wrote its columns, if the file is the output of one."""
        self.notes: list[str] = []
        """What a person should be told."""
        self.problems: Problems = Problems()
        self._offsets = array("Q")
        self._copy = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - `close` does
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the copy up."""
        with contextlib.suppress(OSError):  # what could not be written is not needed any more
            self._copy.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    def row(self, number: int) -> Row:
        """Return a row. Raises `ConfigurationError` when the copy can't be read any more."""
        try:
            self._copy.seek(self._offsets[number])
            line, shown, *cells = orjson.loads(self._copy.readline())
        except (OSError, orjson.JSONDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is torn"
            raise ConfigurationError(
                f"The copy of {self.title} can't be read any more: {why}."
            ) from exc
        width, nothing = len(self.header), "" if self.format.kind == "csv" else None
        return Row(number, Line.at(line, shown), cells[:width] + [nothing] * (width - len(cells)))

    def problem(self, line: int, what: str) -> None:
        """Take note of what is wrong on a line: a sentence without its full stop."""
        self.problems.add(line, what)

    def refuse_problems(self) -> None:
        """Raise `TableError` if there was a problem."""
        self.problems.refuse(self.title)

    def choose(self, column: str | None, names: Collection[str], what: str) -> None:
        """Choose a column; see `open_table`."""
        if not self.header:
            self.refuse_problems()
            raise ConfigurationError(f"{self.title} is empty.")
        self.results = find_ours(self.header)
        if not names and column is None:
            return
        try:
            if what == "code" and column is None and self.results is not None:
                self.column = self.results.code
            else:
                self.column = choose_column(self.header, column=column, names=names, what=what)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.title}: {exc}.") from None
        chosen = self.header[self.column]
        if chosen != what:
            self.notes.append(f"{self.title}: the {what}s are in the column {chosen!r}.")

    def fill(self, rows: Iterable[tuple[int, list[Cell]]]) -> None:
        """Take the rows, the header first."""
        header: list[str] | None = None
        named = used = 0  # how many columns have a name, and how many hold anything
        blank = array("Q")
        for line, cells in rows:
            if is_blank(cells):
                if len(blank) <= MAX_ROWS:  # else there are too many, if anything follows
                    blank.append(line)
                continue
            if header is None:
                header = [text_of(cell).strip() for cell in cells]
                named = max(n for n, name in enumerate(header, start=1) if name)
                del blank[:]
                continue
            if len(self) + len(blank) >= MAX_ROWS:
                self.problem(line, f"more than {MAX_ROWS:,} rows: split the file")
                break
            while cells[-1] is None or cells[-1] == "":
                cells.pop()
            used = max(used, len(cells))
            if len(cells) > len(header) and self.format.kind == "csv":
                self.problem(
                    line,
                    f"{len(cells):,} cells, and the header has {len(header):,}: a cell with a "
                    f"{self.format.delimiter!r} in it must stand in quotation marks",
                )
            for number in blank:
                self._keep(number, [])
            del blank[:]
            self._keep(line, cells)
        width = max(named, used)
        header = [] if header is None else header
        self.header = tuple(header[:width] + [""] * (width - len(header)))

    def _keep(self, line: int, cells: list[Cell]) -> None:
        data = (
            orjson.dumps([int(line), line.row if isinstance(line, Line) else line, *cells]) + b"\n"
        )
        self._offsets.append(self._size)
        self._size += len(data)
        try:
            self._copy.write(data)
        except OSError as exc:
            raise ConfigurationError(
                f"{self.title} can't be copied to {tempfile.gettempdir()}: {exc.strerror}."
            ) from exc


def open_reader(
    file: IO[bytes], title: str, *, encoding: str | None = None, sheet: str | None = None
) -> CsvReader | JsonReader | XlsxReader:
    """Return what reads a file, by what is in it. Raises `ConfigurationError`."""
    kind = kind_by_bytes(file, title)
    if encoding is not None and kind != "csv":
        raise ConfigurationError(f"{title} is no CSV file: it needs no --encoding.")
    if sheet is not None and kind != "xlsx":
        raise ConfigurationError(f"{title} is no .xlsx: it has no sheets.")
    if kind == "xlsx":
        return XlsxReader(file, title, sheet=sheet)
    if kind == "jsonl":
        return JsonReader(file, title)
    return CsvReader(file, title, encoding=encoding)


def open_table(
    path: Path,
    *,
    column: str | None = None,
    names: Collection[str] = RECIPIENT_NAMES,
    what: str = "recipient",
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Read a table: CSV in any encoding and delimiter, .xlsx, JSON lines; ``-`` is standard input.

    The ``column`` is chosen by its name, or as the only one that has one of the ``names``; without
    either none is. ``what`` says what it holds. Raises `ConfigurationError`, and as a `TableError`
    what is wrong on lines as far as it is found; the caller may find more (`Table.problem`), and
    calls `Table.refuse_problems`.
    """
    title = title_of(path)
    with contextlib.ExitStack() as on_error:
        with open_source(path) as file:
            reader = open_reader(file, title, encoding=encoding, sheet=sheet)
            table = Table(path, title, reader.format)
            on_error.callback(table.close)
            table.notes.extend(reader.notes)
            table.fill(reader.rows(table.problems))
        table.choose(column, names, what)
        on_error.pop_all()
        return table
