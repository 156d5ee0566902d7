"""The results of a bulk issue: one for each recipient, and the counts."""

from __future__ import annotations

import enum
from typing import Generic, Literal, TypeAlias, TypeVar

import attrs

from rm_voucher.calls.call import Call
from rm_voucher.exceptions import ConnectError, OutcomeUnknownError, VoucherError
from rm_voucher.models import IssuedVoucher
from rm_voucher.travel import Shown, Travels

R = TypeVar("R")


class BulkStatus(enum.StrEnum):
    """How it ended for one recipient."""

    ISSUED = "issued"
    FAILED = "failed"
    """Definitely no voucher."""
    UNRESOLVED = "unresolved"
    """A voucher may have been issued whose code is not known, or not certain. Never simply ask
    again."""


@attrs.frozen(kw_only=True)
class Issued(Shown, Generic[R]):
    """The recipient has a voucher: hand it on.

    ``attempts`` is 0 if the ledger had the voucher already.
    """

    recipient: R = attrs.field(repr=False)
    status: Literal[BulkStatus.ISSUED] = attrs.field(default=BulkStatus.ISSUED, init=False)
    voucher: IssuedVoucher
    error: None = attrs.field(default=None, init=False)
    attempts: int
    was_asked: Literal[True] = attrs.field(default=True, init=False)


@attrs.frozen(kw_only=True)
class Failed(Shown, Generic[R]):
    """The recipient definitely has no voucher, for the reason in ``error``.

    ``attempts`` is 0 if a fatal error had already ended the run.
    """

    recipient: R = attrs.field(repr=False)
    status: Literal[BulkStatus.FAILED] = attrs.field(default=BulkStatus.FAILED, init=False)
    voucher: None = attrs.field(default=None, init=False)
    error: VoucherError
    attempts: int
    was_asked: bool = True
    """False where the run ended while it waited: nothing was done for it."""


@attrs.frozen(kw_only=True)
class Unresolved(Shown, Generic[R]):
    """The recipient may have a voucher whose code is not known, or not certain.

    Never simply ask again. There is a ``voucher`` where a code is known that is not to be handed on
    yet: the ledger could not keep it, or it came with an error. Keep it until the ledger has
    settled it.
    """

    recipient: R = attrs.field(repr=False)
    status: Literal[BulkStatus.UNRESOLVED] = attrs.field(default=BulkStatus.UNRESOLVED, init=False)
    voucher: IssuedVoucher | None = None
    error: OutcomeUnknownError
    attempts: int
    was_asked: Literal[True] = attrs.field(default=True, init=False)


BulkResult: TypeAlias = Issued[R] | Failed[R] | Unresolved[R]
"""The end for one recipient: `match` tells which. All have ``recipient``, ``status``, ``voucher``,
``error``, ``attempts`` and ``was_asked``."""


@attrs.frozen(kw_only=True)
class BulkSummary(Travels):
    """Counts so far.

    ``asked`` recipients were taken; ``issued``, ``failed`` and ``unresolved`` have ended. With a
    ledger, ``held`` recipients wait for an unknown outcome to be settled; ``spare`` codes of the
    batch are no request's yet, which is counted at the end.
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


def issued(recipient: R, voucher: IssuedVoucher, attempts: int) -> Issued[R]:
    """Return the result of a recipient that has a voucher."""
    return Issued(recipient=recipient, voucher=voucher, attempts=attempts)


def not_issued(recipient: R, error: VoucherError, attempts: int = 0) -> Failed[R] | Unresolved[R]:
    """Return the result of a recipient without one: unresolved if the outcome is unknown."""
    if not isinstance(error, OutcomeUnknownError):
        return Failed(recipient=recipient, error=error, attempts=attempts)
    voucher = error.voucher if isinstance(error.voucher, IssuedVoucher) else None
    return Unresolved(recipient=recipient, voucher=voucher, error=error, attempts=attempts)


def not_asked(recipient: R, why: str, attempts: int = 0) -> Failed[R]:
    """Return the result of a recipient that a run ended before: nothing was done."""
    error = ConnectError(why)
    return Failed(recipient=recipient, error=error, attempts=attempts, was_asked=False)


def aborted(
    recipient: R,
    crash: BaseException | None,
    batch_key: str,
    call: Call[IssuedVoucher] | None,
    *,
    fatal: VoucherError | None = None,
) -> BulkResult[R]:
    """Return the result of a recipient whose worker ended early, by a crash or a cancellation.

    ``fatal`` is why calls that waited were given up, if not for a shut-down.
    """
    attempts = call.attempts if call else 0
    if crash is None and call is None:
        return not_asked(recipient, "issue: the run was shut down before it was sent")
    if crash is None and call is not None and call.has_begun and not call.in_flight:
        if fatal is not None:
            return not_issued(recipient, fatal, attempts)
        given_up = f"issue: given up while it waited; nothing had been done{call.last_trouble}"
        return not_asked(recipient, given_up, attempts)
    cause = "CancelledError" if crash is None else type(crash).__name__
    unknown = OutcomeUnknownError(
        f"issue: {cause} aborted it; whether it was executed is unknown",
        operation="issue",
        batch_key=batch_key,
    )
    if call is not None:
        unknown.attempt_id, unknown.nonce = call.attempt_id, call.nonce
        unknown.sent_at = call.sent_at
    return not_issued(recipient, unknown, attempts)
