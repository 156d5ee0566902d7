"""Signatures for a bulk run: in processes of their own, or in short steps of the event loop.

A signature takes 0.25 to 0.4 ms, two thirds of an issue. On a machine with more than one core,
processes pay where a run makes many (`process`). Until they are ready, and wherever there can be
none, the event loop signs, with a turn for everything else in between.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
import weakref
from collections import deque
from pathlib import Path

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.signing.rsa import RsaSigner, Signer
from rm_voucher.signing.worker import Item, Worker

_log = logging.getLogger("rm_voucher")

_STEP_S = 0.001  # of the event loop
_WORTH_S = 0.1  # of signing on the event loop within _WINDOW_S, after which processes pay
_WINDOW_S = 1.0
_AT_ONCE = 3  # calls that go on in one turn of the event loop
_MOST_PROCESSES = 3  # that pay: one event loop has work for no more
_LIMIT = 32  # of processes that a user may ask for
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux: microseconds, or "max", and of how many
_LATE_S = 0.05  # without a signature, after which the event loop signs as well
_HUNG_S = 30.0  # without a signature, after which a process is ended
_POLL_S = 0.001  # for the end of a process that was killed
_running: weakref.WeakSet[Worker] = weakref.WeakSet()  # of all runs of this program


def signers_that_pay() -> int:
    """Return with how many processes a bulk run is fastest on this machine or in this container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(count or 1, _quota())
    return min(int(cores), _MOST_PROCESSES) if cores >= 2 else 0


def _quota() -> float:
    """Return how many cores the container may use. The system stops one that uses more."""
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no Linux, the old hierarchy, or "max"
        return math.inf


class SigningPool:
    """Signs for one run, in one event loop. A signer of the user's own gets no process.

    Without a number of ``processes`` it starts as many as pay, less those of other runs, so that
    many runs at once don't fill a machine. Raises `ConfigurationError`.
    """

    def __init__(self, signer: Signer, *, processes: int | None) -> None:
        self._shares = processes is None
        if processes is None:
            processes = signers_that_pay()
        if not isinstance(processes, int) or not 0 <= processes <= _LIMIT:
            raise ConfigurationError(
                f"signers must be a number of processes, 0 to {_LIMIT}, or None."
            )
        self._signer = signer
        # A subclass, or a method that was replaced, may sign otherwise.
        is_known = type(signer) is RsaSigner and "sign" not in vars(signer)
        self._processes = processes if is_known else 0
        self._waiting: deque[Item] = deque()
        self._made: deque[tuple[asyncio.Future[bytes], bytes]] = deque()
        self._is_due = False
        self._is_closed = False
        self._at_work: list[Worker] = []
        self._workers: list[Worker] = []
        self._starting: asyncio.Task[None] | None = None
        self._looking: asyncio.Handle | None = None
        self._window_from = 0.0
        self._signed_s = 0.0

    @property
    def processes(self) -> int:
        """How many processes sign at the moment."""
        return len(self._at_work)

    @property
    def waiting(self) -> int:
        """How many texts no process has taken, and the event loop has not signed."""
        return len(self._waiting)

    def sign(self, text: bytes) -> asyncio.Future[bytes]:
        """Return the signature to come. It raises what the signer raises."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        self._make_due()
        return future

    async def aclose(self) -> None:
        """End the processes. The event loop signs the texts that are left.

        A cancellation meanwhile takes effect afterwards.
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
        """Sign on the event loop for processes that get no time, as on a busy machine.

        The processes' own signatures, which are the same, then come too late.
        """
        until = time.perf_counter() + _STEP_S
        late = [worker for worker in self._at_work if worker.silent_s() >= _LATE_S]
        for worker in late:
            if worker.silent_s() >= _HUNG_S:
                worker.close()  # its texts are signed elsewhere
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
            count = self._processes - (len(_running) if self._shares else 0)
            if self._signed_s >= _WORTH_S and count > 0:
                self._starting = asyncio.create_task(self._start(count), name="rm-voucher signers")

    def _sign_here(self, text: bytes, future: asyncio.Future[bytes]) -> None:
        if future.done():
            return
        # An error is for the call that waits for this signature, and for no other.
        try:
            future.set_result(self._signer.sign(text))
        except StopIteration as exc:  # no future takes it
            future.set_exception(RuntimeError(f"it raised {type(exc).__name__}"))
        except BaseException as exc:  # noqa: BLE001 - a signer of the caller's own
            future.set_exception(exc)

    async def _start(self, count: int) -> None:
        assert isinstance(self._signer, RsaSigner)  # noqa: S101 - for the type checker
        # No error may leave: the event loop would report it, with the key in its frames.
        try:
            key, size = self._signer.private_key_der(), self._signer.signature_bytes
            self._workers = [
                Worker(size, self._waiting, self._at_work.append, self._signed, self._ended)
                for _ in range(count)
            ]
            _running.update(self._workers)
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
        """Let some calls go on, and some more in the next turn of the event loop.

        Signatures come by the dozen while the loop is busy, and each call that goes on takes time:
        all at once would keep the loop busy for as long again.
        """
        for _ in range(min(len(self._made), _AT_ONCE)):
            future, signature = self._made.popleft()
            if not future.done():
                future.set_result(signature)
        if self._made:
            asyncio.get_running_loop().call_soon(self._deliver)

    def _ended(self, worker: Worker) -> None:
        _running.discard(worker)
        if worker in self._at_work:
            self._at_work.remove(worker)
            if not self._is_closed:
                _log.warning("signing: a process ended; %d are left", len(self._at_work))
        if self._waiting:
            self._make_due()
