"""Callbacks that never came, in the emulator's time: found, handled once, looked up ever less."""

import pytest
from support.webhook_routers import (
    CODE,
    BrokenStore,
    give_database,  # noqa: F401 - a fixture
    give_make_store,  # noqa: F401 - a fixture
    give_make_world,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    give_small,  # noqa: F401 - a fixture
    give_world,  # noqa: F401 - a fixture
    said,
)

from rm_voucher import EventStoreError, VoucherStatus
from rm_voucher.emulator.faults import Fault
from rm_voucher.webhooks import CallbackPoller, MemoryEventStore, open_event_store

DAY_S = 86_400


async def waits_between(world, count, step_s=10):
    """Return how long it takes to each of the next look-ups."""
    waits = []
    for _ in range(count):
        began = world.time.now
        while not await world.poller.poll():
            world.time.now += step_s
            assert world.time.now - began <= 2 * DAY_S
        waits.append(world.time.now - began)
    return waits


async def test_found_when_it_never_came(world):
    """What RM gave up is found after six minutes, no earlier, under the callback's own id, once."""
    code = await world.issue()
    await world.client.void(code)
    await world.wait(359)
    assert len(world.sent) == 5
    assert (await world.poller.poll(), world.looked_up) == (0, 0)
    await world.wait(1)
    assert (await world.poller.poll(), world.looked_up) == (1, 1)
    told = world.router.verifier.verify(world.sent[-1].headers, world.sent[-1].body)
    assert [(got.id, got.code, got.status) for got in world.shop.got] == [
        (told.id, code, VoucherStatus.VOID)
    ]
    assert await world.expected() == 0
    await world.wait(1000)
    assert (await world.poller.poll(), world.looked_up) == (0, 1)


async def test_callback_that_comes_late(world):
    """A callback that comes when the poller has found its event is a repeat: 200, not handled."""
    code = await world.issue()
    await world.client.void(code)
    world.time.now += 400
    assert await world.poller.poll() == 1
    world.is_cut = False
    assert await world.emulator.callbacks.deliver() == 1
    assert (world.answers, len(world.shop.got)) == ([200], 1)


async def test_delivered_needs_no_look_up(world):
    """What was delivered in time is never looked up, and a final status ends the waiting."""
    world.is_cut = False
    code = await world.issue()
    await world.client.void(code)
    await world.wait(360)
    assert (await world.poller.poll(), world.looked_up) == (0, 0)
    assert (await world.expected(), len(world.shop.got)) == (0, 1)


async def test_what_follows_has_six_minutes_too(world):
    """An event that is not final starts the waiting anew: for the one that follows it."""
    world.is_cut = False
    code = await world.issue()
    await world.wait(300)
    await world.client.redeem([code])
    await world.wait(60)
    world.is_cut = True
    assert await world.poller.poll() == 0
    await world.client.void(code)
    await world.wait(359)
    assert (await world.poller.poll(), world.looked_up) == (0, 0)
    await world.wait(1)
    assert await world.poller.poll() == 1
    assert (world.shop.statuses, await world.expected()) == (["VOID"], 0)


async def test_looked_up_less_and_less(small):
    """A voucher of which nothing comes is looked up after waits that double, up to a day."""
    await small.poller.expect(CODE)  # which RM does not know
    waits = await waits_between(small, 12, step_s=60)
    assert waits == [360, *(360 * 2**n for n in range(8)), DAY_S, DAY_S, DAY_S]


async def test_nothing_new(small):
    """A look-up that shows the voucher as it was is no reason to look again soon."""
    await small.issue()
    waits = await waits_between(small, 5)
    assert waits == [360, 720, 360, 720, 1440]
    assert (small.shop.got, await small.expected()) == ([], 1)


async def test_expired(small):
    """RM calls nobody when a voucher expires: the poller finds it, and waits no more."""
    batch = small.emulator.add_batch("SHORT", quantity=1)
    voucher = await small.client.issue(batch.key)
    await small.poller.expect(voucher.code)
    small.emulator.state.expire(voucher.code)
    small.time.now += 360
    assert await small.poller.poll() == 1
    assert small.shop.statuses == ["EXPIRED"]
    assert await small.expected() == 0


