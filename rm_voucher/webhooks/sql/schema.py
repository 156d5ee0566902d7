"""The tables of the event store, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from rm_voucher.database.database import Schema
from rm_voucher.database.migrations import KeysWithNamespace
from rm_voucher.database.scope import namespace_column
from rm_voucher.webhooks.records import EventState

_tables = MetaData()

# A row is the lock of its voucher, too.
vouchers: Table = Table(
    "rm_webhook_vouchers",
    _tables,
    namespace_column(primary_key=True),
    Column("code", Text, primary_key=True),
    Column("newest", BigInteger),
    Column("owner", Text),
    Column("leased_until", Double, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

events: Table = Table(
    "rm_webhook_events",
    _tables,
    namespace_column(primary_key=True),
    Column("id", Text, primary_key=True),
    Column("code", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("ended_at", Double),
    Column("voucher", LargeBinary),  # until it is done
    sqlite_with_rowid=False,
)

expected: Table = Table(
    "rm_webhook_expected",
    _tables,
    namespace_column(primary_key=True),
    Column("code", Text, primary_key=True),
    Column("since", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

_WAITS = text(f"state = '{EventState.RECORDED}'")  # a literal, or SQLite would not use it
_in_events, _in_expected = events.c.namespace, expected.c.namespace
Index("rm_webhook_events_voucher", _in_events, events.c.code)
Index("rm_webhook_events_ended", _in_events, events.c.ended_at)
Index(
    "rm_webhook_events_due",
    _in_events,
    events.c.due_at,
    sqlite_where=_WAITS,
    postgresql_where=_WAITS,
)
Index("rm_webhook_expected_due", _in_expected, expected.c.due_at)

_BEFORE_NAMESPACES = (
    KeysWithNamespace(
        name="rm_webhook_vouchers",
        columns="code TEXT NOT NULL, newest BIGINT, owner TEXT, "
        "leased_until DOUBLE DEFAULT '0' NOT NULL",
        primary_key="code",
    ),
    KeysWithNamespace(
        name="rm_webhook_events",
        columns="id TEXT NOT NULL, code TEXT NOT NULL, status TEXT NOT NULL, "
        "state TEXT NOT NULL, recorded_at DOUBLE NOT NULL, due_at DOUBLE NOT NULL, "
        "attempts INTEGER DEFAULT '0' NOT NULL, ended_at DOUBLE, voucher BLOB",
        primary_key="id",
        indexes={
            "rm_webhook_events_voucher": "(namespace, code)",
            "rm_webhook_events_ended": "(namespace, ended_at)",
            "rm_webhook_events_due": "(namespace, due_at) WHERE state = 'recorded'",
        },
        dropped=("ix_rm_webhook_events_code",),
    ),
    KeysWithNamespace(
        name="rm_webhook_expected",
        columns="code TEXT NOT NULL, since DOUBLE NOT NULL, due_at DOUBLE NOT NULL, "
        "tries INTEGER DEFAULT '0' NOT NULL",
        primary_key="code",
        indexes={"rm_webhook_expected_due": "(namespace, due_at)"},
        dropped=("ix_rm_webhook_expected_due_at",),
    ),
)


def _to_version_2(connection: Connection) -> None:
    for change in _BEFORE_NAMESPACES:
        change(connection)


SCHEMA = Schema("store of callbacks", _tables, [_to_version_2])
