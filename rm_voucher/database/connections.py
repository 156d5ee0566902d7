"""The connections to one SQL database, and the threads that use them.

One connection alone writes, another reads, and each transaction that a coroutine makes has one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine

from rm_voucher.arguments import check_type
from rm_voucher.database.bound import Bound
from rm_voucher.database.engine import is_sqlite, make_engine, parse_url
from rm_voucher.database.transaction import Transaction, discard

C = TypeVar("C")

HURRIED_S = 4.0
"""So long trouble is waited for when a database is to be closed."""
_CLOSING_S = 10.0
# The writer's transactions wait for nobody but the server. One whose process stands still in the
# middle is ended by the server, which lets go of its locks: others wait for them.
_IDLE_S = 5.0
_TRANSACTIONS = 8  # at once, in PostgreSQL; SQLite has one writer


class SqlDatabase:
    """A database that the ledgers and stores of callbacks of several merchants share.

    They have its connections and threads together: some ten connections at most, however many
    merchants there are. Give it to `Ledger.open` and `open_event_store` in place of a URL, with a
    namespace for each merchant; see there for the URL. Use it as an async context manager, around
    them all. It belongs to the process that first uses it. Needs the extra ``sql`` or ``postgres``.
    Raises `ConfigurationError`.
    """

    def __init__(self, url: str | URL) -> None:
        check_type("url", url, str, URL)
        self.url: URL = parse_url(url)
        self.is_sqlite: bool = is_sqlite(self.url)
        self.writing: ThreadPoolExecutor = ThreadPoolExecutor(1, "rm-voucher writer")
        self.reader: ThreadPoolExecutor = ThreadPoolExecutor(1, "rm-voucher reader")
        self._bound = Bound()
        self.engine: Engine = make_engine(self.url, self._bound)
        self.reading: Engine = self.engine
        self.committing: Engine = self.engine
        if not self.is_sqlite:  # by default, each statement would see a state of its own
            self.committing = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            self.reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self.transaction_lock: asyncio.Lock = asyncio.Lock()  # for SQLite, which has one writer
        self.free: asyncio.LifoQueue[ThreadPoolExecutor] = asyncio.LifoQueue()
        self.transacting: list[ThreadPoolExecutor] = [
            ThreadPoolExecutor(1, "rm-voucher transaction")
            for _ in range(1 if self.is_sqlite else _TRANSACTIONS)
        ]
        for thread in self.transacting:
            self.free.put_nowait(thread)
        self.transactions: set[Transaction] = set()
        self.writer: Connection | None = None
        self.opening: asyncio.Lock = asyncio.Lock()
        """Held by who opens it for a component: what the first one does, the others find done."""
        self.ready: set[str] = set()
        """The components whose tables are up to date."""
        self._companions: dict[type[Any], Any] = {}
        self._on_close: list[Callable[[], None]] = []
        self.closing: asyncio.Future[None] | None = None

    @classmethod
    def of(cls, database: str | URL | SqlDatabase) -> SqlDatabase:
        """Return the database at a URL, if it is not one already."""
        check_type("database", database, str, URL, SqlDatabase)
        return database if isinstance(database, SqlDatabase) else cls(database)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for the work that runs, and close all connections. It may be called again.

        A server that does not answer is given up after ten seconds. Cancelling this does not stop
        it: it goes on in its thread.
        """
        if self.closing is None:
            self.hurry()
            self._bound.at = time.monotonic() + _CLOSING_S
            self.closing = asyncio.get_running_loop().run_in_executor(None, self._shut)
        await asyncio.shield(self.closing)

    def share_sessions(self) -> None:
        """Leave nothing in sessions any more: a pooler gives them to others."""
        if not self._bound.shares_sessions:
            self._bound.shares_sessions = True
            self.drop_writer()
            self.engine.dispose()

    def hurry(self) -> None:
        """Give up a silent connection soon, so that another may do the work: it is to be closed."""
        self._bound.silence_s = HURRIED_S

    def companion(self, kind: type[C], make: Callable[[], C]) -> C:
        """Return the one object of a kind that lives as long as this, made at the first call."""
        made: C = self._companions.setdefault(kind, None) or make()
        self._companions[kind] = made
        return made

    def call_on_close(self, function: Callable[[], None]) -> None:
        """Run a function in another thread, when all connections are closed."""
        self._on_close.append(function)

    def connect_writer(self) -> Connection:
        """Return the connection that writes, in its thread."""
        if self.writer is None:
            writer = self.engine.execution_options(writes=True, idle_s=_IDLE_S).connect()
            try:
                # Of one whose connection was given up, locks are let go.
                if not (self.is_sqlite or self._bound.shares_sessions):
                    setting = f"idle_in_transaction_session_timeout = {_IDLE_S * 1000:.0f}"
                    with writer.begin():
                        writer.exec_driver_sql(f"SET {setting}")
            except BaseException:
                discard(writer)
                raise
            self.writer = writer
        return self.writer

    def drop_writer(self) -> None:
        """Give up the connection that writes, and its session with it, in its thread."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            discard(writer)

    def _shut(self) -> None:
        for thread in (self.writing, self.reader, *self.transacting):
            thread.shutdown()
        self.drop_writer()
        for transaction in list(self.transactions):
            transaction.roll_back()
        self.engine.dispose()
        for function in self._on_close:
            function()
