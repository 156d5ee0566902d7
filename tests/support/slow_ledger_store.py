"""A ledger's store in memory that takes its time, as a disk does."""

from __future__ import annotations

import asyncio

from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables
from rm_voucher.ledger.store import Transition


class SlowLedgerStore(MemoryLedgerStore):
    """Takes so long for each commit, by the event loop's clock."""

    def __init__(self, commit_s: float, tables: MemoryTables | None = None) -> None:
        super().__init__(tables)
        self._commit_s = commit_s

    async def commit(self, transition: Transition, item: object) -> object:  # type: ignore[override]
        await asyncio.sleep(self._commit_s)
        return await super().commit(transition, item)
