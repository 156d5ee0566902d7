"""An SQL database as a component of this library uses it, with its own tables and errors.

A whole transaction runs in a thread without coming back to the event loop. A driver for asyncio
comes back for each statement; on a loop that is busy signing, that takes ten times as long.

Needs the extra ``sql`` (SQLite) or ``postgres``. The only table that it knows by itself has the
versions of the schemas.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Executable,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    select,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from rm_voucher.arguments import check_type
from rm_voucher.database import accounts
from rm_voucher.database.bound import LATEST
from rm_voucher.database.connections import HURRIED_S, SqlDatabase
from rm_voucher.database.engine import create_file, database_file
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.database.statistics import expect_many_rows
from rm_voucher.database.transaction import Transaction
from rm_voucher.database.troubles import (
    Trouble,
    is_refusal,
    must_invalidate,
    safe_message,
    trouble_of,
)
from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.runtime import Runtime

T = TypeVar("T")

_log = logging.getLogger("rm_voucher.database")

PATIENCE_S = 30.0
# So long a transaction may take, however often its server answers in between.
_TRANSACTION_S = 20.0
_CHANGE_S = 3_600.0  # to change the tables of many rows, which is progress and no trouble
_SCHEMA_LOCK = 0x726D5F76  # PostgreSQL's advisory lock while tables are made

versions: Table = Table(
    "rm_schema_versions",
    accounts.tables,  # made together: both are of no component
    Column("component", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)


@attrs.frozen
class Schema:
    """The tables of a component. ``migrations[n]`` turns version n + 1 into version n + 2."""

    component: str
    tables: MetaData
    migrations: Sequence[Callable[[Connection], None]] = ()

    @property
    def version(self) -> int:
        """The version of `tables`."""
        return len(self.migrations) + 1


def check_patience(patience_s: float) -> float:
    """Return how long trouble is waited for. Raises `ConfigurationError` if it can be no time."""
    check_type("patience_s", patience_s, float)
    if not 0 < patience_s < math.inf:
        raise ConfigurationError("patience_s is seconds, more than 0, and finite.")
    return patience_s


class Database:
    """What a component has of an SQL database: its tables, in a thread that writes or reads.

    With a URL it has the connections for itself, and closes them; a `SqlDatabase` it shares.

    An ``error`` is raised in place of everything that the database or its driver raises.
    Nothing outlives a transaction in a session, because a pooler may give each another one.
    ``on_close`` runs in another thread, when all connections are closed. Trouble that may
    pass is waited for, ``patience_s`` for each transaction.

    It belongs to the process that first uses it, and may be made before a fork.
    """

    def __init__(
        self,
        connections: str | URL | SqlDatabase,
        schema: Schema,
        *,
        error: type[VoucherError],
        on_close: Callable[[], None] | None = None,
        runtime: Runtime,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._schema = schema
        self._error = error
        self.runtime = runtime
        self._patience_s = check_patience(patience_s)
        self._limits: set[asyncio.Timeout] = set()
        """The limits of the waits that there are."""
        self._process: int | None = None
        self._has_connected = False
        self._is_closed = False
        # Of each thread that is in trouble: since when, and when it was last.
        self._troubles: dict[ThreadPoolExecutor, tuple[float, float]] = {}
        self.is_shared: bool = isinstance(connections, SqlDatabase)
        self.connections: SqlDatabase = SqlDatabase.of(connections)
        self.is_sqlite: bool = self.connections.is_sqlite
        self.engine: Engine = self.connections.engine
        if on_close is not None:
            self.connections.call_on_close(on_close)

    async def open(self) -> None:
        """Connect, and make the file and its tables, or bring the tables up to date."""
        shared = self.connections
        self._refuse_closed()
        async with shared.opening:
            if self.is_sqlite:
                file = database_file(shared.url)
                try:
                    create_file(file)  # it holds codes: for its owner alone
                except OSError as exc:
                    raise self._error(f"{file} can't be used: {exc.strerror}.") from None
            elif self._schema.component not in shared.ready:
                await self._patiently(shared.writing, self._examine)
            if self._schema.component not in shared.ready:
                await self._patiently(
                    shared.writing,
                    lambda: self._write(self._migrate, is_pipelined=False),
                    within_s=_CHANGE_S,
                )
                shared.ready.add(self._schema.component)

    async def open_read_only(self) -> None:
        """Connect, and see that the tables are there."""
        await self.read(self._check_version)

    def hurry(self) -> None:
        """Wait for trouble for four seconds at most: this is to be closed."""
        self._patience_s = min(self._patience_s, HURRIED_S)
        latest = asyncio.get_running_loop().time() + self._patience_s
        for limit in self._limits:
            limit.reschedule(min(latest, limit.when() or latest))
        if not self.is_shared:
            self.connections.hurry()

    async def close(self) -> None:
        """Wait for the work that runs, and close all connections. It may be called again.

        Those that are shared stay open. A server that does not answer is given up after ten
        seconds. Cancelling this does not stop it: it goes on in its thread.
        """
        if not self.is_shared:
            await self.connections.aclose()
        self._is_closed = True

    async def move_log(self) -> None:
        """Move what SQLite has in its log into the file itself, as far as nobody reads it."""
        await self._patiently(self.connections.writing, self._move_log)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, in another thread, in a transaction that sees one state and writes nothing.

        ``work`` must be safe to run in that thread.
        """
        return await self._patiently(self.connections.reader, lambda: self._read(work))

    async def write(self, work: Callable[[Connection], T], *, is_pipelined: bool = False) -> T:
        """Run ``work``, in another thread, in a transaction; return when it is durable.

        On PostgreSQL it may be ``is_pipelined``; see `database.pipeline`.
        When the connection is lost, ``work`` runs again, even if it had been committed. Cancelling
        this does not take it back.
        """
        lock = self.connections.transaction_lock
        async with lock if lock.locked() else contextlib.nullcontext():
            return await self._patiently(
                self.connections.writing, lambda: self._write(work, is_pipelined=is_pipelined)
            )

    async def execute(self, statement: Executable, values: Mapping[str, object]) -> Row[Any] | None:
        """Execute one statement, which is its own transaction; return the first row, if any.

        That is one round trip. Tried again as in `write`.
        """
        return await self._patiently(
            self.connections.reader, lambda: self._execute(statement, values)
        )

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        first: Callable[[Connection], T],
        last: Callable[[Connection, T], None] = lambda _, __: None,
    ) -> AsyncIterator[tuple[Transaction, T]]:
        """Begin a transaction with ``first``; end it with ``last``, unless the block raises.

        Yields the transaction and the result of ``first``; ``last`` gets that result, too. Until
        ``first`` has run, it is tried again as in `write`. After that nothing is tried again: the
        caller must run the block again. With SQLite nobody else writes meanwhile, so the block must
        await nothing that writes by other ways.
        """
        async with (
            self.connections.transaction_lock if self.is_sqlite else contextlib.nullcontext()
        ):
            thread = await self.connections.free.get()
            transaction = Transaction(self.engine, thread, self._error)
            self.connections.transactions.add(transaction)
            try:
                if self.is_sqlite:  # behind what the writer is writing
                    await self._patiently(self.connections.writing, lambda: None)
                found = await self._patiently(thread, lambda: transaction.begin(first))
                yield transaction, found
                await transaction.commit(lambda connection: last(connection, found))
            except BaseException as exc:
                try:  # behind the step that may run in the thread; nobody else waits for it
                    ending = asyncio.wrap_future(thread.submit(transaction.roll_back))
                    ending.add_done_callback(lambda _: self.connections.free.put_nowait(thread))
                    self.connections.transactions.discard(transaction)
                    if isinstance(exc, Exception):  # when cancelled, a step may run for long
                        await asyncio.shield(ending)
                except RuntimeError:  # closed: then `_shut` rolls it back
                    self.connections.free.put_nowait(thread)
                raise
            self.connections.transactions.discard(transaction)
            self.connections.free.put_nowait(thread)

    def _move_log(self) -> None:
        with self.engine.connect() as connection:
            driven: Any = connection.connection.driver_connection
            driven.execute("PRAGMA wal_checkpoint").close()

    def _examine(self) -> None:
        """Refuse a PostgreSQL on which no promise could rest."""
        from rm_voucher.database import postgres  # an extra of its own

        if postgres.shares_sessions(self.engine):
            self.connections.share_sessions()
        waits_for_disk, waits_for_medium = postgres.durability(self.engine)
        if not waits_for_disk:
            raise self._error(
                "Commits don't wait for the disk: a pooler drops the settings of connections, and "
                "synchronous_commit is off by default. Connect without it, or set it on there.",
                is_final=True,
            )
        if not waits_for_medium:
            _log.warning(
                "PostgreSQL runs with fsync=off: if its machine fails, what was committed is lost, "
                "and codes with it"
            )

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.connections.reading.connect() as connection, connection.begin():
            return work(connection)

    def _execute(self, statement: Executable, values: Mapping[str, object]) -> Row[Any] | None:
        with self.connections.committing.begin() as connection:  # in PostgreSQL, this sends nothing
            return connection.execute(statement, values).first()

    def _write(self, work: Callable[[Connection], T], *, is_pipelined: bool) -> T:
        writer = self.connections.connect_writer()
        pipeline: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if is_pipelined:
            from rm_voucher.database.pipeline import pipelined  # an extra of its own

            pipeline = pipelined(writer)
        try:
            with pipeline, writer.begin():
                return work(writer)
        except BaseException as exc:
            if must_invalidate(exc):
                self.connections.drop_writer()
            raise

    def _refuse_closed(self) -> None:
        if self._is_closed or self.connections.closing is not None:
            raise self._error("The database is closed.", is_final=True)

    async def _patiently(
        self,
        thread: ThreadPoolExecutor,
        attempt: Callable[[], T],
        *,
        within_s: float | None = None,
    ) -> T:
        """Run ``attempt`` in the thread, again and again while its error may pass.

        One that takes longer than ``within_s``, 20 s by default, is given up, and its connection
        with it. Once one has waited in vain, the others try once: what lasts is not waited for by
        each.
        """
        begun = self.runtime.monotonic()
        wait_s = 0.05
        may_collide = True
        self._process = self._process or os.getpid()
        while True:
            self._refuse_closed()
            if self._process != os.getpid():  # the child has no such thread, and would wait for it
                raise self._error(
                    "The database was opened before a fork: open it in each process.", is_final=True
                )
            ends = begun + max(self._patience_s, within_s or 0.0)
            run = contextvars.copy_context().run
            try:
                async with asyncio.timeout(ends - self.runtime.monotonic()) as limit:
                    self._limits.add(limit)
                    done = await asyncio.get_running_loop().run_in_executor(
                        thread, run, _within, within_s or _TRANSACTION_S, attempt
                    )
            except (SQLAlchemyError, OSError, UnicodeError) as exc:
                trouble = trouble_of(exc)
                if self._has_connected and is_refusal(exc):  # it was right before
                    trouble = Trouble.PASSING
                collides = may_collide and isinstance(exc, IntegrityError)
                error = self._error(safe_message(exc))
                kind = type(exc).__name__
            else:
                self._has_connected = True
                self._troubles.pop(thread, None)
                return done
            finally:
                self._limits.discard(limit)
            # Raised outside the handler: the driver's error, which holds parameters, is no context.
            if collides:  # another process added the row after we looked; now we see it
                may_collide = False
                continue
            if trouble is Trouble.OPERATION:
                raise error
            if trouble is Trouble.LASTING:
                raise error from UnavailableError(kind, may_pass=False)
            ends = min(begun + self._patience_s, self._waited_until(thread))
            if self.runtime.monotonic() + wait_s > ends:
                raise error from UnavailableError(kind)
            _log.warning("%s (%s): tried again", str(error).rstrip("."), kind)
            await self.runtime.sleep(wait_s)  # nothing tells when a database is back
            wait_s = min(2 * wait_s, 2.0)

    def _waited_until(self, thread: ThreadPoolExecutor) -> float:
        """Take note of a thread's trouble, and return when its patience ends."""
        now = self.runtime.monotonic()
        begun, last = self._troubles.get(thread, (now, now))
        if now - last > self._patience_s:  # nobody asked meanwhile: this may be another one
            begun = now
        self._troubles[thread] = begun, now
        return begun + self._patience_s

    def _migrate(self, connection: Connection) -> None:
        if not self.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        versions.metadata.create_all(connection)
        found = self._found_version(connection)
        self._refuse_newer(found)
        schema = self._schema
        if found == 0:
            schema.tables.create_all(connection)
            values = {"component": schema.component, "version": schema.version}
            connection.execute(versions.insert(), values)
        elif found < schema.version:
            _log.info(
                "the tables of the %s are brought up to date, which may take a minute for a "
                "million rows",
                schema.component,
            )
            with self._unhurried(connection):
                for migrate in schema.migrations[found - 1 :]:
                    migrate(connection)
            mine = versions.c.component == schema.component
            connection.execute(versions.update().where(mine).values(version=schema.version))
        if self.is_sqlite:
            expect_many_rows(connection, schema.tables.sorted_tables)

    @contextlib.contextmanager
    def _unhurried(self, connection: Connection) -> Iterator[None]:
        """Let statements take as long as they need, in this transaction."""
        if self.is_sqlite:
            yield
            return
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        driven: Any = connection.connection.driver_connection
        driven.silence_s = math.inf
        try:
            yield
        finally:
            del driven.silence_s

    def _check_version(self, connection: Connection) -> None:
        there = connection.dialect.has_table(connection, versions.name)
        found = self._found_version(connection) if there else 0
        self._refuse_newer(found)
        if not found:
            raise self._error(f"There is no {self._schema.component} in this database.")
        if found < self._schema.version:
            raise self._error(
                f"The {self._schema.component} was written by an older version of rm_voucher "
                f"(schema {found}; this one has {self._schema.version}): what opens it to write "
                "brings it up to date."
            )

    def _found_version(self, connection: Connection) -> int:
        mine = select(versions.c.version).where(versions.c.component == self._schema.component)
        return connection.scalar(mine) or 0

    def _refuse_newer(self, found: int) -> None:
        if found > self._schema.version:
            raise self._error(
                f"The {self._schema.component} was written by a newer version of rm_voucher "
                f"(schema {found}; this one knows {self._schema.version}): update rm_voucher.",
                is_final=True,
            )


def _within(seconds: float, attempt: Callable[[], T]) -> T:
    LATEST.set(time.monotonic() + seconds)
    return attempt()
