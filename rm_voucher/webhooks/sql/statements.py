"""The statements of the event store, and the steps that are made of one or two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Delete,
    Select,
    Update,
    bindparam,
    case,
    func,
    literal_column,
)

from rm_voucher.database.scope import Scope, each_by_key
from rm_voucher.webhooks.records import DELIVERY_S, EventState, Finish, Lease, Record, retry_delay_s
from rm_voucher.webhooks.sql.schema import events, expected, vouchers

IS_WAITING = events.c.state == literal_column(f"'{EventState.RECORDED}'")
_IS_MINE = vouchers.c.owner == bindparam("by")


class Statements:
    """The statements of one namespace."""

    def __init__(self, scope: Scope, dialect: str) -> None:
        self.scope = scope
        self._dialect = dialect
        a_voucher = scope.update(vouchers).where(vouchers.c.code == bindparam("key"))
        self.take_lease: Update = a_voucher.values(
            owner=bindparam("by"), leased_until=bindparam("until")
        )
        self.end_lease: Update = a_voucher.values(
            newest=case(
                (vouchers.c.newest > bindparam("done"), vouchers.c.newest),
                else_=func.coalesce(bindparam("done"), vouchers.c.newest),
            ),
            # A lease that was over may be another process's by now.
            owner=case((_IS_MINE, None), else_=vouchers.c.owner),
            leased_until=case((_IS_MINE, 0.0), else_=vouchers.c.leased_until),
        )
        an_event = scope.update(events).where(events.c.id == bindparam("key"))
        self.end_event: Update = an_event.values(
            state=bindparam("to"),
            ended_at=bindparam("at"),
            attempts=events.c.attempts + bindparam("more"),
            voucher=None,
        )
        self.drop_event: Delete = scope.delete(events).where(events.c.id == bindparam("key"))
        self.end_waiting: Delete = scope.delete(expected).where(expected.c.code == bindparam("key"))
        an_expectation = scope.update(expected).where(expected.c.code == bindparam("key"))
        self.wait_on: Update = an_expectation.values(
            since=bindparam("since"), due_at=bindparam("due_at"), tries=bindparam("tries")
        )

    def each(self, found: Select[Any], column: Column[str], keys: Sequence[str]) -> Select[Any]:
        """Return a query of those rows of another that have one of the keys in a column."""
        return each_by_key(found, column, keys, self._dialect)

    def lock_vouchers(self, connection: Connection, codes: Sequence[str]) -> dict[str, Lease]:
        """Lock the vouchers that nobody else has locked, and return their leases."""
        unlocked = self.scope.select(vouchers).with_for_update(skip_locked=True)
        rows = connection.execute(self.each(unlocked, vouchers.c.code, codes))
        return {
            code: Lease(newest=newest, owner=owner, leased_until=until)
            for code, newest, owner, until in rows
        }

    def states_of(self, connection: Connection, ids: Sequence[str]) -> dict[str, EventState]:
        """Return the states of the recorded events among these."""
        states = self.scope.select(events, events.c.id, events.c.state)
        rows = connection.execute(self.each(states, events.c.id, ids))
        return {key: EventState(state) for key, state in rows}

    def postpone(self, connection: Connection, finish: Finish) -> None:
        """Let a failed event be due again, later after each failure."""
        this = events.c.id == finish.event.id
        found = self.scope.select(events, events.c.attempts, events.c.due_at).where(this)
        row = connection.execute(found).first()
        if row is not None:
            attempts = row.attempts + 1
            due_at = max(row.due_at, finish.at + retry_delay_s(attempts))
            later = self.scope.update(events).where(this)
            connection.execute(later.values(attempts=attempts, due_at=due_at))


def run_many(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    """Execute a statement for each row, if there are any."""
    if rows:
        connection.execute(statement, rows)


def row_of(record: Record) -> dict[str, Any]:
    """Return the row of an event that came."""
    return {
        "id": record.event.id,
        "code": record.event.code,
        "status": record.event.status,
        "state": EventState.RECORDED,
        "recorded_at": record.at,
        "due_at": record.at + DELIVERY_S,
        "voucher": record.event.to_record(),
    }
