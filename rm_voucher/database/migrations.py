"""A table from before there were namespaces is given one, which becomes part of its keys."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from sqlalchemy import Connection


@attrs.frozen(kw_only=True)
class KeysWithNamespace:
    """Turns a table without a namespace into one with it, and keeps all rows.

    Attributes:
        name: the table.
        columns: its columns, as SQLite defines them; without keys.
        primary_key: its column that was the primary key.
        is_row_number: whether that column stays so, because it only numbers rows.
        unique: its column with a constraint of its own.
        check: its other constraint, as SQLite defines it.
        indexes: the indexes that it has from now on, each with what stands behind ``ON``.
        dropped: the indexes that it had under other names.
    """

    name: str
    columns: str
    primary_key: str
    is_row_number: bool = False
    unique: str | None = None
    check: str | None = None
    has_row_ids: bool = False
    indexes: Mapping[str, str] = {}
    dropped: tuple[str, ...] = ()

    def __call__(self, connection: Connection) -> None:
        """Change the table, in the transaction of the connection."""
        execute = connection.exec_driver_sql
        for index in (*self.indexes, *self.dropped):
            execute(f"DROP INDEX IF EXISTS {index}")
        steps = self._sqlite() if connection.dialect.name == "sqlite" else self._postgresql()
        for step in steps:
            execute(step)
        for index, columns in self.indexes.items():
            execute(f"CREATE INDEX {index} ON {self.name} {columns}")

    @property
    def _key(self) -> str:
        return self.primary_key if self.is_row_number else f"namespace, {self.primary_key}"

    def _sqlite(self) -> list[str]:
        """Return the statements that build it anew: SQLite can't change a key."""
        names = ", ".join(column.split()[0] for column in self.columns.split(","))
        keys = [f"PRIMARY KEY ({self._key})"]
        if self.check is not None:
            keys.append(self.check)
        if self.unique is not None:
            keys.append(f"UNIQUE (namespace, {self.unique})")
        definition = ", ".join(("namespace TEXT DEFAULT '' NOT NULL", self.columns, *keys))
        end = "" if self.has_row_ids else " WITHOUT ROWID"
        return [
            f"CREATE TABLE {self.name}_new ({definition}){end}",
            f"INSERT INTO {self.name}_new ({names}) SELECT {names} FROM {self.name}",  # noqa: S608 - our own names
            f"DROP TABLE {self.name}",
            f"ALTER TABLE {self.name}_new RENAME TO {self.name}",
        ]

    def _postgresql(self) -> list[str]:
        changes = ["ADD COLUMN namespace TEXT DEFAULT '' NOT NULL"]
        if not self.is_row_number:
            changes.append(f"DROP CONSTRAINT {self.name}_pkey")
            changes.append(f"ADD PRIMARY KEY ({self._key})")
        if self.unique is not None:
            changes.append(f"DROP CONSTRAINT {self.name}_{self.unique}_key")
            changes.append(f"ADD UNIQUE (namespace, {self.unique})")
        return [f"ALTER TABLE {self.name} {', '.join(changes)}"]
