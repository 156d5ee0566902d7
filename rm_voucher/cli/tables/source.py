"""Opens what a person named, a file, a pipe or standard input, and tells what kind it is."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rm_voucher.exceptions import ConfigurationError

STANDARD_INPUT = Path("-")
MAX_PIPED_BYTES = 4 << 30
IN_MEMORY_BYTES = 1 << 20  # of a copy; a larger one is a file without a name
_CHUNK_BYTES = 1 << 20
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def title_of(path: Path) -> str:
    """Return what a file is called in a sentence."""
    return "standard input" if path == STANDARD_INPUT else str(path)


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, a pipe, or standard input for ``-``, so that it can be read more than once.

    Raises `ConfigurationError` for what can't be read, and at the end for a file that was changed
    meanwhile.
    """
    title = title_of(path)
    try:
        with os.fdopen(_open(path), "rb") as file:
            before = _state(file)
            if before is None:
                with _copy_of(file) as copy:
                    yield copy
                return
            yield file
            if _state(file) != before:
                raise ConfigurationError(f"{title} was changed while it was read: try again.")
    except OSError as exc:
        raise ConfigurationError(f"{title} can't be read: {exc.strerror or exc}.") from exc


def kind_by_bytes(file: IO[bytes], title: str) -> str:
    """Return ``xlsx``, ``jsonl`` or ``csv``, by a file's first bytes, and begin it anew.

    Raises `ConfigurationError` for the other files of spreadsheets.
    """
    start = file.read(2_000)
    file.seek(0)
    if start.startswith(_OLE):
        raise ConfigurationError(
            f"{title} is an old .xls, or has a password: save it as .xlsx or as CSV, without one."
        )
    if not start.startswith(_ZIP):
        return "jsonl" if start.lstrip().startswith(b'{"') else "csv"
    if b"opendocument" in start:
        raise ConfigurationError(f"{title} is an .ods: save it as .xlsx or as CSV.")
    return "xlsx"


def _open(path: Path) -> int:
    """Open it. A pipe that nobody writes is empty, and not waited for."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise ConfigurationError("There is no standard input: name a file.")
        return os.dup(sys.stdin.fileno())
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(descriptor, True)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigurationError(f"{path} can't be read: it is a folder.")
    return descriptor


def _state(file: IO[bytes]) -> tuple[int, int] | None:
    state = os.fstat(file.fileno())
    # A pipe changes while it is read.
    return (state.st_mtime_ns, state.st_size) if stat.S_ISREG(state.st_mode) else None


def _copy_of(file: IO[bytes]) -> IO[bytes]:
    copy = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        left = MAX_PIPED_BYTES
        while chunk := file.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise ConfigurationError("What comes through the pipe has no end: give a file.")
            copy.write(chunk)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy
