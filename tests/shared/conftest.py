"""A store of each kind, on a document space of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.redis import redis_url  # noqa: F401 - a fixture
from support.shared_stores import KINDS, stores_of

from rm_voucher.shared import SharedStore


@pytest.fixture(params=KINDS)
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[], SharedStore]]:
    async with stores_of(request.param, request, tmp_path) as make:
        yield make


@pytest.fixture
def store(stores: Callable[[], SharedStore]) -> SharedStore:
    return stores()


@pytest.fixture
def key() -> str:
    """A key that no other test has: a Redis is shared by all."""
    return f"test:{secrets.token_hex(8)}"
