"""A bulk issue that a person ends without waiting: nothing that has arrived is lost."""

from __future__ import annotations

import asyncio
from typing import Any

from support.bulk_runs import Gate, arrivals, code_of
from support.cancellation import each_turn, tasks_left, turn
from support.voucher_shop import Shop, assert_sound, in_turn, issue, lost, lost_before, summed_up

from rm_voucher import BulkResult, BulkStatus, bulk_issue
from rm_voucher.bulk.run import BulkIssue
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables


async def test_end_now_waits_for_no_answer(make_client):
    """Those in flight are UNRESOLVED, nobody more is taken, and a second time changes nothing."""
    gate = Gate()
    async with bulk_issue(make_client(gate), "KEY", range(100), concurrency=4) as run:
        assert run.in_flight == 0
        await arrivals(gate, 4)
        assert run.in_flight == 4
        run.end_now()
        run.end_now()
        results = [result async for result in run]
    assert (run.in_flight, run.summary.asked, gate.issued) == (0, 4, [])
    assert {result.status for result in results} == {BulkStatus.UNRESOLVED}
    assert len(results) == 4
    assert tasks_left() == set()


async def test_end_now_drops_no_answer(make_client):
    """An answer that is there when it comes is its recipient's, at whatever turn that is."""
    for turns in each_turn():
        gate = Gate()
        async with bulk_issue(make_client(gate), "KEY", range(100), concurrency=4) as run:
            await arrivals(gate, 4)
            gate.open.set()
            await turn(turns)
            issued = list(gate.issued)  # what the server had answered by then
            run.end_now()
            results = [result async for result in run]
        codes = [code_of(result) for result in results if result.status is BulkStatus.ISSUED]
        assert {*issued} <= {*codes}
        if turns > 30:
            return


class SlowStore(MemoryLedgerStore):
    """Takes some turns before and after each commit, as a database does."""

    async def commit(self, transition, item):
        await turn(2)
        result = await super().commit(transition, item)
        await turn()
        return result


async def test_end_now_with_a_ledger_at_each_turn(credentials, time):
    """The ledger keeps each code that arrived, and another run gives each recipient one voucher:
    the same, if there was one."""
    shop = Shop(credentials, time)
    for turns in each_turn():
        shop.emulator.reset()
        shop.on_issue = in_turn(None, lost, None, lost_before)
        tables = MemoryTables()
        runs: list[BulkIssue[Any]] = []
        seen: list[BulkResult[Any]] = []

        async def campaign(tables=tables, runs=runs, seen=seen):
            async with Ledger(SlowStore(tables), mode="exclusive", **shop.settings) as ledger:
                run = bulk_issue(shop.client(), "B", range(8), ledger=ledger, concurrency=2)
                async with run:
                    runs.append(run)
                    async for result in run:
                        seen.append(result)

        task = asyncio.create_task(campaign())
        await turn(turns)
        has_ended = task.done()
        for run in runs:
            run.end_now()
        await task
        assert tasks_left() == set()
        first = [summed_up(run, seen + run.undelivered) for run in runs]
        async with Ledger(SlowStore(tables), mode="exclusive", **shop.settings) as ledger:
            last = await issue(shop, ledger, range(8), concurrency=2)
            assert last.summary.issued == 8
            await assert_sound(shop, ledger, last.codes)
        assert all(ran.codes.items() <= last.codes.items() for ran in first)
        if has_ended:
            assert turns > 50
            return
