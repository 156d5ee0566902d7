"""PostgreSQL for tests: a database for each process of tests, or a skip that says why."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

SERVICE = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")


def execute(url: str, statement: str, *values: object) -> list[Any]:
    """Run a statement in a connection and transaction of its own; return its rows."""
    import psycopg  # an extra, and slow to import

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


async def run_sql(url: str, statement: str, *values: object) -> list[Any]:
    """Run a statement beside whatever is tested."""
    return await asyncio.to_thread(execute, url, statement, *values)


async def end_connections(url: str) -> int:
    """End all connections to a database, as a restart of the server does; return how many."""
    ended = await run_sql(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return len(ended)


def give_up(url: str, reason: object) -> NoReturn:
    """Skip a test that needs PostgreSQL; in CI, fail if there is something at its address."""
    from sqlalchemy.engine import make_url  # an extra, and slow to import

    at = make_url(url)
    text = f"PostgreSQL at {at!r} can't be used: {reason}"
    if os.environ.get("CI") == "true" and listens(at.host or "127.0.0.1", at.port or 5432):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), 1).close()
        return True
    return False


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a database that this process of tests has for itself."""
    import psycopg
    from sqlalchemy.engine import make_url

    name = f"rm_test_{secrets.token_hex(6)}"
    try:
        execute(SERVICE, f"CREATE DATABASE {name}")
    except psycopg.Error as exc:
        give_up(SERVICE, exc)
    yield make_url(SERVICE).set(database=name).render_as_string(hide_password=False)
    execute(SERVICE, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """The URL of a PostgreSQL database without tables."""
    _clear(postgres_database, keep="")
    return postgres_database


@pytest.fixture
def postgres_ledger_url(postgres_database: str) -> str:
    """The URL of a PostgreSQL database that has at most the tables of a ledger, empty ones.

    To make them costs more than most tests.
    """
    _clear(postgres_database, keep="rm_ledger_", component="ledger")
    return postgres_database


@pytest.fixture
def postgres_events_url(postgres_database: str) -> str:
    """The URL of one that has at most the tables of a store of callbacks, empty ones."""
    _clear(postgres_database, keep="rm_webhook_", component="store of callbacks")
    return postgres_database


def _clear(url: str, *, keep: str, component: str = "") -> None:
    # What a killed process left may still hold locks.
    execute(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    execute(
        url,
        f"""DO $$ DECLARE name text; has_them boolean; BEGIN
            SET LOCAL lock_timeout = '5s';
            SET LOCAL client_min_messages = warning;
            has_them := '{keep}' <> '' AND EXISTS (SELECT FROM pg_tables
                WHERE schemaname = 'public' AND starts_with(tablename, '{keep}'));
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
                IF has_them AND (starts_with(name, '{keep}')
                        OR name IN ('rm_schema_versions', 'rm_namespaces')) THEN
                    IF name = 'rm_schema_versions' THEN
                        DELETE FROM rm_schema_versions WHERE component <> '{component}';
                    ELSE
                        EXECUTE 'DELETE FROM ' || name;
                    END IF;
                ELSE
                    EXECUTE 'DROP TABLE ' || name || ' CASCADE';
                END IF;
            END LOOP;
        END $$""",
    )
