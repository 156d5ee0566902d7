"""Virtual time, and how a process ends in it: by itself, by a crash, or by waiting forever."""

import asyncio
import contextlib

import pytest
from simulation.clock import VirtualClock
from simulation.loop import CrashError, DeadlockError, VirtualLoop

from rm_voucher import VoucherClient


def test_time_jumps_to_the_next_timer(world):
    """Two sleeps of hours end in their order, each at exactly its instant, and nobody waits."""
    ends = []

    async def sleeper(seconds):
        await asyncio.sleep(seconds)
        ends.append((seconds, asyncio.get_running_loop().time()))

    async def main():
        await asyncio.gather(sleeper(7200.3), sleeper(3600.1))
        return "done"

    began = world.clock.now
    assert world.run(main) == "done"
    assert ends == [(3600.1, began + 3600.1), (7200.3, began + 7200.3)]


def test_time_is_not_moved_by_timers_that_ring_for_nobody(world):
    """A time-out that was not needed, and what a dead process waited for, take no time."""

    async def patient():
        asyncio.get_running_loop().call_later(1000, print)
        await asyncio.sleep(1000)

    async def main():
        async with asyncio.timeout(1000):
            await asyncio.sleep(1)
        await asyncio.get_running_loop().create_future()

    began = world.clock.now
    with pytest.raises(CrashError):
        world.run(patient, crash_after_s=1)
    with pytest.raises(DeadlockError):
        world.run(main)
    assert world.clock.now == began + 2


def test_time_stands_still_while_a_process_is_busy(world):
    """What is due at this instant happens though tasks are ready, and nothing later does."""
    rung: list[str] = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0, rung.append, "now")
        loop.call_later(0.001, rung.append, "later")
        while not rung:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        return list(rung)

    assert world.run(main) == ["now"]


def test_timers_of_one_instant_ring_in_their_order(world):
    """What falls due at the same instant happens in the order in which it was asked for."""
    order: list[int] = []

    async def main():
        for number in range(20):
            asyncio.get_running_loop().call_at(world.clock.now + 1, order.append, number)
        await asyncio.sleep(2)

    world.run(main)
    assert order == list(range(20))


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_wall_steps_and_monotonic_time_does_not(world, step_s):
    """A step of the machine's clock ends no sleep, and the server's time has no part in it."""
    clock = world.clock

    async def main():
        wall, true_wall, now = clock.wall(), clock.true_wall(), clock.monotonic()
        clock.after(5, clock.step_wall, step_s)
        await asyncio.sleep(10)
        return clock.wall() - wall, clock.true_wall() - true_wall, clock.monotonic() - now

    assert world.run(main) == (10 + step_s, 10, 10)


def test_main_raises_and_leaves_tasks(world):
    """The error of the main coroutine comes out, after what it left was cancelled, oldest first,
    and has come to its end."""
    ended = []

    async def background(number):
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            ended.append(number)

    async def main():
        tasks = [asyncio.create_task(background(number)) for number in range(10)]
        await asyncio.sleep(1)
        raise ValueError(f"{len(tasks)} are left")

    with pytest.raises(ValueError, match="10 are left"):
        world.run(main)
    assert ended == list(range(10))


def test_crash_abandons_all_tasks_and_the_next_process_goes_on(world):
    """No step is made after the crash; the next process begins at the instant of the crash."""
    began, steps = world.clock.now, []

    async def stepper():
        while True:
            await asyncio.sleep(0.4)
            steps.append(round(world.clock.now - began, 1))

    async def main():
        await asyncio.gather(stepper(), stepper())

    with pytest.raises(CrashError):
        world.run(main, crash_after_s=1)
    assert steps == [0.4, 0.4, 0.8, 0.8]

    async def next_process():
        assert world.clock.now == began + 1
        await asyncio.sleep(10)

    world.run(next_process)
    assert len(steps) == 4


