"""A shared store of each kind, on a document space of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rm_voucher.shared import MemorySharedStore, SharedStore, open_shared_store

KINDS = ["memory", "sqlite", "postgres", "redis"]


@contextlib.asynccontextmanager
async def stores_of(
    kind: str, request: pytest.FixtureRequest, folder: Path
) -> AsyncIterator[Callable[[], SharedStore]]:
    """Yield what gives stores on one set of documents, each as another process has it."""
    made: list[SharedStore] = []
    if kind == "memory":
        memory = MemorySharedStore()

        def make() -> SharedStore:
            return memory
    else:
        url = f"sqlite:///{folder / 'shared.db'}"
        if kind != "sqlite":
            url = str(request.getfixturevalue(f"{kind}_url"))

        def make() -> SharedStore:
            made.append(open_shared_store(url))
            return made[-1]

    yield make
    for store in made:
        await store.aclose()
