"""The engines of SQLite and PostgreSQL, and the meaning of their drivers' errors.

Needs the extra ``sql`` (SQLite) or ``postgres``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from rm_voucher.exceptions import ConfigurationError

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
_BUSY_S = 5.0
_IDLE = 0  # psycopg's `TransactionStatus`
# The SQLSTATEs of a lost connection and of a shutdown.
_DISCONNECTED = ("08", "57P")
# The server may only read, as a former primary: another connection may reach the new one.
_READ_ONLY = "25006"
# Serialization failure and deadlock, too many connections, and a lock that is held for long.
_TRANSIENT = ("40", "53300", "55P03")
# In the server's refusals to connect, which come without SQLSTATE.
_TRANSIENT_REFUSALS = (
    "too many",
    "remaining connection slots",
    "starting up",
    "shutting down",
    "recovery",
)


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


def is_sqlite(url: URL) -> bool:
    """Return whether a database is an SQLite file."""
    return url.get_backend_name() == "sqlite"


def database_file(url: URL) -> Path:
    """Return the file of an SQLite database."""
    return Path(url.database or "")


def create_file(path: Path) -> None:
    """Create the file of an SQLite database, for its owner alone, if it is not there.

    Raises `OSError`.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def make_engine(url: URL) -> Engine:
    """Return an engine. Its transactions are durable, and each wait in it ends."""
    return _sqlite(url) if is_sqlite(url) else _postgresql(url)


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
    # A host that vanishes must let go of its locks, and so must a worker that stands still.
    # PostgreSQL must not keep a plan: one made for an empty table reads the whole table ever after.
    settings = {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "lock_timeout": f"{_BUSY_S * 1000:.0f}",
        "plan_cache_mode": "force_custom_plan",
    }
    options = [str(url.query.get("options", "")), *(f"-c {n}={v}" for n, v in settings.items())]
    # A thread that waits for a vanished server can't be cancelled, and its process can't end.
    ours = {
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    given = {name: value for name, value in ours.items() if name not in url.query}
    return _engine(url, {**given, "options": " ".join(options).strip()})


def has_begun(connection: Connection) -> bool:
    """Return whether the driver is in a transaction. psycopg begins it with a statement."""
    driven: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driven.in_transaction)
    return int(driven.info.transaction_status) != _IDLE


def is_transient(error: Exception) -> bool:
    """Return whether another try may succeed."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    if not isinstance(error, DBAPIError):
        return False
    return (
        is_disconnect(error)
        or _sqlstate(error).startswith(_TRANSIENT)
        or "database is locked" in str(error.orig)
        or (_is_refusal(error) and _is_transient_refusal(str(error.orig)))
    )


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection is lost."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or _sqlstate(error).startswith(_DISCONNECTED)
    )


def must_invalidate(error: BaseException) -> bool:
    """Return whether the connection is lost, or can no longer write."""
    return is_disconnect(error) or (
        isinstance(error, DBAPIError) and _sqlstate(error) == _READ_ONLY
    )


def _is_refusal(error: DBAPIError) -> bool:
    """Return whether PostgreSQL refused the connection.

    Such an error has no SQLSTATE, not even where the server gave one.
    """
    return error.statement is None and getattr(error.orig, "sqlstate", "") is None


def _is_transient_refusal(text: str) -> bool:
    """Return whether no server answered, or a busy one. A wrong password stays wrong."""
    return "FATAL:" not in text or any(reason in text for reason in _TRANSIENT_REFUSALS)


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def safe_message(error: Exception) -> str:
    """Return a sentence for a person, without what holds codes.

    That is: statement, parameters, PostgreSQL's details.
    """
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    if isinstance(cause, OSError | sqlite3.Error):
        reason = str(cause)
    elif isinstance(error, DBAPIError) and _is_refusal(error):
        reason = str(cause).partition("\n")[0]
    else:
        said = getattr(getattr(cause, "diag", None), "message_primary", None)
        reason = said or type(cause).__name__
    return f"The database can't be used: {reason}."
