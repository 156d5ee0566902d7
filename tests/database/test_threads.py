"""A database's threads: what is cancelled, what the end of a loop waits for, who blocks whom."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
import time as real_time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text
from support.command import PATIENCE_S
from support.doubles import FakeTime

from rm_voucher.database.database import Database, Schema
from rm_voucher.database.engine import parse_url
from rm_voucher.exceptions import LedgerError

tables = MetaData()
things = Table("things", tables, Column("code", Text, primary_key=True))


def database(url: str, **settings: Callable[..., object]) -> Database:
    clock = real_time.monotonic
    schema = Schema("thing", tables)
    return Database(parse_url(url), schema, error=LedgerError, monotonic=clock, **settings)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'things.db'}"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Database]:
    made = database(url)
    await made.open()
    yield made
    await made.close()


def codes(connection: Connection) -> list[str]:
    return list(connection.scalars(things.select().order_by(things.c.code)))


def add(code: str) -> Callable[[Connection], None]:
    return lambda connection: connection.execute(things.insert(), {"code": code}) and None


class Held:
    """Work that adds a code, and then stands still in its thread until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, connection: Connection) -> None:
        add("held")(connection)
        self.entered.set()
        assert self.may_go_on.wait(PATIENCE_S)


async def entered(held: Held) -> None:
    assert await asyncio.to_thread(held.entered.wait, PATIENCE_S)


async def test_cancelled_write_is_finished(opened: Database) -> None:
    """Who waits for it is free at once; it is committed, and the next comes after it."""
    held = Held()
    writing = asyncio.create_task(opened.write(held))
    await entered(held)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    following = asyncio.create_task(opened.write(add("next")))
    held.may_go_on.set()
    await following
    assert await opened.read(codes) == ["held", "next"]


async def test_reading_does_not_wait_for_the_writer(opened: Database) -> None:
    """It sees what was committed before."""
    await opened.write(add("before"))
    held = Held()
    writing = asyncio.create_task(opened.write(held))
    await entered(held)
    assert await opened.read(codes) == ["before"]
    held.may_go_on.set()
    await writing


async def test_close_waits_for_what_is_going_on(opened: Database) -> None:
    """What was asked before is committed; what comes later is refused."""
    held = Held()
    writing = [asyncio.create_task(opened.write(work)) for work in (held, add("next"))]
    await entered(held)
    closings = [asyncio.create_task(opened.close()) for _ in range(2)]
    await asyncio.sleep(0)
    for refused in (opened.write(add("late")), opened.read(codes)):
        with pytest.raises(LedgerError, match=r"^The database is closed\.$"):
            await refused
    assert not any(task.done() for task in (*writing, *closings))
    held.may_go_on.set()
    await asyncio.gather(*writing, *closings)


async def test_cancelled_close_goes_on(url: str) -> None:
    """Connections and what lives with them are let go, as soon as the transaction is over."""
    let_go = threading.Event()
    made = database(url, on_close=let_go.set)
    await made.open()
    held = Held()
    writing = asyncio.create_task(made.write(held))
    await entered(held)
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not let_go.is_set()
    held.may_go_on.set()
    await writing
    assert await asyncio.to_thread(let_go.wait, PATIENCE_S)
    await made.close()


def test_end_of_a_loop_waits_for_the_transaction(url: str) -> None:
    """Tasks that `asyncio.run` cancels leave a committed transaction, and nothing open."""
    held = Held()
    let_go = threading.Event()

    async def work() -> None:
        made = database(url, on_close=let_go.set)
        try:
            await made.open()
            await made.write(held)
        finally:
            held.may_go_on.set()
            await made.close()

    async def main() -> None:
        task = asyncio.create_task(work())
        await entered(held)
        assert not task.done()

    asyncio.run(main())
    assert let_go.is_set()

    async def look() -> None:
        made = database(url)
        assert await made.read(codes) == ["held"]
        await made.close()

    asyncio.run(look())


async def test_lock_of_another_program_does_not_block_the_loop(
    sqlite_url: str, tmp_path: Path
) -> None:
    """SQLite waits for it in the writer's thread."""
    made = database(sqlite_url)
    await made.open()
    other = sqlite3.connect(tmp_path / "things.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(made.write(add("A")))
    for _ in range(3):
        assert await made.read(codes) == []
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    await writing
    assert await made.read(codes) == ["A"]
    await made.close()


async def test_fork_has_no_database(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process has none of the threads, so it is told instead of waiting for ever."""
    child = os.getpid() + 1
    for refused in (opened.write(add("A")), opened.read(codes)):
        with monkeypatch.context() as patched, pytest.raises(LedgerError, match="before a fork"):
            patched.setattr(os, "getpid", lambda: child)
            await refused
    assert await opened.read(codes) == []


async def test_never_opened_database_leaves_nothing(sqlite_url: str, tmp_path: Path) -> None:
    """No thread, no file, no warning."""
    before = threading.active_count()
    database(sqlite_url)
    gc.collect()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


async def test_postgres_lock_that_is_held_for_long_is_an_error(
    postgres_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stands still in a transaction stops the others for a while, not for ever."""
    monkeypatch.setattr("rm_voucher.database.engine._BUSY_S", 0.01)
    first = database(postgres_url)
    await first.open()
    schema = Schema("thing", tables)
    other = Database(
        parse_url(postgres_url), schema, error=LedgerError, sleep=time.sleep, monotonic=time.clock
    )
    await other.open()
    held = Held()
    writing = asyncio.create_task(first.write(held))
    await entered(held)
    with pytest.raises(LedgerError, match="canceling statement due to lock timeout"):
        await other.write(add("held"))
    assert sum(time.slept) > 20
    held.may_go_on.set()
    await writing
    await first.close()
    await other.close()
