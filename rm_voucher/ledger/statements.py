"""The statements that write rows, as text: for hundreds of rows SQLAlchemy's own cost too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Self

import attrs
from sqlalchemy import Double, Table

__all__ = ["Statement"]


@attrs.frozen
class Statement:
    """Writes many rows.

    Attributes:
        sqlite: for one row; it is run for each, by the driver.
        postgresql: for all rows at once; it takes an array for each column, in binary, which
            psycopg makes in a third of the time.
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
            f"{into} VALUES ({', '.join('?' * len(names))}){end}",
            f"{into} SELECT * FROM unnest({_arrays(table, names)}){end}",  # noqa: S608 - our names
            _getter(names),
        )

    @classmethod
    def update(cls, table: Table, names: Sequence[str], key: str) -> Self:
        """Return what updates rows by their key."""
        changed = [name for name in names if name != key]
        # The key is last, as in the statement for SQLite.
        in_order = [*changed, key]
        plain = ", ".join(f"{name} = ?" for name in changed)
        joined = ", ".join(f"{name} = new.{name}" for name in changed)
        rows = f"unnest({_arrays(table, in_order)}) AS new ({', '.join(in_order)})"
        return cls(
            f"UPDATE {table.name} SET {plain} WHERE {key} = ?",  # noqa: S608 - our own names
            f"UPDATE {table.name} SET {joined} FROM {rows} "  # noqa: S608 - our own names
            f"WHERE {table.name}.{key} = new.{key}",
            _getter(in_order),
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
