"""The transactions of issuing. Each function is one kind of transaction, for many items at once.

They are pure: they load rows from a `UnitOfWork`, decide, and change them. Each may be repeated
with the same items, because the answer to a commit can be lost. The result of an item that is
refused is an error.

The promise rests on these rules. An attempt is written before it is sent. It is written only for a
request that waits and claims no attempt, and only if there is neither a spare code nor a detached
attempt: so the codes that can come never outnumber the requests that wait. A code goes to the
request that claims its attempt, or becomes a spare. A known code never comes again.

Many processes may run them on one batch at the same time, each with requests and attempts of its
own. What they share, spares, detached attempts and the batch itself, they change alone
(`UnitOfWork.be_alone`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from rm_voucher.exceptions import BatchStoppedError, IdempotencyConflictError, LedgerError
from rm_voucher.ledger.rules.changes import (
    assign_spares,
    claim,
    claimant,
    close,
    give,
    hold,
    load_attempts,
    release,
    take,
)
from rm_voucher.ledger.rules.commands import (
    Ask,
    Check,
    Claimed,
    Confirm,
    End,
    Found,
    Pending,
)
from rm_voucher.ledger.rules.records import (
    OPEN,
    AttemptState,
    Batch,
    Code,
    CodeOrigin,
    CodeState,
    IssueAttempt,
    IssueRequest,
    RequestState,
)
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.models import IssuedVoucher

_WITHOUT_CODE = (
    *OPEN,
    AttemptState.NOT_ISSUED,
    AttemptState.UNRESOLVED,
    AttemptState.WRITTEN_OFF,
)
"""The states of attempts without a known code: open, or settled without one."""


def ask(
    unit: UnitOfWork, asks: Sequence[Ask]
) -> list[IssuedVoucher | Claimed | Pending | LedgerError]:
    """Insert or find each request; give it a code, or let it claim an attempt."""
    batches = {batch.key: batch for batch in unit.batches(item.batch for item in asks)}
    requests = unit.get(IssueRequest, [item.request_id for item in asks])
    # Before anything is changed: a query writes what was changed so far, and each request once more
    # when it is served.
    wanted = Counter(
        item.batch
        for item in asks
        if item.may_start and _may_be_served(requests.get(item.request_id))
    )
    stocks = {key: _stock(unit, key, number) for key, number in wanted.items()}
    to_serve: dict[str, dict[str, Ask]] = defaultdict(dict)
    refused: dict[int, LedgerError] = {}
    for number, item in enumerate(asks):
        request = requests.get(item.request_id)
        if request is None:
            request = IssueRequest(
                item.request_id, item.batch, item.content, RequestState.WAITING, item.at
            )
            requests[item.request_id] = request
            unit.add(request)
        elif request.state is RequestState.FAILED:
            request.batch, request.content = item.batch, item.content
            request.state, request.error = RequestState.WAITING, None
            unit.save(request)
        elif (request.batch, request.content) != (item.batch, item.content):
            refused[number] = IdempotencyConflictError(
                "This request id was used with another batch or content: ask with an id of its own."
            )
            continue
        if item.may_start and request.state is RequestState.WAITING and not request.attempt_id:
            to_serve[item.batch].setdefault(request.id, item)
    for key, items in to_serve.items():
        waiting = [(requests[name], item) for name, item in items.items()]
        _serve(unit, batches[key], waiting, *stocks[key])
    served = [r.id for r in requests.values() if r.state is RequestState.ASSIGNED]
    found = unit.query(unit.find_codes, served) if served else []
    codes = {code.request_id or "": code for code in found}
    attempts = unit.get(IssueAttempt, [r.attempt_id for r in requests.values() if r.attempt_id])
    return [
        refused.get(number)
        or _answer(item, requests[item.request_id], codes, attempts, batches[item.batch])
        for number, item in enumerate(asks)
    ]


def _may_be_served(request: IssueRequest | None) -> bool:
    return request is None or (
        request.state in (RequestState.WAITING, RequestState.FAILED) and not request.attempt_id
    )


def _stock(unit: UnitOfWork, batch: str, number: int) -> tuple[list[Code], list[IssueAttempt]]:
    """Return spare codes of a batch, and detached attempts, so many at most."""
    spares = unit.query(unit.find_spares, batch, number)
    return spares, unit.query(unit.find_detached, batch, number)


def _serve(
    unit: UnitOfWork,
    batch: Batch,
    waiting: list[tuple[IssueRequest, Ask]],
    found: list[Code],
    loose: list[IssueAttempt],
) -> None:
    """Give each a spare, or let it claim a detached attempt, or else a new one."""
    if found or loose:
        unit.be_alone()
    spares, detached = iter(found), iter(loose)
    for request, item in waiting:
        if (code := next(spares, None)) is not None:
            give(unit, code, request)
        elif (attempt := next(detached, None)) is not None:
            claim(unit, request, attempt)
        elif _is_open(batch):
            attempt = IssueAttempt(
                item.attempt_id, batch.key, None, item.owner, AttemptState.SENDING, item.at
            )
            unit.add(attempt)
            claim(unit, request, attempt)


def _answer(
    item: Ask,
    request: IssueRequest,
    codes: dict[str, Code],
    attempts: dict[str, IssueAttempt],
    batch: Batch,
) -> IssuedVoucher | Claimed | Pending | LedgerError:
    if request.state is RequestState.ASSIGNED:
        return codes[request.id].voucher
    attempt = attempts.get(request.attempt_id or "")
    in_flight = attempt is not None and attempt.state is AttemptState.SENDING
    if in_flight and request.attempt_id == item.attempt_id:
        return Claimed(item.attempt_id)
    if item.may_start and request.state is RequestState.WAITING and attempt is None:
        reason = batch.stop_reason or "its baseline has not been read"
        return BatchStoppedError(f"Nothing is issued from this batch: {reason}.")
    seen = None if attempt is None else attempt.seen
    return Pending(request.state, request.attempt_id, in_flight, seen)


def _is_open(batch: Batch) -> bool:
    return batch.baseline_at is not None and batch.stop_reason is None


def check(unit: UnitOfWork, items: Sequence[Check]) -> list[bool]:
    """Return of each attempt whether its process may still send it.

    An attempt leaves SENDING for good, so what another process took over is never sent again.
    """
    unit.batches(item.batch for item in items)
    attempts = unit.get(IssueAttempt, [item.attempt_id for item in items])
    return [
        attempts[item.attempt_id].state is AttemptState.SENDING
        and attempts[item.attempt_id].owner == item.owner
        for item in items
    ]


def confirm(
    unit: UnitOfWork, items: Sequence[Confirm]
) -> list[IssuedVoucher | Pending | LedgerError]:
    """Keep each code, for the request that claims its attempt, or for another.

    The result is Pending if the request that asked no longer claims the attempt: it must ask again.
    """
    batches = {batch.key: batch for batch in unit.batches(item.batch for item in items)}
    attempts = load_attempts(unit, (item.attempt_id for item in items))
    unit.get(Code, [item.code for item in items])
    results: list[IssuedVoucher | Pending | LedgerError] = []
    spare_in: set[str] = set()
    for item in items:
        attempt = attempts[item.attempt_id]
        code = unit.code(item.code)
        if code is None or code.state is CodeState.FOREIGN:  # the answer proves that it is ours
            code = _keep(unit, attempt, item, is_new=code is None)
            if code.state is CodeState.SPARE:
                spare_in.add(item.batch)
        elif code.attempt_id == attempt.id:
            pass  # the answer to the commit was lost, or the listing was quicker
        elif unit.is_shared:
            unit.be_alone()
        elif code.origin is CodeOrigin.ADOPTED and attempt.state in _WITHOUT_CODE:
            _swap(unit, code, attempt, item.at)
        elif code.origin is CodeOrigin.ADOPTED and attempt.state is AttemptState.ADOPTED:
            pass  # two were adopted crosswise: each has a code that is ours
        else:
            results.append(_stop(unit, batches[item.batch], attempt, item.at))
            continue
        mine = code.request_id == item.request_id
        results.append(code.voucher if mine else Pending(RequestState.WAITING, None))
    for key in sorted(spare_in):
        assign_spares(unit, key)
    return results


def _keep(unit: UnitOfWork, attempt: IssueAttempt, item: Confirm, *, is_new: bool) -> Code:
    fresh = is_new and attempt.state in OPEN
    adopted = attempt.state is AttemptState.ADOPTED  # with another code: this is one more
    return take(
        unit,
        Found(code=item.code, qr_url=item.qr_url),
        attempt,
        origin=CodeOrigin.RESPONSE if fresh else CodeOrigin.LATE,
        ended=AttemptState.ADOPTED if adopted else AttemptState.CONFIRMED,
        at=item.at,
    )


def _swap(unit: UnitOfWork, code: Code, attempt: IssueAttempt, at: float) -> None:
    """Give an adopted code to the attempt whose answer brought it.

    The listing had led to another attempt. That one is open again, and the claimant of this one
    claims it.
    """
    other = unit.attempt(code.attempt_id or "")
    request = claimant(unit, attempt)
    code.attempt_id, code.origin = attempt.id, CodeOrigin.RESPONSE
    unit.save(code)
    close(unit, attempt, AttemptState.CONFIRMED, at)
    other.request_id = None
    close(unit, other, AttemptState.AMBIGUOUS, at)
    if request is not None:
        request.state = RequestState.WAITING
        claim(unit, request, other)


def _stop(unit: UnitOfWork, batch: Batch, attempt: IssueAttempt, at: float) -> LedgerError:
    """Stop a batch in which the server gave one code twice: nobody can tell who has it."""
    batch.stop_reason = (
        "the server issued a code that the ledger had already, as a static batch does, which has "
        "one code for everybody"
    )
    unit.save(batch)
    if attempt.state in OPEN:
        hold(unit, attempt, at)
    return BatchStoppedError(f"Nothing is issued from this batch: {batch.stop_reason}.")


def end(unit: UnitOfWork, items: Sequence[End]) -> list[None]:
    """Note the end of attempts that brought no code."""
    unit.batches(item.batch for item in items)
    attempts = load_attempts(unit, (item.attempt_id for item in items))
    touched: set[str] = set()
    for item in items:
        attempt = attempts[item.attempt_id]
        if item.seen is not None:
            attempt.seen_code, attempt.seen_qr_url = item.seen.code, item.seen.qr_url or None
            unit.save(attempt)
        if attempt.state not in OPEN:
            continue
        if attempt.state is not AttemptState.SENDING or claimant(unit, attempt) is None:
            unit.be_alone()
        touched.add(item.batch)
        if item.state is AttemptState.AMBIGUOUS:
            close(unit, attempt, item.state, item.at)
            continue
        request = release(unit, attempt, item.state, item.at)
        if request is not None and item.failure is not None:
            request.state, request.error = RequestState.FAILED, item.failure
    for key in sorted(touched):
        assign_spares(unit, key)
    return [None] * len(items)


SHARING = frozenset({ask, check, confirm, end})
"""The transitions that many processes may run on one batch at the same time."""
