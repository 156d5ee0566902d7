"""One request's way to its code: ask, send if need be, keep the code, give it to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import attrs

from rm_voucher.calls.call import Call
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    APIError,
    BatchStoppedError,
    ConnectError,
    ConnectTimeoutError,
    LedgerError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.ledger.keeper import Keeper
from rm_voucher.ledger.process import AttemptTracker, LedgerClock, LedgerTasks
from rm_voucher.ledger.rules.commands import Ask, Check, Claimed, Confirm, End, Pending
from rm_voucher.ledger.rules.records import AttemptState, RequestState
from rm_voucher.ledger.rules.transitions import ask, check, confirm, end
from rm_voucher.ledger.store import LedgerStore
from rm_voucher.models import IssuedVoucher
from rm_voucher.service.client import VoucherClient, issue_call

_log = logging.getLogger("rm_voucher.ledger")
_POLL_S = 0.1
_POLLS = 300  # for a call of another process
_FRESH_S = 1.0
AGAIN = Pending(RequestState.WAITING, None)
"""The answer to a request that has nothing, and waits for nothing."""


class GivenUpError(LedgerError):
    """A person gave this request up: nothing is issued for it."""


class _TakenOverError(LedgerError):
    """Another process, which took this one for dead, decides about the attempt now."""


@attrs.define(eq=False)
class Errand:
    """One request on its way, for whoever waits for it no longer than its call's deadline."""

    call: Call[IssuedVoucher]
    is_elsewhere: bool = False
    """Whether a call that another task or process makes for the request is in flight."""

    @property
    def in_flight(self) -> bool:
        """Whether a voucher may have been issued, for all that is known."""
        return self.is_elsewhere or self.call.in_flight

    def renew(self, client: VoucherClient) -> None:
        """Go on with another call, which has the same deadline."""
        last = self.call
        self.call = issue_call(
            client.caller, last.batch_key or "", last.timeout, deadline=last.deadline
        )
        self.call.trouble = last.trouble


