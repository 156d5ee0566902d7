"""What may watch the attempts of a client: called before and after each, it changes nothing."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

import attrs

from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import APIError, VoucherError
from rm_voucher.transport.base import Response

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

# Of an answer; a coroutine where the event loop is to have its turns meanwhile.
Parse = Callable[[Response], T] | Callable[[Response], Coroutine[Any, Any, T]]

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


async def watch(
    send: Callable[[], Awaitable[Response]],
    parse: Parse[T],
    *,
    hooks: tuple[Hook, ...],
    clock: Callable[[], float],
    describe: Callable[[], Attempt],
) -> T:
    """Send, parse, and tell the hooks. Without hooks, nothing is described."""
    if not hooks:
        return await read_answer(parse, await send())
    attempt = describe()
    after = [then for hook in hooks if (then := _told(hook, attempt)) is not None]
    begun = clock()
    status = None
    error: BaseException | None = None
    try:
        response = await send()
        status = response.status
        parsed = await read_answer(parse, response)
    except BaseException as exc:  # noqa: BLE001 - raised below, when the hooks have been told
        error = exc
    result = AttemptResult(
        attempt=attempt,
        duration_s=clock() - begun,
        http_status=status,
        error=None if error is None else type(error).__name__,
        error_code=(error.code or None) if isinstance(error, APIError) else None,
        outcome=classify(error) if isinstance(error, VoucherError) else None,
    )
    for then in after:
        _told(then, result)
    if error is None:
        return parsed
    try:
        raise error
    finally:
        del error  # it holds this frame


async def read_answer(parse: Parse[T], response: Response) -> T:
    """Parse."""
    parsed = parse(response)
    return cast("T", await parsed if inspect.iscoroutine(parsed) else parsed)


def _told(hook: Callable[[D], R], details: D) -> R | None:
    try:
        return hook(details)
    except Exception as exc:  # noqa: BLE001 - the user's own function
        _log.warning("a hook failed (%s)", type(exc).__name__, exc_info=True)
        return None
