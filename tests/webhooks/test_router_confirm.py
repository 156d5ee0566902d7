"""Looking the voucher up before its event is handled, so that nothing rests on a signature."""

import pytest
from support.answers import LOST, ok, rm_error
from support.scripted_server import ScriptedServer
from support.webhook_routers import (
    CODE,
    Shop,
    acted,
    counts,
    deliver,
    event,
    give_database,  # noqa: F401 - a fixture
    give_quiet,  # noqa: F401 - a fixture
    hang,
    item,
    make_router,
    said,
)

from rm_voucher import Response, RetryPolicy, VoucherStatus
from rm_voucher.emulator import Emulator
from rm_voucher.webhooks import EventOutcome, MemoryEventStore, open_event_store


@pytest.fixture
def store(time):
    return MemoryEventStore(runtime=time.runtime)


@pytest.fixture
def confirming(store, make_client):
    """Make a router whose client is given these answers, and the handler of all its events."""

    def make(*answers, **settings):
        server, shop = ScriptedServer(answers), Shop()
        client = make_client(server, retry=RetryPolicy(max_attempts=1))
        router = make_router(store, confirm=client, **settings)
        router.on()(shop.handle)
        return router, shop, server

    return make


def shows(**changes):
    """Return an answer that shows the voucher of `event`, but for some fields."""
    return ok({"item": {**item(), **changes}, "code": "SUCCESS"})


async def test_confirmed(confirming):
    """The handler gets the voucher as RM shows it, under the same id; a repeat asks no more."""
    later = item(after_s=5)["updatedAt"]
    router, shop, server = confirming(shows(label="as read", updatedAt=later))
    async with router:
        assert [await deliver(router) for _ in range(2)] == [200, 200]
    (got,) = shop.got
    assert (got.id, got.voucher.label) == (event().id, "as read")
    assert got.updated_at == event(after_s=5).updated_at
    assert len(server.requests) == 1


@pytest.mark.parametrize("dispatch_stale", [False, True])
async def test_moved_on(confirming, store, dispatch_stale):
    """A voucher that has changed since makes its event a stale one, with the voucher as told."""
    router, shop, _ = confirming(
        shows(status="REDEEMED", updatedAt=item(after_s=5)["updatedAt"]),
        dispatch_stale=dispatch_stale,
    )
    async with router:
        outcome = await router.dispatch(event())
        assert await router.dispatch(event()) is EventOutcome.REPEAT
        assert await counts(store) == ((1, 0, 0) if dispatch_stale else (0, 0, 1))
    assert outcome is (EventOutcome.HANDLED if dispatch_stale else EventOutcome.STALE)
    assert [got.voucher for got in shop.got] == [event().voucher] * dispatch_stale


UNDATED = "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (shows(status="REDEEMED"), "RM shows the voucher in another state"),
        (shows(status="REDEEMED", updatedAt=UNDATED), "RM shows the voucher in another state"),
        (
            shows(status="ISSUED", updatedAt=item(after_s=-5)["updatedAt"]),
            "RM shows the voucher in another state",
        ),
        (shows(updatedAt=item(after_s=-5)["updatedAt"]), "RM shows the voucher in another state"),
        (rm_error("VOUCHER_NOT_FOUND", 404), "VOUCHER_NOT_FOUND"),
        (LOST, "the server closed the connection"),
        (ok({"item": [CODE], "code": "SUCCESS"}), "item"),
        (Response(status=502, body=b"<html>"), "502"),
    ],
)
@pytest.mark.parametrize("dispatch_stale", [False, True])
async def test_unconfirmed(confirming, store, caplog, answer, reason, dispatch_stale):
    """What RM does not show, or can't be asked for, is a 503 and not handled; later it may be."""
    router, shop, _ = confirming(answer, shows(), dispatch_stale=dispatch_stale)
    async with router:
        assert await deliver(router) == 503
        assert (shop.got, await counts(store)) == ([], (0, 1, 0))
        assert said(caplog)[-1].startswith(f"event {event().id} ")
        assert reason in said(caplog)[-1]
        assert await deliver(router) == 200
        assert (shop.statuses, await counts(store)) == (["VOID"], (1, 0, 0))


async def test_confirmed_with_fewer_digits(confirming):
    """How many digits of a second a look-up shows is not documented: whole seconds confirm."""
    router, shop, _ = confirming(shows())
    async with router:
        assert await router.dispatch(event(after_s=0.9)) is EventOutcome.HANDLED
    assert len(shop.got) == 1


