"""The statements of each transaction, as text: SQLAlchemy's own take too long to make.

The first parameter of each is the namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Self

import attrs
from sqlalchemy import Column, Double, FromClause, Table


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
        names = _columns(column.table, names)
        select = f"SELECT {', '.join(names)} FROM {column.table.name} WHERE namespace"  # noqa: S608 - our own names
        among = f"{select} = %b AND {column.name} = ANY (%b::text[])"
        return cls(
            f"{select} = ? AND {column.name} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
            among,
            f"{among} ORDER BY {names[0]} FOR UPDATE",
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
    def update(cls, table: Table, names: Sequence[str], key: str) -> Self:
        """Return the statement that updates rows by their key."""
        columns = _columns(table, names)
        changed = ", ".join(f"{name} = new.{name}" for name in columns if name != key)
        update = f"UPDATE {table.name} SET {changed} FROM"  # noqa: S608 - our own names
        where = f"WHERE {table.name}.namespace = new.namespace AND {table.name}.{key} = new.{key}"
        given = f"unnest({_arrays(table, names)}) AS given ({', '.join(columns)})"
        return cls(
            f"{update} (SELECT ? AS namespace, {_elements(columns)} FROM json_each(?)) AS new "  # noqa: S608 - ours
            f"{where}",
            f"{update} (SELECT %b::text AS namespace, given.* FROM {given}) AS new {where}",  # noqa: S608 - ours
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
