"""Reading a batch's listing: as a baseline before the first call, and to settle what is unknown."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from rm_voucher.exceptions import InvalidRequestError, LedgerError
from rm_voucher.ledger.rules.commands import Found, Listed, Settlement
from rm_voucher.ledger.rules.matching import Evidence, candidates, conclude, time_of
from rm_voucher.ledger.rules.records import Attempt, AttemptState, Batch
from rm_voucher.ledger.rules.settling import list_codes, settle
from rm_voucher.models import Voucher, VoucherBatch, VoucherStatus
from rm_voucher.redaction import hide_locals
from rm_voucher.service.client import VoucherClient

if TYPE_CHECKING:
    from rm_voucher.ledger.ledger import Ledger

_log = logging.getLogger("rm_voucher.ledger")
_POLL_S = 0.1  # at first, for calls to end; then ever more rarely
_LONGEST_POLL_S = 5.0
_LONG_CALL_S = 900.0  # with all its attempts; more than any call takes
_AT_ONCE = 200
_BASELINE_TRIES = 3  # a listing may be a little behind
_BASELINE_WAIT_S = 5.0
_WITHOUT_CODE = (
    AttemptState.AMBIGUOUS,
    AttemptState.NOT_ISSUED,
    AttemptState.UNRESOLVED,
    AttemptState.WRITTEN_OFF,
)
"""The states of attempts whose code may be among the orphans."""


@attrs.frozen(kw_only=True)
class HeldAttempt:
    """An attempt that a person must resolve.

    ``candidates`` are the codes of the listing that may be its own: none, one or several, and in
    a shared batch maybe somebody else's. Times are seconds since 1970, UTC.
    """

    attempt_id: str
    sent_at: float
    ended_at: float | None
    candidates: tuple[str, ...] = attrs.field(repr=lambda codes: f"<{len(codes)} code(s)>")


@attrs.frozen(kw_only=True)
class Reconciliation:
    """What a reconciliation did.

    Attributes:
        listed: how many issued vouchers the batch's listing has.
        adopted: lost answers whose code was found.
        not_issued: unknown outcomes that proved to be nothing.
        open: unknown outcomes that are too young to be settled, or for which the listing was
            not complete.
        held: what needs a person, of this and earlier reconciliations.
        foreign: codes found to be somebody else's.
        alarm: why the batch is stopped, if it is.
    """

    listed: int
    adopted: int
    not_issued: int
    open: int
    held: tuple[HeldAttempt, ...]
    foreign: int
    alarm: str | None


async def prepare(ledger: Ledger, client: VoucherClient, batch_key: str) -> None:
    """Refuse a static batch; read the baseline of one that has none."""
    batch = await _look_up(client, batch_key)
    if batch is not None and batch.is_static:
        raise InvalidRequestError.refused(
            "This batch is static, with one code for everybody: a ledger, which gives each request "
            "a code of its own, has no use for it. Read the code off the batch (static_code)."
        )
    rows = await ledger.read(lambda unit: unit.find_batches())
    row = next((row for row in rows if row.key == batch_key), Batch(batch_key))
    if row.baseline_at is None and row.alarm is None:
        await read_baseline(ledger, client, batch_key)


@hide_locals
async def read_baseline(
    ledger: Ledger, client: VoucherClient, batch_key: str, *, anew: bool = False
) -> None:
    """Keep the codes that are issued already, so that none of them is ever given to anybody."""

    async def keep(found: Iterable[Found] = (), *, anew: bool = False, last: bool = False) -> None:
        item = Listed(batch=batch_key, at=ledger.now(), found=tuple(found), anew=anew, last=last)
        error = await ledger.commit(list_codes, item)
        if error is not None:
            raise error

    if anew:
        await client.vouchers(batch_key)  # refuses a misspelt key, before it is a stopped batch
        await keep(anew=True)
    for _ in range(_BASELINE_TRIES):
        issued_before = _issued_count(await _look_up(client, batch_key))
        seen = set[str]()  # a listing that moves while it is read shows some twice, and others not
        async for page in client.vouchers(batch_key).pages():
            issued = _issued(page.items)
            seen.update(found.code for found in issued)
            for begin in range(0, len(issued), _AT_ONCE):
                await keep(issued[begin : begin + _AT_ONCE])
        if not ledger.check_balance or issued_before is None or len(seen) >= issued_before:
            await keep(last=True)
            return
        await ledger.sleep(_BASELINE_WAIT_S)
    raise LedgerError(
        f"The batch's listing has {len(seen):,} issued vouchers, and by its balance there are "
        f"{issued_before:,}: a code that is not listed yet would pass for ours. Try again later."
    )


@hide_locals
async def reconcile(
    ledger: Ledger, client: VoucherClient, batch_key: str, *, wait: bool
) -> Reconciliation:
    """Read the listing, and settle what it proves."""
    await ledger.recover(batch_key)
    if wait:
        await _ripen(ledger, batch_key)
    begun = ledger.monotonic()
    batch = await _look_up(client, batch_key)
    seen, orphans = set[str](), dict[str, Found]()
    async for page in client.vouchers(batch_key).pages():
        issued = _issued(page.items)
        seen.update(found.code for found in issued)
        for begin in range(0, len(issued), _AT_ONCE):
            part = issued[begin : begin + _AT_ONCE]
            orphans.update({found.code: found for found in await _unknown(ledger, part)})
    listed = len(seen)
    await _until_ended(ledger, batch_key)
    # Before the orphans are: what another process adopts meanwhile then lacks no attempt.
    attempts = await ledger.attempts(batch_key, _WITHOUT_CODE)
    # Among the orphans were codes whose answers were on their way.
    left = [
        found
        for begin in range(0, len(orphans), _AT_ONCE)
        for found in await _unknown(ledger, list(orphans.values())[begin : begin + _AT_ONCE])
    ]
    issued_before = _issued_count(batch)
    evidence = Evidence(
        mode=ledger.mode,
        orphans=left,
        attempts=attempts,
        ripe=_ripe(ledger, attempts, begun),
        complete=not ledger.check_balance or issued_before is None or listed >= issued_before,
        balanced=listed == issued_before,
        settle_s=ledger.settle_s,
        skew_s=ledger.skew_s,
    )
    settlement = conclude(batch_key, evidence, ledger.now())
    await _carry_out(ledger, settlement)
    report = await _report(ledger, batch_key, evidence, settlement, listed)
    _log.info(
        "batch reconciled: %d listed, %d adopted, %d not issued, %d open, %d held%s",
        report.listed,
        report.adopted,
        report.not_issued,
        report.open,
        len(report.held),
        f"; stopped: {report.alarm}" if report.alarm else "",
    )
    return report


async def _look_up(client: VoucherClient, batch_key: str) -> VoucherBatch | None:
    async for batch in client.batches():
        if batch.key == batch_key:
            return batch
    return None


def _issued_count(batch: VoucherBatch | None) -> int | None:
    if batch is None or batch.quantity is None or batch.balance_quantity is None:
        return None
    return batch.quantity - batch.balance_quantity


def _issued(vouchers: Iterable[Voucher]) -> list[Found]:
    """Return what has left the batch. A voucher without a code can't be anybody's."""
    return [
        Found(
            code=voucher.code,
            qr_url=voucher.qr_url,
            assigned_at=None if voucher.assigned_at is None else voucher.assigned_at.timestamp(),
        )
        for voucher in vouchers
        if voucher.code and voucher.status is not VoucherStatus.VALID
    ]


async def _unknown(ledger: Ledger, found: list[Found]) -> list[Found]:
    codes = [each.code for each in found]
    known = await ledger.read(lambda unit: unit.known(codes))
    return [each for each in found if each.code not in known]


async def _ripen(ledger: Ledger, batch_key: str) -> None:
    """Wait until ``settle_s`` has passed since the end of the last attempt that is ambiguous."""
    since = [_since(ledger, a) for a in await ledger.attempts(batch_key, (AttemptState.AMBIGUOUS,))]
    if since:
        left_s = max(since) + ledger.settle_s - ledger.monotonic()
        if left_s > 0:
            _log.info("%d outcomes are unknown: waiting %.0f s", len(since), left_s)
            await ledger.sleep(left_s)


def _since(ledger: Ledger, attempt: Attempt) -> float:
    """Return since when it is known here to have ended, by the monotonic clock.

    The other clock may have been set since, and another process's says nothing about ours.
    """
    return ledger.ambiguous_since.setdefault(attempt.id, ledger.monotonic())


def _ripe(ledger: Ledger, attempts: Iterable[Attempt], begun: float) -> frozenset[str]:
    ambiguous = [a for a in attempts if a.state is AttemptState.AMBIGUOUS]
    return frozenset(a.id for a in ambiguous if _since(ledger, a) + ledger.settle_s <= begun)


async def _until_ended(ledger: Ledger, batch_key: str) -> None:
    """Wait for the calls that were in flight while the listing was read."""
    sending = await ledger.attempts(batch_key, (AttemptState.SENDING,))
    waiting = {attempt.id for attempt in sending}
    begun, poll_s = ledger.monotonic(), _POLL_S
    while waiting:
        if ledger.monotonic() - begun > _LONG_CALL_S:
            raise LedgerError(
                "Calls of another process don't end, so nothing is concluded: end that process."
            )
        await ledger.sleep(poll_s)
        poll_s = min(2 * poll_s, _LONGEST_POLL_S)
        await ledger.recover(batch_key)
        sending = await ledger.attempts(batch_key, (AttemptState.SENDING,))
        waiting &= {attempt.id for attempt in sending}


async def _carry_out(ledger: Ledger, settlement: Settlement) -> None:
    """Commit it in parts: each is right alone. The alarm is first, because it stops the rest."""
    empty = attrs.evolve(settlement, adopt=(), not_issued=(), hold=(), foreign=(), alarm=None)
    if settlement.alarm or settlement.foreign:
        first = attrs.evolve(empty, alarm=settlement.alarm, foreign=settlement.foreign)
        await ledger.commit(settle, first)
    for begin in range(0, len(settlement.adopt), _AT_ONCE):
        part = settlement.adopt[begin : begin + _AT_ONCE]
        await ledger.commit(settle, attrs.evolve(empty, adopt=part))
    for begin in range(0, len(settlement.not_issued), _AT_ONCE):
        ids = settlement.not_issued[begin : begin + _AT_ONCE]
        await ledger.commit(settle, attrs.evolve(empty, not_issued=ids))
    for begin in range(0, len(settlement.hold), _AT_ONCE):
        ids = settlement.hold[begin : begin + _AT_ONCE]
        await ledger.commit(settle, attrs.evolve(empty, hold=ids))
    for attempt_id in (*dict(settlement.adopt), *settlement.not_issued, *settlement.hold):
        ledger.ambiguous_since.pop(attempt_id, None)


async def _report(
    ledger: Ledger,
    batch_key: str,
    evidence: Evidence,
    settlement: Settlement,
    listed: int,
) -> Reconciliation:
    rows = await ledger.read(lambda unit: unit.find_batches())
    taken = {found.code for _, found in settlement.adopt}
    left = {found.code: found for found in evidence.orphans if found.code not in taken}
    held = await ledger.attempts(batch_key, (AttemptState.UNRESOLVED,))
    if held:  # it may be its code that was taken for foreign
        times = [time_of(attempt, evidence) for attempt in held]
        begin, end = min(time[0] for time in times), max(time[1] for time in times)
        for code in await ledger.read(lambda unit: unit.find_foreign(batch_key, begin, end)):
            left[code.code] = Found(code=code.code, assigned_at=code.assigned_at)
    still_open = await ledger.attempts(batch_key, (AttemptState.AMBIGUOUS,))
    return Reconciliation(
        listed=listed,
        adopted=len(settlement.adopt),
        not_issued=len(settlement.not_issued),
        open=len(still_open),
        held=tuple(
            HeldAttempt(
                attempt_id=attempt.id,
                sent_at=attempt.sent_at,
                ended_at=attempt.ended_at,
                candidates=tuple(
                    found.code for found in candidates(attempt, left.values(), evidence)
                ),
            )
            for attempt in held
        ),
        foreign=len(settlement.foreign),
        alarm=next((row.alarm for row in rows if row.key == batch_key), None),
    )
