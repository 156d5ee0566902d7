"""Each wait for a database ends: of the caller, of the thread, of closing, and of the process.

A server that is frozen, or a way to it that passes nothing on, keeps TCP content for ever. The
caller waits for its patience; the connection is given up in its thread, and the next one may be
answered; closing gives up what does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from support.command import PATIENCE_S
from support.ledger_rows import begin, codes, issue
from support.scratch_database import add, database
from support.scratch_database import codes as kept
from support.stalling_proxy import StallingProxy

import rm_voucher.database.connections as sql_database
from rm_voucher.database import database as database_module
from rm_voucher.database import postgres
from rm_voucher.database.group_commit import UnavailableError
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger import Ledger

Stalling = Callable[[str], tuple[StallingProxy, str]]


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    """Return a way to a database that can be frozen, and the URL of that way."""
    with contextlib.ExitStack() as made:

        def make(url: str) -> tuple[StallingProxy, str]:
            at = make_url(url)
            proxy = made.enter_context(StallingProxy(at.host or "127.0.0.1", at.port or 5432))
            way = at.set(host="127.0.0.1", port=proxy.port)
            return proxy, way.render_as_string(hide_password=False)

        yield make


@pytest.fixture
def stalling_for_a_moment(stalling: Stalling, monkeypatch: pytest.MonkeyPatch) -> Stalling:
    """Return such a way; a connection that is frozen there, and no other, is given up soon.

    On a busy machine, a connection may be silent for a while that is not frozen.
    """
    ways: list[StallingProxy] = []

    def silence_s(connection: postgres.AnsweringConnection) -> float:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as ours:
            port = ours.getsockname()[1]
        return 0.1 if any(way.is_frozen(port) for way in ways) else PATIENCE_S

    def make(url: str) -> tuple[StallingProxy, str]:
        proxy, way = stalling(url)
        ways.append(proxy)
        return proxy, way

    monkeypatch.setattr(postgres.AnsweringConnection, "silence_s", property(silence_s))
    return make


async def test_connection_that_is_silent_is_given_up(
    postgres_url: str, stalling_for_a_moment: Stalling
) -> None:
    """The next one is answered, and what was to be written is written."""
    proxy, url = stalling_for_a_moment(postgres_url)
    made = database(url)
    await made.open()
    proxy.freeze()
    await made.write(add("A"))
    proxy.freeze()
    assert await made.read(kept) == ["A"]
    async with made.transaction(kept) as (tx, _):
        await tx.run(add("B"))
    proxy.freeze()
    async with made.transaction(kept) as (tx, _):
        await tx.run(add("C"))
    assert await made.read(kept) == ["A", "B", "C"]
    await made.close()


async def test_transaction_that_takes_too_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the server answers: the connection is given up, and it is made again."""
    made = database(postgres_url)
    await made.open()
    monkeypatch.setattr(database_module, "_TRANSACTION_S", 0.3)
    begun: list[int] = []

    def work(connection: Connection) -> None:
        begun.append(0)
        monkeypatch.setattr(database_module, "_TRANSACTION_S", PATIENCE_S)  # of the next one
        add("A")(connection)
        while len(begun) == 1:
            connection.exec_driver_sql("SELECT pg_sleep(0.05)")

    await made.write(work)
    assert len(begun) == 2
    assert await made.read(kept) == ["A"]
    await made.close()


@pytest.mark.long
async def test_silent_way_is_left_within_half_a_minute(
    postgres_ledger_url: str, stalling: Stalling
) -> None:
    """With the times as they are: the ledger works again by itself, over another connection."""
    proxy, url = stalling(postgres_ledger_url)
    async with Ledger.open(url) as ledger:
        await begin(ledger)
        await issue(ledger, "a", "A")
        proxy.freeze()
        begun = time.monotonic()
        await issue(ledger, "b", "B")
        assert time.monotonic() - begun < 30
        assert await codes(ledger) == {"a": "A", "b": "B"}


