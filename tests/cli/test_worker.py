"""``rm-voucher worker``: what a newcomer sees, and what a mistake is told."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import attrs
import orjson
import pytest
from support.command import PATIENCE_S

from rm_voucher.cli import working
from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.worker import MemoryBroker, WorkerSettings

VARIABLES = ("RM_WORKER_BROKER", "RM_WORKER_LEDGER", "RM_WORKER_BATCH", "RM_SHARED_URL")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_hundred_messages_become_a_hundred_vouchers(rm: Callable[..., Any]) -> None:
    """In one command, without an account, a broker or a database."""
    ended = rm("worker", "--environment", "memory", "--batch", "TEA")
    assert ended.code == 0, ended.err
    messages = [orjson.loads(line) for line in ended.out.splitlines()]
    assert {each["request_id"] for each in messages} == {f"order {n}" for n in range(1, 101)}
    assert len({each["code"] for each in messages}) == 100
    assert "not real vouchers" in ended.err
    assert "100 messages: 100 vouchers, 0 parked." in ended.err


def test_sample_of_another_size(rm: Callable[..., Any]) -> None:
    ended = rm("worker", "-e", "memory", "--batch", "TEA", "--sample", 3, "--rate", 1000)
    assert len(ended.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-e", "memory", "--broker", "amqp://x"), "takes no --broker, --ledger or --shared"),
        (("-e", "memory", "--ledger", "sqlite:///x"), "takes no --broker, --ledger or --shared"),
        (("-e", "memory", "--shared", "redis://x"), "takes no --broker, --ledger or --shared"),
        ((), "The broker is in the variable RM_WORKER_BROKER, which is not set"),
        (("--broker", "kafka://x", "--ledger", "sqlite:///x.db"), "begins with amqp://"),
        (("--broker", "amqp://x", "--ledger", "env:NOTHING"), "The ledger is in the variable"),
        (
            (
                *("--requests", "a", "--vouchers", "a"),
                *("--broker", "amqp://x", "--ledger", "sqlite:///x.db"),
            ),
            "different names",
        ),
    ],
)
def test_mistakes_get_a_sentence(
    rm: Callable[..., Any], served: Any, arguments: tuple[str, ...], said: str
) -> None:
    ended = rm("worker", "--batch", "TEA", *arguments)
    assert ended.code == 2, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_broker_that_does_not_answer(
    rm: Callable[..., Any], served: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with a sentence: whatever runs it starts it again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served.emulator.add_batch("TEA", key="TEA", quantity=1)
    monkeypatch.setenv("RM_WORKER_BROKER", f"amqp://guest:secret@127.0.0.1:{port}/")
    ended = rm("worker", "--batch", "TEA", "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert ended.code == 1, ended.err  # as for a database that is away
    assert "The broker can't be used" in ended.err
    assert "the broker is away" not in ended.err  # nothing was lost
    assert "secret" not in ended.err


def test_nats_that_does_not_answer(
    rm: Callable[..., Any], served: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client tries without an end; the command gives up and says so."""
    monkeypatch.setattr("rm_voucher.worker.nats._CONNECT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served.emulator.add_batch("TEA", key="TEA", quantity=1)
    monkeypatch.setenv("RM_WORKER_BROKER", f"nats://me:secret@127.0.0.1:{port}")
    ended = rm("worker", "--batch", "TEA", "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert ended.code == 1, ended.err
    assert "The broker can't be used" in ended.err
    assert "secret" not in ended.err


async def fetch(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


@attrs.define
class Stand:
    """A worker of the command on a broker in memory, whose messages a test holds."""

    broker: MemoryBroker
    task: asyncio.Task[None]
    said: list[str]
    is_handling: asyncio.Event = attrs.field(factory=asyncio.Event)
    may_end: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def url(self) -> str:
        (line,) = [line for line in self.said if line.startswith("Health")]
        return line.split()[-1].rstrip(".")


async def begin(monkeypatch: pytest.MonkeyPatch, broker: MemoryBroker) -> Stand:
    said: list[str] = []
    monkeypatch.setattr(working, "say", said.append)
    monkeypatch.setattr(working, "open_broker", lambda *_, **__: broker)
    plan = working.Plan(
        batch_key="TEA",
        settings=WorkerSettings(),
        requests="requests",
        vouchers="vouchers",
        served=("127.0.0.1", 0),
        stop_s=PATIENCE_S,
    )
    client = Emulator(batches={"TEA": 5}).client()
    ledger = Ledger.in_memory(sweeps=True)
    task = asyncio.create_task(working.work(client, ledger, None, "amqp://x", plan))
    return Stand(broker, task, said)


async def test_health_answers_until_the_last_message_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it stops it is unready, says so, and its metrics are there."""
    broker = MemoryBroker([b'{"request_id": "order 1"}'])
    stand = await begin(monkeypatch, broker)
    issue = Ledger.issue

    async def held(*arguments: Any, **options: Any) -> Any:
        stand.is_handling.set()
        await stand.may_end.wait()
        return await issue(*arguments, **options)

    monkeypatch.setattr(Ledger, "issue", held)
    async with asyncio.timeout(PATIENCE_S):
        await stand.is_handling.wait()
        assert await fetch(f"{stand.url}/readyz") == (200, "ok\n")
        signal.raise_signal(signal.SIGTERM)
        while not any(line.startswith("Stopping") for line in stand.said):
            await asyncio.sleep(0)
        assert await fetch(f"{stand.url}/readyz") == (503, "it stops\n")
        assert await fetch(f"{stand.url}/healthz") == (200, "ok\n")
        _, metrics = await fetch(f"{stand.url}/metrics")
        assert "rm_worker_unkept_codes 0.0" in metrics
        assert "rm_worker_in_flight 1.0" in metrics
        stand.may_end.set()
        await stand.task
    assert len(broker.vouchers) == 1


async def test_signal_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is at work, so nothing is waited for; until then it is unready."""
    broker = MemoryBroker()
    stand = await begin(monkeypatch, broker)

    async def wait(_: object) -> None:
        stand.is_handling.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(broker, "start", wait)
    async with asyncio.timeout(PATIENCE_S):
        await stand.is_handling.wait()
        assert await fetch(f"{stand.url}/readyz") == (503, "the broker is away\n")
        status, _ = await fetch(f"{stand.url}/metrics")
        assert status == 200
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await stand.task
