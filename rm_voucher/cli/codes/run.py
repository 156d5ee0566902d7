"""Does an operation for each code of a file, several at a time, and loses no outcome."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from rm_voucher import (
    APIError,
    Attempt,
    AuthenticationError,
    ConfigurationError,
    OutcomeUnknownError,
    SignatureError,
    Voucher,
    VoucherClient,
    VoucherError,
)
from rm_voucher.calls.recovery import Verdict
from rm_voucher.cli.codes.file import Codes
from rm_voucher.cli.codes.operations import (
    FAILED,
    UNRESOLVED,
    Operation,
    instant_of,
    row_of,
    seen_in,
)
from rm_voucher.cli.output import OutputError
from rm_voucher.converters import format_time

_AT_A_TIME = 64  # rows that are noted together, before the first of them is asked
_READS = ("get", "token")
_Ended = tuple[str, Voucher | None, VoucherError | None]
# Whatever the code, the answer would be the same.
_ENDS_ALL = (AuthenticationError, SignatureError, ConfigurationError)


class Sink(ABC):
    """Takes how each row ended."""

    @abstractmethod
    def begin(self, first: int, last: int, begun_at: datetime | None) -> None:
        """Take note that these rows are about to be asked, voids by `instant_of`.

        Raises `OutputError`.
        """

    @abstractmethod
    def put(self, number: int, ours: Mapping[str, str]) -> None:
        """Take how a row ended. Raises `OutputError`."""


@attrs.define
class Summary:
    """The counts of a run."""

    total: int
    asked: int = 0
    done: int = 0
    failed: int = 0
    unresolved: int = 0
    first_error: VoucherError | None = None
    stopped: VoucherError | None = None
    """What ended the run early."""
    unwritten: OutputError | None = None
    interrupted: bool = False

    @property
    def not_asked(self) -> int:
        """How many were not asked for, because it ended early."""
        return self.total - self.asked

    @property
    def ended(self) -> int:
        """How many of those that were asked for have ended."""
        return self.done + self.failed + self.unresolved


class Flights:
    """A hook that knows which tasks have sent what changes something, so that no end forgets it."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None] | None] = set()

    def __call__(self, attempt: Attempt, /) -> None:
        """Take note of an attempt that is about to be sent."""
        if attempt.operation not in _READS:
            self.tasks.add(asyncio.current_task())


