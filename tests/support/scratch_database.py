"""A database with one table, and transactions in it; nothing of them may be left open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from sqlalchemy import Column, Connection, MetaData, QueuePool, Table, Text
from support.doubles import FakeTime

from rm_voucher.database.database import Database, Schema
from rm_voucher.database.engine import parse_url
from rm_voucher.exceptions import LedgerError
from rm_voucher.runtime import Runtime

tables = MetaData()
things = Table("things", tables, Column("code", Text, primary_key=True))


class HasRuntime(Protocol):
    """A time to live in, as `FakeTime`."""

    @property
    def runtime(self) -> Runtime: ...


def database(url: str, time: HasRuntime | None = None, **settings: Any) -> Database:
    """Return a database that is not open, by the real time if none is given."""
    runtime = Runtime() if time is None else time.runtime
    schema = Schema("thing", tables)
    return Database(parse_url(url), schema, error=LedgerError, runtime=runtime, **settings)


async def opening(
    url: str, time: FakeTime | None = None, **settings: Any
) -> AsyncIterator[Database]:
    """Give an open database, and see that nothing of it stays open."""
    made = database(url, time, **settings)
    await made.open()
    pool = pool_of(made)
    yield made
    assert made.connections.closing or not made.connections.transactions
    await made.close()
    assert pool.checkedout() == 0
    gc.collect()  # what was left open warns, and warnings are errors


def pool_of(opened: Database) -> QueuePool:
    """Return the connections of a database."""
    pool = opened.engine.pool
    assert isinstance(pool, QueuePool)
    return pool


def in_use(opened: Database) -> int:
    """Return how many connections somebody has besides the writer."""
    return pool_of(opened).checkedout() - (opened.connections.writer is not None)


def codes(connection: Connection) -> list[str]:
    return list(connection.scalars(things.select().order_by(things.c.code)))


def add(code: str) -> Callable[..., None]:
    def work(connection: Connection, *_: object) -> None:
        connection.execute(things.insert(), {"code": code})

    return work


async def read(opened: Database) -> list[str]:
    return await opened.read(codes)


async def settle() -> None:
    """Let every task come as far as it can without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)
