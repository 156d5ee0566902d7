"""The emulator's time: a clock that can be set ahead, and a schedule of work."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator

_YEAR_9000 = 221_845_392_000.0


class VirtualClock:
    """Time in unix seconds, and a schedule. Work that is due is done at the next `run_due`.

    While a piece of work runs, `now` is the time that it was scheduled for. So the same order
    comes of a real clock, an injected one, and one that is set ahead.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ahead_s = 0.0
        self._frozen_at: float | None = None
        self._schedule: list[tuple[float, int, Callable[[], None], object]] = []
        self._number = itertools.count()
        self.lock: threading.RLock = threading.RLock()
        """Held while work is done: a test may look on, or set time, while a thread serves."""
        self.watchers: list[Callable[[], None]] = []
        """Each is called by `notify`."""

    def now(self) -> float:
        """Return the time."""
        with self.lock:
            return self._clock() + self._ahead_s if self._frozen_at is None else self._frozen_at

    @property
    def ahead_s(self) -> float:
        """How far it was set ahead."""
        return self._ahead_s

    def advance(self, seconds: float) -> None:
        """Set the clock ahead. Raises `ValueError` for a negative number, or one too large."""
        with self.lock:
            if not (seconds >= 0 and self.now() + seconds < _YEAR_9000):
                raise ValueError("time goes forward only, and no further than to the year 9000")
            self._ahead_s += seconds
            self.run_due()
        self.notify()

    def go_to(self, ahead_s: float) -> None:
        """Be so far ahead of the clock's own time, without doing what would be due before."""
        with self.lock:
            if not 0 <= ahead_s < _YEAR_9000 - self._clock():
                raise ValueError("it is ahead by nothing, or further than to the year 9000")
            self._ahead_s = ahead_s

    def call_at(self, due: float, action: Callable[[], None], *, owner: object = None) -> None:
        """Schedule an action."""
        with self.lock:
            heapq.heappush(self._schedule, (due, next(self._number), action, owner))
        self.notify()

    def notify(self) -> None:
        """Tell the watchers that the next thing to do may have changed."""
        for watcher in self.watchers:
            watcher()

    def run_due(self) -> None:
        """Do all work that is due, in the order of its times."""
        with self.lock:
            if self._frozen_at is None:
                self._run_until(self.now())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Do all work that is due, then let time stand still in the block.

        Otherwise work could become due between the two, and be done later as of an earlier time.
        """
        with self.lock:
            now = self.now()
            self._run_until(now)
            self._frozen_at = now
            try:
                yield
            finally:
                self._frozen_at = None

    def _run_until(self, now: float) -> None:
        try:
            while self._schedule and self._schedule[0][0] <= now:
                self._frozen_at, _, action, _ = heapq.heappop(self._schedule)
                action()
        finally:
            self._frozen_at = None

    def next_due(self) -> float | None:
        """Return the time of the next piece of work."""
        with self.lock:
            return self._schedule[0][0] if self._schedule else None

    def forget(self, owner: object) -> None:
        """Forget the actions of one owner."""
        with self.lock:
            self._schedule = [each for each in self._schedule if each[3] is not owner]
            heapq.heapify(self._schedule)

    def reset(self) -> None:
        """Forget the schedule, and go back to the clock's own time."""
        with self.lock:
            self._schedule.clear()
            self._ahead_s = 0.0
