"""What SQLite takes for granted of tables with namespaces: that a namespace has many rows.

Without statistics it expects ten rows that share the first column of an index. It would read a
whole namespace, again and again, rather than look a few keys up. In PostgreSQL, whose statistics
come late, statements look each key up by themselves: see `scope.each_by_key`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Table

_ROWS = 1_000_000
_ROWS_OF_A_PART = 1_000
"""Of an index with a condition: of those that wait, say."""
_ROWS_OF_A_VALUE = 10


def expect_many_rows(connection: Connection, tables: Iterable[Table]) -> None:
    """Write statistics for the indexes of tables that have namespaces, unless there are any."""
    execute = connection.exec_driver_sql
    execute("ANALYZE sqlite_schema")  # makes the table of statistics
    known = {name for (name,) in execute("SELECT idx FROM sqlite_stat1")}
    rows = []
    for table in tables:
        if "namespace" not in table.c:
            continue
        has_row_ids = table.dialect_options["sqlite"]["with_rowid"]
        for _, name, is_unique, origin, is_partial in execute(f"PRAGMA index_list({table.name})"):
            columns = len(execute(f"PRAGMA index_info({name})").all())
            of_index = table.name if origin == "pk" and not has_row_ids else name
            total = _ROWS_OF_A_PART if is_partial else _ROWS
            numbers = [total, total, *[_ROWS_OF_A_VALUE] * (columns - 1)]
            if is_unique:
                numbers[-1] = 1
            if of_index not in known:
                rows.append((table.name, of_index, " ".join(map(str, numbers))))
    if rows:
        execute("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", rows)
        execute("ANALYZE sqlite_schema")  # reads them
