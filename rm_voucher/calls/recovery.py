"""What a voucher that was read back proves about a call whose answer was lost. Pure.

A voucher with a status or time that does not fit proves nothing.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta

from rm_voucher.models import Voucher, VoucherStatus

_CLOCKS_APART = timedelta(minutes=10)  # RM's and ours, at most
_NOT_REDEEMED = frozenset(
    {
        VoucherStatus.VALID,
        VoucherStatus.ISSUED,
        VoucherStatus.EXPIRED,
        VoucherStatus.MARKET_PLACE,
    }
)
_NOT_VOID = _NOT_REDEEMED | {VoucherStatus.REDEEMED}


class Verdict(enum.Enum):
    """What the voucher proves about the call whose answer was lost."""

    DONE = "done"
    """It was executed, and it was ours."""
    UNCHANGED = "unchanged"
    """The voucher shows no trace of it. It may still arrive, so sending again must be harmless."""
    UNPROVEN = "unproven"
    """The voucher has changed, but anybody may have done that."""


def judge_void(voucher: Voucher, *, used_at: datetime | None) -> Verdict:
    """Judge a *void* that was sent with ``used_at``.

    A void voucher proves ours only when it carries the very instant that we sent: another till
    may have voided it, and honouring it twice is a loss. Reinstating leaves ``used_at`` in place,
    so without the status VOID it proves nothing. An undocumented status, or none, proves nothing
    either way. The wire carries microseconds.
    """
    if not _is_clear(voucher):
        return Verdict.UNPROVEN
    if voucher.status in _NOT_VOID:
        return Verdict.UNCHANGED
    is_void = voucher.status is VoucherStatus.VOID
    if is_void and used_at is not None and voucher.used_at == used_at.astimezone(UTC):
        return Verdict.DONE
    return Verdict.UNPROVEN


def judge_member_redeem(voucher: Voucher, *, begun_at: datetime) -> Verdict:
    """Judge a member's *redeem* that began at ``begun_at``. Any call may have voided the voucher.

    RM's example turns a REDEEMED voucher VOID. RM does not document whether the call can also turn
    a voucher REDEEMED, so one that was redeemed at about that time proves nothing.
    """
    redeemed_at = voucher.redeemed_at
    is_recent = redeemed_at is not None and redeemed_at > begun_at - _CLOCKS_APART
    if voucher.status is VoucherStatus.REDEEMED and is_recent:
        return Verdict.UNPROVEN
    return judge_void(voucher, used_at=None)


def judge_redeem(voucher: Voucher) -> Verdict:
    """Judge a *redeem*: nothing on a redeemed voucher tells which call redeemed it.

    A voucher may expire, or be voided, after its redemption, so ``redeemed_at`` counts too.
    """
    unchanged = voucher.status in _NOT_REDEEMED and voucher.redeemed_at is None
    return Verdict.UNCHANGED if unchanged and _is_clear(voucher) else Verdict.UNPROVEN


def judge_reinstate(voucher: Voucher) -> Verdict:
    """Judge a *reinstate*: nothing on a reinstated voucher tells which call reinstated it."""
    is_void = voucher.status is VoucherStatus.VOID
    return Verdict.UNCHANGED if is_void and _is_clear(voucher) else Verdict.UNPROVEN


def _is_clear(voucher: Voucher) -> bool:
    """Return whether all that the verdicts rest on fits: a misfit reads as None, as *not set*."""
    return voucher.misfits.keys().isdisjoint(("status", "redeemed_at", "used_at"))
