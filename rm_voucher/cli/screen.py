"""The only place that writes to standard output and standard error.

Lines of people, rows of data and log lines come from everywhere, and on a terminal a bar may stand
in the last line. All pass one writer, so that the bar moves down for each of them and none is torn.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Self, TextIO

from rm_voucher.text import printable

_ERASE = "\r\x1b[J"  # the line of the cursor, and what a narrowed window has wrapped of it
_NO_TERMINAL = {"", "dumb", "unknown"}
_USUAL_COLUMNS = 80


class Screen:
    """What is on the screen besides the lines: whether it is quiet, and the bar.

    A bar is a function from a number of columns to a text that fits into them.
    """

    def __init__(self) -> None:
        self.quiet: bool = False
        self._lock = threading.RLock()  # a library may log in a thread
        self._bar: Callable[[int], str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.quiet = False  # the next command of a process is not

    @contextlib.contextmanager
    def bar(self, text: Callable[[int], str]) -> Iterator[None]:
        """Keep a bar in the last line; what it shows at the end stays there."""
        self._bar = text
        self.redraw()
        try:
            yield
        finally:
            with self._lock:
                self.redraw()
                self._bar = None
                _try_write(sys.stderr, "\n")

    def redraw(self) -> None:
        """Show the bar as it is now. It is no error if nobody sees it."""
        with self._lock:
            if self._bar is not None:
                # The cursor goes back, so that what a terminal echoes (^C) makes no line longer.
                _try_write(sys.stderr, f"\r{self._bar(columns() - 1)}\x1b[J\r")

    def write(self, stream: TextIO | None, text: str) -> None:
        """Write whole lines through to the operating system, as UTF-8. Raises `OSError`."""
        with self._lock:
            if stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if self._bar is None or not stream.isatty():
                _write(stream, text)
                return
            _try_write(sys.stderr, _ERASE)
            try:
                _write(stream, text)
            finally:
                self.redraw()


SCREEN = Screen()


def say(text: str) -> None:
    """Write a line to standard error: an error, an end, what a person must decide.

    A terminal obeys none of it, whoever wrote it. It is no error if nobody reads it.
    """
    with contextlib.suppress(OSError):
        write_err(f"{printable(text)}\n")


def note(text: str) -> None:
    """Write a line to standard error likewise, unless the command is to be quiet."""
    if not SCREEN.quiet:
        say(text)


def tell(text: str) -> None:
    """Write a line to standard output, for a person. Raises `OSError`."""
    write_out(f"{printable(text)}\n")


def write_out(text: str) -> None:
    """Write to standard output. Raises `OSError`.

    The text is `table_line`, `csv_line` or `json_line`; others `tell`.
    """
    SCREEN.write(sys.stdout, text)


def write_err(text: str) -> None:
    """Write to standard error, likewise."""
    SCREEN.write(sys.stderr, text)


def is_quiet() -> bool:
    """Return whether errors and the end are all that a person wants to read."""
    return SCREEN.quiet


def can_draw() -> bool:
    """Return whether a bar can be drawn: standard error is a terminal, with colours if wanted."""
    return (
        sys.stderr is not None
        and sys.stderr.isatty()
        and os.environ.get("TERM", "") not in _NO_TERMINAL
        and not os.environ.get("NO_COLOR")
    )


def columns() -> int:
    """Return the width of the terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if width := os.get_terminal_size(sys.stderr.fileno()).columns:
            return width
    return shutil.get_terminal_size((_USUAL_COLUMNS, 24)).columns


def _try_write(stream: TextIO | None, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            _write(stream, text)


def _write(stream: TextIO, text: str) -> None:
    stream.flush()
    # Python's buffer would keep a row that a full disk refuses, and write it again at the end.
    write_all(getattr(stream.buffer, "raw", stream.buffer), text)


def write_all(raw: IO[bytes], text: str) -> None:
    """Write a text as UTF-8 to an unbuffered file, whole. Raises `OSError`."""
    data = memoryview(text.encode(errors="replace"))  # a file name may hold what is no text
    while data:
        data = data[raw.write(data) :]


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
