"""Hooks: what a client tells of each attempt, and observers: what it tells of all work.

Neither changes anything.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

import attrs

from rm_voucher.arguments import check_callable
from rm_voucher.calls.outcomes import Outcome, classify
from rm_voucher.exceptions import (
    APIError,
    ConfigurationError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.transport.base import Request

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")
E = TypeVar("E")

_log = logging.getLogger("rm_voucher")


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt of a call, about to be sent. It holds no URL, code or secret.

    Attributes:
        operation: what is called, for example ``"issue"`` or ``"token"``.
        method: the HTTP method.
        scheme: ``"https"``, or ``"http"`` on this machine.
        host: the server's host name.
        port: the server's port.
        template: the path with ``{code}`` or ``{key}`` in place of one; empty where not known.
        number: 1 for the first attempt of the call.
        attempt_id: identifies the attempt in this library's log and in `OutcomeUnknownError`.
        batch_key: the batch, where the operation has one.
        client: the client's name.
        started_at: by the client's clock, UTC.
    """

    operation: str
    method: str
    scheme: str
    host: str
    port: int
    template: str
    number: int
    attempt_id: str
    batch_key: str | None
    client: str
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


class WorkKind(enum.StrEnum):
    """What work is."""

    CALL = "call"
    """A call of a client's method, or of a bulk issue: with its attempts, waits and read-backs."""
    LEDGER = "ledger"
    """What a ledger does: with its database, its calls and its listings."""
    CALLBACK = "callback"
    """A delivery of RM's, or an event that is tried again: with its handler."""


@attrs.frozen(kw_only=True)
class Work:
    """Work that begins. It holds no URL, code or secret.

    Attributes:
        kind: a call, a ledger's, or a callback.
        operation: of a call as in `Attempt`; of a ledger ``"issue"``, ``"prepare"``,
            ``"reconcile"`` or ``"sweep"``; of a callback ``"receive"`` for a delivery, and
            ``"dispatch"`` for an event that came otherwise.
        batch_key: a ledger's batch, and that of a bulk issue.
        client: the client's name; of a callback that of the router's ``confirm``, if it has one.
        is_own: whether it goes on by itself, so that it has no part in whatever runs now: a sweep.
    """

    kind: WorkKind
    operation: str
    batch_key: str | None = None
    client: str = ""
    is_own: bool = False


@attrs.frozen(kw_only=True)
class WorkResult:
    """How work ended. It holds no URL, code or secret.

    Attributes:
        work: as it was before.
        duration_s: by the monotonic clock.
        http_status: how a delivery is answered.
        error: the class name of what was raised, or None for a success.
        error_code: RM's error code, where the error has one.
        outcome: what the error proves of a call; None for a success, for an `OutcomeUnknownError`,
            and for what is not a `VoucherError`.
        answer: how a callback ended: a value of `EventOutcome`, or ``"refused"``,
            ``"too large"``, ``"too slow"``. None for all else.
    """

    work: Work
    duration_s: float
    http_status: int | None = None
    error: str | None = None
    error_code: str | None = None
    outcome: Outcome | None = None
    answer: str | None = None


class Gauge(NamedTuple):
    """A figure of now. ``state`` tells apart those of one name."""

    name: str
    value: float
    state: str = ""


class Source(Protocol):
    """Something with figures, such as a client's flow, a ledger, or the signers of a bulk run."""

    def gauges(self) -> Iterable[Gauge]:
        """Return what is known now. It waits for nothing, and any thread may ask."""


class Hook(Protocol):
    """Called before each attempt; what it returns, if anything, is called after it.

    Both are plain functions and must not block. An `Exception` that they raise is logged and
    changes nothing: a hook must never cost a voucher.
    """

    def __call__(self, attempt: Attempt, /) -> Callable[[AttemptResult], None] | None:
        """Take note of an attempt that is about to be sent."""


