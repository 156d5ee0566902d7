"""Reads both lists: ours off a ledger, or off the output file of *issue*; RM's off its listing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import attrs

from rm_voucher import ConfigurationError, Voucher, VoucherBatch, VoucherClient
from rm_voucher.cli.campaign.join import Join
from rm_voucher.cli.campaign.standing import Kept, Listed, Mark
from rm_voucher.cli.progress import client_progress
from rm_voucher.cli.tables.read import Table
from rm_voucher.ledger import AttemptState, Ledger, RequestState
from rm_voucher.ledger.rules.records import Code, IssueAttempt, IssueRequest
from rm_voucher.ledger.rules.unit_of_work import UnitOfWork
from rm_voucher.models import IssuedVoucher, VoucherStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK = 500
_LONG = 2_000  # vouchers: to read fewer takes no time that is worth a word
_MOST = 2**62  # that the file of the join takes as a number
_DOUBTFUL = (AttemptState.SENDING, AttemptState.AMBIGUOUS, AttemptState.UNRESOLVED)
_WHY = {
    AttemptState.SENDING: "a call is on its way, or its process was killed",
    AttemptState.AMBIGUOUS: "the answer was lost, and is not settled yet",
    AttemptState.UNRESOLVED: "the answer was lost, and the listing can't tell: a person decides",
}
SEEN = "seen"
"""What is known of a code that came with an error."""
_SEEN = "; a code came with an error, which proves nothing"
_BY_STATE = {
    RequestState.ASSIGNED: Mark.ISSUED,
    RequestState.FAILED: Mark.FAILED,
    RequestState.UNRESOLVED: Mark.UNRESOLVED,
    RequestState.CANCELLED: Mark.GIVEN_UP,
}


@attrs.frozen(kw_only=True)
class Listing:
    """What RM says of a batch, beside its vouchers."""

    batch: VoucherBatch
    unreadable: int
    """How many vouchers may be issued, and don't show which code they are."""

    @property
    def issued_by_balance(self) -> int | None:
        """How many vouchers have left the batch by its balance, where that is shown."""
        quantity, balance = self.batch.quantity, self.batch.balance_quantity
        if quantity is None or balance is None or quantity < balance:
            return None
        return quantity - balance


