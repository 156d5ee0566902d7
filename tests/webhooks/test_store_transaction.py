"""A handler's transaction: what it writes and "done" are committed together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.event_stores import (
    VOID,
    Held,
    do,
    event,
    make_orders,
    ordered,
    orders,
    sql_store_maker,
    tally,
)
from support.postgres import end_connections, execute, run_sql

from rm_voucher.database import Transaction
from rm_voucher.database import engine as sql_engine
from rm_voucher.exceptions import EventStoreError
from rm_voucher.webhooks import EventState
from rm_voucher.webhooks.records import Disposition
from rm_voucher.webhooks.sql.statements import run_many
from rm_voucher.webhooks.sql.store import SqlEventStore

DONE, RECORDED = EventState.DONE, EventState.RECORDED
READY, BUSY, STALE = Disposition.READY, Disposition.BUSY, Disposition.STALE


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, time: FakeTime) -> Callable[[], SqlEventStore]:
    """Make stores on one database; the test enters them."""
    return sql_store_maker(request.param, request, time)


@pytest.fixture
async def store(make: Callable[[], SqlEventStore]) -> AsyncIterator[SqlEventStore]:
    """An open store, and a table of the application's beside it."""
    async with make() as store:
        await make_orders(store)
        yield store


@pytest.fixture
def make_postgres(request: pytest.FixtureRequest, time: FakeTime) -> Callable[[], SqlEventStore]:
    return sql_store_maker("postgresql", request, time)


@pytest.fixture
async def on_postgres(
    make_postgres: Callable[[], SqlEventStore],
) -> AsyncIterator[SqlEventStore]:
    async with make_postgres() as store:
        await make_orders(store)
        yield store


@pytest.fixture
async def on_sqlite(request: pytest.FixtureRequest, time: FakeTime) -> AsyncIterator[SqlEventStore]:
    async with sql_store_maker("sqlite", request, time)() as store:
        await make_orders(store)
        yield store


async def order(transaction: Transaction, code: str = "A") -> None:
    await transaction.execute(insert(orders), {"code": code})


async def handle(store: SqlEventStore, one=None, code: str = "A") -> Disposition:
    """Handle an event in a transaction, as a router does."""
    async with store.transaction(one or event()) as (found, transaction):
        if found is READY:
            await order(transaction, code)
    return found


async def assert_untouched(store: SqlEventStore) -> None:
    """Nothing was written, the event waits, and the next try succeeds once."""
    assert await ordered(store) == []
    assert await store.counts() == tally(waiting=1)
    assert await store.record(event()) is READY
    assert await handle(store) is READY
    assert await handle(store) is Disposition.DONE
    assert await ordered(store) == ["A"]
    assert await store.counts() == tally(done=1)


async def test_transaction_and_done_together(store: SqlEventStore, make) -> None:
    """Others see neither until the end, then both."""
    await store.record(event(at=5))
    async with make() as looking:
        async with store.transaction(event(at=5)) as (found, transaction):
            assert found is READY
            await order(transaction)
            assert await ordered(looking) == []
            assert await looking.counts() == tally(waiting=1)
        assert await ordered(looking) == ["A"]
        assert await looking.counts() == tally(done=1)
        assert await looking.record(event(at=5)) is Disposition.DONE
        assert await looking.record(event(at=4)) is STALE


async def test_transaction_of_what_is_done(store: SqlEventStore) -> None:
    """A second for the same event is told so, and changes nothing."""
    await store.record(event())
    assert [await handle(store) for _ in range(3)] == [READY, Disposition.DONE, Disposition.DONE]
    assert await ordered(store) == ["A"]


async def test_transaction_of_what_became_stale(store: SqlEventStore) -> None:
    """A newer one may have been done since it was recorded; who takes stale ones is READY."""
    stale = event(at=1)
    await store.record(stale)
    await do(store, event(at=2, status=VOID))
    assert await handle(store, stale) is STALE
    assert await store.counts() == tally(done=1, waiting=1)
    async with store.transaction(stale, takes_stale=True) as (found, _):
        assert found is READY
    assert await store.counts() == tally(done=2)
    assert await store.record(event(at=1.5)) is STALE


async def test_transaction_of_what_another_holds(store: SqlEventStore, time: FakeTime) -> None:
    """A lease keeps transactions away, too, until it runs out; one's own does not."""
    await store.record(event(), lease_s=30)
    mine, store._owner = store.owner, "other"
    assert await handle(store) is BUSY
    assert await ordered(store) == []
    store._owner = mine
    assert await handle(store) is READY
    await store.record(event("B"), lease_s=30)
    store._owner = "other"
    time.now += 30
    assert await handle(store, event("B"), "B") is READY


