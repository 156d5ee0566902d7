"""Events, and stores of events on a clock that no test waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text
from support.command import PATIENCE_S
from support.doubles import FakeTime

from rm_voucher.models import Voucher, VoucherStatus
from rm_voucher.webhooks import (
    EventCounts,
    EventState,
    EventStore,
    MemoryEventStore,
    VoucherEvent,
)
from rm_voucher.webhooks.records import Disposition
from rm_voucher.webhooks.sql.store import SqlEventStore

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
ISSUED, REDEEMED, VOID = VoucherStatus.ISSUED, VoucherStatus.REDEEMED, VoucherStatus.VOID


class Held:
    """A step that does its work, and then stands still in its thread until it may go on."""

    def __init__(self, work: Callable[[Connection], Any] = lambda _: None) -> None:
        self.work = work
        self._entered = threading.Event()
        self._may_go_on = threading.Event()

    def __call__(self, connection: Connection, *_: object) -> Any:
        done = self.work(connection)
        self._entered.set()
        assert self._may_go_on.wait(PATIENCE_S)
        return done

    def go_on(self) -> None:
        self._may_go_on.set()

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, PATIENCE_S)


_tables = MetaData()
orders = Table("orders", _tables, Column("code", Text, primary_key=True))
"""A table of the application's, in the database of its store."""


def event(
    code: str = "A", status: VoucherStatus | str = ISSUED, at: float | None = 0.0, **fields: Any
) -> VoucherEvent:
    """Return an event whose voucher changed ``at`` seconds after the start, None if unknown."""
    changed = None if at is None else START + timedelta(seconds=at)
    status = VoucherStatus(status)
    return VoucherEvent.of(Voucher(code=code, status=status, updated_at=changed, **fields))


def store_maker(
    kind: str, request: pytest.FixtureRequest, time: FakeTime
) -> Callable[[], EventStore]:
    """Return what makes stores on one database; in memory it makes one, which has no others."""
    if kind == "memory":
        return lambda: MemoryEventStore(runtime=time.runtime)
    return sql_store_maker(kind, request, time)


def sql_store_maker(
    kind: str, request: pytest.FixtureRequest, time: FakeTime
) -> Callable[[], SqlEventStore]:
    """Return what makes stores on one database."""
    url = database_url(kind, request)
    return lambda: SqlEventStore(url, runtime=time.runtime)


def database_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'events.db'}"
    return str(request.getfixturevalue("postgres_events_url"))


async def do(store: EventStore, *events: VoucherEvent) -> None:
    """Record events and let their handlers succeed."""
    for one in events:
        assert await store.record(one) is Disposition.READY
        await store.finish(one, EventState.DONE)


def tally(done: int = 0, waiting: int = 0, stale: int = 0, expected: int = 0) -> EventCounts:
    """Return what `EventStore.counts` is to be."""
    return EventCounts(done=done, waiting=waiting, stale=stale, expected=expected)


def uses(store: EventStore) -> list[Awaitable[Any]]:
    """Return a call of each method that asks for an open store."""

    async def enter_transaction() -> None:
        async with store.transaction(event()):
            pass

    calls: list[Awaitable[Any]] = [
        store.record(event()),
        store.finish(event(), EventState.DONE),
        store.due(9),
        store.expect(["A"]),
        store.forget(["A"]),
        store.take_missed(9, final=[]),
        store.prune(keep_s=0),
        store.counts(),
        store.claim("mine"),
    ]
    return [*calls, enter_transaction()] if store.has_transactions else calls


async def make_orders(store: SqlEventStore) -> None:
    """Make the application's table."""
    await store.database.write(_tables.create_all)


async def ordered(store: SqlEventStore) -> list[str]:
    """Return the codes in the application's table."""

    def work(connection: Connection) -> list[str]:
        return list(connection.scalars(orders.select().order_by(orders.c.code)))

    return await store.database.read(work)