class Observer:
    """A hook that is told of calls, ledgers and callbacks too: subclass it, and replace what helps.

    As with a `Hook`, nothing of it may block, and an `Exception` is logged and changes nothing.
    Work begins and ends in the same task, and what is done for it runs there, or in tasks that
    begin meanwhile: a context variable that is set at its beginning is seen by what is below.
    """

    def __call__(self, attempt: Attempt, /) -> Callable[[AttemptResult], None] | None:
        """Take note of an attempt that is about to be sent; see `Hook`."""

    def work(self, work: Work, /) -> Callable[[WorkResult], None] | None:
        """Take note of work that begins; what is returned, if anything, is called at its end."""

    def source(self, client: str, source: Source, /) -> None:
        """Take note of something with figures. Keep it weakly: nobody says when it ends."""


@attrs.define(eq=False)
class Progress:
    """How far an attempt has come, or how a callback ended."""

    http_status: int | None = None
    answer: str | None = None


def describe(
    request: Request,
    *,
    number: int,
    attempt_id: str,
    batch_key: str | None,
    client: str,
    started_at: datetime,
) -> Attempt:
    """Return what hooks are told of a request that is about to be sent."""
    return Attempt(
        operation=request.operation,
        method=request.method,
        scheme=request.url.scheme,
        host=request.url.host or "",
        port=request.url.port or 0,  # http and https have one
        template=request.template,
        number=number,
        attempt_id=attempt_id,
        batch_key=batch_key,
        client=client,
        started_at=started_at,
    )


def checked_hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Return hooks that were given by a user. Raises `ConfigurationError`."""
    if not isinstance(hooks, Iterable) or isinstance(hooks, str | bytes | Mapping):
        raise ConfigurationError("hooks must be several functions, such as a list.")
    hooks = tuple(hooks)
    for hook in hooks:
        check_callable("A hook", hook)
    return hooks


def observers_of(hooks: Iterable[Hook]) -> tuple[Observer, ...]:
    """Return those of the hooks that are told of all work."""
    return tuple(hook for hook in hooks if isinstance(hook, Observer))


def tell_source(observers: Iterable[Observer], client: str, source: Source) -> None:
    """Tell observers of something with figures."""
    for observer in observers:
        _tell(functools.partial(observer.source, client), source)


async def watch(
    exchange: Callable[[Progress], Awaitable[T]],
    *,
    hooks: tuple[Hook, ...],
    attempt: Attempt,
    monotonic: Callable[[], float],
) -> T:
    """Await ``exchange``, which sends the attempt and reads its answer; tell the hooks."""
    told = [_tell(hook, attempt) for hook in hooks]
    progress = Progress()
    make = functools.partial(AttemptResult, attempt=attempt)
    return await _tell_end(exchange(progress), told, make, progress, monotonic)


async def observe(
    running: Awaitable[T],
    *,
    observers: tuple[Observer, ...],
    work: Work,
    monotonic: Callable[[], float],
    progress: Progress | None = None,
) -> T:
    """Await ``running``, which does the work; tell the observers."""
    told = [_tell(observer.work, work) for observer in observers]
    make = functools.partial(WorkResult, work=work)
    return await _tell_end(running, told, make, progress or Progress(), monotonic)


async def _tell_end(
    running: Awaitable[T],
    told: list[Callable[[E], None] | None],
    make: Callable[..., E],
    progress: Progress,
    monotonic: Callable[[], float],
) -> T:
    begun = monotonic()
    error: BaseException | None = None
    try:
        result = await running
    except BaseException as exc:  # noqa: BLE001 - raised below
        error = exc
    # Here no error is being handled: one of a hook's does not have the attempt's as its context.
    details: dict[str, object] = {
        "http_status": progress.http_status,
        "error": None if error is None else type(error).__name__,
        "error_code": (error.code or None) if isinstance(error, APIError) else None,
        "outcome": _proof(error),
    }
    if progress.answer is not None:
        details["answer"] = progress.answer
    ended = make(duration_s=monotonic() - begun, **details)
    for then in told:
        if then is not None:
            _tell(then, ended)
    if error is None:
        return result
    try:
        raise error
    finally:
        del error  # it holds this frame


def _proof(error: BaseException | None) -> Outcome | None:
    if isinstance(error, OutcomeUnknownError) or not isinstance(error, VoucherError):
        return None
    return classify(error)


def _tell(hook: Callable[[D], R], details: D) -> R | None:
    try:
        return hook(details)
    except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the user's own function
        _log.warning("a hook failed (%s)", type(exc).__name__, exc_info=True)
        return None
