"""The statements of the event store, and the steps that are made of one or two of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, literal_column, select, update

from rm_voucher.webhooks.records import DELIVERY_S, EventState, Finish, Lease, Record, retry_delay_s
from rm_voucher.webhooks.sql.schema import events, expected, vouchers

IS_WAITING = events.c.state == literal_column(f"'{EventState.RECORDED}'")
_LEASE = select(vouchers.c.code, vouchers.c.newest, vouchers.c.owner, vouchers.c.leased_until)
TAKE_LEASE = (
    update(vouchers)
    .where(vouchers.c.code == bindparam("key"))
    .values(owner=bindparam("by"), leased_until=bindparam("until"))
)
_IS_MINE = vouchers.c.owner == bindparam("by")
END_LEASE = (
    update(vouchers)
    .where(vouchers.c.code == bindparam("key"))
    .values(
        newest=case(
            (vouchers.c.newest > bindparam("done"), vouchers.c.newest),
            else_=func.coalesce(bindparam("done"), vouchers.c.newest),
        ),
        # A lease that was over may be another process's by now.
        owner=case((_IS_MINE, None), else_=vouchers.c.owner),
        leased_until=case((_IS_MINE, 0.0), else_=vouchers.c.leased_until),
    )
)
END_EVENT = (
    update(events)
    .where(events.c.id == bindparam("key"))
    .values(
        state=bindparam("to"),
        ended_at=bindparam("at"),
        attempts=events.c.attempts + bindparam("more"),
        voucher=None,
    )
)
END_WAITING = delete(expected).where(expected.c.code == bindparam("key"))
WAIT_ON = (
    update(expected)
    .where(expected.c.code == bindparam("key"))
    .values(since=bindparam("since"), due_at=bindparam("due_at"), tries=bindparam("tries"))
)


def run_many(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    """Execute a statement for each row, if there are any."""
    if rows:
        connection.execute(statement, rows)


def lock_vouchers(connection: Connection, codes: Collection[str]) -> dict[str, Lease]:
    """Lock the vouchers that nobody else has locked, and return their leases."""
    statement = _LEASE.where(vouchers.c.code.in_(codes)).with_for_update(skip_locked=True)
    return {
        code: Lease(newest=newest, owner=owner, leased_until=until)
        for code, newest, owner, until in connection.execute(statement)
    }


def states_of(connection: Connection, ids: Collection[str]) -> dict[str, EventState]:
    """Return the states of the recorded events among these."""
    statement = select(events.c.id, events.c.state).where(events.c.id.in_(ids))
    return {key: EventState(state) for key, state in connection.execute(statement)}


def row_of(record: Record) -> dict[str, Any]:
    """Return the row of an event that came."""
    return {
        "id": record.event.id,
        "code": record.event.code,
        "status": record.event.status,
        "state": EventState.RECORDED,
        "recorded_at": record.at,
        "due_at": record.at + DELIVERY_S,
        "voucher": record.event.to_json(),
    }


def postpone(connection: Connection, finish: Finish) -> None:
    """Let a failed event be due again, later after each failure."""
    this = events.c.id == finish.event.id
    row = connection.execute(select(events.c.attempts, events.c.due_at).where(this)).first()
    if row is not None:
        attempts = row.attempts + 1
        due_at = max(row.due_at, finish.at + retry_delay_s(attempts))
        connection.execute(update(events).where(this).values(attempts=attempts, due_at=due_at))
