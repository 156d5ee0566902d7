"""The rate at which a client sends: a rate meter, the adaptive rate, and a token bucket. Pure."""

from __future__ import annotations

import math

import attrs

# The first throttle says little about the rate. From there it grows by _SEARCH a second until the
# next throttle.
_SEARCH = 1.5
_FIRST_PER_S = 10.0  # at least, where hardly anything was sent
_LEAST_PER_S = 1.0
_MOST_PER_S = 100_000.0  # more is no limit
# A throttle so soon after a cut means that the cut was too small.
_RECENT_S = 0.25
_CUT_AGAIN = 0.75
_SETTLED_S = 2.0
_MOST_BY_CHANCE = 5
_REST_S = 0.1  # after a cut, in which the server's bucket fills a little
LATE_S = 0.02  # by which a turn may be late without being lost
_METER_S = 0.5
_METER_ANSWERS = 10
_IDLE_S = 1.0
# Slow start after an outage: not everybody at once.
_SLOW_START_PER_S = 20.0


@attrs.frozen(kw_only=True, eq=False)
class Tuning:
    """How a rate is learned from throttles.

    Attributes:
        cut: after a throttle, the rate is this share of the rate that was accepted.
        return_s: after so many seconds it is back there, and grows past it slowly at first and then
            ever faster. So a limit that stays is used nearly whole and seldom touched, and one that
            was lifted is found in less than half a minute.
        chance: one throttle per so many attempts is forgiven, at most five in a row. The first
            throttles of all are forgiven too: a rate of the few answers so far would take a minute
            to grow.
        window_s: the span of time in which the accepted rate is measured, once it is steady.
        after_cut: so many throttles in the two seconds after a cut are of no account.
        after_cut_share: so are as many more for each attempt that was accepted since.
        kept: how much of a rate that held for a while is kept at least, whatever the meter says.
        kept_searching: the same of a rate that was still searched for.
        slow_start: after an outage, the rate grows so many times a second.
    """

    cut: float = 0.93
    return_s: float = 7.0
    chance: int = 100
    window_s: float = _METER_S
    after_cut: int = 0
    after_cut_share: float = 0.0
    kept: float = 0.0
    kept_searching: float = 0.0
    slow_start: float = 4.0


ALONE = Tuning()
"""For a client that knows of its own attempts only."""
TOGETHER = Tuning(
    cut=0.96,
    return_s=5.0,
    chance=300,
    window_s=2.0,
    after_cut=2,
    after_cut_share=0.02,
    kept=0.9,
    kept_searching=0.7,
    slow_start=2.0,
)
"""For many processes: their reports come in batches and late, and more throttles are chance."""


@attrs.define(eq=False)
class RateMeter:
    """Measures how many attempts a second the server accepted of late, in windows of time."""

    total: int = 0
    """How many it has counted."""
    window_s: float = _METER_S
    _last_at: float = -math.inf
    _since_at: float = -math.inf
    _count: int = 0
    _before: int = 0
    _before_s: float = 0.0

    def reset(self, now: float) -> None:
        """Begin to measure anew."""
        self._last_at = self._since_at = now
        self._count = self._before = 0
        self._before_s = 0.0

    def add(self, now: float, count: int = 1) -> None:
        """Count attempts that were accepted."""
        if now - self._last_at > _IDLE_S:
            self.reset(now)
        self._last_at = now
        self.total += count
        self._count += count
        span_s = now - self._since_at
        if span_s >= self.window_s and self._count >= _METER_ANSWERS:
            self._before_s, self._before = span_s, self._count
            self._since_at, self._count = now, 0

    @property
    def counted(self) -> int:
        """How many it has counted in its last windows."""
        return self._count + self._before

    def per_s(self, now: float) -> float:
        """Return the rate over the last span and the present one."""
        span_s = now - self._since_at + self._before_s
        return self.counted / max(span_s, _METER_S)


@attrs.define(eq=False)
class CubicCurve:
    """The rate that throttles have taught: where it was cut, and how it grows from there."""

    _tuning: Tuning = ALONE
    _target: float | None = None  # what the server accepted at the last cut
    is_searching: bool = False
    _grown_s: float = 0.0
    _least_per_s: float = _LEAST_PER_S

    def per_s(self) -> float | None:
        """Return the rate, None while no throttle has taught any."""
        if self._target is None:
            return None
        if self.is_searching:
            return self._target * float(_SEARCH ** min(self._grown_s, 60.0))
        cut, return_s = self._tuning.cut, self._tuning.return_s
        return self._target * (1 + (1 - cut) * (self._grown_s / return_s - 1) ** 3)

    @property
    def safe_per_s(self) -> float | None:
        """What the server accepted at the last cut, None where that is not known."""
        return None if self.is_searching else self._target

    def cut(self, target: float, *, is_searching: bool) -> None:
        """Begin again below ``target``; or at it, and fast, to search for an unknown rate."""
        self._target = max(target, self._least_per_s)
        self.is_searching = is_searching
        self._grown_s = 0.0

    def grow(self, seconds: float) -> None:
        """Grow for some seconds in which the rate was used whole."""
        self._grown_s += seconds
        rate = self.per_s()
        if rate is not None and rate > _MOST_PER_S:
            self._target = None

    def divide(self, parts: int) -> None:
        """Go on at one of so many parts of the rate."""
        self._least_per_s /= parts
        if self._target is not None:
            self._target /= parts


