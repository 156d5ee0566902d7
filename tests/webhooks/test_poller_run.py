"""The poller as it runs: its rate, its rounds, what it outlives, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import pytest
from support.command import PATIENCE_S
from support.doubles import FakeTime
from support.webhook_routers import (
    BrokenStore,
    World,
    give_make_store,  # noqa: F401 - a fixture
    give_make_world,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    give_small,  # noqa: F401 - a fixture
    give_world,  # noqa: F401 - a fixture
    said,
)

from rm_voucher import ConfigurationError, SharedStoreError
from rm_voucher.runtime import Runtime
from rm_voucher.shared.memory import MemorySharedStore
from rm_voucher.webhooks import CallbackPoller, MemoryEventStore


@pytest.mark.parametrize("setting", ["rate_per_s", "interval_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_setting_that_is_none(make_world, time, setting, value):
    """A rate or interval that nothing could keep is refused at once."""
    with pytest.raises(ConfigurationError, match=setting):
        make_world(MemoryEventStore(runtime=time.runtime), **{setting: value})


async def test_rate(small, monkeypatch):
    """Vouchers are looked up one after the other, at most ``rate_per_s`` in a second."""
    pace, at, get = FakeTime(now=0.0), [], small.client.get

    async def look_up(code):
        at.append(pace.now)
        return await get(code)

    monkeypatch.setattr(small.client, "get", look_up)
    poller = CallbackPoller(small.client, small.router, rate_per_s=4, runtime=pace.runtime)
    for _ in range(6):
        await small.issue()
    small.time.now += 360
    assert await poller.poll() == 6
    assert at == [0, 0.25, 0.5, 0.75, 1, 1.25]
    pace.now = 100
    await poller.expect("ONE", "MORE")
    small.time.now += 360
    await poller.poll()
    assert at[6:8] == [100, 100.25]


async def test_rate_of_two_polls(small):
    """Two polls at once keep to the rate of one: each look-up waits for a moment of its own."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        await asyncio.sleep(0)

    poller = CallbackPoller(
        small.client,
        small.router,
        rate_per_s=4,
        runtime=Runtime(sleep=sleep, monotonic=lambda: 0.0),
    )
    await poller.expect(*(f"CODE-{n}" for n in range(150)))
    small.time.now += 360
    assert sorted(await asyncio.gather(poller.poll(), poller.poll())) == [50, 100]
    assert sorted(slept) == [n / 4 for n in range(1, 150)]


async def test_hundred_at_a_time(small):
    """One round looks up a hundred at most; the next one takes what is left."""
    await small.poller.expect(*(f"CODE-{n}" for n in range(120)))
    small.time.now += 360
    assert [await small.poller.poll() for _ in range(3)] == [100, 20, 0]


async def running(poller: CallbackPoller, until: Callable[[], Awaitable[bool]]) -> None:
    """Let a poller run until something is so, and cancel it."""
    task = asyncio.create_task(poller.run())
    for _ in range(10_000):
        await asyncio.sleep(0)
        if task.done() or await until():
            break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_run(make_world, time):
    """It looks again every ``interval_s``, at once where more may be due, until it is cancelled."""
    world = make_world(MemoryEventStore(runtime=time.runtime), interval_s=60, rate_per_s=1e9)
    async with world.router, world.client:
        await world.poller.expect(*(f"CODE-{n}" for n in range(150)))
        await world.client.void(await world.issue())

        async def is_found():
            return bool(world.shop.got)

        time.slept.clear()
        await running(world.poller, is_found)
        whole = [seconds for seconds in time.slept if seconds > 1e-6]
    assert whole == [60] * 6
    assert (world.looked_up, world.shop.statuses) == (151, ["VOID"])


