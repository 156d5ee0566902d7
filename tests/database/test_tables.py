"""All tables as SQL: what it makes is what opening makes, and nobody has to make any after that."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from support.postgres import execute

from rm_voucher import LedgerError
from rm_voucher.emulator import Emulator
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger import Ledger
from rm_voucher.models import Voucher, VoucherStatus
from rm_voucher.shared import open_shared_store
from rm_voucher.tables import ddl, metadata
from rm_voucher.webhooks import VoucherEvent, open_event_store
from rm_voucher.worker import Outbox

_LOOK = """
    SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
    UNION SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes
        WHERE schemaname = 'public'
    UNION SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION SELECT 'version', component, version::text, '', '', '' FROM rm_schema_versions
    ORDER BY 1, 2, 3
"""


async def use_all(url: str) -> None:
    """Open each component, and write with it."""
    emulator = Emulator(batches={"TEA": 5})
    async with emulator.client() as client, Ledger.open(url) as ledger:
        await ledger.issue(client, "TEA", "order 1")
    async with open_event_store(url) as store:
        voucher = Voucher(code="A", status=VoucherStatus.VOID)
        await store.record(VoucherEvent.of(voucher), lease_s=1)
    async with Outbox(url) as outbox, outbox.once("1", b"message") as transaction:
        assert transaction is not None
    shared = open_shared_store(url)
    await shared.swap("key", 0, b"content")
    await shared.aclose()


def in_sqlite(path: Path, *scripts: str) -> set[tuple[Any, ...]]:
    """Run scripts; return all tables, indexes and versions."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for script in scripts:
            connection.executescript(script)
        found = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
        ).fetchall()
        versions = connection.execute("SELECT component, version FROM rm_schema_versions")
        return {(kind, name, " ".join((sql or "").split())) for kind, name, sql in found} | {
            ("version", *row) for row in versions
        }


async def test_it_makes_what_opening_makes_in_sqlite(tmp_path: Path) -> None:
    """The tables, indexes and versions are the same, and nothing is added to them."""
    made = in_sqlite(tmp_path / "made.db", ddl("sqlite"))
    await use_all(f"sqlite:///{tmp_path}/made.db")
    assert in_sqlite(tmp_path / "made.db") == made
    await use_all(f"sqlite:///{tmp_path}/opened.db")
    assert in_sqlite(tmp_path / "opened.db") == made


async def test_it_makes_what_opening_makes_in_postgresql(postgres_url: str) -> None:
    """So it is in PostgreSQL, with every column, constraint and index."""
    await use_all(postgres_url)
    opened = execute(postgres_url, _LOOK)
    execute(postgres_url, f"DROP TABLE {', '.join(metadata().tables)}")
    execute(postgres_url, ddl("postgresql"))
    assert execute(postgres_url, _LOOK) == opened
    assert len(opened) > 100


@pytest.fixture
def application(postgres_url: str) -> Iterator[str]:
    """The URL of the database for a role that may make no tables."""
    role, password = f"rm_test_{secrets.token_hex(6)}", secrets.token_hex(12)
    execute(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    url = make_url(postgres_url).set(username=role, password=password)
    execute(postgres_url, f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}")
    yield url.render_as_string(hide_password=False)
    execute(postgres_url, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_role_that_makes_no_tables(postgres_url: str, application: str) -> None:
    """Where the owner has made them, it can do everything; before, it is told that it may not."""
    with pytest.raises(LedgerError, match="permission denied"):
        await use_all(application)
    role = make_url(application).username
    execute(postgres_url, ddl("postgresql"))
    execute(
        postgres_url,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    )
    execute(postgres_url, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    await use_all(application)


def test_tables_have_our_names() -> None:
    """Each begins with rm_, and each call gives a copy of its own."""
    assert {name[:3] for name in metadata().tables} == {"rm_"}
    assert metadata() is not metadata()


def test_another_dialect() -> None:
    """There are two."""
    other: Any = "mysql"
    with pytest.raises(ConfigurationError, match="postgresql or sqlite"):
        ddl(other)
