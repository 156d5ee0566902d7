"""A store in an object, for tests and for trying out: all is forgotten when the process ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import attrs

from rm_voucher.exceptions import EventStoreError
from rm_voucher.models import VoucherStatus
from rm_voucher.runtime import Runtime
from rm_voucher.shared.lease import Lease as SharedLease
from rm_voucher.shared.memory import MemorySharedStore
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.records import (
    DELIVERY_S,
    Disposition,
    EventCounts,
    EventState,
    Expectation,
    Lease,
    Record,
    decide,
    microseconds,
    retry_delay_s,
    review,
)
from rm_voucher.webhooks.store import NOT_OPEN, OPEN_ALREADY, EventStore


@attrs.define
class _Entry:
    event: VoucherEvent
    recorded_at: float
    due_at: float
    state: EventState = EventState.RECORDED
    ended_at: float = 0.0
    attempts: int = 0


class MemoryEventStore(EventStore):
    """See `EventStore`. It grows with every event, until `prune`; closing forgets none."""

    def __init__(self, *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime=runtime)
        self._entries: dict[str, _Entry] = {}
        self._leases: dict[str, Lease] = {}
        self._expected: dict[str, Expectation] = {}
        self._shared = MemorySharedStore(runtime=self.runtime)
        self._is_open = False

    async def _open(self) -> None:
        if self._is_open:
            raise EventStoreError(OPEN_ALREADY, is_final=True)
        self._is_open = True

    async def aclose(self) -> None:
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise EventStoreError(NOT_OPEN, is_final=True)

    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_stale: bool = False
    ) -> Disposition:
        self._check_open()
        now = self.runtime.clock()
        record = Record(event=event, at=now, lease_s=lease_s, takes_stale=takes_stale)
        entry = self._entries.get(event.id)
        lease = self._leases.setdefault(event.code, Lease())
        found = decide(None if entry is None else entry.state, lease, record, owner=self.owner)
        if entry is None:
            entry = self._entries[event.id] = _Entry(event, now, now + DELIVERY_S)
        if found is Disposition.STALE:
            entry.state, entry.ended_at = EventState.STALE, now
        elif found is Disposition.READY and lease_s is not None:
            taken = attrs.evolve(lease, owner=self.owner, leased_until=now + lease_s)
            self._leases[event.code] = taken
        return found

    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        self._check_open()
        now = self.runtime.clock()
        entry, lease = self._entries.get(event.id), self._leases.get(event.code, Lease())
        if entry is not None:
            entry.attempts += 1
            if state is EventState.RECORDED:
                entry.due_at = max(entry.due_at, now + retry_delay_s(entry.attempts))
            else:
                entry.state, entry.ended_at = state, now
        at = microseconds(event.updated_at)
        if state is EventState.DONE and at is not None:
            newest = at if lease.newest is None else max(at, lease.newest)
            lease = attrs.evolve(lease, newest=newest)
        if lease.owner == self.owner:
            lease = Lease(newest=lease.newest)
        self._leases[event.code] = lease

    async def due(self, limit: int) -> list[VoucherEvent]:
        self._check_open()
        now = self.runtime.clock()
        waiting = (entry for entry in self._entries.values() if entry.state is EventState.RECORDED)
        found = sorted((e for e in waiting if e.due_at <= now), key=lambda e: e.due_at)
        return [entry.event for entry in found[:limit]]

    async def expect(self, codes: Iterable[str]) -> None:
        self._check_open()
        now = self.runtime.clock()
        for code in codes:
            new = Expectation(code=code, since=now, due_at=now + DELIVERY_S)
            self._expected.setdefault(code, new)

    async def forget(self, codes: Iterable[str]) -> None:
        self._check_open()
        for code in codes:
            self._expected.pop(code, None)

    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        self._check_open()
        now = self.runtime.clock()
        waiting = self._expected.values()
        due = sorted((e for e in waiting if e.due_at <= now), key=lambda e: e.due_at)
        missed = []
        for expectation in due[:limit]:
            code = expectation.code
            came = [
                entry.event.status
                for entry in self._entries.values()
                if entry.event.code == code and entry.recorded_at >= expectation.since
            ]
            following, looks_up = review(expectation, came, final=final, now=now)
            if following is None:
                del self._expected[code]
            else:
                self._expected[code] = following
            if looks_up:
                missed.append(code)
        return missed

    def lease(self, name: str, *, duration_s: float) -> SharedLease:
        """See `EventStore.lease`."""
        return SharedLease(self._shared, name, duration_s=duration_s)

    async def prune(self, *, keep_s: float) -> int:
        self._check_open()
        now = self.runtime.clock()
        old = [
            key
            for key, entry in self._entries.items()
            if entry.state is not EventState.RECORDED
            and entry.ended_at < now - keep_s
            and entry.event.code not in self._expected
        ]
        for key in old:
            del self._entries[key]
        left = {entry.event.code for entry in self._entries.values()}
        self._leases = {
            code: lease
            for code, lease in self._leases.items()
            if code in left or lease.leased_until > now
        }
        return len(old)

    async def counts(self) -> EventCounts:
        self._check_open()
        states = Counter(entry.state for entry in self._entries.values())
        return EventCounts(
            done=states[EventState.DONE],
            waiting=states[EventState.RECORDED],
            stale=states[EventState.STALE],
            expected=len(self._expected),
        )
