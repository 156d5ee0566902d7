"""The statements of each transaction, as text: SQLAlchemy's own take too long to make.

The first parameter of each is the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Self

import attrs
from sqlalchemy import Column, ColumnElement, Double, FromClause, Table


@attrs.frozen
class Lookup:
    """Reads rows by the values of a column: a JSON array in SQLite, an array in PostgreSQL.

    ``postgresql_locking`` also locks them, in one order for all. SQLite locks its whole file.
    """

    sqlite: str
    postgresql: str
    postgresql_locking: str

    @classmethod
    def by(cls, column: Column[Any], names: Sequence[str]) -> Self:
        """Return the lookup that reads these columns of the rows with one of the values."""
        columns = ", ".join(_columns(column.table, names))
        return cls(
            f"SELECT {columns} FROM {column.table.name} WHERE namespace = ? "  # noqa: S608 - our own names
            f"AND {column.name} IN (SELECT value FROM json_each(?))",
            each_by_key(column, columns),
            each_by_key(column, columns, lock=" FOR UPDATE"),
        )


def each_by_key(
    column: Column[Any], columns: str, *, keys: str = "unnest(%b::text[])", lock: str = ""
) -> str:
    """Return a query of PostgreSQL's that looks each key up by itself, in one order for all.

    Else a namespace that is new, or that its statistics don't know yet, would pass for a small one,
    and PostgreSQL would read all of its rows each time.
    """
    return (
        "SELECT found.* FROM (SELECT %b::text AS namespace, key "  # noqa: S608 - our own names
        f"FROM {keys} AS given (key) ORDER BY key) AS wanted "
        f"CROSS JOIN LATERAL (SELECT {columns} FROM {column.table.name} "
        f"WHERE namespace = wanted.namespace AND {column.name} = wanted.key LIMIT 1{lock}) AS found"
    )


@attrs.frozen
class Stock:
    """Reads the first rows of a batch that meet a condition, so many at most.

    The parameters are the namespace, the batch and the number.
    """

    sqlite: str
    postgresql: str

    @classmethod
    def of(cls, where: ColumnElement[bool], column: Column[Any], names: Sequence[str]) -> Self:
        """Return the query of the rows where it holds, in the order of a column."""
        table = column.table
        columns = ", ".join(_columns(table, names))
        rows = f"SELECT {columns} FROM {table.name} WHERE {where} AND namespace"  # noqa: S608 - ours
        order = f"ORDER BY {column.name} LIMIT"
        return cls(
            f"{rows} = ? AND batch = ? {order} ?",
            f"{rows} = %b::text AND batch = %b::text {order} %b::int8",
        )


@attrs.frozen
class Statement:
    """Writes many rows in one step of the database.

    For each row by itself, the thread would wait for the interpreter again.

    Attributes:
        sqlite: takes a JSON array of arrays, one for each row.
        postgresql: takes an array for each column, binary: psycopg makes those three times as fast.
        values_of: returns a row's values, of which there are several, in the order of both.
    """

    sqlite: str
    postgresql: str
    values_of: Callable[[Any], tuple[Any, ...]]

    @classmethod
    def insert(cls, table: Table, names: Sequence[str], *, or_ignore: bool = False) -> Self:
        """Return the statement that inserts rows; ``or_ignore`` those that exist already."""
        into = f"INSERT INTO {table.name} ({', '.join(('namespace', *_columns(table, names)))})"
        end = " ON CONFLICT DO NOTHING" if or_ignore else ""
        return cls(
            # Without WHERE, SQLite would read ON CONFLICT as a join's.
            f"{into} SELECT ?, {_elements(names)} FROM json_each(?) WHERE true{end}",  # noqa: S608 - ours
            f"{into} SELECT %b::text, * FROM unnest({_arrays(table, names)}){end}",  # noqa: S608 - ours
            attrgetter(*names),
        )

    @classmethod
    def insert_by_key(cls, table: Table, names: Sequence[str], key: str, number: str) -> Self:
        """Return the statement that inserts rows by their keys, and numbers them as they come.

        Processes that insert the same rows would wait for each other for ever in another order.
        """
        columns = ", ".join(_columns(table, names))
        numbered = (
            f"SELECT nextval(pg_get_serial_sequence('{table.name}', '{number}')) AS {number}, * "  # noqa: S608 - ours
            f"FROM unnest({_arrays(table, names)}) WITH ORDINALITY AS given ({columns}, place) "
            "ORDER BY place"
        )
        return cls(
            cls.insert(table, names).sqlite,
            f"INSERT INTO {table.name} (namespace, {number}, {columns}) "  # noqa: S608 - ours
            f"SELECT %b::text, {number}, {columns} FROM ({numbered}) AS numbered ORDER BY {key}",
            attrgetter(*names),
        )

    @classmethod
    def update(cls, table: Table, names: Sequence[str], key: str) -> Self:
        """Return the statement that updates rows by their key."""
        columns = _columns(table, names)
        changed = ", ".join(f"{name} = new.{name}" for name in columns if name != key)
        update = f"UPDATE {table.name} SET {changed} FROM"  # noqa: S608 - our own names
        where = f"WHERE {table.name}.namespace = new.namespace AND {table.name}"
        # Looked up one by one, as `each_by_key` does.
        given = f"unnest({_arrays(table, names)}) AS given ({', '.join(columns)})"
        wanted = f"(SELECT %b::text AS namespace, given.* FROM {given}) AS wanted"  # noqa: S608 - ours
        place = (
            f"(SELECT ctid AS place FROM {table.name} "  # noqa: S608 - our own names
            f"WHERE namespace = wanted.namespace AND {key} = wanted.{key} LIMIT 1) AS there"
        )
        return cls(
            f"{update} (SELECT ? AS namespace, {_elements(columns)} FROM json_each(?)) AS new "  # noqa: S608 - ours
            f"{where}.{key} = new.{key}",
            f"{update} (SELECT * FROM {wanted} CROSS JOIN LATERAL {place}) AS new "  # noqa: S608 - ours
            f"{where}.ctid = new.place",
            attrgetter(*names),
        )


def _columns(table: FromClause, names: Sequence[str]) -> list[str]:
    """Return the columns' names in the database, where they differ from the fields' of a row."""
    return [table.c[name].name for name in names]


def _elements(names: Sequence[str]) -> str:
    return ", ".join(
        f"json_extract(value, '$[{number}]') AS {name}" for number, name in enumerate(names)
    )


def _arrays(table: Table, names: Sequence[str]) -> str:
    return ", ".join(
        f"%b::{'float8' if isinstance(table.c[name].type, Double) else 'text'}[]" for name in names
    )
