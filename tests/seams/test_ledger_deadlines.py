"""A deadline covers the whole: ``total_s`` bounds what the caller of `Ledger.issue` waits for.

The database and the listing of `prepare` count too. The work goes on in the ledger's task, nothing
is sent after the deadline of its call, and who joins a call has a deadline of their own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.fault_stage import until
from support.ledger_clients import B, FailingStore, Gate, Place, client_of, place, reported

from rm_voucher import (
    ConnectError,
    ConnectTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    Timeout,
    VoucherClient,
)
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.transitions import ask, confirm
from rm_voucher.runtime import Runtime

SHORT = Timeout(connect_s=0.001, attempt_s=0.02, total_s=0.05)
LONG = Timeout(connect_s=1, attempt_s=8, total_s=9)


class FrozenStore(FailingStore):
    """Neither commits these transitions nor fails, as on a connection that is frozen."""

    frozen: object = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.thawed = asyncio.Event()
        self.met = asyncio.Event()

    async def commit(self, transition: Any, item: Any) -> Any:
        if transition is self.frozen:
            self.met.set()
            await self.thawed.wait()
        return await super().commit(transition, item)


@pytest.fixture
def there(time) -> Place:
    return place(time)


def by_real_time(there: Place, **options: Any) -> VoucherClient:
    """Return a client whose deadlines pass."""
    return client_of(there.emulator, there.time, runtime=Runtime(clock=there.time.clock), **options)


def ledger_of(there: Place, store: FailingStore | None = None) -> Ledger:
    return Ledger(
        store or FailingStore(there.tables),
        runtime=Runtime(clock=there.time.clock, sleep=there.time.sleep),
        mode="exclusive",
    )


async def test_listing_that_takes_long(there) -> None:
    """Nothing was sent, and is not sent later; the baseline goes on, and the next call is quick."""
    gate = Gate(there.emulator.transport(), "vouchers")
    client = by_real_time(there, transport=gate)
    async with ledger_of(there) as ledger:
        with pytest.raises(ConnectTimeoutError, match="ask again with the same id"):
            await ledger.issue(client, B, "r", timeout=SHORT)
        assert gate.arrived.is_set()
        gate.opened.set()
        await ledger.prepare(client, B)
        await until(lambda: ledger._issuing == {})
        assert there.posts == 0
        assert (await ledger.issue(client, B, "r", timeout=LONG)).code
        assert [one.baseline_at is None for one in await ledger.batches()] == [False]
    assert there.emulator.requests["vouchers"] == 1


@pytest.mark.parametrize("batch", [B, "none"])
async def test_listing_is_read_once_for_all_who_wait(there, batch) -> None:
    """Each has the baseline, or the one error; who is cancelled stops nobody."""
    gate = Gate(there.emulator.transport(), "vouchers")
    client = by_real_time(there, transport=gate)
    async with ledger_of(there) as ledger:
        preparing = [asyncio.create_task(ledger.prepare(client, batch)) for _ in range(3)]
        issuing = asyncio.create_task(ledger.issue(client, batch, "r"))
        await gate.arrived.wait() if batch == B else await asyncio.sleep(0)
        preparing[0].cancel()
        gate.opened.set()
        ended = await asyncio.gather(*preparing, issuing, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    if batch == B:
        assert ended[1:3] == [None, None]
        assert there.emulator.requests["vouchers"] == 1
    else:
        assert {type(error) for error in ended[1:]} == {NotFoundError}


async def test_closing_gives_up_a_listing(there) -> None:
    """Who waits for it was not cancelled, and is told that nothing was sent."""
    gate = Gate(there.emulator.transport(), "vouchers")
    client = by_real_time(there, transport=gate)
    async with ledger_of(there) as ledger:
        task = asyncio.create_task(ledger.issue(client, B, "r"))
        await gate.arrived.wait()
    with pytest.raises(ConnectError, match="the ledger was closed"):
        await task


@pytest.mark.parametrize("frozen", [ask, confirm])
async def test_database_that_is_frozen(there, frozen) -> None:
    """Before the call: not sent, and never sent. After it: unknown, with the code that came for
    it, which is kept when the database thaws."""
    store = FrozenStore(there.tables)
    client = by_real_time(there)
    async with ledger_of(there, store) as ledger:
        await ledger.prepare(client, B)
        store.frozen = frozen
        error = ConnectTimeoutError if frozen is ask else OutcomeUnknownError
        with pytest.raises(error, match="ask again with the same id") as caught:
            await ledger.issue(client, B, "r", timeout=SHORT)
        assert store.met.is_set()
        in_hand = getattr(caught.value, "voucher", None)
        assert there.issued == ([] if in_hand is None else [in_hand.code])
        assert ledger.unkept == ({} if in_hand is None else {"r": in_hand})
        assert (in_hand is not None) is (frozen is confirm)
        store.thawed.set()
        await until(lambda: ledger._issuing == {})
        assert there.posts == (frozen is confirm)
        assert await ledger.attempts(B, [AttemptState.SENDING, AttemptState.AMBIGUOUS]) == []
        assert ledger.unkept == {}
        code = (await ledger.issue(client, B, "r", timeout=LONG)).code
    assert there.issued == [code]


async def test_who_joins_has_a_deadline_of_their_own(there) -> None:
    """The shorter one passes first, and says no more than is known; the longer one has the code."""
    gate = Gate(there.emulator.transport(), "issue")
    client = by_real_time(there, transport=gate)
    async with ledger_of(there) as ledger:
        await ledger.prepare(client, B)
        first = asyncio.create_task(ledger.issue(client, B, "r", timeout=LONG))
        await gate.arrived.wait()
        with pytest.raises(OutcomeUnknownError, match="it goes on after the deadline"):
            await ledger.issue(client, B, "r", timeout=SHORT)
        gate.opened.set()
        assert (await first).code == there.issued[0]
    assert there.posts == 1


async def test_who_joins_before_anything_is_sent(there) -> None:
    """The call that they joined has more time, so it may be sent yet."""
    gate = Gate(there.emulator.transport(), "vouchers")
    client = by_real_time(there, transport=gate)
    async with ledger_of(there) as ledger:
        first = asyncio.create_task(ledger.issue(client, B, "r", timeout=LONG))
        await gate.arrived.wait()
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(client, B, "r", timeout=SHORT)
        gate.opened.set()
        assert await reported(ledger) in ({}, {"r": (await first).code})


async def test_own_timeout_of_the_caller_stays_its_own(there) -> None:
    """A `TimeoutError` of the work itself is no deadline of the caller's."""

    class Odd(FailingStore):
        async def commit(self, transition: Any, item: Any) -> Any:
            if transition is ask:
                raise TimeoutError("mine")
            return await super().commit(transition, item)

    async with ledger_of(there, Odd(there.tables)) as ledger:
        with pytest.raises(TimeoutError, match="mine"):
            await ledger.issue(by_real_time(there), B, "r", timeout=LONG)
