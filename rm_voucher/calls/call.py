"""One call, as `caller` makes it and a bulk run or a ledger watches it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

import attrs

from rm_voucher.calls.hooks import Parse
from rm_voucher.calls.outcomes import Safety, classify, may_repeat
from rm_voucher.calls.recovery import Verdict
from rm_voucher.exceptions import OutcomeUnknownError, VoucherError
from rm_voucher.settings import Timeout
from rm_voucher.transport.base import Request

T = TypeVar("T")


@attrs.define(eq=False)
class Call(Generic[T]):
    """One call, and what its attempts have shown so far."""

    request: Request
    parse: Parse[T] = attrs.field(repr=False)
    safety: Safety
    timeout: Timeout
    deadline: float | None  # by the monotonic clock
    batch_key: str | None = None
    code: str | None = attrs.field(default=None, repr=False)
    # Of a reconcilable operation: read the voucher back, and say what it means.
    read_back: Callable[[], Awaitable[tuple[Verdict, T]]] | None = attrs.field(
        default=None, repr=False
    )

    token: str = attrs.field(default="", repr=False)
    token_renewed: bool = False
    lacks_token: bool = False  # was refused, and no other could be had for now
    attempts: int = 0
    attempt_id: str = ""
    nonce: str | None = None
    sent_unix_s: float | None = None
    unknown_cause: VoucherError | None = None  # after which it may have been executed
    unchanged: bool = False
    # Whether nothing of it is in flight: it waits for a token, or to be sent again. What ends the
    # wait by an error or a cancellation leaves it True, so that who catches that can tell.
    pausing: bool = False
    is_signing: bool = False  # pausing, but for a moment
    abandoned: bool = False  # by who watches it, or for want of a turn: it is not sent again
    # How a bulk run signs: elsewhere than on the event loop.
    sign: Callable[[bytes], Awaitable[bytes]] | None = attrs.field(default=None, repr=False)
    is_bulk: bool = False  # one of many, which lets single calls pass
    counted_failure: int = -1  # see `Flow.failed`
    throttled_at: float | None = None  # first, by the monotonic clock
    uncounted: int = 0  # attempts that were throttled, and don't count

    @property
    def sent_at(self) -> datetime | None:
        """When it was sent last."""
        return None if self.sent_unix_s is None else datetime.fromtimestamp(self.sent_unix_s, UTC)

    def may_repeat_after(self, error: VoucherError) -> bool:
        """Return whether the retry policy may attempt the call again after this error."""
        if self.abandoned:
            return False
        if isinstance(error, OutcomeUnknownError):
            return self.unchanged
        return may_repeat(self.safety, classify(error))
