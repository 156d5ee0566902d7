"""A transaction of issuing on PostgreSQL, which many processes may run on one batch at a time.

It takes two round trips: one reads all rows that its items can need, and one writes and commits.
Its locks are these. It shares the lock of its batches, so that no transaction that must be alone
runs meanwhile. It locks the rows of its requests, because two processes may be asked for one. An
attempt that is sending is changed by its own process alone, and a new code is nobody else's, so
those need no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import attrs
from sqlalchemy import Connection

from rm_voucher.database.scope import Scope
from rm_voucher.ledger.rules.commands import Ask, Check, Confirm, End
from rm_voucher.ledger.rules.records import Batch, Code, IssueAttempt, IssueRequest
from rm_voucher.ledger.rules.unit_of_work import NeedsExclusiveError
from rm_voucher.ledger.sql.schema import (
    IS_DETACHED,
    IS_SPARE,
    attempts,
    batches,
    codes,
    requests,
)
from rm_voucher.ledger.sql.statements import Statement, each_by_key
from rm_voucher.ledger.sql.unit_of_work import (
    BATCH_LOCK,
    NOW,
    SqlUnitOfWork,
    batch_lock_keys,
    columns_of,
    row_of,
)

P = ParamSpec("P")
R = TypeVar("R", Batch, IssueRequest, IssueAttempt, Code)
Item = Ask | Check | Confirm | End

_LOCK = f"SELECT pg_advisory_xact_lock_shared({BATCH_LOCK}, key) FROM unnest(%b::int4[]) AS key"  # noqa: S608 - a number
_BATCHES = (
    f"SELECT {NOW}, {columns_of(Batch)} "  # noqa: S608 - our own names
    f"FROM {batches.name} WHERE namespace = %b AND key = ANY (%b::text[]) ORDER BY key FOR SHARE"
)
_CLAIMANTS = each_by_key(attempts.c.id, "request_id")
_CLAIMED = each_by_key(requests.c.id, "attempt_id")
_REQUESTS = each_by_key(
    requests.c.id,
    columns_of(IssueRequest),
    keys=f"(SELECT unnest(%b::text[]) UNION {_CLAIMANTS})",
    lock=" FOR UPDATE",
)
_ATTEMPTS = each_by_key(
    attempts.c.id,
    columns_of(IssueAttempt),
    keys=f"(SELECT unnest(%b::text[]) UNION {_CLAIMED})",
)
_CODES = " UNION ALL ".join(
    each_by_key(column, columns_of(Code)) for column in (codes.c.code, codes.c.request_id)
)
_STOCKED = " UNION ".join(
    f"SELECT batch FROM {table.name} "  # noqa: S608 - our own names
    f"WHERE {condition} AND namespace = %b AND batch = ANY (%b::text[])"
    for table, condition in ((codes, IS_SPARE), (attempts, IS_DETACHED))
)


@attrs.frozen
class _Wanted:
    """The keys of the rows that items name."""

    batches: list[str]
    requests: list[str]
    attempts: list[str]
    codes: list[str]

    @classmethod
    def by(cls, items: Iterable[Item]) -> _Wanted:
        keys = set[str](), set[str](), set[str](), set[str]()
        of_batches, of_requests, of_attempts, of_codes = keys
        for item in items:
            of_batches.add(item.batch)
            if isinstance(item, Ask | Confirm):
                of_requests.add(item.request_id)
            if not isinstance(item, Ask):  # whose attempt is new
                of_attempts.add(item.attempt_id)
            if isinstance(item, Confirm):
                of_codes.add(item.code)
        return cls(*map(sorted, keys))


class SharedUnitOfWork(SqlUnitOfWork):
    """A transaction that knows the rows of its items, and raises `NeedsExclusiveError` for more."""

    is_shared = True

    def __init__(self, connection: Connection, scope: Scope, items: Iterable[Item]) -> None:
        super().__init__(connection, scope, writes=True)
        self._load_all(_Wanted.by(items))

    def _load_all(self, wanted: _Wanted) -> None:
        ours, send = self._namespace, self._driven.send
        send(_LOCK, (batch_lock_keys(ours, wanted.batches),))
        of_batches = send(_BATCHES, (ours, wanted.batches))
        of_requests = send(_REQUESTS, (ours, wanted.requests, ours, wanted.attempts))
        of_attempts = send(_ATTEMPTS, (ours, wanted.attempts, ours, wanted.requests))
        of_codes = send(_CODES, (ours, wanted.codes, ours, wanted.requests))
        stocked = send(_STOCKED, (ours, wanted.batches, ours, wanted.batches))
        found = self._driven.rows(of_batches)
        if len(found) < len(wanted.batches):
            raise NeedsExclusiveError
        self._now: float = found[0][0]
        self._know(Batch, [row[1:] for row in found], wanted.batches)
        self._know(IssueRequest, self._driven.rows(of_requests), wanted.requests)
        self._know(IssueAttempt, self._driven.rows(of_attempts), wanted.attempts)
        self._know(Code, self._driven.rows(of_codes), wanted.codes)
        self._stocked = {row[0] for row in self._driven.rows(stocked)}
        self._served = set(wanted.requests)

    def _know(self, kind: type[R], rows: Sequence[Any], keys: Sequence[str]) -> None:
        self._keep(row_of(kind, row) for row in rows)
        self._absent[kind].update(key for key in keys if key not in self._loaded[kind])

    def now(self) -> float | None:
        return self._now

    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        raise NeedsExclusiveError

    def load(self, kind: type[R], keys: Sequence[str]) -> list[R]:
        raise NeedsExclusiveError

    def query(self, find: Callable[P, list[R]], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        # What is found was read before: a row that is new and then changed is written once.
        return self._keep(find(*args, **kwargs))

    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        if not self._served.issuperset(request_ids):
            raise NeedsExclusiveError
        wanted = set(request_ids)
        return [code for code in self._loaded[Code].values() if code.request_id in wanted]

    def find_spares(self, batch: str, limit: int) -> list[Code]:
        if batch in self._stocked:
            raise NeedsExclusiveError
        return []

    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        return []  # as `find_spares` has seen

    def _write(self, statement: Statement, rows: Sequence[Any]) -> None:
        columns = map(list, zip(*map(statement.values_of, rows), strict=True))
        self._driven.send(statement.postgresql, (self._namespace, *columns))
