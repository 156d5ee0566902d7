"""No code and no secret is in a span, a metric or a record of ledgers and callbacks."""

import contextlib
import logging

import pytest
from support.canaries import CANARIES, CODE, OTHER_CODE, Watching, in_metrics, in_spans, item
from support.telemetry import Telemetry
from support.troubles import World, success
from support.webhook_routers import deliver, event, make_router

from rm_voucher import VoucherError, VoucherStatus, bulk_issue
from rm_voucher.ledger import Ledger
from rm_voucher.webhooks import MemoryEventStore


@pytest.fixture
def search():
    """Search all that is told, whatever the log's level."""
    logs, logger = Watching(), logging.getLogger("rm_voucher")
    level, telemetry = logger.level, Telemetry()
    logger.addHandler(logs)
    logger.setLevel(logging.DEBUG)
    yield (
        telemetry,
        lambda: (logs.leaks + in_spans(telemetry.spans) + in_metrics(telemetry.reader), logs.count),
    )
    logger.setLevel(level)
    logger.removeHandler(logs)


async def test_ledger_tells_no_code(search):
    """Issued, lost and reconciled, by itself and in bulk."""
    telemetry, told = search
    world = World()
    client = world.client(hooks=[telemetry.hook])
    async with client, Ledger.in_memory(settle_s=0.001, mode="exclusive") as ledger:
        with contextlib.suppress(VoucherError):
            await ledger.issue(client, "KEY", CANARIES["phone"])
        async with bulk_issue(client, "KEY", [CODE, OTHER_CODE], ledger=ledger) as run:
            [result async for result in run]
        for work in (ledger.reconcile, ledger.baseline, ledger.finish):
            with contextlib.suppress(VoucherError):
                await work(client, "KEY")
        leaks, _ = told()
    assert leaks == []
    assert len(telemetry.spans) > 5


@pytest.mark.parametrize("fails", [False, True], ids=["handled", "failed"])
async def test_callbacks_tell_no_code(search, time, fails):
    """Delivered, refused, handled, failed and confirmed."""
    telemetry, told = search
    router = make_router(
        MemoryEventStore(runtime=time.runtime),
        hooks=[telemetry.hook],
        confirm=World(success).client(hooks=[telemetry.hook]),
    )

    @router.on()
    async def handle(event):
        if fails:
            raise KeyError(event.code)

    async with router:
        await deliver(router, CODE)
        await deliver(router, OTHER_CODE, status="ISSUED")
        await router.receive({}, repr(item()).encode())
        await router.dispatch(event(CODE, status=VoucherStatus.EXPIRED))
    leaks, count = told()
    assert leaks == []
    assert count > 4
    assert [span.name for span in telemetry.spans].count("rm_voucher callback") == 4


def test_search_finds_what_is_there(search):
    """In each of them."""
    telemetry, told = search
    telemetry.tracers.get_tracer("x").start_span(f"x {CODE}").end()
    telemetry.hook._record_attempt(1.0, {"x": CODE})
    logging.getLogger("rm_voucher").warning("x", extra={"rm_event": CODE})
    leaks, _ = told()
    assert {leak.where.split()[0] for leak in leaks} >= {"span", "metrics", "fields"}
