"""What RM's listings say about a batch, and how much of them can't be read.

A value that does not fit is neither proof nor nothing: it is counted here, so that nothing is
concluded from its absence.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Collection, Iterable, Iterator

from rm_voucher.calls.flow import SKIPS_QUEUE
from rm_voucher.ledger.process import LedgerClock
from rm_voucher.ledger.rules.commands import Found
from rm_voucher.models import ALL_OF_IT, Page, Voucher, VoucherBatch, VoucherStatus
from rm_voucher.service.client import VoucherClient

_SHARE = 0.2  # of the permits, while calls wait for theirs


@contextlib.contextmanager
def before_waiting_calls() -> Iterator[None]:
    """Send this task's requests before those that wait: what settles them must not wait for them.

    One request at a time; see `voucher_pages` for how often.
    """
    token = SKIPS_QUEUE.set(True)
    try:
        yield
    finally:
        SKIPS_QUEUE.reset(token)


async def voucher_pages(
    client: VoucherClient, batch_key: str, clock: LedgerClock
) -> AsyncIterator[Page[Voucher]]:
    """Iterate over a batch's listing, with a fifth of the client's rate while calls wait."""
    begun = clock.monotonic()
    async for page in client.vouchers(batch_key).pages():
        yield page
        flow = client.flow
        if flow.waiting and flow.rate_per_s and page.cursor is not None:
            left_s = begun + 1 / (_SHARE * flow.rate_per_s) - clock.monotonic()
            await clock.sleep(max(0.0, left_s))
        begun = clock.monotonic()


async def look_up(
    client: VoucherClient, batch_key: str
) -> tuple[VoucherBatch | None, float | None]:
    """Return the batch, if it is listed, and how many vouchers of it are issued by its balance.

    The number is None where no balance is shown, and infinite where it can't be read: then any
    number may be issued.
    """
    may_be_hidden = False
    async for batch in client.batches():
        if batch.key == batch_key:
            return batch, _issued_by_balance(batch)
        may_be_hidden |= not batch.misfits.keys().isdisjoint(("key", ALL_OF_IT))
    return None, math.inf if may_be_hidden else None


def _issued_by_balance(batch: VoucherBatch) -> float | None:
    quantity, balance = batch.quantity, batch.balance_quantity
    if not batch.misfits.keys().isdisjoint(("quantity", "balance_quantity")):
        return math.inf
    if quantity is None or balance is None:
        return None
    return quantity - balance if quantity >= balance else math.inf


def issued(vouchers: Iterable[Voucher]) -> list[Found]:
    """Return the vouchers that have left the batch: all but those that are surely VALID."""
    return [
        Found(
            code=voucher.code,
            qr_url=voucher.qr_url,
            assigned_at=None if voucher.assigned_at is None else voucher.assigned_at.timestamp(),
        )
        for voucher in vouchers
        if voucher.code and voucher.status is not VoucherStatus.VALID
    ]


def count_without_code(vouchers: Iterable[Voucher]) -> int:
    """Return how many vouchers may be issued, and don't show which code they are."""
    return sum(
        not voucher.code and voucher.status is not VoucherStatus.VALID for voucher in vouchers
    )


def have_odd_time(vouchers: Iterable[Voucher], codes: Collection[str]) -> bool:
    """Return whether one of these codes is shown with a time of issue that can't be read."""
    return any("assigned_at" in voucher.misfits and voucher.code in codes for voucher in vouchers)
