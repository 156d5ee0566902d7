"""Records requests and answers in a file, a line of JSON each, with codes and secrets masked."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.exchange import Exchange
from rm_voucher.emulator.view.exchanges import recorded
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_private
from rm_voucher.jsontext import write_json

_EVERY_S = 0.25
_MOST_WAITING = 20_000
_AT_ONCE = 500  # lines, between two looks at the end


@contextmanager
def recording(path: Path, emulator: Emulator, say: Callable[[str], object]) -> Iterator[None]:
    """Append a line to a file for each request in the block, from a thread.

    A line is written whole or not at all, within a second. If the file can't be written any more,
    or requests come faster than they can be written, ``say`` is told once, and the emulator goes
    on. Raises `ConfigurationError` where it can't be opened.
    """
    try:
        file = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror or exc}.") from None
    recorder = _Recorder(path, file, say)
    emulator.journal.observers.append(recorder.note)
    thread = threading.Thread(target=recorder.run, name="rm-emulator-recorder")
    thread.start()
    try:
        yield
    finally:
        emulator.journal.observers.remove(recorder.note)
        recorder.ends.set()
        thread.join()
        os.close(file)


class _Recorder:
    def __init__(self, path: Path, file: int, say: Callable[[str], object]) -> None:
        self.ends = threading.Event()
        self._path = path
        self._file = file
        self._say = say
        self._waiting: deque[Exchange] = deque()
        self._left_out = 0
        self._has_failed = False

    def note(self, exchange: Exchange) -> None:
        """Take an exchange, to be written soon."""
        if self._has_failed:
            return
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(exchange)
            return
        if not self._left_out:
            self._say(f"Requests come faster than {self._path} can be written: some are left out.")
        self._left_out += 1

    def run(self) -> None:
        """Write what comes, until the end and all that came before it."""
        is_last = False
        while not is_last:
            is_last = self.ends.wait(_EVERY_S)
            while self._waiting and not self._has_failed:
                count = min(len(self._waiting), _AT_ONCE)
                self._write([self._waiting.popleft() for _ in range(count)])

    def _write(self, exchanges: list[Exchange]) -> None:
        lines = b"".join(write_json(recorded(each)) + b"\n" for each in exchanges)
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, lines)
            if written < len(lines):  # the disk is full
                raise OSError("no space is left")
        except OSError as exc:
            os.truncate(self._file, before)  # half a line is none
            self._has_failed = True
            self._say(f"{self._path} can't be written any more: {exc.strerror or exc}.")
