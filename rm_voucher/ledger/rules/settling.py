"""The transactions that settle unknown outcomes, made like those of `transitions`.

They are: recovery after a crash, a code that an earlier process received, a reconciliation, a
baseline, a person's decision.
"""

from __future__ import annotations

from collections.abc import Sequence

from rm_voucher.exceptions import LedgerError
from rm_voucher.ledger.rules.changes import (
    assign_spares,
    close,
    give,
    hold,
    load_attempts,
    note_listed,
    release,
    take,
)
from rm_voucher.ledger.rules.commands import Found, Keep, Listed, Recover, Resolve, Settlement
from rm_voucher.ledger.rules.records import (
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork


def recover(unit: UnitOfWork, items: Sequence[Recover]) -> list[list[str]]:
    """Make the attempts AMBIGUOUS that dead processes were SENDING; return their ids.

    The process ``own`` lives, and includes only those of its own attempts that it sends no more.
    """
    unit.batches(item.batch for item in items)
    return [_recover(unit, item) for item in items]


def _recover(unit: UnitOfWork, item: Recover) -> list[str]:
    rows = unit.get(IssueAttempt, item.attempt_ids)
    dead = unit.dead_owners({row.owner for row in rows.values()} - {item.own}) | {item.own}
    ended = [
        row for row in rows.values() if row.state is AttemptState.SENDING and row.owner in dead
    ]
    for row in ended:  # they get no spare here: the code of one may be in hand, see `keep`
        close(unit, row, AttemptState.AMBIGUOUS, item.at)
    return [row.id for row in ended]


def keep(unit: UnitOfWork, items: Sequence[Keep]) -> list[LedgerError | None]:
    """Keep codes that an earlier process received for its requests, and could not keep.

    Whatever has become of the attempt since, the code is its request's. Where the ledger says
    something else, it stays so, and the code is given to nobody.
    """
    unit.batches(item.batch for item in items)
    return [_keep(unit, item) for item in items]


def _keep(unit: UnitOfWork, item: Keep) -> LedgerError | None:
    voucher, at = item.voucher, item.at
    request = unit.get(IssueRequest, [item.request_id]).get(item.request_id)
    if request is None or request.batch != item.batch:
        return LedgerError(
            "The ledger has never heard of this request of the batch: the code is another "
            "ledger's, or this is an older copy of the ledger.",
            is_final=True,
        )
    code = unit.code(voucher.code)
    if code is not None and code.request_id == request.id:
        return None
    if unit.query(unit.find_seen, voucher.code):
        return None  # it came with an error, which proves nothing: a listing decides
    if request.state is RequestState.CANCELLED:
        return LedgerError(
            "This request was given up by a person, so it can't have a code.", is_final=True
        )
    if code is not None and code.state in (CodeState.ASSIGNED, CodeState.BASELINE):
        other = "another request's" if code.state is CodeState.ASSIGNED else "of before the ledger"
        return LedgerError(f"The ledger has this code already, as one {other}.", is_final=True)
    if request.state is RequestState.ASSIGNED:
        if code is None:
            found = Found(code=voucher.code, qr_url=voucher.qr_url or None)
            note_listed(unit, item.batch, [found], CodeState.FOREIGN, at)
        else:
            code.state = CodeState.FOREIGN
            unit.save(code)
        return LedgerError(
            "This request has another code already; this one is given to nobody.", is_final=True
        )
    attempt = None if request.attempt_id is None else unit.attempt(request.attempt_id)
    if attempt is not None and attempt.state is AttemptState.SENDING:
        return LedgerError("A call for this request is in flight: try again when it has ended.")
    if attempt is not None and (code is None or code.state is CodeState.FOREIGN):
        found = Found(code=voucher.code, qr_url=voucher.qr_url or None)
        ended = AttemptState.CONFIRMED
        take(unit, found, attempt, origin=CodeOrigin.RESPONSE, ended=ended, at=at)
        return None
    if code is None:
        code = Code(voucher.code, item.batch, CodeState.SPARE, CodeOrigin.RESPONSE, at)
        code.qr_url = voucher.qr_url or None
        unit.add(code)
    give(unit, code, request)
    return None


def settle(unit: UnitOfWork, items: Sequence[Settlement]) -> list[None]:
    """Carry out those conclusions of a reconciliation that still hold."""
    batches = {batch.key: batch for batch in unit.batches(item.batch for item in items)}
    for item in items:
        pairs = dict(item.adopt)
        attempts = load_attempts(unit, [*pairs, *item.not_issued, *item.hold])
        known = unit.get(Code, [found.code for found in (*pairs.values(), *item.foreign)])
        for attempt_id, found in item.adopt:
            attempt = attempts[attempt_id]
            late = attempt.state is AttemptState.NOT_ISSUED
            held = attempt.state is AttemptState.UNRESOLVED and attempt.seen_code == found.code
            doubtful = late or held or attempt.state is AttemptState.AMBIGUOUS
            if found.code not in known and doubtful:
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
        batch = batches[item.batch]
        if item.stop_reason is not None and batch.stop_reason is None:  # the first reason stays
            batch.stop_reason = item.stop_reason
            unit.save(batch)
        assign_spares(unit, item.batch)
    return [None] * len(items)


def list_codes(unit: UnitOfWork, items: Sequence[Listed]) -> list[LedgerError | None]:
    """Keep the codes of a baseline, a part at a time. A batch that has one already keeps it."""
    results: list[LedgerError | None] = []
    for item in items:
        batch = unit.batch(item.batch)
        if item.reset and unit.query(unit.find_attempts, item.batch, [AttemptState.SENDING]):
            results.append(LedgerError("Calls are in flight: end them before a new baseline."))
            continue
        if item.reset:
            batch.baseline_at = None
            batch.stop_reason = batch.stop_reason or "its new baseline was not read to its end"
            unit.save(batch)
            for attempt in unit.query(unit.find_attempts, item.batch, [AttemptState.AMBIGUOUS]):
                hold(unit, attempt, item.at)
        if batch.baseline_at is None:
            state = CodeState.FOREIGN if batch.stop_reason else CodeState.BASELINE
            note_listed(unit, item.batch, item.found, state, item.at)
            if item.last:
                batch.baseline_at, batch.stop_reason = item.at, None
                unit.save(batch)
        results.append(None)
    return results


def resolve(unit: UnitOfWork, items: Sequence[Resolve]) -> list[LedgerError | None]:
    """Carry out a person's decision about an attempt with an unknown outcome."""
    return [_resolve(unit, item) for item in items]


def _resolve(unit: UnitOfWork, item: Resolve) -> LedgerError | None:
    unit.batch(item.batch)
    attempt = unit.attempt(item.attempt_id)
    known = None if item.code is None else unit.code(item.code.code)
    if attempt.state is item.state and (item.code is None or _is_of(known, attempt)):
        return None  # the answer to the commit was lost
    if attempt.state not in (AttemptState.UNRESOLVED, AttemptState.AMBIGUOUS):
        return LedgerError(
            f"Nothing is to be resolved: this attempt is {attempt.state}.", is_final=True
        )
    if item.code is not None:
        if known is not None and known.state is not CodeState.FOREIGN:
            return LedgerError(
                f"The ledger has this code already, as {known.state}.", is_final=True
            )
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


def _is_of(code: Code | None, attempt: IssueAttempt) -> bool:
    return code is not None and code.attempt_id == attempt.id
