"""Writing the results of a bulk issue, to a CSV file that appears whole or to standard output.

Rows hold codes, which are money: a row that can't be written where it belongs goes to the next
best place, and the run stops.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import orjson

from rm_voucher.bulk import BulkResult
from rm_voucher.exceptions import ConfigurationError, VoucherError

__all__ = ["OutputError", "ResultFile", "ResultStream", "Results", "csv_line", "json_line"]

COLUMNS = ("recipient", "code", "qr_url", "status", "error")


class OutputError(VoucherError):
    """The results can't be written any more, for example because the disk is full."""


class Results(ABC):
    """Where results go, and where they go when that fails. Everything is UTF-8."""

    shares_terminal = False
    """Whether a progress bar would be drawn into the rows."""

    def __init__(self, *, rescue: TextIO | None) -> None:
        self._rescue = rescue
        self._broken = False

    def add(self, result: BulkResult[str]) -> None:
        """Write one row through to the operating system.

        Raises `OutputError` at the first failure; that row and all later ones go to the rescue.
        """
        line = self._line(result)
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
        if self._rescue is not None:
            self._rescue.write(line)
            self._rescue.flush()

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
        super().__init__(rescue=sys.stderr)
        self._as_json = as_json
        if sys.stdout is None:
            raise ConfigurationError("There is no standard output: name a file with --output.")
        self.shares_terminal = sys.stdout.isatty()

    def __enter__(self) -> Self:
        if not self._as_json:
            try:
                self._write(csv_line(COLUMNS))
            except OSError as exc:
                self._give_up()
                raise ConfigurationError(str(self._error(exc))) from exc
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._broken:
            self._give_up()

    def _give_up(self) -> None:
        # The interpreter would flush into the closed pipe or full disk once more at its end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _line(self, result: BulkResult[str]) -> str:
        return json_line(_row(result)) if self._as_json else super()._line(result)

    def _write(self, line: str) -> None:
        sys.stdout.buffer.write(line.encode())
        sys.stdout.flush()

    def _error(self, exc: OSError) -> OutputError:
        return OutputError(f"Standard output can't be written: {exc.strerror}.")


class ResultFile(Results):
    """A CSV file that only its owner can read. Standard output is the rescue.

    Rows go to ``NAME.partial``, which takes the file's name at the end. What a killed run leaves
    is the partial file, and the next run refuses to overwrite it. ``keep_previous``: a file that
    is already there holds codes too, so it is kept beside the new one under the next free number.
    Raises `ConfigurationError` when it can't be begun.
    """

    def __init__(self, path: Path, *, keep_previous: bool) -> None:
        super().__init__(rescue=sys.stdout)
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._keep_previous = keep_previous
        self._whole_bytes = 0
        try:
            if path.exists() and not path.is_file():
                kind = "a folder" if path.is_dir() else "no plain file"
                raise ConfigurationError(f"{path} is {kind}: name a file.")
            descriptor = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                f"{self.partial} is there: a run that writes it is going on, or was killed and "
                "left codes in it. Move it away first."
            ) from None
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def __enter__(self) -> Self:
        try:
            self._write(csv_line(COLUMNS))
        except OSError as exc:
            self._file.close()
            self.partial.unlink()
            raise ConfigurationError(f"{self.path} can't be written: {exc.strerror}.") from exc
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._broken:
            self._file.close()
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            if self._keep_previous and self.path.exists():
                shutil.copy2(self.path, self._free_name())
            self.partial.replace(self.path)
        except OSError as error:
            raise self._error(error) from error

    def _write(self, line: str) -> None:
        data = memoryview(line.encode())
        try:
            while data:
                data = data[self._file.write(data) :]
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

    def _free_name(self) -> Path:
        number = 1
        while (name := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        return name


def _row(result: BulkResult[str]) -> dict[str, str]:
    voucher, error = result.voucher, result.error
    values = (
        result.recipient,
        voucher.code if voucher else "",
        (voucher.qr_url or "") if voucher else "",
        result.status.value,
        str(error) if error else "",
    )
    return dict(zip(COLUMNS, values, strict=True))


def csv_line(cells: tuple[str, ...]) -> str:
    """Return a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def json_line(value: object) -> str:
    """Return a line of JSON."""
    return orjson.dumps(value).decode() + "\n"
