"""Writes a table: CSV, .xlsx or JSON lines, for its owner alone, and whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from rm_voucher.cli.output import json_line
from rm_voucher.cli.tables.columns import is_phone, keys_of
from rm_voucher.cli.tables.csv_reader import DELIMITERS
from rm_voucher.cli.tables.model import Cell, Format, text_of
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra
from rm_voucher.files import keep_older, open_private

MAX_SHEET_ROWS = 1 << 20  # the header is one of them
MAX_CELL_CHARS = 32_767  # in an .xlsx
_EXACT_DIGITS = 15  # of a number in a spreadsheet
_BUFFER_BYTES = 1 << 20
_USUAL_WIDTH, _MAX_WIDTH = 18, 48  # of a column, in characters
# What a spreadsheet takes for a formula, or leaves out until one begins; in an input method's
# other width, too. Numbers, telephone numbers and names in a network are none.
_FORMULA = re.compile("[=@\uff1d\uff20+\uff0b\uff0d\t\r-]")
_NO_FORMULA = re.compile(r"[+-][\d ().,-]+|@[\w.-]+")
# What a terminal obeys, and what XML can't hold; line breaks and tabs within a cell are text.
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|\r(?!\n)")


def without_controls(text: str) -> str:
    r"""Return a cell's text with control characters as Python escapes them, such as ``\x1b``."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def harmless(text: str) -> str:
    """Return a cell of CSV as no spreadsheet runs it: an apostrophe stands before a formula."""
    is_formula = _FORMULA.match(text) and not _NO_FORMULA.fullmatch(text)
    text = without_controls(text)
    return f"'{text}" if is_formula else text


def kind_of(path: Path) -> str:
    """Return the kind of a file by its ending: ``xlsx``, ``jsonl``, or ``csv`` for all others."""
    ending = path.suffix.casefold()
    return {".xlsx": "xlsx", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(ending, "csv")


class TableWriter(ABC):
    """Rows in their order, into a file that is open and empty. `finish` writes what is left."""

    def __init__(self, file: IO[bytes], columns: Sequence[str], exact: Collection[str]) -> None:
        self._file = file
        self._columns = tuple(columns)
        self._is_exact = [name in exact for name in columns]

    @abstractmethod
    def add(self, cells: Sequence[Cell]) -> None:
        """Add a row, with a cell for each column. Raises `OSError`."""

    @abstractmethod
    def finish(self) -> None:
        """Write all that was not written yet. Raises `OSError`."""

    def give_up(self) -> None:  # noqa: B027 - not all need anything
        """Let go of what it needed, without writing."""


class CsvWriter(TableWriter):
    """CSV in UTF-8."""

    def __init__(
        self, file: IO[bytes], columns: Sequence[str], exact: Collection[str], like: Format
    ) -> None:
        super().__init__(file, columns, exact)
        encoding = "utf-8-sig" if like.has_bom else "utf-8"
        self._text = io.TextIOWrapper(
            file, encoding, newline="", errors="replace", write_through=False
        )
        # Another one is read only where the file says so.
        delimiter = like.delimiter if like.delimiter in DELIMITERS else ","
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator=like.newline)
        self._writer.writerow([harmless(name) for name in columns])

    def add(self, cells: Sequence[Cell]) -> None:
        """Add a row. No cell is a formula; in exact columns nothing is altered."""
        self._writer.writerow(
            [
                without_controls(text_of(cell)) if is_exact else harmless(text_of(cell))
                for cell, is_exact in zip(cells, self._is_exact, strict=True)
            ]
        )

    def finish(self) -> None:
        """Write all, and leave the file open."""
        self._text.detach()

    def give_up(self) -> None:
        """Leave the file open."""
        with contextlib.suppress(OSError, ValueError):
            self._text.detach()


class JsonWriter(TableWriter):
    """A line of JSON each, with the columns as keys."""

    def __init__(self, file: IO[bytes], columns: Sequence[str], exact: Collection[str]) -> None:
        super().__init__(file, columns, exact)
        self._keys = keys_of(columns)

    def add(self, cells: Sequence[Cell]) -> None:
        """Add a row as it is: what a terminal would obey is escaped, as JSON has it."""
        self._file.write(json_line(dict(zip(self._keys, cells, strict=True))).encode())

    def finish(self) -> None:
        """Write all."""
        self._file.flush()