async def test_run_goes_on(make_world, time, caplog):
    """While the store fails it waits and tries again, and says so."""
    world = make_world(BrokenStore("due", "due", time=time), interval_s=60)
    async with world.router, world.client:
        await world.client.void(await world.issue())
        time.now += 360
        time.slept.clear()

        async def is_found():
            return bool(world.shop.got)

        await running(world.poller, is_found)
    assert time.slept[:2] == [60, 60]
    line = "missed callbacks can't be looked for: The database can't be used: out of order."
    assert said(caplog) == [line, line]


class Pauses:
    """A poller's sleep, which takes no time: it is noticed, and stands still while it is held."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, _: float) -> None:
        self.begun.set()
        await asyncio.sleep(0)
        await self.may_end.wait()

    async def next(self) -> None:
        self.begun.clear()
        await asyncio.wait_for(self.begun.wait(), PATIENCE_S)

    def poller(self, world: World) -> CallbackPoller:
        runtime = Runtime(sleep=self, monotonic=lambda: 0.0)
        return CallbackPoller(world.client, world.router, runtime=runtime)


async def end(*tasks: asyncio.Task[NoReturn]) -> None:
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(error, asyncio.CancelledError)
        for error in await asyncio.gather(*tasks, return_exceptions=True)
    )


async def test_one_process_polls_at_a_time(world):
    """The others stand by, whatever the store, and one goes on when the first has ended."""
    held, free = Pauses(), Pauses()
    free.may_end.set()
    await world.poller.expect("CODE-1", "CODE-2")
    world.time.now += 360
    first = asyncio.create_task(held.poller(world).run())
    await held.next()  # between two look-ups
    second = asyncio.create_task(free.poller(world).run())
    await free.next()
    await world.poller.expect("CODE-3")
    world.time.now += 59 if isinstance(world.store, MemoryEventStore) else 360
    for _ in range(3):
        await free.next()
    assert world.looked_up == 1
    await end(first)
    world.time.now += 720
    while world.looked_up < 1 + 3:
        await free.next()
    await end(second)


async def test_poller_that_stood_still(small):
    """After a minute another process polls; the first finds it out before its next look-up."""
    held, free = Pauses(), Pauses()
    free.may_end.set()
    await small.poller.expect(*(f"CODE-{n}" for n in range(3)))
    small.time.now += 360
    first = asyncio.create_task(held.poller(small).run())
    await held.next()
    small.time.now += 61
    second = asyncio.create_task(free.poller(small).run())
    await free.next()
    held.may_end.set()
    await held.next()
    assert small.looked_up == 1
    await end(first, second)


async def test_store_that_is_closed_first(small):
    """A poller that ends after its store has closed says nothing of the lease, which runs out."""
    held = Pauses()
    task = asyncio.create_task(held.poller(small).run())
    await held.next()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemorySharedStore, "_load", away)
        await end(task)


async def away(*_: object) -> NoReturn:
    raise SharedStoreError("The database is closed.")


async def test_run_outlives_a_cancelled_handler(make_world, time):
    """A handler that cancels itself ends neither the poller nor its event."""
    world = make_world(MemoryEventStore(runtime=time.runtime), asyncio.CancelledError)
    async with world.router, world.client:
        await world.client.void(await world.issue())

        async def is_done():
            return (await world.store.counts()).done == 1

        await running(world.poller, is_done)
    assert len(world.shop.got) == 2


async def test_cancelled_between_look_ups(small):
    """What a cancelled round did not look up is due again later."""
    asked = asyncio.Event()

    async def hang(seconds):
        asked.set()
        await asyncio.Event().wait()

    codes = [await small.issue() for _ in range(2)]
    for code in codes:
        await small.client.void(code)
    small.time.now += 360
    poller = CallbackPoller(
        small.client, small.router, runtime=Runtime(sleep=hang, monotonic=small.time.clock)
    )
    task = asyncio.create_task(poller.poll())
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(small.shop.got) == 1
    small.time.now += 360
    assert await small.poller.poll() == 1
    assert sorted(got.code for got in small.shop.got) == sorted(codes)
