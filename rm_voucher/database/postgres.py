"""Connections to PostgreSQL that are given up when nothing comes, and what a ledger needs of them.

Needs the extra ``postgres``.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from collections.abc import Generator
from typing import Any

from sqlalchemy import Engine, text

from rm_voucher.database.bound import LATEST, Bound
from rm_voucher.extras import extra

with extra("postgres", __name__):
    import psycopg
    from psycopg import errors

_ASK_S = 5.0
_ANYBODY = struct.pack("!ii17s", 25, 3 << 16, b"user\0rm_voucher\0")
_PASSING = ("08001", "53300", "57P03")
_OWN = text("SELECT pg_backend_pid()")
_DURABLE = ("on", "remote_apply")


class AnsweringConnection(psycopg.Connection[Any]):
    """A connection that is given up after a silence, or when its transaction has taken too long.

    A server that stands still keeps the connection alive for TCP, so no time-out of the system's
    ends that wait, and a thread can't be cancelled.
    """

    bound: Bound = Bound()
    # Longer than `statement_timeout`, by which a server that lives would have answered.
    silence_s: float = 25.0

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **settings: Any) -> Any:
        """Wait for an answer, as psycopg does. Raises `psycopg.OperationalError`."""
        return super().wait(self._until_silent(gen), *args, **settings)

    def _until_silent(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Yield what ``gen`` yields. psycopg resumes it ten times a second while nothing comes."""
        heard_at, latest = time.monotonic(), LATEST.get()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard_at = now
                silence_s = min(self.silence_s, self.bound.silence_s)
                if now > min(heard_at + silence_s, self.bound.at, latest):
                    self.pgconn.finish()
                    raise errors.ConnectionFailure("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value


def connect(bound: Bound, *args: Any, **settings: Any) -> AnsweringConnection:
    """Return a connection. The error of a server that is away, starting or full has its SQLSTATE.

    Others have none: libpq does not tell it, whatever the server gave.
    """
    if bound.silence_s < math.inf:
        settings["connect_timeout"] = math.ceil(bound.silence_s)
    try:
        connection = AnsweringConnection.connect(*args, **settings)
    except errors.ConnectionTimeout as exc:
        raise errors.SqlclientUnableToEstablishSqlconnection(str(exc)) from None
    except psycopg.OperationalError as exc:
        try:
            state = _refusal_of(exc.pgconn)
        except OSError:  # nobody is there
            state = "08001"
        if state in _PASSING:
            raise errors.lookup(state)(str(exc)) from None
        raise
    connection.bound = bound
    if bound.shares_sessions:
        connection.prepare_threshold = None
    return connection


def _refusal_of(tried: Any) -> str:
    """Return the SQLSTATE by which a server refuses everybody, if it does. Raises `OSError`.

    That comes before names and passwords, so none is sent.
    """
    if tried is None:
        raise OSError("its host has no address")
    host, port = (tried.hostaddr or tried.host).decode(), tried.port.decode()
    with contextlib.ExitStack() as reached:
        if host.startswith("/"):
            server = reached.enter_context(socket.socket(socket.AF_UNIX))
            server.settimeout(_ASK_S)
            server.connect(f"{host}/.s.PGSQL.{port}")
        else:
            server = reached.enter_context(socket.create_connection((host, port), _ASK_S))
        server.sendall(_ANYBODY)
        answer = server.recv(4096)
    fields = {field[:1]: field[1:] for field in answer[5:].split(b"\0")}
    return fields.get(b"C", b"").decode() if answer.startswith(b"E") else ""


def shares_sessions(engine: Engine) -> bool:
    """Return whether a pooler gives each transaction another session, as PgBouncer may do.

    A lock that lives with a session then says nothing about who lives.
    """
    with engine.connect() as one, engine.connect() as other:
        with one.begin():
            first = one.scalar(_OWN)
        with other.begin():
            if other.scalar(_OWN) == first:  # it is free: the first transaction has ended
                return True
            with one.begin():
                return bool(one.scalar(_OWN) != first)


def durability(engine: Engine) -> tuple[bool, bool]:
    """Return whether commits wait for the server's disk, and whether that keeps what it has."""
    shown = text("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    with engine.connect() as connection:
        commit, fsync = connection.execute(shown).one()
    return commit in _DURABLE, fsync == "on"
