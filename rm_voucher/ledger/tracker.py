"""What one process knows of attempts, and the database can't know."""

from __future__ import annotations

from collections.abc import Iterable

from rm_voucher.ledger.clock import LedgerClock
from rm_voucher.ledger.rules.commands import Recover
from rm_voucher.ledger.rules.records import AttemptState
from rm_voucher.ledger.rules.settling import recover
from rm_voucher.ledger.store import LedgerStore, blocks


class AttemptTracker:
    """Knows which attempts this process sends, and since when it knows others to be ambiguous.

    That time is taken from the monotonic clock: the other one may have been set since, and the
    clock of another process says nothing about ours.
    """

    def __init__(self, store: LedgerStore, clock: LedgerClock) -> None:
        self._store = store
        self._clock = clock
        self._ambiguous_since: dict[str, float] = {}
        self.sending: set[str] = set()
        """The ids of the attempts that this process sends."""

    async def open(self) -> None:
        """Recover from the last process, and note the attempts that are ambiguous."""
        if not self._store.read_only:
            await self.recover()
        for attempt in await self._store.attempts(None, [AttemptState.AMBIGUOUS]):
            self.ambiguous_since(attempt.id)

    async def recover(self, batch_key: str | None = None) -> None:
        """Make ambiguous the attempts that a dead process was sending."""
        sending = await self._store.attempts(batch_key, [AttemptState.SENDING])
        lost = [attempt for attempt in sending if attempt.id not in self.sending]
        for block in blocks(lost):
            now = self._clock.latest_now()
            item = Recover(attempts=tuple(block), own=self._store.owner, at=now)
            for attempt_id in await self._store.commit(recover, item):
                self.note_ambiguous(attempt_id)

    def note_ambiguous(self, attempt_id: str) -> None:
        """Note that an attempt has just become ambiguous."""
        self._ambiguous_since[attempt_id] = self._clock.monotonic()

    def ambiguous_since(self, attempt_id: str) -> float:
        """Return since when, by the monotonic clock, this process knows an ambiguous attempt."""
        return self._ambiguous_since.setdefault(attempt_id, self._clock.monotonic())

    def forget(self, attempt_ids: Iterable[str]) -> None:
        """Forget attempts that are settled."""
        for attempt_id in attempt_ids:
            self._ambiguous_since.pop(attempt_id, None)
