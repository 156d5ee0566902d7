"""A bulk issue through a ledger: it asks before each call, and settles unknown outcomes last."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rm_voucher.bulk.results import BulkResult, issued, not_issued
from rm_voucher.calls.call import Call
from rm_voucher.calls.hooks import WorkKind
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    APIError,
    BatchStoppedError,
    ConfigurationError,
    LedgerError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.ledger.ledger import Ledger
from rm_voucher.ledger.rules.commands import Pending, check_id
from rm_voucher.ledger.rules.records import Code, RequestState
from rm_voucher.ledger.sender import AGAIN, pending_error
from rm_voucher.models import IssuedVoucher
from rm_voucher.service.client import VoucherClient

R = TypeVar("R")


class LedgerRun(Generic[R]):
    """One bulk issue's use of a ledger.

    It asks for more requests at once than it sends, so that the ledger's commits and the calls
    overlap. A recipient whose outcome is unknown is held until it is settled, at the end.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: VoucherClient,
        batch_key: str,
        *,
        concurrency: int,
        request_id: Callable[[R], str] | None,
        on_result: Callable[[BulkResult[R]], None],
    ) -> None:
        if not isinstance(ledger, Ledger):  # its URL, say
            raise ConfigurationError("ledger must be of type Ledger: see Ledger.open.")
        self._ledger = ledger
        self._sender = ledger.sender
        self._unsubscribe: Callable[[], None] = lambda: None  # before `begin`
        self._client = client
        self._batch_key = batch_key
        self._concurrency = concurrency
        self._request_id = request_id or _own_id
        self._on_result = on_result
        self._calls = asyncio.Semaphore(concurrency)
        # By request, the recipients that wait for it, each with the number of attempts so far and
        # what it waits for.
        self._held: dict[str, list[tuple[R, int, Pending]]] = defaultdict(list)
        self.held: int = 0
        self.spare: int = 0
        self.is_broken: bool = False
        """Whether the ledger can't even be asked any more."""
        self._broken_by: LedgerError | None = None

    async def begin(self) -> None:
        """Make the batch ready, and listen for codes that are given to requests."""
        await self._ledger.prepare(self._client, self._batch_key)
        self._unsubscribe = self._ledger.subscribe(self._assigned)

    async def issue(
        self, call: Call[IssuedVoucher], recipient: R, *, fatal: VoucherError | None
    ) -> IssuedVoucher | None:
        """Return the recipient's voucher, or None: the recipient is held.

        After a ``fatal`` error it only looks the voucher up, and without one raises that error.
        Raises what the call raises.
        """
        name = check_id(self._request_id(recipient))
        answer: IssuedVoucher | Pending = AGAIN
        while answer == AGAIN:
            if fatal is None:
                answer = await self._start(call, name)
            elif (answer := await self._look_up(name)) == AGAIN:
                raise fatal
        if isinstance(answer, IssuedVoucher):
            return answer
        if answer.state is not RequestState.WAITING:
            raise pending_error(self._batch_key, answer)
        self._held[name].append((recipient, call.attempts, answer))
        self.held += 1
        return None

    def stopped_by(self, error: VoucherError) -> VoucherError | None:
        """Return the error that ends the run for all, if this one does."""
        cause = error.__cause__ if isinstance(error, OutcomeUnknownError) else error
        if type(cause) is LedgerError and (cause is not error or cause is self._broken_by):
            self.is_broken = True
            return cause
        if isinstance(cause, BatchStoppedError):
            return cause
        if isinstance(cause, APIError) and cause.http_status is None:
            return None  # it is about the recipient's id
        if isinstance(cause, LedgerError):
            return None  # it is about this request
        refused = classify(error) in (Outcome.REFUSED, Outcome.TOKEN_REFUSED)
        return error if refused else None

    async def _start(self, call: Call[IssuedVoucher], name: str) -> IssuedVoucher | Pending:
        try:
            starting = self._sender.start(self._client, call, "", name, slots=self._calls)
            return await self._client.caller.observed(
                starting, "issue", kind=WorkKind.LEDGER, batch_key=self._batch_key
            )
        except LedgerError as exc:
            self._note_trouble(exc)
            raise
        except OutcomeUnknownError as exc:
            if isinstance(exc.__cause__, LedgerError):
                raise
            seen = exc.voucher if isinstance(exc.voucher, IssuedVoucher) else None
            return Pending(RequestState.WAITING, exc.attempt_id, seen=seen)

    async def settle(self) -> None:
        """Settle unknown outcomes, and issue to those who got nothing.

        It takes ``settle_s`` or more. Raises what stops the batch.
        """
        if self.held:
            await self._ledger.finish(
                self._client,
                self._batch_key,
                request_ids=list(self._held),
                concurrency=self._concurrency,
            )
        self.spare = (await self._ledger.counts(self._batch_key)).spare

    async def look_up_held(self, fatal: VoucherError | None) -> None:
        """Give those who are still held a result, by looking each up once more."""
        for name in list(self._held):
            try:
                answer = await self._look_up(name)
            except LedgerError:
                return  # `end` speaks for the rest
            if isinstance(answer, IssuedVoucher):
                self._end_held(name, answer)
            elif fatal is not None and answer == AGAIN:
                self._end_held(name, fatal)
            else:
                self._end_held(name, pending_error(self._batch_key, answer))

    async def _look_up(self, name: str) -> IssuedVoucher | Pending:
        try:
            return await self._sender.look_up(self._batch_key, "", name)
        except LedgerError as exc:
            self._note_trouble(exc)
            raise

    def _note_trouble(self, error: LedgerError) -> None:
        if type(error) is LedgerError:  # not about this request
            self._broken_by = error

    def end(self) -> None:
        """Stop listening; give those who could not be looked up a result."""
        self._unsubscribe()
        for name, held in list(self._held.items()):
            _, _, pending = held[0]
            self._end_held(name, pending_error(self._batch_key, pending))

    def _assigned(self, codes: Sequence[Code]) -> None:
        for code in codes:
            self._end_held(code.request_id or "", code.voucher)

    def _end_held(self, name: str, end: IssuedVoucher | VoucherError) -> None:
        recipients = self._held.pop(name, [])
        self.held -= len(recipients)
        for recipient, attempts, _ in recipients:
            if isinstance(end, IssuedVoucher):
                self._on_result(issued(recipient, end, attempts))
            else:
                self._on_result(not_issued(recipient, end, attempts))


def _own_id(recipient: object) -> str:
    if isinstance(recipient, str | int):
        return str(recipient)
    raise ConfigurationError(
        "A recipient that is neither text nor a number needs request_id=, a function that gives "
        "it an id that is the same in every run."
    )
