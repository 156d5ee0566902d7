"""All tables that this library may have in a database of yours, for those who make tables.

Whatever opens a database makes its own tables, or brings them up to date. This module is for a
database in which others look at tables too, as Alembic does, or in which an application may make
none. Needs the extra ``sql`` or ``postgres``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rm_voucher.database import database
from rm_voucher.database.database import Schema
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra
from rm_voucher.ledger.sql.schema import SCHEMA as LEDGER
from rm_voucher.shared.sql import SCHEMA as SHARED
from rm_voucher.webhooks.sql.schema import SCHEMA as CALLBACKS
from rm_voucher.worker.outbox import SCHEMA as OUTBOX

with extra("sql", __name__):
    from sqlalchemy import MetaData, Table
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

__all__ = ["ddl", "metadata"]

_SCHEMAS: tuple[Schema, ...] = (LEDGER, CALLBACKS, SHARED, OUTBOX)
_DIALECTS = {"postgresql": postgresql.dialect, "sqlite": sqlite.dialect}


def _tables() -> Iterator[Table]:
    yield from database.versions.metadata.tables.values()
    for schema in _SCHEMAS:
        yield from schema.tables.tables.values()


def metadata() -> MetaData:
    """Return a copy of all tables: of the ledger, callbacks, what processes share, the outbox.

    ``metadata().tables`` has their names, each of which begins with ``rm_``: what Alembic is to
    leave alone. The tables say neither that they are there nor which version they have; `ddl` does.
    """
    found = MetaData()
    for table in _tables():
        table.to_metadata(found)
    return found


def ddl(dialect: Literal["postgresql", "sqlite"]) -> str:
    """Return the SQL that makes all tables in a database that has none of them.

    It is for the owner of a database in which the application may make no tables: what opens it
    then finds them. Each statement ends with a semicolon and a line. Raises `ConfigurationError`
    for another dialect.
    """
    if dialect not in _DIALECTS:
        raise ConfigurationError("dialect is postgresql or sqlite.")
    compiled_for = _DIALECTS[dialect]()
    statements = []
    for table in sorted(_tables(), key=lambda table: table.name):
        statements.append(str(CreateTable(table).compile(dialect=compiled_for)).strip())
        statements += [
            str(CreateIndex(index).compile(dialect=compiled_for))
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        ]
    statements += [
        f"INSERT INTO {database.versions.name} (component, version) "  # noqa: S608 - our own names
        f"VALUES ('{schema.component}', {schema.version})"
        for schema in _SCHEMAS
    ]
    return "".join(f"{statement};\n" for statement in statements)
