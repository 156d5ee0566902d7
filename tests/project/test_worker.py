"""examples/worker.py with a real RabbitMQ: killed, restarted, and still one row for each id."""

from __future__ import annotations

import functools
import os
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import orjson
import pytest
from chaos.fleet import Fleet, Harvest, example
from support.brokers import URLS, Queues, queues_of
from support.command import PATIENCE_S, Emulating
from support.files import EXAMPLES

from rm_voucher import RetryPolicy
from rm_voucher.ledger import Ledger

pytestmark = pytest.mark.long

MESSAGES = int(os.environ.get("WORKER_MESSAGES", "100"))
KILLS = int(os.environ.get("WORKER_KILLS", "2"))
COPIES = 3
SETTLE_S = 0.5
BATCH = "TEA"
FAULTS = "drop-before-commit,drop-after-commit,truncated,error-after-commit,token-revoked"
WITHIN_S = 2 * PATIENCE_S + MESSAGES / 10


@attrs.define
class Shop:
    """A shop with a table of orders, and the worker of the example."""

    queues: Queues
    emulator: Emulating
    fleet: Fleet
    harvest: Harvest
    file: Path

    @property
    def rows(self) -> dict[str, str]:
        with sqlite3.connect(self.file) as connection:
            return dict(connection.execute("SELECT id, code FROM orders").fetchall())


def body_of(request_id: str, member: str) -> bytes:
    return orjson.dumps({"request_id": request_id, "content": {"member": member}})


@pytest.fixture
async def shop(emulating: Callable[..., Emulating], tmp_path: Path) -> AsyncIterator[Shop]:
    """A worker that issues on an emulator that fails a twentieth of all requests."""
    emulator = emulating(
        *("--batch", f"{BATCH}={2 * MESSAGES + 100}", "--seed", 7, "--quiet"),
        *("--fault-rate", 0.05, "--fault-kinds", FAULTS),
    )
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, member TEXT, code TEXT)")
    async with queues_of("rabbitmq") as queues:
        variables = {
            **emulator.variables,
            "RM_WORKER_BROKER": URLS["rabbitmq"],
            "RM_WORKER_LEDGER": f"sqlite:///{file}",
            "RM_LEDGER_EXCLUSIVE": "yes",
            "RM_LEDGER_SETTLE_S": str(SETTLE_S),
            "BATCH_KEY": BATCH,
            "FIRST_DELAY_S": "0.5",
            "RM_WORKER_REQUESTS": queues.names.requests,
            "RM_WORKER_VOUCHERS": queues.names.vouchers,
        }
        fleet = Fleet(tmp_path, variables, (), example(EXAMPLES / "worker.py"))
        yield Shop(queues, emulator, fleet, Harvest(queues), file)
        fleet.close()


async def test_worker_gives_each_id_one_code_through_kills(shop: Shop) -> None:
    """Each message three times, kills in the middle and at the start: one code for each id."""
    ids = [f"order {number}" for number in range(MESSAGES)]
    bodies = [body_of(name, "42") for name in ids] * COPIES
    random.Random(7).shuffle(bodies)
    await shop.fleet.until_ready(shop.fleet.start())
    await shop.queues.publish(*bodies)
    for kill in range(KILLS):
        if kill % 2 == 0:  # in the middle; else as soon as it is up, while it recovers
            goal = MESSAGES * (kill + 1) // (KILLS + 2)
            reached = functools.partial(shop.harvest.has, goal)
            assert await shop.harvest.until(reached, WITHIN_S), shop.fleet.text[-3000:]
        (member,) = shop.fleet.members
        shop.fleet.kill(member)
        await shop.fleet.until_ready(shop.fleet.start())
    assert await shop.harvest.until(lambda: len(shop.harvest.codes) == MESSAGES, WITHIN_S), (
        shop.fleet.text[-3000:]
    )
    assert await shop.fleet.stop(PATIENCE_S) == [0]

    codes = {name: set(handed) for name, handed in shop.harvest.codes.items()}
    assert {len(each) for each in codes.values()} == {1}
    assert len(set().union(*codes.values())) == MESSAGES
    assert {name: {code} for name, code in shop.rows.items()} == codes
    assert not any(code in shop.fleet.text for (code,) in codes.values())
    async with (
        shop.emulator.client(retry=RetryPolicy()) as client,
        Ledger.open(f"sqlite:///{shop.file}", mode="exclusive", settle_s=SETTLE_S) as ledger,
    ):
        counts = await ledger.finish(client, BATCH)
    assert counts.asked == counts.assigned == MESSAGES
    (batch,) = shop.emulator.control("batches")
    assert batch["issued"] == counts.assigned + counts.spare
    assert shop.harvest.parked == []


async def test_worker_parks_what_is_no_request(shop: Shop) -> None:
    """What can never be issued is parked once, as it was sent, and the rest goes on."""
    bad = [b"\xff", b"{", b"[]", b'{"content": "42"}', b'{"request_id": 1, "content": "42"}']
    await shop.fleet.until_ready(shop.fleet.start())
    await shop.queues.publish(body_of("order 1", "42"))
    assert await shop.harvest.until(lambda: shop.harvest.count == 1, WITHIN_S)
    await shop.queues.publish(*bad, body_of("order 1", "another"), body_of("order 2", "42"))
    assert await shop.harvest.until(
        lambda: len(shop.harvest.parked) == len(bad) + 1 and len(shop.harvest.codes) == 2, WITHIN_S
    ), shop.fleet.text[-3000:]
    parked = sorted(body for body, _ in shop.harvest.parked)
    assert parked == sorted([*bad, body_of("order 1", "another")])
    (member,) = shop.fleet.members
    member.signal(signal.SIGTERM)
    assert member.process.wait(PATIENCE_S) == 0
    assert "Traceback" not in shop.fleet.text
