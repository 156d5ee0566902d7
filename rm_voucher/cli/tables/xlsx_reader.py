"""Reads an .xlsx: the values of a sheet, row by row."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from rm_voucher.cli.tables.model import Cell, Format, Problems
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra
from rm_voucher.text import counted, printable

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook

MAX_UNPACKED_BYTES = 2 << 30
_MAX_ROWS = 1 << 20  # of a sheet, in any program
# Read whole into memory; all others but the sheets are smaller by far.
_MAX_STRINGS_BYTES, _MAX_PART_BYTES = 256 << 20, 16 << 20
_STRINGS = "xl/sharedStrings.xml"
_NOT_READ = "xl/media/ xl/pivotCache/ xl/externalLinks/ xl/drawings/ xl/charts/ xl/embeddings/"
_NOT_READ_WHOLE = ("xl/worksheets/", *_NOT_READ.split())
_MAX_EXACT = 1 << 53  # of a whole number in a spreadsheet
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")  # what XML can't hold, such as _x000D_
_ZEROS = re.compile("0{2,}")
_MAX_SUSPECTS = 10_000
_AT_ONCE = 1_000
_CHUNK_BYTES = 1 << 20
_HIDDEN = re.compile(rb"""<(?:\w+:)?row\s[^<>]*\bhidden=["'](?:1|true)["'][^<>]*(?<!/)>""")
_FAR = re.compile(rb"""<(?:\w+:)?row\s(?:[^<>]*\s)?r=["'](\d{7,})["']""")  # such a row's number
# What openpyxl raises when a part of the file is missing, torn, or of another program's making.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    NotImplementedError,
    OverflowError,
)


