"""Finishes what calls and processes left, without anybody asking."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs

from rm_voucher.calls.hooks import WorkKind
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import VoucherError
from rm_voucher.ledger.process import AttemptTracker, LedgerClock
from rm_voucher.ledger.reconcile import Reconciler
from rm_voucher.ledger.store import LedgerStore
from rm_voucher.service.client import VoucherClient

_log = logging.getLogger("rm_voucher.ledger")
_ROUND_S = 5.0
_LONGEST_WAIT_S = 60.0
_REST = 4  # so many times as long as a listing took, where it settled nothing
_MANY = 100  # requests a round

T = TypeVar("T")

IssueTo = Callable[[VoucherClient, str, list[str]], Awaitable[VoucherError | None]]


@attrs.define(eq=False)
class Sweeper:
    """Sweeps the batches of one process, each in a task of its own.

    A round recovers the attempts of processes that are gone. It reads the listing only where an
    outcome has been unknown for ``settle_s``, and only in one process at a time. Then it issues to
    the requests that waited already a round ago: whoever asked for them has left, or has another
    round's time to be quicker.
    """

    _store: LedgerStore
    _clock: LedgerClock
    _tracker: AttemptTracker
    _reconciler: Reconciler
    _issue_to: IssueTo
    _rests_until: dict[str, float] = attrs.field(init=False, factory=dict)

    async def sweep(self, client: VoucherClient, batch_key: str) -> None:
        """Go on for ever with one batch. What fails is logged, and tried again ever more rarely."""
        waited = frozenset[str]()
        wait_s, self._rests_until[batch_key] = _ROUND_S, -math.inf
        while True:
            await self._clock.sleep(wait_s)
            try:
                waited = await self._round(client, batch_key, waited)
                wait_s = _ROUND_S
            except Exception as exc:  # noqa: BLE001 - also after a defect others must not wait for ever
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                reason = exc if isinstance(exc, VoucherError) else type(exc).__name__
                _log.warning(
                    "a batch is swept again in %.0f s: %s",
                    wait_s,
                    reason,
                    extra=log_fields(operation="sweep", batch=batch_key, client=client.name),
                )

    async def _round(
        self, client: VoucherClient, batch_key: str, waited: frozenset[str]
    ) -> frozenset[str]:
        """Return the requests that wait; issue to those that ``waited`` already."""
        await self._tracker.recover(batch_key)
        if await self._ripe(batch_key):
            await self._settle(client, batch_key)
        unserved = await self._store.read(lambda unit: unit.find_unserved(batch_key, _MANY))
        waiting = [request.id for request in unserved if request.attempt_id is None]
        left = [name for name in waiting if name in waited]
        if left:
            issuing = self._issue_to(client, batch_key, left)
            if (error := await _observed(client, issuing, batch_key)) is not None:
                raise error
        return frozenset(waiting)

    async def _settle(self, client: VoucherClient, batch_key: str) -> None:
        lease = self._reconciler.lease(batch_key)
        if self._clock.monotonic() < self._rests_until[batch_key] or not await lease.take():
            return
        rest_s = 0.0
        try:
            if ripe := await self._ripe(batch_key):  # another process may just have settled them
                begun = self._clock.monotonic()
                settling = self._reconciler.settle(client, batch_key, lease)
                report = await _observed(client, settling, batch_key)
                took_s = self._clock.monotonic() - begun
                # What is held may be so since an earlier listing.
                is_held = not ripe <= await self._ripe(batch_key)
                if not (report.adopted or report.not_issued or is_held):
                    rest_s = _REST * max(took_s, _ROUND_S)
                    self._rests_until[batch_key] = self._clock.monotonic() + rest_s
        finally:
            await (lease.rest(rest_s) if rest_s else lease.end())

    async def _ripe(self, batch_key: str) -> frozenset[str]:
        """Return the ids of the attempts whose outcome has been unknown for long enough."""
        ambiguous = await self._tracker.ambiguous(batch_key)
        return self._reconciler.ripe(ambiguous, self._clock.monotonic())


def _observed(client: VoucherClient, running: Awaitable[T], batch_key: str) -> Awaitable[T]:
    """Return what does the work of a sweep and tells the client's observers of it.

    It is nobody's: the task has the context of whoever used the batch first.
    """
    return client.caller.observed(
        running, "sweep", kind=WorkKind.LEDGER, batch_key=batch_key, is_own=True
    )
