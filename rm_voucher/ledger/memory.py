"""A ledger's store in memory. It lasts as long as its object."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.records import (
    OPEN,
    AttemptState,
    Backlog,
    Batch,
    Code,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import KEYS, Page, Row, Tally, UnitOfWork
from rm_voucher.ledger.store import LedgerStore, Reading, Transition, sound_rows

I = TypeVar("I")  # noqa: E741 - an item
Kind = TypeVar("Kind", Batch, IssueRequest, IssueAttempt, Code)
R = TypeVar("R")

_WAITING = RequestState.WAITING


class MemoryTables:
    """The rows of a ledger. They outlive a store, as a file outlives a process."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.requests: dict[str, IssueRequest] = {}
        self.attempts: dict[str, IssueAttempt] = {}
        self.codes: dict[str, Code] = {}
        self.of_kind: dict[type[Row], dict[str, Any]] = {
            Batch: self.batches,
            IssueRequest: self.requests,
            IssueAttempt: self.attempts,
            Code: self.codes,
        }
        self.code_of: dict[str, str] = {}
        self.stop_reason: str | None = None
        self.account: str | None = None
        # Rows by the conditions of queries, so that no transaction looks at all of them.
        self.groups: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)

    def put(self, row: Row) -> None:
        """Keep a copy of a row, new or changed."""
        row, kind = copy.copy(row), type(row)
        key, table = getattr(row, KEYS[kind]), self.of_kind[kind]
        owner = row.request_id if isinstance(row, Code) else None
        if owner is not None and self.code_of.setdefault(owner, key) != key:
            raise LedgerError("A request would get a second code.")
        if (old := table.get(key)) is not None:
            self.groups[_group_of(old)].pop(key, None)
        table[key] = self.groups[_group_of(row)][key] = row


def _group_of(row: Row) -> tuple[object, ...]:
    """Return a row's group. It has the kind, because states of different kinds may be equal."""
    if isinstance(row, IssueRequest):
        return IssueRequest, row.batch, row.state, row.attempt_id is not None
    if isinstance(row, IssueAttempt):
        return IssueAttempt, row.batch, row.state, row.request_id is not None
    if isinstance(row, Code):
        return Code, row.batch, row.state, False
    return (Batch,)