async def test_final_can_be_another(make_world, time):
    """``final`` says which statuses end the waiting; then VOID need not."""
    world = make_world(MemoryEventStore(runtime=time.runtime), final=[VoucherStatus.REDEEMED])
    async with world.router, world.client:
        used, redeemed = await world.issue(), await world.issue()
        await world.client.void(used)
        await world.client.redeem([redeemed])
        world.time.now += 360
        assert await world.poller.poll() == 2
        assert await world.expected() == 1
        await world.poller.forget(used)
        assert await world.expected() == 0


async def test_forget(world):
    """What is forgotten is not looked up; forgetting it again, or what never was, is no error."""
    code, other = await world.issue(), await world.issue()
    await world.poller.forget(code, "NEVER")
    await world.poller.forget(code)
    await world.client.void(code)
    await world.client.void(other)
    world.time.now += 360
    assert await world.poller.poll() == 1
    assert [got.code for got in world.shop.got] == [other]


async def test_expected_again(world):
    """To expect a voucher again neither starts its six minutes anew nor makes two of it."""
    code = await world.issue()
    await world.client.void(code)
    world.time.now += 350
    await world.poller.expect(code, code)
    world.time.now += 10
    assert await world.poller.poll() == 1
    assert len(world.shop.got) == 1


@pytest.mark.parametrize("fault", ["VOUCHER_NOT_FOUND", Fault.DROP_BEFORE_COMMIT, Fault.HTML_PAGE])
async def test_look_up_that_fails(small, caplog, fault):
    """A look-up that fails is logged without the code; the others go on, and it is due again."""
    code, other = await small.issue(), await small.issue()
    await small.client.void(code)
    await small.client.void(other)
    small.time.now += 360
    small.emulator.fail_next("get", fault)
    assert await small.poller.poll() == 2
    assert ([got.code for got in small.shop.got], await small.expected()) == ([other], 1)
    assert said(caplog)[0].startswith("a voucher that is waited for can't be looked up: ")
    assert code not in caplog.text
    small.time.now += 360
    assert await small.poller.poll() == 1
    assert ([got.code for got in small.shop.got], await small.expected()) == ([other, code], 0)


async def test_handler_that_fails(world):
    """What is found and fails in its handler is due as any event is, and is handled once."""
    world.shop.troubles = [ValueError, ValueError]
    code = await world.issue()
    await world.client.void(code)
    world.time.now += 360
    assert await world.poller.poll() == 1
    assert (await world.store.counts()).waiting == 1
    world.time.now += 360
    await world.poller.poll()
    world.time.now += 360
    await world.poller.poll()
    assert (await world.store.counts()).done == 1
    assert (len(world.shop.got), await world.expected()) == (3, 0)


async def test_store_that_fails_when_it_is_found(make_world, time):
    """A voucher whose event could not be recorded is waited for, and looked up again."""
    world = make_world(BrokenStore("record", time=time))
    async with world.router, world.client:
        await world.client.void(await world.issue())
        world.time.now += 360
        assert await world.poller.poll() == 1
        assert (world.shop.got, await world.expected()) == ([], 1)
        world.time.now += 360
        assert await world.poller.poll() == 1
        assert (world.shop.statuses, await world.expected()) == (["VOID"], 0)


async def test_waiting_survives_a_restart(make_world, database, time):
    """What is waited for is in the database: another process finds it."""
    before = make_world(open_event_store(database, runtime=time.runtime))
    async with before.router:
        await before.client.void(await before.issue())
    time.now += 360
    after = make_world(open_event_store(database, runtime=time.runtime))
    after.poller = CallbackPoller(before.client, after.router)
    async with after.router, before.client:
        assert await after.poller.poll() == 1
    assert after.shop.statuses == ["VOID"]
    assert before.shop.got == []


async def test_store_that_is_closed(make_world, tmp_path, time):
    """Waiting for a voucher is durable, or it raises."""
    world = make_world(
        open_event_store(f"sqlite:///{tmp_path / 'events.db'}", runtime=time.runtime)
    )
    async with world.router, world.client:
        code = await world.issue()
    with pytest.raises(EventStoreError):
        await world.poller.expect(code)
    with pytest.raises(EventStoreError):
        await world.poller.forget(code)
