"""A running bulk issue: workers, results in the order in which calls end, an end that loses none.

It keeps no list of recipients or results: memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import attrs

from rm_voucher.arguments import check_type
from rm_voucher.bulk.first_answer import FirstAnswer
from rm_voucher.bulk.recipients import NOBODY, Nobody, Recipients
from rm_voucher.bulk.results import (
    BulkResult,
    BulkStatus,
    BulkSummary,
    aborted,
    issued,
    not_asked,
    not_issued,
)
from rm_voucher.calls.call import Call, Phase
from rm_voucher.calls.hooks import Gauge, tell_source
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import ConfigurationError, ConnectError, VoucherError
from rm_voucher.models import IssuedVoucher
from rm_voucher.redaction import strip_tracebacks
from rm_voucher.runtime import is_cancelled
from rm_voucher.service.client import VoucherClient, issue_call
from rm_voucher.signing.pool import SigningPool

if TYPE_CHECKING:
    from rm_voucher.bulk.ledger import LedgerRun
    from rm_voucher.ledger.ledger import Ledger

R = TypeVar("R")


@attrs.define(eq=False)
class _Worker(Generic[R]):
    """A task that issues to one recipient after the other: a task each would cost a tenth."""

    recipient: R | Nobody
    """The recipient to whom it owes a result."""
    call: Call[IssuedVoucher] | None = None
    task: asyncio.Task[None] | None = None


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
        if type(concurrency) is not int or concurrency < 1:
            raise ConfigurationError("concurrency must be a number of calls, 1 or more.")
        check_type("signers", signers, int, optional=True)
        self._pool = SigningPool(client.caller.signer, processes=signers)
        self._ledger_run: LedgerRun[R] | None = None
        if ledger is not None:
            from rm_voucher.bulk.ledger import LedgerRun  # only for runs that use a ledger

            self._ledger_run = LedgerRun(
                ledger,
                client,
                batch_key,
                concurrency=concurrency,
                request_id=request_id,
                on_result=self._settled,
            )
            concurrency *= 2  # one half's calls while the other's commits
        self._client = client
        self._batch_key = batch_key
        self._template: Call[IssuedVoucher] | None = None  # never sent itself
        self._recipients = Recipients(recipients)
        self._on_progress = on_progress
        # A worker takes a slot. A recipient takes room in the backlog until its result is
        # delivered, so a slow consumer slows the issuing down.
        self._slots = concurrency
        self._backlog = 2 * concurrency
        self._freed = asyncio.Event()
        self._workers: dict[_Worker[R], None] = {}  # a set in the order of creation
        self._results: asyncio.Queue[BulkResult[R] | None] = asyncio.Queue()  # None: no more
        self._counts: Counter[BulkStatus] = Counter()
        self._asked = 0
        self._entered = False
        self._feeding: asyncio.Task[None]  # from `__aenter__` on
        self._stopping = False
        self._finished = asyncio.Event()
        self._fatal: VoucherError | None = None  # an outcome that holds for all recipients
        self._first_answer = FirstAnswer(
            client.caller.flow,
            connect_s=client.caller.timeout.connect_s,
            lacks_token=self._lacks_token,
            on_none=self._never_answered,
        )
        self._unanswered: ConnectError | None = None  # what ends a run that nothing answers
        self._reading: asyncio.Task[None] | None = None  # of a listing
        self._crash: BaseException | None = None  # an error that is no outcome, raised at the end
        self.undelivered: list[BulkResult[R]] = []
        """Results that no loop saw because the block was left early: those that were waiting, and
        those of calls in flight; at most twice ``concurrency``. They hold real vouchers: keep them.
        """

    @property
    def summary(self) -> BulkSummary:
        """The counts so far; final once the block is left."""
        return BulkSummary(
            asked=self._asked,
            issued=self._counts[BulkStatus.ISSUED],
            failed=self._counts[BulkStatus.FAILED],
            unresolved=self._counts[BulkStatus.UNRESOLVED],
            held=self._ledger_run.held if self._ledger_run else 0,
            spare=self._ledger_run.spare if self._ledger_run else 0,
        )

    @property
    def in_flight(self) -> int:
        """How many calls were sent, or are being signed, whose answer has not come."""
        calls = [worker.call for worker in self._workers if worker.call is not None]
        return sum(call.in_flight or call.phase is Phase.SIGNING for call in calls)

    def gauges(self) -> list[Gauge]:
        """Return how its requests are signed, for observers."""
        return [
            Gauge("signing.waiting", self._pool.waiting),
            Gauge("signing.processes", self._pool.processes),
        ]

    async def __aenter__(self) -> Self:
        self._entered = True
        tell_source(self._client.caller.observers, self._client.name, self)
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

        Calls that wait to be sent again are given up: their attempts so far did nothing. A
        cancellation meanwhile takes effect afterwards, because only the end of a sent call tells
        its outcome. Attempts and time-outs bound the wait. The recipients are closed last, if they
        are a generator.
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
        try:
            await self._recipients.aclose()
        except Exception as failed:  # noqa: BLE001 - the caller's code: raised below
            self._source_failed(failed)
        if cancelled is not None:
            raise cancelled
        if exc is None:
            self._raise_crash()

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
            self._backlog += 1
            self._freed.set()
            return result
        self._results.put_nowait(None)  # for whoever asks again
        self._raise_crash()
        raise StopAsyncIteration

    # Feeding: a worker for each free slot.

    async def _feed(self) -> None:
        await asyncio.sleep(0)  # so that `_feeding` is set, where tasks begin eagerly
        if self._ledger_run is None:
            await self._feed_all()
            return
        await self._read(self._ledger_run.begin())
        await self._feed_all()
        while self._workers:
            self._freed.clear()
            await self._freed.wait()
        try:
            await self._read(self._ledger_run.settle())
        except VoucherError as exc:
            self._fatal = self._fatal or exc
        await self._ledger_run.look_up_held(self._fatal)

    async def _read(self, reading: Coroutine[Any, Any, None]) -> None:
        """Await what reads a listing. Raises what ends a run that nothing answers."""
        self._first_answer.begin()
        self._reading = asyncio.create_task(reading, name="rm-voucher bulk listing")
        try:
            await self._reading
        except asyncio.CancelledError:
            if self._unanswered is None or is_cancelled():
                raise
            raise self._unanswered from None
        finally:
            self._reading = None

    async def _feed_all(self) -> None:
        while True:
            while not (self._slots and self._backlog):
                self._freed.clear()
                await self._freed.wait()
            recipient = await self._recipients.next()
            if isinstance(recipient, Nobody):
                return
            self._slots -= 1
            self._take_up(recipient)
            # The source swallowed the cancellation. A test shows that this runs, but Python 3.11
            # traces no line of a coroutine that an exception was thrown into.
            if self._stopping:  # pragma: no cover
                return

    def _take_up(self, recipient: R) -> None:
        self._admit()
        worker = _Worker(recipient)
        self._workers[worker] = None  # before its task is there, which may begin, and end, at once
        worker.task = asyncio.create_task(self._work(worker), name="rm-voucher bulk call")
        worker.task.add_done_callback(lambda _: self._worker_ended(worker))

    def _admit(self) -> None:
        self._backlog -= 1
        self._asked += 1

    def _feeding_ended(self, feeding: asyncio.Task[None]) -> None:
        if not feeding.cancelled():
            self._crash = self._crash or feeding.exception()
        elif not self._stopping:
            self._source_failed(asyncio.CancelledError())
            self._stop()
        self._finish_if_all_ended()

    def _source_failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = ConfigurationError("The recipients ended in a cancellation, not at an end.")
        self._crash = self._crash or error

    # Working: calls, one after the other.

    async def _work(self, worker: _Worker[R]) -> None:
        try:
            await self._issue_to_all(worker)
        except Exception as exc:
            self._stop(exc)  # at once: others would take one recipient more
            raise

    async def _issue_to_all(self, worker: _Worker[R]) -> None:
        recipient = worker.recipient
        while not isinstance(recipient, Nobody):
            result = await self._issue(worker, recipient)
            worker.recipient, worker.call = NOBODY, None
            if result is None:
                self._backlog += 1  # taken again when it is delivered
                self._progressed()
            else:
                self._deliver(result)
            if self._stopping or not self._backlog:
                return
            try:
                recipient = self._recipients.next_at_once()
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - raised at the end
                self._source_failed(exc)
                return
            if not isinstance(recipient, Nobody):
                self._admit()
                worker.recipient = recipient

    async def _issue(self, worker: _Worker[R], recipient: R) -> BulkResult[R] | None:
        """Return a recipient's result, or None: it is held to be settled."""
        if self._stopping:
            # The source swallowed the cancellation and gave one more.
            return not_asked(recipient, "issue: the run had ended before it")
        if self._fatal is not None and (self._ledger_run is None or self._ledger_run.is_broken):
            return not_issued(recipient, self._fatal)
        worker.call = call = self._new_call()
        try:
            voucher: IssuedVoucher | None
            if self._ledger_run is None:
                caller = self._client.caller
                voucher = await caller.observed(
                    caller.execute(call), "issue", batch_key=self._batch_key
                )
            else:
                voucher = await self._ledger_run.issue(call, recipient, fatal=self._fatal)
        except VoucherError as exc:
            strip_tracebacks(exc)
            self._note_fatal(exc, call)
            error = self._unanswered if isinstance(exc, ConnectError) else None
            return not_issued(recipient, error or exc, call.attempts)
        return None if voucher is None else issued(recipient, voucher, call.attempts)

    def _new_call(self) -> Call[IssuedVoucher]:
        """Return the next call. All are of one request, which is built once."""
        caller = self._client.caller
        self._first_answer.begin()
        if self._template is None:
            self._template = issue_call(caller, self._batch_key)
        same = self._template
        call = caller.call(
            same.request, same.parse, same.safety, same.timeout, batch_key=self._batch_key
        )
        call.sign, call.is_bulk = self._pool.sign, True
        return call

    def _note_fatal(self, error: VoucherError, call: Call[IssuedVoucher]) -> None:
        if call.phase is Phase.NO_TOKEN:  # for the moment: others may have one
            return
        # Every issue of a run is the same request: a refusal of one is a refusal of all.
        if self._ledger_run is not None:
            self._fatal = self._ledger_run.stopped_by(error) or self._fatal
        elif classify(error) in (Outcome.REFUSED, Outcome.TOKEN_REFUSED):
            self._fatal = error

    # A callback, not an await, has the last word: however a worker ends, also by the shut-down of
    # its event loop, its recipient has a result.

    def _worker_ended(self, worker: _Worker[R]) -> None:
        task, recipient = worker.task, worker.recipient
        assert task is not None  # noqa: S101 - for the type checker
        del self._workers[worker]
        crash = None if task.cancelled() else task.exception()
        if crash is not None:
            self._stop(crash)
        if not isinstance(recipient, Nobody):
            why = self._unanswered
            self._deliver(aborted(recipient, crash, self._batch_key, worker.call, fatal=why))
        self._slots += 1
        self._freed.set()
        self._finish_if_all_ended()

    # Results

    def _settled(self, result: BulkResult[R]) -> None:
        """Deliver the result of a recipient that was held."""
        self._backlog -= 1
        self._deliver(result)

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

    # The end

    def end_now(self) -> None:
        """End without waiting for answers: the recipients of calls in flight are UNRESOLVED.

        For a person who has been told so; leaving the block waits for them. A code that a call has
        in hand is its recipient's all the same, and a ledger is given the time to keep it. May be
        repeated.
        """
        self._stop()
        loop = asyncio.get_running_loop()
        # After the calls whose answers the loop has read by now, and before it reads others.
        loop.call_later(0, loop.call_soon, self._give_up_answers)

    def _give_up_answers(self) -> None:
        for worker in self._workers:
            call, task = worker.call, worker.task
            if call is not None and task is not None and call.has_begun and not call.has_ended:
                task.cancel()

    def _stop(self, crash: BaseException | None = None) -> None:
        self._stopping = True
        self._crash = self._crash or crash
        self._feeding.cancel()
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        """Send no call again, and give up those that wait."""
        for worker in self._workers:
            call, task = worker.call, worker.task
            if call is not None and task is not None:
                call.abandon()
                if call.is_waiting:  # its attempts so far did nothing
                    task.cancel()

    def _lacks_token(self) -> bool:
        """Return whether, for all that is known, the run waits for a token and nothing else."""
        phases = {worker.call.phase for worker in self._workers if worker.call is not None}
        return self._reading is not None or (Phase.TOKEN in phases and Phase.SENT not in phases)

    def _never_answered(self) -> None:
        """End a run that the server never answered: for all, though nobody was refused."""
        caller = self._client.caller
        troubles = [w.call.trouble for w in self._workers if w.call is not None and w.call.trouble]
        trouble = troubles[-1] if troubles else caller.trouble_of(None)
        last = f" (last: {trouble})" if trouble else ""
        self._fatal = self._unanswered = ConnectError(
            f"issue: no answer at all from {caller.environment.api_url}, so the run was ended: "
            f"check the URL, the network, its proxy and DNS{last}"
        )
        self._give_up_waiting()
        if self._reading is not None:
            self._reading.cancel()

    def _finish_if_all_ended(self) -> None:
        if self._feeding.done() and not self._workers and not self._finished.is_set():
            self._first_answer.end()
            if self._ledger_run is not None:
                self._ledger_run.end()
            self._finished.set()
            self._results.put_nowait(None)

    def _raise_crash(self) -> None:
        crash, self._crash = self._crash, None
        if isinstance(crash, StopIteration | StopAsyncIteration):
            # Raised as it is, it would pass for the end of the results.
            raise RuntimeError("The recipients or on_progress raised it.") from crash  # noqa: TRY004 - no type error
        if crash is not None:
            raise crash
