"""A transaction of several steps that does not come to its end, or not to its beginning."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator

import attrs
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import Held
from support.postgres import end_connections
from support.scratch_database import add, codes, database, in_use, opening, pool_of, read, settle

from rm_voucher.database import engine as sql_engine
from rm_voucher.database.database import Database
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import LedgerError

CODE = "NAklEfbVdV"


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    async for made in opening(sqlite_url):
        yield made


async def test_step_that_is_cancelled_ends_first(opened: Database) -> None:
    """Who waits for it is free at once; its transaction is taken back when it is over."""
    held = Held(add("held"))

    async def work() -> None:
        async with opened.transaction(add("A")) as (made, _):
            await made.run(held)

    task = asyncio.create_task(work())
    await held.entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    following = asyncio.create_task(opened.write(add("next")))
    held.go_on()
    await following
    async with opened.transaction(add("A")):
        pass
    assert await read(opened) == ["A", "next"]


async def test_step_that_hangs_holds_up_no_other(on_postgres: Database) -> None:
    """Its transaction was given up; the next begin in threads that are free."""
    held = Held()

    async def work() -> None:
        async with on_postgres.transaction(lambda _: None) as (made, _):
            await made.run(held)

    task = asyncio.create_task(work())
    await held.entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    try:
        async with asyncio.timeout(PATIENCE_S):
            for code in ("A", "B"):
                async with on_postgres.transaction(add(code)):
                    pass
    finally:
        held.go_on()
    assert await read(on_postgres) == ["A", "B"]
    async with contextlib.AsyncExitStack() as stack:  # its thread comes back
        for _ in range(8):
            await stack.enter_async_context(on_postgres.transaction(lambda _: None))


@pytest.mark.parametrize("where", ["first", "last"])
async def test_cancelled_beginning_and_end(opened: Database, where: str) -> None:
    """What was to begin is taken back; what was to be committed is, though nobody hears."""
    held = Held(add(where))
    steps = (held, add("last")) if where == "first" else (add("first"), held)

    async def work() -> None:
        async with opened.transaction(*steps):
            pass

    task = asyncio.create_task(work())
    await held.entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.go_on()
    async with opened.transaction(lambda _: None):
        pass
    while in_use(opened):  # where others have threads of their own
        await asyncio.sleep(0)
    assert await read(opened) == ([] if where == "first" else ["first", "last"])


async def test_cancelled_block_between_steps(opened: Database) -> None:
    """As at a time-out: nothing of it is kept."""
    standing = asyncio.Event()

    async def work() -> None:
        async with opened.transaction(add("A")):
            standing.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await standing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await opened.write(add("A"))
    assert await read(opened) == ["A"]


async def test_cancelled_while_it_waits_for_its_turn(opened: Database) -> None:
    """Whoever gave up the queue leaves the place to others."""
    most = 1 if opened.is_sqlite else 8
    enough = asyncio.Event()
    entered: list[int] = []

    async def work(number: int) -> None:
        async with opened.transaction(lambda _: None):
            entered.append(number)
            await enough.wait()

    tasks = [asyncio.create_task(work(number)) for number in range(most + 2)]
    while len(entered) < most:
        await asyncio.sleep(0)
    tasks[most].cancel()
    await settle()
    enough.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(entered) == [number for number in range(most + 2) if number != most]


async def test_beginning_waits_for_a_locked_file(
    sqlite_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the patience of a writer: until the file is free, or time is over."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    async for made in opening(sqlite_url, time, patience_s=1):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="database is locked") as raised:
            async with made.transaction(add("A")):
                pytest.fail("it began")
        assert isinstance(raised.value.__cause__, UnavailableError)
        assert time.slept == [0.05, 0.1, 0.2, 0.4]
        assert in_use(made) == 0

        async def sleep_until_free(seconds: float) -> None:
            other.execute("ROLLBACK")

        made.runtime = attrs.evolve(made.runtime, sleep=sleep_until_free)
        async with made.transaction(add("A")):
            pass
        assert await read(made) == ["A"]
    other.close()


async def test_beginning_on_a_lost_connection(postgres_url: str, time: FakeTime) -> None:
    """It is replaced by another, and the first step run there."""
    async for made in opening(postgres_url, time):
        async with made.transaction(add("A")):
            pass
        await end_connections(postgres_url)
        async with made.transaction(add("B")) as (transaction, _):
            await transaction.run(add("C"))
        assert time.slept == [0.05]
        assert await read(made) == ["A", "B", "C"]


async def test_beginning_that_collides_is_tried_once_more(opened: Database) -> None:
    """Whoever looked before another added sees it then."""
    await opened.write(add("A"))
    tries: list[int] = []

    def add_if_missing(connection: Connection) -> str:
        tries.append(1)
        if len(tries) == 1:
            add("A")(connection)
        return "found"

    async with opened.transaction(add_if_missing) as (_, found):
        assert (found, len(tries)) == ("found", 2)


async def test_connection_that_is_lost_in_the_block(
    on_postgres: Database, postgres_url: str
) -> None:
    """The step says so, all is taken back, and the next transaction has another connection."""
    with pytest.raises(OperationalError):
        async with on_postgres.transaction(add("A")) as (made, _):
            await end_connections(postgres_url)
            await made.run(codes)
    async with on_postgres.transaction(add("B")):
        pass
    assert await read(on_postgres) == ["B"]


async def test_block_that_fails_after_its_connection_was_lost(
    on_postgres: Database, postgres_url: str
) -> None:
    """Its own error comes through, and the connection is not used again."""
    with pytest.raises(LookupError):
        async with on_postgres.transaction(add("A")):
            await end_connections(postgres_url)
            raise LookupError
    assert in_use(on_postgres) == 0
    async with on_postgres.transaction(add("B")):
        pass
    assert await read(on_postgres) == ["B"]


@pytest.mark.parametrize("swallows", [False, True])
async def test_connection_that_is_lost_before_the_end(
    on_postgres: Database, postgres_url: str, swallows: bool
) -> None:
    """It is our error, also for a block that had heard of it and went on."""
    with pytest.raises(LedgerError, match="The database can't be used: ") as raised:
        async with on_postgres.transaction(add("A"), add("B")) as (made, _):
            await end_connections(postgres_url)
            if swallows:
                with pytest.raises(SQLAlchemyError):
                    await made.run(codes)
    assert raised.value.__context__ is None
    async with on_postgres.transaction(add("C")):
        pass
    assert await read(on_postgres) == ["C"]


async def test_failed_commit_keeps_nothing(on_postgres: Database) -> None:
    """What the database finds out at the end only is our error, too."""

    def defer(connection: Connection) -> None:
        connection.exec_driver_sql(
            "ALTER TABLE things ADD CONSTRAINT own FOREIGN KEY (code) REFERENCES things (code) "
            "DEFERRABLE INITIALLY DEFERRED"
        )
        connection.exec_driver_sql(
            "ALTER TABLE things ADD COLUMN other TEXT REFERENCES things "
            "(code) DEFERRABLE INITIALLY DEFERRED"
        )

    await on_postgres.write(defer)
    with pytest.raises(LedgerError, match="violates foreign key"):
        async with on_postgres.transaction(
            lambda c: c.exec_driver_sql(f"INSERT INTO things VALUES ('A', '{CODE}')") and None
        ):
            pass
    assert await read(on_postgres) == []
    assert in_use(on_postgres) == 0


async def test_close_takes_an_open_transaction_back(opened: Database) -> None:
    """Its next step is told, and its end too; whoever waits for a turn is told as well."""
    most = 1 if opened.is_sqlite else 8
    closed = asyncio.Event()
    entered: list[int] = []

    async def work(number: int) -> None:
        async with opened.transaction(add(str(number))) as (made, _):
            entered.append(number)
            await closed.wait()
            if number:
                await made.run(codes)

    tasks = [asyncio.create_task(work(number)) for number in range(most + 1)]
    while len(entered) < most:
        await asyncio.sleep(0)
    pool = pool_of(opened)
    await opened.close()
    assert pool.checkedout() == 0
    closed.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in ended] == ["The database is closed."] * len(tasks)
    assert {type(error) for error in ended} == {LedgerError}


async def test_close_waits_for_a_step(opened: Database) -> None:
    """What is going on in a thread ends; then it is taken back."""
    held = Held(add("held"))

    async def work() -> None:
        async with opened.transaction(add("A")) as (made, _):
            await made.run(held)

    task = asyncio.create_task(work())
    await held.entered()
    closing = asyncio.create_task(opened.close())
    while not opened.connections.transacting[-1]._shutdown:
        await asyncio.sleep(0)
    assert not closing.done()
    held.go_on()
    await closing
    with pytest.raises(LedgerError, match=r"^The database is closed\.$"):
        await task


async def test_block_that_fails_while_the_database_closes(on_postgres: Database) -> None:
    """Its own thread has ended, others have not: its connection is closed all the same."""
    held = Held()
    may_fail = asyncio.Event()
    entered = asyncio.Event()

    async def stand() -> None:
        async with on_postgres.transaction(add("A")) as (made, _):
            await made.run(held)

    async def fail() -> None:
        async with on_postgres.transaction(add("B")):
            entered.set()
            await may_fail.wait()
            raise LookupError

    standing = asyncio.create_task(stand())
    await held.entered()
    failing = asyncio.create_task(fail())
    await entered.wait()
    pool = pool_of(on_postgres)
    closing = asyncio.create_task(on_postgres.close())
    while not all(thread._shutdown for thread in on_postgres.connections.transacting):
        await asyncio.sleep(0)
    may_fail.set()
    with pytest.raises(LookupError):
        await failing
    held.go_on()
    await closing
    with pytest.raises(LedgerError):
        await standing
    assert pool.checkedout() == 0


async def test_transaction_before_and_after(url: str) -> None:
    """One that was closed begins nothing; a fork neither."""
    made = database(url)
    await made.open()
    child = os.getpid() + 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "getpid", lambda: child)
        with pytest.raises(LedgerError, match="before a fork"):
            async with made.transaction(add("A")):
                pytest.fail("it began")
    await made.close()
    with pytest.raises(LedgerError, match=r"^The database is closed\.$"):
        async with made.transaction(add("A")):
            pytest.fail("it began")
