"""The states of events and the rules by which a store decides. No I/O.

An event is *recorded* before its handler runs and *done* after; its voucher remembers how new its
newest done event is.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import attrs

from rm_voucher.models import VoucherStatus, mask
from rm_voucher.webhooks.events import VoucherEvent

DELIVERY_S = 360.0
"""RM itself may still deliver an event for so long: five times, a minute apart, and a margin."""
_FIRST_RETRY_S = 60.0
_LONGEST_WAIT_S = 86_400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventState(enum.StrEnum):
    """How far an event has come. The values stand in databases."""

    RECORDED = "recorded"
    """It came. Its handler has not succeeded yet."""
    DONE = "done"
    """Its handler succeeded, or its status has no handler."""
    STALE = "older"
    """It came when a newer event of its voucher was done, and was not handled."""


class Disposition(enum.StrEnum):
    """What is to be done with an event that came."""

    READY = "ready"
    """Handle it."""
    DONE = "done"
    """It is a repeat."""
    STALE = "stale"
    """A newer event of its voucher is done."""
    BUSY = "busy"
    """Another process handles an event of its voucher."""


@attrs.frozen(kw_only=True)
class Record:
    """An event came. ``lease_s`` leases its voucher for so long; None takes no lease."""

    event: VoucherEvent
    at: float
    lease_s: float | None = None
    takes_stale: bool = False


@attrs.frozen(kw_only=True)
class Finish:
    """The handling of an event ended. It is due again if its state is still RECORDED."""

    event: VoucherEvent
    at: float
    state: EventState


@attrs.frozen(kw_only=True)
class Lease:
    """A voucher's newest done event, in microseconds, and the process that handles its events.

    The lease is over at ``leased_until``, whatever became of its owner.
    """

    newest: int | None = None
    owner: str | None = None
    leased_until: float = 0.0


@attrs.frozen(kw_only=True)
class Expectation:
    """The application waits for a voucher since then, and looks at it next at ``due_at``."""

    code: str = attrs.field(repr=mask)
    since: float
    due_at: float
    tries: int = 0


@attrs.frozen(kw_only=True)
class EventCounts:
    """How many events and expectations there are.

    ``waiting`` events were recorded and are not done, ``stale`` ones were not handled, and
    ``expected`` vouchers are waited for.
    """

    done: int
    waiting: int
    stale: int
    expected: int


def decide(state: EventState | None, lease: Lease, record: Record, *, owner: str) -> Disposition:
    """Return what is to be done with an event in ``state``, None for a new one."""
    if state in (EventState.DONE, EventState.STALE):
        return Disposition.DONE
    if lease.owner not in (None, owner) and lease.leased_until > record.at:
        return Disposition.BUSY
    at = microseconds(record.event.updated_at)
    if at is None or lease.newest is None or at >= lease.newest or record.takes_stale:
        return Disposition.READY
    return Disposition.STALE


def review(
    expectation: Expectation,
    came: Collection[VoucherStatus],
    *,
    final: Collection[VoucherStatus],
    now: float,
) -> tuple[Expectation | None, bool]:
    """Return an expectation as it goes on, None if it ends, and whether to look the voucher up.

    ``came`` has the statuses of the voucher's events since the expectation began.
    """
    if any(status in final for status in came):
        return None, False
    if came:  # RM may deliver the next event for the whole time, too
        return attrs.evolve(expectation, since=now, due_at=now + DELIVERY_S, tries=0), False
    wait_s = _doubled(DELIVERY_S, expectation.tries)
    return attrs.evolve(expectation, due_at=now + wait_s, tries=expectation.tries + 1), True


def retry_delay_s(attempts: int) -> float:
    """Return how long an event waits after its last attempt, once RM delivers it no longer."""
    return _doubled(_FIRST_RETRY_S, attempts)


def _doubled(first_s: float, times: int) -> float:
    return min(first_s * 2.0 ** min(times, 16), _LONGEST_WAIT_S)


def microseconds(instant: datetime | None) -> int | None:
    """Return the whole microseconds since 1970."""
    return None if instant is None else (instant - _EPOCH) // timedelta(microseconds=1)
