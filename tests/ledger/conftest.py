"""Ledgers in every store: in memory, in an SQLite file, and in a PostgreSQL database of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.doubles import FakeTime
from support.ledger_rows import runtime_at
from support.scoped_statements import all_scoped

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.memory import MemoryLedgerStore, MemoryTables

STORES = ("memory", "sqlite", "postgresql")


@pytest.fixture(autouse=True)
def _no_statement_leaves_its_namespace() -> Iterator[None]:
    with all_scoped():
        yield


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_ledger(
    store: str, time: FakeTime, request: pytest.FixtureRequest
) -> Callable[..., Ledger]:
    """Make ledgers of one store, one after the other; the test enters them."""
    settings: dict[str, Any] = {"mode": "exclusive", "runtime": runtime_at(time)}
    if store == "memory":
        tables: dict[str, MemoryTables] = defaultdict(MemoryTables)

        def make(namespace: str = "", **more: Any) -> Ledger:
            return Ledger(MemoryLedgerStore(tables[namespace]), **{**settings, **more})

        return make
    if store == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/ledger.db"
    else:
        url = request.getfixturevalue("postgres_ledger_url")
    return lambda namespace="", **more: Ledger.open(
        url, namespace=namespace, **{**settings, **more}
    )


@pytest.fixture
async def ledger(make_ledger: Callable[..., Ledger]) -> AsyncIterator[Ledger]:
    """An open ledger, of each store in turn."""
    async with make_ledger() as ledger:
        yield ledger
