"""The recipes that are no web applications: structlog, FastStream; and anyio."""

import asyncio
import json
import subprocess
import sys

import anyio
import pytest
from aio_pika import DeliveryMode
from faststream import TestApp
from faststream.rabbit import TestRabbitBroker
from support.brokers import RabbitQueues, queues_of
from support.command import PATIENCE_S
from support.example_modules import load_changed, load_example
from support.files import EXAMPLES, KEY_FILE

from rm_voucher import Credentials, OutcomeUnknownError
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.server import serve

BATCH = "BREAKFAST"

LOGGING = """
import asyncio, logging
import structlog
from rm_voucher import Issued
from rm_voucher.emulator import Emulator, Fault
from structlog_logging import set_up

async def main():
    set_up()
    logging.getLogger("rm_voucher").setLevel(logging.DEBUG)
    log = structlog.get_logger("shop")
    structlog.contextvars.bind_contextvars(order=17)
    emulator = Emulator(batches={"BREAKFAST": 5})
    emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    async with emulator.client() as client:
        try:
            await client.issue("BREAKFAST")
        except Exception:
            log.exception("lost")
        issued = await client.issue("BREAKFAST")
        log.info("issued", voucher=issued, all=[issued], thing=object)
        log.info("looked up", voucher=await client.get(issued.code))
        log.info("ended", result=Issued(recipient="Ann", voucher=issued, attempts=1))
    print(*emulator.issued("BREAKFAST"))

asyncio.run(main())
"""


def test_structlog_writes_no_code():
    """Each line is JSON, our records among them; vouchers are in it, masked."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOGGING],
        capture_output=True,
        text=True,
        cwd=EXAMPLES,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = done.stdout.split()
    assert len(codes) == 2
    assert not [code for code in codes if code in done.stderr]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    ours = [line for line in lines if line["logger"].startswith("rm_voucher")]
    assert any("issue attempt" in line["event"] for line in ours)
    assert {line["order"] for line in lines} == {17}
    shown = {line["event"]: line for line in lines if line["logger"] == "shop"}
    assert shown["issued"]["voucher"]["masked"] == ["code", "qr_url"]
    assert shown["issued"]["all"] == [shown["issued"]["voucher"]]
    assert shown["looked up"]["voucher"]["status"] == "ISSUED"
    assert shown["ended"]["result"]["recipient"] is None
    assert "OutcomeUnknownError" in shown["lost"]["exception"]


async def test_faststream_gives_each_order_one_voucher(monkeypatch, tmp_path):
    """A message that comes twice has one code; one whose answer was lost is never issued again."""
    emulator = Emulator(
        credentials=Credentials("id", "hush", KEY_FILE.read_bytes()), batches={BATCH: 5}
    )
    monkeypatch.setenv("BROKER_URL", "amqp://127.0.0.1")
    monkeypatch.setenv("BATCH_KEY", BATCH)
    monkeypatch.setenv("LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")
    module = load_example("faststream_app")
    handed = []

    @module.broker.subscriber("vouchers")
    async def take(message: dict):
        handed.append((message["order"], message["qr_url"]))

    async with serve(emulator) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        async with TestRabbitBroker(module.broker) as broker, TestApp(module.app):
            for _ in range(2):
                await broker.publish({"id": 1}, "orders")
            emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
            for _ in range(2):
                with pytest.raises(OutcomeUnknownError):
                    await broker.publish({"id": 2}, "orders")
    first, _ = emulator.issued(BATCH)
    assert [(number, url.rpartition("/")[2]) for number, url in handed] == [(1, first)] * 2


async def test_faststream_keeps_the_order_of_a_voucher_that_no_queue_takes(monkeypatch, tmp_path):
    """On RabbitMQ, whose publisher is told of it: the order comes again until there is a queue,
    which then has the one voucher, to be kept through a restart."""
    emulator = Emulator(
        credentials=Credentials("id", "hush", KEY_FILE.read_bytes()), batches={BATCH: 5}
    )
    async with queues_of("rabbitmq") as queues, serve(emulator) as server:
        assert isinstance(queues, RabbitQueues)
        names = queues.names
        settings = {
            "BROKER_URL": queues.url,
            "BATCH_KEY": BATCH,
            "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        }
        for name, value in {**server.variables, **settings}.items():
            monkeypatch.setenv(name, value)
        ours = {
            'subscriber("orders"': f'subscriber("{names.requests}"',
            'publisher("vouchers"': f'publisher("{names.vouchers}"',
        }
        module = load_changed("faststream_app", ours)
        came = asyncio.Semaphore(0)

        issue = module.Vouchers.issue

        async def note(vouchers, request_id):
            came.release()
            return await issue(vouchers, request_id)

        monkeypatch.setattr(module.Vouchers, "issue", note)
        async with asyncio.timeout(PATIENCE_S), TestApp(module.app):
            await queues.publish(b'{"id": 1}')
            for _ in range(3):
                await came.acquire()
            queue = await queues.declare(names.vouchers)
            while (message := await queue.get(fail=False)) is None:
                await asyncio.sleep(0.01)
            await message.ack()
        assert await queue.get(fail=False) is None
        assert [body async for body, _ in queues.taking(names.requests)] == []
    (code,) = emulator.issued(BATCH)
    assert json.loads(message.body)["order"] == 1
    assert json.loads(message.body)["qr_url"].rpartition("/")[2] == code
    assert message.delivery_mode is DeliveryMode.PERSISTENT


def test_anyio_on_asyncio():
    """A program that anyio runs on asyncio: tasks in its groups issue, and its time-outs cancel."""
    emulator = Emulator(batches={BATCH: 5})
    issued = []

    async def issue(client):
        issued.append((await client.issue(BATCH)).code)

    async def main():
        async with emulator.client() as client:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(issue, client)
            with anyio.move_on_after(0) as scope:
                await client.get(issued[0])
            assert scope.cancelled_caught
            await issue(client)

    anyio.run(main, backend="asyncio")
    assert sorted(issued) == sorted(emulator.issued(BATCH))
