"""The world of a simulation: the same run for the same seed, and a server that outlives crashes."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from simulation.loop import CrashError
from simulation.world import KINDS, World

from rm_voucher import (
    ConnectError,
    OutcomeUnknownError,
    ResponseTimeoutError,
    RetryPolicy,
    Timeout,
    VoucherError,
)
from rm_voucher.emulator import Fault

SEEDS = range(8)
WORKERS, ISSUES, CRASHES = 32, 200, 2
ONE_ATTEMPT = RetryPolicy(max_attempts=1)


def campaign(seed):
    """Issue to some recipients through faults and crashes; return the world, the codes that
    arrived, and what the attempts ended with."""
    world = World(seed, fault_rate=0.3)
    recipients: list[int] = list(range(ISSUES))
    codes: list[str] = []
    ends: Counter[str | None] = Counter()

    def watch(_):
        return lambda result: ends.update([result.error])

    async def worker(client):
        while recipients:
            recipient = recipients.pop()
            try:
                code = (await client.issue("B")).code
            except VoucherError as exc:
                world.event("failed", recipient, type(exc).__name__)
            else:
                codes.append(code)
                world.event("issued", recipient, code)

    async def main():
        client = world.client(hooks=[watch])
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(worker(client))

    for _ in range(CRASHES):
        with pytest.raises(CrashError):
            world.run(main, crash_after_s=world.random("crash").uniform(0.1, 0.5))
    world.run(main)
    world.settle()
    return world, codes, ends


def crash_after_sending(world, fault=None):
    """Run a process that has issued a voucher, and crashes when it has sent the next request."""

    async def main():
        client = world.client(retry=ONE_ATTEMPT)
        await client.issue("B")
        if fault is not None:
            world.emulator.fail_next("issue", fault)
        sending = asyncio.create_task(client.issue("B"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not sending.done()
        world.loop.crash()

    with pytest.raises(CrashError):
        world.run(main)
    assert world.emulator.requests["issue"] == 1


def test_request_outlives_its_process(world):
    """What was sent before a crash arrives after it and is executed, and its code is nobody's."""
    crash_after_sending(world)
    world.settle(world.latency_s * 2)
    assert world.emulator.requests["issue"] == 2
    (_, lost) = world.emulator.issued("B")
    assert world.emulator.undelivered == [lost]


def test_late_work_outlives_its_process(world):
    """Late work is done at its own instant, though the process that asked for it has crashed."""
    crash_after_sending(world, Fault.LATE_COMMIT)
    world.clock.run_for(world.latency_s)
    due = world.emulator.virtual_clock.next_due()
    assert due > world.clock.true_wall()
    world.clock.run_for(due - world.clock.true_wall() - 0.001)
    assert len(world.emulator.issued("B")) == 1
    world.settle()
    (_, late) = world.emulator.issued("B")
    assert world.emulator.undelivered == [late]
    assert world.emulator.voucher(late).assigned_at.timestamp() == pytest.approx(due, abs=1e-5)


def test_answer_that_takes_too_long_is_a_timeout(world):
    """An answer is waited for as long as the attempt may take, to the instant, whether it never
    comes, comes too late, or is to a request that itself arrives too late; its code is nobody's."""
    patience = Timeout(connect_s=1, attempt_s=4)
    waited = []

    async def issue(client):
        began = world.clock.now
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.issue("B", timeout=patience)
        assert type(caught.value.__cause__) is ResponseTimeoutError
        waited.append(world.clock.now - began)

    async def main():
        client = world.client(retry=ONE_ATTEMPT)
        await client.issue("B")
        world.emulator.fail_next("issue", Fault.TIMEOUT_AFTER_COMMIT)
        await issue(client)
        world.latency_s = 1e6
        slow = world.client(retry=ONE_ATTEMPT, token_source=client.caller.tokens)
        await issue(slow)

    world.run(main)
    assert waited == [4, 4]
    assert world.emulator.requests["issue"] == 2
    world.settle(2e6)
    assert world.emulator.requests["issue"] == 3
    assert world.emulator.undelivered == list(world.emulator.issued("B")[1:])


def test_cancelled_request_is_executed(world):
    """Who cancels a request that was sent gets no voucher, and the server has issued one."""

    async def main():
        client = world.client()
        await client.issue("B")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await client.issue("B")

    world.run(main)
    world.settle()
    assert world.emulator.undelivered == list(world.emulator.issued("B")[1:]) != []


def test_a_request_on_its_way_is_no_deadlock(world):
    """A process that waits for nothing but the server is not stuck."""

    async def main():
        return (await world.client().issue("B")).code

    assert (world.run(main),) == world.emulator.issued("B")


@pytest.mark.parametrize("what", [ConnectError("x"), {"a set"}, object()])
def test_event_takes_plain_values_only(world, what):
    """What looks different in each run can't come into the digest."""
    with pytest.raises(TypeError, match="text, numbers and None"):
        world.event("issued", what)


def test_same_seed_same_run():
    """Each seed replays to its digest, and each has another one."""
    digests = [campaign(seed)[0].digest() for seed in SEEDS]
    assert [campaign(seed)[0].digest() for seed in SEEDS] == digests
    assert len(set(digests)) == len(SEEDS)


@pytest.mark.long
def test_same_seed_same_run_in_another_interpreter():
    """A run does not depend on the order of sets, which is another one in each interpreter."""
    code = "from simulation.test_harness import campaign; print(campaign(1)[0].digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {campaign(1)[0].digest()}


def test_campaigns_meet_everything_and_nothing_is_unaccounted_for():
    """In each run what the server issued either arrived or is known to be undelivered; over all of
    them every fault was met, no connection was to be had at times, and most got their voucher."""
    met: set[Fault] = set()
    ends: Counter[str | None] = Counter()
    arrived = 0
    for seed in SEEDS:
        world, codes, ends_of_one = campaign(seed)
        assert sorted(world.emulator.issued("B")) == sorted([*codes, *world.emulator.undelivered])
        met.update(fault for _, fault in world.emulator.faults_met)
        ends += ends_of_one
        arrived += len(codes)
    assert met == {*KINDS} - {Fault.LISTING_DELAY}
    assert arrived > len(SEEDS) * ISSUES * 0.5
    assert ends["ConnectError"] > len(SEEDS)
