"""The way of a delivery: checked, recorded, handled once, answered.

It knows no framework: an adapter gives it headers and raw bytes, and sends the status it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import inspect
import logging
import time
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from rm_voucher.arguments import check_callable, check_type
from rm_voucher.calls.hooks import (
    Hook,
    Progress,
    Work,
    WorkKind,
    checked_hooks,
    observe,
    observers_of,
)
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import CallbackError, ConfigurationError, EventStoreError, VoucherError
from rm_voucher.models import VoucherStatus, without_bearer_values
from rm_voucher.redaction import likeness
from rm_voucher.runtime import is_cancelled
from rm_voucher.service.client import VoucherClient
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.records import Disposition, EventState
from rm_voucher.webhooks.store import EventStore
from rm_voucher.webhooks.verify import CallbackStep, CallbackVerifier, Headers

if TYPE_CHECKING:
    from rm_voucher.database.transaction import Transaction

    EventHandler = (
        Callable[[VoucherEvent], Awaitable[object]]
        | Callable[[VoucherEvent, Transaction], Awaitable[object]]
    )

H = TypeVar("H", bound="EventHandler")

_log = logging.getLogger("rm_voucher.webhooks")

_LEASE_MARGIN_S = 10.0
_DUE_AT_ONCE = 8


class EventOutcome(enum.StrEnum):
    """How the dispatch of an event ended. RM comes again unless the answer is 200."""

    HANDLED = "handled"
    """Its handler succeeded."""
    REPEAT = "repeat"
    """It was done before."""
    STALE = "stale"
    """A newer event of its voucher is done; it was not handled."""
    IGNORED = "ignored"
    """Its status has no handler."""
    FAILED = "failed"
    """Its handler failed, or took too long."""
    UNCONFIRMED = "unconfirmed"
    """A look-up of the voucher contradicted the delivery, or failed."""
    BUSY = "busy"
    """Another process handles an event of its voucher, or too many events are under way here."""
    UNAVAILABLE = "unavailable"
    """The store can't be used."""

    @property
    def http_status(self) -> int:
        """The answer's HTTP status."""
        return _HTTP_STATUS.get(self, 200)


_HTTP_STATUS = {
    EventOutcome.FAILED: 500,
    EventOutcome.UNCONFIRMED: 503,
    EventOutcome.BUSY: 503,
    EventOutcome.UNAVAILABLE: 503,
}


class _Refusal(enum.StrEnum):
    """Why a delivery came to no event."""

    REFUSED = "refused"
    TOO_SLOW = "too slow"
    TOO_LARGE = "too large"

    @property
    def http_status(self) -> int:
        return _REFUSAL_STATUS[self]


_REFUSAL_STATUS = {_Refusal.REFUSED: 400, _Refusal.TOO_SLOW: 408, _Refusal.TOO_LARGE: 413}
_OUTCOMES = {
    Disposition.READY: EventOutcome.HANDLED,
    Disposition.DONE: EventOutcome.REPEAT,
    Disposition.STALE: EventOutcome.STALE,
    Disposition.BUSY: EventOutcome.BUSY,
}
_STATES = {
    EventOutcome.HANDLED: EventState.DONE,
    EventOutcome.STALE: EventState.STALE,
    EventOutcome.FAILED: EventState.RECORDED,
    EventOutcome.UNCONFIRMED: EventState.RECORDED,
    EventOutcome.UNAVAILABLE: EventState.RECORDED,
}


A = TypeVar("A", bound=EventOutcome | _Refusal)


@attrs.frozen
class _Handler:
    function: Callable[..., Awaitable[object]]
    takes_transaction: bool


@attrs.define
class _VoucherLock:
    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    users: int = 0


