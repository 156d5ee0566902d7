"""Where each recipient of a campaign stands, and where our list and RM's differ. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator

import attrs

from rm_voucher.models import VoucherStatus, mask


class Mark(enum.StrEnum):
    """What our side says of a recipient; each is a ``voucher_status`` of *issue*."""

    ISSUED = "issued"
    FAILED = "failed"
    UNRESOLVED = "unresolved"
    UNKEPT = "unkept"
    """The code arrived, and the ledger could not keep it."""
    GIVEN_UP = "given_up"
    """A person gave it up."""
    NOT_ASKED = "not_asked"
    """No call was made, or only calls that provably did nothing and may be made again."""

    @property
    def voucher_status(self) -> str:
        """What a row of results says."""
        return self.value


class Standing(enum.StrEnum):
    """Where a recipient stands, in one word. Each recipient has exactly one."""

    SERVED = "served"
    """Has a code, which is not redeemed or used yet."""
    REDEEMED = "redeemed"
    """It is in a customer's account, and not used."""
    USED = "used"
    """It is VOID, and RM shows when it was used."""
    VOID = "void"
    """It is VOID, and RM shows no time of use."""
    EXPIRED = "expired"
    """It ended before it was used."""
    OTHER = "other"
    """RM lists it in another way: as not issued, as a status that has no meaning here."""
    UNLISTED = "unlisted"
    """Has a code that RM's listing doesn't have."""
    HELD = "held"
    """May have a voucher: the outcome is unknown, or the ledger could not keep the code."""
    REFUSED = "refused"
    """Has none: RM refused it, or nothing was done."""
    GIVEN_UP = "given_up"
    """Has none, and gets none: a person decided so."""
    NEVER_ASKED = "never_asked"
    """Has none: nobody asked for one yet, or a person decided that it is asked for again."""


WITH_CODE = frozenset(
    {
        Standing.SERVED,
        Standing.REDEEMED,
        Standing.USED,
        Standing.VOID,
        Standing.EXPIRED,
        Standing.OTHER,
        Standing.UNLISTED,
    }
)
"""Whoever stands so has a code to be handed on."""
RESENT = frozenset({Standing.REFUSED, Standing.NEVER_ASKED})
"""Whoever stands so has none, provably, and may be asked for again."""

MEANINGS = {
    Standing.SERVED: "have a code that is not redeemed or used yet",
    Standing.REDEEMED: "took it into their account and have not used it",
    Standing.USED: "used it, or it was cancelled: RM has one word for both",
    Standing.VOID: "have a code that is void without a time of use",
    Standing.EXPIRED: "have a code that ended before it was used",
    Standing.OTHER: "have a code with a status that says none of this",
    Standing.UNLISTED: "have a code that RM does not list",
    Standing.HELD: "may have a voucher: the outcome is unknown",
    Standing.REFUSED: "have none, because it was refused or failed",
    Standing.GIVEN_UP: "have none and get none: a person decided so",
    Standing.NEVER_ASKED: "have none and are to be asked for: not asked yet, or decided so",
}
"""What a table says of each, after the number."""


@attrs.frozen(kw_only=True)
class Kept:
    """A recipient, as our side has it. Times are microseconds since 1970, UTC."""

    recipient: str
    mark: Mark
    code: str | None = attrs.field(default=None, repr=mask)
    qr_url: str | None = attrs.field(default=None, repr=mask)
    error: str = ""
    asked_at: int | None = None
    sent_at: int | None = None
    """When the call was sent whose outcome is unknown."""
    attempt: str | None = None
    """That call, as the ledger names it."""


@attrs.frozen(kw_only=True)
class Listed:
    """A voucher, as RM lists it. Times are microseconds since 1970, UTC."""

    code: str = attrs.field(repr=mask)
    status: str | None
    """None where it is missing, or can't be read."""
    assigned_at: int | None = None
    redeemed_at: int | None = None
    used_at: int | None = None
    expires_at: int | None = None
    amount_sen: int | None = None
    qr_url: str | None = attrs.field(default=None, repr=mask)

    @property
    def was_issued(self) -> bool:
        """Whether it left its batch, as far as can be told: all but what is surely VALID."""
        return self.status != VoucherStatus.VALID.value


_BY_STATUS = {
    VoucherStatus.ISSUED.value: Standing.SERVED,
    VoucherStatus.REDEEMED.value: Standing.REDEEMED,
    VoucherStatus.EXPIRED.value: Standing.EXPIRED,
}
_BY_MARK = {
    Mark.UNRESOLVED: Standing.HELD,
    Mark.UNKEPT: Standing.HELD,
    Mark.FAILED: Standing.REFUSED,
    Mark.GIVEN_UP: Standing.GIVEN_UP,
    Mark.NOT_ASKED: Standing.NEVER_ASKED,
}


def standing_of(kept: Kept, listed: Listed | None) -> Standing:
    """Return where a recipient stands, by our side and what RM lists under their code.

    A code counts only where it was issued to them: what came with an error proves nothing.
    """
    if kept.mark is not Mark.ISSUED:
        return _BY_MARK[kept.mark]
    if listed is None:
        return Standing.UNLISTED
    if listed.status == VoucherStatus.VOID.value:
        return Standing.VOID if listed.used_at is None else Standing.USED
    return _BY_STATUS.get(listed.status or "", Standing.OTHER)


class Difference(enum.StrEnum):
    """What is not the same in our list and RM's."""

    UNKNOWN = "unknown_to_us"
    """RM lists it as issued, and our side does not know it."""
    UNLISTED = "not_listed"
    """Our side has issued it, and RM does not list it."""
    STATUS = "status_differs"
    """Our side has issued it, and RM's status of it does not say so."""
    TWICE = "same_code"
    """Our side has given it to two recipients."""


def difference_of(kept: Kept, listed: Listed | None, *, holders: int) -> Iterator[Difference]:
    """Iterate over the differences of a recipient's code, which so many of ours have."""
    if kept.mark is not Mark.ISSUED:
        return
    if listed is None:
        yield Difference.UNLISTED
    elif standing_of(kept, listed) is Standing.OTHER:
        yield Difference.STATUS
    if holders > 1:
        yield Difference.TWICE
