"""The router: which handler gets an event, how often, and what is answered."""

import asyncio
import logging

import pytest
from support.webhook_routers import (
    CODE,
    BrokenStore,
    Shop,
    counts,
    deliver,
    event,
    give_quiet,  # noqa: F401 - a fixture
    hang,
    item,
    make_router,
    said,
)

from rm_voucher import EventStoreError, VoucherStatus
from rm_voucher.models import mask
from rm_voucher.webhooks import EventOutcome, MemoryEventStore, open_event_store


@pytest.fixture
def store(time):
    return MemoryEventStore(runtime=time.runtime)


def test_status_of_each_outcome():
    """RM comes again after a failure, and after what may pass; all else is settled."""
    assert {outcome.value: outcome.http_status for outcome in EventOutcome} == {
        **dict.fromkeys(["handled", "repeat", "stale", "ignored"], 200),
        **dict.fromkeys(["unconfirmed", "busy", "unavailable"], 503),
        "failed": 500,
    }


async def test_body_that_was_parsed(store):
    """What is not the raw body is the application's mistake, and says so."""
    with pytest.raises(TypeError, match="bytes, as it came"):
        await make_router(store).receive({}, {"item": {}})  # type: ignore[arg-type]


async def test_handler_by_status(store):
    """An event goes to the handler of its status, else to the one of all others, else to none."""
    router = make_router(store)
    first, second, others = Shop(), Shop(), Shop()
    assert router.on(VoucherStatus.VOID, "NEW_STATUS")(first.handle) == first.handle
    router.on("REDEEMED")(second.handle)
    async with router:
        for number, status in enumerate(["VOID", "NEW_STATUS", "REDEEMED", "EXPIRED"]):
            outcome = await router.dispatch(event(f"CODE-{number}", status))
            assert outcome is (
                EventOutcome.IGNORED if status == "EXPIRED" else EventOutcome.HANDLED
            )
        router.on()(others.handle)
        for number, status in enumerate(["EXPIRED", "ANOTHER", "VOID"], 4):
            assert await router.dispatch(event(f"CODE-{number}", status)) is EventOutcome.HANDLED
    assert first.statuses == ["VOID", "NEW_STATUS", "VOID"]
    assert second.statuses == ["REDEEMED"]
    assert others.statuses == ["EXPIRED", "ANOTHER"]


async def test_event_without_handler_is_done(store):
    """What nobody handles is recorded, answered with 200, and left to no later handler."""
    router = make_router(store)
    async with router:
        assert await deliver(router) == 200
        assert await counts(store) == (1, 0, 0)
        shop = Shop()
        router.on()(shop.handle)
        assert await router.dispatch(event()) is EventOutcome.REPEAT
    assert shop.got == []


async def test_recorded_before_and_done_after(store):
    """While the handler runs its event waits in the store, and when it has returned it is done."""
    router = make_router(store)
    seen = []

    @router.on()
    async def handle(event):
        seen.append(await counts(store))

    async with router:
        assert await deliver(router) == 200
        assert (seen, await counts(store)) == ([(0, 1, 0)], (1, 0, 0))


async def test_repeat(store):
    """A repeat is answered with 200 and runs nothing, with a new nonce as with the same one."""
    router, shop = make_router(store), Shop()
    router.on()(shop.handle)
    async with router:
        assert [await deliver(router) for _ in range(3)] == [200] * 3
        assert await deliver(router, after_s=1) == 200
    assert len(shop.got) == 2


async def test_nothing_is_kept_of_what_ended(store):
    """A router that runs for years keeps nothing of an event that ended, well or not."""
    router = make_router(store)
    router.on()(Shop(ValueError).handle)
    async with router:
        await asyncio.gather(*(router.dispatch(event(f"CODE-{n % 3}")) for n in range(9)))
        assert (len(router._voucher_locks), len(router._tasks)) == (0, 0)


async def test_handler_that_fails_runs_again(store, caplog):
    """A failure is a 500, with the handler's traceback in the log; the next delivery runs it."""
    router, shop = make_router(store), Shop(ValueError("the till is closed"))
    router.on()(shop.handle)
    async with router:
        assert await deliver(router) == 500
        assert await counts(store) == (0, 1, 0)
        assert (await deliver(router), await deliver(router)) == (200, 200)
    assert len(shop.got) == 2
    (line,) = said(caplog)
    assert line == f"event {event().id}: its handler failed (ValueError)"
    assert "in handle" in caplog.text
    assert "ValueError: the till is closed" in caplog.text


async def test_failure_is_logged_without_the_code(store, caplog):
    """A database's message may quote the code or the voucher's key, and a traceback has it."""
    key = item()["key"]
    router, shop = make_router(store), Shop(ValueError(f"Key (code, key)=({CODE}, {key}) exists"))
    router.on()(shop.handle)
    async with router:
        assert await deliver(router) == 500
    assert f"Key (code, key)=({mask(CODE)}, …) exists" in caplog.text
    assert CODE not in caplog.text
    assert key not in caplog.text


async def cancelled_within(_: object) -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (hang, "TimeoutError"),
        (TimeoutError(), "TimeoutError"),
        (asyncio.CancelledError(), "CancelledError"),
        (cancelled_within, "CancelledError"),
        (ExceptionGroup("two", [OSError()]), "ExceptionGroup"),
    ],
)
async def test_handler_that_takes_too_long_or_is_cancelled(store, caplog, trouble, kind):
    """A time-out is a failure, and so is a cancellation that nobody asked the handler for."""
    router, shop = (
        make_router(store),
        Shop(trouble),
    )
    router.on()(shop.handle)
    async with router:
        assert await router.dispatch(event()) is EventOutcome.FAILED
        assert await router.dispatch(event()) is EventOutcome.HANDLED
    assert said(caplog) == [f"event {event().id}: its handler failed ({kind})"]


