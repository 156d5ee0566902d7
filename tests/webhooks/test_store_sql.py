"""What only a store in a database has: it stays, it is shared, its writes come in groups."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.event import listen
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import VOID, do, event, make_orders, sql_store_maker, tally, uses
from support.postgres import execute

from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import ConfigurationError, EventStoreError
from rm_voucher.webhooks import EventState, open_event_store
from rm_voucher.webhooks.records import DELIVERY_S, Disposition
from rm_voucher.webhooks.sql.schema import events, vouchers
from rm_voucher.webhooks.sql.store import SqlEventStore

CODE = "NAklEfbVdV"
DONE, RECORDED = EventState.DONE, EventState.RECORDED
READY, BUSY = Disposition.READY, Disposition.BUSY


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, time: FakeTime) -> Callable[[], SqlEventStore]:
    """Make stores on one database; the test enters them."""
    return sql_store_maker(request.param, request, time)


@pytest.fixture
async def store(make: Callable[[], SqlEventStore]) -> AsyncIterator[SqlEventStore]:
    async with make() as store:
        yield store


async def test_all_survives_closing(make, time: FakeTime) -> None:
    """Whoever opens the database goes on where the last one ended."""
    failed, newer, waiting = event("A"), event("B", VOID, at=5), event("C", amount_sen=5)
    async with make() as store:
        await do(store, newer)
        assert await store.record(event("B", at=4)) is Disposition.STALE
        for _ in range(3):  # from then on it waits for eight minutes
            await store.record(failed)
            await store.finish(failed, RECORDED)
        await store.record(waiting, lease_s=1000)
        await store.expect(["A", "D"])
        before = await store.counts()
    async with make() as store:
        assert await store.counts() == before == tally(done=1, waiting=2, stale=1, expected=2)
        assert await store.record(newer) is Disposition.DONE
        assert await store.record(event("B", at=3)) is Disposition.STALE
        assert await store.record(waiting) is BUSY
        time.now += DELIVERY_S
        assert await store.due(9) == [waiting]
        assert await store.take_missed(9, final=[VOID]) == ["D"]
        time.now += 120
        assert await store.due(9) == [waiting, failed]


@pytest.mark.parametrize("known", [False, True])
async def test_one_of_two_stores_is_ready(make, known: bool) -> None:
    """Of all who record one event at once, in two processes, those of one are told READY."""
    async with make() as one, make() as two:
        for number in range(5):
            code = "A" if known else f"A{number}"
            this = event(code, at=number)

            async def record(store: SqlEventStore, this=this) -> tuple[str, Disposition]:
                return store.owner, await store.record(this, lease_s=30)

            answers = await asyncio.gather(*(record(store) for store in [one, two] * 25))
            (ready,) = {owner for owner, answer in answers if answer is READY}
            for owner, answer in answers:
                assert answer is (READY if owner == ready else BUSY)
            await (one if one.owner == ready else two).finish(this, DONE)
            answers = await asyncio.gather(*(record(store) for store in [one, two] * 25))
            assert {answer for _, answer in answers} == {Disposition.DONE}
        assert await one.counts() == tally(done=5)


async def test_records_come_in_groups(store: SqlEventStore, monkeypatch) -> None:
    """Many at once are few transactions, and each has its own answer."""
    writes: list[object] = []
    real = store.database.write

    def write(work: Callable[[Connection], Any]) -> Any:
        writes.append(work)
        return real(work)

    monkeypatch.setattr(store.database, "write", write)
    await do(store, event("A", at=5))
    writes.clear()
    answers = await asyncio.gather(
        store.record(event("A", at=5)),
        store.record(event("A", at=4)),
        store.record(event("A", at=4)),
        *(store.record(event(f"B{number}"), lease_s=9) for number in range(200)),
        store.finish(event("A", at=6), DONE),
    )
    assert answers == [Disposition.DONE, Disposition.STALE, Disposition.DONE, *[READY] * 200, None]
    assert len(writes) <= 2
    assert await store.counts() == tally(done=1, stale=1, waiting=200)


async def test_lease_begins_when_it_is_recorded(make, time: FakeTime, monkeypatch) -> None:
    """A database that was waited for takes nothing from the time in which to handle."""
    async with make() as store, make() as other:
        write = store.database.write

        async def write_late(work: Callable[[Connection], Any]) -> Any:
            time.now += 25
            return await write(work)

        monkeypatch.setattr(store.database, "write", write_late)
        assert await store.record(event(), lease_s=30) is READY
        time.now += 29.75
        assert await other.record(event()) is BUSY
        time.now += 0.25
        assert await other.record(event()) is READY


async def test_prune_in_short_transactions(make, time: FakeTime, monkeypatch) -> None:
    """Deliveries come between the parts of what is pruned, however much it is."""
    monkeypatch.setattr("rm_voucher.webhooks.sql.store._PRUNED_AT_ONCE", 3)
    async with make() as store:
        await do(store, *(event(f"B{number}") for number in range(7)))
        time.now += 1
        write, left = store.database.write, []

        async def watch(work: Callable[[Connection], Any]) -> Any:
            result = await write(work)
            left.append((await store.counts()).done)
            return result

        monkeypatch.setattr(store.database, "write", watch)
        assert await store.prune(keep_s=0) == 7
        assert left == [4, 1, 0, 0, 0, 0]  # events, and then their vouchers
        assert await store.database.read(lambda c: c.scalars(select(vouchers.c.code)).all()) == []


async def test_bad_record_fails_alone(store: SqlEventStore) -> None:
    """Those beside it in the group are recorded."""
    bad = event("BAD", payload=object())
    answers = await asyncio.gather(
        *(store.record(one) for one in (event("A"), bad, event("B"))), return_exceptions=True
    )
    assert (answers[0], answers[2]) == (READY, READY)
    assert isinstance(answers[1], TypeError)
    assert await store.counts() == tally(waiting=2)


async def test_cancelled_record_is_recorded(store: SqlEventStore) -> None:
    """Who no longer waits for it takes nothing back."""
    task = asyncio.create_task(store.record(event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.record(event("B"))
    assert await store.counts() == tally(waiting=2)


async def test_close_records_what_waits(make) -> None:
    """Who asked before is answered, and what was asked is durable."""
    store = make()
    await store.__aenter__()
    tasks = [asyncio.create_task(store.record(event(f"A{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.aclose()
    assert await asyncio.gather(*tasks) == [READY] * 50
    async with make() as store:
        assert await store.counts() == tally(waiting=50)


async def test_body_is_forgotten(store: SqlEventStore, time: FakeTime) -> None:
    """A voucher is kept until its event is done, not longer."""
    for one in (event("A", VOID, at=1), event("B"), event("C")):
        await store.record(one)
    await store.finish(event("A", VOID, at=1), DONE)
    await store.finish(event("B"), EventState.STALE)
    assert await store.record(event("A", at=0)) is Disposition.STALE
    async with store.transaction(event("C")) as (found, _):
        assert found is READY
    await store.record(event("D"))
    kept = select(events.c.code).where(events.c.voucher.is_not(None))
    assert await store.database.read(lambda c: c.scalars(kept).all()) == ["D"]


async def test_codes_are_in_no_log(make, time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever logs all there is sees what is done, and no voucher."""
    for name in ("", "sqlalchemy.engine", "sqlalchemy.pool"):
        caplog.set_level(logging.DEBUG, name)
    async with make() as store:
        await make_orders(store)
        await store.expect([CODE])
        await do(store, event(CODE, VOID, at=5))
        for one in (event(CODE), event(CODE, at=6), event(CODE, at=7)):
            await store.record(one, lease_s=9)
        await store.finish(event(CODE, at=6), RECORDED)
        time.now += DELIVERY_S
        assert len(await store.due(9)) == 2
        await store.take_missed(9, final=[VOID])
        async with store.transaction(event(CODE, at=7)):
            pass
        await store.prune(keep_s=0)
        await store.forget([CODE])
    assert "INSERT INTO rm_webhook_events" in caplog.text
    assert CODE not in caplog.text


