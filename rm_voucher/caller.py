"""One call from its request to its end: sign, send, parse, and on an error draw the conclusions.

`retry` says what an error proves, `recovery` what a voucher that was read back proves; here both
meet the transport. It knows no operation.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

import attrs

from rm_voucher.auth import TokenSource
from rm_voucher.exceptions import ConfigurationError, OutcomeUnknownError, VoucherError
from rm_voucher.protocol import sign_request
from rm_voucher.recovery import Verdict
from rm_voucher.retry import Outcome, RetryPolicy, Safety, classify, may_repeat
from rm_voucher.signing import Signer
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["Call", "Caller"]

T = TypeVar("T")

_log = logging.getLogger("rm_voucher")


@attrs.define
class Call(Generic[T]):
    """One call, and what its attempts have shown so far."""

    request: Request
    parse: Callable[[Response], T] = attrs.field(repr=False)
    safety: Safety
    batch_key: str | None = None
    code: str | None = attrs.field(default=None, repr=False)
    # Of a reconcilable operation: how to look, and what it means.
    read_back: Callable[[], Awaitable[T]] | None = None
    judge: Callable[[T], Verdict] | None = None

    token: str = attrs.field(default="", repr=False)
    token_renewed: bool = False
    attempts: int = 0
    attempt_id: str | None = None
    nonce: str | None = None
    sent_at: datetime | None = None
    in_doubt: bool = False
    unchanged: bool = False
    # For those who watch it: whether it waits (for a token, or to be sent again) with nothing
    # done so far, if its safety is ONCE; and that it shall not be sent again.
    pausing: bool = False
    given_up: bool = False

    def may_repeat_after(self, error: VoucherError) -> bool:
        """Return whether the retry policy may attempt the call again after this error."""
        if self.given_up:
            return False
        if isinstance(error, OutcomeUnknownError):
            return self.unchanged
        return may_repeat(self.safety, classify(error))


@attrs.frozen(kw_only=True)
class Caller:
    """Makes calls with what a client was given."""

    transport: Transport
    tokens: TokenSource
    signer: Signer
    retry: RetryPolicy
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]
    make_nonce: Callable[[], str]

    async def finish(self, call: Call[T]) -> T:
        """Attempt the call until it is done, refused, or in doubt."""
        # Outside the attempts, because the token source retries by itself, and because a lost
        # answer to a token request says nothing about the call.
        call.token = await self._token(call)
        return await self.retry.run(
            functools.partial(self._attempt, call),
            repeat_after=call.may_repeat_after,
            sleep=functools.partial(self._pause, call),
            random=self.random,
        )

    async def _token(self, call: Call[T]) -> str:
        call.pausing = True
        token = await self.tokens.token()
        call.pausing = False
        return token

    async def _pause(self, call: Call[T], seconds: float) -> None:
        call.pausing = True
        await self.sleep(seconds)
        call.pausing = False

    async def _attempt(self, call: Call[T]) -> T:
        """Send once; on an error raise what the attempts so far prove."""
        call.unchanged = False
        try:
            return await self._send(call)
        except VoucherError as exc:
            outcome = classify(exc)
            _log.debug(
                "%s attempt %s: %s: %s", call.request.operation, call.attempt_id, outcome.words, exc
            )
            proven = outcome.nothing_done
            harmless = proven or call.safety is Safety.READ
            if outcome.remedy == "token" and harmless and await self._renew_token(call):
                return await self._attempt(call)
            if call.safety is Safety.READ or (proven and not call.in_doubt):
                raise
            call.in_doubt = True
            if call.judge is None or call.read_back is None:
                raise self._unknown(call, exc) from exc
            # Either this answer was lost, or a repeat was refused, maybe because the first arrived.
            return await self._settle(call, exc, call.read_back, call.judge)

    async def _send(self, call: Call[T]) -> T:
        now = self.clock()
        call.attempts += 1
        call.attempt_id = secrets.token_hex(4)
        call.nonce = self.make_nonce()
        call.sent_at = datetime.fromtimestamp(now, UTC)
        try:
            signed = sign_request(
                call.request,
                signer=self.signer,
                token=call.token,
                nonce=call.nonce,
                timestamp=int(now),
            )
        except Exception as exc:  # a signer of the caller's own may raise anything
            raise ConfigurationError(
                f"{call.request.operation}: signing failed ({type(exc).__name__}); nothing was sent"
            ) from exc
        try:
            response = await self.transport.send(signed)
        except asyncio.CancelledError:
            if call.safety is not Safety.READ:
                _log.warning(
                    "%s attempt %s: cancelled in flight, its outcome is unknown (nonce %s)",
                    call.request.operation,
                    call.attempt_id,
                    call.nonce,
                )
            raise
        return call.parse(response)

    async def _renew_token(self, call: Call[T]) -> bool:
        """Get another token once a call; return whether there is one."""
        if call.token_renewed or not self.tokens.refuse(call.token):
            return False
        call.token_renewed = True
        try:
            call.token = await self._token(call)
        except VoucherError as exc:
            call.pausing = False
            _log.warning("token: refused, and no new one can be had (%s)", exc)
            return False
        return True

    async def _settle(
        self,
        call: Call[T],
        error: VoucherError,
        read_back: Callable[[], Awaitable[T]],
        judge: Callable[[T], Verdict],
    ) -> T:
        """Read the voucher back and conclude. Raises what the attempts so far prove."""
        try:
            voucher = await read_back()
        except VoucherError:
            raise self._unknown(call, error) from error
        verdict = judge(voucher)
        if verdict is Verdict.DONE:
            return voucher
        # A refusal is of this attempt; one that was lost before may still arrive. So the doubt
        # stays, but repeating what was refused is of no use.
        call.unchanged = verdict is Verdict.UNCHANGED and classify(error) is not Outcome.REFUSED
        raise self._unknown(call, error, voucher) from error

    @staticmethod
    def _unknown(
        call: Call[T], error: VoucherError, voucher: T | None = None
    ) -> OutcomeUnknownError:
        operation = call.request.operation
        consequence = (
            "a voucher may have been issued; do not repeat it"
            if call.judge is None
            else "look the voucher up before you repeat it"
        )
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
