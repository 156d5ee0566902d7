"""Health, readiness and metrics: what is told of a worker, and that no code is in it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.doubles import FakeTime

from rm_voucher import ConfigurationError, IssuedVoucher, LedgerError, RetryPolicy
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.ledger import Ledger
from rm_voucher.worker import Delivery, MemoryBroker, Worker
from rm_voucher.worker.endpoint import serve_health
from rm_voucher.worker.metrics import Meter


@attrs.define
class Place:
    emulator: Emulator
    ledger: Ledger
    broker: MemoryBroker
    worker: Worker
    time: FakeTime


@pytest.fixture
async def there(time: FakeTime) -> AsyncIterator[Place]:
    emulator = Emulator(seed=1, clock=time.clock, batches={"TEA": 10})
    client = emulator.client(runtime=time.runtime, retry=RetryPolicy(max_attempts=1))
    ledger = Ledger.in_memory(runtime=time.runtime)
    async with client, ledger:
        worker = Worker(client, ledger, "TEA", runtime=time.runtime)
        yield Place(emulator, ledger, MemoryBroker(runtime=time.runtime), worker, time)


async def fetch(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


def figures(text: str) -> dict[str, float]:
    """Return each sample of the text form by its name, with its label where it has one."""
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_of_a_worker(there: Place) -> None:
    """Messages by their ends, what is unknown and how old it is, what waits at the broker."""
    there.emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    await there.ledger.submit("TEA", "order 0")
    for request in (b'{"request_id": "order 1"}', b'{"request_id": "order 2"}', b"{"):
        await there.worker.handle(Delivery(request))
    there.broker.publish(b'{"request_id": "order 3"}')
    there.time.now += 60
    async with serve_health(there.worker, there.broker) as url:
        status, text = await fetch(f"{url}/metrics")
    assert status == 200
    told = figures(text)
    assert told["rm_worker_messages_total/handed_on"] == 1
    assert told["rm_worker_messages_total/parked"] == 1
    assert told["rm_worker_messages_total/later"] == 1
    assert told["rm_worker_oldest_ambiguous_seconds"] >= 60
    assert told["rm_worker_oldest_waiting_seconds"] >= 60
    assert told["rm_worker_assigned"] == 1
    assert told["rm_worker_ambiguous"] == 1
    assert told["rm_worker_waiting"] == 1
    assert told["rm_worker_backlog"] == 1
    assert told["rm_worker_in_flight"] == 0
    assert told["rm_worker_outage_seconds"] == told["rm_worker_unkept_codes"] == 0
    assert "rm_worker_rate_per_second" not in told  # nothing limits it yet
    assert not any(code in text for code in there.emulator.issued("TEA"))


async def test_readiness_says_why_not(there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it consumes, while codes wait for the database, and when it stops; it is healthy."""
    async with serve_health(there.worker, there.broker) as url:
        assert await fetch(f"{url}/readyz") == (503, "the broker is away\n")
        async with there.worker.working(there.broker):
            assert await fetch(f"{url}/readyz") == (200, "ok\n")
            unkept = {"order 1": IssuedVoucher(code="SECRET", qr_url=None)}
            monkeypatch.setattr(Ledger, "unkept", unkept)
            reason = (503, "codes wait for the ledger's database\n")
            assert await fetch(f"{url}/readyz") == reason
        assert await fetch(f"{url}/readyz") == (503, "it stops\n")
        assert await fetch(f"{url}/healthz") == (200, "ok\n")


async def test_what_is_away_has_no_figures(there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker or a database that fails takes nothing but its own figures away."""

    async def fail(*_: object) -> None:
        raise ConnectionError("away")

    async def fail_too(*_: object) -> None:
        raise LedgerError("away")

    monkeypatch.setattr(there.broker, "backlog", fail)
    monkeypatch.setattr(there.ledger, "counts", fail_too)
    meter = Meter(there.worker, there.broker, runtime=there.time.runtime)
    told = figures((await meter.text()).decode())
    assert "rm_worker_backlog" not in told
    assert "rm_worker_assigned" not in told
    assert told["rm_worker_in_flight"] == 0


async def test_ledger_is_not_asked_at_each_scrape(there: Place) -> None:
    """Counting is work, and each process is scraped."""
    meter = Meter(there.worker, there.broker, runtime=there.time.runtime)
    first = (await meter.read()).ledger
    await there.ledger.submit("TEA", "order 1")
    assert (await meter.read()).ledger is first
    there.time.now += 16
    later = (await meter.read()).ledger
    assert later is not None
    assert later.counts.waiting == 1


async def test_port_that_is_taken(there: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            async with serve_health(there.worker, there.broker, port=port):
                pass
