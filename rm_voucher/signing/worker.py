"""One process that signs (`process`), and the connection to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from rm_voucher.signing import process
from rm_voucher.signing.process import FRAME, READY

_MOST_OUT = 32  # texts at a process, so that it never waits for the next
_READY_S = 30.0
_SCRIPT = process.__file__

Item = tuple[bytes, asyncio.Future[bytes]]
"""A text, and its signature to come."""


class Worker(asyncio.Protocol):
    """One process, and the connection to it."""

    def __init__(
        self,
        signature_bytes: int,
        waiting: deque[Item],
        on_ready: Callable[[Worker], None],
        on_signed: Callable[[asyncio.Future[bytes], bytes], None],
        on_end: Callable[[Worker], None],
    ) -> None:
        self._size = signature_bytes
        self._waiting = waiting
        self._on_ready = on_ready
        self._on_signed = on_signed
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: deque[Item] = deque()
        self._received = b""
        self._quiet_since = 0.0  # by the loop's clock
        self._is_closed = False

    async def start(self, key: bytes) -> None:
        """Start it, and wait until it can sign. Raises `OSError` and `TimeoutError`, and others."""
        try:
            async with asyncio.timeout(_READY_S):
                await self._start(key)
        except BaseException:
            self.close()
            raise

    async def _start(self, key: bytes) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
            except BaseException:
                ours.close()
                raise
            # In this thread: the fork holds the interpreter in any other too.
            self._process = _run(theirs)
        # The key goes over the socket, where no other user of the machine can read it. A relative
        # path may be another place by now, and anybody's, who would get the key.
        places = [
            place for place in sys.path if isinstance(place, str) and Path(place).is_absolute()
        ]
        path = os.fsencode("\0".join(places))
        transport.writelines([_frame(path), _frame(key)])
        await self._ready

    def take(self) -> None:
        """Send it texts, until it has enough to do."""
        block = []
        if not self._out:
            self._quiet_since = asyncio.get_running_loop().time()
        while self._waiting and len(self._out) < _MOST_OUT:
            item = self._waiting.popleft()
            if not item[1].done():
                self._out.append(item)
                block.append(_frame(item[0]))
        if block:
            assert self._transport is not None  # noqa: S101 - for the type checker
            self._transport.write(b"".join(block))

    def owed(self) -> list[Item]:
        """Return the texts that it has not signed, and whose signatures somebody waits for."""
        return [item for item in self._out if not item[1].done()]

    @property
    def is_busy(self) -> bool:
        """Whether it has texts, though they may be signed elsewhere by now."""
        return bool(self._out)

    def silent_s(self) -> float:
        """Return for how many seconds it has been busy and has sent nothing."""
        return asyncio.get_running_loop().time() - self._quiet_since if self._out else 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        # Another event loop's is no `asyncio.Transport`, but has its methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the signatures."""
        if self._ready.cancelled():  # its time is over
            return
        self._quiet_since = asyncio.get_running_loop().time()
        if not self._ready.done():
            self._ready.set_result(None)
            self._on_ready(self)
            data = data.removeprefix(READY)
        self._received += data
        count = len(self._received) // self._size
        for number in range(count):
            begin = number * self._size
            signature = self._received[begin : begin + self._size]
            self._on_signed(self._out.popleft()[1], signature)
        self._received = self._received[count * self._size :]
        self.take()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; the texts that it has not signed are given back."""
        self._transport = None
        if not self._ready.done() and not self._is_closed:
            self._ready.set_exception(ConnectionResetError("it ended before it was ready"))
        self.close()

    def close(self) -> None:
        """End it at once, and give back the texts that it has not signed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None:
            self._process.kill()
        self._waiting.extend(self._out)
        self._out.clear()
        self._on_end(self)

    def has_ended(self) -> bool:
        """Return whether nothing is left of it. Asking lets the system forget the process."""
        is_running = self._process is not None and self._process.poll() is None
        return self._transport is None and not is_running


def _frame(data: bytes) -> bytes:
    return FRAME.pack(len(data)) + data


def _run(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Run the script that signs, and nothing of the program's own. Raises `OSError`."""
    if not _is_python():
        raise FileNotFoundError("no interpreter to run")
    return subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
        [sys.executable, "-I", "-S", _SCRIPT],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Without the settings, which may hold the key.
        env={name: value for name, value in os.environ.items() if not name.startswith("RM_")},
    )


def _is_python() -> bool:
    """Return whether ``sys.executable`` is an interpreter, and not a program that has one in it."""
    name = Path(sys.executable or "").name
    return not getattr(sys, "frozen", False) and name.startswith(("python", "pypy"))
