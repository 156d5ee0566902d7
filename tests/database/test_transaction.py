"""A transaction of several steps: what it writes, how it ends, what is beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import Held
from support.scratch_database import add, codes, in_use, opening, read, settle, things

from rm_voucher.database import Transaction
from rm_voucher.database import engine as sql_engine
from rm_voucher.database.database import Database
from rm_voucher.exceptions import LedgerError

CODE = "NAklEfbVdV"


@pytest.fixture
async def on_sqlite(
    sqlite_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """One whose connections never have to fight for the file."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    async for made in opening(sqlite_url, time):
        yield made
    assert time.slept == []


async def test_transaction_commits_at_its_end(opened: Database) -> None:
    """The first step, those of the block and the last are seen by others together."""
    last: list[object] = []

    def finish(connection: Connection, found: object) -> None:
        last.append(found)
        add("D")(connection)

    async with opened.transaction(lambda c: add("A")(c) or "found", finish) as (made, found):
        assert found == "found"
        await made.run(add("B"))
        await made.execute(insert(things), {"code": "C"})
        assert await made.run(codes) == ["A", "B", "C"]
        assert await read(opened) == []
        assert last == []
    assert last == ["found"]
    assert await read(opened) == ["A", "B", "C", "D"]
    assert in_use(opened) == 0


async def test_execute_returns_rows(opened: Database) -> None:
    """All there are; none for what returns none; parameters may be many."""
    async with opened.transaction(add("A")) as (made, _):
        assert await made.execute(insert(things), [{"code": "B"}, {"code": "C"}]) == ()
        rows = await made.execute(select(things).order_by(things.c.code))
        assert [row.code for row in rows] == ["A", "B", "C"]
        found = await made.execute(text("SELECT code FROM things WHERE code = :of"), {"of": "B"})
        assert found[0].code == "B"


@pytest.mark.parametrize("error", [LookupError("mine"), RuntimeError("mine"), LedgerError("mine")])
async def test_error_of_the_block_takes_all_back(opened: Database, error: Exception) -> None:
    """It comes through as it is; when it is raised, nothing is locked any more."""
    with pytest.raises(type(error)) as raised:
        async with opened.transaction(add("A")) as (made, _):
            await made.run(add("B"))
            raise error
    assert raised.value is error
    assert in_use(opened) == 0
    assert await read(opened) == []
    async with opened.transaction(add("A")):
        pass
    assert await read(opened) == ["A"]


@pytest.mark.parametrize("error", [LookupError("mine"), RuntimeError("mine")])
@pytest.mark.parametrize("where", ["first", "step", "last"])
async def test_error_of_a_step_takes_all_back(
    opened: Database, error: Exception, where: str
) -> None:
    """Whichever step fails: its own error, unchanged, and nothing is kept."""

    def fail(connection: Connection, *_: object) -> None:
        add(CODE)(connection)
        raise error

    begin, step, end = (fail if where == name else add(name) for name in ("first", "step", "last"))
    with pytest.raises(type(error)) as raised:
        async with opened.transaction(begin, end) as (made, _):
            await made.run(step)
    assert raised.value is error
    assert in_use(opened) == 0
    assert await read(opened) == []


async def test_refused_row_is_sqlalchemys_error(opened: Database) -> None:
    """In the block, where the application knows its own rows; what was written is taken back."""
    await opened.write(add("A"))
    with pytest.raises(IntegrityError):
        async with opened.transaction(add("B")) as (made, _):
            await made.run(add("A"))
    assert await read(opened) == ["A"]


async def test_refused_row_of_the_last_step_is_our_error(opened: Database) -> None:
    """Without a code in it, or in what hangs on it."""
    await opened.write(add(CODE))
    with pytest.raises(LedgerError, match="The database can't be used: ") as raised:
        async with opened.transaction(add("B"), add(CODE)):
            pass
    assert CODE not in str(raised.value)
    assert raised.value.__context__ is None
    assert await read(opened) == [CODE]


async def test_savepoint_of_the_block(opened: Database) -> None:
    """A step may be tried within the transaction, which goes on after it was refused."""
    await opened.write(add("A"))

    def try_to_add(connection: Connection) -> bool:
        try:
            with connection.begin_nested():
                add("A")(connection)
        except IntegrityError:
            return False
        return True

    async with opened.transaction(add("B")) as (made, _):
        assert not await made.run(try_to_add)
        await made.run(add("C"))
    assert await read(opened) == ["A", "B", "C"]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(
    "end",
    [
        lambda c: c.commit(),
        lambda c: c.rollback(),
        lambda c: c.exec_driver_sql("COMMIT") and None,
        lambda c: c.exec_driver_sql("ROLLBACK") and None,
    ],
    ids=["commit", "rollback", "COMMIT", "ROLLBACK"],
)
async def test_block_that_ends_its_transaction(
    opened: Database, end: Callable[[Connection], None], goes_on: bool
) -> None:
    """It is told so by its next step, or at its end; what comes after is not written."""
    with pytest.raises(LedgerError, match="The transaction has ended: "):
        async with opened.transaction(add("A"), add("last")) as (made, _):
            await made.run(end)
            if goes_on:
                await made.run(add("B"))
    assert set(await read(opened)) <= {"A"}
    assert in_use(opened) == 0


