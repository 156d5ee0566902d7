"""Writes to standard output and standard error, so that a terminal or spreadsheet obeys nothing."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TextIO

import orjson

from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.text import printable

# Codes are never altered. Recipients are an input for the next run: what is no good in a table was
# refused when their file was read.
_EXACT = {"recipient", "code"}
# To a spreadsheet this begins a formula, in an input method's other width, too; a number is none.
_FORMULA = re.compile(r"[=@\uff1d\uff20]|[+\uff0b\uff0d-](?![\d.,]+$)")


class OutputError(VoucherError):
    """The results can't be written any more, for example because the disk is full."""


def refuse_no_file(path: Path) -> None:
    """Raise `ConfigurationError` for a folder, a device or a pipe: no file can take its name."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise ConfigurationError(f"{path} is {kind}: name a file.")


def write_out(text: str) -> None:
    """Write to standard output, as UTF-8 and through to the operating system. Raises `OSError`.

    The text is `table_line`, `csv_line` or `json_line`; others `tell`.
    """
    _write_through(sys.stdout, text)


def write_err(text: str) -> None:
    """Write to standard error, likewise."""
    _write_through(sys.stderr, text)


def tell(text: str) -> None:
    """Write a line to standard output, for a person: whoever wrote it, a terminal obeys nothing."""
    write_out(f"{printable(text)}\n")


def say(text: str) -> None:
    """Write a line to standard error, likewise. It is no error if nobody reads it."""
    with contextlib.suppress(OSError):
        write_err(f"{printable(text)}\n")


def say_error(error: VoucherError) -> None:
    """Say an error, and each of its ``problems``, if it has several, on a line of its own."""
    title, problems = getattr(error, "title", ""), getattr(error, "problems", ())
    if len(problems) < 2:
        say(f"Error: {error}")
        return
    say(f"Error: {title} has more than one problem:")
    for problem in problems:
        say(f"  {problem}")


def _write_through(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    stream.flush()
    # Python's buffer would keep a row that a full disk refuses, and write it again at the end.
    write_all(getattr(stream.buffer, "raw", stream.buffer), text)


def write_all(raw: IO[bytes], text: str) -> None:
    """Write a text to an unbuffered file, however often that takes. Raises `OSError`."""
    data = memoryview(text.encode(errors="replace"))  # a file name may hold what is no text
    while data:
        data = data[raw.write(data) :]


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
    text = orjson.dumps(value).decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    return text + "\n"


class _ToPerson(logging.Handler):
    """Writes log lines to standard error, like the command's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
        if record.exc_info:
            for line in logging.Formatter().formatException(record.exc_info).splitlines():
                say(line)


@contextlib.contextmanager
def strangers_are_harmless() -> Iterator[None]:
    """Let no log line be obeyed by a terminal, and no locale refuse what is written."""
    last, logging.lastResort = logging.lastResort, _ToPerson(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # help and usage; rows are UTF-8 whatever it is
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        logging.lastResort = last


@contextlib.contextmanager
def logged_to_person(logger: logging.Logger, level: int) -> Iterator[None]:
    """Show the lines of a logger to a person, from a level on."""
    handler, before = _ToPerson(), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
