"""A `UnitOfWork` on an SQL transaction."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    any_,
    func,
    literal,
    literal_column,
)
from sqlalchemy.dialects.postgresql import ARRAY

from rm_voucher.database.driven import Driven
from rm_voucher.database.scope import Scope
from rm_voucher.exceptions import LedgerError
from rm_voucher.jsontext import write_json
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Backlog,
    Batch,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import KEYS, Page, Row, Tally, UnitOfWork
from rm_voucher.ledger.sql.schema import (
    IS_DETACHED,
    IS_NOTABLE,
    IS_SPARE,
    WAITS,
    attempts,
    batches,
    codes,
    is_in,
    leases,
    meta,
    requests,
)
from rm_voucher.ledger.sql.statements import Lookup, Statement, Stock

R = TypeVar("R", Batch, IssueRequest, IssueAttempt, Code)

BATCH_LOCK = 0x726E
"""The class of PostgreSQL's advisory locks of batches: shared, or of a transaction that is alone.

The batches' rows are locked too. But those who share a row's lock let nobody have it alone while
there are new ones, and these locks are given in the order in which they are asked for.
"""

NOW = "extract(epoch FROM clock_timestamp())::float8"
"""The time by PostgreSQL's clock: that of a statement, and not of its transaction's beginning."""

_TABLES: dict[type[Row], Table] = {
    Batch: batches,
    IssueRequest: requests,
    IssueAttempt: attempts,
    Code: codes,
}
_NAMES = {kind: [field.name for field in attrs.fields(kind)] for kind in _TABLES}
_MEMBERS: dict[type[Row], dict[str, type[enum.StrEnum]]] = {
    Batch: {},
    IssueRequest: {"state": RequestState},
    IssueAttempt: {"state": AttemptState},
    Code: {"state": CodeState, "origin": CodeOrigin},
}
# The positions of a kind's enums among its fields, and their members by value.
_ENUMS = {
    kind: [
        (_NAMES[kind].index(name), {member.value: member for member in members})
        for name, members in enums.items()
    ]
    for kind, enums in _MEMBERS.items()
}
_COLUMNS = {kind: [table.c[name] for name in _NAMES[kind]] for kind, table in _TABLES.items()}
_LOOKUPS = {kind: Lookup.by(table.c[KEYS[kind]], _NAMES[kind]) for kind, table in _TABLES.items()}
_CODES_OF = Lookup.by(codes.c.request_id, _NAMES[Code])
_SPARES = Stock.of(IS_SPARE, codes.c.added_at, _NAMES[Code])
_DETACHED = Stock.of(IS_DETACHED, attempts.c.sent_at, _NAMES[IssueAttempt])
_KNOWN = Lookup.by(codes.c.code, ["code"])
_INSERTS = {kind: Statement.insert(table, _NAMES[kind]) for kind, table in _TABLES.items()}
_INSERTS[IssueRequest] = Statement.insert_by_key(requests, _NAMES[IssueRequest], "id", "seq")
_UPDATES = {
    kind: Statement.update(table, _NAMES[kind], KEYS[kind]) for kind, table in _TABLES.items()
}
# Another process may be adding it.
_ADD_BATCHES = Statement.insert(batches, ["key", "stop_reason"], or_ignore=True)


class SqlUnitOfWork(UnitOfWork):
    """A transaction on one namespace of the database. Unless it ``writes``, it locks nothing."""

    def __init__(self, connection: Connection, scope: Scope, *, writes: bool = False) -> None:
        super().__init__()
        self._connection = connection
        self._driven = Driven(connection)
        self._scope = scope
        self._namespace = scope.namespace
        self._locks = writes
        self._is_sqlite = connection.dialect.name == "sqlite"

    def lock_batches(self, keys: Sequence[str]) -> list[Batch]:
        if not self._is_sqlite:
            self._driven.send(
                f"SELECT pg_advisory_xact_lock({BATCH_LOCK}, key) FROM unnest(%b::int4[]) AS key",  # noqa: S608 - a number
                (batch_lock_keys(self._namespace, keys),),
            )
        found = self.load(Batch, keys)
        missing = set(keys) - {batch.key for batch in found}
        if missing:
            reason = self.stop_reason()
            new = [Batch(key, stop_reason=reason) for key in sorted(missing)]
            self._write(_ADD_BATCHES, new)
            found = self.load(Batch, keys)
        return found

    def load(self, kind: type[R], keys: Sequence[str]) -> list[R]:
        return self._rows(kind, _LOOKUPS[kind], keys)

    def find_codes(self, request_ids: Collection[str]) -> list[Code]:
        return self._rows(Code, _CODES_OF, list(request_ids))

    def find_spares(self, batch: str, limit: int) -> list[Code]:
        return self._stock(Code, _SPARES, batch, limit)

    def find_detached(self, batch: str, limit: int) -> list[IssueAttempt]:
        return self._stock(IssueAttempt, _DETACHED, batch, limit)

    def find_unserved(self, batch: str, limit: int) -> list[IssueRequest]:
        ambiguous = (
            self._scope.select(attempts)
            .where(attempts.c.id == requests.c.attempt_id)
            .where(attempts.c.state == AttemptState.AMBIGUOUS.value)
        )
        waiting = self._select(IssueRequest).where(WAITS, requests.c.batch == batch)
        first = waiting.where(requests.c.attempt_id.is_(None))
        unserved = self._made(IssueRequest, first.order_by(requests.c.seq).limit(limit))
        if len(unserved) < limit:
            then = waiting.where(requests.c.attempt_id.is_not(None), ambiguous.exists())
            then = then.order_by(requests.c.seq).limit(limit - len(unserved))
            unserved += self._made(IssueRequest, then)
        return unserved

    def stop_reason(self) -> str | None:
        reason: str | None = self._connection.scalar(self._scope.select(meta, meta.c.stop_reason))
        return reason

    def insert(self, kind: type[Row], rows: Sequence[Any]) -> None:
        self._write(_INSERTS[kind], rows)

    def update(self, kind: type[Row], rows: Sequence[Any]) -> None:
        self._write(_UPDATES[kind], rows)

    def _write(self, statement: Statement, rows: Sequence[Any]) -> None:
        values = [statement.values_of(row) for row in rows]
        if self._is_sqlite:
            text = _json(values)
            # SQLite would end the text there; PostgreSQL refuses it by itself.
            if "\\u0000" in text and _has_nul(values):
                raise LedgerError("What is to be kept has a NUL in it.", is_final=True)
            self._driven.send(statement.sqlite, (self._namespace, text))
        else:
            columns = map(list, zip(*values, strict=True))
            self._driven.send(statement.postgresql, (self._namespace, *columns))

    def now(self) -> float | None:
        if self._is_sqlite:  # its clock is this machine's, which may be set
            return None
        ((now,),) = self._found(f"SELECT {NOW}", ())
        return float(now)

    def dead_owners(self, owners: Collection[str]) -> set[str]:
        if self._is_sqlite or not owners:  # the file's lock is ours, so nobody else's is
            return set(owners)
        names = literal([owner_lease(owner) for owner in owners], ARRAY(Text))
        living = self._scope.select(leases, leases.c.holder).where(
            leases.c.name == any_(names), leases.c.until > literal_column(NOW)
        )
        return set(owners) - set(self._connection.scalars(living))

    def find_seen(self, code: str) -> list[IssueAttempt]:
        return self._made(
            IssueAttempt, self._select(IssueAttempt).where(attempts.c.seen_code == code)
        )

    def find_batches(self) -> list[Batch]:
        return self._made(Batch, self._select(Batch))

    def find_attempts(
        self, batch: str | None, states: Collection[AttemptState]
    ) -> list[IssueAttempt]:
        wanted = self._select(IssueAttempt).where(IS_NOTABLE, is_in(attempts.c.state, *states))
        if batch is not None:
            wanted = wanted.where(attempts.c.batch == batch)
        return self._made(IssueAttempt, wanted.order_by(attempts.c.sent_at))

    def find_foreign(self, batch: str, begin: float, end: float) -> list[Code]:
        foreign = self._select(Code).where(
            codes.c.batch == batch, codes.c.state == CodeState.FOREIGN
        )
        in_time = codes.c.assigned_at.between(begin, end) | codes.c.assigned_at.is_(None)
        return self._made(Code, foreign.where(in_time))

    def known(self, codes_: Sequence[str]) -> set[str]:
        return {row[0] for row in self._looked_up(_KNOWN, codes_)}

    def tally(self, batch: str | None) -> Tally:
        has_claim = requests.c.attempt_id.is_not(None)
        is_written_off = IS_NOTABLE & is_in(attempts.c.state, AttemptState.WRITTEN_OFF)
        counted: list[tuple[type[Row], list[ColumnElement[Any]], list[ColumnElement[bool]]]] = [
            (IssueRequest, [requests.c.state, has_claim], []),
            (IssueAttempt, [attempts.c.state], [is_written_off]),
            (Code, [codes.c.state], []),
        ]
        tally = Tally()
        for kind, columns, conditions in counted:
            if batch is not None:
                conditions.append(_TABLES[kind].c.batch == batch)
            wanted = self._scope.select(_TABLES[kind], func.count(), *columns)
            wanted = wanted.where(*conditions).group_by(*columns)
            for number, state, *claims in self._connection.execute(wanted):
                tally[kind, state, any(claims)] = number
        return tally

    def backlog(self, batch: str | None) -> Backlog:
        def row(
            table: Table, where: ColumnElement[bool], *columns: ColumnElement[Any]
        ) -> tuple[Any, ...]:
            wanted = self._scope.select(table, func.count(), *columns).where(where)
            if batch is not None:
                wanted = wanted.where(table.c.batch == batch)
            return tuple(self._connection.execute(wanted).one())

        is_idle = WAITS & requests.c.attempt_id.is_(None)
        waiting, oldest_waiting_at = row(requests, is_idle, func.min(requests.c.asked_at))
        (sending,) = row(attempts, _is_attempt(AttemptState.SENDING))
        oldest = func.min(attempts.c.sent_at)
        ambiguous, oldest_ambiguous_at = row(attempts, _is_attempt(AttemptState.AMBIGUOUS), oldest)
        (held,) = row(attempts, _is_attempt(AttemptState.UNRESOLVED))
        (spare,) = row(codes, IS_SPARE)
        return Backlog(
            waiting=waiting,
            oldest_waiting_at=oldest_waiting_at,
            sending=sending,
            ambiguous=ambiguous,
            oldest_ambiguous_at=oldest_ambiguous_at,
            held=held,
            spare=spare,
        )

    def has_unknown(self, batch: str) -> bool:
        claims = self._scope.select(requests, requests.c.seq).where(
            WAITS, requests.c.batch == batch, requests.c.attempt_id.is_not(None)
        )
        return self._connection.scalar(claims.limit(1)) is not None

    def page(self, batch: str | None, after: int, limit: int) -> Page:
        wanted = self._scope.select(requests, requests.c.seq, *_COLUMNS[IssueRequest])
        wanted = wanted.where(requests.c.seq > after).order_by(requests.c.seq).limit(limit)
        if batch is not None:
            wanted = wanted.where(requests.c.batch == batch)
        rows = [(row[0], row_of(IssueRequest, row[1:])) for row in self._connection.execute(wanted)]
        found = self.find_codes([request.id for _, request in rows])
        code_of = {code.request_id: code for code in found}
        return [(number, request, code_of.get(request.id)) for number, request in rows]

    def _select(self, kind: type[Row]) -> Select[Any]:
        return self._scope.select(_TABLES[kind], *_COLUMNS[kind])

    def _stock(self, kind: type[R], stock: Stock, batch: str, limit: int) -> list[R]:
        statement = stock.sqlite if self._is_sqlite else stock.postgresql
        found = self._found(statement, (self._namespace, batch, limit))
        return [row_of(kind, row) for row in found]

    def _rows(self, kind: type[R], lookup: Lookup, keys: Sequence[str]) -> list[R]:
        return [row_of(kind, row) for row in self._looked_up(lookup, keys)]

    def _looked_up(self, lookup: Lookup, keys: Sequence[str]) -> Sequence[Sequence[Any]]:
        if self._is_sqlite:
            return self._found(lookup.sqlite, (self._namespace, _json(list(keys))))
        statement = lookup.postgresql_locking if self._locks else lookup.postgresql
        return self._found(statement, (self._namespace, list(keys)))

    def _found(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._driven.rows(self._driven.send(statement, values))

    def _made(self, kind: type[R], wanted: Select[Any]) -> list[R]:
        return [row_of(kind, row) for row in self._connection.execute(wanted)]


def _json(values: Sequence[Any]) -> str:
    try:
        return write_json(values).decode()
    except TypeError:
        raise LedgerError(
            "What is to be kept or found is not valid Unicode.", is_final=True
        ) from None


def _has_nul(rows: Sequence[Sequence[Any]]) -> bool:
    return any("\0" in value for row in rows for value in row if isinstance(value, str))


def owner_lease(owner: str) -> str:
    """Return the name of the lease by which a process shows that it lives."""
    return f"process {owner}"


def batch_lock_keys(namespace: str | None, keys: Sequence[str]) -> list[int]:
    """Return the numbers of batches in PostgreSQL's advisory locks, in one order for all."""
    return sorted({zlib.crc32(f"{namespace}\0{key}".encode()) - 2**31 for key in keys})


def columns_of(kind: type[Row]) -> str:
    """Return the columns that `row_of` takes, as text."""
    return ", ".join(column.name for column in _COLUMNS[kind])


def _is_attempt(state: AttemptState) -> ColumnElement[bool]:
    return IS_NOTABLE & is_in(attempts.c.state, state)


def row_of(kind: type[R], row: Sequence[Any]) -> R:
    """Return a row of the database as an object."""
    values = list(row)
    for at, members in _ENUMS[kind]:
        values[at] = members[values[at]]
    return kind(*values)