@attrs.define(eq=False)
class Sender:
    """Sends the attempts of one process.

    `issue` does all for a request. A bulk run does it step by step: `start`, and `look_up`.
    ``on_unknown`` is told of each unknown outcome.
    """

    _store: LedgerStore
    _clock: LedgerClock
    _tracker: AttemptTracker
    _tasks: LedgerTasks
    _keeper: Keeper
    _on_unknown: Callable[[VoucherClient, str], None]
    _settle_s: float
    sent: int = attrs.field(init=False, default=0)
    """The number of attempts sent so far."""
    _single: dict[asyncio.Task[object], Call[IssuedVoucher]] = attrs.field(init=False, factory=dict)
    _numbers: Iterator[int] = attrs.field(init=False, factory=lambda: itertools.count(1))

    async def look_up(
        self, batch_key: str, content: str, request_id: str
    ) -> IssuedVoucher | Pending:
        """Insert or find a request; return its voucher, or what it waits for.

        Raises `IdempotencyConflictError`, and `LedgerError`, also while how a call ended can't be
        kept.
        """
        answer = await self._ask(batch_key, content, request_id, may_start=False)
        assert not isinstance(answer, Claimed)  # noqa: S101 - for the type checker
        return answer

    async def start(
        self,
        client: VoucherClient,
        call: Call[IssuedVoucher],
        content: str,
        request_id: str,
        *,
        slots: AbstractAsyncContextManager[object] | None = None,
    ) -> IssuedVoucher | Pending:
        """Return a request's voucher, issue it, or return what it waits for.

        An attempt is started when its turn has come, and not before: of a process that dies, only
        what was in flight, or about to be, is unknown. ``slots`` bound how many calls are made at
        once; the ledger's commits before and after each need none. Raises what `look_up` and the
        call raise, `BatchStoppedError`, and `ConnectError` when the call was abandoned.
        """
        batch_key = call.batch_key or ""
        if client.caller.may_wait:
            answer = await self.look_up(batch_key, content, request_id)
            if answer != AGAIN:
                return answer
        if call.abandoned:
            raise self._given_up(call)
        await client.caller.admit(call)
        asked = await self._ask(batch_key, content, request_id, may_start=True)
        if not isinstance(asked, Claimed):
            return asked
        slots = slots or contextlib.nullcontext()
        return await self._send(client, call, request_id, asked.attempt_id, slots)

    async def _ask(
        self, batch_key: str, content: str, request_id: str, *, may_start: bool
    ) -> IssuedVoucher | Claimed | Pending:
        await self._keeper.catch_up()
        # Ids in the order of time stand together in the database's index.
        attempt_id = f"{self._store.owner}-{next(self._numbers):07}"
        # Before it is durable: a recovery must not take it for lost.
        self._tracker.sending[attempt_id] = self._clock.monotonic()
        answer: IssuedVoucher | Claimed | Pending | LedgerError | None = None
        try:
            answer = await self._store.commit(
                ask,
                Ask(
                    batch=batch_key,
                    request_id=request_id,
                    content=content,
                    attempt_id=attempt_id,
                    owner=self._store.owner,
                    at=self._clock.earliest_now(),
                    may_start=may_start,
                ),
            )
        finally:
            if not isinstance(answer, Claimed):
                del self._tracker.sending[attempt_id]
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    async def issue(
        self,
        client: VoucherClient,
        batch_key: str,
        content: str,
        request_id: str,
        errand: Errand | None = None,
    ) -> IssuedVoucher:
        """Return the voucher of a request; issue it if it has none."""
        errand = errand or Errand(issue_call(client.caller, batch_key))
        for _ in range(_POLLS):
            answer = await self._start_single(client, errand.call, content, request_id)
            if isinstance(answer, IssuedVoucher):
                return answer
            pending = answer
            errand.is_elsewhere = pending.in_flight
            if pending.in_flight:
                await self._clock.sleep(_POLL_S)
            elif pending.attempt_id is not None or pending.state is not RequestState.WAITING:
                break
            errand.renew(client)
        raise pending_error(batch_key, pending)

    def stop(self) -> None:
        """Give up the calls of `issue` that have nothing in flight: they may wait for long."""
        for task, call in self._single.items():
            call.abandon()
            if call.is_waiting:
                task.cancel()

    async def _start_single(
        self, client: VoucherClient, call: Call[IssuedVoucher], content: str, request_id: str
    ) -> IssuedVoucher | Pending:
        """Make a call that `stop` can give up."""
        if not self._tasks.is_open:  # `stop` was here before the call
            raise self._given_up(call)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._single[task] = call
        try:
            return await self.start(client, call, content, request_id)
        except asyncio.CancelledError:
            if call.abandoned and not call.in_flight:
                # The caller, who waits for this task, was not cancelled.
                raise ConnectError(
                    f"issue: given up, because the ledger was closed{call.last_trouble}"
                ) from None
            raise
        finally:
            del self._single[task]

    def _given_up(self, call: Call[IssuedVoucher]) -> ConnectError:
        why = "given up before it was sent"
        if not self._tasks.is_open:
            why = "not sent, because the ledger is being closed"
        return ConnectError(f"issue: {why}{call.last_trouble}")

    async def _send(
        self,
        client: VoucherClient,
        call: Call[IssuedVoucher],
        request_id: str,
        attempt_id: str,
        slots: AbstractAsyncContextManager[object],
    ) -> IssuedVoucher | Pending:
        """Make the call of a claimed attempt, and keep its outcome.

        Raises what the call raises, with the ledger's id of the attempt, when that is durable.
        """
        try:
            return await self._execute(client, call, request_id, attempt_id, slots)
        finally:
            del self._tracker.sending[attempt_id]

    async def _execute(
        self,
        client: VoucherClient,
        call: Call[IssuedVoucher],
        request_id: str,
        attempt_id: str,
        slots: AbstractAsyncContextManager[object],
    ) -> IssuedVoucher | Pending:
        batch_key = call.batch_key or ""
        call.before_send = functools.partial(self._check, batch_key, attempt_id)
        try:
            async with slots:
                if call.abandoned:
                    raise self._given_up(call)
                self.sent += 1
                executing = client.caller.execute(call)
                voucher = await client.caller.observed(executing, "issue", batch_key=batch_key)
        except OutcomeUnknownError as exc:
            seen = exc.voucher if isinstance(exc.voucher, IssuedVoucher) else None
            is_kept = await self._end_unknown(client, batch_key, attempt_id, seen)
            # With a ledger it may be asked again, and the error says so.
            unknown = _unknown(
                batch_key,
                attempt_id,
                "whether a voucher was issued is unknown, and is to be settled; ask again later "
                "with the same id",
                # Who keeps it for a later run must find it in the ledger as what it is: a hint.
                seen if is_kept else None,
                trouble=call.trouble,
            )
            unknown.nonce, unknown.sent_at = exc.nonce, exc.sent_at
            raise unknown from exc.__cause__
        except _TakenOverError:
            await self._end(batch_key, attempt_id, AttemptState.REJECTED)
            return AGAIN
        except VoucherError as exc:  # of an issue, all others prove that nothing was done
            # Without an attempt it is about the token, and not about the request.
            failure = _failure(exc) if call.attempts else None
            await self._end(batch_key, attempt_id, AttemptState.REJECTED, failure=failure)
            raise
        except asyncio.CancelledError:
            if not call.in_flight:
                await self._end(batch_key, attempt_id, AttemptState.REJECTED)
            raise
        except Exception:  # a defect of any kind, raised below: noted first, or a voucher is lost
            await self._end_unknown(client, batch_key, attempt_id)
            raise
        item = Confirm(
            batch=batch_key,
            request_id=request_id,
            attempt_id=attempt_id,
            code=voucher.code,
            qr_url=voucher.qr_url or None,
            at=self._clock.latest_now(),
        )
        try:
            answer = await self._keeper.keep(confirm, item)
        except LedgerError as exc:
            what = (
                "a voucher was issued, but the ledger could not keep it: its code is in this "
                "error's voucher, and kept as soon as that is possible; hand it on only then"
            )
            if isinstance(exc, BatchStoppedError):
                what = (
                    "a voucher was issued, and the ledger can't keep it: its code is in this "
                    "error's voucher, and its attempt is held for a person to resolve"
                )
            unknown = _unknown(batch_key, attempt_id, what, item.voucher)
            unknown.nonce, unknown.sent_at = call.nonce, call.sent_at
            raise unknown from exc
        if isinstance(answer, LedgerError):  # the code is somebody else's too
            raise _unknown(
                batch_key, attempt_id, "a voucher was issued, but the ledger could not keep it"
            ) from answer
        return answer

    async def _check(self, batch_key: str, attempt_id: str) -> None:
        """Refuse to send an attempt that is no longer this process's, or while codes wait.

        Whoever takes an attempt over waits ``settle_s`` before anything is concluded. So a proof
        that is a small part of that old is good, and only an attempt that waited needs a new one.
        """
        await self._keeper.catch_up()
        now, fresh_s = self._clock.monotonic(), min(_FRESH_S, self._settle_s / 10)
        if now - self._tracker.sending[attempt_id] < fresh_s:
            return
        item = Check(batch=batch_key, attempt_id=attempt_id, owner=self._store.owner)
        if not await self._store.commit(check, item):
            raise _TakenOverError("issue: not sent, because another process took it over")
        self._tracker.sending[attempt_id] = now

    async def _end(
        self,
        batch_key: str,
        attempt_id: str,
        state: AttemptState,
        *,
        failure: str | None = None,
        seen: IssuedVoucher | None = None,
    ) -> bool:
        """Keep the end of an attempt; return whether it is durable."""
        item = End(
            batch=batch_key,
            attempt_id=attempt_id,
            state=state,
            at=self._clock.latest_now(),
            failure=failure,
            seen=seen,
        )
        try:
            await self._keeper.keep(end, item)
        except LedgerError as exc:
            # It stays SENDING until it can be kept, or the ledger is opened again.
            _log.warning(
                "attempt %s ended as %s, which could not be kept: %s",
                attempt_id,
                state,
                exc,
                extra=log_fields(operation="issue", attempt=attempt_id, batch=batch_key),
            )
            return False
        return True

    async def _end_unknown(
        self,
        client: VoucherClient,
        batch_key: str,
        attempt_id: str,
        seen: IssuedVoucher | None = None,
    ) -> bool:
        is_kept = await self._end(batch_key, attempt_id, AttemptState.AMBIGUOUS, seen=seen)
        self._tracker.note_ambiguous(attempt_id)
        self._on_unknown(client, batch_key)
        return is_kept


