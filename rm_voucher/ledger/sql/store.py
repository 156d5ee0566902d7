"""A ledger's store in SQL: an SQLite file for one process, or PostgreSQL for several."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Row, literal_column

from rm_voucher.database import accounts
from rm_voucher.database.connections import SqlDatabase
from rm_voucher.database.database import PATIENCE_S, Database
from rm_voucher.database.engine import database_file
from rm_voucher.database.group_commit import GroupCommit
from rm_voucher.database.scope import Scope, check_namespace
from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.records import Code
from rm_voucher.ledger.rules.transitions import SHARING
from rm_voucher.ledger.rules.unit_of_work import NeedsExclusiveError
from rm_voucher.ledger.sql.guard import FileGuard, Noted, look
from rm_voucher.ledger.sql.schema import SCHEMA, batches, leases, meta
from rm_voucher.ledger.sql.unit_of_work import NOW, SqlUnitOfWork, owner_lease
from rm_voucher.ledger.store import LedgerStore, Reading, Transition, sound_rows
from rm_voucher.runtime import Runtime

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_Operation = tuple[Transition[Any, Any], Any]
_Kinds = dict[Transition[Any, Any], list[int]]

_FILE = Scope(None)
_COUNT_COMMITS = f"UPDATE {meta.name} SET commits = ?"  # noqa: S608 - our own name
_TAKE_LEASE = (
    f"INSERT INTO {leases.name} (namespace, name, holder, until) "  # noqa: S608 - our own names
    f"VALUES (%s, %s, %s, {NOW} + %s) ON CONFLICT (namespace, name) "
    "DO UPDATE SET holder = excluded.holder, until = excluded.until "
    f"WHERE {leases.name}.holder = excluded.holder OR {leases.name}.until < {NOW} RETURNING name"
)
_LIFE_S = 15.0  # a process that is gone, or stands still, is waited for so long
_NOBODYS = (
    "the database has a ledger from before namespaces, and whose it is is not known yet. Use it "
    "once with its own client and without a namespace, or what it issued would be issued again"
)
_RESTORED = (
    "the ledger's file is an older copy of itself, or another file than the one that its .lock was "
    "written for, so it does not know all that was issued: find out who got a code since, then "
    "read a new baseline"
)


class SqlLedgerStore(LedgerStore):
    """Keeps a ledger in a database. ``read_only`` changes nothing; another process may write."""

    def __init__(
        self,
        database: str | SqlDatabase,
        *,
        namespace: str | None = None,
        read_only: bool = False,
        patience_s: float = PATIENCE_S,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__()
        runtime = runtime or Runtime()
        self.read_only = read_only
        self._database = Database(
            database,
            SCHEMA,
            error=LedgerError,
            patience_s=patience_s,
            runtime=runtime,
        )
        self._namespace = check_namespace(namespace, is_shared=self._database.is_shared)
        self._scope = Scope(self._namespace)
        connections = self._database.connections
        self._file = database_file(connections.url)
        self._guard: FileGuard | None = None
        if self._database.is_sqlite:
            self._guard = connections.companion(FileGuard, self._make_guard)
        self._writer: GroupCommit[_Operation, Any] | None = None
        self._life: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See `LedgerStore.open`."""
        try:
            if self.read_only:
                await self._open_read_only()
            else:
                await self._open_to_write()
        except BaseException:
            await self._database.close()
            raise
        self._is_open = True

    def hurry(self) -> None:
        """See `LedgerStore.hurry`."""
        self._database.hurry()

    async def close(self) -> None:
        """See `LedgerStore.close`."""
        self._is_open = False
        writer, self._writer = self._writer, None  # nothing new meanwhile
        life, self._life = self._life, None
        try:
            if writer is not None:
                await writer.close()
            if life is not None:
                life.cancel()
                await asyncio.wait([life])
                with contextlib.suppress(LedgerError):  # it runs out
                    await self.end_lease(owner_lease(self.owner))
        finally:
            await self._database.close()

    async def take_lease(self, name: str, lasts_s: float) -> bool:
        """See `LedgerStore.take_lease`."""
        if self._database.is_sqlite:
            return True
        values = (self._scope.namespace, name, self.owner, lasts_s)
        return await self._database.write(
            lambda connection: connection.exec_driver_sql(_TAKE_LEASE, values).first() is not None
        )

    async def end_lease(self, name: str) -> None:
        """See `LedgerStore.end_lease`."""
        ours = (leases.c.name == name) & (leases.c.holder == self.owner)
        ended = self._scope.delete(leases).where(ours)
        if not self._database.is_sqlite:
            await self._database.write(lambda connection: connection.execute(ended))

    async def commit(self, transition: Transition[I, R], item: I) -> R:
        """See `LedgerStore.commit`."""
        return cast("R", await self._opened_to_write().run((transition, item)))

    async def read(self, reading: Reading[R]) -> R:
        """See `LedgerStore.read`."""
        self.check_open()  # or a file would be made, and no table found in it

        def work(connection: Connection) -> R:
            with sound_rows():
                return reading(SqlUnitOfWork(connection, self._scope))

        return await self._database.read(work)

    async def doubt(self) -> str | None:
        """See `LedgerStore.doubt`."""
        if not self.read_only or self._guard is None:
            return None
        for _ in range(2):  # a number that is being written just then may be read torn
            # The file is committed to before that is noted, so this is the order to look in.
            noted = look(self._file) or Noted(None, None, is_of_these_files=True)
            row = await self._database.read(lambda c: c.execute(_FILE.select(meta)).first())
            if row is None or _is_the_noted(row, noted):
                return None
        return _RESTORED

    async def account(self) -> str | None:
        """See `LedgerStore.account`."""
        self.check_open()
        namespace = self._namespace
        return await self._database.read(lambda c: accounts.account_of(c, namespace))

    async def claim(self, account: str, *, rebind: bool = False) -> None:
        """See `LedgerStore.claim`."""
        self._opened_to_write()
        namespace = self._namespace

        def work(connection: Connection) -> str | None:
            if namespace and not rebind and _has_nobodys_ledger(connection):
                return _NOBODYS
            return accounts.claim(connection, namespace, account, rebind=rebind)

        refusal = await self._database.write(work)
        if refusal is not None:
            raise LedgerError(
                f"This ledger (namespace {namespace!r}) can't be used: {refusal}.", is_final=True
            )

    async def namespaces(self) -> dict[str, str]:
        """See `LedgerStore.namespaces`."""
        self.check_open()
        return await self._database.read(accounts.namespaces)

    def _opened_to_write(self) -> GroupCommit[_Operation, Any]:
        self.check_open()
        if self._writer is None:
            raise LedgerError("The ledger is not open for writing.", is_final=True)
        return self._writer

    async def _open_to_write(self) -> None:
        guard = self._guard
        if guard is None:
            await self._database.open()
            over = self._scope.delete(leases).where(leases.c.until < literal_column(NOW))
            await self._database.write(lambda connection: connection.execute(over))
            await self.take_lease(owner_lease(self.owner), _LIFE_S)
            self._life = asyncio.create_task(self._show_life(), name="rm-voucher lease")
        else:
            async with guard.opening:
                await self._open_file(guard)
        self._writer = GroupCommit(self._commit_all)

    async def _open_read_only(self) -> None:
        if self._guard is not None and not self._file.exists():
            raise LedgerError(f"There is no file {self._file}.")
        await self._database.open_read_only()

    async def _open_file(self, guard: FileGuard) -> None:
        if guard.is_held:  # by another ledger of the database
            await self._database.open()
            return
        noted = guard.acquire()
        try:
            await self._database.open()
            commits, ledger_id = await self._database.write(lambda c: _check_age(c, noted))
            await self._database.move_log()  # or the file alone would pass for a new one
            guard.bind(commits, ledger_id)
        except BaseException:
            if self._database.is_shared:  # else it is let go when the connections are closed
                guard.release()
            raise

    def _make_guard(self) -> FileGuard:
        guard = FileGuard(self._file)
        self._database.connections.call_on_close(guard.release)
        return guard

    async def _commit_all(self, operations: Sequence[_Operation]) -> Sequence[Any]:
        """Run operations in one transaction, those of one kind together."""
        kinds: _Kinds = {}
        for number, (transition, _) in enumerate(operations):
            kinds.setdefault(transition, []).append(number)
        if self._database.is_sqlite or not kinds.keys() <= SHARING:
            return await self._transact(operations, kinds)
        try:
            return await self._transact(operations, kinds, is_shared=True)
        except NeedsExclusiveError:
            return await self._transact(operations, kinds)

    async def _transact(
        self, operations: Sequence[_Operation], kinds: _Kinds, *, is_shared: bool = False
    ) -> Sequence[Any]:
        guard = self._guard

        def work(connection: Connection) -> tuple[list[Any], list[Code], int]:
            results: list[Any] = [None] * len(operations)
            with sound_rows():
                unit = self._unit(connection, operations, is_shared=is_shared)
                for transition, numbers in kinds.items():
                    answers = transition(unit, [operations[number][1] for number in numbers])
                    for number, answer in zip(numbers, answers, strict=True):
                        results[number] = answer
                unit.flush()
            commits = 0 if guard is None else guard.next_commit()
            if guard is not None:
                connection.exec_driver_sql(_COUNT_COMMITS, (commits,))
            return results, unit.assigned, commits

        results, assigned, commits = await self._database.write(work, is_pipelined=is_shared)
        if guard is not None:
            guard.note(commits)
        self.notify(assigned)
        return results

    def _unit(
        self, connection: Connection, operations: Sequence[_Operation], *, is_shared: bool
    ) -> SqlUnitOfWork:
        if is_shared:
            from rm_voucher.ledger.sql.shared import SharedUnitOfWork  # an extra of its own

            return SharedUnitOfWork(connection, self._scope, (item for _, item in operations))
        unit = SqlUnitOfWork(connection, self._scope, writes=True)
        # First, and in one order: otherwise two processes could wait for each other, or decide by
        # rows that were read before the lock.
        unit.batches(item.batch for _, item in operations)
        return unit

    async def _show_life(self) -> None:
        """Renew the lease by which others know that this process lives, for as long as it does."""
        while True:
            await asyncio.sleep(_LIFE_S / 3)
            with contextlib.suppress(LedgerError):  # others take over, and `check` finds it out
                await self.take_lease(owner_lease(self.owner), _LIFE_S)


