"""A database as the library uses it: its URL, its transactions, and what is tried again."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, StatementError
from support.doubles import FakeTime
from support.postgres import end_connections
from support.scratch_database import add, codes, database, opening, things

from rm_voucher.database import engine as sql_engine
from rm_voucher.database.bound import Bound
from rm_voucher.database.database import Database
from rm_voucher.database.engine import database_file, parse_url
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.database.postgres import AnsweringConnection, connect
from rm_voucher.exceptions import ConfigurationError, LedgerError

CODE = "NAklEfbVdV"


@pytest.fixture
async def opened(url: str, time: FakeTime) -> AsyncIterator[Database]:
    """An open database of each kind, whose waiting takes no time."""
    async for made in opening(url, time):
        yield made


def insert(rows: list[dict[str, str]], connection: Connection) -> None:
    connection.execute(things.insert(), rows)


def show(name: str, connection: Connection) -> Any:
    return connection.scalar(text(f"SHOW {name}"))


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def session(connection: Connection) -> Any:
    """Return the driver's connection, which tells one from another."""
    return connection.connection.dbapi_connection


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///a.db", "sqlite+pysqlite"),
        ("sqlite+pysqlite:///a.db", "sqlite+pysqlite"),
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
    ],
)
def test_url_gets_its_driver(given: str, driver: str) -> None:
    """The driver is ours to choose."""
    assert parse_url(given).drivername == driver


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "mysql://u:secret@h/d",
        "postgresql+psycopg2://u:secret@h/d",
        "sqlite+aiosqlite:///a",
    ],
)
def test_url_of_another_database_is_refused(given: str) -> None:
    """The sentence says what a URL looks like, and not what was given: it may hold a password."""
    with pytest.raises(ConfigurationError, match=r"sqlite:///file\.db or postgresql://") as raised:
        parse_url(given)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("given", ["postgresql://u@h/d?port=x", "postgresql://u@h:x/d"])
def test_port_that_is_none(given: str, time: FakeTime) -> None:
    """It is refused when the URL is."""
    with pytest.raises(ConfigurationError):
        database(given, time)


@pytest.mark.parametrize("given", ["sqlite://", "sqlite:///:memory:"])
def test_url_of_sqlite_in_memory_is_refused(given: str) -> None:
    """A database that nobody else can open is no store."""
    with pytest.raises(ConfigurationError, match="needs a file"):
        parse_url(given)


def test_file_of_a_url() -> None:
    """Only SQLite has one, wherever the process goes."""
    assert database_file(parse_url("sqlite:///a/b.db")) == Path.cwd() / "a/b.db"
    assert database_file(parse_url("postgresql:///")) == Path()


async def test_write_is_there_for_others(opened: Database) -> None:
    """What was written is read by another connection."""
    await opened.write(add("A"))
    assert await opened.read(codes) == ["A"]


async def test_failed_work_is_undone(opened: Database) -> None:
    """An error of the work itself is raised as it is, at once, and nothing of it is kept."""

    def work(connection: Connection) -> None:
        add("A")(connection)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await opened.write(work)
    assert await opened.read(codes) == []


async def test_read_sees_no_half_of_a_write(sqlite_url: str, time: FakeTime) -> None:
    """In SQLite a reading sees one state, from its first statement to its last."""
    made = database(sqlite_url, time)
    await made.open()

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = codes(connection)
        other = sqlite3.connect(made.engine.url.database or "")
        other.execute("INSERT INTO things (code) VALUES ('B')")
        other.commit()
        other.close()
        return first, codes(connection)

    assert await made.read(twice) == ([], [])
    assert await made.read(codes) == ["B"]
    await made.close()


async def test_read_in_postgresql_sees_one_state(postgres_url: str, time: FakeTime) -> None:
    """In PostgreSQL too, which by default shows each statement what was committed before it."""
    made = database(postgres_url, time)
    await made.open()
    assert await made.read(lambda c: c.scalar(text("SHOW transaction_isolation"))) == (
        "repeatable read"
    )
    assert await made.write(lambda c: c.scalar(text("SHOW transaction_isolation"))) == (
        "read committed"
    )
    await made.close()