class MemoryUnitOfWork(UnitOfWork):
    """A transaction on `MemoryTables`. What is flushed is written at once."""

    def __init__(self, tables: MemoryTables, owner: str = "") -> None:
        super().__init__()
        self._tables = tables
        self._owner = owner

    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        known, reason = self._tables.batches, self.stop_reason()
        new = (Batch(key, stop_reason=reason) for key in keys)
        return [copy.copy(known.setdefault(batch.key, batch)) for batch in new]

    def load(self, kind: type[Kind], keys: Sequence[str]) -> list[Kind]:
        return _copies(self._tables.of_kind[kind], keys)

    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        return _copies(
            self._tables.codes, [self._tables.code_of.get(name, "") for name in request_ids]
        )

    def find_spares(self, batch: str, limit: int) -> list[Code]:
        spares = self._group(Code, batch, CodeState.SPARE)
        return sorted(spares, key=attrgetter("added_at"))[:limit]

    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        groups = [self._group(IssueAttempt, batch, state) for state in OPEN]
        return list(itertools.chain.from_iterable(groups))[:limit]

    def find_unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        asked_at = attrgetter("asked_at")
        unserved = sorted(self._group(IssueRequest, batch, _WAITING), key=asked_at)
        if len(unserved) < limit:
            attempts = self._tables.attempts
            unserved += sorted(
                (
                    row
                    for row in self._group(IssueRequest, batch, _WAITING, has_claim=True)
                    if attempts[row.attempt_id or ""].state is AttemptState.AMBIGUOUS
                ),
                key=asked_at,
            )
        return unserved[:limit]

    def stop_reason(self) -> str | None:
        return self._tables.stop_reason

    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        for row in rows:
            self._tables.put(row)

    update = insert

    def now(self) -> float | None:
        return None

    def dead_owners(self, owners: Collection[str]) -> set[str]:
        return set(owners) - {self._owner}

    def find_batches(self) -> list[Batch]:
        return list(map(copy.copy, self._tables.batches.values()))

    def find_attempts(
        self, batch: str | None, states: Collection[AttemptState]
    ) -> list[IssueAttempt]:
        keys = self._tables.batches if batch is None else [batch]
        rows = [
            row
            for key in keys
            for state in states
            for has_claim in (False, True)
            for row in self._group(IssueAttempt, key, state, has_claim=has_claim)
        ]
        return sorted(rows, key=attrgetter("sent_at"))

    def find_seen(self, code: str) -> list[IssueAttempt]:
        rows = self._tables.attempts.values()
        return [copy.copy(row) for row in rows if row.seen_code == code]

    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        return [
            code
            for code in self._group(Code, batch, CodeState.FOREIGN)
            if code.assigned_at is None or begin <= code.assigned_at <= end
        ]

    def known(self, codes: Sequence[str]) -> set[str]:
        return set(codes) & self._tables.codes.keys()

    def backlog(self, batch: str | None) -> Backlog:
        keys = self._tables.batches if batch is None else [batch]
        waiting = [row for key in keys for row in self._group(IssueRequest, key, _WAITING)]
        ambiguous = self.find_attempts(batch, [AttemptState.AMBIGUOUS])
        return Backlog(
            waiting=len(waiting),
            oldest_waiting_at=min((row.asked_at for row in waiting), default=None),
            sending=len(self.find_attempts(batch, [AttemptState.SENDING])),
            ambiguous=len(ambiguous),
            oldest_ambiguous_at=min((row.sent_at for row in ambiguous), default=None),
            held=len(self.find_attempts(batch, [AttemptState.UNRESOLVED])),
            spare=sum(len(self._group(Code, key, CodeState.SPARE)) for key in keys),
        )

    def has_unknown(self, batch: str) -> bool:
        return bool(self._group(IssueRequest, batch, _WAITING, has_claim=True))

    def tally(self, batch: str | None) -> Tally:
        tally = Tally()
        for group, rows in self._tables.groups.items():
            if group[0] is not Batch and batch in (None, group[1]):
                kind, _, state, has_claim = group
                tally[kind, state, has_claim] += len(rows)
        return tally

    def page(self, batch: str | None, after: int, limit: int) -> Page:
        tables = self._tables
        rows = (
            (number, copy.copy(row), tables.codes.get(tables.code_of.get(row.id, "")))
            for number, row in enumerate(tables.requests.values(), 1)
            if number > after and batch in (None, row.batch)
        )
        return list(itertools.islice(rows, limit))

    def _group(
        self, kind: type[Kind], batch: str, state: str, *, has_claim: bool = False
    ) -> list[Kind]:
        rows = self._tables.groups.get((kind, batch, state, has_claim))
        return list(map(copy.copy, rows.values())) if rows else []


def _copies(rows: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    return [copy.copy(rows[key]) for key in keys if key in rows]


class MemoryLedgerStore(LedgerStore):
    """Keeps a ledger in `MemoryTables`: new ones, or those of another store."""

    def __init__(self, tables: MemoryTables | None = None, *, owner: str | None = None) -> None:
        super().__init__(owner=owner)
        self.tables: MemoryTables = tables or MemoryTables()

    async def open(self) -> None:
        """See `LedgerStore.open`."""
        self._is_open = True

    async def close(self) -> None:
        """See `LedgerStore.close`."""
        self._is_open = False

    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """See `LedgerStore.commit`."""
        self.check_open()
        unit = MemoryUnitOfWork(self.tables, self.owner)
        with sound_rows():
            (result,) = transition(unit, [item])
            unit.flush()
        self.notify(unit.assigned)
        return result

    async def read(self, reading: Reading[R]) -> R:
        """See `LedgerStore.read`."""
        self.check_open()
        with sound_rows():
            return reading(MemoryUnitOfWork(self.tables, self.owner))

    async def account(self) -> str | None:
        """See `LedgerStore.account`."""
        self.check_open()
        return self.tables.account

    async def namespaces(self) -> dict[str, str]:
        """See `LedgerStore.namespaces`."""
        self.check_open()
        return {} if self.tables.account is None else {"": self.tables.account}

    async def claim(self, account: str, *, rebind: bool = False) -> None:
        """See `LedgerStore.claim`."""
        self.check_open()
        if rebind or self.tables.account is None:
            self.tables.account = account
        if self.tables.account != account:
            raise LedgerError(
                "This ledger belongs to another account than this client's: use one for each.",
                is_final=True,
            )