async def test_codes_are_in_no_error(store: SqlEventStore) -> None:
    """What the database refuses is told without what it refused."""

    def refuse(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE rm_webhook_events RENAME TO elsewhere")

    def restore(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO rm_webhook_events")

    await store.database.write(refuse)
    for work in (
        store.record(event(CODE)),
        store.finish(event(CODE), DONE),
        store.due(9),
        store.prune(keep_s=0),
        store.counts(),
        enter(store.transaction(event(CODE))),
    ):
        with pytest.raises(EventStoreError, match="The database can't be used: ") as raised:
            await work
        assert CODE not in str(raised.value)
        cause = raised.value.__cause__  # the kind of the driver's error, and nothing of it
        assert cause is None or type(cause) is UnavailableError
        assert CODE not in str(cause)
        assert raised.value.__context__ is None
    await store.database.write(restore)
    assert await store.record(event(CODE)) is READY


async def enter(block: Any) -> None:
    async with block:
        pass


async def test_store_that_was_closed(make) -> None:
    """Closing twice is no error; it is not opened again."""
    store = make()
    await enter(store)
    await store.aclose()
    with pytest.raises(EventStoreError, match=r"^The database is closed\.$"):
        await enter(store)


async def test_store_that_was_never_opened_makes_no_file(tmp_path: Path) -> None:
    """To be told that it is not open costs nothing."""
    store = SqlEventStore(f"sqlite:///{tmp_path / 'events.db'}")
    for use in uses(store):
        with pytest.raises(EventStoreError, match=r"^The store of callbacks is not open\.$"):
            await use
    await store.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_store_in_another_loop(store: SqlEventStore) -> None:
    """It says so, where it would wait for ever."""

    def record() -> None:
        with asyncio.Runner() as other, pytest.raises(RuntimeError, match="another event loop"):
            other.run(store.record(event()))

    await asyncio.wait_for(asyncio.to_thread(record), PATIENCE_S)
    assert await store.record(event()) is READY


async def test_newer_store_is_refused(tmp_path: Path) -> None:
    """One that a newer version has written is left as it is."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with open_event_store(url) as store:
        assert isinstance(store, SqlEventStore)
        await store.database.write(
            lambda c: c.exec_driver_sql("UPDATE rm_schema_versions SET version = 3") and None
        )
    with pytest.raises(EventStoreError) as raised:
        await enter(open_event_store(url))
    assert str(raised.value) == (
        "The store of callbacks was written by a newer version of rm_voucher "
        "(schema 3; this one knows 2): update rm_voucher."
    )


async def test_store_that_can_not_be_opened(tmp_path: Path) -> None:
    """It leaves neither a thread nor a connection."""
    file = tmp_path / "events.db"
    file.write_bytes(b"Dear all, the campaign begins on Monday.\n" * 100)
    with pytest.raises(EventStoreError, match="file is not a database"):
        await enter(open_event_store(f"sqlite:///{file}"))
    assert not [one for one in threading.enumerate() if one.name.startswith("rm-voucher")]
    with pytest.raises(ConfigurationError, match="The URL of a database is"):
        open_event_store("mysql://u@h/d")


async def test_lost_answer_to_a_record(store: SqlEventStore, monkeypatch) -> None:
    """A group that was committed, and is written again because nobody heard, changes nothing."""
    real = store.database.write

    async def write(work: Callable[[Connection], Any]) -> Any:
        await real(work)
        return await real(work)

    monkeypatch.setattr(store.database, "write", write)
    assert await store.record(event(at=1), lease_s=30) is READY
    await store.finish(event(at=1), DONE)
    assert await store.record(event(VOID.value, at=9)) is READY
    assert await store.counts() == tally(done=1, waiting=1)


async def test_new_file_is_its_owners(tmp_path: Path) -> None:
    """It holds codes, so nobody else may read it; one that is there keeps its mode."""
    for name, mode, expected in (("new.db", None, 0o600), ("old.db", 0o644, 0o644)):
        file = tmp_path / name
        if mode is not None:
            file.touch(mode)
            file.chmod(mode)
        async with open_event_store(f"sqlite:///{file}"):
            assert file.stat().st_mode & 0o777 == expected


async def test_file_that_can_not_be_made(tmp_path: Path) -> None:
    """The sentence names the file and the reason."""
    file = tmp_path / "missing" / "events.db"
    with pytest.raises(EventStoreError) as caught:
        async with open_event_store(f"sqlite:///{file}"):
            pass
    assert str(caught.value) == f"{file} can't be used: No such file or directory."


async def test_many_rows_that_statistics_do_not_know(postgres_url: str, time: FakeTime) -> None:
    """A transaction reads the rows that it is about, in whatever namespace: a new one would pass
    for a small one, and be read from its first row to its last."""
    rows, most = 5_000, 500
    async with open_event_store(postgres_url, runtime=time.runtime) as store:
        await store.record(event("A"))
    numbers = f"FROM generate_series(1, {rows}) AS n"
    for table in ("events", "vouchers", "expected"):
        execute(postgres_url, f"ALTER TABLE rm_webhook_{table} SET (autovacuum_enabled = false)")
    for columns in (
        "events SELECT 'm', 'id' || n, 'C' || n, 'VOID', 'done', 0, 0, 1, 0",
        "vouchers SELECT 'm', 'C' || n",
        "expected SELECT 'm', 'C' || n, 0, 4e9 + n",
    ):
        execute(postgres_url, f"INSERT INTO rm_webhook_{columns} {numbers}")
    read: list[int] = []

    def look(connection: Connection) -> None:
        driven: Any = connection.connection.driver_connection
        found = driven.execute(
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables "
            "WHERE relname LIKE 'rm_webhook_%'"
        )
        read.append(int(found.fetchone()[0]))

    async with SqlEventStore(postgres_url, namespace="m", runtime=time.runtime) as store:
        listen(store.database.engine, "commit", look)
        new = [event(f"C{n}") for n in range(40)]
        await asyncio.gather(*(store.record(each, lease_s=9) for each in new))
        await asyncio.gather(*(store.finish(each, DONE) for each in new))
        await store.expect([f"D{n}" for n in range(40)])
        time.now += DELIVERY_S
        assert len(await store.take_missed(100, final=[])) == 40
    assert len(read) >= 4
    assert max(read) < most
