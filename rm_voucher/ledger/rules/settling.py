"""What settles the unknown, as kinds of transaction like those of `transitions`.

That is: recovery after a crash, what a reconciliation concluded, a baseline, a person's word.
"""

from __future__ import annotations

from collections.abc import Sequence

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.changes import (
    assign_spares,
    close,
    hold,
    load_attempts,
    note_listed,
    release,
    take,
)
from rm_voucher.ledger.rules.commands import Listed, Recover, Resolve, Settlement
from rm_voucher.ledger.rules.records import (
    Attempt,
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    RequestState,
)
from rm_voucher.ledger.rules.unit import UnitOfWork


def recover(unit: UnitOfWork, items: Sequence[Recover]) -> list[list[str]]:
    """Make AMBIGUOUS what is SENDING by a process that is gone; return the attempts' ids.

    Those of ``own``, the process that says so, are given only when it sends them no more.
    """
    return [_recover(unit, item) for item in items]


def _recover(unit: UnitOfWork, item: Recover) -> list[str]:
    unit.batches(attempt.batch for attempt in item.attempts)
    rows = unit.attempts(attempt.id for attempt in item.attempts)
    dead = unit.dead_owners({row.owner for row in rows.values()} - {item.own}) | {item.own}
    ended = [
        row for row in rows.values() if row.state is AttemptState.SENDING and row.owner in dead
    ]
    for row in ended:
        close(unit, row, AttemptState.AMBIGUOUS, item.at)
    for key in sorted({row.batch for row in ended}):
        assign_spares(unit, key)
    return [row.id for row in ended]


def settle(unit: UnitOfWork, items: Sequence[Settlement]) -> list[None]:
    """Carry out what a reconciliation concluded, as far as it still holds."""
    batches = {batch.key: batch for batch in unit.batches(item.batch for item in items)}
    for item in items:
        pairs = dict(item.adopt)
        attempts = load_attempts(unit, [*pairs, *item.not_issued, *item.hold])
        known = unit.codes(found.code for found in (*pairs.values(), *item.foreign))
        for attempt_id, found in item.adopt:
            attempt = attempts[attempt_id]
            late = attempt.state is AttemptState.NOT_ISSUED
            if found.code not in known and (late or attempt.state is AttemptState.AMBIGUOUS):
                origin = CodeOrigin.LATE if late else CodeOrigin.ADOPTED
                take(
                    unit,
                    found,
                    attempt,
                    origin=origin,
                    ended=AttemptState.ADOPTED,
                    at=item.at,
                )
        for attempt_id in item.not_issued:
            if attempts[attempt_id].state is AttemptState.AMBIGUOUS:
                release(unit, attempts[attempt_id], AttemptState.NOT_ISSUED, item.at)
        for attempt_id in item.hold:
            if attempts[attempt_id].state is AttemptState.AMBIGUOUS:
                hold(unit, attempts[attempt_id], item.at)
        note_listed(unit, item.batch, item.foreign, CodeState.FOREIGN, item.at)
        if item.alarm is not None and batches[item.batch].alarm is None:  # the first one is why
            batches[item.batch].alarm = item.alarm
            unit.save(batches[item.batch])
        assign_spares(unit, item.batch)
    return [None] * len(items)


def list_codes(unit: UnitOfWork, items: Sequence[Listed]) -> list[LedgerError | None]:
    """Keep the codes of a baseline, a part at a time. A batch that has its baseline stays so."""
    results: list[LedgerError | None] = []
    for item in items:
        batch = unit.batch(item.batch)
        if item.anew and unit.attempts_in(item.batch, [AttemptState.SENDING]):
            results.append(LedgerError("Calls are in flight: end them before a new baseline."))
            continue
        if item.anew:
            batch.baseline_at = None
            batch.alarm = batch.alarm or "its new baseline was not read to its end"
            unit.save(batch)
            for attempt in unit.attempts_in(item.batch, [AttemptState.AMBIGUOUS]):
                hold(unit, attempt, item.at)
        if batch.baseline_at is None:
            state = CodeState.FOREIGN if batch.alarm else CodeState.BASELINE
            note_listed(unit, item.batch, item.found, state, item.at)
            if item.last:
                batch.baseline_at, batch.alarm = item.at, None
                unit.save(batch)
        results.append(None)
    return results


def resolve(unit: UnitOfWork, items: Sequence[Resolve]) -> list[LedgerError | None]:
    """Carry out what a person decided about an attempt with an unknown outcome."""
    return [_resolve(unit, item) for item in items]


def _resolve(unit: UnitOfWork, item: Resolve) -> LedgerError | None:
    unit.batch(item.batch)
    attempt = unit.attempt(item.attempt_id)
    known = None if item.code is None else unit.code(item.code.code)
    if attempt.state is item.state and (item.code is None or _is_of(known, attempt)):
        return None  # the answer to the commit was lost
    if attempt.state not in (AttemptState.UNRESOLVED, AttemptState.AMBIGUOUS):
        return LedgerError(f"Nothing is to be resolved: this attempt is {attempt.state}.")
    if item.code is not None:
        if known is not None and known.state is not CodeState.FOREIGN:
            return LedgerError(f"The ledger has this code already, as {known.state}.")
        take(
            unit,
            item.code,
            attempt,
            origin=CodeOrigin.ADOPTED,
            ended=AttemptState.ADOPTED,
            at=item.at,
        )
    else:
        request = release(unit, attempt, item.state, item.at)
        if request is not None:
            gone = item.state is AttemptState.WRITTEN_OFF
            request.state = RequestState.CANCELLED if gone else RequestState.WAITING
    assign_spares(unit, item.batch)
    return None


def _is_of(code: Code | None, attempt: Attempt) -> bool:
    return code is not None and code.attempt_id == attempt.id
