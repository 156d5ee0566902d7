"""What a command does with one code, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import attrs

from rm_voucher import OutcomeUnknownError, Voucher, VoucherClient
from rm_voucher.calls.recovery import Verdict, judge_redeem, judge_reinstate, judge_void
from rm_voucher.converters import format_time

OURS = ("outcome", "status", "redeemed_at", "used_at", "expires_at", "error")
"""The columns that a run appends."""
FAILED, UNRESOLVED, NOT_ASKED = "failed", "unresolved", "not_asked"


@attrs.frozen(kw_only=True)
class Operation:
    """What is done with each code."""

    name: str
    """The command."""
    doing: str
    """As a bar says it."""
    done: str
    """The outcome of a code with which it was done, in the column and in a sentence."""
    call: Callable[[VoucherClient, str, datetime | None], Awaitable[Voucher]] = attrs.field(
        repr=False
    )
    """Does it; the instant is the one that proves a void."""
    judge: Callable[[Voucher, datetime | None], Verdict] | None = attrs.field(
        default=None, repr=False
    )
    """What a voucher proves of a call that may have been made; None for a read."""
    has_used_at: bool = False
    """Whether the instant is sent."""
    may_have_used_at: bool = False
    """Whether an earlier run of the command may have sent one."""

    @property
    def doubt(self) -> str:
        """What is said of a code that an earlier run may have asked for."""
        return (
            f"It may have been {self.done} by an earlier run of this command, or by somebody else: "
            "nothing proves either."
        )


def looking_up() -> Operation:
    """Look each up."""
    return Operation(
        name="get", doing="looking up", done="found", call=lambda client, code, _: client.get(code)
    )


def voiding(store_id: str | None = None, *, sends_used_at: bool = True) -> Operation:
    """Void each."""
    return Operation(
        name="void",
        doing="voiding",
        done="voided",
        call=lambda client, code, at: client.void(code, store_id=store_id, used_at=at),
        judge=lambda voucher, at: judge_void(voucher, used_at=at),
        has_used_at=sends_used_at,
        may_have_used_at=True,
    )


def redeeming() -> Operation:
    """Redeem each, by a request of its own, so that each has an outcome of its own."""

    async def redeem(client: VoucherClient, code: str, _: datetime | None) -> Voucher:
        return (await client.redeem([code]))[0]

    return Operation(
        name="redeem",
        doing="redeeming",
        done="redeemed",
        call=redeem,
        judge=lambda voucher, _: judge_redeem(voucher),
    )


def reinstating(pin: str, reason: str | None = None) -> Operation:
    """Make each usable again."""
    return Operation(
        name="reinstate",
        doing="reinstating",
        done="reinstated",
        call=lambda client, code, _: client.reinstate(code, pin=pin, reason=reason),
        judge=lambda voucher, _: judge_reinstate(voucher),
    )


def row_of(
    outcome: str,
    voucher: Voucher | None = None,
    *,
    error: BaseException | str = "",
    used_at: datetime | None = None,
) -> Mapping[str, str]:
    """Return our columns of a row; ``used_at`` is what was sent, where no voucher shows it."""
    expiry = voucher.expiry if voucher else None
    times = {
        "redeemed_at": voucher.redeemed_at if voucher else None,
        "used_at": (voucher.used_at if voucher else None) or used_at,
        "expires_at": expiry.expires_at if expiry else None,
    }
    if outcome == UNRESOLVED and used_at is not None:
        times["used_at"] = used_at  # by which a later look may prove it
    return {
        "outcome": outcome,
        "status": (voucher.status or "") if voucher else "",
        **{name: format_time(at) if at else "" for name, at in times.items()},
        "error": str(error),
    }


def instant_of(begun_at: datetime, number: int) -> datetime:
    """Return the instant of a row's void, in a run that began then: no other row has it."""
    return begun_at + timedelta(microseconds=number)


def seen_in(error: OutcomeUnknownError) -> Voucher | None:
    """Return the voucher as it was read back, if it was."""
    for found in (error.voucher, *error.vouchers):
        if isinstance(found, Voucher):
            return found
    return None
