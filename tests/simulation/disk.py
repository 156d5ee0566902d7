"""Ledgers' stores on a simulated disk: commits take time, fail, and are cut off by a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any

from simulation.books import Books
from simulation.loop import VirtualLoop
from simulation.seams import Trouble
from simulation.world import World

from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryUnitOfWork
from rm_voucher.ledger.rules.commands import Ask, Claimed, Confirm
from rm_voucher.runtime import Runtime

ATTEMPT: ContextVar[str | None] = ContextVar("ATTEMPT", default=None)
"""The attempt that a task has claimed, whose call it makes."""

_GROUPS = (1, 2, 5, 20, 512)
_PATIENCE_S = 30.0  # as `database.Database` has it
_LONGEST_WAIT_S = 2.0
_LIFE_S = 15.0  # as the store in SQL has it
_BREAKS = 0.8  # so many of the writes on a broken disk


class Disk:
    """What outlives ledgers' processes, and what happens to their commits.

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
        self.stores: list[SimulatedStore] = []
        """All that are open, or were when their process crashed."""
        self.leases: dict[str, tuple[str, float]] = {}
        """The holder of each, and until when."""
        self._trouble: Trouble | None = None
        self._trouble_ends = 0.0

    def is_leased(self, name: str) -> bool:
        """Return whether a lease has not run out, by the database's clock."""
        return self.leases.get(name, ("", 0.0))[1] > self.world.clock.now

    def take_lease(self, name: str, holder: str, lasts_s: float) -> bool:
        """Give a lease to a process, unless another has it."""
        if self.is_leased(name) and self.leases[name][0] != holder:
            return False
        self.leases[name] = holder, self.world.clock.now + lasts_s
        return True

    def end_lease(self, name: str, holder: str) -> None:
        """End a lease of a process."""
        if self.leases.get(name, ("", 0.0))[0] == holder:
            del self.leases[name]

    def fall_ill(self, trouble: Trouble, lasts_s: float) -> None:
        """Begin a trouble."""
        self.world.log("trouble", trouble.name)
        self._trouble, self._trouble_ends = trouble, self.world.clock.now + lasts_s

    def recover(self) -> None:
        """End it, as a person does between two processes."""
        self._trouble = None

    def trouble(self) -> Trouble | None:
        """Return what the matter is at this instant."""
        return self._trouble if self.world.clock.now < self._trouble_ends else None

    def cut(self, number: int, lasts_s: float) -> None:
        """End a process's connection and its leases; for so long it gets no other."""
        if number < len(self.stores):
            self.world.log("cut", number)
            self.stores[number].cut(lasts_s)

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


class SimulatedUnit(MemoryUnitOfWork):
    """A transaction in a database that has a clock, and knows by it which processes live."""

    def __init__(self, disk: Disk, owner: str) -> None:
        super().__init__(disk.books, owner)
        self._disk = disk

    def dead_owners(self, owners: Collection[str]) -> set[str]:
        return {owner for owner in owners if not self._disk.is_leased(owner)}

    def now(self) -> float:
        return self._disk.world.clock.true_wall()


