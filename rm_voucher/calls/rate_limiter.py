"""The rate at which a client sends: what the server takes, as far as its throttles have told."""

from __future__ import annotations

# The rate after a throttle: CUT of what was accepted, back at it after _RETURN_S, past it slowly at
# first and then ever faster. So a limit that stays is used nearly whole and seldom touched, and
# one that was lifted is found in less than half a minute.
_CUT = 0.93
_RETURN_S = 7.0
_CURVE = (1 - _CUT) / _RETURN_S**3
# The first throttle says little about the rate: from there up by _SEARCH a second to the next one.
_SEARCH = 1.5
_FIRST_PER_S = 10.0  # at least, where hardly anything was sent
_LEAST_PER_S = 1.0
_MOST_PER_S = 100_000.0  # which is none
# A throttle after a cut as recent as this is still of the old rate, or the cut was too small.
_RECENT_S = 0.25
_CUT_AGAIN = 0.75
# One throttle in so many attempts may be chance, and up to so many of them at a time: also to begin
# with, where a rate would be that of the few answers so far, and take a minute to grow.
_CHANCE = 100
_MOST_BY_CHANCE = 5
_REST_S = 0.1  # after a cut, so that the server's bucket fills a little
_LATE_S = 0.02  # of a turn, that the next ones may catch up
_METER_S = 0.5
_METER_ANSWERS = 10
_IDLE_S = 1.0
# After a failure of the server: not everybody at once.
_RAMP_PER_S = 20.0
_RAMP = 4.0


class RateMeter:
    """How many attempts a second the server accepted of late."""

    def __init__(self) -> None:
        self.reset(float("-inf"))

    def reset(self, now: float) -> None:
        self._last = self._since = now
        self._count = self._before = 0
        self._before_s = 0.0

    def add(self, now: float) -> None:
        if now - self._last > _IDLE_S:
            self.reset(now)
        self._last = now
        self._count += 1
        span_s = now - self._since
        if span_s >= _METER_S and self._count >= _METER_ANSWERS:
            self._before_s, self._before = span_s, self._count
            self._since, self._count = now, 0

    def per_s(self, now: float) -> float:
        span_s = now - self._since + self._before_s
        return (self._count + self._before) / max(span_s, _METER_S)


class AdaptiveRate:
    """The rate, and when the next attempt may be sent."""

    def __init__(self, most_per_s: float | None) -> None:
        self._most_per_s = most_per_s
        self._target: float | None = None  # what the server took, as far as it is known
        self._is_searching = False
        self._grown_s = 0.0  # how long the rate has been growing since the last cut
        self._cut_at = float("-inf")
        self._ramp_from: float | None = None
        self._credit = _CHANCE * _MOST_BY_CHANCE  # attempts, of which each _CHANCE allow one
        self._meter = RateMeter()
        self._next = self._taken_at = float("-inf")

    def per_s(self, now: float) -> float | None:
        """Return what is allowed now, None for any rate."""
        rates = (self._most_per_s, self._learned())
        if self._ramp_from is not None:
            ramp = _RAMP_PER_S * float(_RAMP ** min(now - self._ramp_from, 10.0))
            known = min((rate for rate in rates if rate is not None), default=_MOST_PER_S)
            if ramp < known:
                return ramp
            self._ramp_from = None
        return min((rate for rate in rates if rate is not None), default=None)

    def _learned(self) -> float | None:
        if self._target is None:
            return None
        if self._is_searching:
            return self._target * float(_SEARCH ** min(self._grown_s, 60.0))
        return self._target * (1 + _CURVE * (self._grown_s - _RETURN_S) ** 3)

    def wait_s(self, now: float) -> float:
        """Return how long the next attempt has to wait for its turn."""
        return self._next - now

    def take(self, now: float) -> None:
        """Take the turn."""
        rate = self.per_s(now)
        if rate is None:
            return
        earliest = now - _LATE_S
        if self._next >= earliest:  # the rate is used whole: it may be more
            self._grow(now - self._taken_at, rate)
        self._next = max(self._next, earliest) + 1 / rate
        self._taken_at = now

    def _grow(self, seconds: float, rate: float) -> None:
        self._grown_s += min(seconds, max(1.0, 2 / rate))
        learned = self._learned()
        if learned is not None and learned > _MOST_PER_S:
            self._target = None

    def accepted(self, now: float) -> None:
        """Take note that an attempt was not throttled."""
        self._meter.add(now)
        self._credit = min(self._credit + 1, _CHANCE * _MOST_BY_CHANCE)

    def throttled(self, sent_at: float, now: float) -> None:
        """Take note that an attempt was throttled; of those that were out together, of one."""
        if sent_at <= self._cut_at:  # after a cut nothing is sent for _REST_S
            return
        if self._credit >= _CHANCE:
            self._credit -= _CHANCE
            return
        rate, accepted, known = self.per_s(now), self._meter.per_s(now), self._learned()
        is_again = now - self._cut_at < _RECENT_S
        if rate is None:
            target = max(accepted, _FIRST_PER_S)
        elif is_again:
            target = rate * _CUT_AGAIN
        else:
            target = min(rate, accepted)
        if not is_again:
            # Where little was sent, what was accepted says little about the rate as well.
            self._is_searching = known is None or accepted < known / 2
        self._target = max(target, _LEAST_PER_S)
        self._ramp_from = None
        self._grown_s = 0.0
        self._cut_at = self._taken_at = now
        self._next = now + _REST_S
        self._meter.reset(now)

    def ramp(self, now: float) -> None:
        """Begin slowly, but not before the next turn of a rate that is lower still."""
        self._ramp_from = now
