"""A store of each kind, on a document space of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.redis import redis_url  # noqa: F401 - a fixture

from rm_voucher.shared import MemorySharedStore, SharedStore, open_shared_store

KINDS = ["memory", "sqlite", "postgres", "redis"]


@pytest.fixture(params=KINDS)
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[], SharedStore]]:
    """What gives stores on one set of documents, each as another process has it."""
    made: list[SharedStore] = []
    if request.param == "memory":
        memory = MemorySharedStore()

        def make() -> SharedStore:
            return memory
    else:
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        if request.param != "sqlite":
            url = str(request.getfixturevalue(f"{request.param}_url"))

        def make() -> SharedStore:
            made.append(open_shared_store(url))
            return made[-1]

    yield make
    for store in made:
        await store.aclose()


@pytest.fixture
def store(stores: Callable[[], SharedStore]) -> SharedStore:
    return stores()


@pytest.fixture
def key() -> str:
    """A key that no other test has: a Redis is shared by all."""
    return f"test:{secrets.token_hex(8)}"