@pytest.mark.parametrize("known", [False, True])
async def test_transaction_of_what_was_never_recorded(store: SqlEventStore, known: bool) -> None:
    """It could not become done, and would be handled again: it is not handled at all."""
    if known:
        await store.record(event(at=9))
    assert await handle(store) is BUSY
    assert await ordered(store) == []


@pytest.mark.parametrize("error", [LookupError("mine"), RuntimeError("mine")])
async def test_block_that_fails(store: SqlEventStore, error: Exception) -> None:
    """Its error comes through as it is, and can be told to the store at once."""
    await store.record(event())
    with pytest.raises(type(error)) as raised:
        async with store.transaction(event()) as (_, transaction):
            await order(transaction)
            raise error
    assert raised.value is error
    await asyncio.wait_for(store.finish(event(), RECORDED), PATIENCE_S)
    await assert_untouched(store)


@pytest.mark.parametrize("in_step", [False, True])
async def test_block_that_is_cancelled(store: SqlEventStore, in_step: bool) -> None:
    """As at a handler's time-out, between its steps or while one is going on."""
    await store.record(event())
    held = Held()
    standing = asyncio.Event()

    async def work() -> None:
        async with store.transaction(event()) as (_, transaction):
            await order(transaction)
            standing.set()
            if in_step:
                await transaction.run(held)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await (held.entered() if in_step else standing.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.go_on()
    store.runtime = attrs.evolve(store.runtime, sleep=asyncio.sleep)
    await store.finish(event(), RECORDED)  # waits for the step, if it must
    await assert_untouched(store)


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
    store: SqlEventStore, end: Callable[[Connection], None]
) -> None:
    """What it undid itself must not be done; that it committed is its own, and is not done."""
    await store.record(event())
    with pytest.raises(EventStoreError, match="The transaction has ended: "):
        async with store.transaction(event()) as (_, transaction):
            await order(transaction)
            await transaction.run(end)
    assert await store.counts() == tally(waiting=1)
    assert await store.record(event()) is READY


async def test_block_that_swallows_an_error(on_postgres: SqlEventStore) -> None:
    """PostgreSQL then undoes all, though a commit looks like one: it is an error, and not done."""
    await on_postgres.database.write(lambda c: c.execute(insert(orders), {"code": "there"}))
    await on_postgres.record(event())
    with pytest.raises(EventStoreError, match="current transaction is aborted"):
        async with on_postgres.transaction(event()) as (_, transaction):
            await order(transaction)
            with pytest.raises(IntegrityError):
                await order(transaction, "there")
    assert await ordered(on_postgres) == ["there"]
    assert await on_postgres.counts() == tally(waiting=1)
    assert await on_postgres.record(event()) is READY


async def test_done_that_is_refused(on_sqlite: SqlEventStore) -> None:
    """Then the handler's writes are taken back as well."""
    await on_sqlite.record(event())
    await on_sqlite.database.write(
        lambda c: (
            c.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE UPDATE ON rm_webhook_events "
                "BEGIN SELECT RAISE(ABORT, 'not now'); END"
            )
            and None
        )
    )
    with pytest.raises(EventStoreError, match=r"^The database can't be used: not now\.$"):
        await handle(on_sqlite)
    await on_sqlite.database.write(lambda c: c.exec_driver_sql("DROP TRIGGER refuse") and None)
    await assert_untouched(on_sqlite)


async def test_commit_that_is_refused(on_postgres: SqlEventStore) -> None:
    """What is found out at the commit takes both back."""
    check = (
        "CREATE OR REPLACE FUNCTION refuse_order() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not now'; END $$; "
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse_order()"
    )
    await on_postgres.record(event())
    await on_postgres.database.write(lambda c: c.exec_driver_sql(check) and None)
    with pytest.raises(EventStoreError, match=r"^The database can't be used: not now\.$"):
        await handle(on_postgres)
    undo = "DROP FUNCTION refuse_order CASCADE"
    await on_postgres.database.write(lambda c: c.exec_driver_sql(undo) and None)
    await assert_untouched(on_postgres)


async def test_connection_that_is_lost(on_postgres: SqlEventStore, postgres_events_url) -> None:
    """Between the handler's writes and "done" nothing is kept."""
    await on_postgres.record(event())
    with pytest.raises(EventStoreError, match="The database can't be used: "):
        async with on_postgres.transaction(event()) as (_, transaction):
            await order(transaction)
            await end_connections(postgres_events_url)
    await assert_untouched(on_postgres)


