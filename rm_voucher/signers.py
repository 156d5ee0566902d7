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
from collections.abc import Callable
from pathlib import Path
from typing import cast

from rm_voucher import signer_process
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.signer_process import FRAME, READY
from rm_voucher.signing import RsaSigner, Signer

__all__ = ["SigningPool", "signers_that_pay"]

_log = logging.getLogger("rm_voucher")

_STEP_S = 0.001  # of the event loop
_WORTH_S = 0.1  # of signing on the loop within _WINDOW_S: then processes pay
_WINDOW_S = 1.0
_MOST_OUT = 32  # texts at a process, so that it never waits for the next
_AT_ONCE = 3  # calls that go on in one turn of the event loop
_MOST_PROCESSES = 3  # one event loop gives no more of them enough to do
_READY_S = 30.0
_LATE_S = 0.05  # after which the loop signs too what a process owes that gets no time
_SILENT_S = 30.0  # after which a process that owes signatures is taken for dead
_POLL_S = 0.001  # for the end of a process that was killed
_SCRIPT = signer_process.__file__

_Item = tuple[bytes, asyncio.Future[bytes]]


def signers_that_pay() -> int:
    """Return how many processes make a bulk run faster on this machine."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count or 1, _MOST_PROCESSES) if (count or 1) > 1 else 0


class SigningPool:
    """Signs for one run, in one event loop. Start no process for a signer of the caller's own.

    Without a number of ``processes`` it is what pays. Raises `ConfigurationError`.
    """

    def __init__(self, signer: Signer, *, processes: int | None) -> None:
        if processes is None:
            processes = signers_that_pay()
        if not isinstance(processes, int) or processes < 0:
            raise ConfigurationError("signers must be a number of processes, 0 or more, or None.")
        self._signer = signer
        # A subclass, or a method that was replaced, may sign otherwise.
        is_known = type(signer) is RsaSigner and "sign" not in vars(signer)
        self._processes = processes if is_known else 0
        self._waiting: deque[_Item] = deque()
        self._made: deque[tuple[asyncio.Future[bytes], bytes]] = deque()
        self._is_due = False
        self._is_closed = False
        self._at_work: list[_Worker] = []
        self._workers: list[_Worker] = []
        self._starting: asyncio.Task[None] | None = None
        self._looking: asyncio.Handle | None = None
        self._window_from = 0.0
        self._signed_s = 0.0

    @property
    def processes(self) -> int:
        """How many processes sign at the moment."""
        return len(self._at_work)

    def sign(self, text: bytes) -> asyncio.Future[bytes]:
        """Return the signature to come. It raises what the signer raises."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        self._make_due()
        return future

    async def aclose(self) -> None:
        """End the processes; what is still to be signed, the event loop signs.

        Being cancelled meanwhile takes effect afterwards.
        """
        self._is_closed = True
        if self._starting is not None:
            self._starting.cancel()
        if self._looking is not None:
            self._looking.cancel()
        for worker in self._workers:
            worker.close()
        cancelled = None
        while not self._has_ended():
            try:
                await asyncio.sleep(_POLL_S)
            except asyncio.CancelledError as again:
                cancelled = again
        if cancelled is not None:
            raise cancelled

    def _has_ended(self) -> bool:
        is_starting = self._starting is not None and not self._starting.done()
        return not is_starting and all(worker.has_ended() for worker in self._workers)

    def _make_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._is_due = False
        for worker in self._at_work:
            worker.take()
        if self._waiting and not self._at_work:
            self._sign_some()
        if self._looking is None:
            self._look_later()

    def _look_later(self) -> None:
        self._looking = None
        if not self._is_closed and any(worker.is_busy for worker in self._at_work):
            self._looking = asyncio.get_running_loop().call_later(_LATE_S, self._look)

    def _look(self) -> None:
        """Sign for processes that get no time: they yield to all else on a busy machine.

        A signature is the same whoever makes it; the process's own then comes too late.
        """
        until = time.perf_counter() + _STEP_S
        late = [worker for worker in self._at_work if worker.is_late()]
        owed = deque(item for worker in late for item in worker.owed())
        if not late or not (owed or self._waiting):
            self._look_later()
            return
        while (items := owed or self._waiting) and time.perf_counter() < until:
            self._sign_here(*items.popleft())
        self._looking = asyncio.get_running_loop().call_soon(self._look)

    def _sign_some(self) -> None:
        begun = now = time.perf_counter()
        while self._waiting and now - begun < _STEP_S:
            self._sign_here(*self._waiting.popleft())
            now = time.perf_counter()
        if self._waiting:
            self._make_due()
        if self._processes and self._starting is None and not self._is_closed:
            if now - self._window_from > _WINDOW_S:
                self._window_from, self._signed_s = begun, 0.0
            self._signed_s += now - begun
            if self._signed_s >= _WORTH_S:
                self._starting = asyncio.create_task(self._start(), name="rm-voucher signers")

    def _sign_here(self, text: bytes, future: asyncio.Future[bytes]) -> None:
        if future.done():
            return
        # Whatever it raises is for who waits for the signature, and for nobody else.
        try:
            future.set_result(self._signer.sign(text))
        except StopIteration as exc:  # no future takes it
            future.set_exception(RuntimeError(f"it raised {type(exc).__name__}"))
        except BaseException as exc:  # noqa: BLE001 - a signer of the caller's own
            future.set_exception(exc)

    async def _start(self) -> None:
        assert isinstance(self._signer, RsaSigner)  # noqa: S101 - for the type checker
        # Nothing may get out of here: the event loop would report it, with the key in its frames.
        try:
            key, size = self._signer.private_key_der(), self._signer.signature_bytes
            self._workers = [
                _Worker(size, self._waiting, self._at_work.append, self._signed, self._ended)
                for _ in range(self._processes)
            ]
            ends = await asyncio.gather(
                *(worker.start(key) for worker in self._workers), return_exceptions=True
            )
        except Exception as exc:  # noqa: BLE001 - a key of the caller's own
            ends = [exc]
        errors = [type(end).__name__ for end in ends if isinstance(end, Exception)]
        if errors:
            _log.warning("signing: no process for it (%s)", ", ".join(errors))

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

    def _ended(self, worker: _Worker) -> None:
        if worker in self._at_work:
            self._at_work.remove(worker)
            if not self._is_closed:
                _log.warning("signing: a process ended; %d are left", len(self._at_work))
        if self._waiting:
            self._make_due()


