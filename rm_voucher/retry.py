"""When to send again. The one place that knows tenacity, and the one that classifies outcomes.

An attempt ends in an answer or an error. `classify` says what each error proves about the
request, as data; `may_repeat` says what follows from it for an operation of a given `Safety`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from rm_voucher.error_codes import ERROR_CODES, CodeClass
from rm_voucher.exceptions import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    OutcomeUnknownError,
    PoolTimeoutError,
    ResponseLostError,
    VoucherError,
)
from rm_voucher.settings import positive

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Outcome", "RetryPolicy", "Safety", "classify", "may_repeat", "server_fails"]

T = TypeVar("T")


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


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is attempted; whether it may be is not its business.

    The wait after attempt n is ``initial_wait_s`` · 2ⁿ⁻¹, at most ``max_wait_s``, of which a
    random half is taken off, so that many callers don't return at once. A wait that the server
    asks for (``Retry-After``) is kept, up to ``max_retry_after_s``.
    """

    max_attempts: int = attrs.field(default=6, validator=positive)
    initial_wait_s: float = attrs.field(default=0.5, validator=positive)
    max_wait_s: float = attrs.field(default=20.0, validator=positive)
    max_retry_after_s: float = attrs.field(default=120.0, validator=positive)

    def __attrs_post_init__(self) -> None:
        # With the first policy, that is, the first client: neither with the package, whose import
        # would take longer, nor in the middle of a call.
        import tenacity  # noqa: F401 - only to load it

    async def run(
        self,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> T:
        """Await ``attempt()`` until it succeeds, may not be repeated, or the attempts are spent.

        ``attempt`` is a coroutine function. Raises the last attempt's error. ``random`` gives
        numbers in [0, 1).
        """
        try:
            return await attempt()
        except VoucherError as exc:
            failed = exc
        return await self.run_on(
            failed, attempt, repeat_after=repeat_after, sleep=sleep, random=random
        )

    async def run_on(
        self,
        failed: VoucherError,
        attempt: Callable[[], Coroutine[Any, Any, T]],
        *,
        repeat_after: Callable[[VoucherError], bool],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        in_time: Callable[[float], bool] = lambda _: True,
        excused: Callable[[], int] = lambda: 0,
    ) -> T:
        """Go on after a first attempt that ``failed``, as `run` does.

        ``in_time`` says whether an attempt may still begin after a wait of so many seconds;
        ``excused``, how many of the attempts so far don't count.
        """
        # Only now: tenacity takes longer than all else of a call but its signature, and nearly no
        # call needs it. What it sees first is the attempt that failed.
        import tenacity

        first = [failed]
        del failed  # it may hold this frame

        async def again() -> T:
            if first:
                raise first.pop()
            return await attempt()

        retrying = tenacity.AsyncRetrying(
            stop=lambda state: (
                state.attempt_number - excused() >= self.max_attempts
                or not in_time(state.upcoming_sleep)
            ),
            retry=tenacity.retry_if_exception(
                lambda exc: isinstance(exc, VoucherError) and repeat_after(exc)
            ),
            wait=lambda state: self._wait_s(state, excused(), random()),
            sleep=sleep,
            reraise=True,
        )
        return await retrying(again)

    def _wait_s(self, state: RetryCallState, excused: int, luck: float) -> float:
        # 2**30 is beyond any wait; unbounded it would overflow a float after 1,000 attempts.
        doublings = max(0, min(state.attempt_number - excused - 1, 30))
        doubled: float = self.initial_wait_s * 2**doublings
        wait_s = min(doubled, self.max_wait_s) * (1 - luck / 2)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, OutcomeUnknownError):
            error = error.__cause__
        asked_s = error.retry_after_s if isinstance(error, APIError) else None
        return max(wait_s, min(asked_s or 0.0, self.max_retry_after_s))
