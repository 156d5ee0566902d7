"""A transaction that a coroutine makes step by step."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, RootTransaction, Row
from sqlalchemy.exc import SQLAlchemyError

from rm_voucher.database.engine import has_begun
from rm_voucher.database.troubles import must_invalidate, safe_message
from rm_voucher.exceptions import VoucherError

T = TypeVar("T")


class Transaction:
    """A transaction that a coroutine makes step by step; each step runs in another thread.

    Do one step after the other. Whoever gave it commits it, and nobody else.
    """

    def __init__(
        self, engine: Engine, thread: ThreadPoolExecutor, error: type[VoucherError]
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._error = error
        self._connection: Connection | None = None
        self._root: RootTransaction | None = None
        self._has_begun = False

    async def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Sequence[Row[Any]]:
        """Execute a statement of SQLAlchemy's, and return the rows that it returns, if any.

        Raises SQLAlchemy's errors.
        """

        def work(connection: Connection) -> Sequence[Row[Any]]:
            result = connection.execute(statement, parameters)
            return result.all() if result.returns_rows else ()

        return await self.run(work)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` with the connection, in the thread. It must neither commit nor roll back."""
        return await self._in_thread(lambda: work(self._open_connection()))

    def begin(self, first: Callable[[Connection], T]) -> T:
        """Connect and run the first step, in the thread. After an error nothing is left open."""
        self._connection = self._engine.execution_options(writes=True).connect()
        try:
            self._root = self._connection.begin()
            return first(self._connection)
        except BaseException as exc:
            self.roll_back(invalidate=must_invalidate(exc))
            raise

    async def commit(self, last: Callable[[Connection], None]) -> None:
        """Run the last step, and commit. If the connection is lost, it may be committed or not."""
        try:
            await self._in_thread(lambda: self._commit(last))
        except (SQLAlchemyError, OSError) as exc:
            error = self._error(safe_message(exc))
        else:
            return
        raise error

    def roll_back(self, *, invalidate: bool = False) -> None:
        """Roll back, in the thread, if the transaction has not ended."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if invalidate:
            discard(connection)
            return
        try:
            connection.close()
        except (SQLAlchemyError, OSError):
            discard(connection)

    def _commit(self, last: Callable[[Connection], None]) -> None:
        connection = self._open_connection()
        last(connection)
        connection.commit()
        self._connection = None
        connection.close()

    def _open_connection(self) -> Connection:
        connection, root = self._connection, self._root
        if connection is not None and root is not None and root.is_active:
            # One that had begun and is in progress no more was ended in SQL, unseen by SQLAlchemy.
            had_begun, self._has_begun = self._has_begun, has_begun(connection)
            if self._has_begun or not had_begun:
                return connection
        raise self._error(
            "The transaction has ended: its user neither commits nor rolls back.", is_final=True
        )

    async def _in_thread(self, step: Callable[[], T]) -> T:
        try:
            # With the context of the caller, as `asyncio.to_thread` does.
            run = contextvars.copy_context().run
            running = asyncio.get_running_loop().run_in_executor(self._thread, run, step)
        except RuntimeError:  # it is shut down
            raise self._error("The database is closed.", is_final=True) from None
        return await running


def discard(connection: Connection) -> None:
    """Close a connection, and its session with it."""
    with contextlib.suppress(SQLAlchemyError, OSError):  # it is gone anyway
        connection.invalidate()
        connection.close()
