"""Statements that are text, for the driver itself: SQLAlchemy's way there takes longer than they.

Its transactions, its connections and its errors are used all the same. Who listens to its
statements does not hear of these: they have no context of SQLAlchemy's, in which Sentry and
OpenTelemetry keep their spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


class Driven:
    """Sends statements to the driver of a connection, in the transaction that has begun on it.

    In one that is `pipeline.pipelined`, an error comes with the rows that are asked for next, or
    with the commit. Each is SQLAlchemy's, without the statement.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._driven: Any = connection.connection.driver_connection

    def send(self, statement: str, values: Sequence[Any]) -> Any:
        """Send a statement; return what `rows` takes."""
        with driver_errors(self.connection):
            return self._driven.execute(statement, values)

    def rows(self, sent: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement. Those that were sent together come together."""
        with driver_errors(self.connection):
            found: list[tuple[Any, ...]] = sent.fetchall()
            return found


@contextmanager
def driver_errors(connection: Connection) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does."""
    dialect: Any = connection.dialect
    base = dialect.loaded_dbapi.Error
    driven = connection.connection.driver_connection
    try:
        yield
    except base as exc:
        error = exc
    else:
        return
    is_lost = dialect.is_disconnect(error, driven, None)  # it has no SQLSTATE then
    # Outside of the handler: the driver's error may have a code in it, and is no context.
    raise DBAPIError.instance(
        "", None, error, base, connection_invalidated=is_lost, dialect=dialect
    )
