"""The queue of a client that shares its pace with other processes.

The pace of an account is one document in a shared store. Turns are a timeline: a process that needs
some takes the next piece of it, a tenth of a second at most, in which nobody else sends. So the sum
is the rate, however many there are, nobody must be a member, and one that dies loses a moment. What
its attempts have met goes with the next piece, at once if it is a throttle or a failure.

While the store is away, each process goes on with its share of the rate that was known.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import attrs

from rm_voucher.calls.flow import Flow, FlowState
from rm_voucher.calls.pace import Pace
from rm_voucher.calls.pace_document import PaceDocument
from rm_voucher.calls.rate_limiter import LATE_S, TOGETHER, TokenBucket
from rm_voucher.exceptions import SharedStoreError
from rm_voucher.runtime import ProcessName, Runtime
from rm_voucher.settings import FlowPolicy
from rm_voucher.shared.store import SharedStore

_log = logging.getLogger("rm_voucher.flow")

_LEASE_S = 0.1  # of the timeline, at most, for one process
_LEAD_S = 0.2  # of it, given to all processes ahead
_SEEN_S = 3.0  # after which a process that asks no more does not count
_FRESH_S = 1.0  # so long a pace without a limit holds
_REPORT_S = 0.25
_AGAIN_S = 0.5  # between two looks while nothing may be sent, or the store is away
_PATIENCE_S = 0.5  # with a store that says nothing
_MOST_REPORTS = 200
_MOST_FAILING = 1_000
_MOST_WAITS = 10  # of round trips, between two tries to swap
_AT_ONCE_S = 1e-6
_QUICK_S = 0.05  # a round trip from which the store's clock can be told
Report = Callable[[Pace, float], object]
"""Tells a pace how an attempt ended, as of the time when the pace hears it.

