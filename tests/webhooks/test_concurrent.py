"""Deliveries that come at once: in one process, and in two on one database."""

import asyncio
from collections import Counter

import pytest
from support.webhook_routers import (
    Shop,
    acted,
    connected,
    counts,
    deliver,
    event,
    give_database,  # noqa: F401 - a fixture
    give_make_store,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    make_router,
)

from rm_voucher.webhooks import EventOutcome, open_event_store

MANY = 50
ROUNDS = 100


class Counting(Shop):
    """A handler that lets others have many turns, and knows how many of a voucher's run at once."""

    def __init__(self):
        super().__init__()
        self.running: Counter[str] = Counter()
        self.most = 0

    async def handle(self, event):
        self.running[event.code] += 1
        self.most = max(self.most, *self.running.values())
        await super().handle(event)
        for _ in range(20):
            await asyncio.sleep(0)
        self.running[event.code] -= 1


def handled_by(shop, store, *, takes_transaction, **settings):
    """Return a router whose events all go to this handler."""
    router = make_router(store, **settings)
    router.on()(shop.act if takes_transaction else shop.handle)
    return router


async def until_taken(routers, events):
    """Deliver events at once, in turn to each router, until each was answered with 200."""
    answers: list[EventOutcome] = []
    left = [(routers[number % len(routers)], one) for number, one in enumerate(events)]
    for _ in range(ROUNDS):
        if not left:
            return answers
        outcomes = await asyncio.gather(*(router.dispatch(one) for router, one in left))
        answers += outcomes
        left = [at for at, outcome in zip(left, outcomes, strict=True) if outcome.http_status > 200]
    raise AssertionError(f"{len(left)} events are not taken: {Counter(answers)}")


async def test_one_event_at_once(make_store):
    """All deliveries of an event that come at once wait for the first, whose handler runs once."""
    shop, store = Counting(), make_store()
    async with handled_by(shop, store, takes_transaction=False) as router:
        answers = await asyncio.gather(*(deliver(router) for _ in range(MANY)))
        assert await counts(store) == (1, 0, 0)
    assert answers == [200] * MANY
    assert len(shop.got) == 1


async def test_one_event_at_once_with_transaction(database, time):
    """With the transaction, too."""
    shop, store = Counting(), open_event_store(database, runtime=time.runtime)
    async with handled_by(shop, store, takes_transaction=True) as router:
        answers = await asyncio.gather(*(deliver(router) for _ in range(MANY)))
        assert await counts(store) == (1, 0, 0)
    assert answers == [200] * MANY
    assert (len(shop.got), acted(database)) == (1, [event().id])


@pytest.mark.parametrize("takes_transaction", [False, True])
async def test_two_processes_one_event(database, time, takes_transaction):
    """Of two that share a database one handles an event; the other is busy, or has a repeat."""
    shop = Counting()
    first, second = (
        handled_by(
            shop,
            open_event_store(database, runtime=time.runtime),
            takes_transaction=takes_transaction,
        )
        for _ in range(2)
    )
    async with first, second:
        answers = await until_taken([first, second], [event()] * MANY)
        assert await counts(first.store) == (1, 0, 0)
    found = Counter(answers)
    assert (found[EventOutcome.HANDLED], found[EventOutcome.REPEAT]) == (1, MANY - 1)
    assert found.keys() <= {EventOutcome.HANDLED, EventOutcome.REPEAT, EventOutcome.BUSY}
    assert len(shop.got) == 1
    assert acted(database) == [event().id] * takes_transaction


async def test_busy_while_another_process_handles(database, time):
    """What another process is handling is a 503, and 200 when that has ended."""
    go_on, runs = asyncio.Event(), asyncio.Event()

    async def wait(_):
        runs.set()
        await go_on.wait()

    shop = Shop(wait)
    first, second = (
        handled_by(shop, open_event_store(database, runtime=time.runtime), takes_transaction=False)
        for _ in range(2)
    )
    async with first, second:
        handling = asyncio.create_task(deliver(first))
        await runs.wait()
        assert [await deliver(second), await deliver(second, status="NEW")] == [503, 503]
        assert await deliver(second, "OTHER") == 200
        go_on.set()
        assert await handling == 200
        assert [await deliver(second), await deliver(second, after_s=1)] == [200, 200]
    assert [(got.code == "OTHER", got.id == event().id) for got in shop.got] == [
        (False, True),
        (True, False),
        (False, False),
    ]


async def test_one_voucher_in_order(make_store):
    """Different events of one voucher are handled one after the other, in the order they came."""
    shop, store = Counting(), make_store()
    events = [event(after_s=number) for number in range(MANY)]
    async with handled_by(shop, store, takes_transaction=False) as router:
        outcomes = await asyncio.gather(*map(router.dispatch, events))
    assert outcomes == [EventOutcome.HANDLED] * MANY
    assert ([got.id for got in shop.got], shop.most) == ([one.id for one in events], 1)


@pytest.mark.parametrize("takes_transaction", [False, True])
async def test_two_processes_one_voucher(database, time, takes_transaction):
    """Nor do two processes handle events of one voucher at once, and each is handled once."""
    shop = Counting()
    first, second = (
        handled_by(
            shop,
            open_event_store(database, runtime=time.runtime),
            takes_transaction=takes_transaction,
            dispatch_stale=True,
        )
        for _ in range(2)
    )
    events = [event(after_s=number) for number in range(10)]
    async with first, second:
        answers = await until_taken([first, second], events)
    assert set(answers) <= {EventOutcome.HANDLED, EventOutcome.BUSY}
    assert Counter(got.id for got in shop.got) == Counter(one.id for one in events)
    assert shop.most == 1
    assert acted(database) == sorted(one.id for one in events) * takes_transaction


async def test_vouchers_at_once(make_store):
    """Events of different vouchers are handled at once: none waits for another's handler."""
    all_there = asyncio.Barrier(MANY)
    shop = Shop(*[lambda _: all_there.wait()] * MANY)
    async with handled_by(shop, make_store(), takes_transaction=False) as router:
        answers = await asyncio.gather(*(deliver(router, f"CODE-{n}") for n in range(MANY)))
    assert answers == [200] * MANY


async def test_vouchers_at_once_with_transactions(postgres_url, time):
    """In PostgreSQL eight handlers have transactions at once; more wait for one that is free."""
    with connected(postgres_url) as connection:
        connection.exec_driver_sql("CREATE TABLE acts (event TEXT, status TEXT)")
    all_there = asyncio.Barrier(8)
    shop = Shop(*[lambda _: all_there.wait()] * 16)
    store = open_event_store(postgres_url, runtime=time.runtime)
    async with handled_by(shop, store, takes_transaction=True) as router:
        answers = await asyncio.gather(*(deliver(router, f"CODE-{n}") for n in range(16)))
    assert answers == [200] * 16
    assert len(set(acted(postgres_url))) == 16
