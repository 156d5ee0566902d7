"""Two processes that record, handle and prune the same vouchers, all at once."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from random import Random

import pytest
from sqlalchemy import insert
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import database_url, event, make_orders, ordered, orders
from support.postgres import run_sql

from rm_voucher.models import VoucherStatus
from rm_voucher.webhooks import EventState, VoucherEvent
from rm_voucher.webhooks.records import Disposition, microseconds
from rm_voucher.webhooks.sql.schema import vouchers
from rm_voucher.webhooks.sql.store import SqlEventStore

STATUSES = list(VoucherStatus)
WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


class Referee:
    """Sees who holds which voucher, and what is done; knows no store."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}
        self.newest: dict[str, int] = defaultdict(int)
        self.done: list[str] = []
        self.answers: set[Disposition] = set()

    def begin(self, one: VoucherEvent, owner: str) -> None:
        assert one.code not in self.holders, "two hold one voucher"
        self.holders[one.code] = owner

    def end(self, one: VoucherEvent) -> None:
        del self.holders[one.code]

    def is_done(self, one: VoucherEvent) -> None:
        self.done.append(one.id)
        at = microseconds(one.updated_at) or 0
        self.newest[one.code] = max(self.newest[one.code], at)


class Process:
    """Handles events as a router does: those of a voucher one after the other."""

    def __init__(self, store: SqlEventStore, referee: Referee, random: Random) -> None:
        self.store = store
        self.referee = referee
        self.random = random
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def take(self, one: VoucherEvent) -> None:
        async with self.turns[one.code]:
            newest = self.referee.newest[one.code]
            in_transaction = self.random.random() < 0.4
            found = await self.store.record(one, lease_s=None if in_transaction else 30)
            self.referee.answers.add(found)
            at = microseconds(one.updated_at) or 0
            assert (found, at >= newest) != (Disposition.READY, False), "the newest was lost"
            if found is not Disposition.READY:
                return
            await (self.transact(one) if in_transaction else self.handle(one))

    async def handle(self, one: VoucherEvent) -> None:
        self.referee.begin(one, self.store.owner)
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        fails = self.random.random() < 0.3
        if not fails:
            self.referee.is_done(one)
        self.referee.end(one)
        await self.store.finish(one, EventState.RECORDED if fails else EventState.DONE)

    async def transact(self, one: VoucherEvent) -> None:
        fails = self.random.random() < 0.3
        try:
            async with self.store.transaction(one) as (found, transaction):
                self.referee.answers.add(found)
                if found is not Disposition.READY:
                    return
                self.referee.begin(one, self.store.owner)
                try:
                    await transaction.execute(insert(orders), {"code": one.id})
                    if fails:
                        raise LookupError
                    self.referee.is_done(one)
                finally:
                    self.referee.end(one)
        except LookupError:
            await self.store.finish(one, EventState.RECORDED)


@pytest.mark.parametrize(("kind", "events"), [("sqlite", 150), ("postgresql", 600)])
async def test_two_processes_at_once(
    kind: str,
    events: int,
    request: pytest.FixtureRequest,
    time: FakeTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No two hold one voucher, none acts twice, no newest is lost, and none waits in a circle."""
    caplog.set_level(logging.WARNING)
    url = database_url(kind, request)
    random = Random(7)
    referee = Referee()
    deliveries = [
        event(code, random.choice(STATUSES), at=random.randrange(6))
        for code in random.choices("ABCDEFGH", k=events)
    ]
    async with (
        SqlEventStore(url, runtime=time.runtime) as one,
        SqlEventStore(url, runtime=time.runtime) as two,
    ):
        await make_orders(one)
        processes = [Process(store, referee, random) for store in (one, two)]

        async def tend(store: SqlEventStore) -> None:
            for number in range(20):
                await store.prune(keep_s=3600)
                await store.expect([f"{number % 4}", f"{number % 3}"])
                await store.take_missed(9, final=[])
                await store.forget([f"{number % 3}", f"{number % 2}"])

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for store in (one, two):
                group.create_task(tend(store))
            for delivery in deliveries:
                group.create_task(random.choice(processes).take(delivery))
        assert len(referee.done) == len(set(referee.done))
        assert set(await ordered(one)) <= set(referee.done)
        assert (await one.counts()).done == len(referee.done)
    assert set(Disposition) - referee.answers <= {Disposition.BUSY}  # which chance may avoid
    if kind == "postgresql":  # in SQLite who waits may be told to try again
        assert [record.getMessage() for record in caplog.records] == []


async def test_new_vouchers_in_opposite_orders(
    request: pytest.FixtureRequest, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """Two groups of the same new vouchers, asked the other way round, do not wait in a circle."""
    caplog.set_level(logging.WARNING)
    url = database_url("postgresql", request)
    new = [event(f"{number}") for number in range(9)]
    async with (
        SqlEventStore(url, runtime=time.runtime) as one,
        SqlEventStore(url, runtime=time.runtime) as two,
    ):
        adds = insert(vouchers).values(code="4")
        with pytest.raises(LookupError):
            async with one.database.transaction(lambda c: c.execute(adds) and None):
                recording = asyncio.gather(
                    *(one.record(each, lease_s=9) for each in new),
                    *(two.record(each, lease_s=9) for each in reversed(new)),
                )
                # Each has added what it could, and waits.
                while await run_sql(url, WAITING) != [(2,)]:
                    await asyncio.sleep(0)
                raise LookupError
        answers = await recording
        assert answers.count(Disposition.READY) == answers.count(Disposition.BUSY) == 9
    assert [record.getMessage() for record in caplog.records] == []
