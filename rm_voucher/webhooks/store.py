"""What a store of events must do. `records` has the rules that every store decides by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import EventStoreError
from rm_voucher.models import VoucherStatus
from rm_voucher.runtime import ProcessName, Runtime
from rm_voucher.shared.lease import Lease
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.records import Disposition, EventCounts, EventState

if TYPE_CHECKING:  # it imports SQLAlchemy, an extra
    from rm_voucher.database.transaction import Transaction

NOT_OPEN = "The store of callbacks is not open."
OPEN_ALREADY = "The store of callbacks is open already."


class EventStore(ABC):
    """Keeps events with their states, and the vouchers whose callbacks are waited for.

    `WebhookRouter` and `CallbackPoller` use it. Entering and leaving it opens and closes it; the
    router does both for its store. Every method raises `EventStoreError`. Processes that share a
    database should agree on ``runtime.clock`` to some seconds.
    """

    has_transactions = False
    """Whether a handler may take the transaction."""

    def __init__(self, *, runtime: Runtime | None = None) -> None:
        check_type("runtime", runtime, Runtime, optional=True)
        self.runtime: Runtime = runtime or Runtime()
        self._owner: ProcessName | str = ProcessName()
        self._account: str | None = None

    @property
    def owner(self) -> str:
        """The name of this process in the leases that it takes."""
        return str(self._owner)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _open(self) -> None:  # noqa: B027 - a store may need none
        """Make it ready."""

    async def aclose(self) -> None:  # noqa: B027 - as above
        """Close it. It may be called more than once."""

    def _check_open(self) -> None:  # noqa: B027 - as above
        """Raise `EventStoreError` unless it is open."""

    async def claim(self, account: str, *, rebind: bool = False) -> None:
        """Let the store be an account's, if it is nobody's: `VoucherClient.account`.

        A poller, and a router that confirms, do it for their client. ``rebind`` takes it from the
        account that it belongs to: a person's word that it is the same merchant's. May be repeated.
        Raises `EventStoreError` where it is another's.
        """
        self._check_open()
        if account == self._account:
            return
        await self._claim(account, rebind=rebind)
        self._account = account

    async def _claim(self, account: str, *, rebind: bool) -> None:
        if self._account is not None and not rebind:
            raise EventStoreError(
                "The store of callbacks belongs to another account than this client's: use one "
                "for each.",
                is_final=True,
            )

    @abstractmethod
    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_stale: bool = False
    ) -> Disposition:
        """Record an event durably, if it is new, and return what is to be done with it.

        ``lease_s`` leases its voucher: for so long no other process is told READY. Within one
        process, the caller takes a voucher's events one after the other. ``takes_stale`` takes an
        event for READY though a newer one is done.
        """

    @abstractmethod
    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        """Write the state in which the handling of a recorded event ended, and end the lease.

        RECORDED means that it failed: the event is due again, later after each failure.
        """

    def transaction(
        self, event: VoucherEvent, *, takes_stale: bool = False
    ) -> AbstractAsyncContextManager[tuple[Disposition, Transaction]]:
        """Give a transaction in which a recorded event becomes done when the block ends.

        What is written in it is committed together with that, or not at all. If the disposition is
        not READY, the block must do nothing.
        """
        raise EventStoreError(
            "This store has no transactions: open_event_store(url) gives one.", is_final=True
        )

    @abstractmethod
    async def due(self, limit: int) -> list[VoucherEvent]:
        """Return events that are recorded, not done, and no longer delivered by RM."""

    @abstractmethod
    async def expect(self, codes: Iterable[str]) -> None:
        """Wait for events of these vouchers from now on; a voucher that is expected stays so."""

    @abstractmethod
    async def forget(self, codes: Iterable[str]) -> None:
        """Wait for these vouchers no more."""

    @abstractmethod
    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        """Return the codes of vouchers to look up now, because no event of theirs came in time.

        At most ``limit`` expectations are reviewed. One ends with an event of a ``final`` status.
        Each code that is returned is due again, later each time.
        """

    @abstractmethod
    def lease(self, name: str, *, duration_s: float) -> Lease:
        """Return the lease of something that one process with these events does at a time.

        Its methods raise `SharedStoreError`.
        """

    @abstractmethod
    async def prune(self, *, keep_s: float) -> int:
        """Delete events that ended more than ``keep_s`` seconds ago; return how many.

        A delivery of one of them would be taken for a new event: keep them for a day at least.
        Events of expected vouchers stay, because a look-up may show them at any time.
        """

    @abstractmethod
    async def counts(self) -> EventCounts:
        """Return how many there are of each."""