class XlsxReader:
    """The rows of a sheet, read once, as ``(line, cells)``.

    Raises `ConfigurationError` for what is no workbook, and for a sheet that is not there.
    """

    format: Format = Format(kind="xlsx")

    def __init__(self, file: IO[bytes], title: str, *, sheet: str | None = None) -> None:
        self.title = title
        self.notes: list[str] = []
        self._file = file
        self._workbook = self._load(data_only=True)
        try:
            self._sheet = self._choose(sheet)
            self._look_through()
        except BaseException as exc:
            self._workbook.close()
            if isinstance(exc, _BROKEN):
                raise self._broken(exc) from exc
            raise

    def rows(self, problems: Problems) -> Iterator[tuple[int, list[Cell]]]:
        """Iterate over all rows. A formula whose value was never calculated is a problem."""
        # By line, the columns of cells that are there, and empty: a format, or such a formula.
        suspects: dict[int, list[int]] = {}
        try:
            for line, row in enumerate(self._rows_of(self._workbook), start=1):
                cells = [_value(cell) for cell in row]
                empty = [
                    i for i, cell in enumerate(row) if cells[i] is None and hasattr(cell, "row")
                ]
                if empty and len(empty) < len(cells) and len(suspects) < _MAX_SUSPECTS:
                    suspects[line] = empty
                yield line, cells
            if suspects:
                self._find_formulas(suspects, problems)
        except _BROKEN as exc:
            raise self._broken(exc) from exc
        finally:
            self._workbook.close()

    def _find_formulas(self, suspects: dict[int, list[int]], problems: Problems) -> None:
        workbook = self._load(data_only=False)
        for line, row in enumerate(self._rows_of(workbook), start=1):
            for index in suspects.get(line, ()):
                if index < len(row) and row[index].data_type == "f":
                    where = row[index].coordinate
                    problems.add(
                        line,
                        f"the formula in {where} has no value: open the file in a spreadsheet "
                        "program and save it",
                    )
        workbook.close()

    def _rows_of(self, workbook: Workbook) -> Iterator[tuple[Any, ...]]:
        sheet = workbook[self._sheet]
        sheet.reset_dimensions()  # programs write wrong ones
        rows = sheet.iter_rows(min_row=1)
        for _ in range(0, _MAX_ROWS + 1, _AT_ONCE):  # a row's number may be any, and rows before it
            with warnings.catch_warnings(action="ignore"):  # of a date before the year 1900, say
                some = list(itertools.islice(rows, _AT_ONCE))
            if not some:
                return
            yield from some
        raise self._beyond()

    def _load(self, *, data_only: bool) -> Workbook:
        with extra("tables", "A workbook", ConfigurationError):
            import openpyxl  # slow to import

        self._file.seek(0)
        try:
            with zipfile.ZipFile(self._file) as parts:
                sizes = {part.filename: part.file_size for part in parts.infolist()}
            if sum(sizes.values()) > MAX_UNPACKED_BYTES or any(
                size > (_MAX_STRINGS_BYTES if name == _STRINGS else _MAX_PART_BYTES)
                for name, size in sizes.items()
                if not name.startswith(_NOT_READ_WHOLE)
            ):
                raise ConfigurationError(f"{self.title} is too large: save it as CSV.")
            self._file.seek(0)
            with warnings.catch_warnings(action="ignore"):  # about formats that nobody needs here
                return openpyxl.load_workbook(
                    self._file, read_only=True, data_only=data_only, keep_links=False
                )
        except _BROKEN as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: Exception) -> ConfigurationError:
        kind = type(exc).__name__
        return ConfigurationError(
            f"{self.title} is no whole .xlsx ({kind}): open it in a spreadsheet program and save "
            "it anew, or save it as CSV."
        )

    def _beyond(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.title} has a row beyond {_MAX_ROWS:,}, which no sheet can have: open it in a "
            "spreadsheet program and save it anew, or save it as CSV."
        )

    def _choose(self, named: str | None) -> str:
        titles = [sheet.title for sheet in self._workbook.worksheets]
        if named is not None:
            if named not in titles:
                listed = ", ".join(repr(printable(title)) for title in titles)
                raise ConfigurationError(
                    f"{self.title} has no sheet {printable(named)!r}: it has {listed}."
                )
            return named
        filled = [
            sheet.title
            for sheet in self._workbook.worksheets
            if sheet.sheet_state == "visible" and self._is_filled(sheet.title)
        ]
        if len(filled) > 1:
            self.notes.append(
                f"{self.title} has {len(filled)} sheets: {printable(filled[0])!r} is read. Name "
                "another with --sheet."
            )
        return (filled or titles)[0]

    def _look_through(self) -> None:
        """Say how many rows a filter hides: who filtered them may think that they are left out.

        Refuse a row's number that no sheet has: the library would make all the rows before it.
        """
        hidden, rest = 0, b""
        sheet: Any = self._workbook[self._sheet]
        with sheet._get_source() as xml:  # noqa: SLF001 - the library drops what it hides
            while chunk := xml.read(_CHUNK_BYTES):
                text = rest + chunk
                end = text.rfind(b"<")
                hidden += len(_HIDDEN.findall(text[:end]))
                if any(int(row) > _MAX_ROWS for row in _FAR.findall(text[:end])):
                    raise self._beyond()
                rest = text[max(end, 0) :][-_CHUNK_BYTES:]
        if hidden:
            self.notes.append(
                f"{self.title} has {counted(hidden, 'hidden row')}, as a filter makes them: they "
                "are read like the others."
            )

    def _is_filled(self, title: str) -> bool:
        self._sheet = title
        rows = self._rows_of(self._workbook)
        return any(cell.value is not None for row in rows for cell in row)


def _value(cell: Any) -> Cell:
    value = cell.value
    if isinstance(value, str):
        return _ESCAPED.sub(_unescaped, value) if "_x" in value else value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_EXACT:
        value = int(value)
    if isinstance(value, int):
        # An id that is shown with zeros before it has them only in its format.
        shown = cell.number_format
        if _ZEROS.fullmatch(shown) or abs(value) >= _MAX_EXACT:
            return str(value).zfill(len(shown) if _ZEROS.fullmatch(shown) else 0)
        return value
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat(" ") if isinstance(value, dt.datetime) else value.isoformat()
    return value if isinstance(value, float) else str(value)


def _unescaped(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1]).decode("utf-16-be", errors="replace")
