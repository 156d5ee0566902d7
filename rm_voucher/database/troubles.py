"""What the errors of SQLite and PostgreSQL mean: told by their codes, never by their words."""

from __future__ import annotations

import enum
import sqlite3

from sqlalchemy.exc import DBAPIError


class Trouble(enum.Enum):
    """Whose fault an error is, and whether another try may succeed."""

    PASSING = "passing"
    """The database can't be used now, whatever is asked of it."""
    LASTING = "lasting"
    """The same, and waiting changes nothing."""
    OPERATION = "operation"
    """What was asked can't be done."""


_SQLITE = {
    sqlite3.SQLITE_BUSY: Trouble.PASSING,
    sqlite3.SQLITE_LOCKED: Trouble.PASSING,
    sqlite3.SQLITE_PROTOCOL: Trouble.PASSING,  # others were quicker, time and again
    sqlite3.SQLITE_FULL: Trouble.PASSING,  # somebody may make room
    sqlite3.SQLITE_READONLY: Trouble.LASTING,
    sqlite3.SQLITE_IOERR: Trouble.LASTING,
    sqlite3.SQLITE_CORRUPT: Trouble.LASTING,
    sqlite3.SQLITE_NOTADB: Trouble.LASTING,
    sqlite3.SQLITE_CANTOPEN: Trouble.LASTING,
}
"""By the primary code: the lowest byte."""

_SQLITE_EXTENDED = {sqlite3.SQLITE_IOERR_SHMSIZE: Trouble.PASSING}  # the disk is full

_POSTGRESQL = {
    "08": Trouble.PASSING,  # the connection is lost
    "25006": Trouble.PASSING,  # read-only, as a former primary: a connection finds the new one
    "25P03": Trouble.PASSING,  # a session was idle for too long, and was ended
    "25P04": Trouble.PASSING,  # a transaction took too long, and its session was ended
    "42": Trouble.LASTING,  # a table is gone, or a right: what we ask is always the same
    "40": Trouble.PASSING,  # serialization failure, deadlock
    "53": Trouble.PASSING,  # too many connections, no memory, no room on the disk
    "55P03": Trouble.PASSING,  # a lock is held for long
    "57014": Trouble.PASSING,  # a statement was cancelled, as by `statement_timeout`
    "57P": Trouble.PASSING,  # shutting down, starting up
    "58": Trouble.LASTING,  # the server's system fails, as its disk
    "F0": Trouble.LASTING,
    "XX": Trouble.LASTING,  # damaged
}
"""By the first characters of the SQLSTATE."""

_DISCONNECTED = ("08", "57P", "25P03", "25P04")


def trouble_of(error: Exception) -> Trouble:
    """Return what an error means. A refusal to connect whose SQLSTATE is not known is LASTING."""
    if is_disconnect(error):
        passes = not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError)
        return Trouble.PASSING if passes else Trouble.OPERATION
    if not isinstance(error, DBAPIError):
        return Trouble.OPERATION
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)  # errors of the module itself have none
        found = _SQLITE_EXTENDED.get(code) or _SQLITE.get(code & 0xFF)
        return found or Trouble.OPERATION
    if is_refusal(error):
        return Trouble.LASTING
    state = _sqlstate(error)
    for begin, trouble in _POSTGRESQL.items():
        if state.startswith(begin):
            return trouble
    return Trouble.OPERATION


def is_refusal(error: BaseException) -> bool:
    """Return whether PostgreSQL refused the connection, and its library did not say why.

    Such an error has no SQLSTATE, even where the server gave one.
    """
    return (
        isinstance(error, DBAPIError)
        and error.statement is None
        and getattr(error.orig, "sqlstate", "") is None
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
    if is_disconnect(error):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return trouble_of(error) is Trouble.LASTING
    return _sqlstate(error) == "25006"


def safe_message(error: Exception) -> str:
    """Return a sentence for a person, without what holds codes.

    That is: statement, parameters, PostgreSQL's details.
    """
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    if isinstance(cause, UnicodeError):
        return "The database can't keep a text that is not valid Unicode."
    if isinstance(cause, OSError | sqlite3.Error):
        reason = str(cause) or "it does not answer"
    elif isinstance(error, DBAPIError) and error.statement is None:
        reason = str(cause).partition("\n")[0]
    else:
        said = getattr(getattr(cause, "diag", None), "message_primary", None)
        reason = said or type(cause).__name__
    return f"The database can't be used: {reason}."


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")
