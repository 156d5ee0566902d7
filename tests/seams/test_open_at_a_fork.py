"""The rule: no two processes use one connection, and none holds what another one opened.

Two processes on one connection read each other's answers, and an answer is a voucher. A server that
loads the application and then forks, such as ``gunicorn --preload`` or Celery, has children that
begin with all that it had open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.command import PATIENCE_S
from support.http_servers import RawServer, http, raw_server
from support.ledger_rows import codes, issue
from support.redis import redis_url  # noqa: F401 - a fixture
from yarl import URL

from rm_voucher import ClosedError, Request
from rm_voucher.exceptions import LedgerError, SharedStoreError
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql import guard
from rm_voucher.shared import open_shared_store
from rm_voucher.transport.aiohttp import AiohttpTransport

# A batch is asked for before the fork, and vouchers are issued after it, by all at once.
CLIENT = """
import asyncio, os, signal, sys
from rm_voucher import ClosedError, Environment, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve

emulator = Emulator(batches={"TEA": 1000})
readable, writable = os.pipe()
server = os.fork()
if not server:
    async def listen():
        async with serve(emulator, latency_s=0.002) as listening:
            os.write(writable, str(listening.url).encode())
            await asyncio.Event().wait()
    asyncio.run(listen())
url = os.read(readable, 1000).decode()
client = VoucherClient(emulator.credentials, environment=Environment(url, url))
loop = asyncio.new_event_loop()
run = {"new": asyncio.run, "same": loop.run_until_complete}[sys.argv[1]]
run(client.batch("TEA"))

async def work():
    told = []
    for _ in range(10):
        try:
            told.append((await client.issue("TEA")).code)
        except ClosedError:
            told.append("refused")
    await client.aclose()
    return " ".join(told)

pipes = []
for _ in range(2):
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(there, run(work()).encode())
        finally:
            os._exit(0)
    os.close(there)
    if sys.argv[1] == "same":  # asyncio itself lets no two processes run it at once
        os.waitpid(child, 0)
    pipes.append(here)
print(run(work()))
for here in pipes:
    print(os.read(here, 4000).decode())
loop.close()
os.kill(server, signal.SIGKILL)
"""


def lines_of(script: str, *arguments: str) -> list[str]:
    """Return what a program says, and see that it does not complain."""
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error"),
            *("-W", "ignore:This process:DeprecationWarning"),  # that a process with threads forks
            *("-c", script, *arguments),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


@pytest.mark.parametrize("loop", ["new", "same"])
def test_client_that_was_used_before_a_fork(loop: str) -> None:
    """A child with an event loop of its own has connections of its own. In that of its parent it
    sends nothing, and takes nothing from it."""
    parent, *children = (line.split(" ") for line in lines_of(CLIENT, loop))
    assert "refused" not in parent
    if loop == "same":
        assert children == [["refused"] * 10] * 2
        children = []
    codes = [code for told in (parent, *children) for code in told]
    assert len(set(codes)) == len(codes) == 10 * (1 + len(children))


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(forever=http(200, b"{}")) as listening:
        yield listening


@pytest.mark.parametrize("kind", ["own", "borrowed"])
async def test_transport_of_another_process(
    server: RawServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error proves that nothing was sent; the parent's connection stays open."""
    async with aiohttp.ClientSession() as session:
        transport = AiohttpTransport(session if kind == "borrowed" else None)
        request = Request(operation="issue", method="POST", url=URL(f"{server.url}/"), body=b"{}")
        await transport.send(request)
        child = os.getpid() + 1
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: child)
            with pytest.raises(ClosedError, match=r"^issue: the connections are another process's"):
                await transport.send(request)
        await transport.send(request)
        assert (len(server.received), server.connections) == (2, 1)
        await transport.aclose()


async def test_session_is_closed_by_its_process_alone(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = AiohttpTransport()
    request = Request(operation="issue", method="POST", url=URL(f"{server.url}/"), body=b"{}")
    await transport.send(request)
    session, _ = await transport._session()
    child = os.getpid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: child)
        await transport.aclose()
        await transport._owned[asyncio.get_running_loop()].closing.aclose()  # as the loop's end
    assert not session.closed
    await session.close()


async def test_redis_of_another_process(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A store that was used is not used, and not closed, in a child; one that was only made is."""
    store = open_shared_store(redis_url)
    child = os.getpid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: child)
        await store.aclose()
        await store.load("test")
    with pytest.raises(SharedStoreError, match="used before a fork: make one in each process"):
        await store.load("test")
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: child)
        await store.load("test")
        await store.aclose()


# The child tells what it meets, and its parent goes on.
DATABASE = """
import asyncio, os, sys
from support.ledger_rows import begin, codes, issue
from rm_voucher.ledger import Ledger
from rm_voucher.shared import open_shared_store

async def told(doing):
    try:
        await doing
    except Exception as exc:
        return str(exc)

with asyncio.Runner() as runner:
    run = runner.run
    ledger, shared = Ledger.open(sys.argv[1]), open_shared_store(sys.argv[2])
    run(ledger.__aenter__())
    run(begin(ledger))
    run(issue(ledger, "order 1"))
    run(shared.load("test"))
    child = os.fork()
    if not child:
        try:
            print(asyncio.run(told(ledger.counts())))
            print(asyncio.run(told(shared.load("test"))), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    run(issue(ledger, "order 2"))
    run(shared.load("test"))
    print(len(set(run(codes(ledger)).values())))
    run(shared.aclose())
    run(ledger.aclose())
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_database_that_was_opened_before_a_fork(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The child is told, and its parent has what it had."""
    urls = [f"sqlite:///{tmp_path / name}" for name in ("led.db", "shared.db")]
    if kind == "postgresql":
        urls = [str(request.getfixturevalue("postgres_ledger_url"))] * 2
    assert lines_of(DATABASE, *urls) == [
        "The database was opened before a fork: open it in each process.",
        "The database was opened before a fork: open it in each process.",
        "2",
    ]


# It says its child's id, and waits to be killed.
OPENED = """
import asyncio, os, signal, sys
from support.ledger_rows import begin, issue
from rm_voucher.ledger import Ledger

async def work():
    async with Ledger.open(sys.argv[1]) as ledger:
        await begin(ledger)
        await issue(ledger, "order 1")
        child = os.fork()
        if child:
            print(child, flush=True)
        signal.pause()

asyncio.run(work())
"""


def test_child_does_not_hold_the_lock_of_a_ledger(tmp_path: Path) -> None:
    """When the process that had an SQLite file is dead, another may have it, whatever children it
    has left."""
    url = f"sqlite:///{tmp_path / 'led.db'}"

    async def go_on() -> dict[str, str | None]:
        async with Ledger.open(url) as ledger:
            await issue(ledger, "order 2")
            return await codes(ledger)

    with subprocess.Popen(
        [sys.executable, "-c", OPENED, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(LedgerError, match="used by another process"):
                asyncio.run(go_on())
            process.kill()
            process.wait()
            os.kill(child, 0)  # it is there
            assert asyncio.run(go_on()).keys() == {"order 1", "order 2"}
        finally:
            os.kill(child, signal.SIGKILL)


async def test_what_a_child_lets_go_of(tmp_path: Path) -> None:
    file = tmp_path / "led.db"
    held = guard.FileGuard(file)
    held.acquire()
    guard._release_in_child()
    assert not held.is_held
    other = guard.FileGuard(file)
    other.acquire()
    other.release()
