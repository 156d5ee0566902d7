"""The client: one method an operation. Signs, sends, parses, retries; nothing else.

This is where the layers meet. `protocol` says what goes over the wire, the transport moves it,
`retry` decides what an error proves, `recovery` what a voucher read back proves.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs

from rm_voucher import protocol
from rm_voucher.auth import ClientCredentialsToken, TokenSource
from rm_voucher.exceptions import (
    APIError,
    OutcomeUnknownError,
    VoucherError,
)
from rm_voucher.models import IssuedVoucher, Page, Voucher, VoucherBatch
from rm_voucher.pager import Pager
from rm_voucher.recovery import Verdict, judge_void
from rm_voucher.retry import Outcome, RetryPolicy, Safety, classify, may_repeat
from rm_voucher.settings import Credentials, Environment, Limits, Timeout
from rm_voucher.signing import RsaSigner, Signer
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["VoucherClient"]

T = TypeVar("T")

_log = logging.getLogger("rm_voucher")


@attrs.define
class Call(Generic[T]):
    """One call, and what its attempts have shown so far."""

    request: Request
    parse: Callable[[Response], T]
    safety: Safety
    batch_key: str | None = None
    code: str | None = None
    # Of a reconcilable operation: how to look, and what it means.
    read_back: Callable[[], Awaitable[T]] | None = None
    judge: Callable[[T], Verdict] | None = None

    token: str = ""
    token_renewed: bool = False
    attempts: int = 0
    attempt_id: str | None = None
    nonce: str | None = None
    sent_at: datetime | None = None
    in_doubt: bool = False
    unchanged: bool = False

    def may_repeat_after(self, error: VoucherError) -> bool:
        """Return whether the retry policy may attempt the call again after this error."""
        if isinstance(error, OutcomeUnknownError):
            return self.unchanged
        return may_repeat(self.safety, classify(error))


class VoucherClient:
    """Revenue Monster's voucher API for asyncio.

    Make one per application and share it: it keeps connections, a token and the parsed key. Use
    it as an async context manager or call `aclose`. Constructing it reads and parses the key and
    loads the transport, which takes tens of milliseconds; no call does.

    Every call raises `APIError` (what the server answered), `TransportError` (no answer, on reads
    and on what was provably not sent), `DecodeError` (an answer that is not as documented) or
    `OutcomeUnknownError` (a change that may or may not have happened), all of them
    `VoucherError`. Each takes ``timeout`` for its attempts. Cancelling a read is safe.

    Args:
        credentials: who calls. Only needed to sign and to buy tokens.
        environment: where. The sandbox by default.
        transport: an `AiohttpTransport` of the client's own by default. One that is passed in is
            not closed by the client.
        retry: how often and how patiently a call is attempted.
        timeout: for each attempt.
        limits: for the client's own transport.
        token_source: buys tokens with the credentials by default. One that is passed in is not
            closed by the client.
        signer: signs with the credentials' key by default.
        clock, sleep, random, make_nonce: the time (unix seconds), waiting, chance in [0, 1) and
            the 32 characters of ``X-Nonce-Str``; replace them in tests.

    Raises `ConfigurationError` for a key or setting that can't be used.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        environment: Environment = Environment.SANDBOX,
        transport: Transport | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        limits: Limits | None = None,
        token_source: TokenSource | None = None,
        signer: Signer | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        make_nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._environment = environment
        self._retry = retry or RetryPolicy()
        self._timeout = timeout or Timeout()
        self._signer = signer or RsaSigner.from_pem(credentials.private_key_pem())
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._make_nonce = make_nonce
        self._get_method = "POST"
        self._owned_transport: Transport | None = None
        if transport is None:
            # Imported here so that those who bring a transport never load aiohttp.
            from rm_voucher.transport.aiohttp import AiohttpTransport

            transport = self._owned_transport = AiohttpTransport(limits=limits)
        self._transport = transport
        self._owned_tokens: TokenSource | None = None
        if token_source is None:
            token_source = self._owned_tokens = ClientCredentialsToken(
                credentials,
                environment,
                transport,
                retry=self._retry,
                timeout=self._timeout,
                clock=clock,
                sleep=sleep,
                random=random,
            )
        self._tokens = token_source

    @classmethod
    def from_env(cls, *, environment: Environment | None = None) -> Self:
        """Return a client from the ``RM_…`` variables; see `rm_voucher.settings`."""
        return cls(
            Credentials.from_env(),
            environment=Environment.from_env() if environment is None else environment,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what the client made itself. It may be called more than once."""
        if self._owned_tokens is not None:
            await self._owned_tokens.aclose()
        if self._owned_transport is not None:
            await self._owned_transport.aclose()

    # Operations ----------------------------------------------------------------------------------

    async def issue(self, batch_key: str, *, timeout: Timeout | None = None) -> IssuedVoucher:
        """Issue one voucher of a batch (RM's page "Issue Voucher").

        The API has no idempotency key: each call that succeeds issues another voucher. It is
        sent again only after an outcome that proves that nothing was done; otherwise it raises
        `OutcomeUnknownError`, and must not simply be repeated. Cancelling it after it was sent
        leaves its outcome unknown as well.

        Raises `OutOfStockError`, `ExpiredError` and `NotFoundError` for the batch.
        """
        return await self._finish(self._issue_call(batch_key, timeout))

    async def get(self, code: str, *, timeout: Timeout | None = None) -> Voucher:
        """Look up a voucher (RM's page "Get Voucher By Code"). A read: it may be repeated.

        The page says POST, RM's SDKs send GET: when the server refuses the one, the other is
        tried, and what worked is kept for the life of the client. Raises `NotFoundError`.
        """
        method = self._get_method
        other = "GET" if method == "POST" else "POST"
        try:
            return await self._get(code, method, timeout)
        except APIError as exc:
            if not protocol.is_wrong_method(exc):
                raise
            voucher = await self._get(code, other, timeout)
            self._get_method = other
            return voucher

    async def void(
        self,
        code: str,
        *,
        store_id: str | None = None,
        used_at: datetime | None = None,
        timeout: Timeout | None = None,
    ) -> Voucher:
        """Void a voucher, that is, use it at a shop (RM's page "Void Voucher").

        Pass ``used_at``, an aware datetime with microseconds, unique to this till: when the
        answer is lost, the voucher is read back, and only this instant proves that it was this
        call that voided it. A voucher that was voided without that proof raises
        `OutcomeUnknownError` with the voucher attached: another till may have done it. ``usedAt``
        is sent only when given; RM's Go SDK sends it, no page documents it.

        Repeating it is harmless: a void voucher is refused with `VoucherStateError`. Cancelling
        it after it was sent leaves its outcome unknown; `get` shows it. Raises `NotFoundError`,
        `VoucherStateError` (with `ExpiredError`), `PermissionDeniedError` (another merchant's).
        """
        request = protocol.build_void(self._environment, code, store_id=store_id, used_at=used_at)
        call = self._call(request, protocol.parse_void, Safety.RECONCILABLE, timeout, code=code)
        call.read_back = lambda: self.get(code, timeout=timeout)
        call.judge = lambda voucher: judge_void(voucher, used_at=used_at)
        return await self._finish(call)

    def vouchers(
        self, batch_key: str, *, cursor: str | None = None, timeout: Timeout | None = None
    ) -> Pager[Voucher]:
        """List the vouchers of a batch (RM's page "Get Voucher Batch By Key"). A read."""

        async def fetch(cursor: str | None) -> Page[Voucher]:
            request = protocol.build_vouchers(self._environment, batch_key, cursor=cursor)
            return await self._finish(
                self._call(request, protocol.parse_vouchers, Safety.READ, timeout)
            )

        return Pager(fetch, cursor)

    def batches(
        self,
        *,
        status: str | None = None,
        is_static: bool | None = None,
        cursor: str | None = None,
        timeout: Timeout | None = None,
    ) -> Pager[VoucherBatch]:
        """List the merchant's batches (RM's page "Get Voucher Batches"). A read."""

        async def fetch(cursor: str | None) -> Page[VoucherBatch]:
            request = protocol.build_batches(
                self._environment, status=status, is_static=is_static, cursor=cursor
            )
            return await self._finish(
                self._call(request, protocol.parse_batches, Safety.READ, timeout)
            )

        return Pager(fetch, cursor)

    # One call ------------------------------------------------------------------------------------

    def _issue_call(self, batch_key: str, timeout: Timeout | None = None) -> Call[IssuedVoucher]:
        request = protocol.build_issue(self._environment, batch_key)
        return self._call(request, protocol.parse_issue, Safety.ONCE, timeout, batch_key=batch_key)

    async def _get(self, code: str, method: str, timeout: Timeout | None) -> Voucher:
        request = protocol.build_get(self._environment, code, method=method)
        return await self._finish(
            self._call(request, protocol.parse_get, Safety.READ, timeout, code=code)
        )

    def _call(
        self,
        request: Request,
        parse: Callable[[Response], T],
        safety: Safety,
        timeout: Timeout | None,
        *,
        batch_key: str | None = None,
        code: str | None = None,
    ) -> Call[T]:
        request = attrs.evolve(request, timeout=timeout or self._timeout)
        return Call(request, parse, safety, batch_key, code)

    async def _finish(self, call: Call[T]) -> T:
        """Attempt the call until it is done, refused, or in doubt."""
        # Outside the attempts, because the token source retries by itself, and because a lost
        # answer to a token request says nothing about the call.
        call.token = await self._tokens.token()
        return await self._retry.run(
            functools.partial(self._attempt, call),
            repeat_after=call.may_repeat_after,
            sleep=self._sleep,
            random=self._random,
        )

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
            return await self._settle(call, exc, outcome, call.read_back, call.judge)

    async def _send(self, call: Call[T]) -> T:
        now = self._clock()
        call.attempts += 1
        call.attempt_id = secrets.token_hex(4)
        call.nonce = self._make_nonce()
        call.sent_at = datetime.fromtimestamp(now, UTC)
        signed = protocol.sign_request(
            call.request,
            signer=self._signer,
            token=call.token,
            nonce=call.nonce,
            timestamp=int(now),
        )
        try:
            response = await self._transport.send(signed)
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
        if call.token_renewed or not self._tokens.refuse(call.token):
            return False
        call.token_renewed = True
        try:
            call.token = await self._tokens.token()
        except VoucherError as exc:
            _log.warning("token: refused, and no new one can be had (%s)", exc)
            return False
        return True

    async def _settle(
        self,
        call: Call[T],
        error: VoucherError,
        outcome: Outcome,
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
        if verdict is Verdict.UNCHANGED and outcome is Outcome.REFUSED:
            raise error  # the server's word, and the voucher agrees with it
        call.unchanged = verdict is Verdict.UNCHANGED
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
