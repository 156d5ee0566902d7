"""The client: one method an operation, and nothing else.

`protocol` says what goes over the wire, `caller` makes the call of it, the transport moves it.
"""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import attrs

from rm_voucher import protocol
from rm_voucher.auth import ClientCredentialsToken, TokenSource
from rm_voucher.caller import Call, Caller
from rm_voucher.exceptions import APIError
from rm_voucher.models import IssuedVoucher, Page, Voucher, VoucherBatch
from rm_voucher.pager import Pager
from rm_voucher.recovery import judge_void
from rm_voucher.retry import RetryPolicy, Safety
from rm_voucher.settings import Credentials, Environment, Limits, Timeout
from rm_voucher.signing import RsaSigner, Signer
from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["VoucherClient"]

T = TypeVar("T")


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
        self._timeout = timeout or Timeout()
        self._get_method = "POST"
        retry = retry or RetryPolicy()
        signer = signer or RsaSigner.from_pem(credentials.private_key_pem())
        self._owned: list[TokenSource | Transport] = []
        if transport is None:
            # Imported here so that those who bring a transport never load aiohttp.
            from rm_voucher.transport.aiohttp import AiohttpTransport

            transport = AiohttpTransport(limits=limits)
            self._owned.append(transport)
        if token_source is None:
            token_source = ClientCredentialsToken(
                credentials,
                environment,
                transport,
                retry=retry,
                timeout=self._timeout,
                clock=clock,
                sleep=sleep,
                random=random,
            )
            self._owned.insert(0, token_source)  # closed first: it uses the transport
        self._caller = Caller(
            transport=transport,
            tokens=token_source,
            signer=signer,
            retry=retry,
            clock=clock,
            sleep=sleep,
            random=random,
            make_nonce=make_nonce,
        )

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
        for owned in self._owned:
            await owned.aclose()

    async def issue(self, batch_key: str, *, timeout: Timeout | None = None) -> IssuedVoucher:
        """Issue one voucher of a batch (RM's page "Issue Voucher").

        The API has no idempotency key: each call that succeeds issues another voucher. It is
        sent again only after an outcome that proves that nothing was done; otherwise it raises
        `OutcomeUnknownError`, and must not simply be repeated. Cancelling it after it was sent
        leaves its outcome unknown as well. When no access token can be had, it raises the token
        request's error, whose text begins with ``token``: then nothing was issued.

        Raises `OutOfStockError`, `ExpiredError` and `NotFoundError` for the batch.
        """
        return await self._caller.finish(self._issue_call(batch_key, timeout))

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
        parse = functools.partial(protocol.parse_void, code=code)
        call = self._call(request, parse, Safety.RECONCILABLE, timeout, code=code)
        call.read_back = lambda: self.get(code, timeout=timeout)
        call.judge = lambda voucher: judge_void(voucher, used_at=used_at)
        return await self._caller.finish(call)

    def vouchers(
        self, batch_key: str, *, cursor: str | None = None, timeout: Timeout | None = None
    ) -> Pager[Voucher]:
        """List the vouchers of a batch (RM's page "Get Voucher Batch By Key"). A read."""

        async def fetch(cursor: str | None) -> Page[Voucher]:
            request = protocol.build_vouchers(self._environment, batch_key, cursor=cursor)
            return await self._caller.finish(
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
            return await self._caller.finish(
                self._call(request, protocol.parse_batches, Safety.READ, timeout)
            )

        return Pager(fetch, cursor)

    def _issue_call(self, batch_key: str, timeout: Timeout | None = None) -> Call[IssuedVoucher]:
        request = protocol.build_issue(self._environment, batch_key)
        return self._call(request, protocol.parse_issue, Safety.ONCE, timeout, batch_key=batch_key)

    async def _get(self, code: str, method: str, timeout: Timeout | None) -> Voucher:
        request = protocol.build_get(self._environment, code, method=method)
        return await self._caller.finish(
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
