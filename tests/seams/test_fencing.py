"""What another process took over is sent no more.

After every wait, and before the first byte of each attempt, the database says whether the attempt
is still SENDING, and this process's. A proof that is a small part of ``settle_s`` old is good:
whoever takes over waits that long before anything is concluded.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.ledger_clients import B, FailingStore, Place, Wait, client_of, place, reported
from support.ledger_rows import runtime_at
from support.postgres import end_connections, run_sql

from rm_voucher import (
    BulkStatus,
    IssuedVoucher,
    LedgerError,
    bulk_issue,
)
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.transitions import check

THROTTLED = "TOO_MANY_REQUEST_PER_SECOND"


@pytest.fixture
def there(time) -> Place:
    return place(time)


async def throttled(there: Place, ledger: Ledger, waits: Wait) -> asyncio.Task[IssuedVoucher]:
    """Return a call that was throttled, and waits to be sent again."""
    there.emulator.fail_next("issue", THROTTLED)
    client = client_of(there.emulator, there.time, sleep=waits.sleep)
    task = asyncio.create_task(ledger.issue(client, B, "r"))
    await waits.begun.wait()
    return task


async def test_request_that_another_finished(there) -> None:
    """It has that one's code, and the call that waited is not made."""
    waits, other = Wait(), there.ledger()
    async with there.ledger() as ledger:
        task = await throttled(there, ledger, waits)
        async with other:  # takes the first for dead
            counts = await other.finish(there.client, B)
            assert counts.assigned == 1
            waits.over.set()
            voucher = await task
            assert await other.issue(there.client, B, "r") == voucher
    assert there.issued == [voucher.code]
    assert there.posts == 2  # the throttled one, and the other's


async def test_request_that_another_holds(there) -> None:
    """What another knows to be open is known to be nothing here: it is issued, once."""
    waits = Wait()
    async with there.ledger() as ledger:
        task = await throttled(there, ledger, waits)
        async with there.ledger() as other:  # recovers it, on entry
            (attempt,) = await other.attempts(B)
            assert attempt.state is AttemptState.AMBIGUOUS
            there.time.now += 5
            waits.over.set()
            voucher = await task
            counts = await other.finish(there.client, B)
    assert (counts.assigned, counts.spare) == (1, 0)
    assert there.issued == [voucher.code]


async def test_bulk_run_goes_on_with_what_was_taken_over(there) -> None:
    """Nobody fails, and nobody has two."""
    waits = Wait()
    names = [f"m{number}" for number in range(6)]
    there.emulator.fail_next("issue", THROTTLED)
    client = client_of(there.emulator, there.time, sleep=waits.sleep)
    async with (
        there.ledger() as ledger,
        bulk_issue(client, B, names, ledger=ledger, concurrency=1) as run,
    ):
        await waits.begun.wait()
        async with there.ledger() as other:
            assert await other.attempts(B)
            there.time.now += 5
            waits.over.set()
            results = [result async for result in run]
    assert {result.status for result in results} == {BulkStatus.ISSUED}
    assert len(there.issued) == len(names)


async def test_database_that_can_not_be_asked(there) -> None:
    """No answer is no proof: nothing is sent, and it is known that nothing was."""
    waits, store = Wait(), FailingStore(there.tables)
    async with there.ledger(store=store) as ledger:
        task = await throttled(there, ledger, waits)
        there.time.now += 5
        store.fails = (check,)
        waits.over.set()
        with pytest.raises(LedgerError, match="the disk is full"):
            await task
        assert there.issued == []
        assert await reported(ledger) == {"r": "waiting"}
        assert await ledger.attempts(B, [AttemptState.SENDING, AttemptState.AMBIGUOUS]) == []


@pytest.mark.parametrize("settle_s", [0.0, 300.0])
async def test_what_did_not_wait_needs_no_new_proof(there, settle_s) -> None:
    """A call that is sent as it is asked for costs no third commit, unless nothing is waited for
    before another concludes."""
    committed: list[Any] = []

    class Counting(FailingStore):
        async def commit(self, transition: Any, item: Any) -> Any:
            committed.append(transition.__name__)
            return await super().commit(transition, item)

    async with there.ledger(store=Counting(there.tables), settle_s=settle_s) as ledger:
        await ledger.issue(there.client, B, "r")
    assert committed.count("check") == (settle_s == 0)


async def test_connection_to_postgres_that_was_cut(there, postgres_ledger_url, time) -> None:
    """A's call waits, A's connections and lease end, B finishes: A's call is not made."""
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive", "settle_s": 0.0}
    waits = Wait()
    async with Ledger.open(postgres_ledger_url, **settings) as ledger:
        task = await throttled(there, ledger, waits)
        await end_connections(postgres_ledger_url)
        await run_sql(postgres_ledger_url, "UPDATE rm_ledger_leases SET until = 0")
        async with Ledger.open(postgres_ledger_url, **settings) as other:
            counts = await other.finish(there.client, B)
            assert counts.assigned == 1
            waits.over.set()
            voucher = await task
            assert (await other.counts()).spare == 0
    assert there.issued == [voucher.code]


async def test_connection_that_was_cut_and_nobody_took_over(
    there, postgres_ledger_url, time
) -> None:
    """Its attempt is its own: its lease goes on, and it sends."""
    settings: dict[str, Any] = {"runtime": runtime_at(time), "mode": "exclusive", "settle_s": 0.0}
    waits = Wait()
    async with Ledger.open(postgres_ledger_url, **settings) as ledger:
        task = await throttled(there, ledger, waits)
        await end_connections(postgres_ledger_url)
        waits.over.set()
        voucher = await task
        async with Ledger.open(postgres_ledger_url, **settings) as other:
            await other.recover(B)
            assert await other.issue(there.client, B, "r") == voucher
    assert there.posts == 2
