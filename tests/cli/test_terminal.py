"""The command on a real terminal (a pseudo-terminal with a person at it, who types Ctrl-C)."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pexpect.fdpexpect
import pyte
import pytest
from support.command import COMMAND, PATIENCE_S

# The terminal becomes the one that controls the process, so that Ctrl-C is a signal.
_LOGIN = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
CTRL_C = b"\x03"


@attrs.define
class Session:
    """A command on a terminal, and what it shows."""

    process: subprocess.Popen[bytes]
    spawned: pexpect.fdpexpect.fdspawn
    screen: pyte.HistoryScreen
    _stream: pyte.ByteStream
    sent: bytes = b""
    """All that it was sent."""

    def sees(self, text: str) -> None:
        """Wait until a text has come."""
        self._read(text)

    def types(self, keys: bytes) -> None:
        self.spawned.send(keys)

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        self._read(pexpect.EOF)
        return self.process.wait(PATIENCE_S)

    def _read(self, until: Any) -> None:
        self.spawned.expect(until, timeout=PATIENCE_S)
        for part in (self.spawned.before, self.spawned.after):
            if isinstance(part, bytes):
                self.sent += part
                self._stream.feed(part)

    @property
    def lines(self) -> list[str]:
        width = self.screen.columns
        above = ["".join(row[n].data for n in range(width)) for row in self.screen.history.top]
        return [line.rstrip() for line in (*above, *self.screen.display)]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Session]]:
    """Start the command on a terminal of so many columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    sessions: list[tuple[Session, int]] = []

    def start(columns: int, *arguments: object) -> Session:
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-c", _LOGIN, *COMMAND, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its)
        os.close(its)
        screen = pyte.HistoryScreen(columns, 24, history=10_000)
        spawned = pexpect.fdpexpect.fdspawn(ours, timeout=PATIENCE_S)
        session = Session(process, spawned, screen, pyte.ByteStream(screen))
        sessions.append((session, ours))
        return session

    yield start
    for session, ours in sessions:
        with session.process:
            if session.process.poll() is None:
                session.process.kill()
        os.close(ours)


def unwrapped(lines: list[str], columns: int) -> str:
    """The text of the lines, with those joined that the terminal has wrapped."""
    return "".join(line if len(line) == columns else f"{line}\n" for line in lines)


@pytest.mark.parametrize("columns", [80, 40])
def test_rows_and_bar(on_terminal, served, columns: int) -> None:
    """Each row is whole, though the bar is on the same terminal; it stands below the last one."""
    served.emulator.add_batch("Breakfast", key="B", quantity=60)
    session = on_terminal(columns, "issue", "B", "--count", 60)
    assert session.end() == 0
    text = unwrapped(session.lines, columns)
    rows = re.findall(r"^(\d+),(\w+),(https?://\S+),issued,$", text, re.MULTILINE)
    assert sorted(code for _, code, _ in rows) == sorted(served.issued())
    assert sorted(int(name) for name, _, _ in rows) == list(range(1, 61))
    rest = [line for line in text.splitlines() if line and ",issued," not in line]
    del rest[: rest.index("recipient,code,qr_url,voucher_status,error")]  # the plan
    assert re.fullmatch(r"(issuing )?━* ?60/60( 0:00:00)?", rest[1])
    assert rest[2:] == ["60 asked: 60 issued, 0 failed, 0 unknown"]


@pytest.mark.parametrize("columns", [80, pytest.param(40, marks=pytest.mark.long)])
def test_three_interrupts(on_terminal, served, columns: int) -> None:
    """Each Ctrl-C says what happens; the third ends while a call waits for its answer."""
    served.emulator.add_batch("Breakfast", key="B", quantity=60)
    released = threading.Event()

    def issue(answer):
        if len(served.issued()) == 10:
            released.wait(PATIENCE_S)
        return answer()

    served.on_issue = issue
    session = on_terminal(columns, "issue", "B", "--count", 60, "--concurrency", 1)
    session.sees("10/60")
    for said in ("Stopping: waiting for", "Still waiting for 1 call in", "Ending now: the outcome"):
        session.types(CTRL_C)
        session.sees(said)
    assert session.end() == 4
    released.set()
    text = unwrapped(session.lines, columns)
    assert len(re.findall(r"^\d+,\w+,\S+,issued,$", text, re.MULTILINE)) == 10
    assert len(re.findall(r"^11,,,unresolved,issue: ", text, re.MULTILINE)) == 1
    assert "^C" not in "".join(line for line in text.splitlines() if ",issued," in line)
    assert "Stopped early: 49 were not asked for." in text


def test_interrupted_once(on_terminal, served) -> None:
    """One Ctrl-C waits for the call in flight, and its code is in its row."""
    served.emulator.add_batch("Breakfast", key="B", quantity=60)
    pressed = threading.Event()

    def issue(answer):
        if len(served.issued()) == 10:
            pressed.wait(PATIENCE_S)
        return answer()

    served.on_issue = issue
    session = on_terminal(80, "issue", "B", "--count", 60, "--concurrency", 1)
    session.sees("10/60")
    session.types(CTRL_C)
    session.sees("Stopping: waiting for")
    pressed.set()
    assert session.end() == 130
    text = unwrapped(session.lines, 80)
    codes = re.findall(r"^\d+,(\w+),\S+,issued,$", text, re.MULTILINE)
    assert sorted(codes) == sorted(served.issued())
    assert len(codes) == 11


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_plain(on_terminal, served, monkeypatch, name: str, value: str) -> None:
    """A terminal that is to be plain gets lines, and not one escape sequence."""
    monkeypatch.setenv(name, value)
    served.emulator.add_batch("Breakfast", key="B", quantity=30)
    session = on_terminal(80, "issue", "B", "--count", 30)
    assert session.end() == 0
    assert b"\x1b" not in session.sent
    assert b"30 of 30: 30 issued, 0 failed, 0 unknown" in session.sent


def test_quiet(on_terminal, served) -> None:
    """``-q`` leaves the rows and the end."""
    served.emulator.add_batch("Breakfast", key="B", quantity=30)
    session = on_terminal(80, "issue", "B", "--count", 30, "-q")
    assert session.end() == 0
    rest = [line for line in unwrapped(session.lines, 80).splitlines() if ",issued," not in line]
    assert [line for line in rest if line] == [
        "recipient,code,qr_url,voucher_status,error",
        "30 asked: 30 issued, 0 failed, 0 unknown",
    ]
