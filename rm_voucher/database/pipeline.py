"""Statements that are sent to PostgreSQL without waiting for the answers of those before.

Needs the extra ``postgres``. SQLAlchemy waits for each answer, so these go to the driver itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from rm_voucher.extras import extra

with extra("postgres", __name__):
    import psycopg


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Let the statements of a `Pipeline`, and the commit, wait for no answer but those asked for.

    SQLAlchemy's own statements give no rows in it.
    """
    driven: Any = connection.connection.driver_connection
    with _errors(connection), driven.pipeline():
        try:
            yield
        except DBAPIError as exc:
            _end(driven)
            raise _first(exc) from None
        except BaseException:
            _end(driven)
            raise


def _end(driven: Any) -> None:
    """Take back what was sent.

    PostgreSQL skips a commit behind an error. What else has failed is of no interest, and psycopg
    would log it, codes and all, at the end of its pipeline.
    """
    for _ in range(2):
        with contextlib.suppress(psycopg.Error):
            driven.rollback()


def _first(error: DBAPIError) -> DBAPIError:
    """Return the error that aborted a pipeline, where this one says that alone.

    SQLAlchemy rolls back after a commit that failed, and raises what that met.
    """
    found: BaseException | None = error
    while isinstance(getattr(found, "orig", found), psycopg.errors.PipelineAborted):
        found = found and found.__context__
    return found if isinstance(found, DBAPIError) else error


class Pipeline:
    """Sends statements in a transaction that is `pipelined`.

    An error comes with the rows that are asked for next, or with the commit, as SQLAlchemy's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._driven: Any = connection.connection.driver_connection

    def send(self, statement: str, values: Sequence[Any]) -> Any:
        """Send a statement; return what `rows` takes."""
        connection = self._connection
        with _errors(connection):
            cursor = self._driven.cursor()
            # Who listens to SQLAlchemy's statements hears of these, too.
            connection.dispatch.before_cursor_execute(
                connection, cursor, statement, values, context=None, executemany=False
            )
            cursor.execute(statement, values)
            return cursor

    def rows(self, sent: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement. Those that were sent together come together."""
        with _errors(self._connection):
            found: list[tuple[Any, ...]] = sent.fetchall()
            return found


@contextmanager
def _errors(connection: Connection) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does."""
    dialect: Any = connection.dialect
    driven = connection.connection.driver_connection
    try:
        yield
    except psycopg.Error as exc:
        error = exc
    else:
        return
    # Outside of the handler: the driver's error may have a code in it, and is no context.
    raise DBAPIError.instance(
        "",
        None,
        error,
        psycopg.Error,
        connection_invalidated=dialect.is_disconnect(
            error, driven, None
        ),  # it has no SQLSTATE then
        dialect=dialect,
    )