def pending_error(batch_key: str, pending: Pending) -> VoucherError:
    """Return the error for a request that gets nothing now."""
    match pending.state:
        case RequestState.CANCELLED:
            return GivenUpError("This request was given up by a person.", is_final=True)
        case RequestState.UNRESOLVED:
            what = "the attempt for this request is held for a person to resolve"
        case _:
            what = "the outcome of the attempt for this request is to be settled; ask again later"
    return _unknown(batch_key, pending.attempt_id, what, pending.seen)


def overdue_error(
    batch_key: str, *, in_flight: bool, voucher: IssuedVoucher | None, trouble: str
) -> VoucherError:
    """Return the error for whoever waits no longer for a request that is on its way.

    ``voucher``: the one that came for it, and is being kept. ``trouble``: what it waits for.
    """
    if in_flight or voucher is not None:
        what = "it goes on after the deadline; ask again with the same id"
        return _unknown(batch_key, None, what, voucher, trouble=trouble)
    last = f" (last: {trouble})" if trouble else ""
    return ConnectTimeoutError(
        "issue: not sent before its deadline; ask again with the same id, because it may have been "
        f"issued before{last}"
    )


def _unknown(
    batch_key: str,
    attempt_id: str | None,
    what: str,
    voucher: IssuedVoucher | None = None,
    *,
    trouble: str = "",
) -> OutcomeUnknownError:
    known = [f"attempt {attempt_id}"] if attempt_id else []
    known += [f"last: {trouble}"] if trouble else []
    return OutcomeUnknownError(
        f"issue: {what}" + (f" ({'; '.join(known)})" if known else ""),
        operation="issue",
        batch_key=batch_key,
        attempt_id=attempt_id,
        code=None if voucher is None else voucher.code,
        voucher=voucher,
    )


def _failure(error: VoucherError) -> str | None:
    """Return the reason, if the server refused for good."""
    if isinstance(error, APIError) and error.http_status and classify(error) is Outcome.REFUSED:
        return error.code or f"HTTP {error.http_status}"
    return None
