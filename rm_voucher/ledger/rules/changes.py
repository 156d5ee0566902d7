"""The steps of transitions: each changes a few rows of a `UnitOfWork`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rm_voucher.ledger.rules.commands import Found
from rm_voucher.ledger.rules.records import (
    OPEN,
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork

_BLOCK = 256  # spare codes that are read at once


def load_attempts(unit: UnitOfWork, ids: Iterable[str]) -> dict[str, IssueAttempt]:
    """Load attempts, and the requests that may have claimed them."""
    attempts = unit.get(IssueAttempt, ids)
    unit.get(IssueRequest, [a.request_id for a in attempts.values() if a.request_id is not None])
    return attempts


def claimant(unit: UnitOfWork, attempt: IssueAttempt) -> IssueRequest | None:
    """Return the request that claims an attempt, if there is one."""
    if attempt.request_id is None:
        return None
    request = unit.request(attempt.request_id)
    return request if request.attempt_id == attempt.id else None


def claim(unit: UnitOfWork, request: IssueRequest, attempt: IssueAttempt) -> None:
    """Let a request claim an attempt: whatever code that brings is its own."""
    request.attempt_id, attempt.request_id = attempt.id, request.id
    unit.save(request)
    unit.save(attempt)


def close(unit: UnitOfWork, attempt: IssueAttempt, state: AttemptState, at: float) -> None:
    """Put an attempt into a state. That is its end, unless it had ended before."""
    if attempt.ended_at is None:
        attempt.ended_at = at
    if state is AttemptState.AMBIGUOUS:
        attempt.unknown_since = unit.now()
    attempt.state = state
    unit.save(attempt)


def release(
    unit: UnitOfWork, attempt: IssueAttempt, state: AttemptState, at: float
) -> IssueRequest | None:
    """End an attempt without a code; return the request that had claimed it."""
    request = claimant(unit, attempt)
    close(unit, attempt, state, at)
    if request is not None:
        request.attempt_id = None
        unit.save(request)
    return request


def hold(unit: UnitOfWork, attempt: IssueAttempt, at: float) -> None:
    """Leave an attempt and its claimant to a person."""
    request = claimant(unit, attempt)
    close(unit, attempt, AttemptState.UNRESOLVED, at)
    if request is not None:
        request.state = RequestState.UNRESOLVED
        unit.save(request)


def take(
    unit: UnitOfWork,
    found: Found,
    attempt: IssueAttempt,
    *,
    origin: CodeOrigin,
    ended: AttemptState,
    at: float,
) -> Code:
    """Book a code, new or FOREIGN, as the one that an attempt brought, and end the attempt.

    The code goes to the attempt's claimant, or becomes a spare.
    """
    request = claimant(unit, attempt)
    code = unit.code(found.code)
    if code is not None or request is None or attempt.state is not AttemptState.SENDING:
        unit.be_alone()
    if code is None:
        code = Code(found.code, attempt.batch, CodeState.SPARE, origin, at)
        code.assigned_at = found.assigned_at
        unit.add(code)
    code.qr_url = code.qr_url or found.qr_url
    code.state, code.origin, code.attempt_id = CodeState.SPARE, origin, attempt.id
    unit.save(code)
    close(unit, attempt, ended, at)
    if request is not None:
        give(unit, code, request)
    return code


def give(unit: UnitOfWork, code: Code, request: IssueRequest) -> None:
    """Give a code to a request, and detach the open attempt that it had claimed."""
    if request.attempt_id is not None:
        attempt = unit.attempt(request.attempt_id)
        if attempt.state in OPEN:
            unit.be_alone()
            attempt.request_id = None
            unit.save(attempt)
    request.state, request.attempt_id, request.error = RequestState.ASSIGNED, None, None
    code.state, code.request_id = CodeState.ASSIGNED, request.id
    unit.save(request)
    unit.save(code)
    unit.assigned.append(code)


def assign_spares(unit: UnitOfWork, batch: str) -> None:
    """Give spare codes to requests whose code is not on its way, until either run out."""
    while spares := unit.query(unit.find_spares, batch, _BLOCK):
        unit.be_alone()
        unserved = unit.query(unit.find_unserved, batch, len(spares))
        for code, request in zip(spares, unserved, strict=False):
            give(unit, code, request)
        if len(unserved) < len(spares):
            return


def note_listed(
    unit: UnitOfWork, batch: str, listed: Sequence[Found], state: CodeState, at: float
) -> None:
    """Keep the listed codes that are not known yet; they are no request's."""
    known = unit.get(Code, [found.code for found in listed])
    for found in listed:
        if found.code not in known:
            code = Code(
                found.code,
                batch,
                state,
                CodeOrigin.LISTED,
                at,
                qr_url=found.qr_url,
                assigned_at=found.assigned_at,
            )
            known[found.code] = code
            unit.add(code)