def test_crash_within_a_step_stops_all_others(world):
    """A crash in the middle of a step ends it there; who is ready at that instant has no turn
    any more, nor has the step's own task, though it swallows everything."""
    steps = []

    async def crasher():
        with contextlib.suppress(BaseException):
            world.loop.crash()
            steps.append("after the crash")
        await asyncio.sleep(0)
        steps.append("swallowed")

    async def bystander():
        steps.append("bystander")

    async def main():
        await asyncio.gather(crasher(), bystander())

    with pytest.raises(CrashError):
        world.run(main)
    assert steps == []


def test_crash_lets_no_finally_reach_the_outside(world):
    """What `finally` blocks, generators and context managers of a dead process do is over when its
    run is, and taken by nobody: no event, no request, no timer, no task."""
    said, kept, before = [], [], []
    clients: list[VoucherClient] = []

    async def last_words(name):
        said.append(name)
        world.event(name)
        later = asyncio.create_task(clients[0].issue("B"))
        asyncio.get_running_loop().call_later(1, said.append, "timer")
        with contextlib.suppress(CrashError):
            await clients[0].issue("B")
        await asyncio.wait([later], timeout=3)
        said.append("went on")

    async def generator(name):
        try:
            yield 1
        finally:
            await last_words(name)

    async def dropper():
        async for _ in generator("dropped"):
            await asyncio.sleep(1000)

    async def holder():
        kept.append(generator("kept"))
        async for _ in kept[0]:
            try:
                await asyncio.sleep(1000)
            finally:
                try:
                    await last_words("first")
                finally:
                    await last_words("second")

    async def main():
        clients.append(world.client())
        await clients[0].issue("B")
        before.extend([world.digest(), world.emulator.requests["issue"]])
        async with asyncio.timeout(500), asyncio.TaskGroup() as group:
            group.create_task(holder())
            group.create_task(dropper())
            group.create_task(asyncio.sleep(1000))

    with pytest.raises(CrashError):
        world.run(main, crash_after_s=100)
    assert said == ["first", "second", "dropped", "kept"]
    assert not world.clock.run_next()
    world.settle(1000)
    assert [world.digest(), world.emulator.requests["issue"]] == before
    assert said == ["first", "second", "dropped", "kept"]


def test_generator_that_a_process_leaves_ends_with_it(world):
    """A generator that was not exhausted is closed with its process, not when it is collected."""
    kept, ended = [], []

    async def generator():
        try:
            yield 1
        finally:
            ended.append(world.loop.dead)

    async def main():
        kept.append(generator())
        return await anext(kept[0])

    assert world.run(main) == 1
    assert ended == [True]


def test_crash_is_heard_only_by_the_process_of_its_time(world):
    """A crash that comes after its process has ended does nothing to the next one."""

    async def main():
        await asyncio.sleep(1)

    world.run(main, crash_after_s=1.5)
    world.run(main)


def test_deadlock_is_named(world):
    """When nothing is left that could happen, the tasks that wait are named at once; so are those
    that spin while time stands still, and those that live on for a day."""

    async def stuck():
        await asyncio.get_running_loop().create_future()

    async def spinning():
        while True:
            await asyncio.sleep(0)

    async def polling():
        while True:
            await asyncio.sleep(10)

    for waiter in (stuck, spinning, polling):

        async def main(waiter=waiter):
            await asyncio.create_task(waiter(), name="the waiter")

        with pytest.raises(DeadlockError, match=rf"main \(.*, the waiter \(.*{waiter.__name__}\)$"):
            world.run(main)


def test_threads_are_refused(world):
    """A thread would run in real time, so a process can't begin one."""

    async def main():
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(print)

    world.run(main)


def test_loop_in_a_clock_of_its_own():
    """A loop needs a clock, and no world."""
    loop = VirtualLoop(VirtualClock())

    async def main():
        task = asyncio.current_task()
        assert task is not None
        loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        return loop.time()

    assert loop.run(main) == loop.clock.now
    assert loop.is_closed()
