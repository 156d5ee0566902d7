"""What a run has done so far, in a file beside its output that a kill leaves behind.

Lines of JSON: which run it is; which rows are about to be asked, before they are; how each ended.
It has no code: rows are known by their numbers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from rm_voucher import ConfigurationError
from rm_voucher.cli.codes.file import Codes, instant
from rm_voucher.cli.codes.operations import Operation, instant_of
from rm_voucher.cli.output import OutputError, refuse_no_file
from rm_voucher.cli.screen import write_all, write_out
from rm_voucher.converters import format_time
from rm_voucher.files import open_private


class Journal:
    """The journal of an output file. Standard output is the rescue of what can't be written.

    Raises `ConfigurationError` where another run writes it, or where it is of another run.
    """

    def __init__(self, output: Path, operation: Operation, codes: Codes, account: str) -> None:
        self.path: Path = output.with_name(f"{output.name}.partial")
        self._output = output
        self._codes = codes
        self._size = self._found = 0
        self._starts = array("Q", bytes(8 * len(codes.table)))  # 0: no line
        self._run = {
            "operation": operation.name,
            "account": account,
            "codes": _digest(codes),
        }
        try:
            refuse_no_file(output)
            descriptor = open_private(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as exc:
            raise ConfigurationError(f"{output} can't be written: {exc.strerror}.") from exc
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            self._lock()
            self._pick_up()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of it, and leave it."""
        self._file.close()

    def remove(self) -> None:
        """Remove it: its output has all that it has, or nothing was done."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._file.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was begun."""
        return self._size == 0

    def begin(self, first: int, last: int, begun_at: datetime | None) -> None:
        """Note that these rows are about to be asked. Raises `OutputError`."""
        at = format_time(begun_at) if begun_at else ""
        self._add({"begun": [first, last], "at": at})

    def put(self, number: int, ours: Mapping[str, str]) -> None:
        """Note how a row ended. Raises `OutputError`; then the row is on standard output."""
        self._starts[number] = self._add({"row": number, **ours})

    def ours(self, number: int) -> Mapping[str, str] | None:
        """Return how a row ended, or None."""
        start = self._starts[number]
        if not start:
            return None
        newline, size = b"", 1 << 10
        while not newline:  # most fit at once
            size *= 2
            line, newline, _ = os.pread(self._file.fileno(), size, start).partition(b"\n")
        return _ours_in(orjson.loads(line))

    def forget(self) -> None:
        """Forget what was begun since it was opened: provably nothing was done."""
        self._size = self._found
        with contextlib.suppress(OSError):
            self._file.truncate(self._size)

    def _add(self, line: Mapping[str, Any]) -> int:
        """Write a line; return where it begins."""
        head = b"" if self._size else orjson.dumps(self._run) + b"\n"
        data = head + orjson.dumps(line) + b"\n"
        start = self._size + len(head)
        try:
            self._file.seek(self._size)
            write_all(self._file, data.decode())
        except OSError as exc:
            with contextlib.suppress(OSError):  # no torn line
                self._file.truncate(self._size)
            if "row" in line:
                with contextlib.suppress(OSError):
                    write_out(orjson.dumps(line).decode() + "\n")
            raise OutputError(
                f"{self.path} can't be written: {exc.strerror}. What ended after that is on "
                "standard output, by the numbers of its rows."
            ) from exc
        self._size += len(data)
        return start

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = os.path.samestat(os.fstat(self._file.fileno()), self.path.lstat())
        except (BlockingIOError, FileNotFoundError):
            is_there = False
        if not is_there:
            raise ConfigurationError(f"Another run writes {self._output}: wait for its end.")

    def _pick_up(self) -> None:
        """Tell the codes what an earlier run has done."""
        for line, end in self._lines():
            if self._size == 0:
                if line != self._run:
                    raise ConfigurationError(
                        f"{self.path} is what a killed run of another operation, account or list "
                        "of codes left: run that again to its end, or move the file away."
                    )
            elif "begun" in line:
                begun_at = instant(line["at"])
                for number in range(line["begun"][0], line["begun"][1] + 1):
                    self._codes.doubt(number, begun_at and instant_of(begun_at, number))
            else:
                self._starts[line["row"]] = self._size
                self._codes.note(line["row"], line["outcome"], line["used_at"])
            self._size = end
        self._file.truncate(self._size)  # a torn line
        self._found = self._size

    def _lines(self) -> Iterator[tuple[Any, int]]:
        """Iterate over the whole lines, each with where the next one begins."""
        end = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            for data in file:
                end += len(data)
                if not data.endswith(b"\n"):
                    return
                try:
                    yield orjson.loads(data), end
                except orjson.JSONDecodeError:  # what a power cut left
                    return


def _ours_in(line: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: text for name, text in line.items() if name != "row"}


def _digest(codes: Codes) -> str:
    """Return what tells one list of codes from another, without a code in it."""
    digest = hashlib.sha256()
    for number in range(len(codes.table)):
        digest.update(orjson.dumps([number, codes.code(number)]))
    return digest.hexdigest()
