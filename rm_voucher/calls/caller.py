"""Makes a call: sign, send, parse, and draw the conclusions from an error.

`outcomes` says what an error proves, `recovery` what a voucher that was read back proves. Here both
meet the transport.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from rm_voucher.calls.call import Call, Parse, Phase
from rm_voucher.calls.hooks import (
    Attempt,
    Hook,
    Observer,
    Progress,
    Work,
    WorkKind,
    describe,
    observe,
    observers_of,
    watch,
)
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.calls.outcomes import Outcome, Remedy, Safety, classify, server_fails
from rm_voucher.calls.recovery import Verdict
from rm_voucher.calls.retry import Retries
from rm_voucher.calls.server_clock import ServerClock
from rm_voucher.calls.token_source import TokenSource
from rm_voucher.exceptions import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectTimeoutError,
    DecodeError,
    InvalidRequestError,
    OutcomeUnknownError,
    PoolTimeoutError,
    SignatureError,
    VoucherError,
)
from rm_voucher.models import IssuedVoucher, Voucher
from rm_voucher.runtime import Runtime
from rm_voucher.settings import Environment, Timeout, of_changes
from rm_voucher.signing.rsa import Signer
from rm_voucher.signing.signature import string_to_sign
from rm_voucher.text import counted
from rm_voucher.transport.base import Request, Transport
from rm_voucher.wire.requests import with_signature
from rm_voucher.wire.responses import json_object
from rm_voucher.wire.signature_debug import explain

if TYPE_CHECKING:
    from rm_voucher.calls.flow import Flow

T = TypeVar("T")

_log = logging.getLogger("rm_voucher")

_MOST_UNCOUNTED = 1_000  # attempts, because in tests the clock may stand still
# A turn that is used later is taken anew: it would come together with others'.
_LATE_S = 0.25


@attrs.frozen(kw_only=True, eq=False)
class Caller:
    """Makes calls with what a client was given."""

    environment: Environment
    transport: Transport
    tokens: TokenSource
    signer: Signer
    retries: Retries
    timeout: Timeout
    flow: Flow
    hooks: tuple[Hook, ...]
    runtime: Runtime
    server_clock: ServerClock = attrs.field(factory=ServerClock)
    name: str = ""
    """The client's, for logs and hooks."""
    change_timeout: Timeout = attrs.field(init=False)
    observers: tuple[Observer, ...] = attrs.field(init=False)

    @change_timeout.default
    def _of_changes(self) -> Timeout:
        return of_changes(self.timeout)

    @observers.default
    def _of_hooks(self) -> tuple[Observer, ...]:
        return observers_of(self.hooks)

    def observed(
        self,
        running: Awaitable[T],
        operation: str,
        *,
        kind: WorkKind = WorkKind.CALL,
        batch_key: str | None = None,
        is_own: bool = False,
    ) -> Awaitable[T]:
        """Return what does the work and tells the observers of it, to be awaited."""
        if not self.observers:
            return running
        work = Work(
            kind=kind, operation=operation, batch_key=batch_key, client=self.name, is_own=is_own
        )
        monotonic = self.runtime.monotonic
        return observe(running, observers=self.observers, work=work, monotonic=monotonic)

    def call(
        self,
        request: Request,
        parse: Parse[T],
        safety: Safety,
        timeout: Timeout | None,
        *,
        deadline: float | None = None,
        batch_key: str | None = None,
        code: str | None = None,
    ) -> Call[T]:
        """Return a call to be executed. Its deadline, unless one is given, counts from here."""
        if timeout is None:
            timeout = self.timeout if safety is Safety.READ else self.change_timeout
        elif not isinstance(timeout, Timeout):
            raise InvalidRequestError.refused(
                "timeout must be a Timeout, such as Timeout(connect_s=2, attempt_s=5)."
            )
        elif safety is not Safety.READ:
            timeout = of_changes(timeout)
        if deadline is None and timeout.total_s is not None:
            deadline = self.runtime.monotonic() + timeout.total_s
        return Call(request, parse, safety, timeout, deadline, batch_key, code)

    async def execute(self, call: Call[T]) -> T:
        """Attempt the call until it is done, refused, of unknown outcome, or out of time."""
        try:
            try:
                return await self._attempt(call)
            except VoucherError as exc:
                failed = exc
            return await self.retries.go_on(
                failed,
                functools.partial(self._again, call),
                repeat_after=call.may_repeat_after,
                sleep=functools.partial(self._pause, call),
                in_time=lambda wait_s: self._time_left(call, wait_s) is not None,
                uncounted=lambda: call.uncounted,
            )
        except asyncio.CancelledError:
            if call.safety is not Safety.READ and call.in_flight:
                _log.warning(
                    "%s attempt %s: cancelled, and its outcome is unknown (nonce %s)",
                    call.request.operation,
                    call.attempt_id,
                    call.nonce,
                    extra=self._fields(call),
                )
            raise
        finally:
            call.has_ended = True

    @property
    def may_wait(self) -> bool:
        """Whether a call might wait before it is sent, for a token or its turn."""
        return not (self.flow.unlimited and self.tokens.is_ready)

    async def admit(self, call: Call[T]) -> None:
        """Wait until there is a token, and the turn of the call's first attempt has come.

        For whoever notes an attempt before it is sent: one that waits is not to be noted yet.
        `execute` then sends at once, if that is soon; else it waits again. Cancelling is safe.
        Raises what `execute` raises where nothing was sent.
        """
        call.turn_at = await self._take_turn(call)
        await self._token(call)
        call.phase = Phase.NEW

    def trouble_of(self, call: Call[Any] | None) -> str:
        """Return what keeps a call waiting: what it met last, or what others met, or ""."""
        lacks_token = "" if self.tokens.is_ready else self.tokens.trouble
        return lacks_token or (call.trouble if call else "") or self.flow.trouble

    def unknown(
        self, call: Call[T], error: VoucherError, seen: Voucher | None = None
    ) -> OutcomeUnknownError:
        """Return the error for a call whose outcome ``error`` leaves unknown.

        ``seen`` is the voucher, where it was read back.
        """
        operation = call.request.operation
        consequence = (
            "do not repeat it" if call.read_back is None else "look it up before you repeat it"
        )
        voucher: Voucher | IssuedVoucher | None = seen
        if isinstance(error, DecodeError) and isinstance(error.voucher, IssuedVoucher):
            voucher = error.voucher  # then nothing was read back
        code = call.code
        if operation == "issue":
            code = None if voucher is None else voucher.code
            consequence = f"a voucher may have been issued; {consequence}"
        last = f"; last: {call.trouble}" if call.trouble else ""
        return OutcomeUnknownError(
            f"{operation}: {classify(error).words} after {counted(call.attempts, 'attempt')}, so "
            f"whether it was executed is unknown: {consequence} (attempt {call.attempt_id}{last})",
            operation=operation,
            batch_key=call.batch_key,
            code=code,
            attempt_id=call.attempt_id,
            nonce=call.nonce,
            sent_at=call.sent_at,
            voucher=voucher,
        )

    async def _token(self, call: Call[T]) -> str:
        """Return the present token. While the server that gives tokens fails, wait for the turn.

        Without a token the call is not sent again: the token source has retried by itself.
        """
        has_failed = False
        while True:
            call.phase, asked_at = Phase.TOKEN, self.runtime.monotonic()
            try:
                if call.deadline is None:
                    token = await self.tokens.token()
                else:
                    token = await self._token_in_time(call, call.deadline - asked_at)
            except VoucherError as exc:
                call.trouble = str(exc)
                has_failed = server_fails(exc) and self._time_left(call) is not None
                if has_failed:
                    self.flow.trouble = call.trouble
                    self.flow.failed(call, asked_at, self.runtime.monotonic())
                if not (has_failed and self.flow.is_failing):
                    call.abandon()
                    raise
            else:
                if has_failed:
                    self.flow.answered(asked_at, self.runtime.monotonic())
                return token
            await self._acquire(call)

    async def _token_in_time(self, call: Call[T], seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self.tokens.token()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._not_sent(call, "no token came in time") from None

    def _time_left(self, call: Call[T], wait_s: float = 0.0) -> float | None:
        """Return how long an attempt after that wait may take, or None if it must not begin."""
        if call.deadline is None:
            return call.timeout.attempt_s
        left_s = min(call.deadline - self.runtime.monotonic() - wait_s, call.timeout.attempt_s)
        return left_s if left_s > call.timeout.connect_s else None

    async def _pause(self, call: Call[T], seconds: float) -> None:
        _log.debug(
            "%s: sent again in %.2f s", call.request.operation, seconds, extra=self._fields(call)
        )
        call.phase = Phase.REPEAT
        await self.runtime.sleep(seconds)  # the wait of the retry policy

    async def _again(self, call: Call[T]) -> T:
        """Send once more, after a wait; with another token if the last one was refused."""
        refused, call.token_error = call.token_error, None
        if refused is None or await self._replace_token(call):
            return await self._attempt(call)
        raise refused

    async def _get_ready(self, call: Call[T]) -> None:
        """Return when the attempt may be sent at once.

        Its turn has come, its token is the present one, and ``before_send`` lets it pass. What was
        so before a wait may be otherwise after it.
        """
        turn_at, call.turn_at = call.turn_at, None
        if turn_at is None:
            is_free = self.flow.unlimited
            turn_at = self.runtime.monotonic() if is_free else await self._take_turn(call)
        is_last = False
        while True:
            call.token = await self._token(call)
            if call.before_send is not None:
                await call.before_send()
            # Before it is signed, which takes its time in a bulk run: the rate of this instant
            # admits the attempt, and a later throttle is charged to it.
            call.admitted_at = self.runtime.monotonic()
            if is_last or self.flow.unlimited or call.admitted_at - turn_at <= _LATE_S:
                return
            turn_at, is_last = await self._take_turn(call), True

    async def _take_turn(self, call: Call[T]) -> float:
        """Wait for the turn; return when it came, by the monotonic clock."""
        if not self.flow.unlimited:
            await self._token(call)  # a turn without one would be lost
            await self._acquire(call)
        return self.runtime.monotonic()

    async def _attempt(self, call: Call[T]) -> T:
        """Send once; on an error raise what the attempts so far prove."""
        try:
            await self._get_ready(call)
            signed = await self._sign(call)
            if self.hooks:
                result = await watch(
                    functools.partial(self._exchange, call, signed),
                    hooks=self.hooks,
                    attempt=self._describe(call),
                    monotonic=self.runtime.monotonic,
                )
            else:
                result = await self._exchange(call, signed)
            self.flow.answered(call.admitted_at, self.runtime.monotonic())
            return result
        except VoucherError as exc:
            error = exc
        except Exception:  # a token source of the user's own may raise anything
            if call.unknown_cause is None:
                raise
            raise self.unknown(call, call.unknown_cause) from call.unknown_cause
        # Here the error is not being handled: what follows is not raised in its context.
        return await self._conclude(call, error)

    async def _conclude(self, call: Call[T], error: VoucherError) -> T:
        """Raise what an error proves, or return what another attempt or the voucher shows."""
        outcome = classify(error)
        call.trouble = str(error)
        _log.debug(
            "%s attempt %s: %s: %s",
            call.request.operation,
            call.attempt_id,
            outcome.words,
            error,
            extra=self._fields(call),
        )
        is_sent = call.phase is Phase.SENT
        if is_sent:
            self._report(call, error, outcome)
        is_harmless = not is_sent or call.is_harmless(outcome)
        if not is_harmless:
            call.unknown_cause = call.unknown_cause or error
        needs_token = is_sent and outcome.remedy is Remedy.TOKEN
        has_new_token = needs_token and await self._renew_token(
            call, error, is_repeatable=is_harmless or call.read_back is not None
        )
        if has_new_token and is_harmless:
            return await self._attempt(call)
        if call.unknown_cause is None:
            raise error
        if call.read_back is None:
            raise self.unknown(call, error) from error
        # Either this answer was lost, or a repeat was refused, maybe because the first arrived.
        # Repeating what was refused is of no use, whatever the voucher shows.
        is_repeatable = outcome is not Outcome.REFUSED and (not needs_token or has_new_token)
        return await self._read_back(call, error, call.read_back, is_repeatable=is_repeatable)

    async def _acquire(self, call: Call[T]) -> None:
        """Wait until the attempt may be sent. Raises `ConnectTimeoutError`."""
        call.phase = Phase.TURN
        latest = within_s = None
        if call.deadline is not None:
            latest = call.deadline - call.timeout.connect_s
            within_s = latest - self.runtime.monotonic()
        try:
            async with asyncio.timeout(within_s):
                # Refused at once, all calls of a bulk run would fail in no time: each waits on.
                refused_after = None if call.is_bulk else latest
                await self.flow.acquire(
                    call.request.operation, latest=refused_after, is_bulk=call.is_bulk
                )
        except ConnectTimeoutError as exc:
            call.abandon()
            raise ConnectTimeoutError(f"{exc}{self._last(call)}") from None
        except TimeoutError:
            call.abandon()
            raise self._not_sent(call, "its turn did not come before its deadline") from None

    def _not_sent(self, call: Call[Any], why: str) -> ConnectTimeoutError:
        return ConnectTimeoutError(
            f"{call.request.operation}: not sent, because {why}{self._last(call)}"
        )

    def _last(self, call: Call[Any]) -> str:
        call.trouble = self.trouble_of(call)
        return call.last_trouble

    async def _exchange(
        self, call: Call[T], signed: Request, progress: Progress | None = None
    ) -> T:
        """Send the request and read its answer."""
        sent_at = self.runtime.monotonic()
        response = await self.transport.send(signed)
        date = response.headers.get("date")
        if date is not None and self.server_clock.is_news(date):
            self._note_date(call, date)
        if progress is not None:
            progress.http_status = response.status
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "%s attempt %s: HTTP %d, %d bytes in %.0f ms",
                signed.operation,
                call.attempt_id,
                response.status,
                len(response.body),
                (self.runtime.monotonic() - sent_at) * 1000,
                extra=self._fields(call),
            )
        try:
            result = call.parse(response)
            if isinstance(result, CoroutineType):
                result = await result
        except SignatureError as exc:
            offset_s = self.server_clock.offset_s if date is not None else None
            explain(exc, json_object(response), signed, clock_offset_s=offset_s)
            raise
        return cast("T", result)

    def _note_date(self, call: Call[Any], date: str) -> None:
        assert call.sent_unix_s is not None  # noqa: S101 - for the type checker
        self.server_clock.note(date, sent_at=call.sent_unix_s, received_at=self.runtime.clock())

    def _report(self, call: Call[T], error: VoucherError, outcome: Outcome) -> None:
        """Tell the flow how an attempt failed."""
        now, admitted_at, policy = self.runtime.monotonic(), call.admitted_at, self.retries.policy
        self.flow.trouble = call.trouble
        if isinstance(error, APIError) and error.retry_after_s and outcome.remedy is Remedy.WAIT:
            self.flow.pause_until(now + min(error.retry_after_s, policy.max_retry_after_s))
        if outcome is Outcome.THROTTLED:
            self.flow.throttled(admitted_at, now)
            self._forgive_throttle(call, now)
        elif server_fails(error):
            self.flow.failed(call, admitted_at, now)
        elif not isinstance(error, ClosedError | PoolTimeoutError):  # nothing was sent
            self.flow.answered(admitted_at, now)

    def _forgive_throttle(self, call: Call[T], now: float) -> None:
        """Don't count a throttled attempt of a bulk run, for a while.

        The flow slows the run down. Until it has, or a server's minute is over, each of its calls
        may meet many throttles.
        """
        if call.throttled_at is None:
            call.throttled_at = now
        is_forgiven = call.is_bulk and self.flow.forgives_throttles(now - call.throttled_at)
        repeats = self.retries.policy.max_attempts > 1
        if is_forgiven and repeats and call.uncounted < _MOST_UNCOUNTED:
            call.uncounted += 1

    async def _sign(self, call: Call[T]) -> Request:
        """Return the request of the next attempt, which is then about to be sent."""
        call.phase = Phase.SIGNING
        request, now = call.request, self.runtime.clock()
        nonce, timestamp = self.runtime.make_nonce(), str(int(now))
        text = string_to_sign(
            method=request.method,
            url=str(request.url),
            nonce=nonce,
            timestamp=timestamp,
            body=request.body,
        ).encode()
        try:
            signature = self.signer.sign(text) if call.sign is None else await call.sign(text)
            signed = with_signature(
                request,
                token=call.token,
                nonce=nonce,
                timestamp=timestamp,
                signature=signature,
                timeout=call.timeout,
            )
        except Exception as exc:  # a signer of the caller's own may raise anything
            raise ConfigurationError(
                f"{request.operation}: signing failed ({type(exc).__name__}); nothing was sent"
            ) from exc
        if call.deadline is not None:
            signed = self._limited(call, signed)
        call.attempts += 1
        call.attempt_id = secrets.token_hex(8)
        call.nonce = nonce
        call.sent_unix_s = now
        call.phase = Phase.SENT
        return signed

    def _limited(self, call: Call[T], request: Request) -> Request:
        """Return the request with the time that the call's deadline leaves it."""
        attempt_s = self._time_left(call)
        if attempt_s is None:
            raise self._not_sent(call, "its deadline is too near")
        if attempt_s == call.timeout.attempt_s:
            return request
        timeout = Timeout(connect_s=call.timeout.connect_s, attempt_s=attempt_s)
        return attrs.evolve(request, timeout=timeout)

    async def _renew_token(
        self, call: Call[T], error: VoucherError, *, is_repeatable: bool
    ) -> bool:
        """Get another token, if the call can use one; return whether there is one.

        Only once a call at once: a server may take a moment to know the token that it granted.
        """
        if not self.tokens.refuse(call.token) or call.abandoned or not is_repeatable:
            return False
        if not call.token_renewed:
            call.token_renewed, refused = True, call.token
            if not await self._replace_token(call):
                return False
            if call.token != refused:
                return True
        call.token_error = error
        return False

    async def _replace_token(self, call: Call[Any]) -> bool:
        """Ask for a token in the place of one that was refused; return whether one came."""
        try:
            call.token = await self._token(call)
        except Exception as exc:  # noqa: BLE001 - a source of the user's own may raise anything
            reason: object = type(exc).__name__
            if isinstance(exc, VoucherError):
                reason = exc
                if classify(exc).remedy is Remedy.WAIT:
                    call.phase = Phase.NO_TOKEN
            _log.warning(
                "token: refused, and no new one can be had (%s)", reason, extra=self._fields(call)
            )
            return False
        return True

    async def _read_back(
        self,
        call: Call[T],
        error: VoucherError,
        read_back: Callable[[], Awaitable[tuple[Verdict, T]]],
        *,
        is_repeatable: bool,
    ) -> T:
        """Read the voucher back and conclude. Raises what the attempts so far prove."""
        call.phase = Phase.READING_BACK
        try:
            verdict, found = await read_back()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the outcome stays unknown
            reason: object = exc if isinstance(exc, VoucherError) else type(exc).__name__
            call.trouble = f"{error}; not read back: {reason}"
            _log.warning(
                "%s: not read back (%s)", call.request.operation, reason, extra=self._fields(call)
            )
            raise self.unknown(call, error) from error
        _log.debug(
            "%s: read back: %s", call.request.operation, verdict.value, extra=self._fields(call)
        )
        if verdict is Verdict.DONE:
            return found
        # A refusal is of this attempt; one that was lost before may still arrive. So the outcome
        # stays unknown, also where the call is sent again.
        if verdict is Verdict.UNCHANGED and is_repeatable:
            call.phase = Phase.UNCHANGED
        seen = found if isinstance(found, Voucher) else None
        raise self.unknown(call, error, seen) from error

    def _fields(self, call: Call[Any]) -> dict[str, str]:
        return log_fields(
            operation=call.request.operation,
            attempt=call.attempt_id,
            batch=call.batch_key,
            client=self.name,
        )

    def _describe(self, call: Call[Any]) -> Attempt:
        started_at, request = call.sent_at, call.request
        assert started_at is not None  # noqa: S101 - for the type checker
        return describe(
            request,
            number=call.attempts,
            attempt_id=call.attempt_id,
            batch_key=call.batch_key,
            client=self.name,
            started_at=started_at,
        )
