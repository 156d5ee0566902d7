"""A running bulk issue: workers, results in the order in which calls end, an end that loses none.

It keeps no list of recipients or results: memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from rm_voucher.bulk.results import (
    BulkResult,
    BulkStatus,
    BulkSummary,
    broken_off,
    failed,
    issued,
    unresolved,
)
from rm_voucher.calls.call import Call, Phase
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    ConfigurationError,
    ConnectError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.models import IssuedVoucher
from rm_voucher.redaction import strip_tracebacks
from rm_voucher.service.client import VoucherClient, issue_call
from rm_voucher.signing.pool import SigningPool

if TYPE_CHECKING:
    from rm_voucher.bulk.ledger import LedgerRun
    from rm_voucher.ledger.ledger import Ledger

R = TypeVar("R")


class _Nobody(enum.Enum):
    """Beside recipients, which may be anything, None too."""

    NOBODY = enum.auto()


_NOBODY = _Nobody.NOBODY


class BulkIssue(Generic[R]):
    """A running bulk issue; see `rm_voucher.bulk_issue`."""

    def __init__(
        self,
        client: VoucherClient,
        batch_key: str,
        recipients: Iterable[R] | AsyncIterable[R],
        *,
        concurrency: int,
        ledger: Ledger | None,
        request_id: Callable[[R], str] | None,
        on_progress: Callable[[BulkSummary], None] | None,
        signers: int | None,
    ) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError("concurrency must be a number of calls, 1 or more.")
        self._pool = SigningPool(client.caller.signer, processes=signers)
        self._ledgered: LedgerRun[R] | None = None
        if ledger is not None:
            from rm_voucher.bulk.ledger import LedgerRun  # only for who uses a ledger

            self._ledgered = LedgerRun(
                ledger,
                client,
                batch_key,
                concurrency=concurrency,
                request_id=request_id,
                on_issued=self._settled,
            )
            concurrency *= 2  # one half's calls while the other's commits
        self._client = client
        self._batch_key = batch_key
        # Recipients that must be waited for, or, without waiting, those at hand.
        self._to_come: AsyncIterator[R] | None = None
        self._at_hand: Iterator[R] = iter(())
        if isinstance(recipients, AsyncIterable):
            self._to_come = aiter(recipients)
        else:
            self._at_hand = iter(recipients)
        self._on_progress = on_progress
        # A worker has a place; a recipient takes up room until the result is delivered, so a slow
        # consumer slows the issuing down.
        self._places = concurrency
        self._room = 2 * concurrency
        self._freed = asyncio.Event()
        # Each worker, with the recipient whose result it owes.
        self._workers: dict[asyncio.Task[None], R | _Nobody] = {}
        self._results: asyncio.Queue[BulkResult[R] | None] = asyncio.Queue()  # None: no more
        self._entered = False
        self._feeding: asyncio.Task[None]  # from `__aenter__` on
        self._finished = asyncio.Event()
        self._counts: Counter[BulkStatus] = Counter()
        self._asked = 0
        self._template: Call[IssuedVoucher] | None = None  # never sent itself
        self._hopeless: VoucherError | None = None
        self._defect: BaseException | None = None
        self._stopping = False
        self._in_flight: dict[asyncio.Task[None], Call[IssuedVoucher]] = {}
        self.undelivered: list[BulkResult[R]] = []
        """What no loop saw because the block was left early: results that were waiting and of
        calls in flight, at most twice ``concurrency``. They hold real vouchers: keep them."""

    @property
    def summary(self) -> BulkSummary:
        """The counts so far; final once the block is left."""
        return BulkSummary(
            asked=self._asked,
            issued=self._counts[BulkStatus.ISSUED],
            failed=self._counts[BulkStatus.FAILED],
            unresolved=self._counts[BulkStatus.UNRESOLVED],
            held=self._ledgered.held if self._ledgered else 0,
            spare=self._ledgered.spare if self._ledgered else 0,
        )

    async def __aenter__(self) -> Self:
        self._entered = True
        self._feeding = asyncio.create_task(self._feed(), name="rm-voucher bulk feed")
        self._feeding.add_done_callback(self._feeding_ended)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no further recipient, wait for the calls in flight, keep their results.

        Calls that wait to be sent again are given up: what was sent of them was not done. Being
        cancelled meanwhile takes effect afterwards: what a call that was sent did is only known
        once it has ended. Attempts and time-outs bound the wait.
        """
        self._stop()
        cancelled = None
        while not self._finished.is_set():
            try:
                await self._finished.wait()
            except asyncio.CancelledError as again:
                cancelled = again
        while (result := self._results.get_nowait()) is not None:
            self.undelivered.append(result)
        self._results.put_nowait(None)
        await self._pool.aclose()
        if cancelled is not None:
            raise cancelled
        if exc is None:
            self._raise_defect()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BulkResult[R]:
        """Return the next result, in the order in which the calls end.

        Raises, after the last result, what ``recipients`` or ``on_progress`` raised.
        """
        if not self._entered:
            raise ConfigurationError("Use 'async with bulk_issue(…) as run'.")
        result = await self._results.get()
        if result is not None:
            self._room += 1
            self._freed.set()
            return result
        self._results.put_nowait(None)  # for whoever asks again
        self._raise_defect()
        raise StopAsyncIteration

    async def _feed(self) -> None:
        await asyncio.sleep(0)  # so that `_feeding` is set, where tasks begin eagerly
        if self._ledgered is None:
            await self._feed_all()
            return
        await self._ledgered.begin()
        await self._feed_all()
        while self._workers:
            self._freed.clear()
            await self._freed.wait()
        try:
            await self._ledgered.settle()
        except VoucherError as exc:
            self._hopeless = self._hopeless or exc
        async for recipient, error, attempts in self._ledgered.left(self._hopeless):
            self._unsettled(recipient, error, attempts)

    async def _feed_all(self) -> None:
        while True:
            while not (self._places and self._room):
                self._freed.clear()
                await self._freed.wait()
            if self._to_come is None:
                recipient = self._next_at_hand()
            else:
                recipient = await anext(self._to_come, _NOBODY)
            if isinstance(recipient, _Nobody):
                return
            self._places -= 1
            self._admit()
            worker = asyncio.create_task(self._work(recipient), name="rm-voucher bulk call")
            self._register(worker, recipient)
            # The source swallowed the cancellation. A test shows that this runs, but Python 3.11
            # traces no line of a coroutine that an exception was thrown into.
            if self._stopping:  # pragma: no cover
                return

    def _register(self, worker: asyncio.Task[None], recipient: R) -> None:
        # Here before it begins; where tasks begin eagerly, the worker itself is first.
        if worker not in self._workers:
            self._workers[worker] = recipient
            worker.add_done_callback(self._worker_ended)

    def _admit(self) -> None:
        self._room -= 1
        self._asked += 1

    async def _work(self, recipient: R) -> None:
        """Issue to this recipient and then to others at hand: a task each would cost a tenth."""
        worker = cast("asyncio.Task[None]", asyncio.current_task())
        self._register(worker, recipient)
        while True:
            result = await self._issue(worker, recipient)
            self._workers[worker] = _NOBODY
            self._in_flight.pop(worker, None)
            if result is None:
                self._room += 1  # taken again when it is delivered
                self._progressed()
            else:
                self._deliver(result)
            if self._stopping or worker.cancelling() or not self._room:
                return
            try:
                following = self._next_at_hand()
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - raised at the end
                self._source_failed(exc)
                return
            if isinstance(following, _Nobody):
                return
            self._admit()
            self._workers[worker] = recipient = following

    def _next_at_hand(self) -> R | _Nobody:
        try:
            return next(self._at_hand, _NOBODY)
        except BaseException:
            self._at_hand = iter(())  # whoever comes after an error gets nothing
            raise

    def _source_failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = ConfigurationError("The recipients ended in a cancellation, not at an end.")
        self._defect = self._defect or error

    def _feeding_ended(self, feeding: asyncio.Task[None]) -> None:
        if not feeding.cancelled():
            self._defect = self._defect or feeding.exception()
        elif not self._stopping:
            self._source_failed(asyncio.CancelledError())
            self._stop()
        self._finish_if_all_ended()

    # A callback, not an await, has the last word: whatever ends a worker, also the shut-down of
    # its event loop, its recipient has a result.

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        recipient = self._workers[worker]
        defect = None if worker.cancelled() else worker.exception()
        if defect is not None:
            self._stop(defect)
        if isinstance(recipient, _Nobody):
            pass
        elif defect is not None:
            call = self._in_flight.pop(worker, None)
            self._deliver(broken_off(recipient, defect, self._batch_key, call))
        else:  # before it began: once begun, it answers for itself
            error = ConnectError("issue: the run was shut down before it was sent")
            self._deliver(failed(recipient, error))
        del self._workers[worker]
        self._places += 1
        self._freed.set()
        self._finish_if_all_ended()

    def _deliver(self, result: BulkResult[R]) -> None:
        self._counts[result.status] += 1
        self._results.put_nowait(result)
        self._progressed()

    def _progressed(self) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(self.summary)
            except BaseException as exc:  # noqa: BLE001 - the caller's function: stop, raise it later
                self._stop(exc)

    def _finish_if_all_ended(self) -> None:
        if self._feeding.done() and not self._workers and not self._finished.is_set():
            if self._ledgered is not None:
                for recipient, error, attempts in self._ledgered.end():
                    self._unsettled(recipient, error, attempts)
            self._finished.set()
            self._results.put_nowait(None)

    def _stop(self, defect: BaseException | None = None) -> None:
        self._stopping = True
        self._defect = self._defect or defect
        self._feeding.cancel()
        for task, call in self._in_flight.items():
            call.abandon()
            if call.is_waiting:  # nothing was done
                task.cancel()

    def _raise_defect(self) -> None:
        defect, self._defect = self._defect, None
        if isinstance(defect, StopIteration | StopAsyncIteration):
            # Raised as it is, it would pass for the end of the results.
            raise RuntimeError("The recipients or on_progress raised it.") from defect  # noqa: TRY004 - no type error
        if defect is not None:
            raise defect

    async def _issue(self, worker: asyncio.Task[None], recipient: R) -> BulkResult[R] | None:
        """Return how it ended for a recipient, or None: it is held to be settled."""
        if self._stopping:
            # The source swallowed the cancellation and gave one more.
            return failed(recipient, ConnectError("issue: the run had ended before it"))
        if self._hopeless is not None and (self._ledgered is None or self._ledgered.is_broken):
            return failed(recipient, self._hopeless)
        try:
            call = self._new_call()
        except VoucherError as exc:
            self._hopeless = exc
            return failed(recipient, exc)
        self._in_flight[worker] = call
        try:
            voucher = await self._finish(call, recipient)
        except OutcomeUnknownError as exc:
            strip_tracebacks(exc)
            self._note_hopeless(exc, call)
            return unresolved(recipient, exc, call.attempts)
        except VoucherError as exc:
            strip_tracebacks(exc)
            self._note_hopeless(exc, call)
            return failed(recipient, exc, call.attempts)
        except asyncio.CancelledError as exc:  # by `_stop`, or by the end of the event loop
            if call.has_begun and not call.in_flight:
                error = ConnectError("issue: given up while it waited; nothing had been done")
                return failed(recipient, error, call.attempts)
            return broken_off(recipient, exc, self._batch_key, call)
        except Exception as exc:  # noqa: BLE001 - a defect, not an outcome: stop, then raise it
            self._stop(exc)
            return broken_off(recipient, exc, self._batch_key, call)
        return None if voucher is None else issued(recipient, voucher, call.attempts)

    def _note_hopeless(self, error: VoucherError, call: Call[IssuedVoucher]) -> None:
        if call.phase is Phase.NO_TOKEN:  # for the moment: others may have one
            return
        # Every issue of a run is the same request: who refuses one refuses them all.
        if self._ledgered is not None:
            self._hopeless = self._ledgered.stopped_by(error) or self._hopeless
        elif classify(error) in (Outcome.REFUSED, Outcome.TOKEN_REFUSED):
            self._hopeless = error

    async def _finish(self, call: Call[IssuedVoucher], recipient: R) -> IssuedVoucher | None:
        if self._ledgered is None:
            return await self._client.caller.execute(call)
        return await self._ledgered.issue(call, recipient, hopeless=self._hopeless)

    def _settled(self, recipient: R, voucher: IssuedVoucher, attempts: int) -> None:
        """Take the end of a recipient that was held."""
        self._room -= 1
        self._deliver(issued(recipient, voucher, attempts))

    def _unsettled(self, recipient: R, error: VoucherError, attempts: int) -> None:
        self._room -= 1
        end = unresolved if isinstance(error, OutcomeUnknownError) else failed
        self._deliver(end(recipient, error, attempts))

    def _new_call(self) -> Call[IssuedVoucher]:
        """Return the next call. All are of one request, which is built once."""
        caller = self._client.caller
        if self._template is None:
            self._template = issue_call(self._client.caller, self._batch_key)
        same = self._template
        call = caller.call(
            same.request, same.parse, same.safety, same.timeout, batch_key=self._batch_key
        )
        call.sign, call.is_bulk = self._pool.sign, True
        return call
