"""The transactional outbox: a voucher's message commits with what the application writes.

For those who hand vouchers on from a database of their own. Without it, a crash between the
commit and the message would lose the message, or announce what was never committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

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
    UniqueConstraint,
    bindparam,
    func,
    text,
)

from rm_voucher.database.connections import SqlDatabase
from rm_voucher.database.database import Database, Schema
from rm_voucher.database.scope import Scope, check_namespace, namespace_column
from rm_voucher.database.transaction import Transaction
from rm_voucher.exceptions import LedgerError, VoucherError
from rm_voucher.ledger.rules.commands import check_id
from rm_voucher.runtime import Runtime

_log = logging.getLogger("rm_voucher.worker")
_AT_ONCE = 50
_PUBLISH_S = 3.0  # less than a server allows a transaction to idle

Publish = Callable[[bytes], Awaitable[None]]

_tables = MetaData()
_outbox = Table(
    "rm_outbox",
    _tables,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    namespace_column(),
    Column("request_id", Text, nullable=False),
    Column("message", LargeBinary),  # until it is published
    Column("added_at", Double, nullable=False),
    Column("published_at", Double),
    UniqueConstraint("namespace", "request_id"),
)
_WAITS = text("published_at IS NULL")
Index(
    "rm_outbox_waiting",
    _outbox.c.namespace,
    _outbox.c.seq,
    sqlite_where=_WAITS,
    postgresql_where=_WAITS,
)
SCHEMA = Schema("outbox", _tables)


class Outbox:
    """Messages that are published after the transaction that they belong to has committed.

    Use it as an async context manager. ``database`` is the application's own, as
    `rm_voucher.ledger.Ledger.open` has it; the ledger may be in it, too. ``namespace`` sets the ids
    of several merchants apart. Needs the extra ``sql`` or ``postgres``. All methods raise
    `LedgerError` when the database can't be used.
    """

    def __init__(
        self,
        database: str | SqlDatabase,
        *,
        namespace: str | None = None,
        patience_s: float = 5.0,
        runtime: Runtime | None = None,
    ) -> None:
        self._runtime = runtime or Runtime()
        self._database = Database(
            database, SCHEMA, error=LedgerError, patience_s=patience_s, runtime=self._runtime
        )
        self._scope = Scope(check_namespace(namespace, is_shared=self._database.is_shared))
        dialect = self._database.engine.dialect.name
        self._adding = self._scope.insert_or_ignore(_outbox, dialect).returning(_outbox.c.seq)
        self._is_due = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    @contextlib.asynccontextmanager
    async def once(self, request_id: str, message: bytes) -> AsyncIterator[Transaction | None]:
        """Begin the transaction that hands a voucher on: once for each id, in all processes.

        Yields the transaction, or None where the id's has committed before. What the block writes
        with it, and ``message``, commit together when the block ends; nothing does when it raises.
        With SQLite nobody else writes meanwhile. Cancelling rolls back.
        """
        adding = self._adding.values(
            request_id=check_id(request_id), message=message, added_at=self._runtime.clock()
        )

        def add(connection: Connection) -> bool:
            return connection.scalar(adding) is not None

        async with self._database.transaction(add) as (transaction, is_new):
            yield transaction if is_new else None
        self._is_due.set()

    async def relay(self, publish: Publish) -> int:
        """Publish messages that are committed, the oldest first; return how many.

        ``publish`` returns when the broker has a message for good, as `Broker.hand_on` does. What
        it raises is raised here, and what was published before stays so. A crash in between
        publishes some again. Several processes may relay at once.
        """

        def take(connection: Connection) -> Sequence[Any]:
            waiting = (
                self._scope.select(_outbox, _outbox.c.seq, _outbox.c.message)
                .where(_outbox.c.published_at.is_(None))
                .order_by(_outbox.c.seq)
                .limit(_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            return connection.execute(waiting).all()

        published = (
            self._scope.update(_outbox)
            .where(_outbox.c.seq == bindparam("number"))
            .values(message=None, published_at=self._runtime.clock())
        )
        failed: Exception | None = None
        done: list[dict[str, int]] = []
        async with self._database.transaction(take) as (transaction, rows):
            try:
                async with asyncio.timeout(_PUBLISH_S):
                    for row in rows:
                        await publish(row.message)
                        done.append({"number": row.seq})
            except Exception as exc:  # noqa: BLE001 - raised below: first what was published is noted
                failed = exc
            if done:
                await transaction.execute(published, done)
        if failed is not None and not (done and isinstance(failed, TimeoutError)):
            raise failed
        return len(done)

    async def run(self, publish: Publish, *, every_s: float = 5.0) -> None:
        """Relay for as long as it is not cancelled: at once what this process adds.

        ``every_s`` it looks for what others have added. A broker or database that fails is asked
        again then.
        """
        while True:
            self._is_due.clear()
            try:
                relayed = await self.relay(publish)
            except VoucherError as exc:
                _log.warning("the outbox is relayed later: %s", exc)
                relayed = 0
            except Exception as exc:  # noqa: BLE001 - of the broker's libraries
                _log.warning("the outbox is relayed later: %s", type(exc).__name__)
                relayed = 0
            if not relayed:
                await self._wait(every_s)

    async def backlog(self) -> int:
        """Return how many messages are committed and not published."""
        counting = self._scope.select(_outbox, func.count()).where(_outbox.c.published_at.is_(None))
        return await self._database.read(lambda connection: connection.scalar(counting) or 0)

    async def _wait(self, every_s: float) -> None:
        waiting = asyncio.ensure_future(self._runtime.sleep(every_s))
        due = asyncio.create_task(self._is_due.wait())
        try:
            await asyncio.wait([waiting, due], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            due.cancel()
