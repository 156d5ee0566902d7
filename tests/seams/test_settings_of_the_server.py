"""What a promise rests on is the connection's own, or the server is refused: no setting of the
database's takes it away unseen.

A commit waits for the disk, whatever ``synchronous_commit`` is by default. Where a pooler shares
sessions, nothing is prepared in one or left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from support.command import PATIENCE_S
from support.event_stores import event
from support.ledger_rows import begin, codes, issue, start
from support.postgres import listens, run_sql
from support.scratch_database import database

from rm_voucher.database import postgres
from rm_voucher.exceptions import EventStoreError, LedgerError
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.rules.commands import Claimed
from rm_voucher.shared import open_shared_store
from rm_voucher.webhooks import open_event_store


def synchronous(connection: Connection, *_: object) -> str:
    return str(connection.scalar(text("SHOW synchronous_commit")))


@pytest.mark.parametrize("way", ["ALTER DATABASE", "URL"])
async def test_commit_waits_for_the_disk(postgres_url: str, way: str) -> None:
    """Of the writer, of the reader and of a transaction."""
    name = make_url(postgres_url).database
    url = postgres_url
    if way == "URL":
        url += "?options=-c%20synchronous_commit%3Doff"
    else:
        await run_sql(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    try:
        made = database(url)
        await made.open()
        assert await made.write(synchronous) == "on"
        assert await made.read(synchronous) == "on"
        async with made.transaction(synchronous) as (tx, first):
            assert (first, await tx.run(synchronous)) == ("on", "on")
        await made.close()
    finally:
        await run_sql(postgres_url, f"ALTER DATABASE {name} RESET synchronous_commit")


async def test_server_without_fsync(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever runs it chose that, so it is used, and a warning says what it means."""
    monkeypatch.setattr(postgres, "durability", lambda _: (True, False))
    made = database(postgres_url)
    await made.open()
    await made.close()
    (record,) = caplog.records
    assert record.getMessage() == (
        "PostgreSQL runs with fsync=off: if its machine fails, what was committed is lost, and "
        "codes with it"
    )


