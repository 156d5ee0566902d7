"""Writes the results of a bulk issue to standard output, or to a CSV file that appears whole.

Rows hold codes, which are money: a row that can't be written goes to the next best place, and the
run stops.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self, TextIO

import orjson

from rm_voucher.bulk.results import BulkResult
from rm_voucher.exceptions import ConfigurationError, VoucherError

COLUMNS = ("recipient", "code", "qr_url", "status", "error")


class OutputError(VoucherError):
    """The results can't be written any more, for example because the disk is full."""


class Results(ABC):
    """A target of rows, with rescues for the time when it fails. Everything is UTF-8."""

    shares_terminal = False
    """Whether a progress bar would be drawn into the rows."""

    def __init__(self, *rescues: Callable[[str], None]) -> None:
        self._rescues = rescues
        self._broken = False

    def add(self, result: BulkResult[str]) -> None:
        """Write one row through to the operating system.

        Raises `OutputError` at the first failure; that row and all later ones go to the rescue.
        """
        self.add_line(self._line(result))

    def add_line(self, line: str) -> None:
        """Write a line as it is, likewise."""
        if self._broken:
            self._save(line)
            return
        try:
            self._write(line)
        except OSError as exc:
            self._broken = True
            self._save(line)
            raise self._error(exc) from exc

    def _save(self, line: str) -> None:
        for write in self._rescues:
            with contextlib.suppress(OSError):
                write(line)
                return

    def _line(self, result: BulkResult[str]) -> str:
        return csv_line(tuple(_row(result).values()))

    @abstractmethod
    def _write(self, line: str) -> None: ...

    @abstractmethod
    def _error(self, exc: OSError) -> OutputError: ...


class ResultStream(Results):
    """Standard output, as CSV or a line of JSON each. Standard error is the rescue.

    Raises `ConfigurationError` when it can't be begun.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(write_err)
        self._as_json = as_json
        if sys.stdout is None:
            raise ConfigurationError("There is no standard output: name a file with --output.")
        self.shares_terminal = sys.stdout.isatty()

    def __enter__(self) -> Self:
        if not self._as_json:
            try:
                write_out(csv_line(COLUMNS))
            except OSError as exc:
                raise ConfigurationError(str(self._error(exc))) from exc
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do: each row was written through."""

    def _line(self, result: BulkResult[str]) -> str:
        return json_line(_row(result)) if self._as_json else super()._line(result)

    def _write(self, line: str) -> None:
        write_out(line)

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(f"Standard output can't be written: {exc.strerror}.")


