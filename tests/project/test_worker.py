"""A worker with a real RabbitMQ: killed, restarted, and still one code for each id.

The command ``rm-voucher worker``, and examples/worker.py, which hands on through an outbox.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections import defaultdict

import aio_pika
import pytest
from support.command import PATIENCE_S
from support.files import EXAMPLES

from rm_voucher import RetryPolicy
from rm_voucher.ledger import Ledger

pytestmark = pytest.mark.long

MESSAGES = int(os.environ.get("WORKER_MESSAGES", "300"))
KILLS = int(os.environ.get("WORKER_KILLS", "2"))
COPIES = 3
SETTLE_S = 0.5
BATCH = "TEA"
FAULTS = "drop-before-commit,drop-after-commit,truncated,error-after-commit,token-revoked"
PROGRAMS = {
    "command": ("-m", "rm_voucher.cli", "worker", "--exclusive", "--settle", SETTLE_S),
    "example": (EXAMPLES / "worker.py",),
}


@pytest.fixture
async def queues():
    async with queues_of("rabbitmq") as queues:
        yield queues


class Run:
    """A worker's queues, its processes one after the other, and what came out of them."""

    def __init__(self, queues, emulator, ledger_url, program):
        self.channel = queues._channel
        self.names = queues.names
        self.emulator = emulator
        self.ledger_url = ledger_url
        self.program = PROGRAMS[program]
        self.variables = {
            **os.environ,
            **emulator.variables,
            "RM_LEDGER_URL": ledger_url,
            "BATCH_KEY": BATCH,
            "QUEUE_PREFIX": self.prefix,
            "RABBITMQ_URL": RABBITMQ_URL,
            "RETRY_S": "0.5",
            "RM_LEDGER_SETTLE_S": str(SETTLE_S),
        }
        self.handed_on: defaultdict[str, list[str]] = defaultdict(list)
        self.count = 0
        self.parked: list[bytes] = []
        self.lines: list[str] = []
        self.news = asyncio.Condition()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self):
        """Start the worker; return when it consumes."""
        begun = len(self.lines)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "worker.py"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=EXAMPLES,
            env=self.variables,
        )
        self.reading = asyncio.create_task(self._read(self.process))
        await self.until(lambda: any(STARTED in line for line in self.lines[begun:]))

    async def end(self, number):
        """End the worker; return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        await self.reading
        return await self.process.wait()

    async def _read(self, process):
        async for line in process.stdout:
            await self._tell(lambda line=line: self.lines.append(line.decode()))
        await process.wait()
        await self._tell(lambda: None)

    async def _tell(self, change):
        async with self.news:
            change()
            self.news.notify_all()

    async def until(self, condition):
        """Wait for something that the worker does; it must not end meanwhile."""

        def is_met():
            return condition() or (self.process and self.process.returncode is not None)

        async with asyncio.timeout(2 * PATIENCE_S + MESSAGES / 10), self.news:
            await self.news.wait_for(is_met)
        assert condition(), "".join(self.lines[-40:])

    async def listen(self, *names):
        """Take what comes out of the worker."""
        takers = {"vouchers": self._take, "requests.parked": self._take_parked}
        for name in names or takers:
            queue = await self.channel.declare_queue(self.prefix + name, passive=True)
            await queue.consume(takers[name], no_ack=True)

    async def _take(self, message):
        def change():
            handed_on = json.loads(message.body)
            self.handed_on[handed_on["request_id"]].append(handed_on["code"])
            self.count += 1

        await self._tell(change)

    async def _take_parked(self, message):
        await self._tell(lambda: self.parked.append(message.body))

    async def publish(self, *bodies):
        """Publish messages, in this order; return when the broker has them all."""
        await asyncio.gather(
            *(
                self.channel.default_exchange.publish(
                    aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                    self.prefix + "requests",
                )
                for body in bodies
            )
        )

    async def clean(self):
        if self.process is not None and self.process.returncode is None:
            await self.end(signal.SIGKILL)
        for name in ("requests", "requests.later", "requests.parked", "vouchers"):
            await self.channel.queue_delete(self.prefix + name)


@pytest.fixture
async def run(channel, emulating, tmp_path):
    """A worker that issues on an emulator that fails a twentieth of all requests."""
    emulator = emulating(
        *("--batch", f"{BATCH}={2 * MESSAGES}", "--seed", 7, "--quiet"),
        *("--fault-rate", 0.05, "--fault-kinds", FAULTS),
    )
    run = Run(channel, emulator, f"sqlite:///{tmp_path}/ledger.db")
    yield run
    await run.clean()


def body_of(request_id, member):
    return json.dumps({"request_id": request_id, "member": member}).encode()


async def test_worker_gives_each_id_one_code_through_kills(run):
    """Each message three times, kills in the middle and at the start: one code for each id."""
    ids = [f"order {number}" for number in range(MESSAGES)]
    bodies = [body_of(name, "42") for name in ids] * COPIES
    random.Random(7).shuffle(bodies)
    await run.start()
    await run.listen()
    publishing = asyncio.create_task(run.publish(*bodies))
    for kill in range(KILLS):
        if kill % 2 == 0:  # in the middle; else as soon as it is up, while it recovers
            goal = MESSAGES * COPIES * (kill + 1) // (KILLS + 2)
            await run.until(lambda goal=goal: run.count >= goal)
        assert await run.end(signal.SIGKILL) == -signal.SIGKILL
        await run.start()
    await publishing
    await run.until(lambda: len(run.handed_on) == MESSAGES and run.count >= len(bodies))
    assert await run.end(signal.SIGTERM) == 0

    codes = {name: set(handed) for name, handed in run.handed_on.items()}
    assert sorted(codes) == sorted(ids)
    assert {len(each) for each in codes.values()} == {1}
    assert len(set().union(*codes.values())) == MESSAGES
    assert not any(code in line for line in run.lines for (code,) in codes.values())
    async with (
        run.emulator.client(retry=RetryPolicy()) as client,
        Ledger.open(run.ledger_url, mode="exclusive", settle_s=SETTLE_S) as ledger,
    ):
        counts = await ledger.finish(client, BATCH)
        kept = {
            request.id: {voucher.code} async for request, voucher in ledger.requests() if voucher
        }
    assert kept == codes
    assert counts.asked == counts.assigned == MESSAGES
    (batch,) = run.emulator.control("batches")
    assert batch["issued"] == counts.assigned + counts.spare
    assert run.parked == []


async def test_worker_parks_what_is_no_request(run):
    """What can never be issued is parked once, as it was sent, and the rest goes on."""
    bad = [b"\xff", b"{", b"[]", b'{"member": "42"}', b'{"request_id": 1, "member": "42"}']
    await run.start()
    await run.listen()
    await run.publish(body_of("order 1", "42"))
    await run.until(lambda: run.handed_on)
    await run.publish(*bad, body_of("order 1", "another"), body_of("order 2", "42"))
    await run.until(lambda: len(run.parked) == len(bad) + 1 and len(run.handed_on) == 2)
    assert sorted(run.parked) == sorted([*bad, body_of("order 1", "another")])
    assert await run.end(signal.SIGTERM) == 0
    assert not any("Traceback" in line for line in run.lines)


async def test_worker_keeps_a_message_whose_voucher_no_queue_takes(run):
    """A voucher that can't be handed on: its message is parked, its code kept and in no log."""
    await run.start()
    await run.listen("requests.parked")
    await run.channel.queue_delete(run.prefix + "vouchers")
    await run.publish(body_of("order 1", "42"))
    await run.until(lambda: run.parked)
    assert run.parked == [body_of("order 1", "42")]
    assert await run.end(signal.SIGTERM) == 0
    async with Ledger.open(run.ledger_url, read_only=True) as ledger:
        ((_, voucher),) = [each async for each in ledger.requests()]
    assert voucher is not None
    assert not any(voucher.code in line for line in run.lines)
