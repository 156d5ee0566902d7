"""An SQL database as this library uses it: one connection that writes, and one that reads.

All of a transaction runs in one turn of a thread. A driver for asyncio would come back to the event
loop for each statement; on a loop that is busy signing, that takes ten times as long.

Needs the extra ``sql`` (SQLite) or ``postgres``. It knows no table of anybody's but the one in
which the versions of schemas stand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import attrs
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from rm_voucher.database.engine import (
    is_sqlite,
    is_useless,
    make_engine,
    passes,
    sentence,
)
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.database.transaction import Transaction, discard
from rm_voucher.exceptions import VoucherError

T = TypeVar("T")

_log = logging.getLogger("rm_voucher.database")

_PATIENCE_S = 30.0
_TRANSACTIONS = 8  # that coroutines make at once, of PostgreSQL; SQLite has one writer
_SCHEMA_LOCK = 0x726D5F76  # of PostgreSQL, while tables are made

_versions = Table(
    "rm_schema_versions",
    MetaData(),
    Column("component", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)


@attrs.frozen
class Schema:
    """The tables of a component. ``migrations[n]`` makes version n + 2 of version n + 1."""

    component: str
    tables: MetaData
    migrations: Sequence[Callable[[Connection], None]] = ()

    @property
    def version(self) -> int:
        """The version that `tables` is."""
        return len(self.migrations) + 1


class Database:
    """An engine, a connection that alone writes, and another that reads, each in a thread.

    ``error`` is what is raised for all that the database or its driver raises. ``on_connect`` is
    run on each connection that is to write, for instance to take a lock that lives with it;
    ``on_close`` when all connections are closed, in another thread.
    """

    def __init__(
        self,
        url: URL,
        schema: Schema,
        *,
        error: type[VoucherError],
        on_connect: Callable[[Connection], None] = lambda _: None,
        on_close: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._schema = schema
        self._error = error
        self._on_connect = on_connect
        self._on_close = on_close
        self._closing: asyncio.Future[None] | None = None
        self._process = os.getpid()
        self._sleep = sleep
        self._monotonic = monotonic
        self._patience_s = patience_s
        self.is_sqlite = is_sqlite(url)
        self._writer: Connection | None = None
        self._writing = ThreadPoolExecutor(1, "rm-voucher writer")
        self._reader = ThreadPoolExecutor(1, "rm-voucher reader")
        self._engine = make_engine(url)
        self._reading = self._engine
        if not self.is_sqlite:  # where each statement would see what was committed before it
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._turn = asyncio.Lock()  # of a transaction, where there is one writer
        self._free: asyncio.LifoQueue[ThreadPoolExecutor] = asyncio.LifoQueue()
        self._transacting = [
            ThreadPoolExecutor(1, "rm-voucher transaction")
            for _ in range(1 if self.is_sqlite else _TRANSACTIONS)
        ]
        for thread in self._transacting:
            self._free.put_nowait(thread)
        self._transactions: set[Transaction] = set()

    async def open(self) -> None:
        """Connect, and make the tables or bring them up to date."""
        await self.write(self._migrate)

    async def open_read_only(self) -> None:
        """Connect, and see that the tables are there."""
        await self.read(self._check_version)

    async def close(self) -> None:
        """Wait for what is going on, and close all connections. It may be called again.

        Cancelling this does not stop it: it goes on in its thread.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().run_in_executor(None, self._shut)
        await asyncio.shield(self._closing)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that sees one state and writes nothing.

        It runs in another thread, and so must what it uses.
        """
        return await self._patiently(self._reader, lambda: self._read(work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, in another thread, in a transaction; return when it is durable.

        When the connection is lost, it is run again, even if it had been committed. Cancelling
        this does not take it back.
        """
        async with self._turn if self._turn.locked() else contextlib.nullcontext():
            return await self._patiently(self._writing, lambda: self._write(work))

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        first: Callable[[Connection], T],
        last: Callable[[Connection, T], None] = lambda _, __: None,
    ) -> AsyncIterator[tuple[Transaction, T]]:
        """Begin a transaction with ``first``; end it with ``last``, unless the block raises.

        Yields the transaction and what ``first`` returned, which ``last`` is given, too. Until
        ``first`` has run, it is tried again as in `write`; then no more, and the block must be run
        again by who asks for it. With SQLite nobody else writes meanwhile, so in the block nothing
        may be awaited that does.
        """
        async with self._turn if self.is_sqlite else contextlib.nullcontext():
            thread = await self._free.get()
            transaction = Transaction(self._engine, thread, self._error)
            self._transactions.add(transaction)
            try:
                if self.is_sqlite:
                    await self._patiently(self._writing, lambda: None)  # what is written meanwhile
                found = await self._patiently(thread, lambda: transaction.begin(first))
                yield transaction, found
                await transaction.commit(lambda connection: last(connection, found))
            except BaseException as exc:
                try:  # after what runs there; nobody else is to wait for that
                    ending = asyncio.wrap_future(thread.submit(transaction.roll_back))
                    ending.add_done_callback(lambda _: self._free.put_nowait(thread))
                    self._transactions.discard(transaction)
                    if isinstance(exc, Exception):  # else a step may be going on, perhaps for long
                        await asyncio.shield(ending)
                except RuntimeError:  # closed: then `_shut` rolls it back
                    self._free.put_nowait(thread)
                raise
            self._transactions.discard(transaction)
            self._free.put_nowait(thread)

    def _shut(self) -> None:
        for thread in (self._writing, self._reader, *self._transacting):
            thread.shutdown()
        self._drop_writer()
        for transaction in list(self._transactions):
            transaction.roll_back()
        self._engine.dispose()
        self._on_close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._reading.connect() as connection, connection.begin():
            return work(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        if self._writer is None:
            self._writer = self._connect_writer()
        try:
            with self._writer.begin():
                return work(self._writer)
        except BaseException as exc:
            # What lives with the connection, say a lock, must not end with each refused row.
            if is_useless(exc):
                self._drop_writer()
            raise

    def _connect_writer(self) -> Connection:
        writer = self._engine.execution_options(writes=True).connect()
        try:
            with writer.begin():
                self._on_connect(writer)
        except BaseException:
            discard(writer)
            raise
        return writer

    async def _patiently(self, thread: ThreadPoolExecutor, attempt: Callable[[], T]) -> T:
        deadline = self._monotonic() + self._patience_s
        wait_s = 0.05
        may_collide = True
        while True:
            if self._closing is not None:
                raise self._error("The database is closed.")
            if self._process != os.getpid():  # where it would wait for a thread that is not there
                raise self._error("The database was opened before a fork: open it in each process.")
            try:
                return await asyncio.get_running_loop().run_in_executor(thread, attempt)
            except (SQLAlchemyError, OSError) as exc:
                is_passing = passes(exc)
                collides = may_collide and isinstance(exc, IntegrityError)
                error = self._error(sentence(exc))
                kind = type(exc).__name__
            # From here on, nothing is raised in the context of what holds parameters.
            if collides:  # Another process added the row after we looked; now it is to be seen.
                may_collide = False
                continue
            if not is_passing:
                raise error
            if self._monotonic() + wait_s > deadline:
                raise error from UnavailableError(kind)
            _log.warning("the database can't be used (%s): tried again", kind)
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, 2.0)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            discard(writer)

    def _migrate(self, connection: Connection) -> None:
        if not self.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        _versions.metadata.create_all(connection)
        found = self._found_version(connection)
        self._refuse_newer(found)
        schema = self._schema
        if found == 0:
            schema.tables.create_all(connection)
            values = {"component": schema.component, "version": schema.version}
            connection.execute(_versions.insert(), values)
            return
        for migrate in schema.migrations[found - 1 :]:
            migrate(connection)
        if found < schema.version:
            mine = _versions.c.component == schema.component
            connection.execute(_versions.update().where(mine).values(version=schema.version))

    def _check_version(self, connection: Connection) -> None:
        there = connection.dialect.has_table(connection, _versions.name)
        found = self._found_version(connection) if there else 0
        self._refuse_newer(found)
        if found < self._schema.version:
            raise self._error(f"There is no {self._schema.component} in this database.")

    def _found_version(self, connection: Connection) -> int:
        mine = select(_versions.c.version).where(_versions.c.component == self._schema.component)
        return connection.scalar(mine) or 0

    def _refuse_newer(self, found: int) -> None:
        if found > self._schema.version:
            raise self._error(
                f"The {self._schema.component} was written by a newer version of rm_voucher "
                f"(schema {found}; this one knows {self._schema.version}): update rm_voucher."
            )
