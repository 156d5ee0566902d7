"""Writes the results of a run to standard output, or to a file that appears whole.

Rows hold codes, which are money: a row that can't be written goes to the next best place, and the
run stops.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from rm_voucher.bulk.results import BulkResult
from rm_voucher.cli.earlier import NoResultsError, codes_in, results_in
from rm_voucher.cli.layout import Layout
from rm_voucher.cli.output import OutputError, csv_line, json_line, refuse_no_file
from rm_voucher.cli.screen import write_all, write_err, write_out
from rm_voucher.cli.tables.columns import OURS, keys_of
from rm_voucher.cli.tables.index import Index
from rm_voucher.cli.tables.model import text_of
from rm_voucher.cli.tables.read import Table
from rm_voucher.cli.tables.write import (
    MAX_CELL_CHARS,
    MAX_SHEET_ROWS,
    harmless,
    kind_of,
    open_writer,
    too_long,
    too_many_rows,
)
from rm_voucher.exceptions import ConfigurationError, LedgerError
from rm_voucher.files import open_private
from rm_voucher.ledger.sender import GivenUpError

COLUMNS = ("recipient", *OURS)
"""The columns of a run without a person's table."""
# Of a recipient whose code arrived, and the ledger could not keep it. An unresolved row may have a
# code as well: one that came with an error, which proves nothing.
_UNKEPT = "unkept"
_GIVEN_UP = "given_up"
_SUFFIXES = (".partial", ".ledger.partial")  # of a run without a ledger, and with one
# What is said where the other one is there: whoever is in it would get a second voucher.
_WITHOUT_LEDGER = (
    "a run with a ledger that writes it is going on, or was broken off. Run that again with its "
    "--ledger: without it, who has a voucher would get a second one. Nothing was issued."
)
_BESIDE_LEDGER = (
    "a run without a ledger that writes it is going on, or was killed and left codes in it, which "
    "the ledger does not know. Take who stands in it off the list, and who was being asked for: "
    "they may have vouchers, too. Then move it away. Nothing was issued."
)
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")

Unasked = Callable[[int], Mapping[str, str]]
"""Returns our columns of a row without a result."""


def partial_of(path: Path, *, is_kept: bool) -> Path:
    """Return where the rows of an output are until it is whole: with a ledger, or without one."""
    return path.with_name(path.name + _SUFFIXES[is_kept])


def refuse_partial_of_other_kind(path: Path, *, is_kept: bool) -> None:
    """Raise `ConfigurationError` beside what a run that keeps its codes in the other way left."""
    if (other := partial_of(path, is_kept=not is_kept)).exists():
        raise ConfigurationError(
            f"{other} is there: {_BESIDE_LEDGER if is_kept else _WITHOUT_LEDGER}"
        )


class Results(ABC):
    """A target of rows, with rescues for the time when it fails. Everything is UTF-8.

    Entering it changes nothing yet; `begin` begins it. Rows of a ``table`` that got no result have
    what ``unasked`` says, at the end.
    """

    def __init__(
        self,
        layout: Layout,
        unasked: Unasked | None,
        *rescues: Callable[[str], None],
    ) -> None:
        self.layout = layout
        self._unasked = unasked or self._not_asked
        self._rescues = rescues
        self._broken = False
        self._has_begun = False

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
        self.put(getattr(result.recipient, "number", None), row_of(result))

    @abstractmethod
    def put(self, number: int | None, ours: Mapping[str, str]) -> None:
        """Write our columns of a row, likewise; a row without a table may have no number."""

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

    def _not_asked(self, number: int) -> Mapping[str, str]:
        table = self.layout.table
        is_blank = table is not None and table.row(number).is_blank
        return {} if is_blank else {"voucher_status": "not_asked"}

    @abstractmethod
    def _write(self, line: str) -> None: ...

    @abstractmethod
    def _error(self, exc: OSError) -> OutputError: ...


