"""A PostgreSQL database for each test, or a skip that says why."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator

import asyncpg
import pytest

SERVICE = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")


async def _execute(statement: str) -> None:
    connection = await asyncpg.connect(SERVICE, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty database."""
    name = f"rm_kills_{uuid.uuid4().hex}"
    try:
        asyncio.run(_execute(f"CREATE DATABASE {name}"))
    except (OSError, asyncpg.PostgresError) as exc:
        pytest.skip(f"PostgreSQL can't be used: {type(exc).__name__}")
    yield f"{SERVICE.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(f"DROP DATABASE {name} WITH (FORCE)"))
