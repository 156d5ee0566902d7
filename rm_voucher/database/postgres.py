"""Connections to PostgreSQL that are given up when nothing comes, and what a ledger needs of them.

Needs the extra ``postgres``.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, text

from rm_voucher.database.bound import Bound

# Longer than `statement_timeout`, by which a server that lives would have answered.
_SILENCE_S = 25.0
_DURABLE = ("on", "remote_apply")


class AnsweringConnection(psycopg.Connection[Any]):
    """A connection that is given up after a silence, in the thread that waits.

    A server that stands still keeps the connection alive for TCP, so no time-out of the system's
    ends that wait, and a thread can't be cancelled.
    """

    bound = Bound()

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **settings: Any) -> Any:
        """Wait for an answer, as psycopg does. Raises `psycopg.OperationalError`."""
        return super().wait(self._until_silent(gen), *args, **settings)

    def _until_silent(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Yield what ``gen`` yields. psycopg resumes it ten times a second while nothing comes."""
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif time.monotonic() > min(heard_at + _SILENCE_S, self.bound.at):
                    self.pgconn.finish()
                    raise errors.ConnectionFailure("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value


def connect(bound: Bound, *args: Any, **settings: Any) -> AnsweringConnection:
    """Return a connection. The error of a server that does not answer, or not yet, says so.

    Others have no SQLSTATE: libpq does not tell it, whatever the server gave.
    """
    try:
        connection = AnsweringConnection.connect(*args, **settings)
    except errors.ConnectionTimeout as exc:
        raise errors.SqlclientUnableToEstablishSqlconnection(str(exc)) from None
    except psycopg.OperationalError as exc:
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        options = {name: value for name, value in settings.items() if name in known}
        match pq.PGconn.ping(make_conninfo(*args, **options).encode()):
            case pq.Ping.REJECT:
                raise errors.CannotConnectNow(str(exc)) from None
            case pq.Ping.NO_RESPONSE:
                raise errors.SqlclientUnableToEstablishSqlconnection(str(exc)) from None
        raise
    connection.bound = bound
    return connection


def shares_sessions(engine: Engine) -> bool:
    """Return whether a pooler gives each transaction another session, as PgBouncer may do.

    A lock that lives with a session then says nothing about who lives.
    """
    own = text("SELECT pg_backend_pid()")
    with engine.connect() as one, engine.connect() as other:
        with one.begin():
            first = one.scalar(own)
        with other.begin():
            if other.scalar(own) == first:  # it is free: the first transaction has ended
                return True
            with one.begin():
                return bool(one.scalar(own) != first)


def durability(engine: Engine) -> tuple[bool, bool]:
    """Return whether commits wait for the server's disk, and whether that keeps what it has."""
    shown = text("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    with engine.connect() as connection:
        commit, fsync = connection.execute(shown).one()
    return commit in _DURABLE, fsync == "on"