class Run:
    """One run: `work` asks for all codes. Each void has an instant of its own.

    The first code is asked alone: an error that would meet all is raised, and nothing was done.
    ``flights`` is a hook of the client. ``on_progress`` is called after each code.
    """

    def __init__(
        self,
        client: VoucherClient,
        operation: Operation,
        codes: Codes,
        sink: Sink,
        *,
        flights: Flights,
        concurrency: int,
        used_at: datetime | None = None,
    ) -> None:
        self._flights = flights
        self._workers: set[asyncio.Task[None]] = set()
        self.on_progress: Callable[[Summary], None] = lambda _: None
        self._client = client
        self._operation = operation
        self._codes = codes
        self._sink = sink
        self._concurrency = concurrency
        self._base = used_at or datetime.now(UTC)
        self._rows = self._noted()
        self._is_stopped = False
        self.summary: Summary = Summary(total=len(codes))

    @property
    def in_flight(self) -> int:
        """How many changes were sent, and not answered."""
        return len(self._flights.tasks)

    def interrupt(self) -> None:
        """Ask for no more codes; what was sent is waited for, and what was not is given up."""
        self.summary.interrupted = True
        self._stop()
        for worker in self._workers - self._flights.tasks:
            worker.cancel()

    def end_now(self) -> None:
        """Give up what was sent as well: its outcome is unknown."""
        self.interrupt()
        for worker in self._workers:
            worker.cancel()

    async def work(self) -> None:
        """Ask for all, until it is interrupted. Cancelling it is `end_now`.

        Raises what the first code met, where that would meet all.
        """
        await self._run(self._take(is_first=True))
        await self._run(*(self._take() for _ in range(self._concurrency)))

    async def _run(self, *works: Coroutine[Any, Any, None]) -> None:
        self._workers = {asyncio.create_task(work) for work in works}
        while pending := [worker for worker in self._workers if not worker.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:
                self.end_now()
        for worker in self._workers:
            if not worker.cancelled():
                worker.result()

    def _stop(self) -> None:
        self._is_stopped = True

    async def _take(self, *, is_first: bool = False) -> None:
        """Ask for one code after the other."""
        for number, code in self._rows:
            try:
                await self._ask(number, code, is_first=is_first)
            except OutputError as exc:
                self.summary.unwritten = self.summary.unwritten or exc
                self._stop()
            if is_first:
                return

    def _noted(self) -> Iterator[tuple[int, str]]:
        """Iterate over the rows; each is noted before it is given out."""
        rows = iter(self._codes)
        while not self._is_stopped:
            part = [row for _, row in zip(range(_AT_A_TIME), rows, strict=False)]
            if not part:
                return
            if self._operation.judge is not None:
                sent = self._base if self._operation.has_used_at else None
                try:
                    self._sink.begin(part[0][0], part[-1][0], sent)
                except OutputError as exc:
                    self.summary.unwritten = exc
                    self._stop()
            for row in part:
                if self._is_stopped:
                    return
                yield row

    def _used_at(self, number: int) -> datetime | None:
        """Return the instant of a row's void, by which it can be proved."""
        if not self._operation.has_used_at:
            return None
        if self._codes.is_in_doubt(number):
            return self._codes.doubted(number)
        return instant_of(self._base, number)

    async def _ask(self, number: int, code: str, *, is_first: bool) -> None:
        summary, operation = self.summary, self._operation
        used_at = self._used_at(number)
        summary.asked += 1
        ended: _Ended
        try:
            if self._codes.is_in_doubt(number):
                ended = await self._ask_again(code, used_at)
            else:
                ended = operation.done, await operation.call(self._client, code, used_at), None
        except OutcomeUnknownError as exc:
            ended = UNRESOLVED, seen_in(exc), exc
        except VoucherError as exc:
            if isinstance(exc, _ENDS_ALL):
                if is_first:
                    summary.asked -= 1
                    raise
                summary.stopped = summary.stopped or exc
                self._stop()
            ended = UNRESOLVED if self._codes.is_in_doubt(number) else FAILED, None, exc
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._flights.tasks:
                summary.asked -= 1  # it was not
                raise
            ended = UNRESOLVED, None, VoucherError("interrupted before its answer came")
        finally:
            self._flights.tasks.discard(asyncio.current_task())
        outcome, voucher, error = ended
        self._count(outcome, error)
        sent = used_at if outcome == UNRESOLVED else None
        self._sink.put(number, row_of(outcome, voucher, error=error or "", used_at=sent))
        self.on_progress(summary)

    async def _ask_again(self, code: str, used_at: datetime | None) -> _Ended:
        """Ask for a code that an earlier run may have asked for: it is looked up first.

        Where it is unchanged, and refused all the same, it is looked up once more: the earlier call
        may have been late.
        """
        operation = self._operation
        assert operation.judge is not None  # noqa: S101 - a read leaves no doubt
        voucher = await self._client.get(code)
        verdict, refusal = operation.judge(voucher, used_at), None
        if verdict is Verdict.UNCHANGED:
            try:
                return operation.done, await operation.call(self._client, code, used_at), None
            except _ENDS_ALL:
                raise
            except APIError as exc:
                refusal = exc
            voucher = await self._client.get(code)
            verdict = operation.judge(voucher, used_at)
        if verdict is Verdict.DONE:
            return operation.done, voucher, None
        if verdict is Verdict.UNCHANGED:
            return FAILED, voucher, refusal
        why = operation.doubt
        if used_at is not None and voucher.used_at is not None:
            why += f" It was used at {format_time(voucher.used_at)}, and not at the time sent."
        return UNRESOLVED, voucher, VoucherError(why)

    def _count(self, outcome: str, error: VoucherError | None) -> None:
        summary = self.summary
        if error is not None:
            summary.first_error = summary.first_error or error
        if outcome == UNRESOLVED:
            summary.unresolved += 1
        elif outcome == FAILED:
            summary.failed += 1
        else:
            summary.done += 1
