"""State follows the process and the task: what was only made before a fork is opened in the child,
and what a task has in its context is seen where its work is done, in a thread.

``gunicorn --preload`` makes the application, with its ledger and its router, and forks.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from support.command import PATIENCE_S
from support.event_stores import event
from support.scratch_database import opening

from rm_voucher.webhooks import open_event_store

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")

PRELOADED = """
import asyncio, os, sys
from support.event_stores import event
from support.files import PUBLIC_KEY_FILE
from support.ledger_rows import begin, issue
from rm_voucher.ledger import Ledger
from rm_voucher.webhooks import CallbackVerifier, WebhookRouter, open_event_store

ledger = Ledger.open(sys.argv[1])
verifier = CallbackVerifier(PUBLIC_KEY_FILE.read_bytes(), url="https://shop.invalid/callback")
store = open_event_store(sys.argv[1].replace("led.db", "events.db"))
router = WebhookRouter(verifier, store=store)

@router.on()
async def handle(event):
    pass

async def work():
    async with ledger, router:
        await begin(ledger)
        await issue(ledger, f"order {os.getpid()}")
        outcome = await router.dispatch(event(f"CODE {os.getpid()}"))
    return f"{outcome} {store.owner}"

children = []
for _ in range(2):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, asyncio.run(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    if "sqlite" in sys.argv[1]:  # one process at a time
        os.waitpid(child, 0)
    children.append(read)
print("\\n".join(os.read(read, 1000).decode() for read in children))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_made_before_a_fork(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A ledger and a router, with its store of events, open in each child, as two of each."""
    url = f"sqlite:///{tmp_path / 'led.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    ended = subprocess.run(
        [sys.executable, "-c", PRELOADED, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ended.stderr == ""
    outcomes, owners = zip(*(line.split() for line in ended.stdout.splitlines()), strict=True)
    assert outcomes == ("handled", "handled")
    assert len(set(owners)) == 2  # a lease of one is not the other's


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_context_reaches_the_steps_of_a_transaction(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A trace, a tenant, a logger's fields: ``tx.run`` and ``tx.execute`` have them."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_events_url")
    seen: list[str] = []

    def look(connection: Connection) -> None:
        seen.append(WHO.get())
        connection.execute(text("SELECT 1"))

    async def handle(store, number: int) -> None:
        WHO.set(f"task {number}")
        one = event(f"CODE {number}")
        await store.record(one)
        async with store.transaction(one) as (_, tx):
            await tx.run(look)

    async with open_event_store(url) as store:
        await asyncio.gather(*(handle(store, number) for number in range(4)))
    assert sorted(seen) == [f"task {number}" for number in range(4)]


async def test_context_reaches_every_thread_of_a_database(tmp_path: Path) -> None:
    """The first and the last step of a transaction, what is read and what is written, too."""
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.append(WHO.get())

    WHO.set("me")
    async for made in opening(f"sqlite:///{tmp_path / 'things.db'}"):
        await made.read(look)
        await made.write(look)
        async with made.transaction(look, look) as (tx, _):
            await tx.run(look)
    assert seen == ["me"] * 5