class _Target:
    """A file that can be taken away from a library, which would write to it once more when it goes.

    Then whatever is written is nowhere.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def take_away(self) -> None:
        self._file = io.BytesIO()


class XlsxWriter(TableWriter):
    """A workbook with one sheet. What is text stays text: no formula, no link, no number."""

    def __init__(self, file: IO[bytes], columns: Sequence[str], exact: Collection[str]) -> None:
        with extra("tables", "A workbook", ConfigurationError):
            import xlsxwriter  # slow to import

        super().__init__(file, columns, exact)
        self._is_text = [name in exact or is_phone(name) for name in columns]
        self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._target = _Target(file)
        self._workbook = xlsxwriter.Workbook(
            self._target,
            {
                "constant_memory": True,
                "tmpdir": self._temporary.name,
                "use_zip64": True,
                "strings_to_formulas": False,
                "strings_to_numbers": False,
                "strings_to_urls": False,
                "nan_inf_to_errors": True,
            },
        )
        self._sheet = self._workbook.add_worksheet()
        self._sheet.freeze_panes(1, 0)
        self._sheet.ignore_errors({"number_stored_as_text": f"A1:XFD{MAX_SHEET_ROWS}"})
        self._row = 0
        bold = self._workbook.add_format({"bold": True})
        for column, name in enumerate(columns):
            self._sheet.set_column(column, column, _width_of(name))
            self._sheet.write_string(0, column, without_controls(name), bold)

    def add(self, cells: Sequence[Cell]) -> None:
        """Add a row. Raises `ConfigurationError` for what no sheet can hold."""
        self._row += 1
        if self._row == MAX_SHEET_ROWS:
            raise ConfigurationError(too_many_rows())
        for column, (cell, is_text) in enumerate(zip(cells, self._is_text, strict=True)):
            if cell is None or cell == "":
                continue
            if isinstance(cell, bool) and not is_text:
                self._sheet.write_boolean(self._row, column, cell)
            elif isinstance(cell, (int, float)) and not is_text and _is_short(cell):
                self._sheet.write_number(self._row, column, cell)
            else:
                text = without_controls(text_of(cell))
                if len(text) > MAX_CELL_CHARS:
                    raise ConfigurationError(too_long(self._row + 1))
                self._sheet.write_string(self._row, column, text)

    def finish(self) -> None:
        """Write the workbook."""
        from xlsxwriter.exceptions import FileCreateError

        try:
            self._workbook.close()
        except FileCreateError as exc:
            raise exc.args[0] from None  # the OSError
        finally:
            self._target.take_away()
            self._temporary.cleanup()

    def give_up(self) -> None:
        """Remove its temporary files."""
        self._target.take_away()
        self._workbook.fileclosed = 1
        self._sheet.row_data_fh.close()
        self._temporary.cleanup()


def too_many_rows() -> str:
    """Return the sentence for a table that is longer than a sheet."""
    return f"An .xlsx holds {MAX_SHEET_ROWS - 1:,} rows under its header: write .csv or .jsonl."


def too_long(line: int) -> str:
    """Return the sentence for a cell that is longer than one of a sheet."""
    return (
        f"An .xlsx holds {MAX_CELL_CHARS:,} characters in a cell, and line {line:,} has more: "
        "write .csv or .jsonl."
    )


def make_writer(
    kind: str,
    file: IO[bytes],
    columns: Sequence[str],
    *,
    like: Format | None = None,
    excel: bool = False,
    exact: Collection[str],
) -> TableWriter:
    """Return a writer into an open file; see `open_writer`."""
    if kind == "xlsx":
        return XlsxWriter(file, columns, exact)
    if kind == "jsonl":
        return JsonWriter(file, columns, exact)
    like = like or Format()
    like = Format(like.kind, like.delimiter, like.newline, has_bom=like.has_bom or excel)
    return CsvWriter(file, columns, exact, like)


@contextlib.contextmanager
def open_writer(
    path: Path,
    columns: Sequence[str],
    *,
    like: Format | None = None,
    excel: bool = False,
    exact: Collection[str],
    is_replaced: Callable[[], bool] = lambda: False,
    new: Path | None = None,
) -> Iterator[TableWriter]:
    """Write a table to a file of its owner's, by its ending .xlsx, .jsonl, or else CSV.

    It has its name when all is written; after an error nothing is left of it. CSV is written
    ``like`` a table that was read: delimiter, line ends, byte order mark, which ``excel`` adds.
    What is in the ``exact`` columns, such as codes, is never altered. An older file is kept under a
    number, unless it ``is_replaced``, which is asked when all is written. Raises `OSError`, and
    `ConfigurationError` for what an .xlsx can't hold.

    It is written under the name ``new``, which nobody else may use meanwhile, or under one that
    nobody can foresee.
    """
    if new is None:
        descriptor, name = tempfile.mkstemp(
            prefix=f"{path.name[:40]}.", suffix=".new", dir=path.parent
        )
        new = Path(name)
    else:
        new.unlink(missing_ok=True)  # a run that was killed has left it
        descriptor = open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb", _BUFFER_BYTES) as file:
            writer = make_writer(kind_of(path), file, columns, like=like, excel=excel, exact=exact)
            try:
                yield writer
                writer.finish()
            except BaseException:
                writer.give_up()
                raise
            file.flush()
            os.fsync(file.fileno())
        with locked(path.parent):
            if path.exists():
                with contextlib.suppress(OSError):  # a link, or another user's
                    os.close(open_private(path, os.O_RDONLY))
                if not is_replaced():
                    keep_older(path)
            new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let other runs that end in this folder wait for a moment."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _width_of(name: str) -> int:
    """Return how wide a column is, in characters: rows are written as they come, none is known."""
    widths = {"code": 24, "qr_url": 48, "error": 40, "recipient": 32, "email": 32}
    known = widths.get(name.casefold().removeprefix("rm_"), _USUAL_WIDTH)
    return min(max(known, len(name) + 2), _MAX_WIDTH)


def _is_short(number: float) -> bool:
    return len(text_of(number).strip("-").replace(".", "")) <= _EXACT_DIGITS or isinstance(
        number, float
    )
