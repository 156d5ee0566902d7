"""The circuit breaker: an outage of the server, and the half-open probes that may end it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from rm_voucher.settings import FlowPolicy

_FIRST_PROBE_S = 1.0
# In a long outage the probes are rarer: the outcome of each may be unknown.
_PROBE_SHARE = 1 / 12  # of the outage so far
_LONGEST_PROBE_S = 60.0


@attrs.define(eq=False)
class CircuitBreaker:
    """Opens when so many calls in a row fail that the server must be down; an answer closes it.

    While it is open, a call is sent now and then as a probe.
    """

    _policy: FlowPolicy
    _random: Callable[[], float]
    _failed: set[object] = attrs.field(factory=set)  # the calls that failed since the last answer
    _probe_at: float = 0.0
    _probe_wait_s: float = 0.0
    _next_wait_s: float = 0.0
    _failed_at: float = 0.0
    _worked_at: float = -math.inf  # when the latest attempt that was answered was admitted
    opened_at: float | None = None
    """When the outage began, or None."""

    def answered(self, admitted_at: float) -> bool:
        """Take note that the server works; return whether that ends an outage."""
        self._worked_at = max(self._worked_at, admitted_at)
        self._failed.clear()
        was_open = self.opened_at is not None
        self.opened_at = None
        return was_open

    def failed(self, call: object, admitted_at: float, now: float) -> None:
        """Take note that an attempt of a call failed. Each call counts once."""
        if admitted_at < self._worked_at:  # a later attempt was answered
            return
        self._failed_at = now
        if self.opened_at is not None:
            return
        self._failed.add(call)
        if len(self._failed) >= self._policy.failure_threshold:
            self._failed.clear()
            self.opened_at = now
            self._next_wait_s = _FIRST_PROBE_S
            self.take_turn(now)

    def wait_s(self, now: float) -> float:
        """Return how long until the next probe; 0 or less where a call may be sent."""
        return 0.0 if self.opened_at is None else self._probe_at - now

    def take_turn(self, now: float) -> None:
        """Send a call, which is a probe in an outage.

        The next probe does not wait for the end of this one, which may never come.
        """
        if self.opened_at is None:
            return
        rare_s = min((now - self.opened_at) * _PROBE_SHARE, _LONGEST_PROBE_S)
        wait_s = max(min(self._next_wait_s, self._policy.probe_interval_s), rare_s)
        self._probe_wait_s, self._next_wait_s = wait_s, 2 * wait_s
        # Up to half earlier, so that many clients don't come at the same time.
        self._probe_at = now + wait_s * (1 - self._random() / 2)

    def gives_up(self, now: float) -> bool:
        """Return whether the outage is so long that no call waits for its end.

        It is not where no probe failed for as long: the one that is in flight will tell.
        """
        patience_s = self._policy.max_outage_wait_s
        if self.opened_at is None or now - self.opened_at < patience_s:
            return False
        return now - self._failed_at < max(patience_s, 2 * self._probe_wait_s)