def _has_nobodys_ledger(connection: Connection) -> bool:
    """Return whether a ledger from before namespaces has issued here, for nobody knows whom."""
    if accounts.account_of(connection, "") is not None:
        return False
    begun = Scope("").select(batches, batches.c.key).where(batches.c.baseline_at.is_not(None))
    return connection.execute(begun.limit(1)).first() is not None


def _check_age(connection: Connection, noted: Noted) -> tuple[int, str]:
    """Return how many commits the file has, and its id; stop it if it is not the noted one.

    Then nothing is issued from any batch, known or not, until its next baseline.
    """
    row = connection.execute(_FILE.select(meta)).first()
    if row is None:
        connection.execute(meta.insert(), {"commits": 0})
    commits, found_id = (0, noted.id) if row is None else (row.commits, row.id)
    if not _is_the_noted(row, noted):
        connection.execute(_FILE.update(meta).values(stop_reason=_RESTORED))
        going = _FILE.update(batches).where(batches.c.stop_reason.is_(None))
        connection.execute(going.values(stop_reason=_RESTORED))
        found_id = None  # it and the other are two from now on
    new_id = found_id or secrets.token_hex(16)
    connection.execute(_FILE.update(meta).values(id=new_id))
    return max(commits, noted.commits or 0), new_id


def _is_the_noted(row: Row[Any] | None, noted: Noted) -> bool:
    """Return whether a ledger's file, with that row about itself, is what its lock's file says."""
    commits, found_id = (0, noted.id) if row is None else (row.commits, row.id)
    is_the_same = noted.is_of_these_files and found_id == noted.id
    is_whole = noted.commits is None if row is None else commits >= (noted.commits or 0)
    is_counted = noted.commits is not None or not commits
    return is_the_same and is_whole and is_counted
