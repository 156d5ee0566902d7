"""A store in a database: an SQLite file or PostgreSQL, for one process or several.

What many deliveries record is committed together. A voucher's row is locked while one of its events
is decided; with PostgreSQL nobody waits for it: a row that is locked is one that is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import attrs
from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from rm_voucher.database.database import Database
from rm_voucher.database.engine import create_file, database_file, parse_url
from rm_voucher.database.group_commit import GroupCommit
from rm_voucher.database.transaction import Transaction
from rm_voucher.exceptions import EventStoreError
from rm_voucher.models import VoucherStatus
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.sql.schema import SCHEMA, events, expected, vouchers
from rm_voucher.webhooks.sql.statements import (
    CLAIM_IT,
    END,
    FORGET,
    FREE,
    GO_ON,
    IS_WAITING,
    lock_vouchers,
    postpone,
    row_of,
    run_many,
    states_of,
)
from rm_voucher.webhooks.store import (
    DELIVERY_S,
    Claim,
    EventCounts,
    EventState,
    EventStore,
    Expectation,
    Finish,
    Record,
    Standing,
    microseconds,
    review,
    standing,
)

_NOT_OPEN = "The store of callbacks is not open."
_PATIENCE_S = 30.0
_PART = 500  # rows that are pruned at once

# Of a voucher that is locked by another process, or was pruned a moment ago.
_HELD = Claim(owner="another", leased_until=math.inf)


class SqlEventStore(EventStore):
    """See `EventStore.open`."""

    has_transactions = True

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(clock=clock)
        parsed = parse_url(url)
        self._database = Database(
            parsed, SCHEMA, error=EventStoreError, sleep=sleep, monotonic=monotonic
        )
        self._file = database_file(parsed) if self._database.is_sqlite else None
        self._sleep = sleep
        self._monotonic = monotonic
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        self._add_voucher, self._add_event, self._add_expected = (
            insert(table).on_conflict_do_nothing() for table in (vouchers, events, expected)
        )
        self._writer: GroupCommit[Record | Finish, Standing] | None = None

    async def _open(self) -> None:
        if self._writer is not None:
            raise EventStoreError("The store of callbacks is open already.")
        try:
            self._create_file()
            await self._database.open()
        except BaseException:
            await self._database.close()
            raise
        self._writer = GroupCommit(self._commit)

    def _create_file(self) -> None:
        if self._file is None:
            return
        try:
            create_file(self._file)  # it holds codes: for its owner alone
        except OSError as exc:
            raise EventStoreError(f"{self._file} can't be used: {exc.strerror}.") from None

    async def aclose(self) -> None:
        """See `EventStore.aclose`."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                await writer.close()
        finally:
            await self._database.close()

    async def record(
        self, event: VoucherEvent, *, lease_s: float | None = None, takes_older: bool = False
    ) -> Standing:
        """See `EventStore.record`."""
        record = Record(event=event, at=self.clock(), lease_s=lease_s, takes_older=takes_older)
        return await self._run(record)

    async def finish(self, event: VoucherEvent, state: EventState) -> None:
        """See `EventStore.finish`."""
        finish = Finish(event=event, at=self.clock(), state=state)
        deadline = self._monotonic() + _PATIENCE_S
        wait_s = 0.005
        while await self._run(finish) is Standing.BUSY:  # in the transaction of another
            if self._monotonic() > deadline:
                raise EventStoreError("Another process holds the voucher for long.")
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, 1.0)

    @contextlib.asynccontextmanager
    async def transaction(
        self, event: VoucherEvent, *, takes_older: bool = False
    ) -> AsyncIterator[tuple[Standing, Transaction]]:
        """See `EventStore.transaction`."""
        record = Record(event=event, at=self.clock(), takes_older=takes_older)

        def first(connection: Connection) -> Standing:
            claims = lock_vouchers(connection, [event.code])
            states = states_of(connection, [event.id])
            return self._decide(record, claims, states) if states else Standing.BUSY

        def last(connection: Connection, found: Standing) -> None:
            if found is Standing.READY:
                finish = Finish(event=event, at=self.clock(), state=EventState.DONE)
                self._finish(connection, [finish])

        async with self._opened.transaction(first, last) as (transaction, found):
            yield found, transaction

    async def due(self, limit: int) -> list[VoucherEvent]:
        """See `EventStore.due`."""
        statement = (
            select(events.c.voucher)
            .where(IS_WAITING, events.c.due_at <= self.clock())
            .order_by(events.c.due_at)
            .limit(limit)
        )
        rows = await self._opened.read(lambda connection: connection.scalars(statement).all())
        return [VoucherEvent.from_json(row) for row in rows]

    async def expect(self, codes: Iterable[str]) -> None:
        """See `EventStore.expect`."""
        now = self.clock()
        rows = [
            {"code": code, "since": now, "due_at": now + DELIVERY_S} for code in sorted(set(codes))
        ]
        if rows:
            await self._opened.write(lambda c: c.execute(self._add_expected, rows))

    async def forget(self, codes: Iterable[str]) -> None:
        """See `EventStore.forget`."""
        rows = [{"of": code} for code in sorted(set(codes))]
        if rows:
            await self._opened.write(lambda connection: connection.execute(FORGET, rows))

    async def take_missed(self, limit: int, *, final: Collection[VoucherStatus]) -> list[str]:
        """See `EventStore.take_missed`."""
        now = self.clock()

        def work(connection: Connection) -> list[str]:
            is_due = select(expected).where(expected.c.due_at <= now).order_by(expected.c.due_at)
            rows = connection.execute(is_due.limit(limit).with_for_update(skip_locked=True))
            due = [Expectation(**row) for row in rows.mappings()]
            came = defaultdict(list)
            columns = select(events.c.code, events.c.status, events.c.recorded_at)
            of_these = columns.where(events.c.code.in_([expectation.code for expectation in due]))
            for code, status, at in connection.execute(of_these):
                came[code].append((at, VoucherStatus(status)))
            missed, ended, going_on = [], [], []
            for one in due:
                statuses = [status for at, status in came[one.code] if at >= one.since]
                following, looks_up = review(one, statuses, final=final, now=now)
                if following is None:
                    ended.append({"of": one.code})
                else:
                    going_on.append({"of": one.code, **attrs.asdict(following)})
                if looks_up:
                    missed.append(one.code)
            run_many(connection, FORGET, ended)
            run_many(connection, GO_ON, going_on)
            return missed

        return await self._opened.write(work)

    async def prune(self, *, keep_s: float) -> int:
        """See `EventStore.prune`."""
        now = self.clock()
        has_ended = ~IS_WAITING & (events.c.ended_at < now - keep_s)
        is_expected = exists().where(expected.c.code == events.c.code)
        old = select(events.c.id).where(has_ended, ~is_expected)
        has_none = ~exists().where(events.c.code == vouchers.c.code)
        idle = select(vouchers.c.code).where(vouchers.c.leased_until <= now, has_none)
        drop = delete(vouchers).where(vouchers.c.code == bindparam("of"), has_none)

        def forget(ids: Sequence[str], connection: Connection) -> int:
            these = old.where(events.c.id.in_(ids)).with_for_update(skip_locked=True)
            return connection.execute(delete(events).where(events.c.id.in_(these))).rowcount

        def forget_vouchers(codes: Sequence[str], connection: Connection) -> int:
            # Locked first: an event may have come since, which only another statement sees.
            these = idle.where(vouchers.c.code.in_(codes)).with_for_update(skip_locked=True)
            locked = connection.scalars(these).all()
            run_many(connection, drop, [{"of": code} for code in locked])
            return len(locked)

        pruned = await self._in_parts(old, forget)
        await self._in_parts(idle, forget_vouchers)
        return pruned

    async def counts(self) -> EventCounts:
        """See `EventStore.counts`."""

        def work(connection: Connection) -> EventCounts:
            each = select(events.c.state, func.count().label("n")).group_by(events.c.state)
            found = Counter({row.state: row.n for row in connection.execute(each)})
            return EventCounts(
                done=found[EventState.DONE],
                waiting=found[EventState.RECORDED],
                older=found[EventState.OLDER],
                expected=connection.scalar(select(func.count()).select_from(expected)) or 0,
            )

        return await self._opened.read(work)

    async def _in_parts(self, found: Select[Any], work: Callable[..., int]) -> int:
        """Work on what a statement finds, in short transactions: deliveries wait for each."""
        keys = await self._opened.read(lambda connection: connection.scalars(found).all())
        done = 0
        for first in range(0, len(keys), _PART):
            done += await self._opened.write(functools.partial(work, keys[first : first + _PART]))
        return done

    @property
    def _opened(self) -> Database:
        if self._writer is None:
            raise EventStoreError(_NOT_OPEN)
        return self._database

    async def _run(self, operation: Record | Finish) -> Standing:
        if self._writer is None:
            raise EventStoreError(_NOT_OPEN)
        return await self._writer.run(operation)

    async def _commit(self, operations: Sequence[Record | Finish]) -> Sequence[Standing]:
        """Record and finish events in one transaction."""
        records = [one for one in operations if isinstance(one, Record)]
        finishes = [one for one in operations if isinstance(one, Finish)]
        codes = sorted({one.event.code for one in operations})

        def work(connection: Connection) -> dict[int, Standing]:
            # First: it may wait for another process; in one order, so that none waits for this.
            run_many(connection, self._add_voucher, [{"code": code} for code in codes])
            claims = lock_vouchers(connection, codes)
            found = self._record(connection, records, claims) if records else {}
            self._finish(connection, [one for one in finishes if one.event.code in claims])
            held = [one for one in finishes if one.event.code not in claims]
            return found | {id(one): Standing.BUSY for one in held}

        found = await self._database.write(work)
        return [found.get(id(one), Standing.DONE) for one in operations]

    def _record(
        self, connection: Connection, records: list[Record], claims: dict[str, Claim]
    ) -> dict[int, Standing]:
        states = states_of(connection, [record.event.id for record in records])
        new, older, claimed = [], [], []
        found = {}
        for record in records:
            event = record.event
            stands = found[id(record)] = self._decide(record, claims, states)
            if event.id not in states:
                new.append(row_of(record))
                states[event.id] = EventState.RECORDED
            if stands is Standing.OLDER:
                states[event.id] = EventState.OLDER
                older.append({"of": event.id, "to": EventState.OLDER, "at": record.at, "more": 0})
            elif stands is Standing.READY and record.lease_s is not None:
                until = self.clock() + record.lease_s  # the database may have been waited for
                claimed.append({"of": event.code, "by": self.owner, "until": until})
        # Another process may have recorded one whose voucher is locked.
        run_many(connection, self._add_event, sorted(new, key=lambda row: row["id"]))
        run_many(connection, END, older)
        run_many(connection, CLAIM_IT, claimed)
        return found

    def _decide(
        self, record: Record, claims: dict[str, Claim], states: dict[str, EventState]
    ) -> Standing:
        claim = claims.get(record.event.code, _HELD)
        return standing(states.get(record.event.id), claim, record, owner=self.owner)

    def _finish(self, connection: Connection, finishes: list[Finish]) -> None:
        """Write how events ended, whose vouchers are locked."""
        freed, ended = [], []
        for finish in finishes:
            event, is_done = finish.event, finish.state is EventState.DONE
            at = microseconds(event.updated_at) if is_done else None
            freed.append({"of": event.code, "at": at, "by": self.owner})
            if finish.state is not EventState.RECORDED:
                ended.append({"of": event.id, "to": finish.state, "at": finish.at, "more": 1})
        run_many(connection, FREE, freed)
        run_many(connection, END, ended)
        for finish in finishes:
            if finish.state is EventState.RECORDED:
                postpone(connection, finish)
