"""A bulk issue that goes through a ledger: asks it first, and waits for what is to be settled."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from rm_voucher.calls.call import Call
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    APIError,
    BatchStoppedError,
    ConfigurationError,
    ConnectError,
    LedgerError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.ledger.ledger import Ledger
from rm_voucher.ledger.rules.commands import Claimed, Pending, check_id
from rm_voucher.ledger.rules.records import Code, RequestState
from rm_voucher.models import IssuedVoucher
from rm_voucher.service.client import VoucherClient

R = TypeVar("R")

_AGAIN = Pending(RequestState.WAITING, None)


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
        on_issued: Callable[[R, IssuedVoucher, int], None],
    ) -> None:
        if not isinstance(ledger, Ledger):  # its URL, say
            raise ConfigurationError("ledger must be of type Ledger: see Ledger.open.")
        self._ledger = ledger
        self._client = client
        self._batch_key = batch_key
        self._concurrency = concurrency
        self._request_id = request_id or _own_id
        self._on_issued = on_issued
        self._calls = asyncio.Semaphore(concurrency)
        # Of each request, the recipients that wait for it, with the number of attempts so far.
        self._held: dict[str, list[tuple[R, int]]] = defaultdict(list)
        self.held = 0
        self.spare = 0
        self.is_broken = False  # the ledger, which can't even be asked
        self._broken_by: LedgerError | None = None

    async def begin(self) -> None:
        """Make the batch ready, and listen for what is given to requests."""
        await self._ledger.prepare(self._client, self._batch_key)
        self._ledger.listeners.add(self._told)

    async def issue(
        self, call: Call[IssuedVoucher], recipient: R, *, hopeless: VoucherError | None
    ) -> IssuedVoucher | None:
        """Return the recipient's voucher, or None: the recipient is held.

        A ``hopeless`` run looks up what was issued before, and else raises that error. Raises
        what the call raises.
        """
        name = check_id(self._request_id(recipient))
        answer: IssuedVoucher | Pending = _AGAIN
        while answer == _AGAIN:
            asked = await self._ask(name, may_start=hopeless is None)
            if isinstance(asked, Claimed):
                answer = await self._send(call, name, asked.attempt_id)
            else:
                answer = asked
            if hopeless is not None and answer == _AGAIN:
                raise hopeless
        if isinstance(answer, IssuedVoucher):
            return answer
        if answer.state is not RequestState.WAITING:
            raise self._ledger.sender.held(self._batch_key, answer)
        self._held[name].append((recipient, call.attempts))
        self.held += 1
        return None

    def stopped_by(self, error: VoucherError) -> VoucherError | None:
        """Return what ends the run for all, if it is that."""
        cause = error.__cause__ if isinstance(error, OutcomeUnknownError) else error
        if type(cause) is LedgerError and (cause is not error or cause is self._broken_by):
            self.is_broken = True
            return cause
        if isinstance(cause, BatchStoppedError):
            return cause
        if isinstance(cause, APIError) and cause.http_status is None:
            return None  # the recipient's id
        refused = classify(error) in (Outcome.REFUSED, Outcome.TOKEN_REFUSED)
        return error if refused else None

    async def _send(
        self, call: Call[IssuedVoucher], name: str, attempt_id: str
    ) -> IssuedVoucher | Pending:
        sender = self._ledger.sender
        async with self._calls:
            if not call.abandoned:
                try:
                    return await sender.send(self._client, call, name, attempt_id)
                except OutcomeUnknownError as exc:
                    if isinstance(exc.__cause__, LedgerError):
                        raise
                    return Pending(RequestState.WAITING, attempt_id)
        await sender.release(self._batch_key, attempt_id)
        raise ConnectError("issue: given up before it was sent")

    async def settle(self) -> None:
        """Settle what is unknown, and issue to those who got nothing. Takes ``settle_s`` or more.

        Raises what stops the batch.
        """
        if self.held:
            await self._ledger.finish(
                self._client,
                self._batch_key,
                request_ids=list(self._held),
                concurrency=self._concurrency,
            )
        self.spare = (await self._ledger.counts(self._batch_key)).spare

    async def left(
        self, hopeless: VoucherError | None
    ) -> AsyncIterator[tuple[R, VoucherError, int]]:
        """Look up those who are held after all; iterate over those who have nothing, and why."""
        for name in list(self._held):
            try:
                answer = await self._look_up(name)
            except LedgerError:
                return  # `end` speaks for the rest
            for recipient, attempts in self._pop(name):
                if isinstance(answer, IssuedVoucher):
                    self._on_issued(recipient, answer, attempts)
                elif hopeless is not None and answer == _AGAIN:
                    yield recipient, hopeless, attempts
                else:
                    yield recipient, self._ledger.sender.held(self._batch_key, answer), attempts

    async def _look_up(self, name: str) -> IssuedVoucher | Pending:
        answer = await self._ask(name, may_start=False)
        return _AGAIN if isinstance(answer, Claimed) else answer

    async def _ask(self, name: str, *, may_start: bool) -> IssuedVoucher | Claimed | Pending:
        sender = self._ledger.sender
        try:
            return await sender.ask(self._batch_key, "", name, may_start=may_start)
        except LedgerError as exc:
            if type(exc) is LedgerError:  # not about this request
                self._broken_by = exc
            raise

    def end(self) -> Iterator[tuple[R, VoucherError, int]]:
        """Stop listening; iterate over those who were not even looked up."""
        self._ledger.listeners.discard(self._told)
        for name in list(self._held):
            for recipient, attempts in self._pop(name):
                error = self._ledger.sender.held(self._batch_key, _AGAIN)
                yield recipient, error, attempts

    def _told(self, codes: Sequence[Code]) -> None:
        for code in codes:
            for recipient, attempts in self._pop(code.request_id or ""):
                self._on_issued(recipient, code.voucher, attempts)

    def _pop(self, name: str) -> list[tuple[R, int]]:
        recipients = self._held.pop(name, [])
        self.held -= len(recipients)
        return recipients


def _own_id(recipient: object) -> str:
    if isinstance(recipient, str | int):
        return str(recipient)
    raise ConfigurationError(
        "A recipient that is neither text nor a number needs request_id=, a function that gives "
        "it an id that is the same in every run."
    )
