"""Leases in a ledger's database: what one process at a time does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.process import LedgerClock
from rm_voucher.ledger.store import LedgerStore

LASTS_S = 15.0
"""How long a lease lasts. A process that is gone, or stands still, is waited for so long."""
_RENEWED_AFTER_S = LASTS_S / 3
_POLL_S = 1.0


@attrs.define(eq=False)
class Lease:
    """A lease that this process has. `keep` it now and then."""

    _store: LedgerStore
    _clock: LedgerClock
    name: str
    _taken_at: float = attrs.field(init=False, default=0.0)

    async def take(self) -> bool:
        """Take it; return False while another process has it. Raises `LedgerError`."""
        now = self._clock.monotonic()
        if not await self._store.take_lease(self.name, LASTS_S):
            return False
        self._taken_at = now
        return True

    async def keep(self) -> None:
        """Renew it when it is time. Raises `LedgerError` if another process has it meanwhile."""
        is_old = self._clock.monotonic() - self._taken_at > _RENEWED_AFTER_S
        if is_old and not await self.take():
            raise LedgerError("Another process does this now: this one stood still for too long.")

    async def rest(self, rest_s: float) -> None:
        """Let nobody else have it for so long."""
        await self._store.take_lease(self.name, rest_s)

    async def end(self) -> None:
        """Let another process have it. Raises `LedgerError`."""
        await self._store.end_lease(self.name)


@asynccontextmanager
async def waiting_lease(lease: Lease, clock: LedgerClock) -> AsyncIterator[Lease]:
    """Wait until this process has the lease; end it with the block."""
    while not await lease.take():
        await clock.sleep(_POLL_S)
    try:
        yield lease
    finally:
        await lease.end()
