"""Does an operation for each code of a file, several at a time, and loses no outcome."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import attrs

from rm_voucher import (
    APIError,
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

_AT_A_TIME = 64  # rows that are noted together, before the first of them is asked
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
    first_error: str = ""
    stopped: VoucherError | None = None
    """What ended the run early."""
    unwritten: OutputError | None = None
    interrupted: bool = False


class Run:
    """One run: `work` asks for all codes. Each void has an instant of its own.

    The first code is asked alone: an error that would meet all is raised, and nothing was done.
    """

    def __init__(
        self,
        client: VoucherClient,
        operation: Operation,
        codes: Codes,
        sink: Sink,
        *,
        concurrency: int,
        used_at: datetime | None = None,
    ) -> None:
        self._client = client
        self._operation = operation
        self._codes = codes
        self._sink = sink
        self._concurrency = concurrency
        self._base = used_at or datetime.now(UTC)
        self._rows = self._noted()
        self._is_stopped = False
        self.summary = Summary(total=len(codes))

    def stop(self) -> None:
        """Ask for no more codes; those in flight are waited for."""
        self._is_stopped = True

    async def work(self) -> None:
        """Ask for all. Cancelling it once stops it, and once more ends the calls in flight.

        Raises what the first code met, where that would meet all.
        """
        first = asyncio.create_task(self._take(is_first=True))
        await self._wait({first})
        first.result()
        workers = {asyncio.create_task(self._take()) for _ in range(self._concurrency)}
        await self._wait(workers)
        for worker in workers:
            worker.result()

    async def _wait(self, tasks: set[asyncio.Task[None]]) -> None:
        while pending := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:
                if self._is_stopped and self.summary.interrupted:
                    for task in pending:
                        task.cancel()
                self.summary.interrupted = True
                self.stop()

    async def _take(self, *, is_first: bool = False) -> None:
        """Ask for one code after the other."""
        for number, code in self._rows:
            try:
                await self._ask(number, code, is_first=is_first)
            except OutputError as exc:
                self.summary.unwritten = self.summary.unwritten or exc
                self.stop()
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
                    self.stop()
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
                self.stop()
            ended = UNRESOLVED if self._codes.is_in_doubt(number) else FAILED, None, exc
        except asyncio.CancelledError:
            if operation.judge is None:
                raise
            ended = UNRESOLVED, None, VoucherError("interrupted before its answer came")
        outcome, voucher, error = ended
        self._count(outcome, error)
        sent = used_at if outcome == UNRESOLVED else None
        self._sink.put(number, row_of(outcome, voucher, error=error or "", used_at=sent))

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
        return (
            UNRESOLVED,
            voucher,
            VoucherError(
                f"It may have been {operation.done} by an earlier run of this command, or by "
                "somebody else: nothing proves either."
            ),
        )

    def _count(self, outcome: str, error: VoucherError | None) -> None:
        summary = self.summary
        if error is not None:
            summary.first_error = summary.first_error or str(error)
        if outcome == UNRESOLVED:
            summary.unresolved += 1
        elif outcome == FAILED:
            summary.failed += 1
        else:
            summary.done += 1
