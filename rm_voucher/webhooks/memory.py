"""A store in an object, for tests and for trying out: all is forgotten when the process ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable

import attrs

from rm_voucher.models import VoucherStatus
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.store import (
    DELIVERY_S,
    Claim,
    EventCounts,
    EventState,
    EventStore,
    Expectation,
    Record,
    Standing,
    microseconds,
    retry_s,
    review,
    standing,
)


@attrs.define
class _Kept:
    event: VoucherEvent
    recorded_at: float
    due_at: float
    state: EventState = EventState.RECORDED
    ended_at: float = 0.0
    attempts: int = 0


class MemoryEventStore(EventStore):
    """See `EventStore`. It grows with every event, until `prune`."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self._events: dict[str, _Kept] = {}
        self._claims: dict[str, Claim] = {}
        self._expected: dict[str, Expectation] = {}

    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_older: bool = False
    ) -> Standing:
        """See `EventStore.record`."""
        now = self.clock()
        record = Record(event=event, at=now, lease_s=lease_s, takes_older=takes_older)
        kept = self._events.get(event.id)
        claim = self._claims.setdefault(event.code, Claim())
        found = standing(None if kept is None else kept.state, claim, record, owner=self.owner)
        if kept is None:
            kept = self._events[event.id] = _Kept(event, now, now + DELIVERY_S)
        if found is Standing.OLDER:
            kept.state, kept.ended_at = EventState.OLDER, now
        elif found is Standing.READY and lease_s is not None:
            self._claims[event.code] = attrs.evolve(
                claim, owner=self.owner, leased_until=now + lease_s
            )
        return found

    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        """See `EventStore.finish`."""
        now = self.clock()
        kept, claim = self._events.get(event.id), self._claims.get(event.code, Claim())
        if kept is not None:
            kept.attempts += 1
            if state is EventState.RECORDED:
                kept.due_at = max(kept.due_at, now + retry_s(kept.attempts))
            else:
                kept.state, kept.ended_at = state, now
        newest = claim.newest
        if state is EventState.DONE:
            at = microseconds(event.updated_at)
            newest = max((t for t in (newest, at) if t is not None), default=None)
        claim = attrs.evolve(claim, newest=newest)
        if claim.owner == self.owner:
            claim = attrs.evolve(claim, owner=None, leased_until=0.0)
        self._claims[event.code] = claim

    async def due(self, limit: int) -> list[VoucherEvent]:
        """See `EventStore.due`."""
        now = self.clock()
        waiting = (kept for kept in self._events.values() if kept.state is EventState.RECORDED)
        found = sorted((kept for kept in waiting if kept.due_at <= now), key=lambda k: k.due_at)
        return [kept.event for kept in found[:limit]]

    async def expect(self, codes: Iterable[str]) -> None:
        """See `EventStore.expect`."""
        now = self.clock()
        for code in codes:
            new = Expectation(code=code, since=now, due_at=now + DELIVERY_S)
            self._expected.setdefault(code, new)

    async def forget(self, codes: Iterable[str]) -> None:
        """See `EventStore.forget`."""
        for code in codes:
            self._expected.pop(code, None)

    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        """See `EventStore.take_missed`."""
        now = self.clock()
        due = sorted(
            (e for e in self._expected.values() if e.due_at <= now), key=lambda e: e.due_at
        )
        missed = []
        for expectation in due[:limit]:
            came = [
                kept.event.status
                for kept in self._events.values()
                if kept.event.code == expectation.code and kept.recorded_at >= expectation.since
            ]
            following, looks_up = review(expectation, came, final=final, now=now)
            if following is None:
                del self._expected[expectation.code]
            else:
                self._expected[expectation.code] = following
            if looks_up:
                missed.append(expectation.code)
        return missed

    async def prune(self, *, keep_s: float) -> int:
        """See `EventStore.prune`."""
        now = self.clock()
        before = now - keep_s
        old = [
            key
            for key, kept in self._events.items()
            if kept.state is not EventState.RECORDED
            and kept.ended_at < before
            and kept.event.code not in self._expected
        ]
        for key in old:
            del self._events[key]
        left = {kept.event.code for kept in self._events.values()}
        self._claims = {
            code: claim
            for code, claim in self._claims.items()
            if code in left or claim.leased_until > now
        }
        return len(old)

    async def counts(self) -> EventCounts:
        """See `EventStore.counts`."""
        states = Counter(kept.state for kept in self._events.values())
        return EventCounts(
            done=states[EventState.DONE],
            waiting=states[EventState.RECORDED],
            older=states[EventState.OLDER],
            expected=len(self._expected),
        )
