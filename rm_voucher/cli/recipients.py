"""Reads the recipients of a bulk issue from a CSV file: once, and all before anything is issued.

What was checked is what is used: the recipients go into a private copy, and the file may change.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self, TextIO

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import comparable

COLUMN = "recipient"
MAX_RECIPIENTS = 1_000_000
MAX_CHARS = 1_000
MAX_LINE_CHARS = 100_000
_IN_MEMORY_BYTES = 1 << 20  # of the copy; a larger one is a file without a name
# Embeddings, overrides and isolates: they turn what follows around, in every file and terminal.
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# What begins a formula in a spreadsheet, in a keyboard's other width, too.
_FORMULA = re.compile("[=+@\uff1d\uff0b\uff0d\uff20-]")
# A telephone number, or a name in a network: nothing in it can call or refer to anything.
_NO_FORMULA = re.compile(r"[+-][\d ().-]+|@[\w.-]+")


class Recipients:
    """The recipients of a file, checked; with a private copy of them, which `close` gives up.

    Without ``allow_similar`` no two of them look the same: see `text.comparable`.
    """

    def __init__(self, path: Path, *, allow_similar: bool = False) -> None:
        self.path = path
        self.allow_similar = allow_similar
        # Digests, so that a million long names don't fill the memory: of the names as they are,
        # and of the forms to compare where those differ.
        self._names: set[bytes] = set()
        self._forms: set[bytes] = set()
        self._copy: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - `close` does
            _IN_MEMORY_BYTES
        )
        try:
            for line, name in _rows(path):
                self._add(line, name)
            if not self._names:
                raise ConfigurationError(f"{path} has no recipients under its header.")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the copy up."""
        with contextlib.suppress(OSError):  # what could not be written is not needed any more
            self._copy.close()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return (name for _, name in self.lines())

    def lines(self) -> Iterator[tuple[int, str]]:
        """Iterate over the recipients with their lines, one iteration at a time."""
        try:
            self._copy.seek(0)
            for row in self._copy:
                line, _, name = row.decode().rstrip("\n").partition("\t")
                yield int(line), name
        except OSError as exc:
            raise ConfigurationError(
                f"The copy of {self.path} can't be read any more: {exc.strerror}."
            ) from exc

    def has_another_form_of(self, name: str) -> bool:
        """Return whether no recipient is this name, and one looks the same."""
        return _digest(name) not in self._names and self._looks_known(name)

    def _add(self, line: int, name: str) -> None:
        digest, form = _digest(name), comparable(name)
        if not form:
            raise _mistake(self.path, line, "a recipient in which nothing can be seen")
        if digest in self._names:
            raise _mistake(self.path, line, f"{name!r} stands there twice")
        if not self.allow_similar and self._looks_known(name):
            first, other = next(row for row in self.lines() if comparable(row[1]) == form)
            raise _mistake(
                self.path,
                line,
                f"{name!a} looks the same as {other!a} in line {first}: remove one, or give "
                "--allow-similar if they are two people",
            )
        self._names.add(digest)
        if form != name:
            self._forms.add(_digest(form))
        if len(self._names) > MAX_RECIPIENTS:
            raise _mistake(
                self.path, line, f"more than {MAX_RECIPIENTS:,} recipients: split the file"
            )
        try:
            self._copy.write(f"{line}\t{name}\n".encode())
        except OSError as exc:
            raise ConfigurationError(
                f"{self.path} can't be copied to {tempfile.gettempdir()}: {exc.strerror}."
            ) from exc

    def _looks_known(self, name: str) -> bool:
        digest = _digest(comparable(name))
        return digest in self._names or digest in self._forms


def _digest(text: str) -> bytes:
    # An id of a ledger may be any text.
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with os.fdopen(_open(path), encoding="utf-8-sig", newline="") as file:
            before = _state(file)
            reader = csv.reader(_lines(path, file), strict=True)
            column = _column(path, next(reader, []))
            for row in reader:
                yield reader.line_num, _recipient(path, reader.line_num, row, column)
            if _state(file) != before:
                raise ConfigurationError(f"{path} was changed while it was read: try again.")
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8: save it as 'CSV UTF-8'.") from exc
    except csv.Error as exc:
        raise _mistake(path, reader.line_num, f"not CSV ({exc})") from exc


def _open(path: Path) -> int:
    """Open a file or a pipe. A pipe that nobody writes is empty, and not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(descriptor, True)
    return descriptor


def _state(file: TextIO) -> tuple[int, int] | None:
    state = os.fstat(file.fileno())
    # A pipe changes while it is read.
    return (state.st_mtime_ns, state.st_size) if stat.S_ISREG(state.st_mode) else None


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
    if len(recipient) > MAX_CHARS:
        raise _mistake(path, line, f"a recipient of more than {MAX_CHARS:,} characters")
    if _FORMULA.match(recipient) and not _NO_FORMULA.fullmatch(recipient):
        raise _mistake(
            path,
            line,
            f"a recipient that starts with {recipient[0]!r} is a formula to a spreadsheet",
        )
    shown = comparable(recipient)
    if shown and shown != shown.strip():  # the same person, in another's name
        raise _mistake(
            path, line, "a recipient with a space at an end, beside a character that can't be seen"
        )
    if recipient.isprintable():
        return recipient
    for position, char in enumerate(recipient, start=1):
        if unicodedata.category(char) == "Cc":
            raise _mistake(path, line, "a recipient with a control character")
        if unicodedata.bidirectional(char) in _TURNS:
            where = f"U+{ord(char):04X} at position {position}"
            raise _mistake(path, line, f"a recipient with {where}, which turns text around")
    return recipient


def _mistake(path: Path, line: int, what: str) -> ConfigurationError:
    return ConfigurationError(f"{path}, line {line}: {what}.")
