"""Watches each statement that the package executes: none may leave its namespace, or read it whole.

A statement that forgets it would see or change another merchant's rows. One that SQLite answers
by reading all rows of a namespace takes longer the more there are.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from sqlalchemy import Engine, event

from rm_voucher.database.driven import Driven
from rm_voucher.ledger.sql.schema import SCHEMA as LEDGER
from rm_voucher.webhooks.sql.schema import SCHEMA as CALLBACKS

_TABLES = [
    table.name
    for schema in (LEDGER, CALLBACKS)
    for table in schema.tables.sorted_tables
    if "namespace" in table.c
]
_TABLE = re.compile(rf'\b(?:FROM|JOIN|INTO|UPDATE)\s+"?({"|".join(_TABLES)})\b', re.IGNORECASE)
_CONDITION = re.compile(r"\bnamespace\s*=\s*(?:%|\?|(?:new|wanted)\.namespace)", re.IGNORECASE)
_INSERT = re.compile(r"^\s*INSERT\s+INTO\s+\S+\s*\(namespace,", re.IGNORECASE)
_DEFINES = re.compile(r"^\s*(?:CREATE|ALTER|DROP|PRAGMA)\b", re.IGNORECASE)
# About the file: an older copy of it stops every batch in it; the copy of a table that is rebuilt.
_OF_THE_FILE = re.compile(
    r"^UPDATE rm_ledger_batches SET alarm=\S+ WHERE rm_ledger_batches\.alarm IS NULL$"
    r"|^INSERT INTO (\w+)_new \([^)]*\) SELECT [^()]* FROM \1$"
)

_READS_ALL = re.compile(
    r"^(?:SCAN rm_|SEARCH rm_\w+ USING (?:PRIMARY KEY|.*INDEX \w+) \(namespace=\?\)$)"
)
# Counts; the few batches; who prunes; what is asked once for a code that a dead process kept, or
# for an overdue attempt; few of many attempts, by an index of those.
_MAY_READ_ALL = re.compile(
    r"count\(|FROM rm_ledger_batches|leased_until <=|seen_code = \?$|assigned_at BETWEEN"
)
_INDEX_OF_FEW = "rm_ledger_attempts_notable"


def reads_all(statement: str, plan: str) -> bool:
    """Return whether a line of SQLite's plan reads all rows of a namespace, and should not."""
    text = " ".join(statement.split())
    is_meant = _INDEX_OF_FEW in plan or _MAY_READ_ALL.search(text) or _OF_THE_FILE.match(text)
    return bool(_READS_ALL.match(plan)) and not is_meant


def forgets_namespace(statement: str) -> bool:
    """Return whether a statement reads or writes such a table without saying whose rows."""
    text = " ".join(statement.split())
    if _DEFINES.match(text) or _OF_THE_FILE.match(text):
        return False
    tables = len(_TABLE.findall(text))
    conditions = len(_CONDITION.findall(text)) + bool(_INSERT.match(text))
    return tables > conditions


@contextmanager
def all_scoped() -> Iterator[set[str]]:
    """Fail where the package executes a statement that forgets its namespace, or reads all of it.

    Yields the statements that touched such a table. A test's own statements may do what they like.
    """
    seen, bad, slow = set[str](), set[str](), set[str]()

    def look(connection: Any, _: Any, statement: str, values: Any, __: Any, has_many: bool) -> None:
        if statement in seen or not any(name in statement for name in _TABLES):
            return
        if _is_from_a_test():
            return
        seen.add(statement)
        if forgets_namespace(statement):
            bad.add(statement)
        if connection.dialect.name == "sqlite" and not _DEFINES.match(statement):
            driven = connection.connection.dbapi_connection
            with contextlib.suppress(sqlite3.Error):  # the statement itself is about to fail so
                plans = driven.execute(
                    f"EXPLAIN QUERY PLAN {statement}", values[0] if has_many else values
                ).fetchall()
                if any(reads_all(statement, plan) for *_, plan in plans):
                    slow.add(statement)

    def send(driven: Driven, statement: str, values: Any) -> Any:
        look(driven.connection, None, statement, values, None, has_many=False)
        return to_driver(driven, statement, values)

    to_driver = Driven.send
    event.listen(Engine, "before_cursor_execute", look)
    try:
        with mock.patch.object(Driven, "send", send):
            yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert not bad, f"without a namespace: {sorted(bad)}"
    assert not slow, f"read all rows of a namespace: {sorted(slow)}"


def _is_from_a_test() -> bool:
    frame = sys._getframe(2)
    between = ("sqlalchemy", __file__)
    while frame is not None and any(name in frame.f_code.co_filename for name in between):
        frame = frame.f_back  # type: ignore[assignment] # the last one has none
    return frame is not None and "/tests/" in frame.f_code.co_filename
