"""Lines of tables and of JSON in which nothing is obeyed, and what speaks to a person."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.jsontext import write_json
from rm_voucher.text import printable

# Codes are never altered. Recipients are an input for the next run: what is no good in a table was
# refused when their file was read.
_EXACT = {"recipient", "code"}
# To a spreadsheet this begins a formula, in an input method's other width, too; a number is none.
_FORMULA = re.compile(r"[=@\uff1d\uff20]|[+\uff0b\uff0d-](?![\d.,]+$)")

_DATABASE = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class OutputError(VoucherError):
    """The results can't be written any more, for example because the disk is full."""


def refuse_no_file(path: Path) -> None:
    """Raise `ConfigurationError` for a folder, a device or a pipe: no file can take its name.

    So it is for a database of SQLite, and its log: a ledger may be in it.
    """
    if str(path) == "-":
        raise ConfigurationError("'-' is no name for a file: leave the option out, or name one.")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise ConfigurationError(f"{path} is {kind}: name a file.")
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(16).startswith(_DATABASE):
            raise ConfigurationError(f"{path} is a database: name another file.")


def csv_line(cells: tuple[str, ...]) -> str:
    """Return a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def table_line(row: Mapping[str, str]) -> str:
    """Return a line of CSV, by columns, with nothing that a terminal or a spreadsheet obeys."""
    return csv_line(tuple(table_cell(column, text) for column, text in row.items()))


def table_cell(column: str, text: str) -> str:
    """Return a cell of a table of ours, with nothing that a terminal or a spreadsheet obeys."""
    if column not in _EXACT:
        text = printable(text)
        return f"'{text}" if _FORMULA.match(text) else text
    if text.isprintable():
        return text
    return "".join(printable(c) if unicodedata.category(c) == "Cc" else c for c in text)


def json_line(value: object) -> str:
    """Return a line of JSON. Characters that a terminal would obey are escaped."""
    text = write_json(value).decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    return text + "\n"
