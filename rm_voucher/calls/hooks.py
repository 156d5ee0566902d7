"""Hooks: what a client tells of each attempt, before it and after it. A hook changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol, TypeVar

import attrs

from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import APIError, VoucherError

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

_log = logging.getLogger("rm_voucher")


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt of a call, about to be sent. It holds no URL, code or secret.

    Attributes:
        operation: what is called, for example ``"issue"`` or ``"token"``.
        method: the HTTP method.
        host: the server's host name.
        number: 1 for the first attempt of the call.
        attempt_id: identifies the attempt in this library's log and in `OutcomeUnknownError`.
        batch_key: the batch, where the operation has one.
        started_at: by the client's clock, UTC.
    """

    operation: str
    method: str
    host: str
    number: int
    attempt_id: str
    batch_key: str | None
    started_at: datetime


@attrs.frozen(kw_only=True)
class AttemptResult:
    """How an attempt ended. It holds no URL, code or secret.

    Attributes:
        attempt: as it was before.
        duration_s: by the client's monotonic clock.
        http_status: the answer's, or None when none arrived.
        error: the class name of what was raised, or None for a success.
        error_code: RM's error code, where the answer has one.
        outcome: what the error proves, or None for a success and for what is not a
            `VoucherError`.
    """

    attempt: Attempt
    duration_s: float
    http_status: int | None = None
    error: str | None = None
    error_code: str | None = None
    outcome: Outcome | None = None


class Hook(Protocol):
    """Called before each attempt; what it returns, if anything, is called after it.

    Both are plain functions and must not block. An `Exception` that they raise is logged and
    changes nothing: a hook must never cost a voucher.
    """

    def __call__(self, attempt: Attempt, /) -> Callable[[AttemptResult], None] | None:
        """Take note of an attempt that is about to be sent."""


@attrs.define
class Progress:
    """How far an attempt has come."""

    http_status: int | None = None


async def watch(
    exchange: Callable[[Progress], Awaitable[T]],
    *,
    hooks: tuple[Hook, ...],
    attempt: Attempt,
    monotonic: Callable[[], float],
) -> T:
    """Await ``exchange``, which sends the attempt and reads its answer; tell the hooks."""
    told = [_tell(hook, attempt) for hook in hooks]
    progress, begun = Progress(), monotonic()
    error: BaseException | None = None
    try:
        result = await exchange(progress)
    except BaseException as exc:  # noqa: BLE001 - raised below
        error = exc
    # Here no error is being handled: one of a hook's does not have the attempt's as its context.
    ended = AttemptResult(
        attempt=attempt,
        duration_s=monotonic() - begun,
        http_status=progress.http_status,
        error=None if error is None else type(error).__name__,
        error_code=(error.code or None) if isinstance(error, APIError) else None,
        outcome=classify(error) if isinstance(error, VoucherError) else None,
    )
    for then in told:
        if then is not None:
            _tell(then, ended)
    if error is None:
        return result
    try:
        raise error
    finally:
        del error  # it holds this frame


def _tell(hook: Callable[[D], R], details: D) -> R | None:
    try:
        return hook(details)
    except Exception as exc:  # noqa: BLE001 - the user's own function
        _log.warning("a hook failed (%s)", type(exc).__name__, exc_info=True)
        return None
