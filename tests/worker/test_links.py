"""A link to a broker that is cut, or falls silent while TCP acknowledges all: it goes on soon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from support.brokers import URLS, queues_of
from support.stalling_proxy import StallingProxy
from yarl import URL

from rm_voucher.worker import Delivery, WorkerSettings, open_broker
from rm_voucher.worker.dispositions import Disposition, HandOn

pytestmark = pytest.mark.long

SETTINGS = WorkerSettings(prefetch=8, attempt_s=1.0, first_delay_s=0.1)
WITHIN_S = 30.0
_log = logging.getLogger("links")


@pytest.mark.parametrize("trouble", [StallingProxy.cut, StallingProxy.freeze])
@pytest.mark.parametrize("kind", URLS)
async def test_link_in_trouble(
    kind: str, trouble: Callable[[StallingProxy], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What is published meanwhile is handled, and handed on, within half a minute."""
    caplog.set_level(logging.WARNING, logger="rm_voucher")
    handled: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(delivery: Delivery) -> Disposition:
        handled.put_nowait(delivery.body)
        return HandOn(delivery.body)

    async with queues_of(kind) as queues:
        at = URL(URLS[kind])
        assert at.host is not None
        assert at.port is not None
        with StallingProxy(at.host, at.port) as proxy:
            way = str(at.with_host("127.0.0.1").with_port(proxy.port))
            broker = open_broker(way, names=queues.names, settings=SETTINGS)
            await broker.start(handle)
            await queues.publish(b"before")
            async with asyncio.timeout(WITHIN_S):
                assert await handled.get() == b"before"
            trouble(proxy)
            since = time.monotonic()
            await queues.publish(b"after")
            out: list[bytes] = []
            async with asyncio.timeout(WITHIN_S):
                while b"after" not in out:
                    out += await queues.vouchers()
                    await asyncio.sleep(0.1)
            _log.info("%s: goes on after %.1f s", kind, time.monotonic() - since)
            await broker.pause()
            await broker.close()
    if kind != "redis":  # which has a connection for each command, and no link to tell of
        ours = [each for each in caplog.records if each.name == "rm_voucher.worker"]
        told = [text for each in ours if (text := each.getMessage()).startswith("the broker is")]
        assert set(told) == {"the broker is away", "the broker is back"}
        assert told[-1] == "the broker is back"
