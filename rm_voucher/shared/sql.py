"""A shared store in PostgreSQL; or in an SQLite file, for the processes of one machine.

Each operation is one statement in autocommit: no lock outlasts it, and no session keeps anything.
Needs the extra ``postgres`` or ``sql``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rm_voucher.database.connections import SqlDatabase
from rm_voucher.database.database import Database, Schema
from rm_voucher.database.engine import is_sqlite, parse_url
from rm_voucher.exceptions import SharedStoreError
from rm_voucher.extras import extra
from rm_voucher.runtime import Runtime
from rm_voucher.shared.store import SharedStore, Snapshot

with extra("sql", __name__):
    from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text, text
    from sqlalchemy.engine import URL

_PATIENCE_S = 2.0
_tables = MetaData()

Table(
    "rm_shared_documents",
    _tables,
    Column("key", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

SCHEMA = Schema("shared documents", _tables)

_POSTGRESQL_NOW = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
_SQLITE_NOW = "(julianday('now') - 2440587.5) * 86400.0"


class SqlSharedStore(SharedStore):
    """See `open_shared_store`."""

    def __init__(self, database: str | SqlDatabase, *, runtime: Runtime | None = None) -> None:
        self._database = Database(
            _impatient(parse_url(database)) if isinstance(database, str) else database,
            SCHEMA,
            error=SharedStoreError,
            runtime=runtime or Runtime(),
            patience_s=_PATIENCE_S,
        )
        now = _SQLITE_NOW if self._database.is_sqlite else _POSTGRESQL_NOW
        self._select = text(
            f"SELECT clock.now, version, content FROM (SELECT {now} AS now) AS clock "  # noqa: S608
            "LEFT JOIN rm_shared_documents ON key = :key"
        )
        self._insert = text(
            "INSERT INTO rm_shared_documents (key, version, content) VALUES (:key, 1, :content) "  # noqa: S608
            f"ON CONFLICT DO NOTHING RETURNING {now}, version"
        )
        self._update = text(
            "UPDATE rm_shared_documents SET version = version + 1, content = :content "  # noqa: S608
            f"WHERE key = :key AND version = :version RETURNING {now}, version"
        )
        self._opening = asyncio.Lock()
        self._is_open = False

    async def aclose(self) -> None:
        """Close its connections. It may be called more than once."""
        await self._database.close()

    async def _load(self, key: str) -> Snapshot:
        row = await self._execute(self._select, {"key": key})
        assert row is not None  # noqa: S101 - of an outer join
        now, version, content = row
        return Snapshot(version=version or 0, content=content, now=now)

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        statement = self._update if version else self._insert
        values = {"key": key, "content": content}
        row = await self._execute(statement, values | ({"version": version} if version else {}))
        if row is None:
            return None
        return Snapshot(version=row[1], content=content, now=row[0])

    async def _execute(self, statement: Any, values: dict[str, object]) -> tuple[Any, ...] | None:
        if not self._is_open:
            async with self._opening:  # it does nothing the second time
                await self._database.open()
            self._is_open = True
        row = await self._database.execute(statement, values)
        return None if row is None else tuple(row)


def _impatient(url: URL) -> URL:
    """Return the URL with a time for each statement that fits how long its answer is awaited."""
    if is_sqlite(url):
        return url
    options = f"-c statement_timeout={_PATIENCE_S * 1000:.0f} {url.query.get('options', '')}"
    return url.update_query_dict({"options": options.strip()})
