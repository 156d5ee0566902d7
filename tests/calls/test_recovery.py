"""Reading back: what a voucher proves about a void whose answer was lost."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rm_voucher import Voucher, VoucherStatus
from rm_voucher.calls.recovery import Verdict, judge_member_redeem, judge_void

OURS = datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)
THEIRS = OURS + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("status", "found", "sent", "verdict"),
    [
        (VoucherStatus.VOID, OURS, OURS, Verdict.DONE),
        (
            VoucherStatus.VOID,
            OURS,
            OURS.astimezone(timezone(timedelta(hours=8))),
            Verdict.DONE,
        ),
        (VoucherStatus.VOID, THEIRS, OURS, Verdict.UNPROVEN),
        (VoucherStatus.VOID, None, OURS, Verdict.UNPROVEN),
        (VoucherStatus.VOID, OURS, None, Verdict.UNPROVEN),
        (VoucherStatus.VOID, None, None, Verdict.UNPROVEN),
        (VoucherStatus.ISSUED, None, OURS, Verdict.UNCHANGED),
        (VoucherStatus.REDEEMED, OURS, OURS, Verdict.UNCHANGED),
        (VoucherStatus.EXPIRED, None, OURS, Verdict.UNCHANGED),
        (VoucherStatus.VALID, None, OURS, Verdict.UNCHANGED),
        (VoucherStatus.MARKET_PLACE, None, OURS, Verdict.UNCHANGED),
        (VoucherStatus("NEW"), OURS, OURS, Verdict.UNPROVEN),
        (VoucherStatus.COMPLETE, OURS, OURS, Verdict.UNPROVEN),
        (None, OURS, OURS, Verdict.UNPROVEN),
    ],
)
def test_judge_void(status, found, sent, verdict):
    """Only VOID at the very instant that was sent proves that this call did it."""
    assert judge_void(Voucher(status=status, used_at=found), used_at=sent) is verdict


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "redeemed_at", "verdict"),
    [
        (VoucherStatus.REDEEMED, OURS - 60 * MINUTE, Verdict.UNCHANGED),
        (VoucherStatus.REDEEMED, OURS - 11 * MINUTE, Verdict.UNCHANGED),
        (VoucherStatus.REDEEMED, OURS - 9 * MINUTE, Verdict.UNPROVEN),
        (VoucherStatus.REDEEMED, OURS + MINUTE, Verdict.UNPROVEN),
        (VoucherStatus.REDEEMED, None, Verdict.UNCHANGED),
        (VoucherStatus.ISSUED, None, Verdict.UNCHANGED),
        (VoucherStatus.ISSUED, OURS, Verdict.UNCHANGED),
        (VoucherStatus.VOID, OURS - 60 * MINUTE, Verdict.UNPROVEN),
        (VoucherStatus("NEW"), None, Verdict.UNPROVEN),
        (None, None, Verdict.UNPROVEN),
    ],
)
def test_judge_member_redeem(status, redeemed_at, verdict):
    """A voucher that was redeemed long before is unchanged; one that was just redeemed, perhaps by
    this very call, proves nothing, as a void one does."""
    voucher = Voucher(status=status, redeemed_at=redeemed_at, used_at=OURS)
    assert judge_member_redeem(voucher, begun_at=OURS) is verdict
