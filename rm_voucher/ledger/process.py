"""One process of a ledger: its time, its tasks, and its knowledge of attempts."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.commands import Recover
from rm_voucher.ledger.rules.records import AttemptState, IssueAttempt
from rm_voucher.ledger.rules.settling import recover
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.ledger.store import LedgerStore, blocks
from rm_voucher.runtime import Runtime

T = TypeVar("T")

_log = logging.getLogger("rm_voucher.ledger")


class LedgerClock:
    """Reads two clocks: the machine's, which may be set, and one that goes on evenly.

    Where they differ, an attempt lasts from the earlier time to the later one, so that its times
    hold by whichever is right.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.monotonic: Callable[[], float] = runtime.monotonic
        self.sleep: Callable[[float], Awaitable[None]] = runtime.sleep
        self._wall = runtime.clock
        self._epoch = runtime.clock() - runtime.monotonic()

    def earliest_now(self) -> float:
        """Return the earlier time, in seconds since 1970: for the beginning of an attempt."""
        return min(self._epoch + self.monotonic(), self._wall())

    def latest_now(self) -> float:
        """Return the later time, in seconds since 1970: for its end, and all else."""
        return max(self._epoch + self.monotonic(), self._wall())

    def off_by_s(self, offset_s: float) -> float:
        """Return how far a clock is off both, which is ``offset_s`` ahead of the machine's."""
        theirs = self._wall() + offset_s
        return max(self.earliest_now() - theirs, theirs - self.latest_now(), 0.0)


class LedgerTasks:
    """Runs work that must not end with its caller, while the ledger is open."""

    def __init__(self) -> None:
        self.is_open = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, is_own: bool = False) -> asyncio.Task[T]:
        """Run it in a task of its own. Raises `LedgerError` if the ledger is not open.

        What ``is_own`` goes on for long, and has no part in the trace of whoever began it.
        """
        if not self.is_open:
            work.close()
            raise LedgerError("The ledger is not open: use it with 'async with'.", is_final=True)
        context = contextvars.Context() if is_own else None
        task = asyncio.create_task(work, name="rm-voucher ledger", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits for the task has its error; if nobody does, the ledger has the outcome.
            _log.debug("a task of the ledger ended with %s", type(error).__name__)


class AttemptTracker:
    """Knows which attempts this process sends, and since when others have been ambiguous.

    That time is by the monotonic clock, because the other one may be set. What was ambiguous before
    this process looked is as old as the database's clock and this machine's both say.
    """

    def __init__(self, store: LedgerStore, clock: LedgerClock, unkept: Collection[str]) -> None:
        self._store = store
        self._clock = clock
        self._unkept = unkept
        self._ambiguous_since: dict[str, float] = {}
        self.sending: dict[str, float] = {}
        """The attempts that this process sends, and until when each was provably its own.

        That time is by the monotonic clock.
        """

    async def open(self) -> None:
        """Recover from the last process, and note the attempts that are ambiguous."""
        if not self._store.read_only:
            await self.recover()
        await self.ambiguous()

    async def recover(self, batch_key: str | None = None) -> None:
        """Make ambiguous the attempts that a dead process was sending."""
        lost, own = defaultdict(list), self._store.owner
        sending, dead = await self._store.read(lambda unit: _sending(unit, batch_key, own))
        for attempt in sending:
            # Of one that could not be kept, the code may be in hand.
            is_busy = attempt.id in self.sending or attempt.id in self._unkept
            if attempt.owner in dead and not is_busy:
                lost[attempt.batch].append(attempt.id)
        at = self._clock.latest_now()
        for key, ids in lost.items():
            for block in blocks(ids):
                item = Recover(batch=key, attempt_ids=tuple(block), own=own, at=at)
                for attempt_id in await self._store.commit(recover, item):
                    self.note_ambiguous(attempt_id)

    async def ambiguous(self, batch_key: str | None = None) -> list[IssueAttempt]:
        """Return the attempts that are ambiguous; from now on it is known since when they are."""
        states = [AttemptState.AMBIGUOUS]
        found, now = await self._store.read(
            lambda unit: (unit.find_attempts(batch_key, states), unit.now())
        )
        here, monotonic = self._clock.earliest_now(), self._clock.monotonic()
        for attempt in found:
            age_s = 0.0
            if now is not None and attempt.unknown_since is not None:
                age_s = min(now - attempt.unknown_since, here - (attempt.ended_at or here))
            self._ambiguous_since.setdefault(attempt.id, monotonic - max(0.0, age_s))
        return found

    def note_ambiguous(self, attempt_id: str) -> None:
        """Note that an attempt has just become ambiguous."""
        self._ambiguous_since[attempt_id] = self._clock.monotonic()

    def ambiguous_since(self, attempt_id: str) -> float:
        """Return since when, by the monotonic clock, an attempt has been ambiguous."""
        return self._ambiguous_since.setdefault(attempt_id, self._clock.monotonic())

    def forget(self, attempt_ids: Iterable[str]) -> None:
        """Forget attempts that are settled."""
        for attempt_id in attempt_ids:
            self._ambiguous_since.pop(attempt_id, None)


def _sending(
    unit: UnitOfWork, batch_key: str | None, own: str
) -> tuple[list[IssueAttempt], set[str]]:
    """Return the attempts that are being sent, and the owners that are dead, or this process."""
    sending = unit.find_attempts(batch_key, [AttemptState.SENDING])
    others = {attempt.owner for attempt in sending} - {own}
    return sending, unit.dead_owners(others) | {own}