class ResultStream(Results):
    """Standard output, as CSV or a line of JSON each, as they come. Standard error is the rescue.

    Rows of a table that have no result follow at the end.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        table: Table | None = None,
        columns: Sequence[str] | None = None,
        unasked: Unasked | None = None,
    ) -> None:
        columns = columns or (COLUMNS if table is None else OURS)
        super().__init__(Layout(table, columns), unasked, write_err)
        self._as_json = as_json
        self._keys = keys_of(self.layout.header)
        self._done = bytearray(0 if table is None else len(table))
        if sys.stdout is None:
            raise ConfigurationError("There is no standard output: name a file with --output.")

    def __exit__(self, error_type: object, *_: object) -> None:
        """Write the rows that have no result. All others were written through."""
        if not self._has_begun or self._broken or error_type is not None:
            return
        for number, is_done in enumerate(self._done):
            if not is_done:
                self.put(number, self._unasked(number))

    def begin(self) -> None:
        """Write the header, where there is one."""
        if not self._as_json:
            try:
                write_out(csv_line(tuple(map(harmless, self.layout.header))))
            except OSError as exc:
                raise ConfigurationError(str(self._error(exc))) from exc
        self._has_begun = True

    def put(self, number: int | None, ours: Mapping[str, str]) -> None:
        """Write a row."""
        if self._as_json:
            row = dict(zip(self._keys, self.layout.cells_at_least(number, ours), strict=True))
            self.add_line(json_line(row))
        else:
            line = self.layout.line(number, ours)
            self.add_line(_TURNS.sub(lambda found: repr(found[0])[1:-1], line))
        if self.layout.table is not None and number is not None:
            self._done[number] = 1

    def _write(self, line: str) -> None:
        write_out(line)

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(f"Standard output can't be written: {exc.strerror}.")


class ResultFile(Results):
    """A file that only its owner can read: CSV, .xlsx or JSON lines. Standard output is the rescue.

    Rows go to ``NAME.partial`` as they come, as CSV; the file is written from it at the end, in the
    order of the table, and takes its name. A killed run leaves the partial file, and the next run
    refuses to overwrite it. An older file holds codes too, so it is kept beside the new one under
    the next free number. With ``is_kept`` all rows are in a ledger as well: they go to
    ``NAME.ledger.partial``, which `begin` overwrites unless another run writes it, and an older
    file is replaced if all its codes are in the new one. Only a code that the ledger could not keep
    is in no ledger: `unkept` finds those. Neither kind of run begins beside a partial file of the
    other: it would issue again to all who are in that.
    """

    def __init__(
        self,
        path: Path,
        *,
        table: Table | None = None,
        columns: Sequence[str] | None = None,
        unasked: Unasked | None = None,
        is_kept: bool = False,
        excel: bool = False,
    ) -> None:
        columns = columns or (COLUMNS if table is None else OURS)
        super().__init__(Layout(table, columns), unasked, write_out, write_err)
        self.path = path
        self._is_kept = is_kept
        self._excel = excel
        self._whole_bytes = 0
        # Where the row of each number is in the partial file, and how long; 0 bytes: nowhere.
        self._starts, self._lengths = array("Q"), array("I")
        if table is not None:
            _refuse_what_no_sheet_holds(path, table)
        try:
            refuse_no_file(path)
            # Two names, because the rows of a run without a ledger are in no ledger.
            self.partial: Path = partial_of(path, is_kept=is_kept)
            descriptor = _open_alone(self.partial, again=is_kept)
            try:
                refuse_partial_of_other_kind(path, is_kept=is_kept)
            except ConfigurationError:
                if not os.fstat(descriptor).st_size:
                    self.partial.unlink()
                os.close(descriptor)
                raise
        except (FileExistsError, BlockingIOError):
            raise ConfigurationError(_in_use(self.partial)) from None
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
        self._file = os.fdopen(descriptor, "r+b", buffering=0)

    def unkept(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Iterate over those rows.

        They are in what a run left of the partial file, and in the file that is to be replaced.
        """
        for path in (self.partial, self.path):
            try:
                for row in results_in(
                    path, is_partial=path == self.partial, column=self.layout.column
                ):
                    # A row that a killed run has torn has no status.
                    if row.get("voucher_status") != _UNKEPT or not row["code"]:
                        continue
                    if not row.get("recipient"):
                        raise ConfigurationError(
                            f"{path} has codes that are in no ledger, and not whose they are: "
                            "move it away once somebody knows who has them."
                        )
                    yield path, row
            except (FileNotFoundError, NoResultsError):
                continue
            except OSError as exc:
                raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc

    def begin(self) -> None:
        """Empty the partial file, and write the header."""
        try:
            self._file.truncate(0)
            self._write(csv_line(tuple(map(harmless, self.layout.header))))
        except OSError as exc:
            raise ConfigurationError(f"{self.path} can't be written: {exc.strerror}.") from exc
        self._has_begun = True

    def put(self, number: int | None, ours: Mapping[str, str]) -> None:
        """Write a row. Without a number it follows those that were written."""
        self._put_line(number, self.layout.line(number, ours))

    def add_line(self, line: str) -> None:
        """Write a line that `table_line` made, after those that were written."""
        self._put_line(None, line)

    def _put_line(self, number: int | None, line: str) -> None:
        start = self._whole_bytes
        super().add_line(line)
        if self._broken:
            return
        if number is None:
            table = self.layout.table
            number = max(len(self._starts), 0 if table is None else len(table))
        if missing := max(0, number + 1 - len(self._starts)):
            self._starts.frombytes(bytes(8 * missing))
            self._lengths.frombytes(bytes(4 * missing))
        self._starts[number], self._lengths[number] = start, self._whole_bytes - start

    def __exit__(self, error_type: object, *_: object) -> None:
        # The partial file stays locked until the whole one has the file's name.
        with self._file:
            if not self._has_begun:
                if not os.fstat(self._file.fileno()).st_size:  # it holds nothing of an earlier run
                    self.partial.unlink(missing_ok=True)
                return
            if self._broken or (self._is_kept and error_type is not None):
                return
            try:
                os.fsync(self._file.fileno())
                self._write_whole()
                self.partial.unlink()
            except OSError as error:
                raise OutputError(
                    f"{self.path} can't be written: {error.strerror}. All rows are in "
                    f"{self.partial}."
                ) from error
            except ConfigurationError as error:
                raise OutputError(f"{error} All rows are in {self.partial}.") from error
            except KeyboardInterrupt as error:
                raise OutputError(
                    f"{self.path} was not finished, because it was interrupted. All rows are in "
                    f"{self.partial}."
                ) from error

    def _write_whole(self) -> None:
        table, codes = self.layout.table, Index()
        is_compared = self._is_kept and self.path.exists()
        with open_writer(
            self.path,
            self.layout.header,
            like=None if table is None else table.format,
            excel=self._excel,
            exact=self.layout.exact,
            is_replaced=lambda: is_compared and self._has_all_of(self.path, codes),
            new=self.partial.with_name(self.partial.name + ".new"),
        ) as writer:
            rows = 0 if table is None else len(table)
            for number in range(max(len(self._starts), rows)):
                cells = self._result(number)
                if number >= rows:
                    if cells is None:
                        continue
                    writer.add(cells)
                else:
                    writer.add(self.layout.cells(number, self._ours(number, cells)))
                if is_compared and (code := self._ours(number, cells).get("code")):
                    codes.add(code, number)

    def _result(self, number: int) -> list[str] | None:
        """Return the cells of a row from the partial file, or None: it has no result."""
        if number >= len(self._lengths) or not self._lengths[number]:
            return None
        data = os.pread(self._file.fileno(), self._lengths[number], self._starts[number])
        return self.layout.read(data.decode())

    def _ours(self, number: int, cells: list[str] | None) -> Mapping[str, str]:
        return self._unasked(number) if cells is None else self.layout.ours_in(cells)

    def _has_all_of(self, path: Path, codes: Index) -> bool:
        """Return whether a file holds results whose codes are all in this one as well.

        They are not if the file is another campaign's, or if this run stopped earlier.
        """
        try:
            return all(
                any(
                    self._ours(number, self._result(number)).get("code") == code
                    for number in codes.find(code)
                )
                for code in codes_in(path, self.layout.header)
            )
        except NoResultsError:
            return False

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


