"""The changes that transitions are made of, each to a few rows of a `UnitOfWork`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rm_voucher.ledger.rules.commands import Found
from rm_voucher.ledger.rules.records import (
    OPEN,
    Attempt,
    AttemptState,
    Code,
    CodeOrigin,
    CodeState,
    Request,
    RequestState,
)
from rm_voucher.ledger.rules.unit import UnitOfWork

_AT_ONCE = 256  # spare codes that are assigned in a turn


def load_attempts(unit: UnitOfWork, ids: Iterable[str]) -> dict[str, Attempt]:
    """Load attempts, and the requests that may rely on them."""
    attempts = unit.attempts(ids)
    unit.requests(a.request_id for a in attempts.values() if a.request_id is not None)
    return attempts


def relying(unit: UnitOfWork, attempt: Attempt) -> Request | None:
    """Return the request that relies on an attempt, if one does."""
    if attempt.request_id is None:
        return None
    request = unit.request(attempt.request_id)
    return request if request.attempt_id == attempt.id else None


def rely(unit: UnitOfWork, request: Request, attempt: Attempt) -> None:
    """Let a request rely on an attempt."""
    request.attempt_id, attempt.request_id = attempt.id, request.id
    unit.save(request)
    unit.save(attempt)


def close(unit: UnitOfWork, attempt: Attempt, state: AttemptState, at: float) -> None:
    """Put an attempt into a state; it has ended at that time, unless it had before."""
    if attempt.ended_at is None:
        attempt.ended_at = at
    attempt.state = state
    unit.save(attempt)


def release(unit: UnitOfWork, attempt: Attempt, state: AttemptState, at: float) -> Request | None:
    """End an attempt without a code; return the request that relied on it, and does no more."""
    request = relying(unit, attempt)
    close(unit, attempt, state, at)
    if request is not None:
        request.attempt_id = None
        unit.save(request)
    return request


def hold(unit: UnitOfWork, attempt: Attempt, at: float) -> None:
    """Leave an attempt, and the request that relies on it, to a person."""
    request = relying(unit, attempt)
    close(unit, attempt, AttemptState.UNRESOLVED, at)
    if request is not None:
        request.state = RequestState.UNRESOLVED
        unit.save(request)


def take(
    unit: UnitOfWork,
    found: Found,
    attempt: Attempt,
    *,
    origin: CodeOrigin,
    ended: AttemptState,
    at: float,
) -> Code:
    """Make a code ours through an attempt, which has ended with that.

    It goes to the request that relies on the attempt, or becomes a spare. It is new, or FOREIGN.
    """
    code = unit.code(found.code)
    if code is None:
        code = Code(found.code, attempt.batch, CodeState.SPARE, origin, at)
        code.qr_url, code.assigned_at = found.qr_url, found.assigned_at
        unit.add(code)
    code.state, code.origin, code.attempt_id = CodeState.SPARE, origin, attempt.id
    unit.save(code)
    request = relying(unit, attempt)
    close(unit, attempt, ended, at)
    if request is not None:
        give(unit, code, request)
    return code


def give(unit: UnitOfWork, code: Code, request: Request) -> None:
    """Give a code to a request. An attempt that it relied on and that is still open gets loose."""
    if request.attempt_id is not None:
        attempt = unit.attempt(request.attempt_id)
        if attempt.state in OPEN:
            attempt.request_id = None
            unit.save(attempt)
    request.state, request.attempt_id, request.error = RequestState.ASSIGNED, None, None
    code.state, code.request_id = CodeState.ASSIGNED, request.id
    unit.save(request)
    unit.save(code)
    unit.assigned.append(code)


def assign_spares(unit: UnitOfWork, batch: str) -> None:
    """Give spare codes to requests whose code is not on its way, until one of both runs out."""
    while spares := unit.spares(batch, _AT_ONCE):
        needy = unit.needy(batch, len(spares))
        for code, request in zip(spares, needy, strict=False):
            give(unit, code, request)
        if len(needy) < len(spares):
            return


def note_listed(
    unit: UnitOfWork, batch: str, listed: Sequence[Found], state: CodeState, at: float
) -> None:
    """Keep those of listed codes that are not known, as nobody's."""
    known = unit.codes(found.code for found in listed)
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
