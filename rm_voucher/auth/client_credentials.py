"""Buys access tokens with the client's credentials, and renews them."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
import secrets
from datetime import UTC, datetime

import attrs

from rm_voucher.auth.store import TokenStore
from rm_voucher.calls.hooks import Hook, Progress, describe, watch
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.calls.outcomes import Safety, classify, may_repeat
from rm_voucher.calls.retry import Retries
from rm_voucher.calls.token_source import TokenSource
from rm_voucher.converters import structure, unstructure
from rm_voucher.exceptions import APIError, ClosedError, DecodeError, VoucherError
from rm_voucher.jsontext import read_json, write_json
from rm_voucher.models import Token
from rm_voucher.redaction import hide_locals
from rm_voucher.runtime import Runtime, is_cancelled
from rm_voucher.settings import Credentials, Environment, RetryPolicy, Timeout
from rm_voucher.transport.base import Request, Transport
from rm_voucher.wire.operations import build_refresh, build_token, fits_header, parse_token

_log = logging.getLogger("rm_voucher")

# RM always sends a lifetime, by its page of 30 days. Without one a token lasts an hour.
_DEFAULT_LIFETIME_S = 3600
_RENEW_AGAIN_AFTER_S = 60.0
# So long a server may refuse the token that it granted in the place of a refused one.
_SETTLES_S = 3.0


@attrs.define(eq=False)
class _Held:
    """A token, and instants in unix seconds."""

    token: Token
    obtained_at: float
    renew_at: float
    expires_at: float
    refresh_until: float
    refused: bool = False
    replaces_refused: bool = False
    is_shared: bool = False
    """Whether it is, or was, in the store: any other one there is newer."""


class ClientCredentialsToken(TokenSource):
    """Buys tokens with client id and secret, and renews them early by refresh (RM's OAuth pages).

    All callers share one request, and cancelling one of them does not abort it: a refresh spends
    the refresh token, so two at once must not happen. A refresh that is refused falls back to the
    credentials. While the present token lives, no call waits for its renewal, and a renewal that
    fails is tried again a minute later.

    A token that was granted because another was refused is kept for 3 s whatever is said of it: a
    server may need a moment to know it, and a token for each refusal would be hundreds.

    With a ``store``, processes share the token too: one at a time renews it, and the others take
    the token that it saved. RM does not document whether a new token ends the earlier ones. If it
    does, processes that don't share their tokens end each other's.
    """

    def __init__(
        self,
        credentials: Credentials,
        environment: Environment | str,
        transport: Transport,
        *,
        retry: RetryPolicy,
        timeout: Timeout,
        runtime: Runtime | None = None,
        hooks: tuple[Hook, ...] = (),
        early_s: float = 3600.0,
        store: TokenStore | None = None,
        name: str = "",
    ) -> None:
        self._credentials = credentials
        self._environment = Environment.of(environment)
        self._transport = transport
        self._timeout = timeout
        self._runtime = runtime or Runtime()
        self._retries = Retries(retry, self._runtime)
        self._hooks = hooks
        self._early_s = early_s
        self._store = store
        self._name = name
        self._fields = log_fields(operation="token", client=name)
        self._held: _Held | None = None
        self._renewal: asyncio.Task[Token] | None = None
        self._awaited: asyncio.Task[Token] | None = None
        """The last renewal that a call had to wait for."""
        self._is_alone = False
        """Whether the store failed at the last renewal."""

    @hide_locals
    async def token(self) -> str:
        """Return the present token, or a new one when it has ended or was refused.

        Raises the errors of the token request. An hour before the end, or at half of a life
        shorter than two hours, a renewal begins beside the calls.
        """
        held, now = self._held, self._runtime.clock()
        if held is None or held.refused or now >= held.expires_at:
            return (await self._renewed()).access_token
        if now >= held.renew_at:
            held.renew_at = now + _RENEW_AGAIN_AFTER_S
            self._begin_renewal()
        return held.token.access_token

    @property
    def is_ready(self) -> bool:
        """Whether there is a token that has not ended, and was not refused."""
        held = self._held
        return held is not None and not held.refused and self._runtime.clock() < held.expires_at

    def refuse(self, token: str) -> bool:
        """Discard ``token`` if it is the present one; return True.

        In its first seconds, one that replaced another is kept; see the class.
        """
        held = self._held
        if held is not None and held.token.access_token == token:
            age_s = self._runtime.clock() - held.obtained_at
            if not (held.replaces_refused and 0 <= age_s < _SETTLES_S):
                held.refused = True
        return True

    async def aclose(self) -> None:
        """Abort a renewal in flight."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None and renewal.get_loop() is asyncio.get_running_loop():
            renewal.cancel()
            await asyncio.wait([renewal])

    async def _renewed(self) -> Token:
        renewal = self._awaited = self._begin_renewal()
        error: VoucherError
        try:
            return await asyncio.shield(renewal)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            error = ClosedError("token: the client was closed")
        except VoucherError as exc:
            error = copy.copy(exc)  # each caller has one of its own, with its own context
            error.__cause__ = exc.__cause__
        raise error

    def _begin_renewal(self) -> asyncio.Task[Token]:
        renewal = self._renewal
        # A task of an event loop that has ended never will.
        if renewal is None or renewal.get_loop() is not asyncio.get_running_loop():
            renewal = asyncio.create_task(self._renew(), name="rm-voucher token")
            renewal.add_done_callback(self._renewal_done)
            self._renewal = renewal
        return renewal

    def _renewal_done(self, task: asyncio.Task[Token]) -> None:
        if self._renewal is task:
            self._renewal = None
        is_awaited = self._awaited is task
        if is_awaited:
            self._awaited = None
        if not task.cancelled() and (error := task.exception()) is not None:
            ours = isinstance(error, VoucherError)
            # Whoever waits for it is told by the error itself.
            level = logging.DEBUG if ours and is_awaited else logging.WARNING
            _log.log(
                level,
                "token: the request failed (%s)",
                error if ours else type(error).__name__,
                extra=self._fields,
            )

    async def _renew(self) -> Token:
        if self._store is None:
            return self._keep(await self._obtain(self._held)).token
        held = failure = None
        try:
            async with self._store.lock():
                shared = self._from_bytes(await self._store.load())
                is_news = shared is not None and self._is_newer(shared)
                latest = shared if is_news else self._held
                if latest is not None and is_news and self._runtime.clock() < latest.expires_at:
                    held = self._keep(latest)
                else:
                    try:
                        held = self._keep(await self._obtain(latest))
                    except Exception as exc:  # noqa: BLE001 - raised below: not the store's
                        failure = exc
                    else:
                        held = await self._share(self._store, held)
            self._is_alone = False
        except (Exception, asyncio.CancelledError) as exc:  # a store may raise anything
            if is_cancelled():
                raise
            level = logging.DEBUG if self._is_alone else logging.WARNING
            self._is_alone = True
            _log.log(
                level,
                "token: the store failed (%s); not shared",
                type(exc).__name__,
                extra=self._fields,
            )
        if failure is not None:
            raise failure
        if held is None:
            held = self._keep(await self._obtain(self._held))
        return held.token

    async def _share(self, store: TokenStore, held: _Held) -> _Held:
        """Save a token that was bought; return it, or the one that another process saved since."""
        if await store.save(self._to_bytes(held)) is False:
            newer = self._from_bytes(await store.load())
            return held if newer is None else self._keep(newer)
        held.is_shared = True
        return held

    def _keep(self, held: _Held) -> _Held:
        held.replaces_refused = self._held is not None and self._held.refused
        self._held = held
        return held

    async def _obtain(self, held: _Held | None) -> _Held:
        now = self._runtime.clock()
        token = None
        if held and held.token.refresh_token and now < held.refresh_until:
            request = build_refresh(self._environment, self._credentials, held.token.refresh_token)
            try:
                token = await self._ask(request)
            except (APIError, DecodeError) as exc:
                _log.info(
                    "token: refresh refused (%s); asking with the credentials",
                    exc,
                    extra=self._fields,
                )
        if token is None:
            token = await self._ask(build_token(self._environment, self._credentials))
        _log.debug("token: a new one, good for %s s", token.expires_in_s, extra=self._fields)
        return self._hold(token, now)

    def _hold(self, token: Token, obtained_at: float) -> _Held:
        life_s = token.expires_in_s or _DEFAULT_LIFETIME_S
        return _Held(
            token,
            obtained_at,
            renew_at=obtained_at + max(life_s - self._early_s, life_s / 2),
            expires_at=obtained_at + life_s,
            refresh_until=obtained_at + (token.refresh_expires_in_s or life_s),
        )

    def _is_newer(self, shared: _Held) -> bool:
        """Return whether another process has renewed the token."""
        held = self._held
        if held is None or shared.token.access_token == held.token.access_token:
            return held is None
        # By the clocks of two machines only if there is nothing better.
        return held.is_shared or shared.obtained_at >= held.obtained_at

    def _to_bytes(self, held: _Held) -> bytes:
        return write_json(
            {
                "application": self._fingerprint(),
                "obtained_at": held.obtained_at,
                "token": unstructure(held.token),
            }
        )

    def _from_bytes(self, stored: bytes | None) -> _Held | None:
        """Return the token of a store, unless it is damaged or another application's."""
        try:
            match read_json(stored or b"null"):
                case {"application": who, "obtained_at": int() | float() as when, "token": wire}:
                    token = structure(wire, Token)
                    if who == self._fingerprint() and fits_header(token.access_token):
                        # Another process's clock may be ahead; it must not lengthen the life.
                        held = self._hold(token, min(when, self._runtime.clock()))
                        return attrs.evolve(held, is_shared=True)
        except (ValueError, DecodeError):
            pass
        return None

    def _fingerprint(self) -> str:
        text = f"{self._environment.oauth_url} {self._credentials.client_id}"
        return hashlib.sha256(text.encode()).hexdigest()

    async def _ask(self, request: Request) -> Token:
        request = attrs.evolve(request, timeout=self._timeout)
        number = 0

        async def exchange(progress: Progress) -> Token:
            response = await self._transport.send(request)
            progress.http_status = response.status
            return parse_token(response)

        async def attempt() -> Token:
            try:
                token = await send()
            except VoucherError as exc:
                self.trouble = str(exc)
                raise
            self.trouble = ""
            return token

        async def send() -> Token:
            nonlocal number
            number += 1
            if not self._hooks:
                return await exchange(Progress())
            return await watch(
                exchange,
                hooks=self._hooks,
                attempt=describe(
                    request,
                    number=number,
                    attempt_id=secrets.token_hex(8),
                    batch_key=None,
                    client=self._name,
                    started_at=datetime.fromtimestamp(self._runtime.clock(), UTC),
                ),
                monotonic=self._runtime.monotonic,
            )

        # Asking twice gives two tokens, which harms nobody.
        return await self._retries.run(
            attempt, repeat_after=lambda error: may_repeat(Safety.READ, classify(error))
        )
