"""Reads the recipients of a bulk issue from a CSV file: all of it, before anything is issued."""

from __future__ import annotations

import csv
import hashlib
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rm_voucher.exceptions import ConfigurationError

COLUMN = "recipient"
MAX_RECIPIENTS = 1_000_000
MAX_CHARS = 1_000
MAX_LINE_CHARS = 100_000


def count_recipients(path: Path) -> int:
    """Check the whole file and return how many recipients it has.

    Raises `ConfigurationError` with the line of a mistake: no header, an empty line, a recipient
    twice, a cell that a spreadsheet would run as a formula, text that is not UTF-8, too many lines.
    """
    seen: set[bytes] = set()
    for line, recipient in _rows(path):
        # Digests, so that a million long names don't fill the memory.
        digest = hashlib.blake2b(recipient.encode(), digest_size=16).digest()
        if digest in seen:
            raise _mistake(path, line, f"{recipient!r} stands there twice")
        seen.add(digest)
        if len(seen) > MAX_RECIPIENTS:
            raise _mistake(path, line, f"more than {MAX_RECIPIENTS:,} recipients: split the file")
    if not seen:
        raise ConfigurationError(f"{path} has no recipients under its header.")
    return len(seen)


def read_recipients(path: Path) -> Iterator[str]:
    """Iterate over the recipients of a file that `count_recipients` has found good."""
    for _, recipient in _rows(path):
        yield recipient


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to open a pipe waits for its writer
            raise ConfigurationError(f"{path} is not a plain file: it is read more than once.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_lines(path, file), strict=True)
            column = _column(path, next(reader, []))
            for row in reader:
                yield reader.line_num, _recipient(path, reader.line_num, row, column)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8: save it as 'CSV UTF-8'.") from exc
    except csv.Error as exc:
        raise _mistake(path, reader.line_num, f"not CSV ({exc})") from exc


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise _mistake(path, number, f"longer than {MAX_LINE_CHARS:,} characters")
        yield line


def _column(path: Path, header: list[str]) -> int:
    if COLUMN not in header:
        raise ConfigurationError(f"{path} needs a header line with a column named {COLUMN!r}.")
    if {"code", "status"} <= set(header):
        raise ConfigurationError(
            f"{path} holds the results of a run, and who has a code would get a second one: make "
            f"a file of those who have none, with the column {COLUMN!r} alone."
        )
    return header.index(COLUMN)


def _recipient(path: Path, line: int, row: list[str], column: int) -> str:
    recipient = row[column].strip() if column < len(row) else ""
    if not recipient:
        raise _mistake(path, line, "no recipient: remove the line or fill it in")
    if recipient.startswith("="):
        raise _mistake(path, line, "a recipient that starts with '=' is a formula to a spreadsheet")
    if len(recipient) > MAX_CHARS:
        raise _mistake(path, line, f"a recipient of more than {MAX_CHARS:,} characters")
    if any(unicodedata.category(char) == "Cc" for char in recipient):
        raise _mistake(path, line, "a recipient with a control character")
    return recipient


def _mistake(path: Path, line: int, what: str) -> ConfigurationError:
    return ConfigurationError(f"{path}, line {line}: {what}.")
