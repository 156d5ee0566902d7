"""One rate for all processes of an account: its figures, in virtual time.

Each story is told with several seeds; ``SHARED_RATE_SEEDS`` sets how many of the long ones.
"""

import asyncio
import math
import os

import pytest
from simulation.processes import World, run

from rm_voucher import FlowPolicy
from rm_voucher.calls import shared_flow
from rm_voucher.calls.flow import Flow

SEEDS = range(1, 1 + int(os.environ.get("SHARED_RATE_SEEDS", "2")))
LEARN_S = 19.0
WINDOW_S = 60.0


# The first tells on each change, the others on purpose.
seeds = pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.long] * (seed > 1)) for seed in SEEDS],
)


def steady(seed, processes, per_s, **settings):
    """Let processes work for a while; return their world, and the window to look at."""

    async def story(world: World) -> None:
        world.start(processes)
        await asyncio.sleep(LEARN_S + WINDOW_S)

    world = run(story, seed=seed, per_s=per_s, **settings)
    return world, world.clock.now - WINDOW_S, world.clock.now


def rate_per_process(patch):
    patch.setattr(World, "make_flow", lambda world, process, runtime: Flow(FlowPolicy(), runtime))


def lease_without_expiry(patch):
    def endless(at, until, granted_at):
        return right(at, math.inf, granted_at)

    right = shared_flow._Permit
    patch.setattr(shared_flow, "_Permit", endless)


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("processes", "per_s", "used"),
    [
        (4, 50, 0.985),
        long(4, 200, 0.98),
        long(16, 50, 0.97),
        long(48, 50, 0.95),
        long(4, 1000, 0.97),
    ],
)
@seeds
def test_limit_is_used_in_sum_and_fairly(seed, processes, per_s, used):
    """Untold, all processes together use nearly the whole limit, at most one request in a hundred
    is throttled, and each has the same share; the store is asked a few times a second."""
    world, begin, end = steady(seed, processes, per_s)
    assert used <= world.used(begin, end) <= 1.005
    assert world.throttled(begin, end) <= (0.01 if processes < 48 else 0.012)
    assert world.fairness(begin, end) >= 0.99
    assert world.store.operations < 4 * per_s * (LEARN_S + WINDOW_S)


@pytest.mark.parametrize("mutant", [None, rate_per_process, lease_without_expiry])
@pytest.mark.long
def test_stopped_processes_come_back_together(mutant, monkeypatch):
    """Processes that go on after a stop use no turns of before it, and learn nothing anew. A rate
    of each process's own, and a lease that never ends, would show."""

    async def stop_all(world: World) -> None:
        for number in range(6):
            for process in world.processes:
                process.stop()
            await asyncio.sleep(3)
            for process in world.processes:
                process.go_on()
            await asyncio.sleep(1 + number / 5)

    if mutant is not None:
        mutant(monkeypatch)
    world, at = changed(1, stop_all, processes=16, after_s=0.0)
    throttled = world.count("throttled", at, world.clock.now)
    assert throttled <= 12 if mutant is None else throttled >= 40


def changed(seed, change, *, processes=4, per_s=50.0, after_s=40.0):
    """Return a world in which something happened after it had learned, and when that was."""
    at = 0.0

    async def story(world: World) -> None:
        nonlocal at
        world.start(processes)
        await asyncio.sleep(LEARN_S + 11)
        at = world.clock.now
        await change(world)
        await asyncio.sleep(after_s)

    return run(story, seed=seed, per_s=per_s), at


async def kill_one(world: World) -> None:
    await world.kill(world.processes[0])


async def start_one(world: World) -> None:
    world.start()


async def stop_one(world: World) -> None:
    world.processes[0].stop()
    await asyncio.sleep(20)
    world.processes[0].go_on()


async def stop_most(world: World) -> None:
    for process in world.processes[1:]:
        process.stop()
    await asyncio.sleep(20)
    for process in world.processes[1:]:
        process.go_on()


@pytest.mark.parametrize(
    ("change", "used", "throttled"),
    [
        long(kill_one, 0.98, 0.01),
        long(start_one, 0.98, 0.01),
        (stop_one, 0.98, 0.01),
        # Those that were stopped go alone for a moment: their timers go on here.
        long(stop_most, 0.94, 0.012),
    ],
)
@seeds
def test_processes_come_and_go(seed, change, used, throttled):
    """From 5 s after a kill, a start or a stop, nearly the whole limit is used again, and hardly
    anything throttled; one that was stopped uses none of its turns of before."""
    world, at = changed(seed, change)
    assert world.used(at + 5, world.clock.now) >= used
    assert world.throttled(at + 5, world.clock.now) <= throttled
    assert world.fairness(world.clock.now - 20, world.clock.now) >= 0.98


