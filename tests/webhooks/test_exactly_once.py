"""A handler with the transaction acts exactly once, however it fails; events that wait long."""

import asyncio
import random

import pytest
from support.webhook_routers import (
    BrokenStore,
    Shop,
    acted,
    counts,
    deliver,
    event,
    give_database,  # noqa: F401 - a fixture
    give_make_store,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    hang,
    make_router,
    said,
)

from rm_voucher import EventStoreError
from rm_voucher.database import Transaction
from rm_voucher.webhooks import EventOutcome, MemoryEventStore, open_event_store

DAY_S = 86_400


class Moody(Shop):
    """A handler that writes, and then more often than not fails, one way or another."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)

    async def handle(self, event):
        kinds = [ValueError, asyncio.CancelledError, hang, None]
        kind = self.random.choice(kinds)
        self.troubles = [] if kind is None else [kind]
        await super().handle(event)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
)
async def test_failures_after_writing(database, time, seed):
    """Raising, being cancelled and a time-out take back what the handler wrote: a row an event."""
    shop, store = Moody(seed), open_event_store(database, runtime=time.runtime)
    router = make_router(store, dispatch_stale=True)
    router.on()(shop.act)
    events = [event(f"CODE-{n % 5}", after_s=n) for n in range(20)]
    async with router:
        for _ in range(500):
            await asyncio.gather(*map(router.dispatch, events))
            if await counts(store) == (20, 0, 0):
                break
    assert acted(database) == sorted(one.id for one in events)
    assert len(shop.got) > 30


@pytest.mark.parametrize("dispatch_stale", [False, True])
@pytest.mark.parametrize("newer", ["VOID", "a status without a handler"])
async def test_failed_event_that_a_newer_one_overtakes(make_store, newer, dispatch_stale):
    """An event that came in time and failed is stale once a newer one is done: then it acts only
    if stale events may."""
    router, shop = make_router(make_store(), dispatch_stale=dispatch_stale), Shop(ValueError)
    router.on("REDEEMED", "VOID")(shop.handle)
    async with router:
        assert await deliver(router, status="REDEEMED") == 500
        assert await deliver(router, status=newer, after_s=1) == 200
        assert await deliver(router, status="REDEEMED") == 200
        assert await counts(router.store) == ((2, 0, 0) if dispatch_stale else (1, 0, 1))
    assert shop.statuses.count("REDEEMED") == 1 + dispatch_stale


async def test_time_is_over_while_it_is_committed(database, time, monkeypatch, caplog):
    """A commit that outlasts the handler's time counts: the next delivery is a repeat."""
    commit = Transaction.commit

    async def commit_late(transaction, last):
        await commit(transaction, last)
        monkeypatch.undo()
        await hang()

    shop, store = Shop(), open_event_store(database, runtime=time.runtime)
    router = make_router(store)
    router.on()(shop.act)
    async with router:
        monkeypatch.setattr(Transaction, "commit", commit_late)
        assert await router.dispatch(event()) is EventOutcome.FAILED
        assert await counts(store) == (1, 0, 0)
        assert await router.dispatch(event()) is EventOutcome.REPEAT
    assert (len(shop.got), acted(database)) == (1, [event().id])
    assert said(caplog) == [f"event {event().id}: its handler failed (TimeoutError)"]


async def test_committed_needs_no_more(database, time, monkeypatch):
    """What the transaction committed is done: nothing that fails behind it makes it a 503."""
    shop, store = Shop(), open_event_store(database, runtime=time.runtime)
    router = make_router(store)
    router.on()(shop.act)

    async def finish(event, state):
        raise EventStoreError("The database can't be used: it has gone.")

    monkeypatch.setattr(store, "finish", finish)
    async with router:
        assert [await deliver(router) for _ in range(2)] == [200, 200]
    assert acted(database) == [event().id]


def refuse(*_):
    raise EventStoreError("The database can't be used: a deferred constraint.")


async def refuse_later(*_):
    refuse()


