"""A bulk issue through a ledger, cancelled wherever it waits, and run again."""

from __future__ import annotations

import asyncio
from typing import Any

from support.cancellation import each_turn, is_cancelled_after, tasks_left, turn
from support.voucher_shop import Shop, assert_sound, in_turn, issue, lost, lost_before, summed_up

from rm_voucher import BulkResult, FlowPolicy, bulk_issue
from rm_voucher.bulk.run import BulkIssue
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables


class SlowStore(MemoryLedgerStore):
    """Takes some turns before and after each commit, as a database does."""

    async def commit(self, transition, item):
        await turn(2)
        result = await super().commit(transition, item)
        await turn()
        return result


async def test_bulk_ledger_cancelled_at_each_await(credentials, time):
    """Cancelled at whatever await, the run has a result for each that it took, and another run
    gives to each one voucher: the same, if there was one."""
    shop = Shop(credentials, time)
    for turns in each_turn():
        shop.emulator.reset()
        shop.on_issue = in_turn(None, lost, None, lost_before, lost)
        tables = MemoryTables()
        runs: list[tuple[BulkIssue[Any], list[BulkResult[Any]]]] = []

        async def campaign(tables=tables, runs=runs):
            async with Ledger(SlowStore(tables), mode="exclusive", **shop.settings) as ledger:
                run = bulk_issue(shop.client(), "B", range(7), ledger=ledger, concurrency=2)
                runs.append((run, []))
                async with run:
                    async for result in run:
                        runs[0][1].append(result)

        was_cancelled = await is_cancelled_after(turns, campaign())
        assert tasks_left() == set()
        first = [summed_up(run, seen + run.undelivered) for run, seen in runs]
        async with Ledger(SlowStore(tables), mode="exclusive", **shop.settings) as ledger:
            last = await issue(shop, ledger, range(7), concurrency=2)
            assert last.summary.issued == 7
            await assert_sound(shop, ledger, last.codes)
        assert all(ran.codes.items() <= last.codes.items() for ran in first)
        if not was_cancelled:
            assert turns > 50
            return


async def test_bulk_ledger_left_while_a_listing_is_read(credentials, time):
    """A listing that is read beside the calls does not hold up the end, and all is closed."""
    shop = Shop(credentials, time)
    shop.on_issue = in_turn(*[lost] * 60)
    listing = asyncio.Event()

    async def never(read):
        listing.set()
        await asyncio.Event().wait()

    async with (
        shop.client(flow=FlowPolicy(failure_threshold=100)) as client,  # which would pause at 20
        Ledger.in_memory(mode="exclusive", **shop.settings) as ledger,
    ):
        await ledger.prepare(client, "B")
        shop.on_listing = never
        async with bulk_issue(client, "B", range(500), ledger=ledger, concurrency=2) as run:
            async for _ in run:
                if listing.is_set():
                    break
    assert run.summary.unresolved > 50
    assert tasks_left() == set()


async def test_ledger_closed_by_a_cancelled_task(credentials, time):
    """A cancellation while the ledger waits for its calls still closes its storage."""
    shop, closed, issuing = Shop(credentials, time), [], []
    answer = asyncio.Event()

    async def slowly(issue):
        await answer.wait()
        return issue()

    class ClosingStore(MemoryLedgerStore):
        async def close(self):
            closed.append(self)

    async def use(client):
        async with Ledger(ClosingStore(), mode="exclusive", **shop.settings) as ledger:
            issuing.append(asyncio.ensure_future(ledger.issue(client, "B", "a")))
            while not shop.posts:
                await turn()

    shop.on_issue = slowly
    async with shop.client() as client:
        task = asyncio.create_task(use(client))
        while not shop.posts:
            await turn()
        await turn(5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(closed) == 1
        answer.set()
        await asyncio.wait(issuing)
    assert tasks_left() == set()