def to_micros(instant: datetime) -> int:
    """Return microseconds since 1970, exactly."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _micros(seconds: float) -> int:
    """Return microseconds, rounded as wherever the command shows such a time."""
    return to_micros(datetime.fromtimestamp(seconds, UTC))


def from_micros(micros: int) -> datetime:
    """Return the instant."""
    return _EPOCH + timedelta(microseconds=micros)


async def read_ledger(ledger: Ledger, batch_key: str, join: Join) -> None:
    """Put all requests of a batch into the join. Raises `LedgerError`."""
    attempts = {each.request_id: each for each in await ledger.attempts(batch_key, _DOUBTFUL)}
    block: list[tuple[Kept, None]] = []
    async for request, voucher in ledger.requests(batch_key):
        block.append((_of_request(request, voucher, attempts.get(request.id)), None))
        if len(block) == _BLOCK:
            join.add_entries(block)
            block = []
    join.add_entries(block)


def _of_request(
    request: IssueRequest, voucher: IssuedVoucher | None, attempt: IssueAttempt | None
) -> Kept:
    mark, error = _BY_STATE.get(request.state, Mark.NOT_ASKED), request.error or ""
    if mark is Mark.NOT_ASKED and request.attempt_id is not None:
        mark = Mark.UNRESOLVED
    if mark is Mark.UNRESOLVED:
        error = _WHY[AttemptState.UNRESOLVED if attempt is None else attempt.state]
        error += _SEEN if attempt is not None and attempt.seen_code is not None else ""
    sent_at = None if attempt is None or mark is not Mark.UNRESOLVED else attempt.sent_at
    return Kept(
        recipient=request.id,
        mark=mark,
        code=None if voucher is None else voucher.code,
        qr_url=voucher.qr_url or None if voucher else None,
        error=error,
        asked_at=_micros(request.asked_at),
        sent_at=None if sent_at is None else _micros(sent_at),
        attempt=None if attempt is None or sent_at is None else attempt.id,
    )


def read_results(table: Table, join: Join) -> None:
    """Put the rows of an output file of *issue* into the join. Raises `TableError`."""
    if table.results is None:
        raise ConfigurationError(
            f"{table.title} is no output file of 'rm-voucher issue': it has no columns code, "
            "qr_url, voucher_status and error. Give a list of recipients with --recipients."
        )
    seen: list[str] = []
    join.add_entries(_of_results(table, seen))
    table.refuse_problems()
    join.know((code, SEEN) for code in seen)


def _of_results(table: Table, seen: list[str]) -> Iterator[tuple[Kept, int]]:
    ours, column = table.results, _column(table)
    assert ours is not None  # noqa: S101 - for the type checker
    for row in table:
        recipient, status = row.text(column).strip(), row.text(ours.voucher_status).strip()
        # Blank rows have neither; of somebody who stands there twice, one row says it.
        if status == "duplicate" or not (recipient or status):
            continue
        try:
            mark = Mark(status)
        except ValueError:
            table.problem(row.line, f"{status!r} is no voucher_status")
            continue
        code, has_it = row.text(ours.code), mark in (Mark.ISSUED, Mark.UNKEPT)
        if code and mark is Mark.UNRESOLVED:
            seen.append(code)
        if has_it and not code:
            table.problem(row.line, f"{mark.value}, and no code")
        kept = Kept(
            recipient=recipient,
            mark=mark,
            code=(code or None) if has_it else None,
            qr_url=row.text(ours.qr_url) or None,
            error=row.text(ours.error),
        )
        yield kept, row.number


def read_recipients(table: Table, join: Join) -> int:
    """Put a list of recipients into the join; return how many stand there again."""
    column = _column(table)
    return join.add_people(
        (name, row.number) for row in table if (name := row.text(column).strip())
    )


def _column(table: Table) -> int:
    assert table.column is not None  # noqa: S101 - it was opened with names
    return table.column


async def read_listing(client: VoucherClient, batch_key: str, join: Join) -> Listing:
    """Put the whole listing of a batch into the join. A read: it may be repeated."""
    batch, unreadable, read = await client.batch(batch_key), 0, 0
    total = Listing(batch=batch, unreadable=0).issued_by_balance or 0
    total = total if total >= _LONG else 0
    async with client_progress("reading RM's list", total, lambda: client.flow) as shown:
        async for page in client.vouchers(batch_key).pages():
            read += len(page.items)
            shown.update(min(read, total))
            unreadable += sum(
                not each.code and each.status is not VoucherStatus.VALID for each in page.items
            )
            join.list_vouchers(_of_voucher(each) for each in page.items if each.code)
    return Listing(batch=batch, unreadable=unreadable)


def _of_voucher(voucher: Voucher) -> Listed:
    amount_sen = voucher.amount_sen
    ends_at = None if voucher.expiry is None else voucher.expiry.expires_at
    times = (voucher.assigned_at, voucher.redeemed_at, voucher.used_at, ends_at)
    assigned, redeemed, used, ends = (None if each is None else to_micros(each) for each in times)
    return Listed(
        code=voucher.code or "",
        status=None if voucher.status is None else voucher.status.value,
        assigned_at=assigned,
        redeemed_at=redeemed,
        used_at=used,
        expires_at=ends,
        amount_sen=None if amount_sen is None or amount_sen > _MOST else amount_sen,
        qr_url=voucher.qr_url,
    )


async def know_strangers(ledger: Ledger, batch_key: str, join: Join) -> None:
    """Note what the ledger knows of listed codes that nobody has, also since it was read."""
    codes = join.strange_codes()
    while block := list(islice(codes, _BLOCK)):
        rows = await ledger.store.read(partial(_load, codes=block))
        join.know((row.code, row.state.value) for row in rows)
    held = await ledger.attempts(batch_key, _DOUBTFUL)
    join.know((each.seen_code, SEEN) for each in held if each.seen_code is not None)


def _load(unit: UnitOfWork, codes: list[str]) -> list[Code]:
    return unit.load(Code, codes)


def refuse_partial(path: Path) -> None:
    """Raise `ConfigurationError` for what a run has not finished writing."""
    if path.name.endswith(".partial"):
        raise ConfigurationError(
            f"{path} is what a run left that was killed or goes on: who has no row there may have "
            "a voucher. With a ledger, give --ledger; without one, compare the batch's vouchers."
        )
