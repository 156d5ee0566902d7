"""A PostgreSQL database for each test, or a skip that says why."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest

SERVICE = os.environ.get("RM_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1/test")


def _execute(statement: str) -> None:
    with psycopg.connect(SERVICE, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty database."""
    name = f"rm_kills_{uuid.uuid4().hex}"
    try:
        _execute(f"CREATE DATABASE {name}")
    except psycopg.Error as exc:
        pytest.skip(f"PostgreSQL can't be used: {type(exc).__name__}")
    yield f"{SERVICE.rpartition('/')[0]}/{name}"
    _execute(f"DROP DATABASE {name} WITH (FORCE)")
