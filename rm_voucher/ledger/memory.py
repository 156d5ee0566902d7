"""A ledger that lasts as long as its store object: for tests, and for who needs no durability."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, TypeVar, Unpack

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.ledger import Ledger, Reading, Transition
from rm_voucher.ledger.rules.records import (
    OPEN,
    Attempt,
    AttemptState,
    Batch,
    Code,
    CodeState,
    Counts,
    Request,
    RequestState,
    Settings,
)
from rm_voucher.ledger.rules.unit import Row, UnitOfWork

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
T = TypeVar("T")

_WAITING = RequestState.WAITING
_ALONE = True  # of a request or an attempt without the other


class MemoryStore:
    """What a `MemoryLedger` keeps. It outlives the ledger, as a file outlives a process."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.requests: dict[str, Request] = {}
        self.attempts: dict[str, Attempt] = {}
        self.codes: dict[str, Code] = {}
        self.code_of: dict[str, str] = {}
        # Rows by what is asked for, so that no transaction looks at all of them. States of
        # different kinds are equal if they are the same text, so the kind is part of the group.
        self.groups: dict[tuple[object, ...], dict[str, Any]] = defaultdict(dict)

    def put(self, row: Row) -> None:
        """Keep a copy of a row, new or changed."""
        row = copy.copy(row)
        if isinstance(row, Batch):
            self.batches[row.key] = row
        elif isinstance(row, Request):
            self._put(self.requests, row.id, row, _group_of_request)
        elif isinstance(row, Attempt):
            self._put(self.attempts, row.id, row, _group_of_attempt)
        else:
            if row.request_id and self.code_of.setdefault(row.request_id, row.code) != row.code:
                raise LedgerError("A request would get a second code.")
            self._put(self.codes, row.code, row, _group_of_code)

    def _put(
        self, table: dict[str, T], key: str, row: T, group: Callable[[T], tuple[object, ...]]
    ) -> None:
        if (old := table.get(key)) is not None:
            del self.groups[group(old)][key]
        table[key] = row
        self.groups[group(row)][key] = row


def _group_of_request(row: Request) -> tuple[object, ...]:
    return Request, row.batch, row.state, row.attempt_id is None


def _group_of_attempt(row: Attempt) -> tuple[object, ...]:
    return Attempt, row.batch, row.state, row.request_id is None


def _group_of_code(row: Code) -> tuple[object, ...]:
    return Code, row.batch, row.state


class MemoryUnitOfWork(UnitOfWork):
    """A transaction on a `MemoryStore`. It is written as it is flushed."""

    def __init__(self, store: MemoryStore, owner: str = "") -> None:
        super().__init__()
        self._store = store
        self._owner = owner

    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        return [copy.copy(self._store.batches.setdefault(key, Batch(key))) for key in keys]

    def load_requests(self, ids: Sequence[str]) -> list[Request]:
        return _copies(self._store.requests, ids)

    def load_attempts(self, ids: Sequence[str]) -> list[Attempt]:
        return _copies(self._store.attempts, ids)

    def load_codes(self, codes: Sequence[str]) -> list[Code]:
        return _copies(self._store.codes, codes)

    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        return _copies(
            self._store.codes, [self._store.code_of.get(name, "") for name in request_ids]
        )

    def find_spares(self, batch: str, limit: int) -> list[Code]:
        spares = self._group(Code, batch, CodeState.SPARE)
        return sorted(spares, key=attrgetter("added_at"))[:limit]

    def find_loose(self, batch: str, limit: int) -> list[Attempt]:
        return [row for state in OPEN for row in self._group(Attempt, batch, state, _ALONE)][:limit]

    def find_needy(self, batch: str, limit: int) -> list[Request]:
        asked_at = attrgetter("asked_at")
        needy = sorted(self._group(Request, batch, _WAITING, _ALONE), key=asked_at)
        if len(needy) < limit:
            attempts = self._store.attempts
            needy += sorted(
                (
                    row
                    for row in self._group(Request, batch, _WAITING, not _ALONE)
                    if attempts[row.attempt_id].state is AttemptState.AMBIGUOUS
                ),
                key=asked_at,
            )
        return needy[:limit]

    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        for row in rows:
            self._store.put(row)

    update = insert

    def dead_owners(self, owners: Collection[str]) -> set[str]:
        return set(owners) - {self._owner}

    def find_batches(self) -> list[Batch]:
        return list(map(copy.copy, self._store.batches.values()))

    def find_attempts(self, batch: str | None, states: Collection[AttemptState]) -> list[Attempt]:
        keys = self._store.batches if batch is None else [batch]
        rows = [
            row
            for key in keys
            for state in states
            for is_loose in (True, False)
            for row in self._group(Attempt, key, state, is_loose)
        ]
        return sorted(rows, key=attrgetter("sent_at"))

    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        return [
            code
            for code in self._group(Code, batch, CodeState.FOREIGN)
            if code.assigned_at is None or begin <= code.assigned_at <= end
        ]

    def known(self, codes: Sequence[str]) -> set[str]:
        return set(codes) & self._store.codes.keys()

    def counts(self, batch: str | None) -> Counts:
        def count(rows: dict[str, Any], state: object, **fields: object) -> int:
            return sum(
                row.state is state
                and batch in (None, row.batch)
                and all((getattr(row, name) is None) is value for name, value in fields.items())
                for row in rows.values()
            )

        store = self._store
        states = {
            "assigned": count(store.requests, RequestState.ASSIGNED),
            "waiting": count(store.requests, _WAITING, attempt_id=True),
            "ambiguous": count(store.requests, _WAITING, attempt_id=False),
            "unresolved": count(store.requests, RequestState.UNRESOLVED),
            "failed": count(store.requests, RequestState.FAILED),
            "cancelled": count(store.requests, RequestState.CANCELLED),
        }
        return Counts(
            asked=sum(states.values()),
            **states,
            spare=count(store.codes, CodeState.SPARE),
            foreign=count(store.codes, CodeState.FOREIGN),
            written_off=count(store.attempts, AttemptState.WRITTEN_OFF),
        )

    def page(
        self, batch: str | None, after: int, limit: int
    ) -> list[tuple[int, Request, Code | None]]:
        store = self._store
        rows = [
            (number, copy.copy(row))
            for number, row in enumerate(store.requests.values(), 1)
            if number > after and batch in (None, row.batch)
        ]
        return [
            (number, row, store.codes.get(store.code_of.get(row.id, "")))
            for number, row in rows[:limit]
        ]

    def _group(self, *group: object) -> list[Any]:
        rows = self._store.groups.get(group)
        return list(map(copy.copy, rows.values())) if rows else []


def _copies(rows: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    return [copy.copy(rows[key]) for key in keys if key in rows]


class MemoryLedger(Ledger):
    """Keeps everything in a `MemoryStore`: what ends the process ends it.

    Takes the settings of `Ledger`, and a ``store`` to go on with what another one left.
    """

    def __init__(self, store: MemoryStore | None = None, **settings: Unpack[Settings]) -> None:
        super().__init__(**settings)
        self.store = store or MemoryStore()

    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """See `Ledger.commit`."""
        unit = MemoryUnitOfWork(self.store, self.owner)
        (result,) = transition(unit, [item])
        unit.flush()
        self.tell(unit.assigned)
        return result

    async def read(self, reading: Reading[R]) -> R:
        """See `Ledger.read`."""
        return reading(MemoryUnitOfWork(self.store, self.owner))

    async def _open(self) -> None:
        pass

    async def _close(self) -> None:
        pass
