"""Where events are kept, so that each acts once: what a store is told, and what it answers.

An event is *recorded* before its handler runs and *done* after; its voucher remembers how new its
newest done event is. What a store decides, it decides by `standing` and `review`.
"""

from __future__ import annotations

import enum
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs

from rm_voucher.exceptions import ConfigurationError, EventStoreError
from rm_voucher.models import VoucherStatus, mask
from rm_voucher.webhooks.events import VoucherEvent

if TYPE_CHECKING:
    from rm_voucher.database.transaction import Transaction

DELIVERY_S = 360.0
"""How long RM itself may still deliver an event: five times, a minute apart, and a margin."""
_RETRY_S = 60.0
_LONGEST_S = 86_400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventState(enum.StrEnum):
    """How far an event has come."""

    RECORDED = "recorded"
    """It came. Its handler has not succeeded yet."""
    DONE = "done"
    """Its handler succeeded, or there is none for its status."""
    OLDER = "older"
    """It came when a newer one of its voucher was done, and was not handled."""


class Standing(enum.StrEnum):
    """What is to be done with an event that came."""

    READY = "ready"
    """Handle it."""
    DONE = "done"
    """It is a repeat."""
    OLDER = "older"
    """A newer one of its voucher is done."""
    BUSY = "busy"
    """One of its voucher is being handled by another process."""


@attrs.frozen(kw_only=True)
class Record:
    """An event came. ``lease_s`` claims its voucher for so long; None claims nothing."""

    event: VoucherEvent
    at: float
    lease_s: float | None = None
    takes_older: bool = False


@attrs.frozen(kw_only=True)
class Finish:
    """The handling of an event ended. It is due again if its state is RECORDED still."""

    event: VoucherEvent
    at: float
    state: EventState


@attrs.frozen(kw_only=True)
class Claim:
    """How new a voucher's newest done event is, and who claims the voucher until when."""

    newest: int | None = None
    owner: str | None = None
    leased_until: float = 0.0


@attrs.frozen(kw_only=True)
class Expectation:
    """A voucher that the application waits for: since when, and when it is looked at next."""

    code: str = attrs.field(repr=mask)
    since: float
    due_at: float
    tries: int = 0


@attrs.frozen(kw_only=True)
class EventCounts:
    """How many events and expectations there are.

    ``waiting`` events were recorded and are not done, ``older`` ones were not handled, and
    ``expected`` vouchers are waited for.
    """

    done: int
    waiting: int
    older: int
    expected: int


def standing(state: EventState | None, claim: Claim, record: Record, *, owner: str) -> Standing:
    """Return what is to be done with an event that stands in ``state``, None for a new one."""
    if state in (EventState.DONE, EventState.OLDER):
        return Standing.DONE
    if claim.owner not in (None, owner) and claim.leased_until > record.at:
        return Standing.BUSY
    at = microseconds(record.event.updated_at)
    if at is None or claim.newest is None or at >= claim.newest or record.takes_older:
        return Standing.READY
    return Standing.OLDER


def review(
    expectation: Expectation,
    came: Collection[VoucherStatus],
    *,
    final: Collection[VoucherStatus],
    now: float,
) -> tuple[Expectation | None, bool]:
    """Return an expectation as it goes on, None if it ends, and whether to look the voucher up.

    ``came`` are the statuses of the voucher's events that came since.
    """
    if any(status in final for status in came):
        return None, False
    if came:  # what follows has its whole time of delivery, too
        return attrs.evolve(expectation, since=now, due_at=now + DELIVERY_S, tries=0), False
    wait_s = min(DELIVERY_S * 2.0 ** min(expectation.tries, 16), _LONGEST_S)
    return attrs.evolve(expectation, due_at=now + wait_s, tries=expectation.tries + 1), True


def retry_s(attempts: int) -> float:
    """Return how long after its last attempt an event is run again that RM no longer delivers."""
    return min(_RETRY_S * 2.0 ** min(attempts, 16), _LONGEST_S)


def microseconds(instant: datetime | None) -> int | None:
    """Return the whole microseconds since 1970."""
    return None if instant is None else (instant - _EPOCH) // timedelta(microseconds=1)


class EventStore(ABC):
    """Keeps events and their states, and the vouchers whose callbacks are waited for.

    `WebhookRouter` and `CallbackPoller` use it. Entering and leaving it opens and closes it; the
    router does both for the store it is given. Every method raises `EventStoreError`. ``clock`` is
    the time in unix seconds; processes that share a database should agree on it to some seconds.
    """

    has_transactions = False
    """Whether a handler may take the transaction."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.owner = secrets.token_hex(8)

    @staticmethod
    def open(url: str, *, clock: Callable[[], float] = time.time) -> EventStore:
        """Return a store in a database; enter it with ``async with``, or give it to a router.

        ``url`` is ``sqlite:///events.db`` or ``postgresql://user@host/database``; give the
        application's own database if handlers are to take the transaction. Both may be used by
        several processes at once. Needs the extra ``sql`` or ``postgres``. The first call imports
        SQLAlchemy, which takes some 100 ms: make the store before the application serves. Raises
        `ConfigurationError`.
        """
        try:
            from rm_voucher.webhooks.sql.store import SqlEventStore  # an extra, and slow to import

            return SqlEventStore(url, clock=clock)
        except ImportError as exc:
            raise ConfigurationError.no_driver("A store", url) from exc

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:  # noqa: B027 - a store may need none
        """Make it ready."""

    async def aclose(self) -> None:  # noqa: B027 - as above
        """Close it. It may be called more than once."""

    @abstractmethod
    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_older: bool = False
    ) -> Standing:
        """Record an event durably, if it is new, and return what is to be done with it.

        ``lease_s`` claims its voucher: for so long no other process is told READY. Within one
        process, who calls this sees to it that a voucher's events come one after the other.
        ``takes_older`` takes an event for READY though a newer one is done.
        """

    @abstractmethod
    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        """Say how the handling of a recorded event ended; it gives the claim up.

        RECORDED means that it failed: the event is due again, later after each failure.
        """

    def transaction(
        self, event: VoucherEvent, *, takes_older: bool = False
    ) -> AbstractAsyncContextManager[tuple[Standing, Transaction]]:
        """Give a transaction in which a recorded event becomes done when the block ends.

        What is written in it is committed together with that, or not at all. If the standing is
        not READY, the block must do nothing.
        """
        raise EventStoreError("This store has no transactions: EventStore.open(url) gives one.")

    @abstractmethod
    async def due(self, limit: int) -> list[VoucherEvent]:
        """Return events that are recorded, not done, and no longer delivered by RM."""

    @abstractmethod
    async def expect(self, codes: Iterable[str]) -> None:
        """Wait for events of these vouchers from now on. Those waited for already stay so."""

    @abstractmethod
    async def forget(self, codes: Iterable[str]) -> None:
        """Wait for these vouchers no more."""

    @abstractmethod
    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        """Return codes that nothing came for in time, each to be looked up now.

        ``limit`` is how many expectations are reviewed. One ends with an event of a ``final``
        status. Each code that is returned is due again, later each time.
        """

    @abstractmethod
    async def prune(self, *, keep_s: float) -> int:
        """Forget events that ended more than ``keep_s`` seconds ago; return how many.

        A delivery of one of them would be taken for a new event: keep them for a day at least.
        Those of vouchers that are waited for stay, as a look-up may show them at any time.
        """

    @abstractmethod
    async def counts(self) -> EventCounts:
        """Return how many there are of each."""