async def test_others_do_not_wait_in_postgresql(make_postgres, on_postgres: SqlEventStore) -> None:
    """While a handler's transaction is open its voucher is BUSY at once, and others go on."""
    async with make_postgres() as other:
        await on_postgres.record(event())
        async with asyncio.timeout(PATIENCE_S), on_postgres.transaction(event()) as (found, _):
            assert found is READY
            for store in (other, on_postgres):
                newer = event(at=3, status=VOID)
                assert await store.record(event(), lease_s=30) is BUSY
                assert await store.record(newer) is BUSY
                assert await handle(store) is BUSY
                one, lone = event(f"of {store.owner}"), event(f"alone {store.owner}")
                answers = await asyncio.gather(
                    store.record(one, lease_s=30), store.record(newer), store.record(lone)
                )
                assert list(answers) == [READY, BUSY, READY]
                await store.finish(one, DONE)
                assert await handle(store, lone, lone.code) is READY
                assert await store.prune(keep_s=0) == 0
        assert await other.record(event()) is Disposition.DONE
        assert await other.record(event(at=3, status=VOID)) is READY


async def test_recording_waits_in_sqlite(on_sqlite: SqlEventStore) -> None:
    """There is one writer: other vouchers are recorded when the transaction has ended."""
    await on_sqlite.record(event())
    async with on_sqlite.transaction(event()):
        waiting = asyncio.create_task(on_sqlite.record(event("B")))
        assert await on_sqlite.counts() == tally(waiting=1)
        assert not waiting.done()
    assert await waiting is READY


async def test_another_process_waits_in_sqlite(
    request: pytest.FixtureRequest, on_sqlite: SqlEventStore, time: FakeTime, monkeypatch
) -> None:
    """It tries again until the file is free."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    async with sql_store_maker("sqlite", request, time)() as other:
        await on_sqlite.record(event())
        tried = asyncio.Event()

        async def sleep(seconds: float) -> None:
            tried.set()
            await ended.wait()

        ended = asyncio.Event()
        other.database.runtime = attrs.evolve(other.runtime, sleep=sleep)
        async with on_sqlite.transaction(event()):
            waiting = asyncio.create_task(other.record(event()))
            await tried.wait()
        ended.set()
        assert await waiting is Disposition.DONE


async def test_finish_waits_for_the_transaction_of_another(
    make_postgres, on_postgres: SqlEventStore, time: FakeTime
) -> None:
    """Alone: what else is recorded meanwhile does not wait with it."""
    async with make_postgres() as other:
        await on_postgres.record(event(), lease_s=30)
        time.now += 30
        newer = event(at=3, status=VOID)
        await other.record(newer)
        tried, ended = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            tried.set()
            await ended.wait()

        on_postgres.runtime = attrs.evolve(on_postgres.runtime, sleep=sleep)
        async with other.transaction(newer) as (found, _):
            assert found is READY
            finishing = asyncio.create_task(on_postgres.finish(event(), DONE))
            await tried.wait()
            assert await on_postgres.record(event("B"), lease_s=30) is READY
        ended.set()
        await finishing
        assert await other.counts() == tally(done=2, waiting=1)
        assert await other.record(event(at=2)) is STALE


async def test_finish_does_not_wait_for_ever(
    make_postgres, on_postgres: SqlEventStore, time: FakeTime
) -> None:
    """After half a minute it is an error; the event stays recorded, and is due later."""
    async with make_postgres() as other:
        await on_postgres.record(event())
        began = time.now
        async with other.transaction(event()):
            with pytest.raises(EventStoreError, match="Another process holds the voucher"):
                await on_postgres.finish(event(), RECORDED)
        assert 30 < time.now - began < 33
        assert await on_postgres.counts() == tally(done=1)


async def test_prune_leaves_a_voucher_that_is_locked(
    on_postgres: SqlEventStore, postgres_events_url: str, time: FakeTime
) -> None:
    """An event of it may be about to be recorded: what its voucher remembers must stay."""
    await do(on_postgres, event(at=5))
    time.now += 1
    async with on_postgres.database.transaction(
        lambda c: c.exec_driver_sql("SELECT FROM rm_webhook_vouchers FOR UPDATE") and None
    ):
        assert await on_postgres.prune(keep_s=0) == 1
    rows = "SELECT count(*) FROM rm_webhook_vouchers"
    assert await run_sql(postgres_events_url, rows) == [(1,)]
    assert await on_postgres.prune(keep_s=0) == 0
    assert await run_sql(postgres_events_url, rows) == [(0,)]


async def test_prune_looks_again_once_it_has_the_lock(
    on_postgres: SqlEventStore, postgres_events_url: str, time: FakeTime, monkeypatch
) -> None:
    """An event that came since keeps its voucher, and with it what is newest."""
    await do(on_postgres, event(at=5))
    time.now += 1
    real = run_many

    def many(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
        execute(
            postgres_events_url,
            "INSERT INTO rm_webhook_events (id, code, status, state, recorded_at, due_at) "
            "VALUES ('other', 'A', 'VOID', 'recorded', 0, 0)",
        )
        real(connection, statement, rows)

    with monkeypatch.context() as patched:
        patched.setattr("rm_voucher.webhooks.sql.store.run_many", many)
        assert await on_postgres.prune(keep_s=0) == 1
    assert await on_postgres.record(event(at=4)) is STALE
