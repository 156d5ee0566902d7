"""Several processes of one account in virtual time: a server with a limit, a shared store, and what
happens to all three. A process may be killed, or stopped and go on later, as by SIGSTOP."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop

from rm_voucher import FlowPolicy, Runtime
from rm_voucher.calls.flow import Flow
from rm_voucher.calls.shared_flow import SharedFlow
from rm_voucher.exceptions import ConnectTimeoutError, SharedStoreError
from rm_voucher.shared import MemorySharedStore, Snapshot

T = TypeVar("T")

BURST_S = 0.1
STORE_TIMEOUT_S = 2.0
FAILED_S = 0.5  # after a request that failed, its caller waits


class Server:
    """Takes up to so many requests a second, by a token bucket, and throttles the rest."""

    def __init__(self, clock: VirtualClock, chance: random.Random, per_s: float) -> None:
        self.clock = clock
        self.per_s = per_s
        self.is_down = False
        self.retry_after_s: float | None = None
        self.log: list[tuple[float, str, str]] = []
        """When each request came, from which process, and what became of it."""
        self._chance = chance
        self._left, self._at = 0.0, clock.now

    def meet(self, process: str) -> str:
        """Return what becomes of a request."""
        now = self.clock.now
        most = max(1.0, self.per_s * BURST_S)
        self._left = min(most, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self.is_down:
            met = "failed"
        elif self._left < 1:
            met = "throttled"
        else:
            self._left -= 1
            met = "taken"
        self.log.append((now, process, met))
        return met

    async def way(self) -> None:
        await asyncio.sleep(0.01 + 0.02 * self._chance.random())


class Store(MemorySharedStore):
    """A shared store some milliseconds away, which may refuse, or say nothing."""

    def __init__(self, clock: VirtualClock, chance: random.Random, latency_s: float) -> None:
        self.clock = clock
        self.off_s = 0.0
        self.trouble = ""
        self.operations = 0
        self._chance = chance
        self._latency_s = latency_s
        super().__init__(runtime=Runtime(clock=lambda: clock.true_wall() + self.off_s))

    async def _load(self, key: str) -> Snapshot:
        return await self._meet(lambda: MemorySharedStore._load(self, key))

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        return await self._meet(lambda: MemorySharedStore._swap(self, key, version, content))

    async def _meet(self, operation: Callable[[], Awaitable[T]]) -> T:
        self.operations += 1
        await self._way()
        if self.trouble == "silent":
            await asyncio.sleep(STORE_TIMEOUT_S)
        if self.trouble:
            raise SharedStoreError("The store can't be used.")
        done = await operation()
        await self._way()
        return done

    async def _way(self) -> None:
        await asyncio.sleep(self._latency_s / 2 * (0.5 + self._chance.random()))


class Process:
    """A process with work without end: so many callers that send one request after the other."""

    def __init__(self, world: World, name: str, concurrency: int) -> None:
        self.name = name
        self._world = world
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        begun = world.clock.now - 100 * world.chance.random()
        runtime = Runtime(
            clock=world.clock.wall,
            monotonic=lambda: world.clock.now - begun,
            sleep=self._sleep,
            random=world.chance.random,
        )
        self.runtime = runtime
        self.store = GatedStore(world.store, self.goes_on)
        self.flow = world.make_flow(self, runtime)
        self._callers = [asyncio.create_task(self._call()) for _ in range(concurrency)]

    async def kill(self) -> None:
        """End it at once: nothing that it knows is told."""
        for task in self._callers:
            task.cancel()
        if isinstance(self.flow, SharedFlow):
            await self.flow.aclose()
        await asyncio.gather(*self._callers, return_exceptions=True)

    def stop(self) -> None:
        self.goes_on.clear()

    def go_on(self) -> None:
        self.goes_on.set()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.goes_on.wait()

    async def _call(self) -> None:
        server, monotonic, flow = self._world.server, self.runtime.monotonic, self.flow
        for number in itertools.count():
            if not flow.unlimited:
                try:
                    await flow.acquire("issue", latest=None, is_bulk=True)
                except ConnectTimeoutError:
                    await self._sleep(FAILED_S)
                    continue
            admitted_at = monotonic()
            await self.goes_on.wait()
            await server.way()
            met = server.meet(self.name)
            await server.way()
            await self.goes_on.wait()
            now = monotonic()
            if met == "taken":
                flow.answered(admitted_at, now)
                continue
            if server.retry_after_s is not None:
                flow.pause_until(now + server.retry_after_s)
            if met == "throttled":
                flow.throttled(admitted_at, now)
            else:
                flow.failed((self, number), admitted_at, now)
            await self._sleep(FAILED_S * (1 + self._world.chance.random()))


class GatedStore(MemorySharedStore):
    """The store as one process reaches it: while that is stopped, it hears nothing."""

    def __init__(self, store: Store, goes_on: asyncio.Event) -> None:
        super().__init__()
        self.store = store
        self.goes_on = goes_on
        self.is_cut = False

    async def _load(self, key: str) -> Snapshot:
        return await self._meet(self.store._load(key))

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        return await self._meet(self.store._swap(key, version, content))

    async def _meet(self, operation: Awaitable[T]) -> T:
        try:
            if self.is_cut:
                await asyncio.sleep(STORE_TIMEOUT_S)
            done = await operation
            if self.is_cut:
                raise SharedStoreError("The store can't be reached.")
            return done
        finally:
            await self.goes_on.wait()


class World:
    """The server, the store and the processes."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        seed: int,
        per_s: float,
        store_latency_s: float = 0.004,
        policy: FlowPolicy | None = None,
        shares: bool = True,
    ) -> None:
        self.clock = clock
        self.chance = random.Random(seed)
        self.server = Server(clock, self.chance, per_s)
        self.store = Store(clock, self.chance, store_latency_s)
        self.processes: list[Process] = []
        self._policy = policy or FlowPolicy()
        self._shares = shares
        self._numbers = itertools.count()

    def make_flow(self, process: Process, runtime: Runtime) -> Flow:
        if not self._shares:
            return Flow(self._policy, runtime)
        return SharedFlow(self._policy, runtime, process.store, "rate")

    def start(self, count: int = 1, *, concurrency: int = 16) -> list[Process]:
        started = [Process(self, f"p{next(self._numbers)}", concurrency) for _ in range(count)]
        self.processes += started
        return started

    async def kill(self, process: Process) -> None:
        self.processes.remove(process)
        await process.kill()

    async def end(self) -> None:
        for process in self.processes:
            process.go_on()
            await process.kill()

    # What was seen, between two instants.

    def count(self, met: str, begin: float, end: float) -> int:
        return sum(1 for at, _, what in self.server.log if what == met and begin <= at < end)

    def used(self, begin: float, end: float) -> float:
        """The share of the present limit that was used."""
        return self.count("taken", begin, end) / (end - begin) / self.server.per_s

    def throttled(self, begin: float, end: float) -> float:
        """The share of the requests that was throttled."""
        throttled = self.count("throttled", begin, end)
        return throttled / max(1, throttled + self.count("taken", begin, end))

    def fairness(self, begin: float, end: float) -> float:
        """Jain's index of what the present processes had: 1 where all had the same."""
        had = Counter(
            who for at, who, what in self.server.log if what == "taken" and begin <= at < end
        )
        shares = [had[process.name] for process in self.processes]
        return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def run(main: Callable[[World], Awaitable[None]], **settings: object) -> World:
    """Run a story in virtual time; return its world."""
    clock = VirtualClock()
    worlds: list[World] = []

    async def story() -> None:
        world = World(clock, **settings)  # type: ignore[arg-type]
        worlds.append(world)
        await main(world)
        await world.end()

    VirtualLoop(clock).run(story)
    return worlds[0]