def is_unkept(result: BulkResult[str]) -> bool:
    """Return whether the voucher of a result is in no ledger, though it should be."""
    error = result.error
    return result.voucher is not None and isinstance(error and error.__cause__, LedgerError)


def is_given_up(result: BulkResult[str]) -> bool:
    """Return whether a person decided that this recipient gets nothing."""
    return isinstance(result.error, GivenUpError)


def _status_of(result: BulkResult[str]) -> str:
    if is_given_up(result):
        return _GIVEN_UP
    return _UNKEPT if is_unkept(result) else result.status.value


def row_of(result: BulkResult[str]) -> dict[str, str]:
    """Return the columns of a result, with the recipient."""
    voucher, error = result.voucher, result.error
    return {
        "recipient": result.recipient,
        "code": voucher.code if voucher else "",
        "qr_url": voucher.qr_url if voucher else "",
        "voucher_status": _status_of(result),
        "error": str(error) if error else "",
    }


def _refuse_what_no_sheet_holds(path: Path, table: Table) -> None:
    if kind_of(path) != "xlsx" or table.format.kind == "xlsx":
        return
    if len(table) >= MAX_SHEET_ROWS:
        raise ConfigurationError(too_many_rows())
    for row in table:
        if any(len(text_of(cell)) > MAX_CELL_CHARS for cell in row.cells):
            raise ConfigurationError(too_long(row.line))


def _in_use(partial: Path) -> str:
    return (
        f"{partial} is there: a run that writes it is going on, or was killed and left codes in "
        "it; recipients without a row may have vouchers, too. Move it away first."
    )


def refuse_partial(path: Path, *, is_kept: bool) -> None:
    """Raise `ConfigurationError` where a run would not begin beside what another one left."""
    if not is_kept and (own := partial_of(path, is_kept=False)).exists():
        raise ConfigurationError(_in_use(own))
    refuse_partial_of_other_kind(path, is_kept=is_kept)


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
        # Who had the lock may have given the file up by now, and nobody's is there.
        if not (path.exists() and os.path.samestat(opened, path.lstat())):
            raise BlockingIOError
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