async def test_what_is_no_exception_passes(store):
    """What is meant for the whole process is raised; the event is run again by a later delivery."""

    class StopAllError(BaseException):
        pass

    router, shop = make_router(store), Shop(StopAllError())
    router.on()(shop.handle)
    async with router:
        with pytest.raises(StopAllError):
            await router.dispatch(event())
        assert await router.dispatch(event()) is EventOutcome.HANDLED


@pytest.mark.parametrize("dispatch_stale", [False, True])
async def test_stale_event(store, dispatch_stale):
    """What comes after a newer event of its voucher is handled only where that is asked for."""
    router, shop = make_router(store, dispatch_stale=dispatch_stale), Shop()
    router.on()(shop.handle)
    async with router:
        assert await deliver(router, after_s=9) == 200
        outcome = await router.dispatch(event(status="REDEEMED"))
        assert outcome is (EventOutcome.HANDLED if dispatch_stale else EventOutcome.STALE)
        assert await router.dispatch(event(status="REDEEMED")) is EventOutcome.REPEAT
        assert await router.dispatch(event("OTHER", "REDEEMED")) is EventOutcome.HANDLED
        assert await counts(store) == ((3, 0, 0) if dispatch_stale else (2, 0, 1))
    assert shop.statuses == ["VOID", *["REDEEMED"] * (1 + dispatch_stale)]


async def test_router_that_is_not_open(store, caplog):
    """Before it is opened and after it is closed the answer is 503, and the log says what to do."""
    router, shop = make_router(store), Shop()
    router.on()(shop.handle)
    assert await deliver(router) == 503
    async with router:
        pass
    assert await deliver(router) == 503
    line = (
        f"event {event().id} came while the router is not open: enter it with 'async with router' "
        "when the application starts"
    )
    assert said(caplog) == [line, line]
    async with store:
        assert (shop.got, await counts(store)) == ([], (0, 0, 0))


async def test_too_many_at_once(store, caplog):
    """Beyond ``max_in_flight`` events are answered with 503, until one has ended."""
    go_on, running = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(_):
        running.release()
        await go_on.wait()

    router, shop = make_router(store, max_in_flight=2), Shop(wait, wait)
    router.on()(shop.handle)
    async with router, asyncio.TaskGroup() as group:
        under_way = [group.create_task(router.dispatch(event(f"CODE-{n}"))) for n in range(2)]
        await running.acquire()
        await running.acquire()
        assert await deliver(router, "CODE-2") == 503
        assert said(caplog) == [f"event {event('CODE-2').id} came while 2 are under way"]
        go_on.set()
        assert await asyncio.gather(*under_way) == [EventOutcome.HANDLED] * 2
        assert await deliver(router, "CODE-2") == 200
    assert len(shop.got) == 3


@pytest.mark.parametrize("way", ["receive", "dispatch"])
async def test_cancelling_stops_no_handler(store, way):
    """A sender that goes away stops no handler, closing waits for it, and the event is done."""
    go_on, runs = asyncio.Event(), asyncio.Event()

    async def wait(_):
        runs.set()
        await go_on.wait()

    router, shop = make_router(store), Shop(wait)
    router.on()(shop.handle)
    await router.__aenter__()
    caller = asyncio.create_task(deliver(router) if way == "receive" else router.dispatch(event()))
    await runs.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    closing = asyncio.create_task(router.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    assert await router.dispatch(event("OTHER")) is EventOutcome.UNAVAILABLE
    go_on.set()
    await closing
    async with store:
        assert await counts(store) == (1, 0, 0)
    await router.aclose()


async def test_closing_closes_the_store(tmp_path, time):
    """The router's store is open while the router is, and no longer."""
    store = open_event_store(f"sqlite:///{tmp_path / 'events.db'}", runtime=time.runtime)
    async with make_router(store) as router:
        assert await router.run_due() == 0
    with pytest.raises(EventStoreError):
        await store.counts()


async def test_task_that_is_cancelled_with_the_loop(store):
    """Who ends the loop cancels the handler, and that is not taken for the handler's failure."""
    router, shop = make_router(store), Shop(lambda _: asyncio.Event().wait())
    router.on()(shop.handle)
    async with router:
        caller = asyncio.create_task(router.dispatch(event()))
        while not shop.got:
            await asyncio.sleep(0)
        (task,) = (t for t in asyncio.all_tasks() if t.get_name() == "rm-voucher event")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await counts(store) == (0, 1, 0)


@pytest.mark.parametrize(("broken", "runs"), [("record", 1), ("finish", 2)])
async def test_store_that_fails(time, caplog, broken, runs):
    """While the store fails the answer is 503: nothing runs unrecorded, or it runs once more."""
    store, shop = BrokenStore(broken, time=time), Shop()
    router = make_router(store)
    router.on()(shop.handle)
    async with router:
        assert await deliver(router) == 503
        assert [await deliver(router) for _ in range(2)] == [200, 200]
        assert await counts(store) == (1, 0, 0)
    assert len(shop.got) == runs
    (line,) = said(caplog)
    assert line.startswith(f"event {event().id} was not handled: The database can't be used")


async def test_names_in_the_log(store, caplog):
    """The log tells an event by its id, its status and its outcome; not what nobody documented."""
    caplog.set_level(logging.INFO)
    router = make_router(store)
    async with router:
        await router.dispatch(event())
        await router.dispatch(event(status="canary status"))
    assert said(caplog, logging.INFO) == [
        f"event {event().id}, VOID: ignored",
        f"event {event(status='canary status').id}, a status that nobody documented: ignored",
    ]