async def test_fewer_digits_make_no_event_stale(database, time, make_client):
    """Callbacks tell which event is stale: two of one second are in the order of their digits."""
    store, shop = open_event_store(database, runtime=time.runtime), Shop()
    router = make_router(store, confirm=make_client(ScriptedServer([shows()])))
    router.on("VOID")(shop.act)
    async with router:
        assert await router.dispatch(event(status="REDEEMED", after_s=0.1)) is EventOutcome.IGNORED
        assert await router.dispatch(event(after_s=0.3)) is EventOutcome.HANDLED
        assert await router.dispatch(event(status="ISSUED", after_s=0.2)) is EventOutcome.STALE
    assert acted(database) == [event(after_s=0.3).id]


async def test_undated_event_in_its_status(confirming):
    """Without ``updatedAt`` the status alone confirms an event."""
    router, shop, _ = confirming(shows(updatedAt=UNDATED))
    async with router:
        assert await deliver(router) == 200
    assert shop.got[0].updated_at is None


async def test_unconfirmed_event_waits_longer(confirming, store, time):
    """An event that can't be confirmed is due when RM has given up, and later each time."""
    router, shop, server = confirming(*[rm_error("VOUCHER_NOT_FOUND", 404)] * 5, shows())
    waits = []
    async with router:
        await deliver(router)
        while server.answers:
            began = time.now
            while not await router.run_due():
                time.now += 10
                assert time.now - began <= 86_400
            waits.append(time.now - began)
    assert waits == [360, 240, 480, 960, 1920]
    assert shop.statuses == ["VOID"]


async def test_time_to_confirm_is_the_handlers(store, make_client, caplog):
    """A look-up that takes longer than the handler may is a failure, and its handler runs not."""

    router, shop = make_router(store, confirm=make_client(hang)), Shop()
    router.on()(shop.handle)
    async with router:
        assert await router.dispatch(event()) is EventOutcome.FAILED
    assert shop.got == []
    assert said(caplog)[-1] == f"event {event().id}: its handler failed (TimeoutError)"


async def test_with_the_transaction(database, time, make_client):
    """A handler with the transaction gets the confirmed event, too; one that moved on acts not."""
    moved_on = item(after_s=5)["updatedAt"]
    server = ScriptedServer([shows(status="ISSUED"), shows(), shows(updatedAt=moved_on)])
    store, shop = open_event_store(database, runtime=time.runtime), Shop()
    router = make_router(store, confirm=make_client(server))
    router.on()(shop.act)
    async with router:
        assert [await deliver(router) for _ in range(3)] == [503, 200, 200]
        assert await deliver(router, status="REDEEMED", after_s=4) == 200
        assert await counts(store) == (1, 0, 1)
    assert acted(database) == [event().id]


async def test_with_the_emulator(store, time):
    """A delivery of an emulator's is confirmed by the same emulator."""
    emulator = Emulator(seed=1, batches={"K": 1}, clock=time.clock)
    async with emulator.client(runtime=time.runtime) as client:
        router, shop = make_router(store, confirm=client), Shop()
        router.on()(shop.handle)
        issued = await client.issue("K")
        await client.redeem([issued.code])
        async with router:
            found = emulator.voucher(issued.code)
            first_at = event().updated_at
            assert found.updated_at is not None
            assert first_at is not None
            after_s = (found.updated_at - first_at).total_seconds()
            told = event(issued.code, "REDEEMED", after_s)
            assert await router.dispatch(told) is EventOutcome.HANDLED
            assert await router.dispatch(event(issued.code, "VOID")) is EventOutcome.STALE
    assert shop.got[0].voucher == found


async def test_on_error_gets_nothing_that_the_voucher_is_worth(store, make_client, caplog):
    """Neither key nor QR URL as RM confirmed them, nor the code in another case; nor the log."""
    got: list[Exception] = []
    worth = {"key": "a2V5IG9m", "qrUrl": "https://rm.invalid/q/9f8e7d"}
    client = make_client(ScriptedServer([shows(**worth)]))
    router = make_router(store, confirm=client, on_error=got.append)

    @router.on(VoucherStatus.VOID)
    async def handler(event):
        voucher = event.voucher
        raise LookupError(f"{voucher.key} {voucher.qr_url} {event.code.lower()} bounced")

    async with router:
        assert await deliver(router) == 500
    told = (str(got[0]) + caplog.text).lower()
    assert told.count("bounced") >= 2
    assert not [one for one in (*worth.values(), CODE) if one.lower() in told]