async def test_pooler_that_drops_settings(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where commits would not wait for the disk, nothing is committed."""
    monkeypatch.setattr(postgres, "durability", lambda _: (False, True))
    for opening in (Ledger.open(postgres_url), open_event_store(postgres_url)):
        with pytest.raises((LedgerError, EventStoreError), match="Commits don't wait"):
            await opening.__aenter__()


async def test_statement_timeout_can_be_longer(postgres_url: str) -> None:
    """By the URL; by default no statement takes longer than a connection may be silent."""

    def shown(connection: Connection) -> str:
        return str(connection.scalar(text("SHOW statement_timeout")))

    for url, found in (
        (postgres_url, "20s"),
        (f"{postgres_url}?options=-cstatement_timeout=24s", "24s"),
    ):
        made = database(url)
        assert await made.read(shown) == found
        await made.close()


@pytest.mark.parametrize("sessions", ["shared", "swapped"])
async def test_sessions_that_are_shared(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, sessions: str
) -> None:
    """Two connections have one session, or one has another each time: nothing is prepared there,
    because the next session would not know it."""
    pids = itertools.cycle([1, 1] if sessions == "shared" else [1, 2, 3])
    monkeypatch.setattr(postgres, "_OWN", text("SELECT CAST(:pid AS integer)"))

    real = Connection.scalar

    def scalar(self: Connection, statement: object, *args: object) -> object:
        if statement is postgres._OWN:
            return real(self, statement, {"pid": next(pids)})
        return real(self, statement, *args)  # type: ignore[call-overload]

    monkeypatch.setattr(Connection, "scalar", scalar)
    made = database(postgres_url)
    await made.open()
    assert await made.write(prepares_after) is None
    assert await made.read(prepares_after) is None
    await made.close()


async def test_session_of_ones_own(postgres_url: str) -> None:
    """What is asked time and again is prepared there."""
    made = database(postgres_url)
    await made.open()
    assert isinstance(await made.write(prepares_after), int)
    await made.close()


def prepares_after(connection: Connection) -> int | None:
    """Return after how many times a statement is prepared."""
    driven: Any = connection.connection.driver_connection
    found: int | None = driven.prepare_threshold
    return found


async def test_sessions_that_are_shared_keep_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits hold in each transaction, and end with it; nothing is prepared."""

    def shown(connection: Connection, *_: object) -> tuple[str, str]:
        driven: Any = connection.connection.driver_connection
        assert driven.prepare_threshold is None
        names = ("idle_in_transaction_session_timeout", "lock_timeout")
        one, other = (str(connection.scalar(text(f"SHOW {name}"))) for name in names)
        return one, other

    monkeypatch.setattr(postgres, "shares_sessions", lambda _: True)
    made = database(f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D0")
    for _ in range(2):
        await made.open()
        made.connections.ready.clear()
    assert await made.write(shown) == ("5s", "5s")
    async with made.transaction(shown) as (_, first):
        assert first == ("1min", "5s")
    assert await made.read(shown) == ("1min", "5s")
    found = await made.execute(text("SHOW idle_in_transaction_session_timeout"), {})
    assert found is not None
    assert found[0] == "0"
    await made.close()


@pytest.fixture
def pooled(postgres_ledger_url: str) -> Iterator[Callable[[str], str]]:
    """Start a PgBouncer in a mode; return the URL of the database behind it."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("pgbouncer is not installed")
    user = "nobody" if os.geteuid() == 0 else None  # it does not run as root
    with contextlib.ExitStack() as started:
        # Not in tmp_path, which other users can't enter.
        home = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="rm-test-")))
        home.chmod(0o755)
        at = make_url(postgres_ledger_url)

        def start(mode: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            settings = home / "pgbouncer.ini"
            settings.write_text(
                f"[databases]\n{at.database} = host={at.host} port={at.port or 5432} "
                f"user={at.username}{f' password={at.password}' if at.password else ''}\n"
                f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
                f"pool_mode = {mode}\n"
                f"default_pool_size = {3 if mode == 'transaction' else 20}\n"
                "ignore_startup_parameters = options\nunix_socket_dir =\n"
            )
            process = subprocess.Popen(
                [program, "-q", str(settings)], user=user, stderr=subprocess.DEVNULL
            )
            started.callback(process.wait, PATIENCE_S)
            started.callback(process.terminate)
            ends = time.monotonic() + PATIENCE_S
            while not listens("127.0.0.1", port):
                assert time.monotonic() < ends
            return at.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

        yield start


@pytest.mark.long
async def test_pgbouncer_that_shares_sessions(pooled: Callable[[str], str]) -> None:
    """Where each transaction has another session, two ledgers work side by side, and neither takes
    the other for dead."""
    url = pooled("transaction")
    async with Ledger.open(url) as one, Ledger.open(url) as two:
        await begin(one)
        assert isinstance(await start(one, "in flight"), Claimed)
        names = [f"r{number}" for number in range(60)]  # more than psycopg lets pass unprepared
        for ledger in (one, two):
            for name in names:
                await issue(ledger, name)
        await two.recover()
        (attempt,) = await two.attempts(states=[AttemptState.SENDING])
        assert attempt.owner == one.store.owner
        given = await codes(two)
        assert len({given[name] for name in names}) == len(names)


@pytest.mark.long
async def test_stores_that_need_no_sessions_behind_pgbouncer(pooled: Callable[[str], str]) -> None:
    """They share its few sessions with others: they prepare no statement there, and leave no
    setting."""
    url = pooled("transaction")
    async with open_event_store(url) as one, open_event_store(url) as other:
        for number in range(20):
            await asyncio.gather(one.record(event(f"a{number}")), other.record(event(f"b{number}")))
        async with open_shared_store(url) as shared:
            for _ in range(20):
                await shared.update("test", lambda found: b"%d" % found.version)
    with psycopg.connect(url, prepare_threshold=None, autocommit=True) as stranger:
        for _ in range(10):
            shown = stranger.execute("SHOW idle_in_transaction_session_timeout").fetchone()
            assert shown == ("0",)


@pytest.mark.long
async def test_pgbouncer_that_keeps_sessions(pooled: Callable[[str], str]) -> None:
    """With a session for each connection a ledger is at home."""
    async with Ledger.open(pooled("session")) as ledger:
        await begin(ledger)
        code = await issue(ledger, "a")
        assert await codes(ledger) == {"a": code}
