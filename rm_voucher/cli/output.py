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
import os
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import orjson

from rm_voucher.bulk.results import BulkResult
from rm_voucher.cli.screen import logged_to_person as logged_to_person
from rm_voucher.cli.screen import note as note
from rm_voucher.cli.screen import say as say
from rm_voucher.cli.screen import strangers_are_harmless as strangers_are_harmless
from rm_voucher.cli.screen import tell as tell
from rm_voucher.cli.screen import write_all, write_err
from rm_voucher.cli.screen import write_out as write_out
from rm_voucher.exceptions import ConfigurationError, LedgerError, VoucherError
from rm_voucher.files import keep_older, open_plain, open_private
from rm_voucher.text import printable

COLUMNS = ("recipient", "code", "qr_url", "status", "error")
# Of a recipient whose code arrived, and the ledger could not keep it. An unresolved row may have a
# code as well: one that came with an error, which proves nothing.
_UNKEPT = "unkept"
# Codes are never altered. Recipients are an input for the next run: what is no good in a table was
# refused when their file was read.
_EXACT = {"recipient", "code"}
# To a spreadsheet this begins a formula, in an input method's other width, too; a number is none.
_FORMULA = re.compile(r"[=@\uff1d\uff20]|[+\uff0b\uff0d-](?![\d.,]+$)")


class OutputError(VoucherError):
    """The results can't be written any more, for example because the disk is full."""


