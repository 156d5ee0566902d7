"""Passing trouble is waited for, and told by its codes, never by its words, which have languages.

A database that is read-only after a failover, whose tables are locked, that starts or that refuses
to take a connection back is waited for half a minute; then a sentence says what it said, and the
error's cause says that it may pass. What does not pass is raised at once.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from support.doubles import FakeTime
from support.event_stores import event
from support.ledger_rows import BATCH, begin, codes, issue, runtime_at
from support.postgres import end_connections, run_sql
from support.scratch_database import add, database
from support.scratch_database import codes as kept

from rm_voucher.database import engine as sql_engine
from rm_voucher.database import postgres
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import ConfigurationError, EventStoreError, LedgerError
from rm_voucher.ledger import Ledger
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks import open_event_store


class Waits:
    """A sleep that takes no time, and after a number of which something happens."""

    def __init__(self, after: int, act: Callable[[], Any]) -> None:
        self.time = FakeTime()
        self.left = after
        self.act = act

    async def sleep(self, seconds: float) -> None:
        await self.time.sleep(seconds)
        self.left -= 1
        if self.left == 0:
            await self.act()

    @property
    def runtime(self) -> Runtime:
        return Runtime(clock=self.time.clock, monotonic=self.time.clock, sleep=self.sleep)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


async def make_writable(url: str) -> None:
    may_write = f"{url}?options=-c%20default_transaction_read_only%3Doff"
    await run_sql(may_write, f"ALTER DATABASE {name_of(url)} RESET default_transaction_read_only")


async def issue_many(url: str, runtime: Runtime, trouble: Callable[[], Any]) -> int:
    """Issue to 60 while the database is in trouble; return how many got their code."""
    async with Ledger.open(url, runtime=runtime) as ledger:
        await begin(ledger)
        await trouble()
        names = [f"request {number}" for number in range(60)]
        given = await asyncio.gather(*(issue(ledger, name, f"C {name}") for name in names))
        assert await codes(ledger) == dict(zip(names, given, strict=True))
        return len(given)


async def test_server_that_is_read_only_after_a_failover(postgres_ledger_url: str) -> None:
    """Connections are made again until one may write."""
    alter = f"ALTER DATABASE {name_of(postgres_ledger_url)}"

    async def fail_over() -> None:
        await run_sql(postgres_ledger_url, f"{alter} SET default_transaction_read_only = on")
        await end_connections(postgres_ledger_url)

    waits = Waits(3, lambda: make_writable(postgres_ledger_url))
    try:
        assert await issue_many(postgres_ledger_url, waits.runtime, fail_over) == 60
    finally:
        await make_writable(postgres_ledger_url)
    assert waits.left <= 0


async def test_statements_that_time_out_while_a_table_is_locked(postgres_ledger_url: str) -> None:
    """Whoever set ``statement_timeout``, the lock may be let go."""
    import psycopg

    holder = await asyncio.to_thread(lambda: psycopg.connect(postgres_ledger_url))

    async def lock() -> None:
        await asyncio.to_thread(holder.execute, "LOCK TABLE rm_ledger_requests")

    waits = Waits(2, lambda: asyncio.to_thread(holder.rollback))
    url = f"{postgres_ledger_url}?options=-c%20statement_timeout%3D40"
    try:
        assert await issue_many(url, waits.runtime, lock) == 60
    finally:
        holder.close()


async def test_trouble_that_lasts(postgres_url: str) -> None:
    """After half a minute it is an error that says so; all who wait for it fail together."""
    alter = f"ALTER DATABASE {name_of(postgres_url)}"
    time = FakeTime()
    made = database(postgres_url, time)
    await made.open()
    await run_sql(postgres_url, f"{alter} SET default_transaction_read_only = on")
    try:
        await end_connections(postgres_url)
        with pytest.raises(LedgerError, match="read-only") as raised:
            await made.write(add("A"))
    finally:
        await make_writable(postgres_url)
    assert 20 < sum(time.slept) < 31
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert raised.value.__cause__.may_pass
    await made.write(add("A"))
    await made.close()


class Refusing:
    """A server at a port of its own that refuses each connection, in whatever language."""

    def __init__(self, sqlstate: str, words: str, folder: Path | None = None) -> None:
        self._refusal = self._message(sqlstate, words)
        if folder is None:
            self._server = socket.create_server(("127.0.0.1", 0))
            self.url = f"postgresql://u@127.0.0.1:{self._server.getsockname()[1]}/d"
        else:
            self._server = socket.create_server(f"{folder}/.s.PGSQL.5433", family=socket.AF_UNIX)
            self.url = f"postgresql://u@/d?host={folder}&port=5433"
        self.refused = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                while (head := connection.recv(8)) and len(head) == 8:
                    length, code = struct.unpack("!ii", head)
                    if code in (80877103, 80877104):  # TLS, Kerberos
                        connection.sendall(b"N")
                        continue
                    connection.recv(length - 8)
                    connection.sendall(self._refusal)
                    self.refused += 1
                    break

    @staticmethod
    def _message(sqlstate: str, words: str) -> bytes:
        fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": words}
        body = b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0"
        return b"E" + struct.pack("!i", len(body) + 4) + body


@pytest.fixture
def refusing() -> Iterator[Callable[..., Refusing]]:
    servers: list[Refusing] = []

    def make(*args: Any) -> Refusing:
        servers.append(Refusing(*args))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "words",
    [
        "the database system is starting up",
        "das Datenbanksystem startet",
        "データベースシステムは起動処理中です",
    ],
)
async def test_server_that_starts_is_waited_for(refusing, words: str) -> None:
    """Also when the ledger is opened for the first time."""
    server = refusing("57P03", words)
    time = FakeTime()
    made = database(server.url, time)
    with pytest.raises(LedgerError, match=words) as raised:
        await made.open()
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert raised.value.__cause__.may_pass
    assert 20 < sum(time.slept) < 31
    await made.close()


async def test_refusals_over_a_local_socket(refusing, tmp_path: Path) -> None:
    """The same, without a network."""
    server = refusing("57P03", "das Datenbanksystem startet", tmp_path)
    time = FakeTime()
    made = database(server.url, time, patience_s=1)
    with pytest.raises(LedgerError, match="startet"):
        await made.open()
    assert server.refused > 2
    await made.close()


@pytest.mark.parametrize(
    "place", ["/u@/d?host=/nowhere", "/u@nobody.invalid/d", "/u@/d?host=/nowhere,/nobody"]
)
async def test_server_that_is_not_there(place: str) -> None:
    """Its name, or its place, may be back in a moment."""
    time = FakeTime()
    made = database(f"postgresql:/{place}", time, patience_s=1)
    with pytest.raises(LedgerError) as raised:
        await made.open()
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert raised.value.__cause__.may_pass
    assert time.slept
    await made.close()


@pytest.mark.parametrize("option", ["sslmode=nonsense", "nonsense=1"])
async def test_url_that_is_wrong(option: str) -> None:
    """Nobody waits for it."""
    time = FakeTime()
    made = database(f"postgresql://u@127.0.0.1/d?{option}", time)
    with pytest.raises(LedgerError):
        await made.open()
    assert time.slept == []
    await made.close()


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen"),
        ("28000", "the database system is starting up"),  # whatever it says
        ("3D000", "database does not exist"),
    ],
)
async def test_refusal_at_the_first_connection(refusing, sqlstate: str, words: str) -> None:
    """A wrong password is wrong at once: nobody waits for it."""
    server = refusing(sqlstate, words)
    time = FakeTime()
    made = database(server.url, time)
    with pytest.raises(LedgerError, match=words) as raised:
        await made.open()
    assert time.slept == []
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert not raised.value.__cause__.may_pass
    await made.close()


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("28P01", "Passwort-Authentifizierung fehlgeschlagen"),  # a proxy that lost its users
        ("53300", "tut mir leid, schon zu viele Verbindungen"),
        ("3D000", "die Datenbank existiert nicht"),
    ],
)
async def test_refusal_to_take_a_connection_back(
    refusing, postgres_url: str, sqlstate: str, words: str
) -> None:
    """It was right before: as in a failover, it may be again."""
    server = refusing(sqlstate, words)

    redirected = [True]

    async def end() -> None:
        redirected.clear()

    made = database(postgres_url, Waits(3, end))
    await made.open()
    connect = postgres.connect

    def elsewhere(bound: Any, *args: Any, **settings: Any) -> Any:
        if redirected:
            settings |= {"host": "127.0.0.1", "port": make_url(server.url).port}
        return connect(bound, *args, **settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(postgres, "connect", elsewhere)
        await end_connections(postgres_url)
        await made.write(add("A"))
    assert server.refused
    assert await made.read(kept) == ["A"]
    await made.close()


def sqlite_error(code: int, words: str) -> DBAPIError:
    orig = sqlite3.OperationalError(words)
    orig.sqlite_errorcode = code
    return DBAPIError("INSERT", {}, orig)


@pytest.mark.parametrize(
    ("code", "may_pass"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, True),
        (sqlite3.SQLITE_PROTOCOL, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_SHMSIZE, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_READONLY_DBMOVED, False),
        (sqlite3.SQLITE_CORRUPT_VTAB, False),
        (sqlite3.SQLITE_NOTADB, False),
        (sqlite3.SQLITE_CANTOPEN, False),
    ],
)
async def test_errors_of_sqlite(tmp_path: Path, code: int, may_pass: bool) -> None:
    """By its codes, with the words of something else. None of them is an operation's fault."""
    time = FakeTime()
    made = database(f"sqlite:///{tmp_path / 'things.db'}", time)
    await made.open()

    def work(_: Connection) -> None:
        raise sqlite_error(code, "database is locked, or is it?")

    with pytest.raises(LedgerError, match="or is it") as raised:
        await made.write(work)
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert raised.value.__cause__.may_pass == may_pass
    assert bool(time.slept) == may_pass
    await made.write(add("A"))
    await made.close()


