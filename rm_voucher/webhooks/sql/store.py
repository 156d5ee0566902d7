"""A store in a database: an SQLite file or PostgreSQL, for one process or several.

Many deliveries are recorded in one commit. A voucher's row is locked while one of its events is
decided. In PostgreSQL nobody waits for the lock: a voucher whose row is locked is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any

import attrs
from sqlalchemy import Column, Connection, Select, bindparam, func

from rm_voucher.database import accounts
from rm_voucher.database.connections import SqlDatabase
from rm_voucher.database.database import Database, check_patience
from rm_voucher.database.group_commit import GroupCommit, UnavailableError
from rm_voucher.database.scope import Scope, check_namespace
from rm_voucher.database.transaction import Transaction
from rm_voucher.exceptions import EventStoreError
from rm_voucher.models import VoucherStatus
from rm_voucher.runtime import Runtime
from rm_voucher.shared.lease import Lease as SharedLease
from rm_voucher.shared.sql import SqlSharedStore
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.records import (
    DELIVERY_S,
    Disposition,
    EventCounts,
    EventState,
    Expectation,
    Finish,
    Lease,
    Record,
    decide,
    microseconds,
    review,
)
from rm_voucher.webhooks.sql.schema import SCHEMA, events, expected, vouchers
from rm_voucher.webhooks.sql.statements import IS_WAITING, Statements, row_of, run_many
from rm_voucher.webhooks.store import NOT_OPEN, OPEN_ALREADY, EventStore

_PATIENCE_S = 30.0
_PRUNED_AT_ONCE = 500

# The lease of a voucher that another process has locked, or has pruned a moment ago.
_HELD = Lease(owner="another", leased_until=math.inf)


class SqlEventStore(EventStore):
    """See `open_event_store`."""

    has_transactions = True

    def __init__(
        self,
        database: str | SqlDatabase,
        *,
        namespace: str | None = None,
        patience_s: float = 5.0,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(runtime=runtime)
        self.patience_s: float = check_patience(patience_s)
        self.database: Database = Database(
            database, SCHEMA, error=EventStoreError, runtime=self.runtime
        )
        self._namespace = check_namespace(namespace, is_shared=self.database.is_shared)
        self._scope = Scope(self._namespace)
        dialect = self.database.engine.dialect.name
        self._sql = Statements(self._scope, dialect)
        self._add_voucher, self._add_event, self._add_expected = (
            self._scope.insert_or_ignore(table, dialect) for table in (vouchers, events, expected)
        )
        self._shared = SqlSharedStore(self.database.connections, runtime=self.runtime)
        self._writer: GroupCommit[Record | Finish, Disposition] | None = None

    async def _open(self) -> None:
        if self._writer is not None:
            raise EventStoreError(OPEN_ALREADY, is_final=True)
        try:
            await self.database.open()
        except BaseException:
            await self.database.close()
            raise
        self._writer = GroupCommit(self._commit)

    async def aclose(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                await writer.close()
        finally:
            await self.database.close()

    async def _claim(self, account: str, *, rebind: bool) -> None:
        namespace = self._namespace
        refusal = await self._opened.write(
            lambda c: accounts.claim(c, namespace, account, rebind=rebind)
        )
        if refusal is not None:
            raise EventStoreError(
                f"The store of callbacks (namespace {namespace!r}) can't be used: {refusal}.",
                is_final=True,
            )

    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_stale: bool = False
    ) -> Disposition:
        now = self.runtime.clock()
        return await self._run(
            Record(event=event, at=now, lease_s=lease_s, takes_stale=takes_stale)
        )

    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        finish = Finish(event=event, at=self.runtime.clock(), state=state)
        deadline = self.runtime.monotonic() + _PATIENCE_S
        wait_s = 0.005
        while await self._run(finish) is Disposition.BUSY:  # in another process's transaction
            if self.runtime.monotonic() > deadline:
                raise EventStoreError("Another process holds the voucher for long.")
            await self.runtime.sleep(wait_s)
            wait_s = min(2 * wait_s, 1.0)

    @contextlib.asynccontextmanager
    async def transaction(
        self, event: VoucherEvent, *, takes_stale: bool = False
    ) -> AsyncIterator[tuple[Disposition, Transaction]]:
        record = Record(event=event, at=self.runtime.clock(), takes_stale=takes_stale)

        def first(connection: Connection) -> Disposition:
            leases = self._sql.lock_vouchers(connection, [event.code])
            states = self._sql.states_of(connection, [event.id])
            return self._decide(record, leases, states) if states else Disposition.BUSY

        def last(connection: Connection, found: Disposition) -> None:
            if found is Disposition.READY:
                now = self.runtime.clock()
                done = Finish(event=event, at=now, state=EventState.DONE)
                self._finish(connection, [done])

        async with self._opened.transaction(first, last) as (transaction, found):
            yield found, transaction

    async def due(self, limit: int) -> list[VoucherEvent]:
        is_due = IS_WAITING & (events.c.due_at <= self.runtime.clock())
        statement = self._scope.select(events, events.c.voucher).where(is_due)
        statement = statement.order_by(events.c.due_at).limit(limit)
        rows = await self._opened.read(lambda connection: connection.scalars(statement).all())
        return [VoucherEvent.from_record(row) for row in rows]

    async def expect(self, codes: Iterable[str]) -> None:
        now = self.runtime.clock()
        due_at = now + DELIVERY_S
        rows = [{"code": code, "since": now, "due_at": due_at} for code in sorted(set(codes))]
        await self._write_many(self._add_expected, rows)

    async def forget(self, codes: Iterable[str]) -> None:
        await self._write_many(
            self._sql.end_waiting, [{"key": code} for code in sorted(set(codes))]
        )

    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        now = self.runtime.clock()

        def work(connection: Connection) -> list[str]:
            found = self._scope.select(expected).where(expected.c.due_at <= now)
            found = found.order_by(expected.c.due_at).limit(limit)
            rows = connection.execute(found.with_for_update(skip_locked=True))
            due = [Expectation(**row) for row in rows.mappings()]
            came = defaultdict(list)
            each = events.c.code, events.c.status, events.c.recorded_at
            codes = [expectation.code for expectation in due]
            of_these = self._sql.each(self._scope.select(events, *each), events.c.code, codes)
            for code, status, at in connection.execute(of_these):
                came[code].append((at, VoucherStatus(status)))
            missed, ended, going_on = [], [], []
            for one in due:
                statuses = [status for at, status in came[one.code] if at >= one.since]
                following, looks_up = review(one, statuses, final=final, now=now)
                if following is None:
                    ended.append({"key": one.code})
                else:
                    going_on.append({"key": one.code, **attrs.asdict(following)})
                if looks_up:
                    missed.append(one.code)
            run_many(connection, self._sql.end_waiting, ended)
            run_many(connection, self._sql.wait_on, going_on)
            return missed

        return await self._opened.write(work)

    def lease(self, name: str, *, duration_s: float) -> SharedLease:
        """See `EventStore.lease`."""
        whose = hashlib.sha256(self._namespace.encode()).hexdigest()
        return SharedLease(self._shared, f"callbacks {whose} {name}", duration_s=duration_s)

    async def prune(self, *, keep_s: float) -> int:
        now = self.runtime.clock()
        has_ended = ~IS_WAITING & (events.c.ended_at < now - keep_s)
        scope = self._scope
        is_expected = scope.select(expected).where(expected.c.code == events.c.code).exists()
        old = scope.select(events, events.c.id).where(has_ended, ~is_expected)
        has_none = ~scope.select(events).where(events.c.code == vouchers.c.code).exists()
        idle = scope.select(vouchers, vouchers.c.code)
        idle = idle.where(vouchers.c.leased_until <= now, has_none)
        drop = scope.delete(vouchers).where(vouchers.c.code == bindparam("key"), has_none)

        def locked(
            connection: Connection, found: Select[Any], column: Column[str], keys: Sequence[str]
        ) -> list[dict[str, Any]]:
            unlocked = found.with_for_update(skip_locked=True)
            rows = connection.scalars(self._sql.each(unlocked, column, keys))
            return [{"key": key} for key in rows]

        def drop_events(ids: Sequence[str], connection: Connection) -> int:
            these = locked(connection, old, events.c.id, ids)
            run_many(connection, self._sql.drop_event, these)
            return len(these)

        def drop_vouchers(codes: Sequence[str], connection: Connection) -> int:
            # Locked first: an event may have come since, which only another statement sees.
            these = locked(connection, idle, vouchers.c.code, codes)
            run_many(connection, drop, these)
            return len(these)

        pruned = await self._in_parts(old, drop_events)
        await self._in_parts(idle, drop_vouchers)
        return pruned

    async def counts(self) -> EventCounts:
        def work(connection: Connection) -> EventCounts:
            each = self._scope.select(events, events.c.state, func.count().label("n"))
            rows = connection.execute(each.group_by(events.c.state))
            found = Counter({row.state: row.n for row in rows})
            return EventCounts(
                done=found[EventState.DONE],
                waiting=found[EventState.RECORDED],
                stale=found[EventState.STALE],
                expected=connection.scalar(self._scope.select(expected, func.count())) or 0,
            )

        return await self._opened.read(work)

    async def _write_many(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        database = self._opened
        if rows:
            await database.write(lambda connection: run_many(connection, statement, rows))

    async def _in_parts(self, found: Select[Any], work: Callable[..., int]) -> int:
        """Work on what a statement finds, in short transactions: deliveries wait for each."""
        keys = await self._opened.read(lambda connection: connection.scalars(found).all())
        done = 0
        for first in range(0, len(keys), _PRUNED_AT_ONCE):
            part = keys[first : first + _PRUNED_AT_ONCE]
            done += await self._opened.write(functools.partial(work, part))
        return done

    def _check_open(self) -> None:
        if self._writer is None:
            raise EventStoreError(NOT_OPEN, is_final=True)

    @property
    def _opened(self) -> Database:
        self._check_open()
        return self.database

    async def _run(self, operation: Record | Finish) -> Disposition:
        if self._writer is None:
            raise EventStoreError(NOT_OPEN, is_final=True)
        try:
            async with asyncio.timeout(self.patience_s):  # with the time in the queue
                return await self._writer.run(operation)
        except TimeoutError:
            raise EventStoreError(
                f"The database did not answer in {self.patience_s:g} s."
            ) from UnavailableError("TimeoutError")

    async def _commit(self, operations: Sequence[Record | Finish]) -> Sequence[Disposition]:
        """Record and finish events in one transaction. A Finish is DONE, or BUSY to try again."""
        records = [one for one in operations if isinstance(one, Record)]
        codes = sorted({one.event.code for one in operations})

        def work(connection: Connection) -> list[Disposition]:
            # First: it may wait for another process; in one order, so that none waits for this.
            run_many(connection, self._add_voucher, [{"code": code} for code in codes])
            leases = self._sql.lock_vouchers(connection, codes)
            recorded = iter(self._record(connection, records, leases) if records else ())
            finishes, answers = [], []
            for one in operations:
                if isinstance(one, Record):
                    answers.append(next(recorded))
                elif one.event.code in leases:
                    finishes.append(one)
                    answers.append(Disposition.DONE)
                else:
                    answers.append(Disposition.BUSY)
            self._finish(connection, finishes)
            return answers

        return await self.database.write(work)

    def _record(
        self, connection: Connection, records: list[Record], leases: dict[str, Lease]
    ) -> list[Disposition]:
        states = self._sql.states_of(connection, [record.event.id for record in records])
        answers, new, stale, leased = [], [], [], []
        for record in records:
            event = record.event
            found = self._decide(record, leases, states)
            answers.append(found)
            if event.id not in states:
                new.append(row_of(record))
                states[event.id] = EventState.RECORDED
            if found is Disposition.STALE:
                states[event.id] = EventState.STALE
                stale.append({"key": event.id, "to": EventState.STALE, "at": record.at, "more": 0})
            elif found is Disposition.READY and record.lease_s is not None:
                # Not from `record.at`: the database may have been waited for.
                until = self.runtime.clock() + record.lease_s
                leased.append({"key": event.code, "by": self.owner, "until": until})
        # Another process may have recorded one whose voucher is locked.
        run_many(connection, self._add_event, sorted(new, key=lambda row: row["id"]))
        run_many(connection, self._sql.end_event, stale)
        run_many(connection, self._sql.take_lease, leased)
        return answers

    def _decide(
        self, record: Record, leases: dict[str, Lease], states: dict[str, EventState]
    ) -> Disposition:
        lease = leases.get(record.event.code, _HELD)
        return decide(states.get(record.event.id), lease, record, owner=self.owner)

    def _finish(self, connection: Connection, finishes: list[Finish]) -> None:
        """Write how events ended, and end the leases of their vouchers, which are locked."""
        leases, ended = [], []
        for finish in finishes:
            event, is_done = finish.event, finish.state is EventState.DONE
            done = microseconds(event.updated_at) if is_done else None
            leases.append({"key": event.code, "done": done, "by": self.owner})
            if finish.state is not EventState.RECORDED:
                ended.append({"key": event.id, "to": finish.state, "at": finish.at, "more": 1})
        run_many(connection, self._sql.end_lease, leases)
        run_many(connection, self._sql.end_event, ended)
        for finish in finishes:
            if finish.state is EventState.RECORDED:
                self._sql.postpone(connection, finish)
