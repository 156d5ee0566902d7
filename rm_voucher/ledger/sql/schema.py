"""The ledger's tables, the same in SQLite and PostgreSQL.

Two UNIQUE constraints hold the promise, in each namespace: a code has one row, and no two rows name
the same request.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from rm_voucher.database.database import Schema
from rm_voucher.database.migrations import KeysWithNamespace
from rm_voucher.database.scope import namespace_column
from rm_voucher.ledger.rules.records import NOTABLE, OPEN, CodeState, RequestState

_tables = MetaData()

# About the file, and so about all namespaces in it.
meta: Table = Table(
    "rm_ledger_meta",
    _tables,
    Column("commits", BigInteger, nullable=False),
    Column("id", Text),
    Column("stop_reason", Text),  # of batches that have no row yet
)

batches: Table = Table(
    "rm_ledger_batches",
    _tables,
    namespace_column(primary_key=True),
    Column("key", Text, primary_key=True),
    Column("baseline_at", Double),
    Column("alarm", Text, key="stop_reason"),  # the name in databases of today
)

requests: Table = Table(
    "rm_ledger_requests",
    _tables,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    namespace_column(),
    Column("id", Text, nullable=False),
    Column("batch", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("attempt_id", Text),
    Column("error", Text),
    UniqueConstraint("namespace", "id"),
)

attempts: Table = Table(
    "rm_ledger_attempts",
    _tables,
    namespace_column(primary_key=True),
    Column("id", Text, primary_key=True),
    Column("batch", Text, nullable=False),
    Column("request_id", Text),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("sent_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("seen_code", Text),
    Column("seen_qr_url", Text),
    Column("unknown_since", Double),  # by the database's clock
    sqlite_with_rowid=False,
)

codes: Table = Table(
    "rm_ledger_codes",
    _tables,
    namespace_column(primary_key=True),
    Column("code", Text, primary_key=True),
    Column("batch", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("added_at", Double, nullable=False),
    Column("request_id", Text),
    Column("attempt_id", Text),
    Column("qr_url", Text),
    Column("assigned_at", Double),
    CheckConstraint(
        f"(state = '{CodeState.ASSIGNED}') = (request_id IS NOT NULL)", name="assigned_has_request"
    ),
    UniqueConstraint("namespace", "request_id"),
    sqlite_with_rowid=False,
)


# What one process does, until when by the database's clock. PostgreSQL's alone: it has several.
leases: Table = Table(
    "rm_ledger_leases",
    _tables,
    namespace_column(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
    sqlite_with_rowid=False,
)


def is_in(column: Column[str], *states: str) -> ColumnElement[bool]:
    """Return a condition with literals: only for those does SQLite use a partial index."""
    return column.in_([literal_column(f"'{state}'") for state in states])


# Queries look for these rows. Most rows are assigned or confirmed, and no query looks for them.
WAITS = is_in(requests.c.state, RequestState.WAITING)
IS_DETACHED = is_in(attempts.c.state, *OPEN) & attempts.c.request_id.is_(None)
IS_NOTABLE = is_in(attempts.c.state, *NOTABLE)
IS_SPARE = is_in(codes.c.state, CodeState.SPARE)


def _index(table: Table, name: str, where: ColumnElement[bool], *columns: str) -> None:
    Index(
        f"{table.name}_{name}",
        *(table.c[column] for column in ("namespace", *columns)),
        sqlite_where=where,
        postgresql_where=where,
    )


_index(requests, "waiting", WAITS, "batch", "attempt_id")
_index(attempts, "loose", IS_DETACHED, "batch")  # the name in databases of today
_index(attempts, "notable", IS_NOTABLE, "batch", "state")
_index(codes, "spare", IS_SPARE, "batch")


def _to_version_2(connection: Connection) -> None:
    for name in ("id", "stop_reason"):
        connection.exec_driver_sql(f"ALTER TABLE {meta.name} ADD COLUMN {name} TEXT")


def _to_version_3(connection: Connection) -> None:
    for name in ("seen_code", "seen_qr_url"):
        connection.exec_driver_sql(f"ALTER TABLE {attempts.name} ADD COLUMN {name} TEXT")


_BEFORE_NAMESPACES = (
    KeysWithNamespace(
        name="rm_ledger_batches",
        columns="key TEXT NOT NULL, baseline_at DOUBLE, alarm TEXT",
        primary_key="key",
        has_row_ids=True,
    ),
    KeysWithNamespace(
        name="rm_ledger_requests",
        columns="seq INTEGER NOT NULL, id TEXT NOT NULL, batch TEXT NOT NULL, "
        "content TEXT NOT NULL, state TEXT NOT NULL, asked_at DOUBLE NOT NULL, attempt_id TEXT, "
        "error TEXT",
        primary_key="seq",
        is_row_number=True,
        unique="id",
        has_row_ids=True,
        indexes={
            "rm_ledger_requests_waiting": "(namespace, batch, attempt_id) "
            "WHERE state IN ('waiting')"
        },
    ),
    KeysWithNamespace(
        name="rm_ledger_attempts",
        columns="id TEXT NOT NULL, batch TEXT NOT NULL, request_id TEXT, owner TEXT NOT NULL, "
        "state TEXT NOT NULL, sent_at DOUBLE NOT NULL, ended_at DOUBLE, seen_code TEXT, "
        "seen_qr_url TEXT",
        primary_key="id",
        indexes={
            "rm_ledger_attempts_loose": "(namespace, batch) "
            "WHERE state IN ('sending', 'ambiguous') AND request_id IS NULL",
            "rm_ledger_attempts_notable": "(namespace, batch, state) WHERE state IN "
            "('sending', 'ambiguous', 'unresolved', 'not_issued', 'written_off')",
        },
    ),
    KeysWithNamespace(
        name="rm_ledger_codes",
        columns="code TEXT NOT NULL, batch TEXT NOT NULL, state TEXT NOT NULL, "
        "origin TEXT NOT NULL, added_at DOUBLE NOT NULL, request_id TEXT, attempt_id TEXT, "
        "qr_url TEXT, assigned_at DOUBLE",
        primary_key="code",
        unique="request_id",
        check="CONSTRAINT assigned_has_request "
        "CHECK ((state = 'assigned') = (request_id IS NOT NULL))",
        indexes={"rm_ledger_codes_spare": "(namespace, batch) WHERE state IN ('spare')"},
    ),
)


def _to_version_4(connection: Connection) -> None:
    for change in _BEFORE_NAMESPACES:
        change(connection)


def _to_version_5(connection: Connection) -> None:
    leases.create(connection)
    kind = attempts.c.unknown_since.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {attempts.name} ADD COLUMN unknown_since {kind}")


SCHEMA = Schema("ledger", _tables, [_to_version_2, _to_version_3, _to_version_4, _to_version_5])