async def test_words_alone_prove_nothing(tmp_path: Path) -> None:
    """An operation's own fault that sounds like a passing one is raised at once."""
    time = FakeTime()
    made = database(f"sqlite:///{tmp_path / 'things.db'}", time)
    await made.open()

    def work(_: Connection) -> None:
        raise sqlite_error(sqlite3.SQLITE_CONSTRAINT, "database is locked")

    with pytest.raises(LedgerError) as raised:
        await made.write(work)
    assert raised.value.__cause__ is None
    assert time.slept == []
    await made.close()


SQLSTATES = {
    "08006": True,
    "25006": True,
    "25P03": True,
    "40001": True,
    "40P01": True,
    "53100": True,
    "53200": True,
    "53300": True,
    "55P03": True,
    "57014": True,
    "57P01": True,
    "57P02": True,
    "57P03": True,
    "58030": False,
    "XX001": False,
    "XX002": False,
    "22021": None,
    "23502": None,
    "42501": False,
    "42P01": False,
}


@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_errors_of_postgresql(postgres_url: str, sqlstate: str) -> None:
    """Each by its SQLSTATE, raised by the server itself in the words of another."""
    time = FakeTime()
    made = database(postgres_url, time)
    await made.open()
    may_pass = SQLSTATES[sqlstate]
    raising = f"DO $$ BEGIN RAISE 'tut mir leid' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(LedgerError, match="tut mir leid") as raised:
        await made.write(lambda c: c.execute(text(raising)) and None)
    cause = raised.value.__cause__
    assert (cause.may_pass if isinstance(cause, UnavailableError) else cause) == may_pass
    assert bool(time.slept) == bool(may_pass)
    await made.write(add("A"))
    await made.close()


