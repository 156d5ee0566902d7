"""Workers that are killed, stopped and cut off: one code an id, all handed on, nothing stuck.

Messages come all the while. Real processes, and a PostgreSQL and a broker of the test's own, which
are restarted once. ``CHAOS`` is the share of the whole that is run: 1 is what ``nox -s chaos``
runs, 2,000 messages three times each through RabbitMQ, and a tenth of that through NATS JetStream
and Redis streams. Less than a tenth is two workers on RabbitMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import orjson
import pytest
from chaos.fleet import Fleet, Harvest, Member, Ways
from support.brokers import queues_of
from support.command import Emulating
from support.postgres import run_sql
from support.private_services import BROKERS, Postgres, Service, running

from rm_voucher.ledger import AttemptState, Ledger

pytestmark = pytest.mark.long

_log = logging.getLogger("chaos")
SHARE = float(os.environ.get("CHAOS", "0.05"))
SEED = int(os.environ.get("CHAOS_SEED", "7"))
IS_WHOLE = SHARE >= 0.1
COPIES = 3
WORKERS = 4 if IS_WHOLE else 2
KINDS = tuple(BROKERS) if IS_WHOLE else ("rabbitmq",)  # the others: worker/test_brokers.py
BATCH = "TEA"
RATE_LIMIT = 100  # a second: what is left after the last deed waits for other things than RM
FAULTS = "drop-before-commit,drop-after-commit,truncated,error-after-commit,token-revoked"


@attrs.frozen
class Scale:
    """How much happens in a run."""

    messages: int
    kills: int
    stops: int
    stop_s: float
    cuts: int
    lasts_s: float
    settle_s: float

    @classmethod
    def of(cls, share: float) -> Scale:
        def some(whole: int) -> int:
            return max(1, round(whole * share))

        is_whole = share >= 0.1
        return cls(
            messages=some(2000),
            kills=some(10),
            stops=some(5),
            stop_s=20.0 if is_whole else 3.0,
            cuts=some(3),
            lasts_s=max(10.0, 100 * share),
            settle_s=20.0 if is_whole else 3.0,
        )


@attrs.define
class Chaos:
    """What is done to a fleet, one thing after the other, in an order of chance."""

    fleet: Fleet
    ways: Ways
    database: Service
    broker: Service
    scale: Scale
    chance: random.Random
    done: list[str] = attrs.field(factory=list)
    begun_at: float = attrs.field(factory=time.monotonic)

    async def run(self) -> None:
        scale = self.scale
        deeds: list[tuple[str, Callable[[], object]]] = [
            *(("kill", self.kill),) * scale.kills,
            *(("stop", self.stop),) * scale.stops,
            *(("cut broker", self.ways.broker.cut),) * scale.cuts,
            *(("cut database", self.ways.database.cut),) * scale.cuts,
            *(("cut server", self.ways.server.cut),) * scale.cuts,
        ]
        self.chance.shuffle(deeds)
        restarts = [
            ("restart database", self.database.restart),
            ("restart broker", self.broker.restart),
        ]
        third = len(deeds) // 3
        deeds[third:third] = restarts[:1]
        deeds[2 * third + 1 : 2 * third + 1] = restarts[1:]
        stopped: list[asyncio.Task[None]] = []
        for name, deed in deeds:
            await asyncio.sleep(scale.lasts_s / len(deeds) * self.chance.uniform(0.5, 1.5))
            self.done.append(f"{time.monotonic() - self.begun_at:6.1f} s {name}")
            if deed == self.stop:
                stopped.append(asyncio.create_task(self.stop()))
            elif name.startswith("restart"):
                await asyncio.to_thread(deed)
            else:
                deed()
        await asyncio.gather(*stopped)

    def pick(self) -> Member:
        return self.chance.choice([each for each in self.fleet.members if each.is_alive])

    def kill(self) -> None:
        self.fleet.kill(self.pick())
        self.fleet.start()

    async def stop(self) -> None:
        member = self.pick()
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(self.scale.stop_s)
        if member.is_alive:
            member.signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", KINDS)
async def test_chaos(kind: str, emulating: Callable[..., Emulating], tmp_path: Path) -> None:
    """One code an id, none twice, no message lost; issued = assigned + spare, nothing is open."""
    scale = Scale.of(SHARE if kind == "rabbitmq" else SHARE / 10)
    chance = random.Random(f"{SEED} {kind}")
    emulator = emulating(
        *("--batch", f"{BATCH}={3 * scale.messages + 100}", "--seed", SEED, "--quiet"),
        *("--fault-rate", 0.02, "--fault-kinds", FAULTS, "--rate-limit", RATE_LIMIT),
        *("--latency", 0.05),
    )
    async with contextlib.AsyncExitStack() as stack:
        database = stack.enter_context(running(Postgres))
        broker = stack.enter_context(running(BROKERS[kind]))
        ways = stack.enter_context(Ways.to(broker.url, database.url, emulator))
        async with queues_of(kind, broker.url) as queues:
            arguments = (
                *("--batch", BATCH, "--exclusive", "--settle", str(scale.settle_s)),
                *("--requests", queues.names.requests, "--vouchers", queues.names.vouchers),
                *("--prefetch", "16", "--first-delay", "1", "--max-attempts", "500"),
            )
            fleet = Fleet(tmp_path, ways.variables, arguments)
            stack.callback(fleet.close)
            for _ in range(WORKERS):
                fleet.start()
            await fleet.until_all_ready()
            ids = [f"order {number}" for number in range(scale.messages)]
            bodies = [orjson.dumps({"request_id": name, "content": name}) for name in ids] * COPIES
            chance.shuffle(bodies)
            harvest = Harvest(queues)
            harvest.sow(bodies, scale.lasts_s)
            chaos = Chaos(fleet, ways, database, broker, scale, chance)
            keeping_alive = asyncio.create_task(fleet.keep_alive())
            running_chaos = asyncio.create_task(chaos.run())
            await harvest.until(running_chaos.done, 1200)
            await running_chaos
            ended_at = time.monotonic()
            books = await stack.enter_async_context(Ledger.open(database.url, read_only=True))
            settling = asyncio.create_task(settled(books, scale.settle_s + 60))

            def is_all() -> bool:
                return set(ids) <= harvest.codes.keys()

            assert await harvest.until(is_all, scale.lasts_s + scale.settle_s + 60), (
                f"{len(set(ids) - harvest.codes.keys())} of {len(ids)} were not handed on",
                chaos.done,
                fleet.text[-5000:],
            )
            handed_on_s = time.monotonic() - ended_at
            assert await harvest.until(lambda: not harvest.lacks(ids, COPIES), 120), (
                f"messages of {harvest.lacks(ids, COPIES)} are lost",
                chaos.done,
                fleet.text[-5000:],
            )
            left = await settling
            await settled(books, scale.settle_s + 60)  # of what was lost after the last deed
            counts = await books.counts(BATCH)
            await fleet.until_all_ready()
            keeping_alive.cancel()
            codes = await fleet.stop(within_s=40)
            await harvest.gather()
            shared = await run_sql(database.url, "SELECT key FROM rm_shared_documents")
            assert {"rate", "token"} <= {key.rpartition("/")[2] for (key,) in shared}
            assert codes == [0] * WORKERS, fleet.text[-5000:]
            assert harvest.parked == []
            assert {len(set(each)) for each in harvest.codes.values()} == {1}
            given = [each[0] for each in harvest.codes.values()]
            assert len(set(given)) == len(ids)
            (batch,) = emulator.control("batches")
            assert counts.assigned == len(ids)
            assert batch["issued"] == counts.assigned + counts.spare
            text = fleet.text
            assert not any(code in text for code in given)
            _log.info("%s\n%d handed on; %s", "\n".join(chaos.done), harvest.count, counts)
            _log.info("after the last deed: %s; all handed on after %.0f s", left, handed_on_s)


async def settled(books: Ledger, within_s: float) -> str:
    """Wait until nothing that is open now is open; return how long that took, as a sentence.

    The workers alone may do anything about it.
    """
    begun_at = time.monotonic()
    open_now = await open_calls(books)
    async with asyncio.timeout(within_s):
        while open_now & await open_calls(books):
            await asyncio.sleep(0.5)
    return f"{len(open_now)} open calls, settled after {time.monotonic() - begun_at:.0f} s"


async def open_calls(books: Ledger) -> set[str]:
    states = (AttemptState.AMBIGUOUS, AttemptState.SENDING)
    return {attempt.id for attempt in await books.attempts(BATCH, states)}
