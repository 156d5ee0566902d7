"""Signatures for a bulk run: in processes of their own, or in short steps of the event loop.

A signature takes 0.25 to 0.4 ms, two thirds of an issue. Where a run makes so many that processes
pay, on a machine with more than one core, some are started (`signer_process`); until they are
ready, and wherever they can't be, the loop signs, with a turn for everything else in between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from rm_voucher import signer_process
from rm_voucher.signer_process import FRAME, READY
from rm_voucher.signing import RsaSigner, Signer

__all__ = ["SigningPool", "signers_that_pay"]

_log = logging.getLogger("rm_voucher")

_STEP_S = 0.002  # of the event loop
_WORTH_S = 0.1  # of signing on the loop within _WINDOW_S: then processes pay
_WINDOW_S = 1.0
_MOST_OUT = 32  # texts at a process, so that it never waits for the next
_AT_ONCE = 4  # calls that go on in one turn of the event loop
_MOST_PROCESSES = 3  # one event loop gives no more of them enough to do
_READY_S = 30.0
_END_S = 5.0
_SCRIPT = signer_process.__file__

_Item = tuple[bytes, asyncio.Future[bytes]]


def signers_that_pay() -> int:
    """Return how many processes make a bulk run faster on this machine."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count or 1, _MOST_PROCESSES) if (count or 1) > 1 else 0


class SigningPool:
    """Signs for one run, in one event loop. Start no process for a signer of the caller's own."""

    def __init__(self, signer: Signer, *, processes: int) -> None:
        self._signer = signer
        # A subclass may sign otherwise.
        self._processes = processes if type(signer) is RsaSigner else 0
        self._waiting: deque[_Item] = deque()
        self._made: deque[tuple[asyncio.Future[bytes], bytes]] = deque()
        self._is_due = False
        self._at_work: list[_Worker] = []
        self._workers: list[_Worker] = []
        self._starting: asyncio.Task[None] | None = None
        self._window_from = 0.0
        self._signed_s = 0.0

    @property
    def processes(self) -> int:
        """How many processes sign at the moment."""
        return len(self._at_work)

    def sign(self, text: bytes) -> asyncio.Future[bytes]:
        """Return the signature to come. It raises what the signer raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((text, future))
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._hand_out)
        return future

    async def aclose(self) -> None:
        """End the processes. What was not signed never will be."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        for worker in self._workers:
            worker.close()
        await asyncio.gather(*(asyncio.to_thread(worker.reap) for worker in self._workers))

    def _hand_out(self) -> None:
        self._is_due = False
        for worker in self._at_work:
            worker.take()
        if self._waiting and not self._at_work:
            self._sign_some()

    def _sign_some(self) -> None:
        begun = now = time.perf_counter()
        while self._waiting and now - begun < _STEP_S:
            text, future = self._waiting.popleft()
            if not future.done():
                try:
                    future.set_result(self._signer.sign(text))
                except Exception as exc:  # noqa: BLE001 - a signer of the caller's own
                    future.set_exception(exc)
            now = time.perf_counter()
        if self._waiting:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._hand_out)
        if self._processes and self._starting is None:
            if now - self._window_from > _WINDOW_S:
                self._window_from, self._signed_s = begun, 0.0
            self._signed_s += now - begun
            if self._signed_s >= _WORTH_S:
                self._starting = asyncio.create_task(self._start(), name="rm-voucher signers")

    async def _start(self) -> None:
        assert isinstance(self._signer, RsaSigner)  # noqa: S101 - for the type checker
        key, size = self._signer.private_key_der(), self._signer.signature_bytes
        self._workers = [
            _Worker(size, self._waiting, self._signed, self._lost, self._at_work.append)
            for _ in range(self._processes)
        ]
        try:
            await asyncio.gather(*(worker.start(key) for worker in self._workers))
        except (OSError, RuntimeError, TimeoutError, NotImplementedError) as exc:
            _log.warning("signing: no process for it (%s)", type(exc).__name__)

    def _signed(self, future: asyncio.Future[bytes], signature: bytes) -> None:
        self._made.append((future, signature))
        if len(self._made) == 1:
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        """Let some calls go on, and in the loop's next turn some more.

        Signatures come by the dozen while the loop is busy, and a call that goes on takes its time:
        all of them at once would make the loop busy for as long again.
        """
        for _ in range(min(len(self._made), _AT_ONCE)):
            future, signature = self._made.popleft()
            if not future.done():
                future.set_result(signature)
        if self._made:
            asyncio.get_running_loop().call_soon(self._deliver)

    def _lost(self, worker: _Worker, texts: Iterable[_Item]) -> None:
        """Take back what a process that ended has not signed."""
        self._at_work.remove(worker)
        _log.warning("signing: a process ended; %d are left", len(self._at_work))
        self._waiting.extend(texts)
        self._hand_out()


class _Worker(asyncio.Protocol):
    """One process, and the connection to it."""

    def __init__(
        self,
        signature_bytes: int,
        waiting: deque[_Item],
        on_signed: Callable[[asyncio.Future[bytes], bytes], None],
        on_lost: Callable[[_Worker, Iterable[_Item]], None],
        on_ready: Callable[[_Worker], None],
    ) -> None:
        self._size = signature_bytes
        self._waiting = waiting
        self._on_signed = on_signed
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: deque[_Item] = deque()
        self._received = b""
        self._is_closed = False

    async def start(self, key: bytes) -> None:
        """Start it, and wait until it can sign. Raises `OSError` and `TimeoutError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # In a thread, because a large program takes its time to start another.
                self._process = await asyncio.to_thread(_run, theirs)
                loop = asyncio.get_running_loop()
                self._transport, _ = await loop.create_connection(lambda: self, sock=ours)
            except BaseException:
                ours.close()
                raise
        # Over the socket, where no other user of the machine can read it.
        path = "\0".join(sys.path).encode()
        self._transport.writelines([_frame(path), _frame(key)])
        async with asyncio.timeout(_READY_S):
            await self._ready
        self._on_ready(self)
        self.take()

    def take(self) -> None:
        """Send it texts, until it has enough to do."""
        assert self._transport is not None  # noqa: S101 - for the type checker
        block = []
        while self._waiting and len(self._out) < _MOST_OUT:
            item = self._waiting.popleft()
            if not item[1].done():
                self._out.append(item)
                block.append(_frame(item[0]))
        if block:
            self._transport.write(b"".join(block))

    def data_received(self, data: bytes) -> None:
        """Take the signatures."""
        if not self._ready.done():
            self._ready.set_result(None)
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
        """Give back what it has not signed."""
        if not self._ready.done():
            self._ready.set_exception(ConnectionResetError("it ended before it was ready"))
        elif not self._is_closed:
            self._on_lost(self, self._out)

    def close(self) -> None:
        """Let it end."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()

    def reap(self) -> None:
        """Wait for its end. To be called in a thread."""
        if self._process is None:
            return
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _frame(data: bytes) -> bytes:
    return FRAME.pack(len(data)) + data


def _run(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Run the script that signs, and nothing of the program's own. Raises `OSError`."""
    if not _is_python():
        raise FileNotFoundError("no interpreter to run")
    return subprocess.Popen(  # noqa: S603 - the interpreter that runs, and a file of this package
        [sys.executable, "-I", _SCRIPT],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _is_python() -> bool:
    """Return whether ``sys.executable`` is an interpreter, and not a program that has one in it."""
    name = Path(sys.executable or "").name
    return not getattr(sys, "frozen", False) and name.startswith(("python", "pypy"))