@pytest.mark.long
@seeds
def test_rolling_restarts(seed):
    """While one process after the other is replaced, 97 % of the limit are used."""

    async def restart_all(world: World) -> None:
        for process in list(world.processes):
            world.start()
            await asyncio.sleep(3)
            await world.kill(process)
            await asyncio.sleep(3)

    world, at = changed(seed, restart_all, processes=3, after_s=10.0)
    assert world.used(at, world.clock.now) >= 0.97
    assert world.throttled(at, world.clock.now) <= 0.01


@seeds
def test_limit_is_doubled_and_halved(seed):
    """A limit that doubles is used to 95 % within 30 s. One that is halved throttles at most 15 %
    for 5 s, then hardly anything, and is used whole again after 15 s."""
    halved_at = 0.0

    async def double(world: World) -> None:
        nonlocal halved_at
        world.server.per_s *= 2
        doubled_at = world.clock.now
        await asyncio.sleep(40)
        assert max(world.used(doubled_at + s, doubled_at + s + 3) for s in range(27)) >= 0.95
        assert world.used(doubled_at + 30, doubled_at + 40) >= 0.9
        halved_at = world.clock.now
        world.server.per_s /= 2

    world, _ = changed(seed, double)
    assert world.throttled(halved_at, halved_at + 5) <= 0.15
    assert world.throttled(halved_at + 5, halved_at + 40) <= 0.02
    assert world.used(halved_at + 15, halved_at + 40) >= 0.95


@pytest.mark.parametrize("trouble", ["refusing", long("silent")])
@seeds
def test_store_is_away(seed, trouble):
    """While the store is away for 12 s, each goes on with its share, and says so; when it is back,
    all share again."""

    async def lose_the_store(world: World) -> None:
        world.store.trouble = trouble
        await asyncio.sleep(12)
        for process in world.processes:
            state = process.flow.state
            assert state.store_away_s is not None
            assert 10 < state.store_away_s <= 12
            assert state.rate_per_s == pytest.approx(world.server.per_s / 4, rel=0.15)
        world.store.trouble = ""

    world, at = changed(seed, lose_the_store, after_s=20)
    assert world.used(at, at + 12) >= 0.85
    assert world.throttled(at, at + 12) <= 0.02
    assert world.used(at + 17, at + 32) >= 0.92


@pytest.mark.long
@seeds
def test_one_process_loses_the_store(seed):
    """A process that alone can't reach the store goes on with its share beside the others. They
    learn that theirs is less, and need a while to find the whole again."""

    async def cut_one_off(world: World) -> None:
        world.processes[0].store.is_cut = True
        await asyncio.sleep(12)
        world.processes[0].store.is_cut = False

    world, at = changed(seed, cut_one_off, after_s=20)
    assert world.used(at, at + 12) >= 0.85
    assert world.throttled(at, at + 12) <= 0.05
    assert world.used(at + 17, at + 32) >= 0.8


@seeds
def test_outage_is_probed_by_one(seed):
    """In an outage all processes send as few probes as one alone would, and go on together."""

    async def fail(world: World) -> None:
        world.server.is_down = True
        await asyncio.sleep(30)
        world.server.is_down = False

    world, at = changed(seed, fail, after_s=30)
    assert world.count("failed", at + 5, at + 30) <= 12
    assert world.used(at + 45, at + 60) >= 0.95


@seeds
def test_retry_after_is_kept_by_all(seed):
    """When the server asks one process to wait, all do."""

    async def ask_to_wait(world: World) -> None:
        world.server.retry_after_s = 10.0
        world.server.per_s = 1.0
        await asyncio.sleep(0.3)
        world.server.retry_after_s = None
        world.server.per_s = 50.0

    world, at = changed(seed, ask_to_wait, after_s=20)
    assert len([1 for when, _, _ in world.server.log if at + 1 < when < at + 9]) == 0
    assert world.used(at + 14, at + 20) >= 0.9


def test_users_limit_is_shared():
    """A limit of the user's own holds for all processes together."""

    async def story(world: World) -> None:
        world.start(4)
        await asyncio.sleep(20)

    world = run(story, seed=1, per_s=1000, policy=FlowPolicy(rate_per_s=20))
    begin, end = world.clock.now - 15, world.clock.now
    assert 0.98 * 20 * 15 <= world.count("taken", begin, end) <= 20 * 15 + 2
    assert world.count("throttled", begin, end) == 0
    assert world.fairness(begin, end) >= 0.99


@pytest.mark.parametrize("off_s", [-3600.0, long(3600.0)])
def test_clock_of_the_store_is_set(off_s):
    """The store's clock may be set: all go on as before."""

    async def set_clock(world: World) -> None:
        world.store.off_s = off_s

    world, at = changed(1, set_clock, after_s=15)
    assert world.used(at + 5, at + 15) >= 0.93
    assert world.throttled(at + 5, at + 15) <= 0.02
