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
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import attrs
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.group_commit import UnavailableError

__all__ = ["Database", "Schema", "database_file", "parse_url"]

T = TypeVar("T")

_log = logging.getLogger("rm_voucher.storage")

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
_PATIENCE_S = 30.0
_BUSY_S = 5.0
_SCHEMA_LOCK = 0x726D5F76  # of PostgreSQL, while tables are made
# Of SQLSTATE: connection lost, and shutdown.
_LOST = ("08", "57P")
# Serialization failure and deadlock, too many connections, and a lock that is held for long.
_PASSING = ("40", "53300", "55P03")
# Of the server's refusals to connect, which come without SQLSTATE.
_PASSING_REFUSALS = (
    "too many",
    "remaining connection slots",
    "starting up",
    "shutting down",
    "recovery",
)

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


def parse_url(url: str) -> URL:
    """Return a URL with its driver. Raises `ConfigurationError`."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("?")
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None or parsed.drivername not in (parsed.get_backend_name(), driver):
        raise ConfigurationError(
            "The URL of a database is sqlite:///file.db or postgresql://user@host/database."
        )
    if driver == _DRIVERS["sqlite"] and (parsed.database or ":memory:") == ":memory:":
        raise ConfigurationError("SQLite needs a file here: sqlite:///file.db.")
    return parsed.set(drivername=driver)


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
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._writer: Connection | None = None
        self._writing = ThreadPoolExecutor(1, "rm-voucher writer")
        self._reader = ThreadPoolExecutor(1, "rm-voucher reader")
        self._engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        self._reading = self._engine
        if not self.is_sqlite:  # where each statement would see what was committed before it
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ")

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
        return await self._patiently(self._writing, lambda: self._write(work))

    def _shut(self) -> None:
        for thread in (self._writing, self._reader):
            thread.shutdown()
        self._drop_writer()
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
            if _is_lost(exc):
                self._drop_writer()
            raise

    def _connect_writer(self) -> Connection:
        writer = self._engine.execution_options(writes=True).connect()
        try:
            with writer.begin():
                self._on_connect(writer)
        except BaseException:
            _discard(writer)
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
                passes = _passes(exc)
                collides = may_collide and isinstance(exc, IntegrityError)
                error = self._error(_sentence(exc))
                kind = type(exc).__name__
            # From here on, nothing is raised in the context of what holds parameters.
            if collides:  # Another process added the row after we looked; now it is to be seen.
                may_collide = False
                continue
            if not passes:
                raise error
            if self._monotonic() + wait_s > deadline:
                raise error from UnavailableError(kind)
            _log.warning("the database can't be used (%s): tried again", kind)
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, 2.0)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            _discard(writer)

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


def _discard(connection: Connection) -> None:
    with contextlib.suppress(SQLAlchemyError, OSError):  # it is gone anyway
        connection.invalidate()
        connection.close()


def _engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    """Return an engine whose logs hold no codes, however much of SQLAlchemy's is logged."""
    engine = create_engine(
        url, connect_args=connect_args, hide_parameters=True, logging_name="rm_voucher"
    )
    logging.getLogger("sqlalchemy.engine.Engine.rm_voucher").addFilter(_is_no_row)
    return engine


def _is_no_row(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG  # at which rows are logged; nothing hides those


def _sqlite(url: URL) -> Engine:
    engine = _engine(url, {"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin below, not in the driver
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()  # nobody else does
            raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    # A host that vanishes must let go of its locks, and so must a worker that stands still. A plan
    # that was made while a table was empty reads all of it ever after.
    settings = {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "lock_timeout": f"{_BUSY_S * 1000:.0f}",
        "plan_cache_mode": "force_custom_plan",
    }
    options = [str(url.query.get("options", "")), *(f"-c {n}={v}" for n, v in settings.items())]
    # A thread that waits for a server that vanished can't be cancelled, and the process not ended.
    ours = {
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    given = {name: value for name, value in ours.items() if name not in url.query}
    return _engine(url, {**given, "options": " ".join(options).strip()})


def _passes(error: Exception) -> bool:
    """Return whether another try may succeed."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    if not isinstance(error, DBAPIError):
        return False
    return (
        _is_lost(error)
        or _sqlstate(error).startswith(_PASSING)
        or "database is locked" in str(error.orig)
        or (_is_refusal(error) and _refusal_passes(str(error.orig)))
    )


def _is_refusal(error: DBAPIError) -> bool:
    """Return whether PostgreSQL could not be connected to."""
    # Which comes without SQLSTATE, even where the server gave one.
    return error.statement is None and getattr(error.orig, "sqlstate", "") is None


def _refusal_passes(text: str) -> bool:
    """Return whether nobody answered, or somebody who is busy. A wrong password stays wrong."""
    return "FATAL:" not in text or any(reason in text for reason in _PASSING_REFUSALS)


def _is_lost(error: BaseException) -> bool:
    """Return whether the connection went with it."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or _sqlstate(error).startswith(_LOST)
    )


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _sentence(error: Exception) -> str:
    return f"The database can't be used: {_reason(error)}."


def _reason(error: Exception) -> str:
    """Return why, without what holds codes: the statement, its parameters, PostgreSQL's details."""
    if isinstance(error, OSError):
        return str(error)
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        return str(cause)
    if isinstance(error, DBAPIError) and _is_refusal(error):
        return str(cause).partition("\n")[0]
    said = getattr(getattr(cause, "diag", None), "message_primary", None)
    return str(said or type(cause or error).__name__)


def database_file(url: URL) -> Path:
    """Return the file of an SQLite database."""
    return Path(url.database or "")