class WebhookRouter:
    """Hands each event to the handler of its status, once (RM's page "Voucher").

    An event is recorded before its handler runs, and done after. Every other delivery of it then
    gets a 200 and runs nothing; deliveries that come at once wait for the first. After a handler
    that raises, or takes longer than ``handler_timeout_s``, RM delivers again, five times in all.
    An event that RM no longer delivers stays recorded, for `run_due`.

    A handler that takes the transaction, ``async def handler(event, tx)``, writes with ``tx``
    *exactly once*: its writes and "done" are committed together. A handler without it acts *at
    least once*: the process may die between its last act and "done".

    Use it as an async context manager, around the whole life of the application: that opens and
    closes the store.

    Args:
        verifier: checks the deliveries.
        store: keeps the events: `open_event_store`, or a `MemoryEventStore` for tests.
        confirm: a client that looks the voucher up before a handler runs, so that nothing rests on
            the signature alone. The handler gets the voucher as it was read. An event whose voucher
            has moved on since counts as stale. The client is not closed.
        dispatch_stale: also handle events whose voucher has a newer one that is done.
        handler_timeout_s: how long a handler may take, with the look-up to confirm. RM does not
            document how long it waits for an answer.
        read_timeout_s: how long a delivery's body may take to arrive.
        max_in_flight: how many events may be under way at once; more are answered with 503.
        hooks: each `Observer` among them is told of deliveries and events.
        on_error: is given the error of each handler that failed, such as
            ``sentry_sdk.capture_exception``: a likeness, of a class with the same name, with the
            voucher's code masked, and a traceback without locals. It must not block; that it fails
            is logged.

    Raises `ConfigurationError` for settings that can't be used.
    """

    def __init__(
        self,
        verifier: CallbackVerifier,
        *,
        store: EventStore,
        confirm: VoucherClient | None = None,
        dispatch_stale: bool = False,
        handler_timeout_s: float = 20.0,
        read_timeout_s: float = 10.0,
        max_in_flight: int = 256,
        hooks: Iterable[Hook] = (),
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        check_type("confirm", confirm, VoucherClient, optional=True)
        check_type("dispatch_stale", dispatch_stale, bool)
        check_type("handler_timeout_s", handler_timeout_s, float)
        check_type("read_timeout_s", read_timeout_s, float)
        check_type("max_in_flight", max_in_flight, int)
        if not (handler_timeout_s > 0 and read_timeout_s > 0 and max_in_flight > 0):
            raise ConfigurationError(
                "handler_timeout_s, read_timeout_s and max_in_flight must be more than 0."
            )
        if not (isinstance(verifier, CallbackVerifier) and isinstance(store, EventStore)):
            raise ConfigurationError(
                "A router takes a CallbackVerifier, and as its store open_event_store(url)."
            )
        if on_error is not None:
            check_callable("on_error", on_error)
        self.verifier = verifier
        self.store = store
        self._observers = observers_of(checked_hooks(hooks))
        self._on_error = on_error
        self._confirm_with = confirm
        self._dispatch_stale = dispatch_stale
        self._handler_timeout_s = handler_timeout_s
        self._read_timeout_s = read_timeout_s
        self._max_in_flight = max_in_flight
        self._handlers: dict[VoucherStatus | None, _Handler] = {}
        self._tasks: set[asyncio.Task[EventOutcome]] = set()
        self._voucher_locks: dict[str, _VoucherLock] = {}
        self._is_open = False

    def on(self, *statuses: VoucherStatus | str) -> Callable[[H], H]:
        """Register the handler of these statuses; without any, of all that have no other handler.

        It is ``async def handler(event)`` or, with a store in a database, ``async def
        handler(event, tx)``, where ``tx`` is a `rm_voucher.database.Transaction`; a second
        parameter with a default keeps it. Its result does not matter; an exception means failure.
        Only its time-out cancels it. Raises `ConfigurationError`.
        """
        if not all(isinstance(status, str) for status in statuses):
            raise ConfigurationError("A status is text; the handler of all is @router.on().")

        def register(function: H) -> H:
            takes_transaction = _takes_transaction(function)
            if takes_transaction and not self.store.has_transactions:
                raise ConfigurationError(
                    "A handler that takes the transaction needs a store in a database: "
                    "open_event_store(url)."
                )
            for status in map(VoucherStatus, statuses) if statuses else (None,):
                if status and not status.is_known and status.upper() in VoucherStatus.__members__:
                    raise ConfigurationError(f"{status.value!r}: write {status.upper()!r}.")
                if status in self._handlers:
                    raise ConfigurationError(
                        f"There is a handler already for {status or 'others'}."
                    )
                self._handlers[status] = _Handler(function, takes_transaction)
            return function

        return register

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        if self._confirm_with is not None:
            try:
                await self.store.claim(self._confirm_with.account)
            except BaseException:
                await self.store.aclose()  # nobody else will
                raise
        self._is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take nothing new, wait for the events under way, and close the store."""
        self._is_open = False
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.store.aclose()

    async def receive(self, headers: Headers, body: bytes | AsyncIterable[bytes]) -> int:
        """Return the HTTP status that answers a delivery.

        ``body`` has the bytes as they came, whole or in pieces; an error in reading the pieces is
        raised. The log says why a delivery was refused, the answer does not. Cancelling this does
        not stop a handler.
        """
        if not isinstance(body, bytes | AsyncIterable):
            raise TypeError("The body must be bytes, or an async iterable of bytes, as it came.")
        return (await self._observed("receive", self._receive(headers, body))).http_status

    async def dispatch(self, event: VoucherEvent) -> EventOutcome:
        """Record an event and handle it, once. It is taken for genuine: verify it first.

        It may be repeated. Cancelling this does not stop a handler. Each error is logged and
        becomes an outcome; none is raised.
        """
        return await self._observed("dispatch", self._take(event))

    async def _receive(
        self, headers: Headers, body: bytes | AsyncIterable[bytes]
    ) -> EventOutcome | _Refusal:
        if not isinstance(body, bytes):
            try:
                async with asyncio.timeout(self._read_timeout_s):
                    body = await _read(body, self.verifier.max_body_bytes)
            except TimeoutError:
                _log.warning(
                    "a delivery did not arrive whole in %g s",
                    self._read_timeout_s,
                    extra=_fields(),
                )
                return _Refusal.TOO_SLOW
        try:
            event = self.verifier.verify(headers, body)
        except CallbackError as exc:
            _log.warning(
                "a delivery was refused at the step '%s': %s", exc.step, exc, extra=_fields()
            )
            return _Refusal.TOO_LARGE if exc.step == CallbackStep.SIZE else _Refusal.REFUSED
        return await self._take(event)

    async def _take(self, event: VoucherEvent) -> EventOutcome:
        if not self._is_open:
            _log.error(
                "event %s came while the router is not open: enter it with 'async with router' "
                "when the application starts",
                event.id,
                extra=_fields(event),
            )
            return EventOutcome.UNAVAILABLE
        if len(self._tasks) >= self._max_in_flight:
            _log.warning(
                "event %s came while %d are under way",
                event.id,
                len(self._tasks),
                extra=_fields(event),
            )
            return EventOutcome.BUSY
        task = asyncio.create_task(self._dispatch(event), name="rm-voucher event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def run_due(self, limit: int = 100) -> int:
        """Handle events that are recorded, not done, and no longer delivered by RM.

        Return how many were tried, at most ``limit``. After each failure an event waits longer
        before it is due again. Raises `EventStoreError`.
        """
        events = await self.store.due(limit)
        for first in range(0, len(events), _DUE_AT_ONCE):
            await asyncio.gather(*map(self.dispatch, events[first : first + _DUE_AT_ONCE]))
        return len(events)

    async def _observed(self, operation: str, handling: Awaitable[A]) -> A:
        """Await what handles a delivery or an event; tell the observers."""
        if not self._observers:
            return await handling
        progress = Progress()

        async def handle() -> A:
            answer = await handling
            progress.answer, progress.http_status = answer.value, answer.http_status
            return answer

        client = "" if self._confirm_with is None else self._confirm_with.name
        return await observe(
            handle(),
            observers=self._observers,
            work=Work(kind=WorkKind.CALLBACK, operation=operation, client=client),
            monotonic=time.monotonic,
            progress=progress,
        )

    async def _dispatch(self, event: VoucherEvent) -> EventOutcome:
        async with self._locked(event.code):
            try:
                outcome = await self._process(event)
            except EventStoreError as exc:
                _log.error("event %s was not handled: %s", event.id, exc, extra=_fields(event))
                return EventOutcome.UNAVAILABLE
        _log.info("event %s, %s: %s", event.id, _plain(event.status), outcome, extra=_fields(event))
        return outcome

    @contextlib.asynccontextmanager
    async def _locked(self, code: str) -> AsyncIterator[None]:
        """Lock a voucher: this process takes its events one after the other."""
        voucher = self._voucher_locks.setdefault(code, _VoucherLock())
        voucher.users += 1
        try:
            async with voucher.lock:
                yield
        finally:
            voucher.users -= 1
            if not voucher.users:
                del self._voucher_locks[code]

    async def _process(self, event: VoucherEvent) -> EventOutcome:
        handler = self._handlers.get(event.status) or self._handlers.get(None)
        takes_lease = handler is not None and not handler.takes_transaction
        found = await self.store.record(
            event,
            lease_s=self._handler_timeout_s + _LEASE_MARGIN_S if takes_lease else None,
            takes_stale=self._dispatch_stale,
        )
        if found is not Disposition.READY:
            return _OUTCOMES[found]
        if handler is None:
            await self.store.finish(event, EventState.DONE)
            return EventOutcome.IGNORED
        shown = [event]  # what handlers may quote: as it was delivered, and as RM confirmed it
        try:
            async with asyncio.timeout(self._handler_timeout_s):
                outcome = await self._handle(handler, event, shown)
        except EventStoreError as exc:
            report = _report(exc, shown)
            _log.error(
                "event %s was not handled: %s\n%s", event.id, exc, report, extra=_fields(event)
            )
            outcome = EventOutcome.UNAVAILABLE
        except (Exception, asyncio.CancelledError) as exc:
            if is_cancelled():  # as at the end of a loop
                raise
            _log.error(
                "event %s: its handler failed (%s)\n%s",
                event.id,
                type(exc).__name__,
                _report(exc, shown),
                extra=_fields(event),
            )
            self._report_to_user(exc, event, shown)
            outcome = EventOutcome.FAILED
        state = _STATES.get(outcome)
        if state is EventState.DONE and handler.takes_transaction:
            return outcome  # it was committed with the handler's writes
        if state is not None:
            await self.store.finish(event, state)
        return outcome

    def _report_to_user(
        self, error: BaseException, event: VoucherEvent, shown: list[VoucherEvent]
    ) -> None:
        if self._on_error is None:
            return
        try:
            self._on_error(likeness(error, functools.partial(_masked, shown=shown)))
        except Exception as exc:  # noqa: BLE001 - the user's own function
            _log.warning(
                "event %s: on_error failed (%s)",
                event.id,
                type(exc).__name__,
                extra=_fields(event),
            )

    async def _handle(
        self, handler: _Handler, event: VoucherEvent, shown: list[VoucherEvent]
    ) -> EventOutcome:
        if self._confirm_with is not None:
            confirmed, outcome = await self._confirm(self._confirm_with, event)
            shown.append(confirmed)
            if outcome is not EventOutcome.HANDLED:
                return outcome
        if not handler.takes_transaction:
            await handler.function(shown[-1])
            return EventOutcome.HANDLED
        async with self.store.transaction(event, takes_stale=self._dispatch_stale) as (found, tx):
            if found is Disposition.READY:
                await handler.function(shown[-1], tx)
        return _OUTCOMES[found]

    async def _confirm(
        self, client: VoucherClient, event: VoucherEvent
    ) -> tuple[VoucherEvent, EventOutcome]:
        """Return the event with the voucher as RM shows it now, and HANDLED if that confirms it."""
        try:
            voucher = await client.get(event.code)
        except VoucherError as exc:
            _log.warning("event %s can't be confirmed: %s", event.id, exc, extra=_fields(event))
            return event, EventOutcome.UNCONFIRMED
        if "updated_at" in voucher.misfits:
            _log.warning(
                "event %s can't be confirmed: RM's updatedAt can't be read",
                event.id,
                extra=_fields(event),
            )
            return event, EventOutcome.UNCONFIRMED
        now, then = voucher.updated_at, event.updated_at
        is_newer = is_older = False
        if now is not None and then is not None:
            # RM does not document whether a look-up shows a second's fraction as a callback does.
            is_newer, is_older = now > then, now < then.replace(microsecond=0)
        if voucher.status == event.status and not is_older:
            return attrs.evolve(event, voucher=voucher), EventOutcome.HANDLED
        if is_newer:  # it has moved on
            return event, EventOutcome.HANDLED if self._dispatch_stale else EventOutcome.STALE
        _log.warning(
            "event %s is not confirmed: RM shows the voucher in another state",
            event.id,
            extra=_fields(event),
        )
        return event, EventOutcome.UNCONFIRMED


async def _read(pieces: AsyncIterable[bytes], most: int) -> bytes:
    """Return a body, cut one byte behind the limit."""
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > most:
            break
    return body[: most + 1]


def _takes_transaction(function: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(function):
        signature = inspect.signature(function)
        for takes_transaction, arguments in ((False, [None]), (True, [None, None])):
            with contextlib.suppress(TypeError):
                signature.bind(*arguments)
                return takes_transaction
    raise ConfigurationError(
        "A handler is a coroutine function: async def handler(event), or handler(event, tx)."
    )


def _report(error: BaseException, shown: Iterable[VoucherEvent]) -> str:
    """Return a traceback without what the vouchers are worth: a driver's message may quote it."""
    return _masked("".join(traceback.format_exception(error)).rstrip(), shown=shown)


def _masked(text: str, *, shown: Iterable[VoucherEvent]) -> str:
    return functools.reduce(without_bearer_values, (event.voucher for event in shown), text)


def _fields(event: VoucherEvent | None = None) -> dict[str, str]:
    return log_fields(operation="callback", event="" if event is None else event.id)


def _plain(status: VoucherStatus) -> str:
    return status if status.is_known else "a status that nobody documented"