@pytest.mark.parametrize(("step", "runs"), [("begin", 1), ("commit", 6)])
async def test_transaction_that_always_fails(database, time, monkeypatch, caplog, step, runs):
    """A transaction that does not come about is a 503, takes all back, and is due ever later."""
    shop, store = Shop(), open_event_store(database, runtime=time.runtime)
    router = make_router(store)
    router.on()(shop.act)
    async with router:
        with monkeypatch.context() as broken:
            broken.setattr(Transaction, step, refuse if step == "begin" else refuse_later)
            assert await deliver(router) == 503
            waits = [await wait_until_due(router, time, step_s=60) for _ in range(4)]
        assert acted(database) == []
        assert await deliver(router) == 200
    assert waits == [360, 240, 480, 960]
    assert (len(shop.got), acted(database)) == (runs, [event().id])
    assert said(caplog)[0].startswith(f"event {event().id} was not handled: ")


async def test_handler_that_meets_a_broken_store(time, caplog):
    """A store's error out of a handler is a 503 with its traceback, and later each time, too."""
    shop = Shop(*[EventStoreError] * 3)
    router = make_router(MemoryEventStore(runtime=time.runtime))
    router.on()(shop.handle)
    async with router:
        assert await deliver(router) == 503
        assert [await wait_until_due(router, time) for _ in range(3)] == [360, 240, 480]
    assert len(shop.got) == 4
    assert "in handle" in caplog.text


async def wait_until_due(router, time, step_s=10):
    """Let time pass until an event was run that RM no longer delivers; return how long it took."""
    began = time.now
    while not await router.run_due():
        time.now += step_s
        assert time.now - began <= 2 * DAY_S
    return time.now - began


async def test_all_five_deliveries_failed(make_store, time):
    """An event that failed at each of RM's deliveries is run when RM has given up."""
    shop, store = Shop(*[ValueError] * 5), make_store()
    router = make_router(store)
    router.on()(shop.handle)
    async with router:
        for _ in range(5):
            assert await deliver(router) == 500
            time.now += 60
            assert await router.run_due() == 0
        time.now += DAY_S
        assert [await router.run_due() for _ in range(2)] == [1, 0]
        assert await deliver(router) == 200
        assert await counts(store) == (1, 0, 0)
    assert len(shop.got) == 6


async def test_process_that_died_in_its_handler(database, time):
    """What a process recorded before it died is run by another: no earlier than its lease ends."""

    def process():
        shop = Shop()
        router = make_router(open_event_store(database, runtime=time.runtime), handler_timeout_s=20)
        router.on()(shop.handle)
        return router, shop

    dead, (router, shop) = open_event_store(database, runtime=time.runtime), process()
    async with dead:
        await dead.record(event(), lease_s=30)
        await dead.record(event("OTHER"), lease_s=30)
    async with router:
        assert await deliver(router) == 503
        time.now += 30
        assert await deliver(router) == 200
        assert await router.run_due() == 0
        time.now += 330
        assert [await router.run_due(), await router.run_due()] == [1, 0]
        assert await counts(router.store) == (2, 0, 0)
    assert [got.id for got in shop.got] == [event().id, event("OTHER").id]
    assert shop.got[1].voucher == event("OTHER").voucher


async def test_poison_is_tried_less_and_less(time):
    """An event that never succeeds is tried after waits that double, up to a day."""
    shop = Shop(*[ValueError] * 99)
    router = make_router(MemoryEventStore(runtime=time.runtime))
    router.on()(shop.handle)
    async with router:
        await deliver(router)
        waits = [await wait_until_due(router, time, step_s=60) for _ in range(12)]
    assert waits == [360, *(60 * 2**n for n in range(2, 11)), DAY_S, DAY_S]


async def test_no_more_than_asked_for_at_once(make_store, time):
    """``run_due`` runs the events that wait longest, as many as it is told."""
    shop, store = Shop(*[ValueError] * 3), make_store()
    router = make_router(store)
    router.on()(shop.handle)
    async with router:
        for number in range(3):
            assert await deliver(router, f"CODE-{number}") == 500
            time.now += 1
        time.now += 360
        assert await router.run_due(2) == 2
        assert [got.code for got in shop.got[3:]] == ["CODE-0", "CODE-1"]
        assert await router.run_due(2) == 1


async def test_store_that_can_not_tell_what_is_due(time):
    """What the store raises is raised: who calls ``run_due`` waits before the next time."""
    async with make_router(BrokenStore("due", time=time)) as router:
        with pytest.raises(EventStoreError):
            await router.run_due()
        assert await router.run_due() == 0
