"""One call from its request to its end: sign, send, parse, and on an error draw the conclusions.

`retry` says what an error proves, `recovery` what a voucher that was read back proves; here both
meet the transport.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs

from rm_voucher.calls.call import Call
from rm_voucher.calls.flow import Flow
from rm_voucher.calls.hooks import Attempt, Hook, Parse, read_answer, watch
from rm_voucher.calls.outcomes import Outcome, Safety, classify, server_fails
from rm_voucher.calls.recovery import Verdict
from rm_voucher.calls.retry import RetryPolicy
from rm_voucher.calls.token_source import TokenSource
from rm_voucher.exceptions import (
    APIError,
    ClosedError,
    ConfigurationError,
    ConnectTimeoutError,
    InvalidRequestError,
    OutcomeUnknownError,
    PoolTimeoutError,
    VoucherError,
)
from rm_voucher.settings import Environment, Timeout
from rm_voucher.signing.rsa import Signer
from rm_voucher.transport.base import Request, Response, Transport
from rm_voucher.wire.requests import text_to_sign, with_signature

T = TypeVar("T")

_log = logging.getLogger("rm_voucher")

_MOST_EXCUSED = 1_000  # attempts: in tests the clock may stand still
# From a random one on, so that those of several processes can be told apart in one log.
_attempt_numbers = itertools.count(secrets.randbits(32))


@attrs.frozen(kw_only=True, eq=False)
class Caller:
    """Makes calls with what a client was given."""

    environment: Environment
    transport: Transport
    tokens: TokenSource
    signer: Signer
    retry: RetryPolicy
    timeout: Timeout
    flow: Flow
    hooks: tuple[Hook, ...]
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]
    make_nonce: Callable[[], str]

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
        """Return a call to be finished. Its deadline, unless one is given, counts from here."""
        timeout = timeout or self.timeout
        if not isinstance(timeout, Timeout):
            raise InvalidRequestError.refused(
                "timeout must be a Timeout, such as Timeout(connect_s=2, attempt_s=5)."
            )
        if deadline is None and timeout.total_s is not None:
            deadline = self.monotonic() + timeout.total_s
        return Call(request, parse, safety, timeout, deadline, batch_key, code)

    async def execute(self, call: Call[T]) -> T:
        """Attempt the call until it is done, refused, in doubt, or out of time."""
        # Outside the attempts, because the token source retries by itself, and because a lost
        # answer to a token request says nothing about the call.
        call.token = await self._token(call)
        try:
            try:
                return await self._attempt(call)
            except VoucherError as exc:
                failed = exc
            return await self.retry.run_on(
                failed,
                functools.partial(self._attempt, call),
                repeat_after=call.may_repeat_after,
                sleep=functools.partial(self._pause, call),
                random=self.random,
                in_time=lambda wait_s: self._time_left(call, wait_s) is not None,
                uncounted=lambda: call.uncounted,
            )
        except asyncio.CancelledError:
            if call.safety is not Safety.READ and (
                call.unknown_cause is not None or not call.pausing
            ):
                _log.warning(
                    "%s attempt %s: cancelled, and its outcome is unknown (nonce %s)",
                    call.request.operation,
                    call.attempt_id,
                    call.nonce,
                )
            raise

    def unknown(
        self, call: Call[T], error: VoucherError, voucher: object | None = None
    ) -> OutcomeUnknownError:
        """Return the error for a call whose outcome ``error`` leaves unknown."""
        operation = call.request.operation
        consequence = (
            "do not repeat it" if call.read_back is None else "look it up before you repeat it"
        )
        if operation == "issue":
            consequence = f"a voucher may have been issued; {consequence}"
        return OutcomeUnknownError(
            f"{operation}: {classify(error).words} after {call.attempts} attempt(s), so whether it "
            f"was executed is unknown: {consequence} (attempt {call.attempt_id})",
            operation=operation,
            batch_key=call.batch_key,
            code=call.code,
            attempt_id=call.attempt_id,
            nonce=call.nonce,
            sent_at=call.sent_at,
            voucher=voucher,
        )

    async def _token(self, call: Call[T]) -> str:
        """Return a token. While the server that gives them fails, all wait, as for any other."""
        has_failed = False
        while True:
            call.pausing, asked_at = True, self.monotonic()
            try:
                token = await self._token_in_time(call)
            except VoucherError as exc:
                if not server_fails(exc) or self._time_left(call) is None:
                    raise
                has_failed, now = True, self.monotonic()
                call.counted_failure = self.flow.failed(call.counted_failure, asked_at, now)
                if not self.flow.is_failing:
                    raise
            else:
                if has_failed:
                    self.flow.answered(asked_at, self.monotonic())
                call.pausing = False
                return token
            await self._turn(call)

    async def _token_in_time(self, call: Call[T]) -> str:
        if call.deadline is None:
            return await self.tokens.token()
        try:
            async with asyncio.timeout(call.deadline - self.monotonic()) as limit:
                return await self.tokens.token()
        except TimeoutError:
            if not limit.expired():
                raise
            raise ConnectTimeoutError(
                f"{call.request.operation}: not sent, because no token came in time"
            ) from None

    def _time_left(self, call: Call[T], wait_s: float = 0.0) -> float | None:
        """Return how long an attempt after that wait may take, or None if it must not begin."""
        if call.deadline is None:
            return call.timeout.attempt_s
        left_s = min(call.deadline - self.monotonic() - wait_s, call.timeout.attempt_s)
        return left_s if left_s > call.timeout.connect_s else None

    async def _pause(self, call: Call[T], seconds: float) -> None:
        _log.debug("%s: sent again in %.2f s", call.request.operation, seconds)
        call.pausing = True
        await self.sleep(seconds)
        call.pausing = False

    async def _attempt(self, call: Call[T]) -> T:
        """Send once; on an error raise what the attempts so far prove."""
        call.unchanged = False
        try:
            return await self._send(call)
        except VoucherError as exc:
            error = exc
        # From here on the error is not being handled: what follows is not raised in its context.
        outcome = classify(error)
        _log.debug(
            "%s attempt %s: %s: %s", call.request.operation, call.attempt_id, outcome.words, error
        )
        harmless = outcome.nothing_done or call.safety is Safety.READ
        repeatable = harmless or call.read_back is not None
        renewed = outcome.remedy == "token" and await self._renew_token(call, repeatable)
        if renewed and harmless:
            return await self._attempt(call)
        if call.safety is Safety.READ or (outcome.nothing_done and call.unknown_cause is None):
            raise error
        call.unknown_cause = call.unknown_cause or error
        if call.read_back is None:
            raise self.unknown(call, error) from error
        # Either this answer was lost, or a repeat was refused, maybe because the first arrived.
        helpless = outcome is Outcome.REFUSED or (outcome.remedy == "token" and not renewed)
        return await self._settle(call, error, call.read_back, helpless=helpless)

    async def _turn(self, call: Call[T]) -> None:
        """Wait until the attempt may be sent. Raises `ConnectTimeoutError`."""
        deadline, operation = call.deadline, call.request.operation
        latest = None if deadline is None else deadline - call.timeout.connect_s
        call.pausing = True
        try:
            async with asyncio.timeout(None if latest is None else latest - self.monotonic()):
                # Refused at once, all calls of a bulk run would fail in no time: each waits on.
                refused_after = None if call.is_bulk else latest
                await self.flow.acquire(operation, latest=refused_after, is_bulk=call.is_bulk)
        except ConnectTimeoutError:
            call.abandoned = True
            raise
        except TimeoutError:
            call.abandoned = True
            raise ConnectTimeoutError(
                f"{operation}: not sent, because its turn did not come before its deadline"
            ) from None
        call.pausing = False

    async def _send(self, call: Call[T]) -> T:
        if not self.flow.unlimited:
            await self._turn(call)
        # Before it is signed, which takes its time in a bulk run: what passed before a throttle is
        # of the rate before it, however much later it goes out.
        passed_at = self.monotonic()
        signed = await self._sign(call)
        try:
            if self.hooks or _log.isEnabledFor(logging.DEBUG):
                result = await watch(
                    functools.partial(self._exchange, signed, call.attempt_id),
                    call.parse,
                    hooks=self.hooks,
                    clock=self.monotonic,
                    describe=functools.partial(_describe, call),
                )
            else:
                result = await read_answer(call.parse, await self.transport.send(signed))
        except VoucherError as exc:
            self._note(call, exc, passed_at)
            raise
        self.flow.answered(passed_at, self.monotonic())
        return result

    async def _exchange(self, request: Request, attempt_id: str) -> Response:
        begun = self.monotonic()
        response = await self.transport.send(request)
        _log.debug(
            "%s attempt %s: HTTP %d, %d bytes in %.0f ms",
            request.operation,
            attempt_id,
            response.status,
            len(response.body),
            (self.monotonic() - begun) * 1000,
        )
        return response

    def _note(self, call: Call[T], error: VoucherError, passed_at: float) -> None:
        """Tell the flow how an attempt failed."""
        outcome, now = classify(error), self.monotonic()
        if isinstance(error, APIError) and error.retry_after_s and outcome.remedy == "wait":
            self.flow.pause_until(now + min(error.retry_after_s, self.retry.max_retry_after_s))
        if outcome is Outcome.THROTTLED:
            self.flow.throttled(passed_at, now)
            self._excuse(call, now)
        elif server_fails(error):
            call.counted_failure = self.flow.failed(call.counted_failure, passed_at, now)
        elif not isinstance(error, ClosedError | PoolTimeoutError):  # nothing was sent
            self.flow.answered(passed_at, now)

    def _excuse(self, call: Call[T], now: float) -> None:
        """Don't count a throttled attempt of a bulk run, for a while.

        The flow slows the run down. Until it has, or a server's minute is over, each of its calls
        may meet many throttles.
        """
        if call.throttled_at is None:
            call.throttled_at = now
        is_borne = call.is_bulk and self.flow.bears_throttles(now - call.throttled_at)
        if is_borne and self.retry.max_attempts > 1 and call.uncounted < _MOST_EXCUSED:
            call.uncounted += 1

    async def _sign(self, call: Call[T]) -> Request:
        """Return the request of the next attempt, which is then about to be sent."""
        now = self.clock()
        nonce, timestamp = self.make_nonce(), str(int(now))
        text = text_to_sign(call.request, nonce=nonce, timestamp=timestamp)
        try:
            if call.sign is None:
                signature = self.signer.sign(text)
            else:
                call.pausing = call.is_signing = True
                signature = await call.sign(text)
                call.pausing = call.is_signing = False
            signed = with_signature(
                call.request,
                token=call.token,
                nonce=nonce,
                timestamp=timestamp,
                signature=signature,
                timeout=call.timeout,
            )
        except Exception as exc:  # a signer of the caller's own may raise anything
            raise ConfigurationError(
                f"{call.request.operation}: signing failed ({type(exc).__name__}); nothing was sent"
            ) from exc
        attempt_s = self._time_left(call)
        if attempt_s is None:
            raise ConnectTimeoutError(
                f"{call.request.operation}: not sent, because its deadline is too near"
            )
        call.attempts += 1
        call.attempt_id = f"{next(_attempt_numbers) % 2**32:08x}"
        call.nonce = nonce
        call.sent_unix_s = now
        if attempt_s < call.timeout.attempt_s:
            limit = Timeout(connect_s=call.timeout.connect_s, attempt_s=attempt_s)
            signed = attrs.evolve(signed, timeout=limit)
        return signed

    async def _renew_token(self, call: Call[T], repeatable: bool) -> bool:  # noqa: FBT001 - private
        """Get another token once a call, if it can use one; return whether there is one."""
        if call.token_renewed or not self.tokens.refuse(call.token):
            return False
        if call.abandoned or not repeatable:
            return False
        call.token_renewed = True
        try:
            call.token = await self._token(call)
        except Exception as exc:  # noqa: BLE001 - a source of the user's own may raise anything
            call.pausing = False
            call.lacks_token = isinstance(exc, VoucherError) and classify(exc).remedy == "wait"
            reason = exc if isinstance(exc, VoucherError) else type(exc).__name__
            _log.warning("token: refused, and no new one can be had (%s)", reason)
            return False
        return True

    async def _settle(
        self,
        call: Call[T],
        error: VoucherError,
        settle: Callable[[], Awaitable[tuple[Verdict, T]]],
        *,
        helpless: bool,
    ) -> T:
        """Read the voucher back and conclude. Raises what the attempts so far prove."""
        try:
            verdict, found = await settle()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the doubt is what matters
            _log.warning("%s: not read back (%s)", call.request.operation, type(exc).__name__)
            raise self.unknown(call, error) from error
        _log.debug("%s: read back: %s", call.request.operation, verdict.value)
        if verdict is Verdict.DONE:
            return found
        # A refusal is of this attempt; one that was lost before may still arrive. So the doubt
        # stays, but repeating what was refused is of no use.
        call.unchanged = verdict is Verdict.UNCHANGED and not helpless
        raise self.unknown(call, error, found) from error


def _describe(call: Call[Any]) -> Attempt:
    started_at = call.sent_at
    assert started_at is not None  # noqa: S101 - for the type checker
    return Attempt(
        operation=call.request.operation,
        method=call.request.method,
        host=call.request.url.host or "",
        number=call.attempts,
        attempt_id=call.attempt_id,
        batch_key=call.batch_key,
        started_at=started_at,
    )