So every span of time in which answers are counted begins and ends with a report.
"""


@attrs.define
class _Answers:
    """The report of attempts that were answered, one after the other."""

    admitted_at: float
    count: int = 1

    def __call__(self, pace: Pace, now: float) -> None:
        pace.answered(self.admitted_at, now, self.count)


@attrs.frozen
class _Permit:
    """One turn of the timeline, until when it is good, and when it was given."""

    at: float
    until: float
    granted_at: float


class SharedFlow(Flow):
    """Admits attempts as fast as the server takes those of all processes together.

    ``key`` is the document's; processes of one account have the same. A single call waits for few
    of its own process's bulk runs, as in `Flow`.
    """

    def __init__(self, policy: FlowPolicy, runtime: Runtime, store: SharedStore, key: str) -> None:
        super().__init__(policy, runtime)
        self._store = store
        self._key = key
        self._name = ProcessName()
        self._pace = self._new_pace()
        self._ahead_s = runtime.clock() - runtime.monotonic()  # the store's clock; a first guess
        self._ahead_by_s = float("inf")  # the round trip that it was told from
        self._read_at = float("-inf")
        self._heard_at = float("-inf")
        self._took_s = 0.0
        self._processes = 1
        self._permits: deque[_Permit] = deque()
        self._taken = 0  # turns, since the last permits were given
        self._given_at = float("-inf")  # the first of those
        # Since when, by which look at the pace, attempts were admitted.
        self._admissions: deque[tuple[float, float]] = deque(maxlen=1_000)
        self._reports: list[Report] = []
        self._failing: dict[object, str] = {}
        self._away_since: float | None = None
        self._share_per_s: float | None = None
        self._gentle_until = float("-inf")
        self._syncing: asyncio.Task[None] | None = None
        self._unlimited = False
        self._is_urgent = False

    async def aclose(self) -> None:
        """Stop talking to the store, which stays open. It may be called more than once."""
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)

    @property
    def unlimited(self) -> bool:
        """Whether attempts may be sent without asking."""
        return self._unlimited and self._is_fresh(self._runtime.monotonic())

    @unlimited.setter
    def unlimited(self, value: bool) -> None:
        self._unlimited = value

    @property
    def state(self) -> FlowState:
        """How it stands now, as far as this process has heard."""
        now, away_since = self._runtime.monotonic(), self._away_since
        return attrs.evolve(
            super().state,
            processes=self._processes,
            store_away_s=None if away_since is None else now - away_since,
        )

    def answered(self, admitted_at: float, now: float) -> None:
        """See `Flow.answered`."""
        super().answered(admitted_at, now)
        self._failing.clear()
        last = self._reports[-1] if self._reports else None
        if isinstance(last, _Answers):
            last.admitted_at = max(last.admitted_at, admitted_at)
            last.count += 1
        else:
            self._reports.append(_Answers(admitted_at))
        if now - self._read_at > _REPORT_S:
            self._sync_soon(now)

    def throttled(self, admitted_at: float, now: float) -> None:
        """See `Flow.throttled`."""
        granted_at = self._granted_at(admitted_at) if self._away_since is None else admitted_at
        super().throttled(granted_at, now)
        cuts = self._policy.adaptive
        self._tell(lambda pace, heard_at: pace.throttled(granted_at, heard_at, cuts=cuts), now)

    def failed(self, call: object, admitted_at: float, now: float) -> None:
        """See `Flow.failed`."""
        if call not in self._failing and len(self._failing) < _MOST_FAILING:
            self._failing[call] = f"{self._name}:{len(self._failing)}"
        name = self._failing.get(call, str(self._name))
        super().failed(name, admitted_at, now)
        self._stop_if_paused(now)
        self._tell(lambda pace, heard_at: pace.failed(name, admitted_at, heard_at), now)

    def pause_until(self, until: float) -> None:
        """See `Flow.pause_until`."""
        super().pause_until(until)
        now = self._runtime.monotonic()
        self._stop_if_paused(now)
        self._tell(lambda pace, _: pace.pause_until(until), now)

    async def _take_turn(self, operation: str, latest: float | None) -> None:
        now = self._runtime.monotonic()
        while (wait_s := await self._turn_s(operation, latest, now)) > 0:
            now = await self._sleep(now, wait_s)

    async def _turn_s(self, operation: str, latest: float | None, now: float) -> float:
        """Take the turn if it has come; return how long it is away."""
        if self._away_since is not None:
            if now - self._read_at > _AGAIN_S:
                self._sync_soon(now)
            wait_s = self._wait_s(operation, latest, now)
            if wait_s <= 0:
                self._pace.take(now)
                self._admit(now, float("-inf"))  # by nothing that others know of
            return wait_s
        while self._permits and self._permits[0].until < now:
            self._permits.popleft()  # its piece of the timeline is another's by now
        if not self._permits:
            return await self._ask(operation, latest, now)
        wait_s = self._permits[0].at - now
        self._refuse_late(operation, latest, now, wait_s)
        if wait_s <= 0:
            self._admit(now, self._permits.popleft().granted_at)
            if self._wanted(now) > 0:
                self._sync_soon(now)
        return wait_s

    def _wait_s(self, operation: str, latest: float | None, now: float) -> float:
        """See `Flow`. Of turns that the store may give, it knows only the pause before them."""
        if self._away_since is not None:
            return super()._wait_s(operation, latest, now)
        pause_s = self._pace.pause_s(now)
        self._refuse_late(operation, latest, now, pause_s)
        return pause_s

    async def _ask(self, operation: str, latest: float | None, now: float) -> float:
        """Ask the store for turns; return how long nothing can be had, 0 for a turn at once."""
        pause_s = self._wait_s(operation, latest, now)
        # Only an outage may end before it is looked at again.
        if pause_s > 0 and (not self._pace.is_failing or now - self._read_at <= _AGAIN_S):
            return min(pause_s, _AGAIN_S)
        syncing, asked_at = self._sync_soon(now), now
        await asyncio.wait({syncing}, timeout=_PATIENCE_S)
        now = self._runtime.monotonic()
        was_stopped = now - asked_at > 2 * _PATIENCE_S  # this process, not the store
        if not (syncing.done() or was_stopped) and now - self._heard_at >= _PATIENCE_S:
            self._go_alone("it does not answer")
        if self._permits or self._away_since is not None:
            return _AT_ONCE_S  # there is a turn now, or will be
        pause_s = self._wait_s(operation, latest, now)
        return pause_s if self.unlimited else max(pause_s, _AT_ONCE_S)

    def _wanted(self, now: float) -> int:
        """Return how many permits to ask for: none as long as those at hand last."""
        if self._permits and self._permits[-1].at - now > 2 * self._took_s:
            return 0
        return self._waiting - len(self._permits)

    def _admit(self, now: float, granted_at: float) -> None:
        self._taken += 1
        if not self._admissions or self._admissions[-1][1] != granted_at:
            self._admissions.append((now, granted_at))

    def _granted_at(self, admitted_at: float) -> float:
        """Return when the pace was looked at by which an attempt was admitted."""
        for since, granted_at in reversed(self._admissions):
            if since <= admitted_at:
                return min(granted_at, admitted_at)
        return admitted_at

    def _is_fresh(self, now: float) -> bool:
        return self._away_since is not None or now - self._read_at < _FRESH_S

    def _tell(self, report: Report, now: float) -> None:
        """Let all know at once, in an outage of the store later."""
        if len(self._reports) < _MOST_REPORTS:
            self._reports.append(report)
        self._is_urgent = True
        if self._away_since is None:
            self._sync_soon(now)

    def _stop_if_paused(self, now: float) -> None:
        if self._pace.pause_s(now) > 0:
            self._permits.clear()

    def _sync_soon(self, now: float) -> asyncio.Task[None]:
        """Begin to talk to the store, unless that is going on; return the task."""
        loop = asyncio.get_running_loop()
        syncing = self._syncing
        if syncing is None or syncing.done() or syncing.get_loop() is not loop:
            self._syncing = syncing = loop.create_task(self._sync(now))
        return syncing

    async def _sync(self, now: float) -> None:
        """Report, and look at the pace; take permits if some are wanted."""
        reports: list[Report] = []
        self._is_urgent = True
        try:
            while self._is_urgent:  # for what came while the last report was on its way
                self._is_urgent = False
                reports, self._reports = self._reports, []
                await self._exchange(reports)
        except Exception as exc:  # noqa: BLE001 - a store of the user's own may raise anything
            self._read_at = self._runtime.monotonic()  # asked again after a while
            self._reports[:0] = reports
            del self._reports[_MOST_REPORTS:]
            ours = isinstance(exc, SharedStoreError)  # another's text may have a password
            self._go_alone(str(exc).rstrip(".") if ours else type(exc).__name__)

    async def _exchange(self, reports: list[Report]) -> None:
        monotonic = self._runtime.monotonic
        if self._away_since is not None:
            reports.clear()  # of this process's own share, and of long ago
        tries = 0
        while True:
            tries += 1
            asked_at = monotonic()
            found = await self._store.load(self._key)
            now = self._heard_at = monotonic()
            self._tell_clock(found.now, asked_at, now)
            document = self._read(found.content, now)
            pace, seen_at = document.pace, document.seen_at
            for report in reports:
                report(pace, now)
            permits = self._grant(pace, now, 1 + len(seen_at.keys() - {str(self._name)}))
            if not (permits or reports) and now - seen_at.get(str(self._name), 0.0) < _SEEN_S / 3:
                break
            seen_at[str(self._name)] = document.written_at = now
            content = document.dump(ahead_s=self._ahead_s)
            if await self._store.swap(self._key, found.version, content) is not None:
                break
            # Another was quicker: somebody always gets on. Waits by chance keep them apart.
            await self._runtime.sleep(
                self._runtime.random() * min(tries, _MOST_WAITS) * (now - asked_at)
            )
        self._settle(document, permits, asked_at)

    def _read(self, content: bytes | None, now: float) -> PaceDocument:
        document = PaceDocument(self._new_pace())
        try:
            document.load(content or b"", ahead_s=self._ahead_s, now=now)
        except ValueError:
            if content is not None:
                _log.warning("the shared rate can't be read, and is learned anew")
            document = PaceDocument(self._new_pace())
            document.pace.rate.start_slowly(now)  # all together
        document.seen_at = {
            name: at for name, at in document.seen_at.items() if now - _SEEN_S < at <= now + 1
        }
        return document

    def _grant(self, pace: Pace, now: float, processes: int) -> list[_Permit]:
        """Take permits from the timeline, as many as this process needs and may have at once."""
        wanted = self._wanted(now)
        if wanted <= 0 or pace.pause_s(now) > 0:
            return []
        rate = pace.rate.per_s(now)
        if rate is None and not pace.is_failing:
            return []
        if pace.is_failing:
            pace.take(now)
            return [_Permit(now, now + LATE_S + _QUICK_S, now)]
        assert rate is not None  # noqa: S101 - for the type checker
        if pace.bucket.next_at < now:  # nobody lacks turns: as many as will be used
            wanted = max(wanted, int(self._taken * _LEASE_S / max(now - self._given_at, 0.005)))
        turns = max(1, min(wanted, int(rate * min(_LEASE_S, _LEAD_S / processes))))
        if now < self._gentle_until and self._share_per_s is not None:
            # Others still send their shares, and can't say so.
            turns = 1
            pace.bucket.next_at = max(pace.bucket.next_at, self._given_at + 1 / self._share_per_s)
        begin = max(pace.bucket.next_at, now - LATE_S)
        pace.take(now, turns)
        return [
            _Permit(at, max(at, now) + LATE_S, now)
            for at in (begin + number / rate for number in range(turns))
        ]

    def _settle(self, document: PaceDocument, permits: list[_Permit], asked_at: float) -> None:
        """Go on with what the store has."""
        now = self._runtime.monotonic()
        if self._away_since is not None:
            _log.info("the shared rate is kept again, after %.0f s", now - self._away_since)
            self._away_since = None
            self._reports.clear()
            self._gentle_until = now + _SEEN_S
        self._took_s = now - asked_at
        self._read_at = asked_at
        self._processes = max(1, len(document.seen_at))
        self._pace = document.pace
        if self._pace.pause_s(now) > 0:
            self._permits.clear()  # but for a probe, which follows
        if permits:
            self._taken, self._given_at = 0, permits[0].at
        late_s = min(self._took_s, _QUICK_S)
        self._permits.extend(
            attrs.evolve(permit, until=permit.until + late_s) for permit in permits
        )
        for report in self._reports:  # which came meanwhile
            report(self._pace, now)
        if self._pace.is_unlimited(now) and self._pace.pause_s(now) <= 0:
            self._unlimited = True
            self._admit(now, asked_at)
        else:
            self._unlimited = False

    def _go_alone(self, why: str) -> None:
        """Go on with this process's share of what was known."""
        if self._away_since is not None:
            return
        now = self._away_since = self._runtime.monotonic()
        self._permits.clear()
        self._pace.rate.divide(self._processes, now)
        self._pace.bucket = TokenBucket()
        rate = self._share_per_s = self._pace.rate.per_s(now)
        _log.warning(
            "the shared rate can't be kept (%s): this process goes on alone, with %s",
            why,
            "no limit known" if rate is None else f"its share, {rate:.3g} requests a second",
        )

    def _tell_clock(self, store_now: float, asked_at: float, now: float) -> None:
        """Learn how far the store's clock is ahead, from round trips that say it well."""
        took_s = now - asked_at
        ahead_s = store_now - (asked_at + now) / 2
        is_set = abs(ahead_s - self._ahead_s) > took_s + 1.0
        if took_s <= max(2 * self._ahead_by_s, _QUICK_S) or is_set:
            self._ahead_s, self._ahead_by_s = ahead_s, took_s

    def _new_pace(self) -> Pace:
        return Pace.new(self._policy, self._runtime.random, TOGETHER)
