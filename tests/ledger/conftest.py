"""Ledgers in every store: in memory, in an SQLite file, and in a PostgreSQL database of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from conftest import FakeTime
from sqlalchemy.engine import make_url

from rm_voucher.ledger import Ledger, MemoryLedger
from rm_voucher.ledger.memory import MemoryStore

POSTGRES_URL = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")
STORES = ("memory", "sqlite", "postgresql")


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a database that this process of tests has for itself."""
    name = f"rm_ledger_{secrets.token_hex(6)}"
    try:
        # Nothing here is about a crash of the server, so no commit need wait for its disk.
        execute(
            POSTGRES_URL,
            f"CREATE DATABASE {name}",
            f"ALTER DATABASE {name} SET synchronous_commit = off",
        )
    except psycopg.Error as exc:
        answers = exc.sqlstate is not None
        if os.environ.get("CI") == "true" and answers:
            pytest.fail(f"PostgreSQL answers, but can't be used: {exc}")
        pytest.skip(f"PostgreSQL at {make_url(POSTGRES_URL)!r}: {exc}")
    url = make_url(POSTGRES_URL).set(database=name)
    yield url.render_as_string(hide_password=False)
    execute(POSTGRES_URL, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """The URL of an empty PostgreSQL database."""
    execute(postgres_database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return postgres_database


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_ledger(
    store: str, time: FakeTime, request: pytest.FixtureRequest
) -> Callable[..., Ledger]:
    """Make ledgers of one store, one after the other; the test enters them."""
    settings: dict[str, Any] = {
        "mode": "exclusive",
        "clock": time.clock,
        "monotonic": time.clock,
        "sleep": time.sleep,
    }
    if store == "memory":
        kept = MemoryStore()
        return lambda **more: MemoryLedger(kept, **{**settings, **more})
    if store == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/ledger.db"
    else:
        url = request.getfixturevalue("postgres_url")
    return lambda **more: Ledger.open(url, **{**settings, **more})


@pytest.fixture
async def ledger(make_ledger: Callable[..., Ledger]) -> AsyncIterator[Ledger]:
    """An open ledger, of each store in turn."""
    async with make_ledger() as ledger:
        yield ledger
