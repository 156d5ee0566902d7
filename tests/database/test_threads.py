"""A database's threads: what is cancelled, what the end of a loop waits for, who blocks whom."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import Held
from support.scratch_database import add, codes, database

from rm_voucher.database.database import Database
from rm_voucher.exceptions import LedgerError


async def test_cancelled_write_is_finished(opened: Database) -> None:
    """Who waits for it is free at once; it is committed, and the next comes after it."""
    held = Held(add("held"))
    writing = asyncio.create_task(opened.write(held))
    await held.entered()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    following = asyncio.create_task(opened.write(add("next")))
    held.go_on()
    await following
    assert await opened.read(codes) == ["held", "next"]


async def test_reading_does_not_wait_for_the_writer(opened: Database) -> None:
    """It sees what was committed before."""
    await opened.write(add("before"))
    held = Held(add("held"))
    writing = asyncio.create_task(opened.write(held))
    await held.entered()
    assert await opened.read(codes) == ["before"]
    held.go_on()
    await writing


async def test_close_waits_for_what_is_going_on(opened: Database) -> None:
    """What was asked before is committed; what comes later is refused."""
    held = Held(add("held"))
    writing = [asyncio.create_task(opened.write(work)) for work in (held, add("next"))]
    await held.entered()
    closings = [asyncio.create_task(opened.close()) for _ in range(2)]
    await asyncio.sleep(0)
    for refused in (opened.write(add("late")), opened.read(codes)):
        with pytest.raises(LedgerError, match=r"^The database is closed\.$"):
            await refused
    assert not any(task.done() for task in (*writing, *closings))
    held.go_on()
    await asyncio.gather(*writing, *closings)


async def test_cancelled_close_goes_on(url: str) -> None:
    """Connections and what lives with them are let go, as soon as the transaction is over."""
    let_go = threading.Event()
    made = database(url, on_close=let_go.set)
    await made.open()
    held = Held(add("held"))
    writing = asyncio.create_task(made.write(held))
    await held.entered()
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not let_go.is_set()
    held.go_on()
    await writing
    assert await asyncio.to_thread(let_go.wait, PATIENCE_S)
    await made.close()


def test_end_of_a_loop_waits_for_the_transaction(url: str) -> None:
    """Tasks that `asyncio.run` cancels leave a committed transaction, and nothing open."""
    held = Held(add("held"))
    let_go = threading.Event()

    async def work() -> None:
        made = database(url, on_close=let_go.set)
        try:
            await made.open()
            await made.write(held)
        finally:
            held.go_on()
            await made.close()

    async def main() -> None:
        task = asyncio.create_task(work())
        await held.entered()
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
    # However long the others take on a busy machine, the server does not end it meanwhile.
    monkeypatch.setattr("rm_voucher.database.connections._IDLE_S", PATIENCE_S)
    first = database(postgres_url)
    await first.open()
    other = database(postgres_url, time)
    await other.open()
    await other.write(lambda connection: connection.exec_driver_sql("SET lock_timeout = '10ms'"))
    held = Held(add("held"))
    writing = asyncio.create_task(first.write(held))
    await held.entered()
    with pytest.raises(LedgerError, match="canceling statement due to lock timeout"):
        await other.write(add("held"))
    assert sum(time.slept) > 20
    held.go_on()
    await writing
    await first.close()
    await other.close()
