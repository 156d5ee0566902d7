"""The statements of each transaction, as text: what SQLAlchemy makes of its own costs too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Self

import attrs
from sqlalchemy import Column, Double, Table


@attrs.frozen
class Lookup:
    """Reads rows by the values of a column. It takes a JSON array in SQLite, else an array.

    ``postgresql_locking`` locks them too, in one order for all. SQLite locks as a whole.
    """

    sqlite: str
    postgresql: str
    postgresql_locking: str

    @classmethod
    def by(cls, column: Column[Any], names: Sequence[str]) -> Self:
        """Return what reads these columns of the rows that have one of the values."""
        select = f"SELECT {', '.join(names)} FROM {column.table.name} WHERE {column.name}"  # noqa: S608 - our own names
        among = f"{select} = ANY (%b::text[])"
        return cls(
            f"{select} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
            among,
            f"{among} ORDER BY {names[0]} FOR UPDATE",
        )


@attrs.frozen
class Statement:
    """Writes many rows, in one step of the database.

    A thread that comes back for each row waits for the interpreter each time.

    Attributes:
        sqlite: takes a JSON array of arrays, one for each row.
        postgresql: takes an array for each column, in binary, which psycopg makes in a third of
            the time.
        values_of: returns a row's values in the order of both.
    """

    sqlite: str
    postgresql: str
    values_of: Callable[[Any], tuple[Any, ...]]

    @classmethod
    def insert(cls, table: Table, names: Sequence[str], *, or_ignore: bool = False) -> Self:
        """Return what inserts rows; ``or_ignore`` those that are there already."""
        into = f"INSERT INTO {table.name} ({', '.join(names)})"
        end = " ON CONFLICT DO NOTHING" if or_ignore else ""
        return cls(
            # Without WHERE, SQLite would read ON CONFLICT as a join's.
            f"{into} SELECT {_elements(names)} FROM json_each(?) WHERE true{end}",  # noqa: S608 - ours
            f"{into} SELECT * FROM unnest({_arrays(table, names)}){end}",  # noqa: S608 - ours
            _getter(names),
        )

    @classmethod
    def update(cls, table: Table, names: Sequence[str], key: str) -> Self:
        """Return what updates rows by their key."""
        changed = ", ".join(f"{name} = new.{name}" for name in names if name != key)
        update = f"UPDATE {table.name} SET {changed} FROM"  # noqa: S608 - our own names
        where = f"WHERE {table.name}.{key} = new.{key}"
        columns = ", ".join(names)
        return cls(
            f"{update} (SELECT {_elements(names)} FROM json_each(?)) AS new {where}",  # noqa: S608 - ours
            f"{update} unnest({_arrays(table, names)}) AS new ({columns}) {where}",
            _getter(names),
        )


def _elements(names: Sequence[str]) -> str:
    return ", ".join(
        f"json_extract(value, '$[{number}]') AS {name}" for number, name in enumerate(names)
    )


def _arrays(table: Table, names: Sequence[str]) -> str:
    return ", ".join(
        f"%b::{'float8' if isinstance(table.c[name].type, Double) else 'text'}[]" for name in names
    )


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    get = attrgetter(*names)
    return lambda row: (get(row),)
