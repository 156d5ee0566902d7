"""The emulator's time: a clock that can be set ahead, and what is to happen later."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator

_YEAR_9000 = 221_845_392_000.0


class Timeline:
    """Time in unix seconds. What falls due happens at the next `run_due`, as of its own time.

    So the same order comes of a real clock, an injected one, and one that is set ahead.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ahead_s = 0.0
        self._as_of: float | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.lock = threading.RLock()
        """Held while something happens: a test may look on, or set time, while a thread serves."""
        self.watchers: list[Callable[[], None]] = []
        """Each is called by `changed`."""

    def now(self) -> float:
        """Return the time; while something that fell due runs, the time it fell due at."""
        with self.lock:
            return self._clock() + self._ahead_s if self._as_of is None else self._as_of

    def advance(self, seconds: float) -> None:
        """Set the clock ahead. Raises `ValueError` for a time that is not ahead, or too far."""
        with self.lock:
            if not (seconds >= 0 and self.now() + seconds < _YEAR_9000):
                raise ValueError("time goes forward only, and no further than to the year 9000")
            self._ahead_s += seconds
            self.run_due()
        self.changed()

    def at(self, due: float, action: Callable[[], None]) -> None:
        """Let something happen at a time."""
        with self.lock:
            heapq.heappush(self._due, (due, next(self._number), action))
        self.changed()

    def changed(self) -> None:
        """Tell the watchers that what comes next may be something else."""
        for watcher in self.watchers:
            watcher()

    def run_due(self) -> None:
        """Let everything happen whose time has come, in its order."""
        with self.lock:
            if self._as_of is None:
                self._run_until(self.now())

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """Let what is due happen, and then time stand still for what is done in the block.

        Else something could fall due between the two, and happen later as of an earlier time.
        """
        with self.lock:
            now = self.now()
            self._run_until(now)
            self._as_of = now
            try:
                yield
            finally:
                self._as_of = None

    def _run_until(self, now: float) -> None:
        try:
            while self._due and self._due[0][0] <= now:
                self._as_of, _, action = heapq.heappop(self._due)
                action()
        finally:
            self._as_of = None

    def next_due(self) -> float | None:
        """Return when the next thing is to happen."""
        with self.lock:
            return self._due[0][0] if self._due else None

    def reset(self) -> None:
        """Forget what was to happen, and go back to the clock's own time."""
        with self.lock:
            self._due.clear()
            self._ahead_s = 0.0