class _Worker(asyncio.Protocol):
    """One process, and the connection to it."""

    def __init__(
        self,
        signature_bytes: int,
        waiting: deque[_Item],
        on_ready: Callable[[_Worker], None],
        on_signed: Callable[[asyncio.Future[bytes], bytes], None],
        on_end: Callable[[_Worker], None],
    ) -> None:
        self._size = signature_bytes
        self._waiting = waiting
        self._on_ready = on_ready
        self._on_signed = on_signed
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: deque[_Item] = deque()
        self._received = b""
        self._alarm: asyncio.TimerHandle | None = None
        self._was_heard = False
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
        # Over the socket, where no other user of the machine can read it.
        # A relative place may be another by now, and anybody's, who would get the key.
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
            self._watch()

    def owed(self) -> list[_Item]:
        """Return what it was sent, and somebody waits for."""
        return [item for item in self._out if not item[1].done()]

    @property
    def is_busy(self) -> bool:
        """Whether it has texts, though they may be signed elsewhere by now."""
        return bool(self._out)

    def is_late(self) -> bool:
        """Return whether it is busy, and nothing has come of it for a while."""
        return self.is_busy and asyncio.get_running_loop().time() - self._quiet_since >= _LATE_S

    def _watch(self) -> None:
        if self._alarm is None:
            self._was_heard = False
            self._alarm = asyncio.get_running_loop().call_later(_SILENT_S, self._check)

    def _check(self) -> None:
        self._alarm = None
        if self._out and not self._was_heard:
            self.close()
        elif self._out:
            self._watch()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        # Another event loop's is no `asyncio.Transport`, but has its methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the signatures."""
        if self._ready.cancelled():  # its time is over
            return
        self._was_heard = True
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
        """Give back what it has not signed."""
        self._transport = None
        if not self._ready.done() and not self._is_closed:
            self._ready.set_exception(ConnectionResetError("it ended before it was ready"))
        self.close()

    def close(self) -> None:
        """End it, at once: it has nothing to lose. What it has not signed is given back."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None:
            self._process.kill()
        self._waiting.extend(self._out)
        self._out.clear()
        self._on_end(self)

    def has_ended(self) -> bool:
        """Return whether nothing is left of it. A process is one that ended only once asked."""
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
