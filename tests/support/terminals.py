"""A terminal in this process, and what stands on it: pyte is the model of the screen."""

from __future__ import annotations

import io
import random
import sys

import pyte
import pytest

LINES = 24


class _Device(io.RawIOBase):
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._terminal.take(bytes(data))


def _buffered(device: io.RawIOBase) -> io.BufferedWriter:
    return io.BufferedWriter(device)


class Terminal:
    """What is written to it is on its screen at once. ``seed`` lets it take some only in parts."""

    def __init__(self, columns: int, *, seed: int | None = None) -> None:
        self.columns = columns
        self.screen = pyte.HistoryScreen(columns, LINES, history=100_000)
        self.frames: list[str] = []
        """The line of the cursor after each write that is whole: the bar, where there is one."""
        self._stream = pyte.ByteStream(self.screen)
        self._chance = None if seed is None else random.Random(seed)

    def take(self, data: bytes) -> int:
        is_part = self._chance is not None and len(data) > 1 and self._chance.random() < 0.1
        if is_part:
            assert self._chance is not None
            data = data[: self._chance.randrange(1, len(data))]
        self._stream.feed(data.replace(b"\n", b"\r\n"))
        if not is_part:
            self.frames.append(self.screen.display[self.screen.cursor.y].rstrip())
        return len(data)

    def stream(self) -> io.TextIOWrapper:
        """Return a file that writes to it, as `sys.stderr` is one."""
        return io.TextIOWrapper(_buffered(_Device(self)), "utf-8", write_through=True)

    def stands_for(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        """Be the terminal of this process: of its standard error alone, if no other is named."""
        for name in names or ("stderr",):
            monkeypatch.setattr(sys, name, self.stream())
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(self.columns))

    @property
    def lines(self) -> list[str]:
        """All that it has shown, from the first line on, and still has."""
        above = [
            "".join(row[n].data for n in range(self.columns)) for row in self.screen.history.top
        ]
        shown = [line.rstrip() for line in (*above, *self.screen.display)]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def wrapped(self, text: str) -> list[str]:
        """Return the lines on which it shows a text of lines."""
        width = self.columns
        return [
            line[begin : begin + width].rstrip()
            for line in text.splitlines()
            for begin in range(0, max(len(line), 1), width)
        ]
