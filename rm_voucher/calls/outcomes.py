"""What an error proves about the request, as data.

An attempt ends in an answer or an error. `classify` says what each error proves about the
request; `may_repeat` says what follows from it for an operation of a given `Safety`.
"""

from __future__ import annotations

import enum

from rm_voucher.exceptions import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    PoolTimeoutError,
    ResponseLostError,
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


class Outcome(enum.Enum):
    """What an error proves about the request, and what could help.

    The values: whether it is proven that nothing was done, what may help (``"wait"``, ``"token"``
    for a new one, ``""`` for nothing), and the outcome in words.
    """

    NOT_SENT = (True, "wait", "not sent")
    THROTTLED = (True, "wait", "throttled")
    TOKEN_REFUSED = (True, "token", "token refused")
    REFUSED = (True, "", "refused")
    LOST = (False, "wait", "answer lost")
    SERVER_FAILED = (False, "wait", "server failed")
    UNREADABLE = (False, "wait", "answer unreadable")
    UNAUTHORIZED = (False, "token", "unauthorized, but not by RM's own words")
    UNEXPECTED = (False, "", "unexpected answer")

    @property
    def nothing_done(self) -> bool:
        """Whether it is proven that the request was not executed."""
        return self.value[0]

    @property
    def remedy(self) -> str:
        """What may help."""
        return self.value[1]

    @property
    def words(self) -> str:
        """The outcome, for logs and messages."""
        return self.value[2]


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

    A listed code of RM's decides, whatever the HTTP status; else the status does.
    """
    match error:
        case ClosedError() | ConfigurationError():
            return Outcome.REFUSED  # by the client itself: nothing was sent
        case ConnectError():
            return Outcome.NOT_SENT
        case ResponseLostError():
            return Outcome.LOST
        case DecodeError():
            return Outcome.UNREADABLE
        case APIError(http_status=None):
            return Outcome.REFUSED  # by the client itself: nothing was sent
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
        return Outcome.REFUSED
    return Outcome.UNAUTHORIZED if status == 401 else Outcome.UNEXPECTED


def may_repeat(safety: Safety, outcome: Outcome) -> bool:
    """Return whether the request may be sent again after a wait, with nothing read back."""
    return outcome.remedy == "wait" and (outcome.nothing_done or safety is Safety.READ)


def server_fails(error: VoucherError) -> bool:
    """Return whether an attempt that ended in ``error`` met a server that fails, or none of RM's.

    What answers in its place, such as a page of a gateway, counts: behind it the outcome of each
    issue would be unknown. A conflict or a request that took too long (409, 408) may have been
    executed, but it is about one request: no reason for others to wait. Nor is a pool of
    connections that are all in use.
    """
    outcome = classify(error)
    if isinstance(error, PoolTimeoutError):
        return False
    if outcome is Outcome.SERVER_FAILED and isinstance(error, APIError):
        return error.code in ERROR_CODES or (error.http_status or 0) >= 500
    return not outcome.nothing_done or outcome is Outcome.NOT_SENT
