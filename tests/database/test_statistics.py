"""SQLite is told that a namespace has many rows: it looks keys up, and does not read all."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.scoped_statements import reads_all

from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql.unit_of_work import _CODES_OF, _KNOWN, _LOOKUPS, _UPDATES

STATEMENTS: list[Any] = [*_LOOKUPS.values(), _CODES_OF, _KNOWN, *_UPDATES.values()]


def plans(file: Path, statement: str) -> list[str]:
    with sqlite3.connect(file) as connection:
        values = ("mine", "[]")
        found = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    connection.close()
    return [plan for *_, plan in found]


async def test_statements_look_keys_up(tmp_path: Path) -> None:
    """So the ledger's steps take as long with a million rows as with ten."""
    file = tmp_path / "ledger.db"
    async with Ledger.open(f"sqlite:///{file}", mode="exclusive", namespace="mine"):
        pass
    for each in STATEMENTS:
        assert not [plan for plan in plans(file, each.sqlite) if reads_all(each.sqlite, plan)]


@pytest.mark.parametrize("has_own", [True, False])
async def test_ledger_from_before(tmp_path: Path, *, has_own: bool) -> None:
    """One that was written without statistics is given them; those of its owner stay."""
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    async with Ledger.open(url, mode="exclusive", namespace="mine"):
        pass
    own = ("rm_ledger_codes", "rm_ledger_codes", "7 7 1")
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM sqlite_stat1")
        if has_own:
            connection.execute("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", own)
    connection.close()
    async with Ledger.open(url, mode="exclusive", namespace="mine"):
        pass
    with sqlite3.connect(file) as connection:
        query = "SELECT * FROM sqlite_stat1 WHERE idx = 'rm_ledger_codes'"
        found = connection.execute(query).fetchall()
        others = connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone()
    connection.close()
    assert found == [
        own if has_own else ("rm_ledger_codes", "rm_ledger_codes", "1000000 1000000 1")
    ]
    assert others[0] > 5
