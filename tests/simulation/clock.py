"""Virtual time: it stands still while anything can be done, and then jumps to what comes next.

It outlives the processes that run in it, and what happens outside of them (a request on its way, a
server's answer) is kept here, so that a crash takes nothing of it away.
"""

from __future__ import annotations

import heapq
import itertools
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

_FIRST_WALL = 1_700_000_000.0  # unix seconds


class VirtualClock:
    """Monotonic time in seconds, and what is to happen at which instant, in order of asking."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._stepped_s = 0.0
        # At most one of the two is there: a process's timer, or something outside of processes.
        self._due: list[tuple[float, int, TimerHandle | None, Callable[..., object], Any]] = []
        self._number = itertools.count()

    def monotonic(self) -> float:
        """Return the time that nobody can set."""
        return self.now

    def true_wall(self) -> float:
        """Return the unix time that everybody but the process sees."""
        return _FIRST_WALL + self.now

    def wall(self) -> float:
        """Return the unix time as the process's machine has it."""
        return _FIRST_WALL + self.now + self._stepped_s

    def step_wall(self, seconds: float) -> None:
        """Set the machine's unix time ahead, or back."""
        self._stepped_s += seconds

    def at(self, when: float, action: Callable[..., object], *args: object) -> None:
        """Let something happen at an instant, whichever process lives then, if any."""
        heapq.heappush(self._due, (when, next(self._number), None, action, args))

    def after(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Let something happen after some time; see `at`."""
        self.at(self.now + seconds, action, *args)

    def set_timer(self, timer: TimerHandle, ring: Callable[[TimerHandle], None]) -> None:
        """Let a process's timer ring, unless it is cancelled or forgotten before."""
        heapq.heappush(self._due, (timer.when(), next(self._number), timer, ring, (timer,)))

    def forget(self, ring: Callable[[TimerHandle], None]) -> None:
        """Forget the timers of a process."""
        self._due = [due for due in self._due if due[2] is None or due[3] != ring]
        heapq.heapify(self._due)

    def run_due(self) -> None:
        """Let happen what is due now; time stands still."""
        while self._due and self._due[0][0] <= self.now and self.run_next(self.now):
            pass

    def run_next(self, until: float | None = None) -> bool:
        """Jump to the next instant and let one thing happen; return False if there is none."""
        due = self._due
        while due and (until is None or due[0][0] <= until):
            when, _, timer, action, args = heapq.heappop(due)
            if timer is None or not timer.cancelled():
                if when > self.now:
                    self.now = when
                action(*args)
                return True
        return False

    def run_for(self, seconds: float) -> None:
        """Let time pass in which no process lives."""
        until = self.now + seconds
        while self.run_next(until):
            pass
        self.now = until
