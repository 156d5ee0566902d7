"""The databases on which these tests run: an SQLite file and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.scratch_database import opening

from rm_voucher.database.database import Database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'things.db'}"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of each kind."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Database]:
    """An open database of each kind."""
    async for made in opening(url):
        yield made


@pytest.fixture
async def on_postgres(postgres_url: str) -> AsyncIterator[Database]:
    """An open database in PostgreSQL."""
    async for made in opening(postgres_url):
        yield made
