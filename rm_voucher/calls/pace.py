"""How fast may be sent, and whether at all: rate, circuit breaker and ``Retry-After``. Pure.

A client has a `Pace` of its own, on its monotonic clock, or shares one with other processes, on the
clock of their store.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from rm_voucher.calls.circuit_breaker import CircuitBreaker
from rm_voucher.calls.rate_limiter import ALONE, AdaptiveRate, TokenBucket, Tuning
from rm_voucher.settings import FlowPolicy


@attrs.define(eq=False)
class Pace:
    """What is known of the server, from how attempts ended, and the turns that were given.

    ``admitted_at`` is when an attempt had its turn. A throttle is charged to the rate by which it
    was admitted, a failure counts only after the last answer.
    """

    rate: AdaptiveRate
    breaker: CircuitBreaker
    bucket: TokenBucket = attrs.field(factory=TokenBucket)
    paused_until: float = -math.inf
    """When the server wants to be asked again."""

    @classmethod
    def new(cls, policy: FlowPolicy, random: Callable[[], float], tuning: Tuning = ALONE) -> Pace:
        """Return the pace of a server of which nothing is known."""
        return cls(AdaptiveRate(policy.rate_per_s, tuning), CircuitBreaker(policy, random))

    @property
    def is_failing(self) -> bool:
        """Whether nothing but probes is sent, because the server fails."""
        return self.breaker.opened_at is not None

    def pause_s(self, now: float) -> float:
        """Return how long nothing may be sent at any rate; 0 or less where it may."""
        return max(self.breaker.wait_s(now), self.paused_until - now)

    def wait_s(self, now: float) -> float:
        """Return how long the next turn is away; 0 or less where it has come."""
        return max(self.bucket.wait_s(now), self.pause_s(now))

    def take(self, now: float, turns: int = 1) -> None:
        """Take the next turns. While the server fails, that is a probe."""
        self.breaker.take_turn(now)
        rate = self.rate.per_s(now)
        if rate is not None:
            self.rate.use(self.bucket.take(rate, now, turns), rate)

    def is_unlimited(self, now: float) -> bool:
        """Return whether nothing holds attempts back."""
        return self.rate.per_s(now) is None and not self.is_failing

    def answered(self, admitted_at: float, now: float, count: int = 1) -> None:
        """Take note of answers that are neither a throttle nor a failure of the server."""
        self.rate.meter.add(now, count)
        if self.breaker.answered(admitted_at):
            self.rate.start_slowly(now)

    def throttled(self, admitted_at: float, now: float, *, cuts: bool) -> None:
        """Take note of a throttle, and whether the rate follows it."""
        if cuts and self.rate.throttled(admitted_at, now):
            self.bucket.rest(now)
        # The rate alone would not do: the throttle may be forgiven, and all calls go at once.
        if self.breaker.answered(admitted_at):
            self.rate.start_slowly(now)

    def failed(self, call: object, admitted_at: float, now: float) -> None:
        """Take note of an attempt without an answer, or with one that says the server failed."""
        self.breaker.failed(call, admitted_at, now)

    def pause_until(self, until: float) -> None:
        """Give no turn before then: the server asked for it."""
        self.paused_until = max(self.paused_until, until)