@attrs.define(eq=False)
class AdaptiveRate:
    """The rate that is allowed: the user's limit, what throttles have taught, and slow start."""

    most_per_s: float | None = None
    _tuning: Tuning = ALONE
    meter: RateMeter = attrs.field(factory=RateMeter)
    _curve: CubicCurve = attrs.field(init=False)
    _cut_at: float = -math.inf
    _after_cut: int = 0  # throttles since then
    _slow_start_at: float | None = None
    _forgiveness: int = attrs.field(init=False)  # in attempts, some of which forgive a throttle
    _counted: int = 0  # of the meter's attempts, into the forgiveness

    def __attrs_post_init__(self) -> None:
        self._curve = CubicCurve(self._tuning)
        self._forgiveness = self._tuning.chance * _MOST_BY_CHANCE

    def per_s(self, now: float) -> float | None:
        """Return the rate that is allowed now, None for any."""
        rates = [self.most_per_s, self._curve.per_s()]
        if self._slow_start_at is not None:
            growth = self._tuning.slow_start ** min(now - self._slow_start_at, 20.0)
            slow = _SLOW_START_PER_S * float(growth)
            rates.append(slow if slow < _MOST_PER_S else None)
        return min((rate for rate in rates if rate is not None), default=None)

    def divide(self, parts: int, now: float) -> None:
        """Go on at one of so many parts of what is known, and no faster, until it is forgotten."""
        known = min(
            (rate for rate in (self.per_s(now), self._curve.safe_per_s) if rate), default=None
        )
        self._curve.divide(parts)
        self.most_per_s = None if known is None else known / parts
        self.meter.reset(-math.inf)

    def use(self, seconds: float, rate_per_s: float) -> None:
        """Take note that the rate was used whole for some seconds, and may grow."""
        self._curve.grow(min(seconds, max(1.0, 2 / rate_per_s)))

    def throttled(self, admitted_at: float, now: float) -> bool:
        """Take note that an attempt was throttled; return whether that cuts the rate.

        A throttle is charged to the rate that admitted the attempt, so of the attempts that were
        in flight together only the first cuts it.
        """
        if admitted_at <= self._cut_at:
            return False
        tuning = self._tuning
        self._after_cut += 1
        is_settled = now - self._cut_at > _SETTLED_S
        most = 0 if is_settled else tuning.after_cut + self.meter.counted * tuning.after_cut_share
        if self._after_cut <= most or self._forgives():
            return False
        rate, accepted, learned = self.per_s(now), self.meter.per_s(now), self._curve.per_s()
        if now - self._cut_at < _RECENT_S and rate is not None:
            self._curve.cut(rate * _CUT_AGAIN, is_searching=self._curve.is_searching)
        else:
            # Where little was sent, what was accepted says little about the rate as well.
            is_unknown = learned is None or accepted < learned / 2
            target = max(accepted, _FIRST_PER_S) if rate is None else min(rate, accepted)
            if rate is not None and learned is not None and is_settled:
                kept = tuning.kept_searching if self._curve.is_searching else tuning.kept
                target = max(target, kept * rate)
                is_unknown = is_unknown and not kept
            self._curve.cut(target, is_searching=is_unknown)
        self._slow_start_at = None
        self._cut_at = now
        self._after_cut = 0
        self.meter.reset(now + _REST_S)
        # While it is searched for, the rate changes fast.
        self.meter.window_s = _METER_S if self._curve.is_searching else tuning.window_s
        return True

    def _forgives(self) -> bool:
        earned, self._counted = self.meter.total - self._counted, self.meter.total
        chance = self._tuning.chance
        self._forgiveness = min(self._forgiveness + earned, chance * _MOST_BY_CHANCE)
        if self._forgiveness < chance:
            return False
        self._forgiveness -= chance
        return True

    def start_slowly(self, now: float) -> None:
        """Begin with few attempts a second, then allow ever more."""
        self._slow_start_at = now


@attrs.define(eq=False)
class TokenBucket:
    """Gives turns at a rate, evenly spaced. It holds what 20 ms of the rate give."""

    next_at: float = -math.inf
    """When the next turn comes."""
    _taken_at: float = -math.inf

    def wait_s(self, now: float) -> float:
        """Return how long the next turn is away; 0 or less where it has come."""
        return self.next_at - now

    def take(self, rate_per_s: float, now: float, turns: int = 1) -> float:
        """Take the next turns; return for how many seconds the rate has been used whole."""
        earliest = now - LATE_S
        used_s = now - self._taken_at if self.next_at >= earliest else 0.0
        self.next_at = max(self.next_at, earliest) + turns / rate_per_s
        self._taken_at = now
        return used_s

    def rest(self, now: float) -> None:
        """Give no turn for a moment, and none before those that were given."""
        self.next_at = max(self.next_at, now) + _REST_S
        self._taken_at = now