async def test_patience_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ledger's, for each step; and of a store of events, for a delivery."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    time = FakeTime()
    url = f"sqlite:///{tmp_path / 'led.db'}"
    async with Ledger.open(url, patience_s=3, runtime=runtime_at(time)) as ledger:
        await begin(ledger)
        other = sqlite3.connect(tmp_path / "led.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        time.slept.clear()
        with pytest.raises(LedgerError, match="is locked"):
            await issue(ledger, "a", batch=BATCH)
        assert 1.5 < sum(time.slept) <= 3
        other.execute("ROLLBACK")
        other.close()
        await issue(ledger, "a")


async def test_trouble_that_lasts_is_waited_for_once(tmp_path: Path) -> None:
    """Else a full disk would hold each step of a run for half a minute. A new one is waited for."""
    time = FakeTime()
    made = database(f"sqlite:///{tmp_path / 'led.db'}", time)
    await made.open()

    def fails(_: Connection) -> None:
        raise sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")

    async def waited_s() -> float:
        time.slept.clear()
        with pytest.raises(LedgerError, match="is full"):
            await made.write(fails)
        return sum(time.slept)

    assert 25 < await waited_s() <= 30
    assert await waited_s() < 2.5  # what the last wait left
    await made.write(add("A"))
    assert 25 < await waited_s() <= 30
    time.now += 31
    assert 25 < await waited_s() <= 30
    await made.close()


async def test_delivery_whose_store_is_down(tmp_path: Path) -> None:
    """The sender is not kept waiting: it gets its answer while it still listens. What waited in
    the queue is kept when the database is back."""
    store = open_event_store(f"sqlite:///{tmp_path / 'events.db'}", patience_s=0.05)
    async with store:
        other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        failed = await asyncio.gather(
            *(store.record(event(f"CODE {n}")) for n in range(3)), return_exceptions=True
        )
        for error in failed:
            assert isinstance(error, EventStoreError)
            assert isinstance(error.__cause__, UnavailableError)
        other.execute("ROLLBACK")
        other.close()
        store.patience_s = 30.0  # type: ignore[attr-defined]
        await store.record(event("LAST"))
        assert (await store.counts()).waiting >= 1


def test_delivery_waits_for_five_seconds(tmp_path: Path) -> None:
    """By default."""
    store = open_event_store(f"sqlite:///{tmp_path / 'events.db'}")
    assert store.patience_s == 5.0  # type: ignore[attr-defined]


async def test_server_that_accepts_and_says_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver gives the connection up; the server may answer the next one."""
    time = FakeTime()
    made = database(postgres_url, time)
    real, silent = postgres.AnsweringConnection.connect, [1, 2]

    def connect(*args: Any, **settings: Any) -> Any:
        if silent:
            silent.pop()
            raise errors.ConnectionTimeout("connection timeout expired")
        return real(*args, **settings)

    monkeypatch.setattr(postgres.AnsweringConnection, "connect", connect)
    await made.open()
    assert time.slept == [0.05, 0.1]
    await made.close()


@pytest.mark.parametrize("make", [Ledger.open, open_event_store])
@pytest.mark.parametrize("patience_s", [0, -1, float("nan"), float("inf"), "30", None, True])
def test_patience_is_a_time(make: Any, patience_s: Any) -> None:
    """It is refused at the door, and not when trouble comes."""
    with pytest.raises(ConfigurationError, match="patience_s"):
        make("sqlite:///l.db", patience_s=patience_s)
