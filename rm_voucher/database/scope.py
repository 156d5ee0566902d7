"""The rows of one namespace: every statement on a table that has namespaces is made here.

A namespace is one merchant's part of a database that several share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Text,
    Update,
    delete,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError

_MAX_LENGTH = 200


def check_namespace(namespace: str | None, *, is_shared: bool = False) -> str:
    """Return a namespace, the one without a name by default.

    In a database that ``is_shared`` among merchants, it must be given. Raises `ConfigurationError`.
    """
    check_type("namespace", namespace, str, optional=True)
    if namespace is None and is_shared:
        raise ConfigurationError(
            "Several share this database: give each its namespace, such as client.account."
        )
    namespace = namespace or ""
    if not (namespace.isprintable() and len(namespace) <= _MAX_LENGTH):
        raise ConfigurationError(
            f"A namespace is text of {_MAX_LENGTH} printable characters at most, such as "
            "client.account."
        )
    return namespace


def namespace_column(*, primary_key: bool = False) -> Column[str]:
    """Return the first column of a table with namespaces.

    Rows from before there were any are in the one without a name.
    """
    return Column("namespace", Text, primary_key=primary_key, nullable=False, server_default="")


@attrs.frozen
class Scope:
    """Makes statements that see and change the rows of one namespace, and no others.

    With None it is the whole database: for what is about its file, and not about anybody's rows.
    """

    namespace: str | None

    def of(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row of the table is in the namespace."""
        if self.namespace is None or "namespace" not in table.c:
            return true()
        return table.c.namespace == self.namespace

    def select(self, table: Table, *columns: ColumnElement[Any]) -> Select[Any]:
        """Return a query of rows; without columns, of all but the namespace."""
        wanted = columns or tuple(column for column in table.c if column.name != "namespace")
        return select(*wanted).select_from(table).where(self.of(table))

    def update(self, table: Table) -> Update:
        """Return a change of rows."""
        return update(table).where(self.of(table))

    def delete(self, table: Table) -> Delete:
        """Return a deletion of rows."""
        return delete(table).where(self.of(table))

    def insert_or_ignore(self, table: Table, dialect: str) -> Insert:
        """Return an insertion of rows, in which those that exist already stay as they are."""
        insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
        return insert(table).values(namespace=self.namespace).on_conflict_do_nothing()


def each_by_key(
    found: Select[Any], column: Column[str], keys: Sequence[str], dialect: str
) -> Select[Any]:
    """Return a query of those rows of another that have one of the keys in a column.

    PostgreSQL looks each key up by itself. Else a namespace that is new, or that its statistics
    don't know yet, would pass for a small one, and all of its rows would be read each time.
    """
    if dialect == "sqlite":
        return found.where(column.in_(keys))
    given = (
        func.unnest(literal(keys, postgresql.ARRAY(Text)))
        .table_valued("key")
        .render_derived("given")
    )
    # With OFFSET it stays a query of its own.
    each = found.where(column == given.c.key).offset(0).lateral("each")
    return select(*each.c).select_from(given.join(each, true()))
