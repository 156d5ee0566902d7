"""What an error proves about the request, as data.

`classify` names the `Outcome` of an attempt that ended in an error. `may_repeat` says whether an
operation of a given `Safety` may be sent again after it, `retryable_of` whether a whole call may be
made again.
"""

from __future__ import annotations

import enum

from rm_voucher.exceptions import (
    APIError,
    BatchStoppedError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    DuplicateRequestError,
    EventStoreError,
    IdempotencyConflictError,
    LedgerError,
    OutcomeUnknownError,
    PoolTimeoutError,
    ProxyError,
    ResponseLostError,
    Retryable,
    SharedStoreError,
    VoucherError,
)
from rm_voucher.wire.error_codes import ERROR_CODES, CodeClass


class Safety(enum.Enum):
    """What repeating an operation can do."""

    READ = "read"
    """Nothing: retried freely."""
    ONCE = "once"
    """Damage: sent again only after an outcome that proves that nothing was done."""
    RECONCILABLE = "reconcilable"
    """Damage, but the voucher shows whether it was done: read back before it is sent again."""


class Remedy(enum.StrEnum):
    """What may help after an error."""

    WAIT = "wait"
    TOKEN = "token"  # noqa: S105 - no secret
    NONE = ""


class Outcome(enum.Enum):
    """What an error proves about the request, and what may help.

    Attributes:
        nothing_done: whether it is proven that the request was not executed.
        remedy: what may help.
        words: the outcome, for logs and messages.
    """

    NOT_SENT = (True, Remedy.WAIT, "not sent")
    THROTTLED = (True, Remedy.WAIT, "throttled")
    TOKEN_REFUSED = (True, Remedy.TOKEN, "token refused")
    REFUSED = (True, Remedy.NONE, "refused")
    DUPLICATE = (False, Remedy.WAIT, "refused as a duplicate of an earlier copy")
    LOST = (False, Remedy.WAIT, "answer lost")
    SERVER_FAILED = (False, Remedy.WAIT, "server failed")
    UNREADABLE = (False, Remedy.WAIT, "answer unreadable")
    UNAUTHORIZED = (False, Remedy.TOKEN, "unauthorized, but not by RM's own words")
    UNEXPECTED = (False, Remedy.NONE, "unexpected answer")

    def __init__(self, nothing_done: bool, remedy: Remedy, words: str) -> None:  # noqa: FBT001 - a row
        self.nothing_done = nothing_done
        self.remedy = remedy
        self.words = words


_BY_CODE_CLASS = {
    CodeClass.RETRY: Outcome.THROTTLED,
    CodeClass.AUTH: Outcome.TOKEN_REFUSED,
    CodeClass.FIX: Outcome.REFUSED,
    CodeClass.STATE: Outcome.REFUSED,
    CodeClass.UNKNOWN: Outcome.SERVER_FAILED,
}
# Statuses that say the same whether or not the body is RM's own.
_BY_STATUS = {
    408: Outcome.SERVER_FAILED,
    409: Outcome.SERVER_FAILED,
    429: Outcome.THROTTLED,
}


def classify(error: VoucherError) -> Outcome:
    """Return what an attempt that ended in ``error`` proves. What is not listed is unknown.

    A listed code of RM's decides, whatever the HTTP status, unless RM's words are that it had the
    request before; else the status does.
    """
    match error:
        case ClosedError() | ConfigurationError() | LedgerError() | ProxyError():
            return Outcome.REFUSED  # by the client, its ledger, or on the way: nothing was sent
        case ConnectError():
            return Outcome.NOT_SENT
        case ResponseLostError():
            return Outcome.LOST
        case DecodeError():
            return Outcome.UNREADABLE
        case APIError(http_status=None):
            return Outcome.REFUSED  # by the client itself: nothing was sent
        case DuplicateRequestError():
            return Outcome.DUPLICATE
        case APIError(code=code) if code in ERROR_CODES:
            return _BY_CODE_CLASS[ERROR_CODES[code].code_class]
        case APIError(code=code, http_status=int(status)):
            return _classify_status(status, has_rm_body=bool(code))
        case _:
            return Outcome.UNEXPECTED


def _classify_status(status: int, *, has_rm_body: bool) -> Outcome:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Outcome.SERVER_FAILED
    if 200 <= status < 300:
        return Outcome.UNREADABLE
    if status >= 400 and has_rm_body:
        return Outcome.TOKEN_REFUSED if status in (401, 403) else Outcome.REFUSED
    return Outcome.UNAUTHORIZED if status == 401 else Outcome.UNEXPECTED


def may_repeat(safety: Safety, outcome: Outcome) -> bool:
    """Return whether the request may be sent again after a wait, with nothing read back."""
    return outcome.remedy is Remedy.WAIT and (outcome.nothing_done or safety is Safety.READ)


def retryable_of(error: VoucherError) -> Retryable:
    """Return whether the call that raised ``error`` may be made again.

    The outcome of a change is known where anything but `OutcomeUnknownError` is raised, so only the
    remedy counts.
    """
    match error:
        case OutcomeUnknownError():
            return Retryable.READ_BACK
        case BatchStoppedError() | IdempotencyConflictError():
            return Retryable.NEVER
        case LedgerError() | EventStoreError() | SharedStoreError():
            return Retryable.AFTER_WAIT  # most often the database, which comes back
        case _ if classify(error).remedy is Remedy.WAIT:
            return Retryable.AFTER_WAIT
        case _:
            return Retryable.NEVER


def server_fails(error: VoucherError) -> bool:
    """Return whether ``error`` shows that the server fails, or that another answers in its place.

    The page of a gateway counts, because behind it the outcome of each issue would be unknown. A
    conflict or a request that took too long (409, 408) may have been executed, but it is about one
    request, so the others need not wait. A full connection pool is about this client.
    """
    outcome = classify(error)
    if isinstance(error, PoolTimeoutError):
        return False
    if outcome is Outcome.SERVER_FAILED and isinstance(error, APIError):
        return error.code in ERROR_CODES or (error.http_status or 0) >= 500
    return not outcome.nothing_done or outcome is Outcome.NOT_SENT