async def test_writer_is_durable(sqlite_url: str, time: FakeTime) -> None:
    """The connection that writes waits for the disk at each commit (FULL is 2)."""
    made = database(sqlite_url, time)
    await made.open()
    assert await made.write(lambda c: c.scalar(text("PRAGMA synchronous"))) == 2
    assert await made.write(lambda c: c.scalar(text("PRAGMA journal_mode"))) == "wal"
    await made.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection in the middle of reading a new file."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM sqlite_master").fetchall()
    yield other
    other.close()


def test_new_file_that_another_reads(
    tmp_path: Path, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite waits for no other connection when it begins a log: we do."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        reader.execute("COMMIT")

    monkeypatch.setattr(sql_engine, "_BUSY_S", 0.005)  # else SQLite's own wait is 5 s
    monkeypatch.setattr(sql_engine, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=wait))
    made = sql_engine.make_engine(parse_url(f"sqlite:///{tmp_path / 'new.db'}"))
    with made.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    made.dispose()
    assert len(waits) == 1


@pytest.mark.parametrize("is_busy", [True, False])
def test_wait_for_a_new_file_ends(
    tmp_path: Path, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, *, is_busy: bool
) -> None:
    """It ends after the time that SQLite waits for locks; other errors are not waited for."""
    if not is_busy:
        reader.execute("COMMIT")
        (tmp_path / "new.db").write_bytes(b"no database " * 100)
    passing = itertools.count(step=4)
    clock = SimpleNamespace(monotonic=lambda: next(passing) / 1000, sleep=lambda _: None)
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0.005)
    monkeypatch.setattr(sql_engine, "time", clock)
    made = sql_engine.make_engine(parse_url(f"sqlite:///{tmp_path / 'new.db'}"))
    with pytest.raises(DBAPIError), made.connect():
        pass
    made.dispose()
    assert next(passing) == (12 if is_busy else 4)


async def test_log_of_writes_does_not_grow_for_ever(sqlite_url: str, time: FakeTime) -> None:
    """SQLite moves it into the file as it goes on, between readings too."""
    made = database(sqlite_url, time)
    await made.open()
    log = Path(f"{database_file(parse_url(sqlite_url))}-wal")
    for number in range(16):
        rows = [{"code": f"{number}-{row}-{'x' * 1000}"} for row in range(500)]
        await made.write(partial(insert, rows))
        await made.read(lambda c: c.scalar(text("SELECT count(*) FROM things")))
    assert size(log) < 6_000_000
    await made.close()
    assert size(log) == 0


async def test_refused_row_keeps_the_connection(opened: Database) -> None:
    """What lives with it, such as a lock that says who lives, is not let go for a moment."""
    before = await opened.write(session)
    await opened.write(add(CODE))
    with pytest.raises(LedgerError) as raised:
        await opened.write(add(CODE))
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None  # which would hold the parameters
    assert await opened.write(session) is before


async def test_error_holds_no_code(opened: Database) -> None:
    """Neither the statement nor a parameter nor a detail of PostgreSQL's is in the sentence."""
    await opened.write(add(CODE))
    for work in (
        add(CODE),
        lambda c: c.execute(things.insert(), {"code": {CODE}}) and None,
        lambda c: c.exec_driver_sql(f"SELECT '{CODE}' FROM nothing") and None,
    ):
        with pytest.raises(LedgerError, match="The database can't be used: ") as raised:
            await opened.write(work)
        assert CODE not in str(raised.value)
        assert "INSERT" not in str(raised.value)


async def test_error_of_sqlalchemy_is_its_name(opened: Database) -> None:
    """Its text shows parameters."""

    def work(_: Connection) -> None:
        raise StatementError(CODE, "INSERT", {"code": CODE}, ValueError(CODE))

    with pytest.raises(LedgerError, match=r"^The database can't be used: StatementError\.$"):
        await opened.write(work)


