"""A ledger's transitions, one at a time, without a server."""

from __future__ import annotations

from typing import Any

from support.doubles import FakeTime

from rm_voucher import IssuedVoucher
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import AttemptState, Ledger, RequestState
from rm_voucher.ledger.rules.commands import (
    Ask,
    Claimed,
    Confirm,
    End,
    Found,
    Listed,
    Pending,
    Recover,
    Resolve,
    Settlement,
)
from rm_voucher.ledger.rules.records import Code, IssueAttempt
from rm_voucher.ledger.rules.settling import list_codes, recover, resolve, settle
from rm_voucher.ledger.rules.transitions import ask, confirm, end

B = "B"


class LedgerOps:
    """Acts on a ledger. Time goes on a second with each act, so that there is an order."""

    def __init__(self, ledger: Ledger, time: FakeTime, *, twice: bool = False) -> None:
        self.ledger = ledger
        self.time = time
        self.twice = twice
        """Whether each transition is repeated, as when the answer to its commit was lost."""
        self.attempt_of: dict[str, str] = {}

    async def commit(self, transition: Any, item: Any) -> Any:
        """Commit an item; return the result, also where it is an error."""
        result = await self._once(transition, item)
        return await self._once(transition, item) if self.twice else result

    async def _once(self, transition: Any, item: Any) -> Any:
        try:
            return await self.ledger.store.commit(transition, item)
        except LedgerError as exc:  # a store may raise what it finds in a result's place
            return exc

    def at(self) -> float:
        self.time.now += 1
        return self.time.now

    async def baseline(self, *codes: str, **options: Any) -> Any:
        listed = Listed(batch=B, at=self.at(), found=found(*codes), last=True, **options)
        return await self.commit(list_codes, listed)

    async def ask(self, request_id: str, attempt_id: str = "", **options: Any) -> Any:
        """Ask; what is started is an attempt named after the request."""
        fields = {"batch": B, "content": "", "owner": self.ledger.store.owner, **options}
        attempt_id = attempt_id or f"a-{request_id}"
        item = Ask(request_id=request_id, attempt_id=attempt_id, at=self.at(), **fields)
        return await self.commit(ask, item)

    async def start(self, *request_ids: str, **options: Any) -> None:
        """Ask, and see that an attempt is started for each."""
        for name in request_ids:
            assert await self.ask(name, **options) == Claimed(f"a-{name}")

    async def confirm(self, request_id: str, code: str, attempt_id: str = "") -> Any:
        item = Confirm(
            batch=B,
            request_id=request_id,
            attempt_id=attempt_id or f"a-{request_id}",
            code=code,
            qr_url=f"https://qr.invalid/{code}",
            at=self.at(),
        )
        return await self.commit(confirm, item)

    async def end(self, name: str, state: AttemptState, failure: str | None = None) -> None:
        item = End(batch=B, attempt_id=f"a-{name}", state=state, at=self.at(), failure=failure)
        await self.commit(end, item)

    async def lose(self, *names: str) -> None:
        """Let the outcome of requests' attempts be unknown."""
        for name in names:
            await self.end(name, AttemptState.AMBIGUOUS)

    async def settle(self, **what: Any) -> None:
        await self.commit(settle, Settlement(batch=B, at=self.at(), **what))

    async def adopt(self, name: str, code: str) -> None:
        await self.settle(adopt=((f"a-{name}", Found(code=code, assigned_at=self.time.now)),))

    async def resolve(self, name: str, state: AttemptState, code: str | None = None) -> Any:
        found = None if code is None else Found(code=code)
        item = Resolve(batch=B, attempt_id=f"a-{name}", state=state, at=self.at(), code=found)
        return await self.commit(resolve, item)

    async def recover(self, *, own: str) -> Any:
        ids = tuple(attempt.id for attempt in await self.attempts(AttemptState.SENDING))
        item = Recover(batch=B, attempt_ids=ids, own=own, at=self.at())
        return await self.commit(recover, item)

    async def attempts(self, *states: AttemptState) -> list[Any]:
        return await self.ledger.attempts(B, states)

    async def state_of(self, name: str) -> AttemptState:
        found = await self.ledger.store.read(lambda unit: unit.load(IssueAttempt, [f"a-{name}"]))
        return found[0].state

    async def code_row(self, code: str) -> Any:
        (row,) = await self.ledger.store.read(lambda unit: unit.load(Code, [code]))
        return row

    async def who(self) -> dict[str, str]:
        """Return each request's code, or its state."""
        return {
            request.id: str(request.state) if voucher is None else voucher.code
            async for request, voucher in self.ledger.requests(B)
        }

    async def counts(self) -> dict[str, int]:
        """Return the counts that are not 0, and see that they add up."""
        counts = await self.ledger.counts(B)
        parts = (counts.assigned, counts.waiting, counts.ambiguous, counts.unresolved)
        assert counts.asked == sum(parts) + counts.failed + counts.cancelled
        assert counts == await self.ledger.counts()
        names = counts.__attrs_attrs__
        return {one.name: getattr(counts, one.name) for one in names if getattr(counts, one.name)}


def found(*codes: str) -> tuple[Found, ...]:
    return tuple(Found(code=code, qr_url=f"https://qr.invalid/{code}") for code in codes)


def code_of(result: Any) -> str:
    assert isinstance(result, IssuedVoucher), result
    return result.code


def held(
    name: str, state: RequestState = RequestState.WAITING, *, in_flight: bool = False
) -> Pending:
    return Pending(state, f"a-{name}" if name else None, in_flight)
