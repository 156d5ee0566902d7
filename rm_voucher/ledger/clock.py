"""The time of a ledger, which holds when the machine's clock is set."""

from __future__ import annotations

from rm_voucher.runtime import Runtime


class LedgerClock:
    """Reads two clocks: the machine's, which may be set, and one that goes on evenly.

    Where they differ, an attempt's time spans from the earlier to the later one, so it holds by
    whichever is right.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.monotonic = runtime.monotonic
        self.sleep = runtime.sleep
        self._wall = runtime.clock
        self._epoch = runtime.clock() - runtime.monotonic()

    def earliest_now(self) -> float:
        """Return the earlier time, in seconds since 1970: for the beginning of an attempt."""
        return min(self._epoch + self.monotonic(), self._wall())

    def latest_now(self) -> float:
        """Return the later time, in seconds since 1970: for its end, and all else."""
        return max(self._epoch + self.monotonic(), self._wall())
