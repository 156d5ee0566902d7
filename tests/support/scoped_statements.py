"""Watches each statement that the package executes: none may leave its namespace.

A statement that forgets it would see or change another merchant's rows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from rm_voucher.ledger.sql.schema import SCHEMA as LEDGER
from rm_voucher.webhooks.sql.schema import SCHEMA as CALLBACKS

_TABLES = [
    table.name
    for schema in (LEDGER, CALLBACKS)
    for table in schema.tables.sorted_tables
    if "namespace" in table.c
]
_TABLE = re.compile(rf'\b(?:FROM|JOIN|INTO|UPDATE)\s+"?({"|".join(_TABLES)})\b', re.IGNORECASE)
_CONDITION = re.compile(r"\bnamespace\s*=\s*(?:%|\?|new\.namespace)", re.IGNORECASE)
_INSERT = re.compile(r"^\s*INSERT\s+INTO\s+\S+\s*\(namespace,", re.IGNORECASE)
_DEFINES = re.compile(r"^\s*(?:CREATE|ALTER|DROP|PRAGMA)\b", re.IGNORECASE)
# About the file: an older copy of it stops every batch in it; the copy of a table that is rebuilt.
_OF_THE_FILE = re.compile(
    r"^UPDATE rm_ledger_batches SET alarm=\S+ WHERE rm_ledger_batches\.alarm IS NULL$"
    r"|^INSERT INTO (\w+)_new \([^)]*\) SELECT [^()]* FROM \1$"
)


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
    """Fail where the package executes a statement that forgets its namespace.

    Yields the statements that touched such a table. A test's own statements may do what they like.
    """
    seen, bad = set[str](), set[str]()

    def look(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement in seen or not any(name in statement for name in _TABLES):
            return
        if _is_from_a_test():
            return
        seen.add(statement)
        if forgets_namespace(statement):
            bad.add(statement)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert not bad, f"without a namespace: {sorted(bad)}"


def _is_from_a_test() -> bool:
    frame = sys._getframe(2)
    while frame is not None and "sqlalchemy" in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment] # the last one has none
    return frame is not None and "/tests/" in frame.f_code.co_filename
