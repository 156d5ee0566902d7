"""A ledger's store on a simulated disk: commits take time, fail, and are cut off by a crash."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from simulation.books import Books
from simulation.loop import VirtualLoop
from simulation.world import World

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryUnitOfWork
from rm_voucher.ledger.rules.commands import Claimed
from rm_voucher.runtime import Runtime

ATTEMPT: ContextVar[str | None] = ContextVar("ATTEMPT", default=None)
"""The attempt that a task has claimed, whose call it makes."""

_GROUPS = (1, 2, 5, 20, 512)


class Disk:
    """What outlives a ledger's process, and what happens to its commits.

    Args:
        latency_s: the longest time before a commit is durable, and after that until it is known.
        lost_rate: how many commits are made again because the answer was lost.
        failed_rate: how many commits end in an error, be they durable or not.
    """

    def __init__(
        self,
        world: World,
        books: Books,
        *,
        latency_s: float = 0.02,
        lost_rate: float = 0.02,
        failed_rate: float = 0.003,
    ) -> None:
        self.world = world
        self.books = books
        self.chance = world.random("disk")
        self.latency_s = latency_s
        self.lost_rate = lost_rate
        self.failed_rate = failed_rate
        self.crash_in: int | None = None
        """In so many commits the process crashes, before or after one is durable."""

    def latency(self) -> float:
        return self.chance.uniform(0, self.latency_s)

    def crashes_now(self) -> bool:
        if self.crash_in is not None:
            self.crash_in -= 1
        return self.crash_in == 0


def open_ledger(disk: Disk, **settings: Any) -> Ledger:
    """Return the ledger of the process that runs."""
    clock = disk.world.clock
    runtime = Runtime(clock=clock.wall, monotonic=clock.monotonic)
    return Ledger(SimulatedStore(disk), **{"runtime": runtime, **settings})


class SimulatedStore(MemoryLedgerStore):
    """The store of one process. Like that in SQL, it commits what many want in one go."""

    def __init__(self, disk: Disk) -> None:
        owner = f"{disk.world.random('ids').getrandbits(64):016x}"
        super().__init__(disk.books, owner=owner)
        assert disk.world.loop is not None
        self._disk = disk
        self._loop: VirtualLoop = disk.world.loop
        self._queue: list[tuple[Any, Any, asyncio.Future[Any]]] = []
        self._writing = False

    async def commit(self, transition: Any, item: Any) -> Any:
        future = self._loop.create_future()
        self._queue.append((transition, item, future))
        self._begin()
        result = await future
        if isinstance(result, Claimed):
            ATTEMPT.set(result.attempt_id)
        return result

    async def read(self, reading: Any) -> Any:
        await asyncio.sleep(self._disk.latency())
        found = reading(MemoryUnitOfWork(self.tables, self.owner))
        await asyncio.sleep(self._disk.latency())
        return found

    def _begin(self) -> None:
        if self._queue and not self._writing:
            self._writing = True
            self._loop.call_later(self._disk.latency(), self._write)

    def _write(self) -> None:
        disk = self._disk
        crashes = disk.crashes_now()
        if crashes and disk.chance.random() < 0.5:
            self._loop.dead = True
            return
        size = disk.chance.choice(_GROUPS)
        group, self._queue = self._queue[:size], self._queue[size:]
        fails = disk.chance.random() < disk.failed_rate
        results: list[Any] = []
        if not fails or disk.chance.random() < 0.5:
            results, assigned = self._transact([each[:2] for each in group])
        if crashes:
            self._loop.dead = True
        elif fails:
            self._loop.call_later(disk.latency(), self._fail, group)
        elif disk.chance.random() < disk.lost_rate:
            self._queue = group + self._queue
            self._loop.call_later(disk.latency(), self._write)
        else:
            self._loop.call_later(disk.latency(), self._answer, group, results, assigned)

    def _transact(self, group: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
        """Run items in one transaction, those of one kind together; look at what came of it."""
        books, unit = self._disk.books, MemoryUnitOfWork(self.tables, self.owner)
        kinds: dict[Any, list[int]] = {}
        for number, (transition, _) in enumerate(group):
            kinds.setdefault(transition, []).append(number)
        results: list[Any] = [None] * len(group)
        try:
            for transition, numbers in kinds.items():
                answers = transition(unit, [group[number][1] for number in numbers])
                for number, answer in zip(numbers, answers, strict=True):
                    results[number] = answer
            unit.flush()
        except LedgerError as exc:
            books.must(False, f"the store refused: {exc}")
        books.check(only_asked=[kind.__name__ for kind in kinds] == ["ask"])
        if books.broken:
            self._loop.dead = True
        world = self._disk.world
        world.log("commit", *(transition.__name__ for transition in kinds), len(group))
        for code in unit.assigned:
            world.log("assigned", code.request_id, code.code)
        return results, unit.assigned

    def _answer(self, group: list[Any], results: list[Any], assigned: list[Any]) -> None:
        self.notify(assigned)
        for (_, _, future), result in zip(group, results, strict=True):
            if future.done():
                pass
            elif isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._writing = False
        self._begin()

    def _fail(self, group: list[Any]) -> None:
        self._answer(group, [LedgerError("The disk failed.") for _ in group], [])
