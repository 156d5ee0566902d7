"""The tables of the event store, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
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
from rm_voucher.webhooks.records import EventState

_tables = MetaData()

# A row is the lock of its voucher, too.
vouchers = Table(
    "rm_webhook_vouchers",
    _tables,
    Column("code", Text, primary_key=True),
    Column("newest", BigInteger),
    Column("owner", Text),
    Column("leased_until", Double, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

events = Table(
    "rm_webhook_events",
    _tables,
    Column("id", Text, primary_key=True),
    Column("code", Text, nullable=False, index=True),
    Column("status", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("ended_at", Double),
    Column("voucher", LargeBinary),  # until it is done
    sqlite_with_rowid=False,
)

expected = Table(
    "rm_webhook_expected",
    _tables,
    Column("code", Text, primary_key=True),
    Column("since", Double, nullable=False),
    Column("due_at", Double, nullable=False, index=True),
    Column("tries", Integer, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

_WAITS = text(f"state = '{EventState.RECORDED}'")  # a literal, or SQLite would not use it
Index("rm_webhook_events_due", events.c.due_at, sqlite_where=_WAITS, postgresql_where=_WAITS)
Index("rm_webhook_events_ended", events.c.ended_at)

SCHEMA = Schema("store of callbacks", _tables)
