"""Health, readiness and metrics: what is told of a worker, and that no code is in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.doubles import FakeTime

from rm_voucher import ConfigurationError, LedgerError, RetryPolicy
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.rules.commands import Confirm
from rm_voucher.shared import MemorySharedStore
from rm_voucher.worker import Delivery, MemoryBroker, Worker
from rm_voucher.worker.endpoint import serve_health
from rm_voucher.worker.metrics import read_figures, to_text


@attrs.define
class Place:
    emulator: Emulator
    ledger: Ledger
    broker: MemoryBroker
    worker: Worker
    time: FakeTime


def ledger_of(time: FakeTime) -> Ledger:
    """Return a ledger that is between two sweeps as long as the test runs."""

    async def sleep(_: float) -> None:
        await asyncio.Event().wait()

    return Ledger.in_memory(runtime=attrs.evolve(time.runtime, sleep=sleep), sweeps=True)


@pytest.fixture
async def there(time: FakeTime) -> AsyncIterator[Place]:
    emulator = Emulator(seed=1, clock=time.clock, batches={"TEA": 10})
    client = emulator.client(runtime=time.runtime, retry=RetryPolicy(max_attempts=1))
    ledger = ledger_of(time)
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
    assert told["rm_worker_ambiguous"] == 1
    assert told["rm_worker_waiting"] == 1
    assert told["rm_worker_backlog"] == 1
    assert told["rm_worker_spare"] == told["rm_worker_held"] == told["rm_worker_sending"] == 0
    assert told["rm_worker_in_flight"] == 0
    assert told["rm_worker_outage_seconds"] == told["rm_worker_unkept_codes"] == 0
    assert "rm_worker_rate_per_second" not in told  # nothing limits it yet
    assert not {name for name in told if "process" in name or "store" in name}  # nothing is shared
    assert not any(code in text for code in there.emulator.issued("TEA"))


async def test_readiness_says_why_not(there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it consumes, while codes wait for the database, and when it stops; it is healthy."""
    async with serve_health(there.worker, there.broker) as url:
        assert await fetch(f"{url}/readyz") == (503, "the broker is away\n")
        async with there.worker.working(there.broker):
            assert await fetch(f"{url}/readyz") == (200, "ok\n")
            commit, reached, go_on = there.ledger.store.commit, asyncio.Event(), asyncio.Event()

            async def commit_late(transition: Any, item: Any) -> Any:
                if isinstance(item, Confirm):
                    reached.set()
                    await go_on.wait()
                return await commit(transition, item)

            monkeypatch.setattr(there.ledger.store, "commit", commit_late)
            there.broker.publish(b'{"request_id": "order 1"}')
            await reached.wait()
            assert await fetch(f"{url}/readyz") == (200, "ok\n")  # it may just take a moment
            there.time.now += 6
            reason = (503, "codes wait for the ledger's database\n")
            assert await fetch(f"{url}/readyz") == reason
            told = await read(there.worker, there.broker)
            assert told["rm_worker_unkept_codes"] == 1
            assert told["rm_worker_oldest_unkept_seconds"] >= 6
            go_on.set()
            await there.broker.wait_idle()
            assert await fetch(f"{url}/readyz") == (200, "ok\n")
        assert await fetch(f"{url}/readyz") == (503, "it stops\n")
        assert await fetch(f"{url}/healthz") == (200, "ok\n")


async def test_metrics_of_what_processes_share(time: FakeTime) -> None:
    """How many share the rate, and for how long their store has been away."""
    shared = MemorySharedStore(runtime=time.runtime)
    emulator = Emulator(seed=1, clock=time.clock, batches={"TEA": 10})
    client = emulator.client(runtime=time.runtime, shared=shared)
    ledger = ledger_of(time)
    async with client, ledger:
        worker = Worker(client, ledger, "TEA", runtime=time.runtime)
        await worker.handle(Delivery(b'{"request_id": "order 1"}'))
        told = await read(worker, MemoryBroker(runtime=time.runtime))
    assert told["rm_worker_processes"] == 1
    assert told["rm_worker_shared_store_away_seconds"] == 0


async def test_what_fails_has_no_figures(there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker or a database that fails takes nothing but its own figures away."""

    async def fail(*_: object) -> None:
        raise ConnectionError("away")

    async def fail_too(*_: object) -> None:
        raise LedgerError("away")

    monkeypatch.setattr(there.broker, "backlog", fail)
    monkeypatch.setattr(there.ledger, "backlog", fail_too)
    told = await read(there.worker, there.broker)
    assert not told.keys() & {"rm_worker_backlog", "rm_worker_waiting", "rm_worker_spare"}
    assert told["rm_worker_in_flight"] == told["rm_worker_unkept_codes"] == 0


def test_what_is_silent_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that says nothing is given up before who scrapes gives up all figures."""
    clock = VirtualClock()

    async def main() -> None:
        ledger = Ledger.in_memory(sweeps=True)
        async with Emulator(batches={"TEA": 10}).client() as client, ledger:
            monkeypatch.setattr(
                ledger, "backlog", lambda _: asyncio.get_running_loop().create_future()
            )
            told = await read(Worker(client, ledger, "TEA"), MemoryBroker([b"{}"]))
        assert told["rm_worker_backlog"] == 1
        assert "rm_worker_waiting" not in told

    begun = clock.now
    VirtualLoop(clock).run(main)
    assert clock.now - begun < 5


async def read(worker: Worker, broker: MemoryBroker) -> dict[str, float]:
    return figures(to_text(await read_figures(worker, broker)).decode())


async def test_port_that_is_taken(there: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            async with serve_health(there.worker, there.broker, port=port):
                pass