class Results(ABC):
    """A target of rows, with rescues for the time when it fails. Everything is UTF-8.

    Entering it changes nothing yet; `begin` begins it.
    """

    shares_terminal = False
    """Whether a progress bar would be drawn into the rows."""

    def __init__(self, *rescues: Callable[[str], None]) -> None:
        self._rescues = rescues
        self._broken = False

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, error_type: object, *_: object) -> None: ...

    def unkept(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Iterate over earlier runs' rows with a code that their ledger could not keep."""
        return iter(())

    @abstractmethod
    def begin(self) -> None:
        """Begin anew. Raises `ConfigurationError` when that can't be done."""

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
        return table_line(_row(result))

    @abstractmethod
    def _write(self, line: str) -> None: ...

    @abstractmethod
    def _error(self, exc: OSError) -> OutputError: ...


class ResultStream(Results):
    """Standard output, as CSV or a line of JSON each. Standard error is the rescue."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(write_err)
        self._as_json = as_json
        if sys.stdout is None:
            raise ConfigurationError("There is no standard output: name a file with --output.")
        self.shares_terminal = sys.stdout.isatty()

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do: each row was written through."""

    def begin(self) -> None:
        """Write the header, where there is one."""
        if not self._as_json:
            try:
                write_out(csv_line(COLUMNS))
            except OSError as exc:
                raise ConfigurationError(str(self._error(exc))) from exc

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
    as well: they go to ``NAME.ledger.partial``, which `begin` overwrites unless another run writes
    it, and an older file is replaced if all its codes are in the new one. Only a code that the
    ledger could not keep is in no ledger: `unkept` finds those.
    """

    def __init__(
        self, path: Path, *, columns: tuple[str, ...] = COLUMNS, is_kept: bool = False
    ) -> None:
        super().__init__(write_out, write_err)
        self.path = path
        self._columns = columns
        self._is_kept = is_kept
        self._has_begun = False
        self._whole_bytes = 0
        try:
            refuse_no_file(path)
            # Two names, because the rows of a run without a ledger are in no ledger.
            suffix = ".ledger.partial" if is_kept else ".partial"
            self.partial = path.with_name(path.name + suffix)
            descriptor = _open_alone(self.partial, again=is_kept)
        except (FileExistsError, BlockingIOError):
            raise ConfigurationError(
                f"{self.partial} is there: a run that writes it is going on, or was killed and "
                "left codes in it; recipients without a row may have vouchers, too. Move it away "
                "first."
            ) from None
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
        self._file = os.fdopen(descriptor, "r+b", buffering=0)

    def unkept(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Iterate over those rows.

        They are in what a run left of the partial file, and in the file that is to be replaced.
        """
        for path in (self.partial, self.path):
            try:
                for cells in _rows_in(path, COLUMNS):
                    row = dict(zip(COLUMNS, cells, strict=False))
                    # A row that a killed run has torn has no status.
                    if row.get("status") == _UNKEPT and row["code"]:
                        yield path, row
            except (FileNotFoundError, csv.Error):
                continue
            except OSError as exc:
                raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc

    def begin(self) -> None:
        """Empty the partial file, and write the header."""
        try:
            self._file.truncate(0)
            self._write(csv_line(self._columns))
        except OSError as exc:
            raise ConfigurationError(f"{self.path} can't be written: {exc.strerror}.") from exc
        self._has_begun = True

    def __exit__(self, error_type: object, *_: object) -> None:
        # The partial file stays locked until it has the file's name.
        with self._file:
            if not self._has_begun:
                if not os.fstat(self._file.fileno()).st_size:  # it holds nothing of an earlier run
                    self.partial.unlink(missing_ok=True)
                return
            if self._broken or (self._is_kept and error_type is not None):
                return
            try:
                os.fsync(self._file.fileno())
                with _locked(self.path.parent):
                    self._take_name()
            except OSError as error:
                raise OutputError(
                    f"{self.path} can't be written: {error.strerror}. All rows are in "
                    f"{self.partial}."
                ) from error

    def _take_name(self) -> None:
        if self.path.exists():
            with contextlib.suppress(OSError):  # a link, or another user's
                os.close(open_private(self.path, os.O_RDONLY))
            if not (self._is_kept and self._has_all_of(self.path)):
                keep_older(self.path)
        self.partial.replace(self.path)

    def _write(self, line: str) -> None:
        try:
            write_all(self._file, line)
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


def refuse_no_file(path: Path) -> None:
    """Raise `ConfigurationError` for a folder, a device or a pipe: no file can take its name."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise ConfigurationError(f"{path} is {kind}: name a file.")


def _codes_in(path: Path, columns: tuple[str, ...]) -> set[str] | None:
    """Return the codes of a file of results, or None for any other file."""
    code = columns.index("code")
    try:
        return {row[code] for row in _rows_in(path, columns) if row[code]}
    except (csv.Error, IndexError):
        return None


def _rows_in(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Iterate over the rows of a file of results. Raises `csv.Error` for any other file."""
    with os.fdopen(open_plain(path), newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        if next(rows, None) != list(columns):
            raise csv.Error
        yield from rows


def _open_alone(path: Path, *, again: bool) -> int:
    """Open a new file for its owner alone; ``again`` also an old one that nobody writes."""
    flags = os.O_RDWR | os.O_CREAT
    if not again:
        return open_private(path, flags | os.O_EXCL)
    descriptor = open_private(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened = os.fstat(descriptor)
        if opened.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        # Who had the lock may have given the file its name by now, and nobody's is there.
        if not (path.exists() and os.path.samestat(opened, path.lstat())):
            raise BlockingIOError
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let other runs that end in this folder wait for a moment."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_unkept(result: BulkResult[str]) -> bool:
    """Return whether the voucher of a result is in no ledger, though it should be."""
    error = result.error
    return result.voucher is not None and isinstance(error and error.__cause__, LedgerError)


def _row(result: BulkResult[str]) -> dict[str, str]:
    voucher, error = result.voucher, result.error
    return {
        "recipient": result.recipient,
        "code": voucher.code if voucher else "",
        "qr_url": (voucher.qr_url or "") if voucher else "",
        "status": _UNKEPT if is_unkept(result) else result.status.value,
        "error": str(error) if error else "",
    }


def csv_line(cells: tuple[str, ...]) -> str:
    """Return a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def table_line(row: Mapping[str, str]) -> str:
    """Return a line of CSV, by columns, with nothing that a terminal or a spreadsheet obeys."""
    return csv_line(tuple(_cell(column, text) for column, text in row.items()))


def _cell(column: str, text: str) -> str:
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
