"""One request's way to its code: asked, sent if it must be, and kept before the caller sees it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from rm_voucher.calls.call import Call
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    APIError,
    ConnectError,
    LedgerError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.ledger.rules.commands import Ask, Claimed, Confirm, End, Pending
from rm_voucher.ledger.rules.records import AttemptState, Mode, RequestState
from rm_voucher.ledger.rules.transitions import ask, confirm, end
from rm_voucher.models import IssuedVoucher
from rm_voucher.service.client import VoucherClient, issue_call
from rm_voucher.settings import Timeout

if TYPE_CHECKING:
    from rm_voucher.ledger.ledger import Ledger

_log = logging.getLogger("rm_voucher.ledger")
_POLL_S = 0.1
_POLLS = 300  # for a call of another process
# So many new unknown outcomes are worth reading a batch's listing in the middle of a run.
_MANY_DOUBTS = 50
_MANY_DOUBTS_SHARE = 0.005


class Sender:
    """Sends the attempts of a ledger's process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.live: set[str] = set()
        """The attempts that this process sends."""
        self.doubts: dict[str, int] = defaultdict(int)
        """How many outcomes of a batch became unknown since it was last reconciled."""
        self._sent = 0
        self._reconciling: set[asyncio.Task[object]] = set()
        self._alone: dict[asyncio.Task[object], Call[IssuedVoucher]] = {}
        self._numbers = itertools.count(1)

    async def ask(
        self, batch_key: str, content: str, request_id: str, *, may_start: bool = True
    ) -> IssuedVoucher | Claimed | Pending:
        """Insert or find a request. What is `Claimed` must be given to `send`."""
        ledger = self._ledger
        # In the order in which they are made, so that they stand together in the index.
        attempt_id = f"{ledger.owner}-{next(self._numbers):07}"
        # Before it is durable: a recovery must not take it for lost.
        self.live.add(attempt_id)
        answer: IssuedVoucher | Claimed | Pending | LedgerError | None = None
        try:
            answer = await ledger.commit(
                ask,
                Ask(
                    batch=batch_key,
                    request_id=request_id,
                    content=content,
                    attempt_id=attempt_id,
                    owner=ledger.owner,
                    at=ledger.begun(),
                    may_start=may_start,
                ),
            )
        finally:
            if not isinstance(answer, Claimed):
                self.live.discard(attempt_id)
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    async def issue(
        self,
        client: VoucherClient,
        batch_key: str,
        content: str,
        request_id: str,
        *,
        timeout: Timeout | None = None,
    ) -> IssuedVoucher:
        """Return the voucher of a request; issue it if it has none."""
        for _ in range(_POLLS):
            call = issue_call(client.caller, batch_key, timeout)
            answer = await self.ask(batch_key, content, request_id)
            if isinstance(answer, Claimed):
                answer = await self._send_alone(client, call, request_id, answer.attempt_id)
            if isinstance(answer, IssuedVoucher):
                return answer
            held = answer
            if held.in_flight:
                await self._ledger.sleep(_POLL_S)
            elif held.attempt_id is not None or held.state is not RequestState.WAITING:
                break
        raise self.held(batch_key, held)

    async def _send_alone(
        self, client: VoucherClient, call: Call[IssuedVoucher], request_id: str, attempt_id: str
    ) -> IssuedVoucher | Pending:
        """Make a call that the end of the ledger gives up while nothing of it is in flight."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        if not self._ledger._opened:  # noqa: SLF001 - `stop` was here before the call
            await self.release(call.batch_key or "", attempt_id)
            raise ConnectError("issue: not sent, because the ledger is being closed")
        self._alone[task] = call
        try:
            return await self.send(client, call, request_id, attempt_id)
        except asyncio.CancelledError:
            if call.abandoned and not call.in_flight:
                # Who waits for it was not cancelled.
                raise ConnectError("issue: given up, because the ledger was closed") from None
            raise
        finally:
            del self._alone[task]

    async def send(
        self, client: VoucherClient, call: Call[IssuedVoucher], request_id: str, attempt_id: str
    ) -> IssuedVoucher | Pending:
        """Make the call of a started attempt, and keep what came of it.

        Raises what the call raises, with the ledger's id of the attempt, when that is kept.
        """
        try:
            return await self._send(client, call, request_id, attempt_id)
        finally:
            self.live.discard(attempt_id)

    async def _send(
        self, client: VoucherClient, call: Call[IssuedVoucher], request_id: str, attempt_id: str
    ) -> IssuedVoucher | Pending:
        ledger, batch_key = self._ledger, call.batch_key or ""
        self._sent += 1
        try:
            voucher = await client.caller.execute(call)
        except OutcomeUnknownError as exc:
            await self._doubt(client, batch_key, attempt_id)
            # Here it may be asked again, unlike without a ledger.
            unknown = self._unknown(
                batch_key,
                attempt_id,
                "whether a voucher was issued is unknown, and is to be settled; ask again later "
                "with the same id",
            )
            unknown.nonce, unknown.sent_at = exc.nonce, exc.sent_at
            raise unknown from exc.__cause__
        except VoucherError as exc:  # of an issue, all others prove that nothing was done
            # Without an attempt it is about the token, and not about the request.
            failure = _failure(exc) if call.attempts else None
            await self._end(batch_key, attempt_id, AttemptState.REJECTED, failure)
            raise
        except asyncio.CancelledError:
            if not call.in_flight:
                await self._end(batch_key, attempt_id, AttemptState.REJECTED)
            raise
        except Exception:  # a defect of any kind, raised below: noted first, or a voucher is lost
            await self._doubt(client, batch_key, attempt_id)
            raise
        item = Confirm(
            batch=batch_key,
            request_id=request_id,
            attempt_id=attempt_id,
            code=voucher.code,
            qr_url=voucher.qr_url,
            at=ledger.now(),
        )
        error: LedgerError
        try:
            answer = await ledger.commit(confirm, item)
        except LedgerError as exc:
            error = exc
        else:
            if not isinstance(answer, LedgerError):
                return answer
            error = answer
        raise self._unknown(
            batch_key, attempt_id, "a voucher was issued, but the ledger could not keep it"
        ) from error

    async def release(self, batch_key: str, attempt_id: str) -> None:
        """Give up a started attempt that was not sent."""
        await self._end(batch_key, attempt_id, AttemptState.REJECTED)
        self.live.discard(attempt_id)

    def held(self, batch_key: str, held: Pending) -> VoucherError:
        """Return the error for a request that gets nothing now."""
        match held.state:
            case RequestState.CANCELLED:
                return LedgerError("This request was given up by a person.")
            case RequestState.UNRESOLVED:
                what = "the attempt for this request is held for a person to resolve"
            case _:
                what = "what the attempt for this request did is to be settled; ask again later"
        return self._unknown(batch_key, held.attempt_id, what)

    async def _end(
        self, batch_key: str, attempt_id: str, state: AttemptState, failure: str | None = None
    ) -> None:
        item = End(
            batch=batch_key,
            attempt_id=attempt_id,
            state=state,
            at=self._ledger.now(),
            failure=failure,
        )
        try:
            await self._ledger.commit(end, item)
        except LedgerError as exc:
            # It stays SENDING, and is ambiguous once the ledger is opened again.
            _log.warning(
                "attempt %s ended as %s, which could not be kept: %s", attempt_id, state, exc
            )

    async def _doubt(self, client: VoucherClient, batch_key: str, attempt_id: str) -> None:
        ledger = self._ledger
        await self._end(batch_key, attempt_id, AttemptState.AMBIGUOUS)
        ledger.ambiguous_since[attempt_id] = ledger.monotonic()
        self.doubts[batch_key] += 1
        many = max(_MANY_DOUBTS, _MANY_DOUBTS_SHARE * self._sent)
        if ledger.mode is Mode.EXCLUSIVE and self.doubts[batch_key] > many:
            self.doubts[batch_key] = 0
            with contextlib.suppress(LedgerError):  # it is being closed: left to the next process
                task = ledger.start(ledger.reconcile(client, batch_key))
                self._reconciling.add(task)
                task.add_done_callback(self._reconciling.discard)

    def stop(self) -> None:
        """Give up what would hold up the end for long.

        That is what reads a listing beside the calls, and single calls of which nothing is in
        flight, which may wait for a server that fails.
        """
        for task in self._reconciling:
            task.cancel()
        for task, call in self._alone.items():
            call.abandon()
            if call.is_waiting:
                task.cancel()

    @staticmethod
    def _unknown(batch_key: str, attempt_id: str | None, what: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"issue: {what}" + (f" (attempt {attempt_id})" if attempt_id else ""),
            operation="issue",
            batch_key=batch_key,
            attempt_id=attempt_id,
        )


def _failure(error: VoucherError) -> str | None:
    """Return why the server refused, if it refused for good."""
    if isinstance(error, APIError) and error.http_status and classify(error) is Outcome.REFUSED:
        return error.code or f"HTTP {error.http_status}"
    return None