class SimulatedStore(MemoryLedgerStore):
    """The store of one process. Like that in SQL, it commits what many want in one go.

    What passes is waited for, as there. The process shows by a lease that it lives, and renews it
    unless the database is away.
    """

    def __init__(self, disk: Disk) -> None:
        owner = f"{disk.world.random('ids').getrandbits(64):016x}"
        super().__init__(disk.books, owner=owner)
        assert disk.world.loop is not None
        self._disk = disk
        self._loop: VirtualLoop = disk.world.loop
        self._queue: list[tuple[Any, Any, asyncio.Future[Any]]] = []
        self._writing = False
        self._cut_until = 0.0
        self._waits_since: float | None = None
        self._unkept: set[str] = set()
        self._too_early: set[str] = set()

    async def open(self) -> None:
        await super().open()
        self._disk.stores.append(self)
        self._show_life()

    async def close(self) -> None:
        await super().close()
        self._disk.stores.remove(self)
        self._disk.end_lease(self.owner, self.owner)

    def cut(self, lasts_s: float) -> None:
        """End the connection, and the leases; for so long there is no other."""
        for name in [n for n, (holder, _) in self._disk.leases.items() if holder == self.owner]:
            del self._disk.leases[name]
        self._cut_until = self._disk.world.clock.now + lasts_s

    async def take_lease(self, name: str, lasts_s: float) -> bool:
        await self._until_there()
        return self._disk.take_lease(name, self.owner, lasts_s)

    async def end_lease(self, name: str) -> None:
        await self._until_there()
        self._disk.end_lease(name, self.owner)

    def _show_life(self) -> None:
        if self in self._disk.stores and not self._loop.dead:
            if not self._is_away():
                self._disk.take_lease(self.owner, self.owner, _LIFE_S)
            self._loop.call_later(_LIFE_S / 3, self._show_life)

    async def commit(self, transition: Any, item: Any) -> Any:
        if self._unkept and isinstance(item, Ask):
            self._too_early.add(item.attempt_id)
        future = self._loop.create_future()
        self._queue.append((transition, item, future))
        self._begin()
        result = await future
        if isinstance(result, Claimed):
            ATTEMPT.set(result.attempt_id)
        return result

    async def read(self, reading: Any) -> Any:
        await self._until_there(reads=True)
        found = reading(SimulatedUnit(self._disk, self.owner))
        await asyncio.sleep(self._disk.latency())
        return found

    async def _until_there(self, *, reads: bool = False) -> None:
        await asyncio.sleep(self._disk.latency())
        since, wait_s = self._loop.time(), 0.05
        while self._is_away(reads=reads):
            if self._loop.time() + wait_s > since + _PATIENCE_S:
                raise _unavailable()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _begin(self) -> None:
        if self._queue and not self._writing:
            self._writing = True
            self._loop.call_later(self._disk.latency(), self._write)

    def _is_away(self, *, reads: bool = False) -> bool:
        """Return whether no connection is to be had that can do it."""
        trouble = self._disk.trouble()
        only_reads = trouble in (Trouble.READ_ONLY, Trouble.FULL)
        away = trouble is Trouble.AWAY or (only_reads and not reads)
        return away or self._loop.time() < self._cut_until

    def _wait(self) -> bool:
        """Try again later what can't be written now; return False when it was long enough."""
        now = self._loop.time()
        self._waits_since = now if self._waits_since is None else self._waits_since
        waited_s = now - self._waits_since
        wait_s = min(max(0.05, waited_s), _LONGEST_WAIT_S)
        if waited_s + wait_s > _PATIENCE_S:
            self._waits_since = None
            return False
        self._loop.call_later(wait_s, self._write)
        return True

    def _write(self) -> None:
        disk = self._disk
        if self._is_away():
            if not self._wait():
                self._fail(self._take(), _unavailable())
            return
        self._waits_since = None
        if disk.trouble() is Trouble.BROKEN and disk.chance.random() < _BREAKS:
            error = _unavailable("The disk is broken.")
            self._loop.call_later(disk.latency(), self._fail, self._take(), error)
            return
        crashes = disk.crashes_now()
        if crashes and disk.chance.random() < 0.5:
            self._loop.dead = True
            return
        group = self._take()
        fails = disk.chance.random() < disk.failed_rate
        results: list[Any] = []
        if not fails or disk.chance.random() < 0.5:
            results, assigned = self._transact([each[:2] for each in group])
        if crashes:
            self._loop.dead = True
        elif fails:
            error = _unavailable("The disk failed.")
            self._loop.call_later(disk.latency(), self._fail, group, error)
        elif disk.chance.random() < disk.lost_rate:
            self._queue = group + self._queue
            self._loop.call_later(disk.latency(), self._write)
        else:
            self._loop.call_later(disk.latency(), self._answer, group, results, assigned)

    def _take(self) -> list[Any]:
        size = self._disk.chance.choice(_GROUPS)
        group, self._queue = self._queue[:size], self._queue[size:]
        return group

    def _transact(self, group: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
        """Run items in one transaction, those of one kind together; look at what came of it."""
        books, unit = self._disk.books, SimulatedUnit(self._disk, self.owner)
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
        books.check([kind.__name__ for kind in kinds])
        self._unkept -= {item.code for _, item in group if isinstance(item, Confirm)}
        early = self._too_early & books.attempts.keys()
        books.must(not early, "an attempt was started while a code could not be kept")
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

    def _fail(self, group: list[Any], error: LedgerError) -> None:
        self._unkept |= {item.code for _, item, _ in group if isinstance(item, Confirm)}
        self._answer(group, [error for _ in group], [])


def _unavailable(sentence: str = "The database can't be used.") -> LedgerError:
    error = LedgerError(sentence)
    error.__cause__ = UnavailableError("OperationalError")
    return error