STOPPED = """
import asyncio, os, signal, sys
from support.ledger_rows import issue
from rm_voucher.ledger import Ledger

async def main(url):
    async with Ledger.open(url) as ledger:
        database = ledger.store._database
        write = database._write

        def stop_inside(work, **options):
            def stopping(connection):
                result = work(connection)
                print("inside", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
                sys.stdin.readline()  # the signal may come a moment later
                return result
            database._write = write
            return write(stopping, **options)

        database._write = stop_inside
        print(await issue(ledger, "stopped"), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
async def test_process_that_is_stopped_in_a_transaction(postgres_ledger_url: str) -> None:
    """The server ends it after 5 s, and with it the lock that all the others wait for. When it goes
    on, it does its work again."""
    async with Ledger.open(postgres_ledger_url) as ledger:
        await begin(ledger)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STOPPED, postgres_ledger_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"inside\n"
            begun = time.monotonic()
            await issue(ledger, "other", "O")
            assert time.monotonic() - begun < 6.5
        finally:
            process.send_signal(signal.SIGCONT)
        out, _ = await process.communicate(b"go on\n")
        code = out.decode().strip()
        assert await codes(ledger) == {"other": "O", "stopped": code}


async def test_transaction_whose_server_falls_silent(
    postgres_url: str, stalling_for_a_moment: Stalling
) -> None:
    """In the middle of it, it is an error: its steps can't be done again from here."""
    proxy, url = stalling_for_a_moment(postgres_url)
    made = database(url)
    await made.open()
    with pytest.raises(LedgerError, match="does not answer"):
        async with made.transaction(lambda _: None) as (tx, _):
            await tx.run(add("A"))
            proxy.freeze()
    assert await made.read(kept) == []
    await made.close()


async def test_caller_waits_for_its_patience(
    postgres_url: str, stalling: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the thread waits, and however many wait for the thread."""
    monkeypatch.setattr(sql_database, "_CLOSING_S", 0.0)
    proxy, url = stalling(postgres_url)
    made = database(url)
    await made.open()
    assert await made.read(kept) == []
    made._patience_s = 0.1
    proxy.freeze()
    works = [made.write(add("A")), *(made.read(kept) for _ in range(5))]
    async with asyncio.timeout(PATIENCE_S):
        errors = await asyncio.gather(*works, return_exceptions=True)
    for error in errors:
        assert isinstance(error, LedgerError)
        assert isinstance(error.__cause__, UnavailableError)
        assert str(error) == "The database can't be used: it does not answer."
    await made.close()


async def test_closing_is_bounded(
    postgres_url: str, stalling: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not answer is given up, whatever it was asked."""
    monkeypatch.setattr(sql_database, "_CLOSING_S", 0.1)
    proxy, url = stalling(postgres_url)
    made = database(url)
    await made.open()
    await made.read(kept)
    proxy.freeze()
    works = [asyncio.ensure_future(work) for work in (made.write(add("A")), made.read(kept))]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await made.close()
        errors = await asyncio.gather(*works, return_exceptions=True)
    assert [str(error) for error in errors] == ["The database is closed."] * 2


async def test_ledger_on_a_way_that_stands_still(
    postgres_ledger_url: str, stalling_for_a_moment: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and nothing done twice: a commit whose answer was lost is made again."""
    monkeypatch.setattr(sql_database, "_IDLE_S", 0.2)  # locks of what was given up
    proxy, url = stalling_for_a_moment(postgres_ledger_url)
    async with Ledger.open(url) as ledger:
        await begin(ledger)
        names = [f"request {number}" for number in range(60)]
        bulk = asyncio.gather(*(issue(ledger, name, f"C {name}") for name in names))
        await asyncio.sleep(0.01)
        proxy.freeze()
        given = await bulk
        assert await codes(ledger) == dict(zip(names, given, strict=True))


FROZEN = """
import asyncio, sys
from support.ledger_rows import begin, issue
from support.stalling_proxy import StallingProxy
from rm_voucher.ledger import Ledger

async def main(host, port, url):
    proxy = StallingProxy(host, int(port))
    async with Ledger.open(url.replace("PORT", str(proxy.port))) as ledger:
        await begin(ledger)
        proxy.freeze()
        proxy.freezes_new = True
        print("frozen", flush=True)
        await issue(ledger, "a")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_process(postgres_ledger_url: str, times: int) -> None:
    """It ends within a quarter of a minute, though the database never answers again."""
    at = make_url(postgres_ledger_url)
    way = at.set(host="127.0.0.1", port=1).render_as_string(hide_password=False)
    url = way.replace("127.0.0.1:1", "127.0.0.1:PORT")
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, at.host or "127.0.0.1", str(at.port or 5432), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"frozen\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    if times == 2:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    assert time.monotonic() - begun < 15
