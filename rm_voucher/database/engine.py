"""The engines of SQLite and PostgreSQL, and their URLs.

Needs the extra ``sql`` (SQLite) or ``postgres``.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rm_voucher.database.bound import Bound
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
_BUSY_S = 5.0
_IDLE = 0  # psycopg's `TransactionStatus`
_STATEMENT_S = 20.0
_IDLE_S = 60.0


def parse_url(url: str | URL) -> URL:
    """Return a URL with its driver. Raises `ConfigurationError`."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        parsed = URL.create("?")
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None or parsed.drivername not in (parsed.get_backend_name(), driver):
        raise ConfigurationError(
            "The URL of a database is sqlite:///file.db or postgresql://user@host/database."
        )
    if driver == _DRIVERS["sqlite"] and not _names_a_file(parsed):
        raise ConfigurationError(
            "SQLite needs a file here: sqlite:///file.db. Give its name alone, without options."
        )
    if driver == _DRIVERS["sqlite"]:  # one file, wherever a link or the process goes meanwhile
        parsed = parsed.set(database=os.path.realpath(parsed.database or ""))
    return parsed.set(drivername=driver)


def _names_a_file(url: URL) -> bool:
    """Return whether a URL of SQLite's is a file's name, and nothing else.

    Options change what a file is, or what a commit is, as ``mode=memory`` and ``vfs``.
    """
    name = url.database or ":memory:"
    is_special = name == ":memory:" or name.lower().startswith("file:") or "\0" in name
    return not (is_special or url.query or url.host or url.username)


def is_sqlite(url: URL) -> bool:
    """Return whether a database is an SQLite file."""
    return url.get_backend_name() == "sqlite"


def database_file(url: URL) -> Path:
    """Return the file of an SQLite database."""
    return Path(url.database or "")


def create_file(path: Path) -> None:
    """Create the file of an SQLite database, for its owner alone, if it is not there.

    One that is there is not opened: to close it would end SQLite's locks in this process. Raises
    `OSError`, as where it is no file.
    """
    file = Path(os.path.realpath(path))
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file") from None


def make_engine(url: URL, bound: Bound | None = None) -> Engine:
    """Return an engine. Its transactions are durable, and each wait in it ends.

    ``bound`` can end the waits for PostgreSQL earlier. Raises `ConfigurationError`.
    """
    try:
        return _sqlite(url) if is_sqlite(url) else _postgresql(url, bound or Bound())
    except ArgumentError:
        raise ConfigurationError("The URL of the database has a port that is none.") from None


def _engine(url: URL, connect_args: dict[str, Any]) -> Engine:
    """Return an engine whose logs hold no codes, at whatever level SQLAlchemy logs."""
    engine = create_engine(
        url, connect_args=connect_args, hide_parameters=True, logging_name="rm_voucher"
    )
    # At DEBUG, rows are logged, and no option hides those.
    logger = logging.getLogger("sqlalchemy.engine.Engine.rm_voucher")
    logger.addFilter(_is_above_debug)
    return engine


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _sqlite(url: URL) -> Engine:
    engine = _engine(url, {"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # `begin` below begins transactions, not the driver
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL").close()
        except BaseException:
            connection.close()  # nobody else does
            raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a new file to a write-ahead log. SQLite's own timeout does not wait for that.

    Whoever opens or reads the new file at the same moment is in its way.
    """
    ends = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.01)  # in a thread of the database's own, as the wait in SQLite would be
        else:
            return


def _postgresql(url: URL, bound: Bound) -> Engine:
    with extra("postgres", "PostgreSQL", ConfigurationError):
        from rm_voucher.database import postgres

    # A host that vanishes must let go of its locks, and so must a worker that stands still.
    # PostgreSQL must not keep a plan: one made for an empty table reads the whole table ever after.
    # And whatever the database's own settings are, a commit waits for the disk.
    settings = {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "lock_timeout": f"{_BUSY_S * 1000:.0f}",
        "plan_cache_mode": "force_custom_plan",
        "synchronous_commit": "on",
    }
    # The last one holds. A handler's transaction may wait for something else than the server.
    given = (
        f"-c statement_timeout={_STATEMENT_S * 1000:.0f} "
        f"-c idle_in_transaction_session_timeout={_IDLE_S * 1000:.0f} "
        f"{url.query.get('options', '')}"
    )
    ours = (f"-c {name}={value}" for name, value in settings.items())
    # A thread that waits for a vanished server can't be cancelled, and its process can't end.
    timeouts = {
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    engine = _engine(
        url,
        {
            **{name: value for name, value in timeouts.items() if name not in url.query},
            "options": " ".join((given.strip(), *ours)),
            "client_encoding": "utf8",  # whatever the database's: the server converts, or refuses
        },
    )

    limits = {
        "statement_timeout": f"{_STATEMENT_S * 1000:.0f}",
        **{name: value for name, value in settings.items() if not name.startswith("tcp_")},
    }

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if bound.shares_sessions and options.get("isolation_level") != "AUTOCOMMIT":
            # A pooler drops what a connection asks for. In a transaction it is the session's own.
            idle_s = options.get("idle_s", _IDLE_S)
            local = {**limits, "idle_in_transaction_session_timeout": f"{idle_s * 1000:.0f}"}
            set_all = ", ".join(f"set_config('{name}', '{local[name]}', true)" for name in local)
            connection.exec_driver_sql(f"SELECT {set_all}")

    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, args: list[Any], parameters: dict[str, Any]) -> Any:
        return postgres.connect(bound, *args, **parameters)

    return engine


def has_begun(connection: Connection) -> bool:
    """Return whether the driver is in a transaction. psycopg begins it with a statement."""
    driven: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driven.in_transaction)
    return int(driven.info.transaction_status) != _IDLE