async def test_passing_error_is_tried_again(
    sqlite_url: str, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another process locks is waited for, longer each time, then it is given up."""
    monkeypatch.setattr(sql_engine, "_BUSY_S", 0)
    made = database(sqlite_url, time, patience_s=6)
    await made.open()
    other = sqlite3.connect(database_file(parse_url(sqlite_url)), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="database is locked") as raised:
        await made.write(add("A"))
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert time.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    other.execute("ROLLBACK")
    other.close()
    await made.write(add("A"))
    await made.close()


async def test_other_errors_are_raised_at_once(opened: Database, time: FakeTime) -> None:
    """What another try can't change is not tried again."""
    for work in (
        lambda c: c.exec_driver_sql("nonsense"),
        lambda _: Path("/nonexistent/file").read_text(),
    ):
        with pytest.raises(LedgerError):
            await opened.write(work)
    assert time.slept == []


async def test_lost_connection_is_replaced(postgres_url: str, time: FakeTime) -> None:
    """Both find another, as often as they are lost."""
    made = database(postgres_url, time)
    await made.open()
    for code in "ABC":
        assert await end_connections(postgres_url) > 0
        await made.write(add(code))
        await end_connections(postgres_url)
        await made.read(codes)
    assert await made.read(codes) == ["A", "B", "C"]
    await made.close()


async def test_failed_reading_leaves_the_writer_alone(opened: Database) -> None:
    """A transaction of the other connection may be going on."""
    before = await opened.write(session)
    with pytest.raises(LedgerError):
        await opened.read(lambda c: c.exec_driver_sql("nonsense"))
    assert await opened.write(session) is before


async def test_unreachable_server(time: FakeTime, unused_tcp_port: int) -> None:
    """A port on which nobody listens is tried with patience, then it is our error."""
    made = database(f"postgresql://u@127.0.0.1:{unused_tcp_port}/d", time, patience_s=1)
    with pytest.raises(LedgerError, match="Connection refused") as raised:
        await made.open()
    assert isinstance(raised.value.__cause__, UnavailableError)
    assert time.slept
    await made.close()


async def test_missing_database_is_no_passing_error(postgres_url: str, time: FakeTime) -> None:
    """What the server says is in the sentence."""
    made = database(f"{postgres_url}_not", time)
    with pytest.raises(LedgerError, match="does not exist"):
        await made.open()
    assert time.slept == []
    await made.close()


async def test_settings_in_the_url_are_kept(postgres_url: str, time: FakeTime) -> None:
    """Those of the server, beside ours, and those of the driver, before ours."""
    made = database(f"{postgres_url}?options=-c%20search_path%3Dmine&connect_timeout=3", time)
    shown = [
        await made.read(partial(show, name))
        for name in ("search_path", "lock_timeout", "plan_cache_mode")
    ]
    assert shown == ["mine", "5s", "force_custom_plan"]
    parameters = await made.read(lambda c: session(c).info.get_parameters())
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("3", "60000")
    await made.close()


async def test_collision_with_another_process_is_tried_once_more(
    opened: Database, time: FakeTime
) -> None:
    """Whoever looked before another added sees it then; if not, it is an error at once."""
    await opened.write(add(CODE))
    tries: list[int] = []

    def add_if_missing(connection: Connection) -> str:
        tries.append(1)
        if len(tries) == 1 or CODE not in codes(connection):
            add(CODE)(connection)
        return "found"

    assert await opened.write(add_if_missing) == "found"
    assert len(tries) == 2
    assert time.slept == []


async def test_logs_hold_no_codes(
    url: str, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """Who logs all that SQLAlchemy and the drivers say sees statements: no parameters, no rows."""
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy.engine", "sqlalchemy.pool"):
        caplog.set_level(logging.DEBUG, name)
    opened = database(url, time)
    await opened.open()
    await opened.write(add(CODE))
    found = await opened.read(lambda c: c.execute(text("SELECT code FROM things")).fetchall())
    assert [row[0] for row in found] == [CODE]
    with pytest.raises(LedgerError):
        await opened.write(add(CODE))
    await opened.close()
    assert "INSERT INTO things" in caplog.text
    assert CODE not in caplog.text


async def test_what_waits_is_hurried(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes does not wait for a database as long as whoever works with it."""
    monkeypatch.setattr("rm_voucher.database.database.HURRIED_S", 0.05)
    is_back = threading.Event()
    reading = asyncio.create_task(opened.read(lambda _: is_back.wait()))
    while not opened._limits:
        await asyncio.sleep(0)
    opened.hurry()
    with pytest.raises(LedgerError, match="does not answer"):
        await reading
    is_back.set()


def test_silence_bounds_the_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq counts whole seconds."""
    given: dict[str, Any] = {}
    made = SimpleNamespace(bound=None)
    monkeypatch.setattr(
        AnsweringConnection, "connect", lambda **settings: given.update(settings) or made
    )
    bound = Bound(silence_s=2.5)
    assert connect(bound, connect_timeout="10").bound is bound
    assert given == {"connect_timeout": 3}
