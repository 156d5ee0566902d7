"""How a bulk issue ended: for one recipient, and in numbers."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import attrs

from rm_voucher.calls.call import Call
from rm_voucher.exceptions import OutcomeUnknownError, VoucherError
from rm_voucher.models import IssuedVoucher

R = TypeVar("R")


class BulkStatus(enum.StrEnum):
    """How it ended for one recipient."""

    ISSUED = "issued"
    FAILED = "failed"
    """Definitely no voucher."""
    UNRESOLVED = "unresolved"
    """A voucher may have been issued whose code is not known. Never simply ask again."""


@attrs.frozen(kw_only=True)
class BulkResult(Generic[R]):
    """The end for one recipient.

    ``attempts`` is 0 when the run had already become hopeless, or the ledger had the voucher.
    """

    recipient: R = attrs.field(repr=False)
    status: BulkStatus
    voucher: IssuedVoucher | None = None
    error: VoucherError | None = None
    attempts: int


@attrs.frozen(kw_only=True)
class BulkSummary:
    """Counts so far.

    ``asked`` recipients were taken; ``issued``, ``failed`` and ``unresolved`` have ended. With a
    ledger, ``held`` of the others wait for an unknown outcome to be settled, and ``spare`` codes
    of the batch are nobody's yet, which is counted at the end.
    """

    asked: int = 0
    issued: int = 0
    failed: int = 0
    unresolved: int = 0
    held: int = 0
    spare: int = 0

    @property
    def in_flight(self) -> int:
        """How many recipients were taken and have not ended."""
        return self.asked - self.issued - self.failed - self.unresolved


def issued(recipient: R, voucher: IssuedVoucher, attempts: int) -> BulkResult[R]:
    """Return the result of a recipient that has a voucher."""
    return BulkResult(
        recipient=recipient, status=BulkStatus.ISSUED, voucher=voucher, attempts=attempts
    )


def failed(recipient: R, error: VoucherError, attempts: int = 0) -> BulkResult[R]:
    """Return the result of a recipient that definitely has none."""
    return BulkResult(recipient=recipient, status=BulkStatus.FAILED, error=error, attempts=attempts)


def unresolved(recipient: R, error: VoucherError, attempts: int) -> BulkResult[R]:
    """Return the result of a recipient for whom a voucher may have been issued."""
    return BulkResult(
        recipient=recipient, status=BulkStatus.UNRESOLVED, error=error, attempts=attempts
    )


def broken_off(
    recipient: R, exc: BaseException, batch_key: str, call: Call[IssuedVoucher] | None
) -> BulkResult[R]:
    """Return the result of a recipient whose call was broken off by what is no outcome."""
    error = OutcomeUnknownError(
        f"issue: {type(exc).__name__} broke it off; whether it was executed is unknown",
        operation="issue",
        batch_key=batch_key,
    )
    if call is not None:
        error.attempt_id, error.nonce, error.sent_at = call.attempt_id, call.nonce, call.sent_at
    return unresolved(recipient, error, call.attempts if call else 0)
