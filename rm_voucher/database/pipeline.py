"""Statements that are sent to PostgreSQL without waiting for the answers of those before.

Needs the extra ``postgres``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from rm_voucher.database.driven import driver_errors
from rm_voucher.extras import extra

with extra("postgres", __name__):
    import psycopg


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Let the statements of a `Driven`, and the commit, wait for no answer but those asked for.

    SQLAlchemy's own statements give no rows in it.
    """
    driven: Any = connection.connection.driver_connection
    with driver_errors(connection), driven.pipeline():
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