class ResultFile(Results):
    """A CSV file that only its owner can read. Standard output is the rescue.

    Rows go to ``NAME.partial``, which takes the file's name at the end. A killed run leaves the
    partial file, and the next run refuses to overwrite it. An older file holds codes too, so it is
    kept beside the new one under the next free number. With ``is_kept`` all rows are in a ledger
    as well: they go to ``NAME.ledger.partial``, which is overwritten unless another run writes it,
    and an older file is replaced if all its codes are in the new one. Raises `ConfigurationError`
    when it can't be begun.
    """

    def __init__(
        self, path: Path, *, columns: tuple[str, ...] = COLUMNS, is_kept: bool = False
    ) -> None:
        super().__init__(write_out, write_err)
        self.path = path
        self._columns = columns
        self._is_kept = is_kept
        self._whole_bytes = 0
        try:
            if path.exists() and not path.is_file():
                kind = "a folder" if path.is_dir() else "no plain file"
                raise ConfigurationError(f"{path} is {kind}: name a file.")
            # Two names, because the rows of a run without a ledger are in no ledger.
            suffix = ".ledger.partial" if is_kept else ".partial"
            self.partial = path.with_name(path.name + suffix)
            descriptor = _create(self.partial, again=is_kept)
        except (FileExistsError, BlockingIOError):
            raise ConfigurationError(
                f"{self.partial} is there: a run that writes it is going on, or was killed and "
                "left codes in it; recipients without a row may have vouchers, too. Move it away "
                "first."
            ) from None
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def __enter__(self) -> Self:
        try:
            self._write(csv_line(self._columns))
        except OSError as exc:
            self._file.close()
            self.partial.unlink()
            raise ConfigurationError(f"{self.path} can't be written: {exc.strerror}.") from exc
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        try:
            with self._file:
                if self._is_kept and error_type is not None:  # the ledger has all rows of this run
                    self.partial.unlink(missing_ok=True)
                    return
                if self._broken:
                    return
                os.fsync(self._file.fileno())
            if self.path.exists() and not (self._is_kept and self._has_all_of(self.path)):
                os.link(self.path, self._free_name())
            self.partial.replace(self.path)
        except OSError as error:
            raise OutputError(
                f"{self.path} can't be written: {error.strerror}. All rows are in {self.partial}."
            ) from error

    def _write(self, line: str) -> None:
        try:
            _write_all(self._file, line)
        except OSError:
            with contextlib.suppress(OSError):  # no torn row
                self._file.truncate(self._whole_bytes)
            raise
        self._whole_bytes = self._file.tell()

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(
            f"{self.path} can't be written: {exc.strerror}. The rows before that are in "
            f"{self.partial}, the rows after it on standard output."
        )

    def _has_all_of(self, path: Path) -> bool:
        """Return whether a file holds results whose codes are all in this one as well.

        They are not if the file is another campaign's, or if this run stopped earlier.
        """
        old, new = _codes_in(path, self._columns), _codes_in(self.partial, self._columns)
        return old is not None and new is not None and old <= new

    def _free_name(self) -> Path:
        number = 1
        while (name := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        return name


def _codes_in(path: Path, columns: tuple[str, ...]) -> set[str] | None:
    """Return the codes of a file of results, or None for any other file."""
    code = columns.index("code")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        try:
            if next(rows, None) != list(columns):
                return None
            return {row[code] for row in rows if row[code]}
        except (csv.Error, IndexError):
            return None


def _create(path: Path, *, again: bool) -> int:
    """Create a file for its owner alone; ``again`` empties an old one that nobody writes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags if again else flags | os.O_EXCL, 0o600)
    if again:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def write_out(text: str) -> None:
    """Write to standard output, as UTF-8 and through to the operating system. Raises `OSError`."""
    _write_through(sys.stdout, text)


def write_err(text: str) -> None:
    """Write to standard error, likewise."""
    _write_through(sys.stderr, text)


def say(text: str) -> None:
    """Write a line to standard error, for a person. It is no error if nobody reads it."""
    with contextlib.suppress(OSError):
        write_err(f"{text}\n")


def _write_through(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    stream.flush()
    # Python's buffer would keep a row that a full disk refuses, and write it again at the end.
    _write_all(getattr(stream.buffer, "raw", stream.buffer), text)


def _write_all(raw: IO[bytes], text: str) -> None:
    data = memoryview(text.encode(errors="replace"))  # a file name may hold what is no text
    while data:
        data = data[raw.write(data) :]


def _row(result: BulkResult[str]) -> dict[str, str]:
    voucher = result.voucher
    return {
        "recipient": result.recipient,
        "code": voucher.code if voucher else "",
        "qr_url": (voucher.qr_url or "") if voucher else "",
        "status": result.status.value,
        "error": str(result.error) if result.error else "",
    }


def csv_line(cells: tuple[str, ...]) -> str:
    """Return a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def json_line(value: object) -> str:
    """Return a line of JSON. Characters that a terminal would obey are escaped."""
    text = orjson.dumps(value).decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    return text + "\n"


def printable(text: str) -> str:
    """Return a server's text. Characters that a terminal would obey are escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class _ToPerson(logging.Handler):
    """Writes log lines to standard error, like the command's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


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
