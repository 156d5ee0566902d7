"""A ledger's store in memory. It lasts as long as its object."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.records import (
    OPEN,
    AttemptState,
    Batch,
    Code,
    CodeState,
    Counts,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit import Row, UnitOfWork
from rm_voucher.ledger.store import LedgerStore, Reading, Transition

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_WAITING = RequestState.WAITING
_ALONE = True  # of a request or an attempt without the other


class MemoryTables:
    """The rows of a ledger. They outlive a store, as a file outlives a process."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.requests: dict[str, IssueRequest] = {}
        self.attempts: dict[str, IssueAttempt] = {}
        self.codes: dict[str, Code] = {}
        self.code_of: dict[str, str] = {}
        # Rows by the conditions of queries, so that no transaction looks at all of them.
        self.groups: dict[tuple[object, ...], dict[str, Any]] = defaultdict(dict)

    def put(self, row: Row) -> None:
        """Keep a copy of a row, new or changed."""
        row = copy.copy(row)
        if isinstance(row, Batch):
            self.batches[row.key] = row
        elif isinstance(row, IssueRequest):
            self._put(self.requests, row.id, row)
        elif isinstance(row, IssueAttempt):
            self._put(self.attempts, row.id, row)
        else:
            if row.request_id and self.code_of.setdefault(row.request_id, row.code) != row.code:
                raise LedgerError("A request would get a second code.")
            self._put(self.codes, row.code, row)

    def _put(self, table: dict[str, Any], key: str, row: Any) -> None:
        if (old := table.get(key)) is not None:
            del self.groups[_group_of(old)][key]
        table[key] = row
        self.groups[_group_of(row)][key] = row


def _group_of(row: IssueRequest | IssueAttempt | Code) -> tuple[object, ...]:
    """Return a row's group. States of different kinds are equal if their texts are."""
    if isinstance(row, IssueRequest):
        return IssueRequest, row.batch, row.state, row.attempt_id is None
    if isinstance(row, IssueAttempt):
        return IssueAttempt, row.batch, row.state, row.request_id is None
    return Code, row.batch, row.state


class MemoryUnitOfWork(UnitOfWork):
    """A transaction on `MemoryTables`. What is flushed is written at once."""

    def __init__(self, tables: MemoryTables, owner: str = "") -> None:
        super().__init__()
        self._tables = tables
        self._owner = owner

    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        return [copy.copy(self._tables.batches.setdefault(key, Batch(key))) for key in keys]

    def load_requests(self, ids: Sequence[str]) -> list[IssueRequest]:
        return _copies(self._tables.requests, ids)

    def load_attempts(self, ids: Sequence[str]) -> list[IssueAttempt]:
        return _copies(self._tables.attempts, ids)

    def load_codes(self, codes: Sequence[str]) -> list[Code]:
        return _copies(self._tables.codes, codes)

    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        return _copies(
            self._tables.codes, [self._tables.code_of.get(name, "") for name in request_ids]
        )

    def find_spares(self, batch: str, limit: int) -> list[Code]:
        spares = self._group(Code, batch, CodeState.SPARE)
        return sorted(spares, key=attrgetter("added_at"))[:limit]

    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        return [row for state in OPEN for row in self._group(IssueAttempt, batch, state, _ALONE)][
            :limit
        ]

    def find_unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        asked_at = attrgetter("asked_at")
        unserved = sorted(self._group(IssueRequest, batch, _WAITING, _ALONE), key=asked_at)
        if len(unserved) < limit:
            attempts = self._tables.attempts
            unserved += sorted(
                (
                    row
                    for row in self._group(IssueRequest, batch, _WAITING, not _ALONE)
                    if attempts[row.attempt_id].state is AttemptState.AMBIGUOUS
                ),
                key=asked_at,
            )
        return unserved[:limit]

    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        for row in rows:
            self._tables.put(row)

    update = insert

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
            for is_detached in (True, False)
            for row in self._group(IssueAttempt, key, state, is_detached)
        ]
        return sorted(rows, key=attrgetter("sent_at"))

    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        return [
            code
            for code in self._group(Code, batch, CodeState.FOREIGN)
            if code.assigned_at is None or begin <= code.assigned_at <= end
        ]

    def known(self, codes: Sequence[str]) -> set[str]:
        return set(codes) & self._tables.codes.keys()

    def counts(self, batch: str | None) -> Counts:
        def count(rows: dict[str, Any], state: object, **fields: object) -> int:
            return sum(
                row.state is state
                and batch in (None, row.batch)
                and all((getattr(row, name) is None) is value for name, value in fields.items())
                for row in rows.values()
            )

        tables = self._tables
        states = {
            "assigned": count(tables.requests, RequestState.ASSIGNED),
            "waiting": count(tables.requests, _WAITING, attempt_id=True),
            "ambiguous": count(tables.requests, _WAITING, attempt_id=False),
            "unresolved": count(tables.requests, RequestState.UNRESOLVED),
            "failed": count(tables.requests, RequestState.FAILED),
            "cancelled": count(tables.requests, RequestState.CANCELLED),
        }
        return Counts(
            asked=sum(states.values()),
            **states,
            spare=count(tables.codes, CodeState.SPARE),
            foreign=count(tables.codes, CodeState.FOREIGN),
            written_off=count(tables.attempts, AttemptState.WRITTEN_OFF),
        )

    def page(
        self, batch: str | None, after: int, limit: int
    ) -> list[tuple[int, IssueRequest, Code | None]]:
        tables = self._tables
        rows = [
            (number, copy.copy(row))
            for number, row in enumerate(tables.requests.values(), 1)
            if number > after and batch in (None, row.batch)
        ]
        return [
            (number, row, tables.codes.get(tables.code_of.get(row.id, "")))
            for number, row in rows[:limit]
        ]

    def _group(self, *group: object) -> list[Any]:
        rows = self._tables.groups.get(group)
        return list(map(copy.copy, rows.values())) if rows else []


def _copies(rows: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    return [copy.copy(rows[key]) for key in keys if key in rows]


class MemoryLedgerStore(LedgerStore):
    """Keeps a ledger in `MemoryTables`: new ones, or those of another store."""

    def __init__(self, tables: MemoryTables | None = None, *, owner: str | None = None) -> None:
        super().__init__(owner=owner)
        self.tables = tables or MemoryTables()

    async def open(self) -> None:
        """See `LedgerStore.open`."""

    async def close(self) -> None:
        """See `LedgerStore.close`."""

    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """See `LedgerStore.commit`."""
        unit = MemoryUnitOfWork(self.tables, self.owner)
        (result,) = transition(unit, [item])
        unit.flush()
        self.notify(unit.assigned)
        return result

    async def read(self, reading: Reading[R]) -> R:
        """See `LedgerStore.read`."""
        return reading(MemoryUnitOfWork(self.tables, self.owner))