async def test_step_after_the_end(opened: Database) -> None:
    """Who keeps the transaction can't write with it, whether it was committed or taken back."""
    kept: list[Transaction] = []
    async with opened.transaction(add("A")) as (made, _):
        kept.append(made)
    with pytest.raises(LookupError):
        async with opened.transaction(add("B")) as (made, _):
            kept.append(made)
            raise LookupError
    for made in kept:
        with pytest.raises(LedgerError, match="The transaction has ended: "):
            await made.run(add("C"))
    assert await read(opened) == ["A"]


async def test_transactions_at_once(opened: Database) -> None:
    """Eight in PostgreSQL, one in SQLite; the next begins when one has ended."""
    most = 1 if opened.is_sqlite else 8
    ends = [asyncio.Event() for _ in range(most + 1)]
    entered: list[int] = []

    async def work(number: int) -> None:
        async with opened.transaction(add(str(number))):
            entered.append(number)
            await ends[number].wait()

    tasks = [asyncio.create_task(work(number)) for number in range(most + 1)]
    while len(entered) < most:
        await asyncio.sleep(0)
    await settle()
    assert sorted(entered) == list(range(most))
    ends[most - 1].set()
    while len(entered) <= most:
        await asyncio.sleep(0)
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)
    assert await read(opened) == [str(number) for number in range(most + 1)]


async def test_write_waits_for_the_transaction_of_sqlite(on_sqlite: Database) -> None:
    """And comes before the next transaction, however many follow one another."""
    order: list[str] = []
    may_end = asyncio.Event()
    writes: list[asyncio.Task[None]] = []

    async def transact(name: str) -> None:
        async with on_sqlite.transaction(lambda _: None):
            order.append(name)
            await may_end.wait()
            if name == "first":
                assert not any(task.done() for task in writes)

    async def write(name: str) -> None:
        await on_sqlite.write(add(name))
        order.append(name)

    tasks = [asyncio.create_task(transact("first"))]
    while not order:
        await asyncio.sleep(0)
    writes.append(asyncio.create_task(write("write")))
    await settle()
    tasks += [asyncio.create_task(transact(name)) for name in ("second", "third")]
    await settle()
    may_end.set()
    await asyncio.gather(*tasks, *writes)
    assert order == ["first", "write", "second", "third"]


async def test_transaction_of_sqlite_waits_for_what_is_written(on_sqlite: Database) -> None:
    """It does not fight with the writer for the file."""
    held = Held(add("held"))
    writing = asyncio.create_task(on_sqlite.write(held))
    await held.entered()

    async def transact() -> list[str]:
        async with on_sqlite.transaction(codes) as (_, found):
            return found

    task = asyncio.create_task(transact())
    await settle()
    held.go_on()
    assert await task == ["held"]
    await writing


async def test_write_beside_the_transaction_of_postgresql(on_postgres: Database) -> None:
    """What others write does not wait for it."""
    async with on_postgres.transaction(add("A")):
        await on_postgres.write(add("B"))
        assert await read(on_postgres) == ["B"]
    assert await read(on_postgres) == ["A", "B"]


async def test_many_transactions_add_up(opened: Database) -> None:
    """Beside writes, some of them failing, on whatever thread they come."""

    async def transact(number: int) -> None:
        async with opened.transaction(add(f"t{number}")) as (made, _):
            await made.run(lambda c: c.scalar(select(func.count()).select_from(things)))
            if number % 3 == 0:
                raise LookupError

    async def everything() -> None:
        await asyncio.gather(
            *(transact(number) for number in range(30)),
            *(opened.write(add(f"w{number}")) for number in range(30)),
            return_exceptions=True,
        )

    await asyncio.wait_for(everything(), PATIENCE_S)
    kept = {f"t{number}" for number in range(30) if number % 3}
    assert set(await read(opened)) == kept | {f"w{number}" for number in range(30)}
    assert in_use(opened) == 0


async def test_server_that_became_a_standby(on_postgres: Database) -> None:
    """A connection that may only read is not kept: the next one may reach the new primary."""
    only_reads = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    await on_postgres.write(lambda connection: connection.exec_driver_sql(only_reads) and None)
    async with on_postgres.transaction(lambda c: c.exec_driver_sql(only_reads) and None):
        pass
    await on_postgres.write(add("A"))
    async with on_postgres.transaction(add("B")):
        pass
    assert await read(on_postgres) == ["A", "B"]
